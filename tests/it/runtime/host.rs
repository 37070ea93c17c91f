//! A runtime under a host's loop: by turns with a time budget, and nested by its descriptor.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use netpoller::{Runtime, spawn, time, yield_now};

use crate::support::scripted_selector::scripted;
use crate::support::stall::moment;
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn a_turn_says_what_it_did_and_whether_there_is_more() {
    let runtime = Runtime::new().unwrap();
    let turn = runtime.turn(NOW).unwrap();
    assert_eq!(
        (turn.events, turn.machines, turn.expired, turn.more),
        (0, 0, 0, false)
    );
    drop(runtime.spawn(async { yield_now().await }));
    let turn = runtime.turn(None).unwrap();
    assert_eq!((turn.machines, turn.more), (1, true));
    let turn = runtime.turn(None).unwrap();
    assert_eq!((turn.machines, turn.more), (1, false));
    drop(runtime.spawn(async { time::sleep(Duration::from_millis(1)).await }));
    let mut expired = 0;
    while runtime.stats().tasks > 0 {
        expired += runtime.turn(None).unwrap().expired;
    }
    assert_eq!(expired, 1);
    let stats = runtime.stats();
    assert_eq!((stats.spawned, stats.expired), (2, 1));
}

#[test]
fn a_turn_without_work_waits_as_long_as_it_may() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    drop(runtime.spawn(pending::<()>()));
    runtime.turn(NOW).unwrap();
    let start = Instant::now();
    runtime.turn(Some(Duration::from_millis(20))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_turn_until_an_instant_waits_for_that_and_no_longer_and_not_at_all_for_the_past() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    let now = || runtime.block_on(async { time::now() });
    drop(runtime.spawn(pending::<()>()));
    runtime.turn(NOW).unwrap();
    let start = now();
    let hour = Duration::from_secs(3600);
    runtime.turn_until(start + hour).unwrap();
    assert_eq!(now(), start + hour);
    runtime.turn_until(start).unwrap();
    assert_eq!(now(), start + hour);
}

#[test]
fn next_timeout_is_zero_while_anything_is_runnable_else_the_next_deadline_else_none() {
    let runtime = Runtime::new().unwrap();
    assert_eq!(runtime.next_timeout(), None);
    let task = runtime.spawn(pending::<()>());
    assert_eq!(runtime.next_timeout(), NOW);
    runtime.turn(NOW).unwrap();
    assert_eq!(runtime.next_timeout(), None);
    let sleep = runtime.spawn(async { time::sleep(Duration::from_secs(60)).await });
    runtime.turn(NOW).unwrap();
    let next = runtime.next_timeout().unwrap();
    assert!(
        Duration::from_secs(59) < next && next <= Duration::from_millis(60_001),
        "{next:?}"
    );
    runtime.handle().wake();
    assert_eq!(runtime.next_timeout(), NOW);
    runtime.turn(None).unwrap();
    sleep.abort();
    task.abort();
    runtime.turn(NOW).unwrap();
    assert_eq!(runtime.stats().tasks, 0);
}

#[test]
fn handle_wake_ends_the_turn_under_way() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    let thread = thread::spawn(move || {
        moment();
        handle.wake();
    });
    let turn = runtime.turn(None).unwrap();
    assert_eq!((turn.machines, turn.more), (0, false));
    thread.join().unwrap();
}

#[test]
fn a_frame_at_a_time_everything_gets_done() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    let task = runtime.spawn(async move {
        let mut interval = time::interval(Duration::from_millis(1));
        for _ in 0..20 {
            interval.tick().await;
            counted.set(counted.get() + 1);
            spawn(yield_now()).await.unwrap();
        }
    });
    let mut frames = 0;
    while !task.is_finished() {
        frames += 1;
        let end = Instant::now() + Duration::from_millis(4);
        // The host's own work, and then the network while there is time.
        loop {
            let left = end.saturating_duration_since(Instant::now());
            runtime.turn(Some(left)).unwrap();
            if left.is_zero() {
                break;
            }
        }
    }
    assert_eq!(ticks.get(), 20);
    assert!(frames >= 3, "{frames}");
}

#[cfg(not(mio_unsupported_force_poll_poll))]
mod nested {
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, AsRawFd};

    use netpoller::TcpStream;

    use super::*;

    /// The host's own `mio::Poll`. `wait` returns whether it reported the runtime.
    struct Host {
        poll: mio::Poll,
        events: mio::Events,
    }

    impl Host {
        fn new(runtime: &Runtime) -> Self {
            let poll = mio::Poll::new().unwrap();
            let fd = runtime.as_fd().as_raw_fd();
            let mut source = mio::unix::SourceFd(&fd);
            let readable = mio::Interest::READABLE;
            poll.registry()
                .register(&mut source, mio::Token(0), readable)
                .unwrap();
            let events = mio::Events::with_capacity(8);
            Host { poll, events }
        }

        fn wait(&mut self, runtime: &Runtime) -> bool {
            self.poll
                .poll(&mut self.events, runtime.next_timeout())
                .unwrap();
            !self.events.is_empty()
        }
    }

    #[test]
    fn a_runtime_nests_in_a_hosts_poll_by_its_descriptor_and_its_next_timeout() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut message = [0; 4];
            for _ in 0..50 {
                peer.read_exact(&mut message).unwrap();
                peer.write_all(&message).unwrap();
            }
        });
        let task = runtime.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut message = [0; 4];
            for round in 0..50 {
                stream.write_all(b"ping").await.unwrap();
                stream.read_exact(&mut message).await.unwrap();
                if round % 10 == 0 {
                    time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        let mut host = Host::new(&runtime);
        while !task.is_finished() {
            host.wait(&runtime);
            while runtime.turn(NOW).unwrap().more {}
        }
        peer.join().unwrap();
    }

    #[test]
    fn a_wake_from_another_thread_makes_the_descriptor_readable() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let mut host = Host::new(&runtime);
        let handle = runtime.handle();
        let thread = thread::spawn(move || {
            moment();
            handle.spawn(|| async {});
        });
        while runtime.stats().spawned == 0 {
            assert!(host.wait(&runtime), "nothing else ends the wait");
            runtime.turn(NOW).unwrap();
        }
        thread.join().unwrap();
    }
}

#[test]
fn a_host_that_wants_to_be_called_where_there_is_no_descriptor_is_refused() {
    let runtime = match cfg!(mio_unsupported_force_poll_poll) {
        true => Runtime::new(),
        false => Runtime::builder().selector(scripted().0).build(),
    };
    let error = runtime.unwrap().notify_host(|| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn next_timeout_from_inside_a_turn_is_zero() {
    let runtime = std::rc::Rc::new(Runtime::new().unwrap());
    let inside = runtime.clone();
    let asked = runtime.spawn(async move { inside.next_timeout() });
    assert_eq!(runtime.block_on(asked).unwrap(), NOW);
    assert_eq!(runtime.next_timeout(), None);
}
