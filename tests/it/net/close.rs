//! Closing: what is sent, what is woken, and what every handle says afterwards.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use netpoller::{
    Dialer, ListenConfig, NetError, Runtime, TcpListener, TcpStream, UnixStream, spawn, time,
    yield_now,
};
use socket2::SockRef;

use crate::support::bytes::read;
use crate::support::loopback::pair;
use crate::support::run::run;
use crate::support::wakers::{Counter, PanicsOnWake};

/// As [`pair`], with small buffers, which a test soon fills.
async fn narrow_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Accepted sockets inherit the size, and the peer knows of it before it sends.
    let narrow = listener.with_fd(|fd| SockRef::from(&fd).set_recv_buffer_size(65_536));
    narrow.unwrap().unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await;
    (client.unwrap(), listener.accept().await.unwrap().0)
}

/// Writes until the system takes no more into a small send buffer. Returns how much it took.
fn fill(stream: &TcpStream) -> usize {
    stream.set_write_buffer(32_768).unwrap();
    let mut sent = 0;
    loop {
        match stream.try_write(&[7; 65536]) {
            Ok(gone) => sent += gone,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                return sent;
            }
        }
    }
}

/// Writes until nothing more goes: the peer has no room left either, so that a lingering close has
/// to wait.
async fn cram(stream: &TcpStream) -> usize {
    let all = vec![7; 16 << 20];
    let mut sent = 0;
    loop {
        let a_moment = Duration::from_millis(100);
        let more = stream.write(&all[sent..]);
        match time::timeout(a_moment, more).await {
            Ok(gone) => sent += gone.unwrap(),
            Err(_nothing_goes) => return sent,
        }
    }
}

/// What each operation says, with its name.
async fn every_operation(stream: &TcpStream) -> Vec<(&'static str, io::Error)> {
    let byte = &mut [0];
    vec![
        ("read", stream.read(byte).await.unwrap_err()),
        ("read", stream.read(&mut []).await.unwrap_err()),
        ("read", stream.read_exact(byte).await.unwrap_err()),
        ("read", stream.read_with(|_| ()).await.unwrap_err()),
        (
            "read",
            stream
                .read_vectored(&mut [IoSliceMut::new(byte)])
                .await
                .unwrap_err(),
        ),
        ("read", stream.peek(byte).await.unwrap_err()),
        ("read", stream.readable().await.unwrap_err()),
        ("read", stream.hung_up().await.unwrap_err()),
        ("read", stream.try_read(byte).unwrap_err()),
        ("write", stream.write(byte).await.unwrap_err()),
        ("write", stream.write(&[]).await.unwrap_err()),
        ("write", stream.write_all(byte).await.unwrap_err()),
        ("write", stream.write_all(&[]).await.unwrap_err()),
        (
            "write",
            stream
                .write_vectored(&[IoSlice::new(byte)])
                .await
                .unwrap_err(),
        ),
        ("write", stream.writable().await.unwrap_err()),
        ("write", stream.try_write(byte).unwrap_err()),
        ("close", stream.close().unwrap_err()),
        ("close", stream.close_read().unwrap_err()),
        ("close", stream.close_write().unwrap_err()),
        ("close", stream.abort().unwrap_err()),
        ("file", stream.clone().into_std().unwrap_err()),
    ]
}

fn every_setting(stream: &TcpStream) -> Vec<(&'static str, io::Error)> {
    vec![
        ("set", stream.set_deadline(None).unwrap_err()),
        ("set", stream.set_read_deadline(None).unwrap_err()),
        ("set", stream.set_write_deadline(None).unwrap_err()),
        ("set", stream.set_nodelay(true).unwrap_err()),
        ("set", stream.set_linger(None).unwrap_err()),
        ("set", stream.set_keepalive(None).unwrap_err()),
        ("set", stream.set_read_buffer(1).unwrap_err()),
        ("set", stream.set_write_buffer(1).unwrap_err()),
        ("set", stream.set_ttl(1).unwrap_err()),
        ("get", stream.nodelay().unwrap_err()),
        ("get", stream.linger().unwrap_err()),
        ("get", stream.keepalive().unwrap_err()),
        ("get", stream.read_buffer().unwrap_err()),
        ("get", stream.write_buffer().unwrap_err()),
        ("get", stream.ttl().unwrap_err()),
        ("raw-control", stream.with_fd(|_| ()).unwrap_err()),
    ]
}

#[test]
fn after_a_close_every_operation_of_every_handle_says_closed_and_names_both_ends() {
    run(async {
        for closed_by_the_other in [true, false] {
            let (_server, client) = pair().await;
            let other = client.clone();
            let stream = if closed_by_the_other { &client } else { &other };
            other.close().unwrap();
            let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let why = "use of closed network connection";
            for (op, error) in every_operation(stream).await {
                assert_eq!(
                    error.to_string(),
                    format!("{op} tcp {local}->{peer}: {why}")
                );
                assert!(error.is_closed() && !error.is_timeout());
                assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            }
            for (op, error) in every_setting(stream) {
                assert_eq!(error.to_string(), format!("{op} tcp {local}: {why}"));
            }
            assert_eq!(stream.as_raw_fd(), -1);
        }
    });
}

#[test]
fn the_only_handle_names_both_ends_after_its_own_close() {
    run(async {
        let (_server, client) = pair().await;
        client.close().unwrap();
        let op = client.read(&mut [0]).await.unwrap_err();
        let op = op.op_error().unwrap();
        assert!(op.source.is_some() && op.addr.is_some(), "{op}");
    });
}

#[test]
fn a_close_ends_parked_reads_writes_and_waits_at_once() {
    run(async {
        let (client, _server) = narrow_pair().await;
        fill(&client);
        let reader = spawn({
            let client = client.clone();
            async move { client.read(&mut [0]).await }
        });
        let queued = spawn({
            let client = client.clone();
            async move { client.read_exact(&mut [0]).await.map(|()| 0) }
        });
        let writer = spawn({
            let client = client.clone();
            // More than what an acknowledgement that is on its way makes room for.
            async move { client.write_all(&vec![1; 16 << 20]).await.map(|()| 0) }
        });
        let waiter = spawn({
            let client = client.clone();
            async move { client.hung_up().await.map(|()| 0) }
        });
        yield_now().await;
        yield_now().await;
        client.close().unwrap();
        for parked in [reader, queued, writer, waiter] {
            let error = parked.await.unwrap().unwrap_err();
            assert!(error.is_closed(), "{error}");
        }
    });
}

#[test]
fn the_descriptor_is_closed_before_close_returns_and_only_once() {
    run(async {
        let (_server, client) = pair().await;
        let number = client.as_raw_fd();
        let parked = spawn({
            let client = client.clone();
            async move { client.read(&mut [0]).await.unwrap_err() }
        });
        yield_now().await;
        client.close().unwrap();
        // The system reuses the lowest free number, so one of these files may get ours.
        let mut others: Vec<_> = (0..64)
            .map(|_| std::fs::File::open("/dev/zero").unwrap())
            .collect();
        let reused = others.iter().position(|file| file.as_raw_fd() == number);
        parked.await.unwrap();
        assert!(client.close().unwrap_err().is_closed());
        assert!(client.abort().unwrap_err().is_closed());
        drop(client);
        // Other tests of this process may have got the number: then there is nothing to see.
        if let Some(at) = reused {
            others[at].read_exact(&mut [1]).unwrap();
        }
    });
}

#[test]
fn a_deadline_set_after_a_close_does_not_undo_it() {
    run(async {
        let (_server, client) = pair().await;
        client.close().unwrap();
        let later = time::now() + Duration::from_secs(60);
        assert!(client.set_deadline(Some(later)).unwrap_err().is_closed());
        assert!(client.read(&mut [0]).await.unwrap_err().is_closed());
    });
}

#[test]
fn dropping_the_last_handle_closes_and_dropping_another_does_not() {
    run(async {
        let (server, client) = pair().await;
        let other = client.clone();
        drop(client);
        other.write_all(b"alive").await.unwrap();
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).await.unwrap();
        drop(other);
        assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
    });
}

#[test]
fn an_abort_closes_what_cannot_be_reset_too() {
    run(async {
        // A pipe has no SO_LINGER.
        let (mut reader, writer) = io::pipe().unwrap();
        let no_socket = std::os::unix::net::UnixStream::from(OwnedFd::from(writer));
        let stream = UnixStream::from_std(no_socket).unwrap();
        stream.abort().unwrap();
        assert!(stream.abort().unwrap_err().is_closed());
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn linger_zero_and_abort_reset_the_peer_and_leave_no_time_wait() {
    run(async {
        for abort in [true, false] {
            let (server, client) = pair().await;
            let ports = [client.local_addr(), client.peer_addr()];
            let ports = ports.map(|address| address.unwrap().port());
            if abort {
                client.abort().unwrap();
            } else {
                client.set_linger(Some(Duration::ZERO)).unwrap();
                client.close().unwrap();
            }
            server.hung_up().await.unwrap();
            let error = server.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
            assert!(!has_time_wait(ports));
        }
    });
}

/// Whether the system keeps a closed connection between these ports, as far as it can tell.
fn has_time_wait(ports: [u16; 2]) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let ends = ports.map(|port| format!(":{port:04X}"));
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&ends[0]) && fields[2].ends_with(&ends[1]) && fields[3] == "06"
    })
}

#[test]
fn a_lingering_close_does_not_stop_the_loop_and_sends_what_was_written() {
    run(async {
        let (client, server) = narrow_pair().await;
        client.set_linger(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(60)));
        let sent = cram(&client).await;
        let before = Instant::now();
        client.close().unwrap();
        assert!(
            before.elapsed() < Duration::from_secs(5),
            "the loop was blocked"
        );
        let mut got = 0;
        loop {
            match server.read_with(<[u8]>::len).await.unwrap() {
                0 => break,
                more => got += more,
            }
        }
        assert_eq!(got, sent);
    });
}

/// As [`narrow_pair`]. The first end lingers because a hook said so: of its dial, or of the listener
/// that accepted it.
async fn pair_with_a_hook(linger: Option<Duration>, dialled: bool) -> (TcpStream, TcpStream) {
    let hook = move |fd: BorrowedFd<'_>, _| SockRef::from(&fd).set_linger(linger);
    let narrow = |fd: BorrowedFd<'_>, _| SockRef::from(&fd).set_recv_buffer_size(65_536);
    let (config, dialer) = match dialled {
        true => (
            ListenConfig::new().control(narrow),
            Dialer::new().control(hook),
        ),
        false => (
            ListenConfig::new().control(hook),
            Dialer::new().control(narrow),
        ),
    };
    let listener = config.bind("127.0.0.1:0").await.unwrap();
    let client = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    match dialled {
        true => (client, server),
        false => (server, client),
    }
}

#[test]
fn a_linger_set_on_the_descriptor_does_not_stop_the_loop_either() {
    run(async {
        let linger = Some(Duration::from_secs(60));
        for how in 0..5 {
            let (client, _server) = match how {
                3 | 4 => pair_with_a_hook(linger, how == 3).await,
                _ => narrow_pair().await,
            };
            let client = match how {
                0 => {
                    let set = client.with_fd(|fd| SockRef::from(&fd).set_linger(linger));
                    set.unwrap().unwrap();
                    client
                }
                1 => {
                    let raw = client.as_raw_fd();
                    assert!(raw >= 0);
                    let set = client.with_fd(|fd| SockRef::from(&fd).set_linger(linger));
                    set.unwrap().unwrap();
                    client
                }
                3 | 4 => client,
                _ => {
                    let std = client.into_std().unwrap();
                    SockRef::from(&std).set_linger(linger).unwrap();
                    TcpStream::from_std(std).unwrap()
                }
            };
            cram(&client).await;
            let before = Instant::now();
            drop(client);
            assert!(
                before.elapsed() < Duration::from_secs(5),
                "the loop was blocked"
            );
        }
    });
}

#[test]
fn a_lingering_stream_that_outlives_its_runtime_blocks_no_drop() {
    let runtime = Runtime::new().unwrap();
    let (client, _server) = runtime.block_on(narrow_pair());
    client.set_linger(Some(Duration::from_secs(10))).unwrap();
    runtime.block_on(cram(&client));
    drop(runtime);
    // The thread that drops it may have a loop of its own.
    run(async {
        let before = Instant::now();
        drop(client);
        assert!(
            before.elapsed() < Duration::from_secs(5),
            "the loop was blocked"
        );
    });
}

#[test]
fn by_default_what_was_written_arrives_after_a_close() {
    run(async {
        let (client, server) = narrow_pair().await;
        assert_eq!(client.linger().unwrap(), None);
        let sent = fill(&client);
        client.close().unwrap();
        let mut got = 0;
        loop {
            match server.read_with(<[u8]>::len).await.unwrap() {
                0 => break,
                more => got += more,
            }
        }
        assert_eq!(got, sent);
    });
}

#[test]
fn a_close_inside_with_fd_waits_until_the_descriptor_is_back() {
    run(async {
        let (server, client) = pair().await;
        let inside = client.with_fd(|fd| {
            client.close().unwrap();
            assert!(client.with_fd(|_| ()).unwrap_err().is_closed());
            assert!(client.clone().into_std().unwrap_err().is_closed());
            // Open still: the number is not another file's.
            SockRef::from(&fd).shutdown(Shutdown::Read)
        });
        inside.unwrap().unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert!(client.read(&mut [0]).await.unwrap_err().is_closed());
    });
}

#[test]
fn a_stream_given_to_std_is_closed_for_its_other_handles_and_works_there() {
    run(async {
        let (server, client) = pair().await;
        let other = client.clone();
        let parked = spawn({
            let client = client.clone();
            async move { client.read(&mut [0]).await.unwrap_err() }
        });
        yield_now().await;
        let std = client.into_std().unwrap();
        assert!(parked.await.unwrap().is_closed());
        let error = other.read(&mut [0]).await.unwrap_err();
        let (local, peer) = (std.local_addr().unwrap(), std.peer_addr().unwrap());
        assert_eq!(
            error.to_string(),
            format!("read tcp {local}->{peer}: use of closed network connection")
        );
        // It stays non-blocking.
        let error = (&std).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let back = TcpStream::from_std(std).unwrap();
        back.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        assert_eq!(back.local_addr().unwrap(), local);
    });
}

#[test]
#[should_panic(expected = "from_std was called outside a runtime")]
fn from_std_outside_a_runtime_says_so() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let _ = UnixStream::from_std(one);
}

#[test]
fn when_a_runtime_is_dropped_tasks_of_another_find_its_sockets_closed() {
    let gone = Runtime::new().unwrap();
    let (stream, _peer) = gone.block_on(async { UnixStream::pair().unwrap() });
    let other = Runtime::new().unwrap();
    let parked = [0, 1, 2].map(|how| {
        let stream = stream.clone();
        other.spawn(async move {
            match how {
                0 | 1 => stream.read(&mut [0]).await.unwrap_err(),
                _ => stream.hung_up().await.unwrap_err(),
            }
        })
    });
    for _ in 0..3 {
        other.turn(Some(Duration::ZERO)).unwrap();
    }
    drop(gone);
    other.block_on(async {
        for parked in parked {
            let ended = time::timeout(Duration::from_secs(10), parked).await;
            assert!(ended.expect("it hangs").unwrap().is_closed());
        }
    });
}

#[test]
fn a_close_on_both_sides_leaves_no_close_wait() {
    run(async {
        let (server, client) = pair().await;
        client.close().unwrap();
        assert_eq!(read(&server, 8).await.unwrap(), b"");
        let (ours, theirs) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        server.close().unwrap();
        if let Ok(table) = std::fs::read_to_string("/proc/net/tcp") {
            let ports = [ours, theirs].map(|end| format!(":{:04X}", end.port()));
            const CLOSE_WAIT: &str = " 08 ";
            let waits = |line: &&str| {
                line.contains(CLOSE_WAIT) && ports.iter().all(|port| line.contains(port))
            };
            assert_eq!(table.lines().find(waits), None);
        }
    });
}

#[test]
fn a_close_ends_and_wakes_the_others_though_a_waker_panics() {
    let runtime = Runtime::new().unwrap();
    let (panicking, counter) = (
        Waker::from(Arc::new(PanicsOnWake)),
        Arc::new(Counter::default()),
    );
    let counted = Waker::from(counter.clone());
    runtime.block_on(async {
        let (server, _client) = pair().await;
        let mut byte = [0];
        let mut read = Box::pin(server.read(&mut byte));
        let mut end = Box::pin(server.hung_up());
        assert!(
            read.as_mut()
                .poll(&mut Context::from_waker(&panicking))
                .is_pending()
        );
        assert!(
            end.as_mut()
                .poll(&mut Context::from_waker(&counted))
                .is_pending()
        );
        let closed = catch_unwind(AssertUnwindSafe(|| server.close()));
        closed.expect("a foreign waker's panic").unwrap();
    });
    assert_eq!(counter.count(), 1);
    assert_eq!(runtime.stats().descriptors, 0);
}
