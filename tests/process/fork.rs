//! After fork(2): a child looks names up, and leaves its parent's sockets alone.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netpoller::reactor::{Direction, Park, Reactor, Refusal};
use netpoller::{
    Dialer, NetError, Runtime, TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream, spawn,
    time, yield_now,
};

use crate::child::{in_child, in_fork};
use crate::support::loopback::{pair, plain_pair};
use crate::support::run::run;

const SECOND: Duration = Duration::from_secs(1);

/// Looks a name up, on a thread of the pool, and connects.
fn dial_by_name(port: u16) {
    run(async {
        let dialer = Dialer::new().network("tcp4");
        let dial = dialer.dial(("localhost", port));
        let dialled = time::timeout(20 * SECOND, dial).await;
        dialled.expect("the look-up hangs").unwrap();
    });
}

#[test]
fn a_child_looks_names_up_before_and_after_its_parent_has() {
    in_child(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(in_fork(|| dial_by_name(port)), "before the first look-up");
        dial_by_name(port);
        assert!(in_fork(|| dial_by_name(port)), "after the first look-up");
    });
}

#[test]
fn a_child_and_its_child_look_names_up_while_a_look_up_of_the_parent_is_under_way() {
    in_child(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (began, begins) = mpsc::channel();
        let (ends, end) = mpsc::channel::<()>();
        let end = std::sync::Mutex::new(end);
        let dialer = Dialer::new().resolver(move |_| {
            began.send(()).unwrap();
            let _ = end.lock().unwrap().recv();
            Ok(vec![[127, 0, 0, 1].into()])
        });
        Runtime::new().unwrap().block_on(async {
            let dialling = async move { dialer.dial(("slow.test", port)).await };
            let dialling = netpoller::spawn(dialling);
            while begins.try_recv().is_err() {
                netpoller::yield_now().await;
            }
            let both = move || {
                dial_by_name(port);
                assert!(in_fork(|| dial_by_name(port)), "in the child's child");
            };
            // Not in this runtime, which is the parent's.
            assert!(in_fork(|| std::thread::spawn(both).join().unwrap()));
            drop(ends);
            dialling.await.unwrap().unwrap();
            TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        });
    });
}

const SENTENCE: &str =
    "the socket belongs to the parent process: after fork(2), open one in the child";

/// What a future says when it is polled once, outside any runtime.
fn polled<T>(future: impl Future<Output = io::Result<T>>) -> String {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(Err(error)) => {
            assert!(!error.is_timeout() && !error.is_temporary() && !error.is_closed());
            error.to_string()
        }
        Poll::Ready(Ok(_)) => "it succeeded".into(),
        Poll::Pending => "it waits".into(),
    }
}

#[test]
fn a_childs_use_of_a_socket_of_its_parents_is_one_clear_error_and_takes_no_byte() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let (stream, mut peer) = plain_pair(&runtime);
        let (listener, udp) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (listener, UdpSocket::bind("127.0.0.1:0").await.unwrap())
        });
        peer.write_all(b"for the parent").unwrap();
        let _waits = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(in_fork(|| {
            let ends = format!(
                "tcp {}->{}",
                stream.local_addr().unwrap(),
                stream.peer_addr().unwrap()
            );
            let read = format!("read {ends}: {SENTENCE}");
            assert_eq!(polled(stream.read(&mut [0; 64])), read);
            assert_eq!(polled(stream.read_with(|bytes| bytes.len())), read);
            assert_eq!(polled(stream.peek(&mut [0; 64])), read);
            assert_eq!(stream.try_read(&mut [0; 64]).unwrap_err().to_string(), read);
            let write = format!("write {ends}: {SENTENCE}");
            assert_eq!(polled(stream.write_all(b"stray")), write);
            assert_eq!(stream.try_write(b"stray").unwrap_err().to_string(), write);
            for said in [
                polled(listener.accept()),
                polled(udp.recv(&mut [0; 64])),
                stream.close_write().unwrap_err().to_string(),
                stream.abort().unwrap_err().to_string(),
                stream.set_nodelay(true).unwrap_err().to_string(),
                stream.set_deadline(None).unwrap_err().to_string(),
            ] {
                assert!(said.ends_with(SENTENCE), "{said}");
            }
            // In a runtime of the child's own it is no different.
            let own = Runtime::new().unwrap();
            let error = own.block_on(stream.read(&mut [0; 64])).unwrap_err();
            assert_eq!(error.to_string(), read);
        }));
        runtime.block_on(async {
            let mut bytes = [0; 14];
            stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"for the parent");
            listener.accept().await.unwrap();
        });
    });
}

/// Whatever a child closes or drops, its parent goes on with.
fn parent_goes_on_after(child: impl FnOnce(Runtime, TcpStream, TcpListener)) {
    let runtime = Runtime::new().unwrap();
    let (stream, mut peer) = plain_pair(&runtime);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    // Both wait in the selector.
    let reading = runtime.spawn({
        let stream = stream.clone();
        async move { stream.read(&mut [0; 8]).await }
    });
    let accepting = runtime.spawn({
        let listener = listener.clone();
        async move { listener.accept().await.map(drop) }
    });
    runtime.turn(Some(Duration::ZERO)).unwrap();
    let all = Cell::new(Some((runtime, stream, listener)));
    assert!(in_fork(|| {
        let (runtime, stream, listener) = all.take().unwrap();
        child(runtime, stream, listener);
        // What the child registers for itself is its own, whatever number it has.
        run(async {
            let (server, client) = pair().await;
            client.write_all(b"child").await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
        });
    }));
    let (runtime, stream, _listener) = all.take().unwrap();
    peer.write_all(b"later").unwrap();
    let _client = std::net::TcpStream::connect(address).unwrap();
    runtime.block_on(async {
        assert_eq!(reading.await.unwrap().unwrap(), 5);
        accepting.await.unwrap().unwrap();
        // The connection was neither reset nor half-closed.
        peer.write_all(b"!").unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        stream.write_all(b"?").await.unwrap();
    });
}

#[test]
fn a_childs_closes_take_no_registration_of_its_parents() {
    in_child(|| {
        parent_goes_on_after(|runtime, stream, listener| {
            stream.close().unwrap();
            listener.close().unwrap();
            std::mem::forget(runtime);
        });
    });
}

#[test]
fn a_child_that_drops_its_parents_runtime_takes_no_registration_of_its_parents() {
    in_child(|| {
        parent_goes_on_after(|runtime, stream, listener| drop((runtime, stream, listener)));
    });
}

#[test]
fn a_child_that_drops_handles_after_the_runtime_takes_no_registration_of_its_parents() {
    in_child(|| {
        parent_goes_on_after(|runtime, stream, listener| {
            drop(runtime);
            drop((stream, listener));
        });
    });
}

#[test]
fn the_path_of_a_unix_listener_stays_when_a_child_drops_it() {
    in_child(|| {
        let name = format!("netpoller-fork-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(UnixListener::bind(&path)).unwrap();
        let all = Cell::new(Some((runtime, listener)));
        assert!(in_fork(|| drop(all.take())));
        assert!(path.exists());
        let (runtime, listener) = all.take().unwrap();
        runtime.block_on(async {
            UnixStream::connect(&path).await.unwrap();
            listener.accept().await.unwrap();
            listener.close().unwrap();
        });
        assert!(!path.exists());
    });
}

#[test]
fn a_child_takes_a_listener_out_of_its_parents_runtime_and_serves_on_it_in_its_own() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let listener = Cell::new(Some(listener));
        assert!(in_fork(|| {
            let listener = listener.take().unwrap().into_std().unwrap();
            run(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let (server, _) = listener.accept().await.unwrap();
                server.write_all(b"from the child").await.unwrap();
            });
        }));
        let mut said = String::new();
        io::Read::read_to_string(&mut &client, &mut said).unwrap();
        assert_eq!(said, "from the child");
        // The parent still listens.
        let listener = listener.take().unwrap();
        runtime.block_on(async {
            TcpStream::connect(address).await.unwrap();
            listener.accept().await.unwrap();
        });
    });
}

/// While a child has a duplicate, the system does not forget what its parent closes.
#[test]
fn what_a_parent_closes_while_a_child_has_it_too_wakes_the_parent_no_more() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let (stream, peer) = plain_pair(&runtime);
        // A child that lives until its end of the pipe is closed, and holds all descriptors.
        let (until_closed, closes) = io::pipe().unwrap();
        // SAFETY: the child reads, and ends without the parent's destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(closes);
            let _ = io::Read::read(&mut &until_closed, &mut [0]);
            // SAFETY: it ends this process.
            unsafe { libc::_exit(0) };
        }
        stream.close().unwrap();
        for _ in 0..3 {
            (&peer).write_all(b"into the void").unwrap();
            let turn = runtime.turn(Some(Duration::from_millis(20))).unwrap();
            assert_eq!(turn.events, 0);
        }
        drop(closes);
        // SAFETY: our own child, and no place for its status.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    });
}

#[test]
fn a_reactor_of_the_parents_refuses_to_turn_and_to_open_and_its_breaker_wakes_no_parent() {
    in_child(|| {
        let reactor: Reactor<u8> = Reactor::new().unwrap();
        let breaker = reactor.breaker();
        let (mut ours, mut theirs) = mio::net::UnixStream::pair().unwrap();
        let descriptor = reactor.open(&mut ours).unwrap();
        let mut out = Vec::new();
        // It is told that there is room for writing.
        reactor.turn(Some(Duration::ZERO), &mut out).unwrap();
        descriptor.drained(Direction::Read);
        assert!(in_fork(|| {
            let (mut other, _theirs) = mio::net::UnixStream::pair().unwrap();
            let mut out = Vec::new();
            for error in [
                reactor.turn(Some(Duration::ZERO), &mut out).unwrap_err(),
                reactor.open(&mut other).unwrap_err(),
            ] {
                assert!(error.to_string().contains("belongs to the parent process"));
            }
            assert_eq!(descriptor.check(Direction::Read), Err(Refusal::Closed));
            breaker.break_netpoll().unwrap();
        }));
        assert_eq!(descriptor.park(Direction::Read, 2), Park::Parked);
        // Otherwise the break or an event of the child would show in this turn.
        let turn = reactor
            .turn(Some(Duration::from_millis(1)), &mut out)
            .unwrap();
        assert_eq!((turn.events, out.len()), (0, 0));
        theirs.write_all(b"!").unwrap();
        reactor.turn(None, &mut out).unwrap();
        assert_eq!(out, [2]);
        reactor.close(descriptor, &mut ours).unwrap();
    });
}

#[test]
fn a_fork_in_a_turn_leaves_the_parents_tasks_running() {
    in_child(|| {
        run(async {
            let (server, client) = pair().await;
            let echo = spawn(async move {
                let mut bytes = [0; 4];
                server.read_exact(&mut bytes).await?;
                server.write_all(&bytes).await
            });
            yield_now().await;
            assert!(in_fork(|| {
                let error = client.try_write(b"stray").unwrap_err();
                assert!(error.to_string().ends_with(SENTENCE), "{error}");
            }));
            client.write_all(b"ping").await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
            echo.await.unwrap().unwrap();
        });
    });
}

#[test]
fn a_read_that_a_task_begins_in_a_child_is_refused_and_not_parked() {
    in_child(|| {
        run(async {
            let (server, _client) = pair().await;
            // The loop knows that nothing is there.
            server.try_read(&mut [0]).unwrap_err();
            poll_fn(|cx| {
                // With the waker of the parent's task.
                assert!(in_fork(|| {
                    let read = pin!(server.read_with(|bytes| bytes.len())).poll(cx);
                    let Poll::Ready(Err(error)) = read else {
                        panic!("{read:?}");
                    };
                    assert!(error.to_string().ends_with(SENTENCE), "{error}");
                }));
                Poll::Ready(())
            })
            .await;
        });
    });
}
