//! Writing and reading: large data, many pieces, several tasks.
//!
//! Mirrors Go's `net/writev_test.go`, `net/write_unix_test.go`, TestTCPBig (`net/tcpsock_test.go`)
//! and the read and write locks of `internal/poll/fd_mutex.go`.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::rc::Rc;

use netpoller::net::Stream;
use netpoller::{NetError, OpError, spawn, time};

use super::transport::*;
use crate::support::bytes::noise;

/// Go's Buffers.WriteTo: whatever a write takes, the rest goes with the next.
async fn write_buffers<K>(stream: &Stream<K>, buffers: &mut [IoSlice<'_>]) -> io::Result<usize> {
    let mut rest = buffers;
    let mut written = 0;
    while !rest.is_empty() {
        let gone = stream.write_vectored(rest).await?;
        written += gone;
        IoSlice::advance_slices(&mut rest, gone);
    }
    Ok(written)
}

async fn write_vectored<T: Transport>() {
    for pieces in [0, 1, 10, 1023, 1024, 1025, 5000] {
        let (near, far) = pair::<T>().await;
        let all = noise(pieces);
        let mut buffers: Vec<_> = all.chunks(1).map(IoSlice::new).collect();
        assert_eq!(write_buffers(&near, &mut buffers).await.unwrap(), pieces);
        near.close().unwrap();
        assert!(read_to_end(&far).await.unwrap() == all, "{pieces} pieces");
    }
}

#[test]
fn any_number_of_buffers_arrives_in_order() {
    over_streams(
        Clock::Real,
        write_vectored::<Tcp4>,
        write_vectored::<Tcp6>,
        write_vectored::<UnixPath>,
    );
}

/// More buffers than the system takes at once, at either end; and half of them are empty.
async fn many_buffers<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let mut buffers = vec![IoSlice::new(&[]); 1500];
    let all = noise(1500);
    buffers.extend(all.chunks(1).map(IoSlice::new));
    // Empty buffers are not skipped here. A write that took nothing would mean a full sink.
    let mut gone = 0;
    while gone < all.len() {
        let rest = &buffers[gone + usize::from(gone > 0) * 1500..];
        let more = near.write_vectored(rest).await.unwrap();
        assert!(more > 0, "after {gone}");
        gone += more;
    }
    let (mut none, mut got) = ([[0; 0]; 1500], vec![0; 1500]);
    let mut filled = 0;
    while filled < got.len() {
        let none = none.iter_mut().map(|none| IoSliceMut::new(none));
        let pieces = got[filled..].chunks_mut(1).map(IoSliceMut::new);
        let mut buffers: Vec<_> = none.chain(pieces).collect();
        let more = far.read_vectored(&mut buffers).await.unwrap();
        assert!(more > 0, "no end of file after {filled}");
        filled += more;
    }
    assert!(got == all);
}

#[test]
fn more_buffers_than_the_system_takes_and_empty_ones_before_lose_nothing() {
    over_streams(
        Clock::Real,
        many_buffers::<Tcp4>,
        many_buffers::<Tcp6>,
        many_buffers::<UnixPath>,
    );
}

/// Pieces of all sizes, more of them than fits: partial writes end within pieces.
async fn write_vectored_big<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let all = noise(8 << 20);
    let expected = all.clone();
    let writer = spawn(async move {
        let mut pieces = Vec::new();
        let mut rest = &all[..];
        for length in [0, 1, 100, 70_000, 0, 3, 1 << 20].into_iter().cycle() {
            let (piece, more) = rest.split_at(rest.len().min(length));
            pieces.push(IoSlice::new(piece));
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        let written = write_buffers(&near, &mut pieces).await.unwrap();
        near.close().unwrap();
        written
    });
    assert!(read_to_end(&far).await.unwrap() == expected);
    assert_eq!(writer.await.unwrap(), 8 << 20);
}

#[test]
fn more_buffers_than_fit_wait_and_arrive() {
    over_streams(
        Clock::Real,
        write_vectored_big::<Tcp4>,
        write_vectored_big::<Tcp6>,
        write_vectored_big::<UnixPath>,
    );
}

async fn write_vectored_error<T: Transport>() {
    let (near, far) = pair::<T>().await;
    far.close().unwrap();
    let piece = vec![0; 1 << 20];
    let mut buffers = vec![IoSlice::new(&piece); 1024];
    let error = write_buffers(&near, &mut buffers).await.unwrap_err();
    assert_gone(&error);
}

#[test]
fn writing_many_buffers_to_a_peer_that_went_fails() {
    over_streams(
        Clock::Real,
        write_vectored_error::<Tcp4>,
        write_vectored_error::<Tcp6>,
        write_vectored_error::<UnixPath>,
    );
}

#[track_caller]
fn assert_gone(error: &io::Error) {
    let number = error.op_error().and_then(OpError::raw_os_error);
    let expected = [Some(libc::EPIPE), Some(libc::ECONNRESET)];
    assert!(expected.contains(&number), "{error}");
    assert_eq!(error.op_error().unwrap().op, "write");
}

async fn read_vectored<T: Transport>() {
    let (near, far) = pair::<T>().await;
    near.write_all(b"0123456789").await.unwrap();
    let (mut three, mut none, mut twenty) = ([0; 3], [0; 0], [0; 20]);
    let mut got = 0;
    while got < 10 {
        // However it is cut up, what comes fills one buffer after the other.
        let three = &mut three[got.min(3)..];
        let twenty = &mut twenty[got.saturating_sub(3)..];
        let mut buffers = [three, &mut none, twenty].map(IoSliceMut::new);
        got += far.read_vectored(&mut buffers).await.unwrap();
    }
    assert_eq!((&three, &twenty[..7]), (b"012", &b"3456789"[..]));
}

#[test]
fn reading_into_many_buffers_fills_them_in_order() {
    over_streams(
        Clock::Real,
        read_vectored::<Tcp4>,
        read_vectored::<Tcp6>,
        read_vectored::<UnixPath>,
    );
}

async fn peek<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let mut buffer = [0; 8];
    near.write_all(b"ab").await.unwrap();
    // Shorter than its buffer, which must prove nothing: the bytes are still there.
    assert_eq!(far.peek(&mut buffer).await.unwrap(), 2);
    assert_eq!(far.peek(&mut buffer).await.unwrap(), 2);
    assert_eq!(far.read(&mut buffer[..1]).await.unwrap(), 1);
    assert_eq!(far.peek(&mut buffer).await.unwrap(), 1);
    assert_eq!(far.read(&mut buffer).await.unwrap(), 1);
    assert_eq!(buffer[0], b'b');
    near.close().unwrap();
    assert_eq!(far.peek(&mut buffer).await.unwrap(), 0);
    assert_eq!(far.read(&mut buffer).await.unwrap(), 0);
}

#[test]
fn peeking_takes_nothing() {
    over_streams(Clock::Real, peek::<Tcp4>, peek::<Tcp6>, peek::<UnixPath>);
}

async fn big<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let sent = noise(16 << 20);
    let expected = sent.clone();
    let writer = spawn(async move {
        near.write_all(&sent).await.unwrap();
        near.close().unwrap();
    });
    let mut got = vec![0; 16 << 20];
    let (first, second) = got.split_at_mut(1 << 20);
    far.read_exact(first).await.unwrap();
    let mut filled = 0;
    while filled < second.len() {
        let end = second.len().min(filled + (512 << 10));
        filled += far.read(&mut second[filled..end]).await.unwrap();
    }
    assert!(got == expected, "transmitted data differs");
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    writer.await.unwrap();
}

#[test]
fn sixteen_megabytes_arrive_in_order() {
    over_streams(Clock::Real, big::<Tcp4>, big::<Tcp6>, big::<UnixPath>);
}

/// TestTCPBig, whose 5 GiB take 10 GB of memory: here the zeros take none, and are read piece by piece.
#[test]
fn one_write_of_more_than_a_system_call_takes_arrives() {
    const LENGTH: usize = (1 << 30) + (1 << 20);
    by(Clock::Real, "tcp4", || async {
        let (near, far) = pair::<Tcp4>().await;
        let writer = spawn(async move { near.write_all(&vec![0; LENGTH]).await });
        let mut piece = vec![1; 1 << 20];
        for _ in 0..LENGTH / piece.len() {
            far.read_exact(&mut piece).await.unwrap();
        }
        writer.await.unwrap().unwrap();
        assert_eq!(far.read(&mut piece).await.unwrap(), 0);
    });
}

/// TestEndlessWrite: the peer reads a little at a time, then goes.
async fn endless<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let writer = spawn(async move {
        let mut written = 0;
        loop {
            match near.write(&[7; 100_000]).await {
                Ok(gone) => written += gone,
                Err(error) => break (written, error),
            }
        }
    });
    let mut buffer = vec![0; 60_000];
    for _ in 0..20 {
        time::sleep(millis(1)).await;
        far.read_exact(&mut buffer).await.unwrap();
        assert!(buffer.iter().all(|byte| *byte == 7));
    }
    far.close().unwrap();
    let (written, error) = writer.await.unwrap();
    assert!(written >= 20 * 60_000);
    assert_gone(&error);
}

#[test]
fn a_writer_waits_for_its_reader_and_fails_once_that_has_gone() {
    over_streams(
        Clock::Virtual,
        endless::<Tcp4>,
        endless::<Tcp6>,
        endless::<UnixPath>,
    );
}

async fn half_written<T: Transport>() {
    let (near, far) = pair::<T>().await;
    near.set_write_deadline(in_time(millis(100))).unwrap();
    let error = near.write_all(&vec![0; PLENTY]).await.unwrap_err();
    let written = error.op_error().unwrap().written;
    assert!(written > 0 && written < PLENTY, "{error}");
    assert!(error.to_string().contains(&written.to_string()), "{error}");
    assert_timeout::<()>(Err(error));
    near.close().unwrap();
    // Just as much arrives.
    assert_eq!(read_to_end(&far).await.unwrap().len(), written);

    let (near, far) = pair::<T>().await;
    let writing = spawn(async move { near.write_all(&vec![0; PLENTY]).await });
    time::sleep(millis(10)).await;
    far.close().unwrap();
    let error = writing.await.unwrap().unwrap_err();
    assert_gone(&error);
    let written = error.op_error().unwrap().written;
    assert!(written > 0 && written < PLENTY, "{error}");
}

#[test]
fn a_write_that_fails_half_way_says_how_much_went() {
    over_streams(
        Clock::Virtual,
        half_written::<Tcp4>,
        half_written::<Tcp6>,
        half_written::<UnixPath>,
    );
}

async fn many_writers<T: Transport>() {
    const PACKET: usize = 300_000;
    let (near, far) = pair::<T>().await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let near = near.clone();
            spawn(async move { near.write_all(&vec![writer; PACKET]).await.unwrap() })
        })
        .collect();
    drop(near);
    let mut packet = vec![0; PACKET];
    for writer in 0..8 {
        far.read_exact(&mut packet).await.unwrap();
        assert!(
            packet.iter().all(|byte| *byte == writer),
            "not first come, first served"
        );
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(far.read(&mut packet).await.unwrap(), 0);
}

#[test]
fn packets_of_many_writers_go_whole_and_in_turn() {
    over_streams(
        Clock::Real,
        many_writers::<Tcp4>,
        many_writers::<Tcp6>,
        many_writers::<UnixPath>,
    );
}

async fn many_readers<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let seen = Rc::new(RefCell::new(Vec::new()));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (far, seen) = (far.clone(), seen.clone());
            spawn(async move {
                let mut packet = [0; 4];
                while far.read_exact(&mut packet).await.is_ok() {
                    seen.borrow_mut().push(u32::from_le_bytes(packet));
                }
            })
        })
        .collect();
    for number in 0..2000_u32 {
        let bytes = number.to_le_bytes();
        // In two parts, so that others try to come between.
        near.write_all(&bytes[..1]).await.unwrap();
        near.write_all(&bytes[1..]).await.unwrap();
    }
    near.close().unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(seen.borrow().iter().copied().eq(0..2000));
}

#[test]
fn packets_for_many_readers_come_whole_and_once() {
    over_streams(
        Clock::Real,
        many_readers::<Tcp4>,
        many_readers::<Tcp6>,
        many_readers::<UnixPath>,
    );
}
