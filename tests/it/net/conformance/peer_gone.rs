//! The peer's going, by FIN or by RST, seen from here.
//!
//! Mirrors Go's `net/net_test.go` (CloseUnblocksRead, NotTemporaryRead).

use std::io;
use std::pin::pin;

use futures_lite::future::poll_once;
use netpoller::net::Stream;
use netpoller::{NetError, OpError, TcpListener, TcpStream, spawn, time};

use super::transport::*;

async fn peers_close<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let reader = near.clone();
    let reading = spawn(async move { reader.read(&mut [0]).await });
    let watcher = near.clone();
    let watching = spawn(async move { watcher.hung_up().await });
    time::sleep(millis(20)).await;
    assert!(!watching.is_finished(), "the peer has not gone yet");
    far.close().unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), 0);
    watching.await.unwrap().unwrap();
    near.hung_up().await.unwrap();
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn the_peers_close_ends_a_parked_read_with_end_of_file() {
    over_streams(
        Clock::Virtual,
        peers_close::<Tcp4>,
        peers_close::<Tcp6>,
        peers_close::<UnixPath>,
    );
}

async fn write_after_the_peer_closed<T: Transport>() {
    let (near, far) = pair::<T>().await;
    far.close().unwrap();
    near.hung_up().await.unwrap();
    // The first write may succeed: it is what makes the peer's system say that it has gone.
    let error = loop {
        if let Err(error) = near.write_all(&[0; 1024]).await {
            break error;
        }
    };
    let broken = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    assert!(broken.contains(&error.kind()), "{error}");
    assert!(
        !error.is_temporary() && !error.is_timeout() && !error.is_closed(),
        "{error}"
    );
}

#[test]
fn a_write_after_the_peer_closed_fails_without_a_signal() {
    over_streams(
        Clock::Real,
        write_after_the_peer_closed::<Tcp4>,
        write_after_the_peer_closed::<Tcp6>,
        write_after_the_peer_closed::<UnixPath>,
    );
}

async fn end_with_data<T: Transport>() {
    let (near, far) = pair::<T>().await;
    far.try_write(b"last words").unwrap();
    far.close().unwrap();
    near.hung_up().await.unwrap();
    assert_reads_ten_bytes_and_the_end(&near).await;

    // The same, under a read that is parked: data and end come in one event.
    let (near, far) = pair::<T>().await;
    let reader = near.clone();
    let (mut first, mut buffer) = ([0; 1024], [0; 1024]);
    let mut parked = pin!(reader.read(&mut first));
    assert!(poll_once(&mut parked).await.is_none());
    far.try_write(b"first words, ").unwrap();
    far.try_write(b"last words").unwrap();
    far.close().unwrap();
    let mut got = parked.await.unwrap();
    while got < 23 {
        let more = near.read(&mut buffer).await.unwrap();
        assert!(more > 0, "end of file after {got} of 23");
        got += more;
    }
    assert_eq!(near.read(&mut buffer).await.unwrap(), 0);
    assert_eq!(near.read(&mut buffer).await.unwrap(), 0);
}

async fn assert_reads_ten_bytes_and_the_end<K>(stream: &Stream<K>) {
    let mut buffer = [0; 1024];
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 10);
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
}

#[test]
fn an_end_of_file_that_comes_with_data_comes_after_it() {
    over_streams(
        Clock::Real,
        end_with_data::<Tcp4>,
        end_with_data::<Tcp6>,
        end_with_data::<UnixPath>,
    );
}

async fn closed_with_data_unread<T: Transport>() {
    let (near, far) = pair::<T>().await;
    near.write_all(b"never read").await.unwrap();
    far.readable().await.unwrap();
    let reader = near.clone();
    let reading = spawn(async move { reader.read(&mut [0; 64]).await });
    let_others_park().await;
    far.close().unwrap();
    near.hung_up().await.unwrap();
    assert_reset(reading.await.unwrap());
}

/// Linux reports that its bytes were not read. Other systems may report an end of file.
#[track_caller]
fn assert_reset(result: io::Result<usize>) {
    match result {
        Ok(0) if !cfg!(target_os = "linux") => {}
        Ok(got) => panic!("read {got} instead of a reset"),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
            assert!(!error.is_temporary(), "{error}");
            assert!(!error.is_timeout() && !error.is_closed(), "{error}");
        }
    }
}

#[test]
fn a_peer_that_closes_with_data_unread_resets() {
    over_streams(
        Clock::Real,
        closed_with_data_unread::<Tcp4>,
        closed_with_data_unread::<Tcp6>,
        closed_with_data_unread::<UnixPath>,
    );
}

/// Go's TestNotTemporaryRead: linger zero is a RST. TCP only.
async fn aborted(listener: TcpListener) {
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    far.write_all(b"will it be read?").await.unwrap();
    near.readable().await.unwrap();
    far.abort().unwrap();
    near.hung_up().await.unwrap();
    // What had come before may be thrown away or read; then there is the reset, and no end.
    let error = match near.read(&mut [0; 64]).await {
        Ok(16) => near.read(&mut [0; 64]).await.unwrap_err(),
        Ok(got) => panic!("read {got} after a reset"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    assert!(!error.is_temporary() && !error.is_timeout(), "{error}");
    assert_eq!(
        error.op_error().and_then(OpError::raw_os_error),
        Some(libc::ECONNRESET)
    );
}

#[test]
fn a_reset_with_data_unread_is_an_error_and_not_temporary() {
    by(Clock::Real, "tcp4", || async {
        aborted(Tcp4::listen().await.unwrap()).await
    });
    by(Clock::Real, "tcp6", || async {
        aborted(Tcp6::listen().await.unwrap()).await
    });
}
