//! What is held by the thousand stays small. What is private is held to its size by an assertion
//! beside it in `src/`.

use std::mem::size_of;

use netpoller::reactor::{Descriptor, Direction, Park, Token};
use netpoller::{Conn, ConnHandle, JoinHandle, TcpListener, TcpStream, UdpSocket, UnixStream};

const WORD: usize = size_of::<usize>();

#[test]
fn handles_are_a_word() {
    assert_eq!(size_of::<TcpStream>(), WORD);
    assert_eq!(size_of::<Option<TcpStream>>(), WORD);
    assert_eq!(size_of::<TcpListener>(), WORD);
    assert_eq!(size_of::<UdpSocket>(), WORD);
    assert_eq!(size_of::<UnixStream>(), WORD);
    assert_eq!(size_of::<Descriptor<u64>>(), WORD);
    assert_eq!(size_of::<Token>(), WORD);
}

#[test]
fn what_an_idle_connection_keeps_is_a_few_words() {
    assert!(size_of::<Conn>() <= 6 * WORD);
    assert!(size_of::<ConnHandle>() <= 2 * WORD);
    assert!(size_of::<JoinHandle<()>>() <= 4 * WORD);
    assert_eq!(size_of::<Direction>(), 1);
    assert!(size_of::<Park<u64>>() <= 2 * WORD);
}

#[test]
fn the_hot_types_of_the_source_assert_their_sizes() {
    // The type, and the file that asserts its size when it is compiled.
    for (name, file) in HOT {
        let source = crate::tree::read(file);
        let mut lines = source.lines();
        let asserts =
            |line: &str| line.contains("assert!(") && line.contains(&format!("size_of::<{name}"));
        assert!(lines.any(asserts), "{file} asserts no size of {name}");
    }
}

const HOT: [(&str, &str); 5] = [
    ("PollDesc", "src/reactor/poll_desc.rs"),
    ("Socket", "src/runtime/socket.rs"),
    ("Endpoints", "src/endpoints.rs"),
    ("Slot", "src/runtime/machine.rs"),
    ("Conn", "src/connection/run.rs"),
];
