//! The models. Each is small: loom tries every order, and two threads with three steps have many.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use crate::connection::limits::Quota;
use crate::connection::quota;
use crate::connection::shared::Phase;
use crate::net::listener::Accepted;
use crate::net::permits::Permits;
use crate::reactor::Breaker;
use crate::runtime::blocking::Lane;
use crate::runtime::machine::MachineId;
use crate::runtime::waker::{MachineWaker, Remote};
use crate::server::dispatch::{Arrival, Dispatcher, WorkerInbox};
use crate::trace::{self, Kind, Recorder, Tape};

/// Runs a model in every order with at most three switches between threads that could go on.
fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// The loop, as far as its mail goes.
struct Loop {
    remote: Arc<Remote>,
    selector: Breaker,
}

impl Loop {
    fn new(failures: usize) -> Self {
        let selector = Breaker::failing(failures);
        let remote = Arc::new(Remote::new(
            selector.clone(),
            Arc::new(Lane),
            Tape::default(),
        ));
        Loop { remote, selector }
    }

    /// Opens the mail, passes what it holds to `ran`, and sleeps, until `ran` returns true.
    fn turn_until(&self, mut ran: impl FnMut(Option<MachineId>) -> bool) {
        loop {
            let mut enough = false;
            if let Some((woken, jobs)) = self.remote.take_mail() {
                for waker in woken {
                    enough |= ran(Some(waker.unmail()));
                }
                for job in jobs {
                    job();
                    enough |= ran(None);
                }
            }
            if enough {
                return;
            }
            if !self.remote.has_mail() {
                self.selector.wait();
            }
        }
    }
}

pub fn a_wake_is_never_lost_and_what_it_announces_is_seen() {
    model(|| {
        let netpoller = Loop::new(0);
        let news = Arc::new(AtomicUsize::new(0));
        let waker = MachineWaker::waker(MachineId(1), &netpoller.remote);
        let threads = [1, 2].map(|more| {
            let (news, waker) = (news.clone(), waker.clone());
            thread::spawn(move || {
                news.fetch_add(more, Ordering::Relaxed);
                waker.wake_by_ref();
            })
        });
        // The machine runs when it is woken, and waits for both.
        netpoller.turn_until(|_| news.load(Ordering::Relaxed) == 3);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

pub fn wakes_of_two_machines_and_a_job_all_come_and_no_break_is_made_twice() {
    model(|| {
        let netpoller = Loop::new(0);
        let wakers = [1, 2].map(|id| MachineWaker::waker(MachineId(id), &netpoller.remote));
        let [one, two] = wakers;
        let waking = thread::spawn(move || {
            one.wake();
            two.wake();
        });
        let remote = netpoller.remote.clone();
        let sending = thread::spawn(move || assert!(remote.send(Box::new(|| ()))));
        let mut came = 0;
        netpoller.turn_until(|_| {
            came += 1;
            came == 3
        });
        waking.join().unwrap();
        sending.join().unwrap();
        assert!(netpoller.selector.breaks() <= 3);
    });
}

pub fn after_a_break_that_failed_the_next_wake_breaks_again() {
    model(|| {
        let netpoller = Loop::new(1);
        let wakers = [1, 2].map(|id| MachineWaker::waker(MachineId(id), &netpoller.remote));
        let [one, two] = wakers;
        let waking = thread::spawn(move || {
            one.wake();
            two.wake();
        });
        let mut came = 0;
        netpoller.turn_until(|_| {
            came += 1;
            came == 2
        });
        waking.join().unwrap();
    });
}

pub fn after_a_break_that_failed_a_second_wake_of_the_same_machine_breaks_too() {
    model(|| {
        let netpoller = Loop::new(1);
        let waker = MachineWaker::waker(MachineId(1), &netpoller.remote);
        let waking = thread::spawn(move || {
            waker.wake_by_ref();
            waker.wake();
        });
        netpoller.turn_until(|_| true);
        waking.join().unwrap();
    });
}

pub fn a_job_that_is_sent_while_the_runtime_ends_runs_or_is_dropped() {
    model(|| {
        let netpoller = Loop::new(0);
        let done = Arc::new(AtomicUsize::new(0));
        let (remote, counts) = (netpoller.remote.clone(), done.clone());
        let sending = thread::spawn(move || {
            let mut refused = 0;
            for _ in 0..2 {
                let counts = counts.clone();
                let job = move || _ = counts.fetch_add(1, Ordering::Relaxed);
                refused += usize::from(!remote.send(Box::new(job)));
            }
            refused
        });
        if let Some((_, jobs)) = netpoller.remote.take_mail() {
            jobs.into_iter().for_each(|job| job());
        }
        let left = netpoller.remote.close().len();
        let refused = sending.join().unwrap();
        assert_eq!(done.load(Ordering::Relaxed) + left + refused, 2);
    });
}

pub fn a_clock_that_waits_for_blocking_jobs_learns_of_the_last() {
    model(|| {
        let netpoller = Loop::new(0);
        let jobs = [(); 2].map(|()| {
            let out = netpoller.remote.begin_work();
            thread::spawn(move || drop(out))
        });
        while netpoller.remote.work_out.load(Ordering::Acquire) > 0 {
            drop(netpoller.remote.take_mail());
            if netpoller.remote.work_out.load(Ordering::Acquire) > 0 && !netpoller.remote.has_mail()
            {
                netpoller.selector.wait();
            }
        }
        for job in jobs {
            job.join().unwrap();
        }
    });
}

pub fn no_more_connections_than_permits_and_each_waiter_gets_one() {
    model(|| {
        let permits = Arc::new(Permits::new(1));
        let open = Arc::new(AtomicUsize::new(0));
        let serve = |permits: Arc<Permits>, open: Arc<AtomicUsize>| {
            let permit = block_on(permits.take());
            assert_eq!(open.fetch_add(1, Ordering::Relaxed), 0, "one too many");
            open.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        };
        let (theirs, count) = (permits.clone(), open.clone());
        let other = thread::spawn(move || serve(theirs, count));
        serve(permits.clone(), open);
        other.join().unwrap();
        drop(block_on(permits.take()));
    });
}

pub fn a_waiter_that_gives_up_loses_no_permit() {
    model(|| {
        let permits = Arc::new(Permits::new(1));
        let held = block_on(permits.take());
        let theirs = permits.clone();
        let gives_up = thread::spawn(move || {
            let mut wait = pin!(theirs.take());
            let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            drop(polled);
        });
        drop(held);
        drop(block_on(permits.take()));
        gives_up.join().unwrap();
        drop(block_on(permits.take()));
    });
}

fn send(inbox: &WorkerInbox, peer: usize) {
    let accepted = Accepted { peer };
    let listener = 0;
    let arrival = Arrival { accepted, listener };
    let permit = block_on(Arc::new(Permits::new(1)).take());
    inbox.dispatcher.send(arrival, Some(permit), None);
}

fn inboxes() -> [WorkerInbox; 2] {
    let dispatcher = Arc::new(Dispatcher::new(2));
    dispatcher.open(2).try_into().ok().unwrap()
}

/// How many connections come until the end of accepting. Each has a permit.
fn serve(inbox: &WorkerInbox) -> usize {
    inbox.finish();
    block_on(async {
        let (mut served, none) = (0, Arc::new(Permits::new(0)));
        while let Some(_arrival) = inbox.arrival(&none).await {
            served += 1;
        }
        served
    })
}

pub fn each_connection_is_served_once_and_both_workers_learn_of_the_end() {
    model(|| {
        let [accepting, other] = inboxes();
        let worker = thread::spawn(move || serve(&other));
        for peer in 0..2 {
            send(&accepting, peer);
        }
        let served = serve(&accepting);
        assert_eq!(worker.join().unwrap() + served, 2);
    });
}

pub fn a_worker_that_dies_leaves_what_it_has_not_served_to_the_other() {
    model(|| {
        let [accepting, other] = inboxes();
        let dies = thread::spawn(move || {
            let none = Arc::new(Permits::new(0));
            let next = pin!(other.arrival(&none)).poll(&mut Context::from_waker(Waker::noop()));
            usize::from(matches!(next, Poll::Ready(Some(_))))
        });
        for peer in 0..2 {
            send(&accepting, peer);
        }
        let served = dies.join().unwrap();
        assert_eq!(serve(&accepting) + served, 2);
    });
}

pub fn a_worker_learns_of_the_last_order_whichever_thread_gives_it() {
    model(|| {
        let [inbox, _other] = inboxes();
        let (drains, stops) = (inbox.dispatcher.clone(), inbox.dispatcher.clone());
        let drains = thread::spawn(move || drains.give(Phase::Draining, Duration::from_secs(1)));
        let stops = thread::spawn(move || stops.give(Phase::Stopped, Duration::ZERO));
        block_on(async {
            let (mut last, mut phase) = (None, Phase::Serving);
            while phase != Phase::Stopped {
                let order = inbox.order(last).await;
                assert!(order.phase >= phase, "a phase falls");
                (last, phase) = (Some(order), order.phase);
            }
        });
        drains.join().unwrap();
        assert!(stops.join().unwrap());
    });
}

pub fn a_quota_is_never_exceeded_and_all_is_given_back() {
    model(|| {
        let quota = Arc::new(quota(3));
        let kept = Arc::new(AtomicUsize::new(0));
        let write = |quota: Arc<Quota>, kept: Arc<AtomicUsize>| {
            for bytes in [2, 1] {
                if quota.charge(bytes) {
                    assert!(kept.fetch_add(bytes, Ordering::Relaxed) + bytes <= 3);
                    kept.fetch_sub(bytes, Ordering::Relaxed);
                    quota.give_back(bytes);
                }
            }
        };
        let (theirs, count) = (quota.clone(), kept.clone());
        let other = thread::spawn(move || write(theirs, count));
        write(quota.clone(), kept);
        other.join().unwrap();
        assert!(!quota.charge(4) && quota.charge(3), "all room is back");
        assert!(!quota.charge(usize::MAX));
    });
}

/// Record `n` holds `n` twice.
fn assert_whole_and_in_order(tape: &Tape) -> u64 {
    let (records, lost) = trace::read(tape);
    let numbers = lost..;
    for (number, record) in numbers.zip(&records) {
        assert_eq!(record, &[number, number]);
    }
    lost + records.len() as u64
}

pub fn records_that_are_read_while_others_overwrite_them_are_whole_and_in_order() {
    model(|| {
        let tape = trace::smallest();
        let (written, read) = (tape.clone(), tape.clone());
        let writer = thread::spawn(move || {
            let recorder = Recorder::new(written, |&id: &u64| id);
            (0..4).for_each(|number| recorder.put(Kind::Unpark, number, number));
        });
        let reader = thread::spawn(move || assert_whole_and_in_order(&read));
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(assert_whole_and_in_order(&tape), 4);
    });
}
