//! Bytes to send, and all that comes.

use std::io;

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
pub async fn read_all<K>(stream: &Stream<K>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let more = stream.read_with(<[u8]>::to_vec).await?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

/// What one read gives, with so much room.
pub async fn read<K>(stream: &Stream<K>, room: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; room];
    let got = stream.read(&mut buffer).await?;
    buffer.truncate(got);
    Ok(buffer)
}
