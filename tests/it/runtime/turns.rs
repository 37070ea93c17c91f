//! What one turn runs, and what it says of the next.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::os::unix::net::UnixDatagram as PlainDatagram;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use netpoller::{Runtime, TcpListener, UnixDatagram, UnixStream, spawn, time, yield_now};

use crate::support::hand_clock::by_hand;
use crate::support::run::turns;
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);
const MANY: usize = 400;

type Waits = Pin<Box<dyn Future<Output = ()>>>;

/// A task that polls all of these whenever it runs, and never ends. Its runs are counted.
fn hub(runtime: &Runtime, mut all: Vec<Waits>) -> Rc<Cell<usize>> {
    let runs = Rc::new(Cell::new(0));
    let counted = runs.clone();
    drop(runtime.spawn(poll_fn(move |cx| {
        counted.set(counted.get() + 1);
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        Poll::<()>::Pending
    })));
    runs
}

#[test]
fn a_task_runs_once_for_all_sleeps_that_end_in_a_turn() {
    let (runtime, hand) = by_hand();
    let until = hand.now() + Duration::from_secs(1);
    let sleep = |_| Box::pin(time::sleep_until(until)) as Waits;
    let runs = hub(&runtime, (0..MANY).map(sleep).collect());
    turns(&runtime);
    let before = runs.get();
    hand.pass(Duration::from_secs(1));
    runtime.turn(NOW).unwrap();
    assert_eq!(runs.get() - before, 1);
}

#[test]
fn a_task_runs_once_for_all_sockets_that_become_ready_in_a_turn() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (mut peers, mut all) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        for _ in 0..MANY {
            let (ours, theirs) = PlainDatagram::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            peers.push(theirs);
            let socket = UnixDatagram::from_std(ours).unwrap();
            all.push(Box::pin(async move {
                assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 1);
            }) as Waits);
        }
    });
    let runs = hub(&runtime, all);
    turns(&runtime);
    let before = runs.get();
    for peer in &peers {
        peer.send(b"x").unwrap();
    }
    runtime.turn(NOW).unwrap();
    assert_eq!(runs.get() - before, 1);
}

/// Asserts that a turn leaves something to hand out, and says so.
fn says_more(runtime: &Runtime) {
    let turn = runtime.turn(NOW).unwrap();
    assert_eq!(runtime.next_timeout(), NOW, "nothing is left to hand out");
    assert!(turn.more, "{turn:?}");
}

#[test]
fn a_turn_says_more_when_what_ran_last_closed_a_socket_that_is_waited_for() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let accepting = listener.clone();
    let accept = runtime.spawn(async move { accepting.accept().await.is_err() });
    turns(&runtime);
    drop(runtime.spawn(async move { listener.close().unwrap() }));
    says_more(&runtime);
    assert!(runtime.block_on(accept).unwrap());
}

/// A task reads from a socket, and the one that runs last does this to another handle of it.
fn says_more_after(last: impl FnOnce(UnixStream) + 'static) {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (ours, _theirs) = runtime.block_on(async { UnixStream::pair().unwrap() });
    let reading = ours.clone();
    let read = runtime.spawn(async move { reading.read(&mut [0; 8]).await.is_err() });
    turns(&runtime);
    drop(runtime.spawn(async move { last(ours) }));
    says_more(&runtime);
    assert!(runtime.block_on(read).unwrap());
}

#[test]
fn a_turn_says_more_when_what_ran_last_set_a_deadline_in_the_past() {
    let kept = Rc::new(Cell::new(None));
    let keeps = kept.clone();
    says_more_after(move |ours| {
        ours.set_deadline(Some(time::now())).unwrap();
        keeps.set(Some(ours));
    });
    assert!(kept.take().is_some());
}

#[test]
fn a_turn_says_more_when_what_ran_last_dropped_its_handle_behind_a_deadline_in_the_past() {
    says_more_after(|ours| ours.set_deadline(Some(time::now())).unwrap());
}

#[test]
fn yield_now_lets_everything_else_that_is_runnable_go_first_in_the_root_and_in_a_task() {
    let all_go_first = || async {
        let ran = Rc::new(Cell::new(0));
        for _ in 0..10 * MANY {
            let ran = ran.clone();
            drop(spawn(async move { ran.set(ran.get() + 1) }));
        }
        yield_now().await;
        assert_eq!(ran.get(), 10 * MANY);
    };
    let runtime = Runtime::new().unwrap();
    runtime.block_on(all_go_first());
    runtime.block_on(runtime.spawn(all_go_first())).unwrap();
}

#[test]
fn calls_of_block_on_that_never_turn_leave_nothing_runnable() {
    let runtime = Runtime::new().unwrap();
    for _ in 0..MANY {
        runtime.block_on(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Ready(())
        }));
    }
    assert_eq!(runtime.next_timeout(), None);
    assert_eq!(runtime.turn(NOW).unwrap().machines, 0);
}

#[test]
fn tasks_that_were_aborted_keep_no_others_waiting() {
    let runtime = Runtime::new().unwrap();
    // Each frame aborts more tasks than `turn_for` runs with a budget of zero.
    for _ in 0..200 {
        for _ in 0..40 {
            runtime.spawn(std::future::pending::<()>()).abort();
        }
        runtime.turn_for(Duration::ZERO).unwrap();
    }
    let task = runtime.spawn(async {});
    for _ in 0..10 {
        runtime.turn_for(Duration::ZERO).unwrap();
    }
    assert!(task.is_finished(), "it waits behind tasks that are gone");
}

#[test]
fn a_round_ends_without_the_tasks_that_were_aborted_in_it() {
    let lefts = Rc::new(RefCell::new(Vec::new()));
    let noted = lefts.clone();
    let one_each_turn = move |ids: &mut [_], left: usize, _: usize, _: u64| {
        noted.borrow_mut().push((left, ids.len()));
        1
    };
    let runtime = Runtime::builder().schedule(one_each_turn).build().unwrap();
    let tasks: Vec<_> = (0..MANY)
        .map(|_| runtime.spawn(std::future::pending::<()>()))
        .collect();
    runtime.turn(NOW).unwrap();
    // All but the last two of the round end, and others come.
    tasks[..MANY - 2].iter().for_each(|task| task.abort());
    for _ in 0..100 {
        drop(runtime.spawn(async {}));
    }
    for _ in 0..MANY {
        runtime.turn(NOW).unwrap();
    }
    let lefts = lefts.borrow();
    assert!(
        lefts.iter().all(|&(left, queued)| left <= queued),
        "{lefts:?}"
    );
    let second_round = lefts
        .iter()
        .skip(1)
        .position(|&(left, queued)| left == queued);
    assert!(second_round.unwrap() < 100, "{lefts:?}");
}

#[test]
fn yield_now_lets_go_first_what_another_thread_has_woken() {
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(async {
        let (tell, told) = channel();
        let runs = Rc::new(Cell::new(0));
        let counted = runs.clone();
        drop(spawn(poll_fn(move |cx| {
            counted.set(counted.get() + 1);
            tell.send(cx.waker().clone()).unwrap();
            Poll::<()>::Pending
        })));
        yield_now().await;
        let waker = told.recv().unwrap();
        thread::spawn(move || waker.wake()).join().unwrap();
        yield_now().await;
        assert_eq!(runs.get(), 2, "it was not woken before the yield");
    });
}
