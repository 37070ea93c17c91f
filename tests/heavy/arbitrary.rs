//! The parsers of `tlv`, `frames` and `http` take any bytes without a panic.

use futures_lite::future::block_on;
use futures_lite::io::Cursor;
use proptest::prelude::*;

use crate::allocator;
use crate::frames::Frames;
use crate::http::request::take;
use crate::tlv::{self, Value};

fn value() -> impl Strategy<Value = Value> {
    let binary = proptest::collection::vec(any::<u8>(), 0..9000);
    prop_oneof![
        binary.prop_map(Value::Binary),
        any::<String>().prop_map(Value::String),
    ]
}

/// Arbitrary bytes, and bytes that begin as a frame does, so that the parser gets further.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = || proptest::collection::vec(any::<u8>(), 0..10_000);
    let framed = (1..=2_u8, any::<u32>(), 0..=32_u32, any_bytes());
    prop_oneof![
        any_bytes(),
        framed.prop_map(|(kind, length, shift, rest)| {
            let length = length.checked_shr(shift).unwrap_or(0).to_be_bytes();
            [&[kind][..], &length, &rest].concat()
        }),
    ]
}

/// Reads values until the end or the first error.
async fn values_of(bytes: &[u8]) -> std::io::Result<Vec<Value>> {
    let mut reader = Cursor::new(bytes);
    let mut values = Vec::new();
    while let Some(value) = tlv::read(&mut reader).await? {
        values.push(value);
    }
    Ok(values)
}

async fn bytes_of(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        tlv::write(&mut bytes, value).await.unwrap();
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tlv_takes_any_bytes_and_holds_no_more_than_came(bytes in bytes()) {
        let first = || block_on(tlv::read(&mut Cursor::new(&bytes)));
        let (peak, _) = allocator::peak(first);
        prop_assert!(peak <= 2 * bytes.len() + 5 * 1024, "{} bytes for {}", peak, bytes.len());
        let _ = block_on(values_of(&bytes));
    }

    #[test]
    fn tlv_reads_what_it_has_written(values in proptest::collection::vec(value(), 0..8)) {
        let read = block_on(async { values_of(&bytes_of(&values).await).await });
        prop_assert_eq!(read.unwrap(), values);
    }

    #[test]
    fn frames_take_any_bytes(bytes in bytes(), cut in 1..5000_usize) {
        let mut frames = Frames::default();
        for piece in bytes.chunks(cut) {
            frames.push(piece);
            while let Ok(Some(_)) = frames.take() {}
        }
    }

    #[test]
    fn http_takes_any_bytes(mut bytes: Vec<u8>, text in "(GET|POST|.*) [ -~\r\n:]*") {
        let _ = take(&mut bytes);
        let _ = take(&mut text.into_bytes());
    }
}
