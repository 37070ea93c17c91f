//! Connections over loopback, inside a runtime.
#![allow(dead_code, reason = "each test file uses some")]

use std::os::unix::net::UnixStream as PlainUnixStream;

use netpoller::{Runtime, TcpListener, TcpStream, UnixStream};

#[allow(unused_imports, reason = "each test file uses some")]
pub use super::schedule::virtual_runtime;

/// Two ends of one connection, both in the runtime that runs this.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (server, client)
}

/// A connection whose other end is a plain, blocking socket.
pub fn plain_pair(runtime: &Runtime) -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ours = runtime.block_on(TcpStream::connect(address)).unwrap();
    (ours, listener.accept().unwrap().0)
}

/// A Unix stream whose other end is a plain, blocking socket. Call this inside a runtime.
pub fn plain_unix_pair() -> (UnixStream, PlainUnixStream) {
    let (ours, theirs) = PlainUnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (UnixStream::from_std(ours).unwrap(), theirs)
}

/// A listener at a free port.
pub async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A new connection to a listener.
pub async fn dial(listener: &TcpListener) -> TcpStream {
    let address = listener.local_addr().unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Sends a message, and waits for its echo.
pub async fn ping(client: &TcpStream) {
    client.write_all(b"ping").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
}
