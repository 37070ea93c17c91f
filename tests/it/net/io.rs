//! System calls of the user's own: `with_fd`, `try_io`, `io`.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netpoller::{Direction, NetError, Source, TcpStream, UdpSocket, UnixStream, spawn, time};
use netpoller::{UnixDatagram, yield_now};
use socket2::SockRef;

use crate::support::loopback::pair;
use crate::support::run::{run, run_virtual};

const HOUR: Duration = Duration::from_secs(3600);

/// Polls once.
fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Sends by a call of our own, until the socket takes nothing more.
fn fill(stream: &TcpStream) -> usize {
    let mut sent = 0;
    loop {
        let call = |fd: std::os::fd::BorrowedFd<'_>| SockRef::from(&fd).send(&[7; 65536]);
        match stream.try_io(Direction::Write, call) {
            Ok(more) => sent += more,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return sent;
            }
        }
    }
}

#[test]
fn io_parks_after_eagain_and_goes_on_when_the_peer_reads() {
    run(async {
        let (ours, theirs) = pair().await;
        let sent = fill(&ours);
        let calls = Cell::new(0);
        let write = ours.io(Direction::Write, |fd| {
            calls.set(calls.get() + 1);
            SockRef::from(&fd).send(b"more")
        });
        let mut write = pin!(write);
        assert!(poll(write.as_mut()).is_pending());
        assert!(poll(write.as_mut()).is_pending());
        assert!(calls.get() <= 1, "the readiness is forgotten already");
        let mut left = sent;
        let mut buffer = vec![0; 1 << 20];
        let write = async {
            write.await.unwrap();
            ours.close_write().unwrap();
        };
        let read = async {
            loop {
                let got = theirs.read(&mut buffer).await.unwrap();
                left = left.saturating_sub(got);
                if got == 0 {
                    break;
                }
            }
        };
        futures_lite::future::zip(write, read).await;
        assert_eq!(left, 0);
        assert!(calls.get() < 100, "{} calls", calls.get());
    });
}

#[test]
fn while_nothing_happens_a_call_is_made_once() {
    run_virtual(async {
        let (stream, _theirs) = UnixStream::pair().unwrap();
        let (datagram, _peer) = UnixDatagram::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let calls = Cell::new(0);
        let receive = |fd: std::os::fd::BorrowedFd<'_>| {
            calls.set(calls.get() + 1);
            // SAFETY: the buffer is as long as said.
            let got = unsafe { libc::recv(fd.as_raw_fd(), [0u8; 8].as_mut_ptr().cast(), 8, 0) };
            usize::try_from(got).map_err(|_| io::Error::last_os_error())
        };
        let waited = time::timeout(HOUR, stream.io(Direction::Read, receive)).await;
        assert!(waited.is_err());
        let waited = time::timeout(HOUR, datagram.io(Direction::Read, receive)).await;
        assert!(waited.is_err());
        let waited = time::timeout(HOUR, udp.io(Direction::Read, receive)).await;
        assert!(waited.is_err());
        assert_eq!(calls.get(), 3);
    });
}

#[test]
fn after_a_try_that_would_block_writable_waits() {
    run_virtual(async {
        // Its peer's buffer does not grow, as TCP's may.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let send = |fd: std::os::fd::BorrowedFd<'_>| SockRef::from(&fd).send(&[7; 65536]);
        while ours.try_io(Direction::Write, send).is_ok() {}
        assert!(time::timeout(HOUR, ours.writable()).await.is_err());
        // Through the lent descriptor alone it would not be known.
        let (ours, _theirs) = pair().await;
        let receive = |fd: std::os::fd::BorrowedFd<'_>| SockRef::from(&fd).peek(&mut []);
        let _ = ours.try_io(Direction::Write, |_| Ok(()));
        let _ = ours.with_fd(receive);
        let would_block = || io::Error::from(io::ErrorKind::WouldBlock);
        let tried = ours.try_io(Direction::Read, |_| Err::<(), _>(would_block()));
        assert_eq!(tried.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(time::timeout(HOUR, ours.readable()).await.is_err());
    });
}

#[test]
fn calls_heed_deadlines_and_closes_and_their_errors_name_both_ends() {
    run(async {
        let (ours, _theirs) = pair().await;
        let (local, peer) = (ours.local_addr().unwrap(), ours.peer_addr().unwrap());
        let failing = |_: std::os::fd::BorrowedFd<'_>| -> io::Result<()> {
            Err(io::Error::from_raw_os_error(libc::ENOTTY))
        };
        let said = ours.io(Direction::Write, failing).await.unwrap_err();
        assert!(
            said.to_string()
                .starts_with(&format!("write tcp {local}->{peer}: "))
        );
        assert_eq!(said.op_error().unwrap().raw_os_error(), Some(libc::ENOTTY));
        let said = ours.try_io(Direction::Read, failing).unwrap_err();
        assert!(
            said.to_string()
                .starts_with(&format!("read tcp {local}->{peer}: "))
        );

        ours.set_deadline(Some(time::now())).unwrap();
        assert!(
            ours.io(Direction::Read, failing)
                .await
                .unwrap_err()
                .is_timeout()
        );
        assert!(
            ours.try_io(Direction::Write, failing)
                .unwrap_err()
                .is_timeout()
        );
        ours.set_deadline(None).unwrap();

        // A close inside a call waits until the descriptor is back.
        let again = ours.clone();
        let seen = ours.try_io(Direction::Read, |fd| {
            again.close()?;
            SockRef::from(&fd).peer_addr()
        });
        assert_eq!(seen.unwrap().as_socket(), Some(peer));
        assert!(
            ours.try_io(Direction::Read, failing)
                .unwrap_err()
                .is_closed()
        );
        assert!(
            ours.io(Direction::Read, failing)
                .await
                .unwrap_err()
                .is_closed()
        );
        assert_eq!(ours.as_raw_fd(), -1);
    });
}

#[test]
fn calls_of_one_direction_queue_with_our_own_operations() {
    run(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reading = ours.clone();
        let first = spawn(async move {
            let mut buffer = [0; 2];
            reading.read_exact(&mut buffer).await.unwrap();
            buffer
        });
        yield_now().await;
        yield_now().await;
        let second = ours.clone();
        let second = spawn(async move {
            let receive = |fd: std::os::fd::BorrowedFd<'_>| {
                let mut byte = [std::mem::MaybeUninit::uninit()];
                SockRef::from(&fd).recv(&mut byte)
            };
            second.io(Direction::Read, receive).await.unwrap()
        });
        yield_now().await;
        theirs.write_all(b"a").await.unwrap();
        yield_now().await;
        theirs.write_all(b"bc").await.unwrap();
        assert_eq!(&first.await.unwrap(), b"ab");
        assert_eq!(second.await.unwrap(), 1);
    });
}

/// Whether, after a read that was short, the socket counts as ready still: only EAGAIN shows that
/// nothing is left.
async fn is_ready_after_a_short_read(ours: &TcpStream, theirs: &TcpStream) -> bool {
    theirs.write_all(b"short").await.unwrap();
    ours.readable().await.unwrap();
    assert_eq!(ours.read(&mut [0; 64]).await.unwrap(), 5);
    let ready = poll(ours.readable()).is_ready();
    // EAGAIN is met, and then it waits in any case.
    assert_eq!(
        ours.try_read(&mut [0; 64]).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    assert!(poll(ours.readable()).is_pending());
    ready
}

#[test]
fn a_short_read_proves_nothing_once_the_descriptor_was_lent() {
    run(async {
        // Behind `with_fd` there may be kTLS or a sockmap from then on.
        let (ours, theirs) = pair().await;
        ours.with_fd(|_| ()).unwrap();
        assert!(is_ready_after_a_short_read(&ours, &theirs).await);
        let (ours, theirs) = pair().await;
        ours.try_io(Direction::Write, |_| Ok(())).unwrap();
        assert!(is_ready_after_a_short_read(&ours, &theirs).await);
        let (ours, theirs) = pair().await;
        assert!(ours.as_raw_fd() >= 0);
        assert!(is_ready_after_a_short_read(&ours, &theirs).await);
        let (ours, theirs) = pair().await;
        let ours = TcpStream::from_std(ours.into_std().unwrap()).unwrap();
        assert!(is_ready_after_a_short_read(&ours, &theirs).await);
    });
}

#[test]
fn a_source_parks_after_eagain() {
    run_virtual(async {
        let (ours, _theirs) = mio::net::UnixStream::pair().unwrap();
        let ours = Source::new(ours).unwrap();
        let calls = Cell::new(0);
        let read = ours.io(Direction::Read, |source| {
            calls.set(calls.get() + 1);
            io::Read::read(source, &mut [0; 8])
        });
        assert!(time::timeout(HOUR, read).await.is_err());
        assert_eq!(calls.get(), 1);
        assert!(time::timeout(HOUR, ours.readable()).await.is_err());
    });
}
