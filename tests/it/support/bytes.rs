//! Bytes to send, and all that comes.

use netpoller::net::Stream;

/// `count` bytes that are different everywhere.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Everything up to the end of file.
pub async fn read_all<K>(stream: &Stream<K>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut more = true;
    while more {
        let take = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            !bytes.is_empty()
        };
        more = stream.read_with(take).await.unwrap();
    }
    all
}
