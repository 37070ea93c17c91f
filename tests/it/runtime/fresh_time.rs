//! A deadline counts from the moment at which it is set, however old the loop's reading is; a time
//! in the past has passed; and whatever enters the runtime from outside begins with a fresh
//! reading.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netpoller::{
    CancelError, CancelToken, Heartbeat, JoinHandle, NetError, Runtime, TcpListener, UdpSocket,
    time,
};

use crate::support::hand_clock::{Hand, by_hand};
use crate::support::loopback::plain_unix_pair;
use crate::support::on_drop::OnDrop;
use crate::support::run::turns;
use crate::support::scripted_protocol::Script;

const NOW: Option<Duration> = Some(Duration::ZERO);
const STALL: Duration = Duration::from_millis(600);
const WAIT: Duration = Duration::from_millis(300);
const HOUR: Duration = Duration::from_secs(3600);
const TICK: Duration = Duration::from_millis(1);

/// Lets [`WAIT`] pass, and asserts that it ends then and no tick before.
fn ends_in_time(runtime: &Runtime, hand: &Hand, has_ended: impl Fn() -> bool) {
    turns(runtime);
    assert!(!has_ended(), "at once");
    hand.pass(WAIT - TICK);
    turns(runtime);
    assert!(!has_ended(), "early");
    hand.pass(TICK);
    turns(runtime);
    assert!(has_ended(), "late");
}

/// Runs `waits` behind a task that holds up the loop in the same batch: it must take all of
/// [`WAIT`], counted from when it began.
fn takes_its_time_behind_a_stall<F: Future + 'static>(waits: impl FnOnce() -> F + 'static) {
    let (runtime, hand) = by_hand();
    let stalls = hand.clone();
    drop(runtime.spawn(async move { stalls.pass(STALL) }));
    let waiting = runtime.spawn(async move {
        waits().await;
    });
    ends_in_time(&runtime, &hand, || waiting.is_finished());
}

/// Runs `waits` in the first poll of `block_on`, a stall after the last turn: it must take all of
/// [`WAIT`], counted from that poll.
fn takes_its_time_in_block_on<F: Future>(waits: impl FnOnce() -> F) {
    let (runtime, hand) = by_hand();
    hand.pass(STALL);
    let waiting = RefCell::new(Box::pin(async { waits().await }));
    ends_in_time(&runtime, &hand, || {
        runtime.block_on(poll_fn(|cx| {
            Poll::Ready(waiting.borrow_mut().as_mut().poll(cx).is_ready())
        }))
    });
}

#[test]
fn a_read_deadline_set_behind_a_stall_is_not_early() {
    takes_its_time_behind_a_stall(|| async {
        let (ours, _theirs) = plain_unix_pair();
        ours.set_read_deadline(Some(time::now() + WAIT)).unwrap();
        assert!(ours.read(&mut [0; 8]).await.unwrap_err().is_timeout());
    });
}

#[test]
fn the_deadlines_of_an_accept_and_of_a_datagram_set_behind_a_stall_are_not_early() {
    takes_its_time_behind_a_stall(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.set_deadline(Some(time::now() + WAIT)).unwrap();
        assert!(listener.accept().await.unwrap_err().is_timeout());
    });
    takes_its_time_behind_a_stall(|| async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.set_deadline(Some(time::now() + WAIT)).unwrap();
        assert!(socket.recv(&mut [0; 8]).await.unwrap_err().is_timeout());
    });
}

#[test]
fn a_sleep_a_timeout_and_a_scope_that_begin_in_the_first_poll_of_block_on_are_not_early() {
    takes_its_time_in_block_on(|| time::sleep(WAIT));
    takes_its_time_in_block_on(|| time::timeout(WAIT, pending::<()>()));
    takes_its_time_in_block_on(|| async {
        CancelToken::new().with_timeout(WAIT).canceled().await;
    });
}

#[test]
fn a_heartbeat_put_off_behind_a_stall_or_in_the_first_poll_of_block_on_is_not_early() {
    let pings_in_time = |put_off: fn(&Runtime, &Hand, Rc<Heartbeat>)| {
        let (runtime, hand) = by_hand();
        let (ours, theirs) = runtime.block_on(async { plain_unix_pair() });
        theirs.set_nonblocking(true).unwrap();
        let beat = runtime.block_on(async { Rc::new(Heartbeat::start(&ours, 10 * STALL)) });
        turns(&runtime);
        put_off(&runtime, &hand, beat.clone());
        ends_in_time(&runtime, &hand, || match (&theirs).read(&mut [0; 4]) {
            Ok(got) => got == 4,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                false
            }
        });
    };
    pings_in_time(|runtime, hand, beat| {
        let stalls = hand.clone();
        drop(runtime.spawn(async move { stalls.pass(STALL) }));
        drop(runtime.spawn(async move { beat.reset(Some(WAIT)) }));
    });
    pings_in_time(|runtime, hand, beat| {
        hand.pass(STALL);
        runtime.block_on(async { beat.reset(Some(WAIT)) });
    });
}

#[test]
fn a_sleep_a_timeout_and_a_scope_that_begin_behind_a_stall_are_not_early() {
    takes_its_time_behind_a_stall(|| time::sleep(WAIT));
    takes_its_time_behind_a_stall(|| time::timeout(WAIT, pending::<()>()));
    takes_its_time_behind_a_stall(|| async {
        CancelToken::new().with_timeout(WAIT).canceled().await;
    });
}

#[test]
fn an_idle_timeout_counts_from_the_answer_behind_a_stall() {
    thread_local! {
        static HAND: Cell<Option<Hand>> = const { Cell::new(None) };
    }
    let (runtime, hand) = by_hand();
    HAND.set(Some(hand.clone()));
    let script = Script {
        data: |conn, bytes| {
            // The first to be answered holds up the others of its batch.
            if let Some(hand) = HAND.take() {
                hand.pass(STALL);
            }
            conn.write(bytes)?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let bound = script.server().idle_timeout(WAIT).bind("127.0.0.1:0");
    let bound = bound.unwrap();
    let _serving = bound.run_in(&runtime).unwrap();
    let dial = |_| std::net::TcpStream::connect(bound.local_addr()).unwrap();
    let mut peers: Vec<_> = (0..20).map(dial).collect();
    while runtime.stats().connections < peers.len() {
        runtime.turn(NOW).unwrap();
    }
    turns(&runtime);
    for peer in &mut peers {
        peer.write_all(b"hello").unwrap();
    }
    let is_data = |line: &String| line.starts_with("data");
    while script.said().iter().filter(|line| is_data(line)).count() < peers.len() {
        runtime.turn(NOW).unwrap();
    }
    hand.pass(WAIT - TICK);
    turns(&runtime);
    // One may have been idle since before its own stall.
    let left = runtime.stats().connections;
    assert!(left >= peers.len() - 1, "{left} are left: closed early");
    hand.pass(TICK);
    turns(&runtime);
    assert_eq!(runtime.stats().connections, 0, "closed late");
    for peer in &mut peers {
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"hello");
    }
}

#[test]
fn the_first_poll_of_block_on_finds_the_time_fresh() {
    let (runtime, hand) = by_hand();
    let (ours, _theirs) = runtime.block_on(async { plain_unix_pair() });
    hand.pass(STALL);
    let now = hand.now();
    runtime.block_on(async {
        assert_eq!((time::now(), time::coarse_now()), (now, now));
        ours.set_read_deadline(Some(time::now() + WAIT)).unwrap();
        let tried = ours.try_read(&mut [0; 8]).unwrap_err();
        assert_eq!(tried.kind(), std::io::ErrorKind::WouldBlock);
    });
}

#[test]
fn what_is_aborted_between_turns_or_goes_with_its_runtime_finds_the_time_fresh() {
    let (runtime, hand) = by_hand();
    let told = Rc::new(Cell::new(None));
    let tell = || {
        let told = told.clone();
        let held = OnDrop(move || told.set(Some(time::coarse_now())));
        runtime.spawn(async move {
            pending::<()>().await;
            drop(held);
        })
    };
    let (aborted, _left) = (tell(), tell());
    turns(&runtime);
    hand.pass(STALL);
    aborted.abort();
    assert_eq!(told.take(), Some(hand.now()));
    hand.pass(STALL);
    drop(runtime);
    assert_eq!(told.take(), Some(hand.now()));
}

#[test]
fn a_passed_deadline_expires_however_old_the_loops_reading_is() {
    let (runtime, hand) = by_hand();
    runtime.block_on(async {
        let (ours, mut theirs) = plain_unix_pair();
        theirs.write_all(b"waits").unwrap();
        let soon = time::now() + WAIT;
        // Set before and after it has passed: the same instant.
        ours.set_deadline(Some(soon)).unwrap();
        hand.pass(STALL);
        ours.set_deadline(Some(soon)).unwrap();
        assert!(ours.try_read(&mut [0; 8]).unwrap_err().is_timeout());
        assert!(ours.try_write(b"late").unwrap_err().is_timeout());
        let mut sleep = pin!(time::sleep_until(hand.now()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sleep.as_mut().poll(&mut cx).is_ready());
        // Far ahead when it is set, and far behind when it is set again.
        let far = time::now() + 3600 * WAIT;
        ours.set_deadline(Some(far)).unwrap();
        assert_eq!(ours.try_read(&mut [0; 8]).unwrap(), 5);
        hand.pass(3600 * STALL);
        ours.set_deadline(Some(far)).unwrap();
        assert!(ours.try_write(b"late").unwrap_err().is_timeout());
    });
}

#[test]
fn a_passed_deadline_of_an_accept_or_of_a_datagram_expires_although_something_waits() {
    let (runtime, hand) = by_hand();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sent = socket.send_to(b"waits", socket.local_addr().unwrap());
        assert_eq!(sent.await.unwrap(), 5);
        let soon = time::now() + WAIT;
        hand.pass(STALL);
        listener.set_deadline(Some(soon)).unwrap();
        socket.set_read_deadline(Some(soon)).unwrap();
        assert!(listener.accept().await.unwrap_err().is_timeout());
        assert!(socket.recv(&mut [0; 8]).await.unwrap_err().is_timeout());
        listener.set_deadline(None).unwrap();
        socket.set_read_deadline(None).unwrap();
        listener.accept().await.unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 5);
    });
}

/// Polls what `make` makes once in a runtime that is gone afterwards, and spawns it in another, which
/// has the same clock.
fn outlives_its_runtime<F: Future + 'static>(
    make: impl FnOnce() -> F,
) -> (Runtime, Hand, JoinHandle<F::Output>) {
    let (first, hand) = by_hand();
    let read = hand.clone();
    let second = Runtime::builder().clock(move || read.now());
    let second = second.build().unwrap();
    let mut kept = None;
    first.block_on(async {
        let made = kept.insert(Box::pin(make()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(made.as_mut().poll(&mut cx).is_pending());
    });
    drop(first);
    let task = second.spawn(kept.unwrap());
    (second, hand, task)
}

#[test]
fn a_sleep_and_a_timeout_that_began_in_a_runtime_that_is_gone_end_in_time_in_another() {
    let (second, hand, task) = outlives_its_runtime(|| time::sleep(WAIT));
    ends_in_time(&second, &hand, || task.is_finished());
    let (second, hand, task) = outlives_its_runtime(|| time::timeout(WAIT, pending::<()>()));
    ends_in_time(&second, &hand, || task.is_finished());
    assert!(second.block_on(task).unwrap().is_err());
}

#[test]
fn an_interval_that_began_in_a_runtime_that_is_gone_keeps_its_step_in_another() {
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    let (second, hand, task) = outlives_its_runtime(|| async move {
        let mut interval = time::interval(WAIT);
        loop {
            interval.tick().await;
            counted.set(counted.get() + 1);
        }
    });
    for past in 1..4 {
        ends_in_time(&second, &hand, || ticks.get() > past);
        assert_eq!(ticks.get(), past + 1);
    }
    task.abort();
}

#[test]
fn a_scope_that_ran_in_a_runtime_that_is_gone_ends_in_time_on_every_thread() {
    let kept = Rc::new(Cell::new(None));
    let made = kept.clone();
    let (second, hand, task) = outlives_its_runtime(|| {
        let scope = CancelToken::new().with_timeout(HOUR);
        made.set(Some(scope.clone()));
        async move { scope.run(pending::<()>()).await }
    });
    let scope = kept.take().unwrap();
    let ended = || {
        turns(&second);
        let (here, elsewhere) = (task.is_finished(), scope.clone());
        let elsewhere = std::thread::spawn(move || elsewhere.child().err());
        (here, elsewhere.join().unwrap())
    };
    assert_eq!(ended(), (false, None));
    hand.pass(HOUR - TICK);
    assert_eq!(ended(), (false, None));
    hand.pass(TICK);
    assert_eq!(ended(), (true, Some(CancelError::DeadlineExceeded)));
}

#[test]
fn a_sleep_that_moves_to_another_runtime_ends_there_by_its_own_deadline() {
    let (first, _) = by_hand();
    let (second, hand) = by_hand();
    let mut kept = None;
    first.block_on(async {
        let sleep = kept.insert(Box::pin(time::sleep_until(hand.now() + WAIT)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        assert_eq!(first.stats().timers, 1);
    });
    let sleeping = second.spawn(kept.unwrap());
    turns(&second);
    // It leaves the first with the first's next turn.
    turns(&first);
    assert_eq!((first.stats().timers, second.stats().timers), (0, 1));
    drop(first);
    hand.pass(WAIT - TICK);
    turns(&second);
    assert!(!sleeping.is_finished());
    hand.pass(TICK);
    turns(&second);
    assert!(sleeping.is_finished());
}

#[test]
fn a_sleep_may_be_dropped_on_another_thread_and_leaves_its_runtime_with_the_next_turn() {
    let runtime = Runtime::new().unwrap();
    let sleeps: Vec<_> = (0..100).map(|_| time::sleep_until(far())).collect();
    let polled = runtime.block_on(async {
        let mut polled = Vec::new();
        for sleep in sleeps {
            let mut sleep = Box::pin(sleep);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
            polled.push(sleep);
        }
        polled
    });
    assert_eq!(runtime.stats().timers, 100);
    std::thread::spawn(move || drop(polled)).join().unwrap();
    turns(&runtime);
    assert_eq!((runtime.stats().timers, runtime.stats().waiters), (0, 0));
}

#[test]
fn a_sleep_that_is_reset_on_another_thread_ends_at_its_new_end() {
    let (runtime, hand) = by_hand();
    let sleep = Arc::new(Mutex::new(time::sleep_until(hand.now() + 2 * WAIT)));
    let sleeping = runtime.spawn({
        let sleep = sleep.clone();
        std::future::poll_fn(move |cx| Pin::new(&mut *sleep.lock().unwrap()).poll(cx))
    });
    turns(&runtime);
    let sooner = hand.now() + WAIT;
    std::thread::spawn(move || {
        (0..10_000).for_each(|_| sleep.lock().unwrap().reset(sooner));
    })
    .join()
    .unwrap();
    turns(&runtime);
    assert_eq!(runtime.stats().timers, 1);
    hand.pass(WAIT + TICK);
    turns(&runtime);
    assert!(sleeping.is_finished());
}

fn far() -> std::time::Instant {
    std::time::Instant::now() + Duration::from_secs(3600)
}

#[test]
fn a_timeout_polls_its_future_once_more_before_it_says_elapsed() {
    let (runtime, hand) = by_hand();
    let result = runtime.block_on(async {
        let mut polls = 0;
        let late = std::future::poll_fn(|_| {
            polls += 1;
            // While it is polled for the first time the limit passes, and it is ready.
            hand.pass(STALL);
            match polls {
                1 => std::task::Poll::Pending,
                _ => std::task::Poll::Ready("ready"),
            }
        });
        time::timeout(WAIT, late).await
    });
    assert_eq!(result, Ok("ready"));
}

#[test]
fn a_sleep_fires_by_the_clock_beside_machines_that_never_rest() {
    let (runtime, hand) = by_hand();
    drop(runtime.spawn(async {
        loop {
            netpoller::yield_now().await;
        }
    }));
    let sleeping = runtime.spawn(time::sleep_until(hand.now() + WAIT));
    for _ in 0..3 {
        runtime.turn(NOW).unwrap();
    }
    hand.pass(WAIT);
    for _ in 0..3 {
        runtime.turn(NOW).unwrap();
    }
    assert!(sleeping.is_finished(), "late");
}
