//! `lines`, `tlv`, `frames`: messages out of bytes, however they are cut up.

use std::io;

use futures_lite::future::block_on;
use futures_lite::io::Cursor;
use netpoller::{TcpStream, spawn, yield_now};

use crate::frames::{self, put_frame};
use crate::lines::splitter::{Split, Splitter, line, word};
use crate::loopback::pair;
use crate::tlv::{self, LIMIT, Value};
use crate::{allocator, listener, read_all, run};

const PROVERB: &str = "The bigger the interface, the weaker the abstraction.";
const WORDS: [&str; 8] = [
    "The",
    "bigger",
    "the",
    "interface,",
    "the",
    "weaker",
    "the",
    "abstraction.",
];

// ---- lines ----

/// The words of what comes in these pieces.
fn words<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut splitter = Splitter::new(word);
    let mut words = Vec::new();
    // An empty piece would be the end.
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
    for piece in pieces.chain([&b""[..]]) {
        splitter.push(piece);
        words.extend(std::iter::from_fn(|| splitter.take().unwrap()));
    }
    words
        .into_iter()
        .map(|word| String::from_utf8(word).unwrap())
        .collect()
}

#[test]
fn the_proverb_is_its_8_words_however_it_is_cut() {
    let bytes = PROVERB.as_bytes();
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(words(pieces), WORDS, "cut at {first} and {second}");
        }
    }
    assert_eq!(words(bytes.chunks(1)), WORDS);
}

#[test]
fn lines_end_with_a_newline_or_with_the_stream() {
    let mut splitter = Splitter::new(line);
    splitter.push(b"one\r\n\ntwo\nthree");
    let taken = |splitter: &mut Splitter| {
        let line = splitter.take().unwrap();
        line.map(|line| String::from_utf8(line).unwrap())
    };
    assert_eq!(taken(&mut splitter).as_deref(), Some("one"));
    assert_eq!(taken(&mut splitter).as_deref(), Some(""));
    assert_eq!(taken(&mut splitter).as_deref(), Some("two"));
    assert_eq!(taken(&mut splitter), None);
    splitter.push(b"");
    assert_eq!(taken(&mut splitter).as_deref(), Some("three"));
    assert_eq!(taken(&mut splitter), None);
}

#[test]
fn a_token_is_taken_or_refused_however_it_is_cut() {
    // A line at the limit, with both ends of line, and one above it; words after much white space.
    let limit = Splitter::LONGEST;
    let at_limit = "x".repeat(limit);
    for (text, split, taken) in [
        (at_limit.clone() + "\n", line as Split, true),
        (at_limit.clone() + "\r\n", line, true),
        (at_limit.clone(), line, true),
        (at_limit.clone() + "x\n", line, false),
        (at_limit.clone() + "x", line, false),
        ("x".repeat(100_000) + "\n", line, false),
        (" ".repeat(3 * limit) + &at_limit, word, true),
        (at_limit.clone() + "x ", word, false),
    ] {
        for piece in [100, 1_000, limit - 1, limit, limit + 1, 10 * limit] {
            let mut splitter = Splitter::new(split);
            let mut first = Ok(None);
            for piece in text.as_bytes().chunks(piece).chain([&b""[..]]) {
                if matches!(first, Ok(None)) {
                    splitter.push(piece);
                    first = splitter.take();
                }
            }
            let length = first
                .as_ref()
                .map_or(0, |token| token.as_ref().unwrap().len());
            assert_eq!(first.is_ok(), taken, "{} bytes by {piece}", text.len());
            assert!(!taken || length == limit, "{length}");
        }
    }
}

#[test]
fn a_line_comes_back_as_its_words_and_one_without_end_is_refused() {
    run(async {
        let (listener, addr) = listener().await;
        spawn(crate::lines::serve(listener));
        let client = TcpStream::connect(&addr).await.unwrap();
        for piece in PROVERB.as_bytes().chunks(5) {
            client.write_all(piece).await.unwrap();
            yield_now().await;
        }
        client.write_all(b"\n").await.unwrap();
        client.close_write().unwrap();
        let answer = String::from_utf8(read_all(&client).await.unwrap()).unwrap();
        assert_eq!(answer, format!("8: {}\n", WORDS.join("|")));

        let endless = TcpStream::connect(&addr).await.unwrap();
        let ended = async {
            loop {
                endless.write_all(&[b'x'; 4096]).await?;
            }
        };
        let ended: io::Result<()> = ended.await;
        assert!(ended.is_err());
    });
}

// ---- type, length, value ----

async fn bytes_of(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        tlv::write(&mut bytes, value).await.unwrap();
    }
    bytes
}

/// All values in these bytes, or the error among them.
async fn values_of(bytes: &[u8]) -> io::Result<Vec<Value>> {
    let mut reader = Cursor::new(bytes);
    let mut values = Vec::new();
    while let Some(value) = tlv::read(&mut reader).await? {
        values.push(value);
    }
    Ok(values)
}

fn head(kind: u8, length: u32) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes()].concat()
}

#[test]
fn mixed_frames_go_there_and_back_over_a_socket() {
    run(async {
        let (listener, addr) = listener().await;
        spawn(tlv::serve(listener));
        let client = TcpStream::connect(&addr).await.unwrap();
        let largest: Vec<u8> = (0..LIMIT).map(|n| (n % 251) as u8).collect();
        for value in [
            Value::String("Clear is better than clever.".into()),
            Value::Binary(vec![0, 1, 2, 255]),
            Value::String(String::new()),
            Value::Binary(largest),
            Value::String("Don't panic.".into()),
        ] {
            let sending = spawn({
                let (client, value) = (client.clone(), value.clone());
                async move { tlv::write(&mut &client, &value).await }
            });
            assert!(tlv::read(&mut &client).await.unwrap() == Some(value));
            sending.await.unwrap().unwrap();
        }
        client.close_write().unwrap();
        assert_eq!(tlv::read(&mut &client).await.unwrap(), None);
    });
}

#[test]
fn a_frame_may_arrive_one_byte_at_a_time() {
    run(async {
        let (ours, theirs) = pair().await;
        let value = Value::String("Errors are values.".into());
        let bytes = bytes_of(std::slice::from_ref(&value)).await;
        let reading = spawn(async move { tlv::read(&mut &theirs).await });
        for byte in bytes {
            ours.write_all(&[byte]).await.unwrap();
            yield_now().await;
        }
        assert_eq!(reading.await.unwrap().unwrap(), Some(value));
    });
}

#[test]
fn the_log_has_the_length_of_a_value_and_not_its_payload() {
    let value = Value::Binary(vec![7; LIMIT as usize]);
    assert_eq!(tlv::summary(&value), "binary, 10485760 bytes");
    let value = Value::String("hello".into());
    assert_eq!(tlv::summary(&value), "string, 5 bytes");
}

#[test]
fn a_gigabyte_is_refused_before_anything_is_allocated() {
    let bytes = head(1, 1 << 30);
    let (peak, read) = allocator::peak(|| block_on(values_of(&bytes)));
    assert_eq!(
        read.unwrap_err().to_string(),
        "maximum payload size exceeded"
    );
    assert!(peak < 1024, "{peak} bytes");

    let too_long = Value::Binary(vec![0; LIMIT as usize + 1]);
    let error = block_on(tlv::write(&mut Vec::new(), &too_long)).unwrap_err();
    assert_eq!(error.to_string(), "maximum payload size exceeded");
}

#[test]
fn ten_megabytes_that_are_only_declared_are_not_allocated() {
    let mut bytes = head(1, LIMIT);
    bytes.extend([0; 10_000]);
    let (peak, read) = allocator::peak(|| block_on(values_of(&bytes)));
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(peak <= 2 * bytes.len() + 1024, "{peak} bytes");
}

#[test]
fn an_unknown_type_invalid_utf_8_and_half_a_frame_are_errors() {
    for (bytes, error) in [
        (head(3, 0), "unknown type 3"),
        ([head(2, 1), vec![0xff]].concat(), "invalid utf-8"),
        (vec![1, 0, 0], "unexpected"),
        ([head(1, 2), vec![0]].concat(), "unexpected"),
    ] {
        let said = block_on(values_of(&bytes)).unwrap_err().to_string();
        assert!(said.contains(error), "{said}");
    }
}

// ---- request and response ----

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let (listener, addr) = listener().await;
        spawn(frames::serve(listener));
        let client = TcpStream::connect(&addr).await.unwrap();
        let numbers = 0..1000;
        let requests = numbers.map(|n| format!("set name value {n}"));
        let requests: Vec<_> = requests.flat_map(|set| [set, "get name".into()]).collect();
        let answers = frames::ask(&client, &requests).await.unwrap();
        for (n, answer) in answers.chunks(2).enumerate() {
            assert_eq!(answer, ["ok", &format!("value {n}")]);
        }
        // Another connection, the same store.
        let other = TcpStream::connect(&addr).await.unwrap();
        let answers = frames::ask(&other, &["get name", "get nothing", "what?"]).await;
        let said = [
            "value 999",
            "nothing is known of nothing",
            "neither set nor get: what?",
        ];
        assert_eq!(answers.unwrap(), said);
    });
}

#[test]
fn half_a_frame_waits_for_its_other_half() {
    run(async {
        let (listener, addr) = listener().await;
        spawn(frames::serve(listener));
        let client = TcpStream::connect(&addr).await.unwrap();
        let mut bytes = Vec::new();
        put_frame(&mut bytes, "get a");
        put_frame(&mut bytes, "get b");
        // All of the first, and half of the second: one answer.
        client.write_all(&bytes[..13]).await.unwrap();
        let mut answer = [0; 4 + 21];
        client.read_exact(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"nothing is known of a"));
        let none = client.try_read(&mut [0]).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        client.write_all(&bytes[13..]).await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"nothing is known of b"));
    });
}
