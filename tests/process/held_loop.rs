//! A machine that holds the loop is named: by the watchdog while it does, by the loop afterwards.

use std::cell::Cell;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use log::Level;
use netpoller::{Runtime, spawn, time, yield_now};

use crate::child::in_child;
use crate::logged::{keep_log, logged};
use crate::support::stall::stall;

const THRESHOLD: Duration = Duration::from_millis(100);

/// The warnings so far, in order.
fn warnings() -> Vec<String> {
    logged(Level::Warn, 0)
}

/// The longest time between two runs.
#[derive(Clone)]
struct Looks(Rc<Cell<(Instant, Duration)>>);

impl Looks {
    fn new() -> Self {
        Looks(Rc::new(Cell::new((Instant::now(), Duration::ZERO))))
    }

    fn look(&self) {
        let (now, (last, longest)) = (Instant::now(), self.0.get());
        self.0.set((now, longest.max(now - last)));
    }

    /// Asserts that the watchdog has not warned. It may have if the system took the CPU away for
    /// about as long as the threshold: then a run was long.
    fn found_no_warning(&self) {
        self.look();
        if self.0.get().1 < THRESHOLD / 2 {
            assert_eq!(warnings(), [""; 0]);
        }
    }
}

/// Holds the loop until `done`.
fn hold(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?}",
            warnings()
        );
        thread::yield_now();
    }
}

#[test]
fn the_watchdog_names_a_machine_while_it_holds_the_loop_and_once_when_it_lets_go() {
    in_child(|| {
        keep_log();
        let runtime = Runtime::builder().watchdog(THRESHOLD).build().unwrap();
        let line = line!() + 2;
        let named = || warnings().len() == 1;
        let task = runtime.spawn_named("the\nculprit \u{1b}[31m", async move { hold(named) });
        runtime.block_on(task).unwrap();
        // The loop turns on, so that the watchdog can see it do so.
        runtime.block_on(async {
            while warnings().len() < 2 {
                time::sleep(Duration::from_millis(1)).await;
            }
        });
        let warnings = warnings();
        let task = format!(
            r#" by task 1.1 "the\nculprit \u{{1b}}[31m", spawned at {}:{line}"#,
            file!()
        );
        assert!(
            warnings[0].starts_with("the loop is held for ")
                && warnings[0].ends_with(&(" so far".to_owned() + &task)),
            "{warnings:?}"
        );
        assert!(
            warnings[1].starts_with("the loop was held for ") && warnings[1].ends_with(&task),
            "{warnings:?}"
        );
        assert_eq!(warnings.len(), 2);
    });
}

#[test]
fn the_watchdog_names_a_machine_that_holds_on_no_more_than_once_a_second() {
    in_child(|| {
        keep_log();
        let runtime = Runtime::builder().watchdog(THRESHOLD).build().unwrap();
        let start = Instant::now();
        runtime.block_on(async { hold(|| warnings().len() == 2) });
        assert!(start.elapsed() >= Duration::from_secs(1));
        assert!(
            warnings()
                .iter()
                .all(|line| line.ends_with(" so far by root 0.1"))
        );
    });
}

#[test]
fn the_watchdog_is_silent_about_many_short_runs_of_a_loop_that_never_rests() {
    in_child(|| {
        keep_log();
        let runtime = Runtime::builder().watchdog(THRESHOLD).build().unwrap();
        let looks = Looks::new();
        let looked = looks.clone();
        runtime.block_on(async {
            let busy = spawn(async move {
                loop {
                    looked.look();
                    yield_now().await;
                }
            });
            time::sleep(6 * THRESHOLD).await;
            busy.abort();
        });
        looks.found_no_warning();
    });
}

#[test]
fn the_watchdog_is_silent_about_many_short_jobs_of_one_turn() {
    in_child(|| {
        keep_log();
        let runtime = Runtime::builder().watchdog(THRESHOLD).build().unwrap();
        thread_local! { static LOOKS: Looks = Looks::new() }
        let job = || {
            LOOKS.with(Looks::look);
            stall(Duration::from_millis(1));
            async {}
        };
        (0..400).for_each(|_| runtime.handle().spawn(job));
        runtime.turn(None).unwrap();
        LOOKS.with(Looks::found_no_warning);
    });
}

#[test]
fn without_a_watchdog_a_machine_that_took_longer_than_a_second_is_logged_once_it_has_ended() {
    in_child(|| {
        keep_log();
        let runtime = Runtime::new().unwrap();
        let long = Duration::from_millis(1100);
        let others = |count| (0..count).for_each(|_| drop(runtime.spawn(async {})));
        // It is known only as one of those that ran together.
        others(5);
        drop(runtime.spawn_named("slow", async move { stall(long) }));
        others(5);
        runtime.turn(None).unwrap();
        let first = warnings();
        let one = "by a batch of 11 machines (from here on each is timed); the first: task 1.1, ";
        let task = format!(r#"; task 6.6 "slow", spawned at {}:"#, file!());
        assert!(
            first[0].contains(one) && first[0].contains(&task),
            "{first:?}"
        );

        // From then on it is named alone, among any number.
        others(100);
        drop(runtime.spawn_named("slow again", async move { stall(long) }));
        others(100);
        runtime.turn(None).unwrap();
        let second = warnings().pop().unwrap();
        assert!(second.starts_with("the loop was held for 1."), "{second}");
        let task = format!(r#"by task 101.112 "slow again", spawned at {}:"#, file!());
        assert!(second.contains(&task), "{second}");
        assert_eq!(warnings().len(), 2);
    });
}

#[test]
fn without_a_watchdog_a_machine_that_ran_alone_is_named_at_once() {
    in_child(|| {
        keep_log();
        let runtime = Runtime::builder().virtual_clock().build().unwrap();
        runtime.block_on(async {
            let slow = spawn(async { stall(Duration::from_millis(1100)) });
            slow.await.unwrap();
        });
        let warnings = warnings();
        let task = format!("by task 1.1, spawned at {}:", file!());
        assert!(warnings[0].contains(&task), "{warnings:?}");
        assert_eq!(warnings.len(), 1);
    });
}

#[test]
fn a_watchdog_ends_with_its_runtime() {
    in_child(|| {
        keep_log();
        #[cfg(target_os = "linux")]
        let before = crate::child::threads();
        let handle = Runtime::builder()
            .watchdog(THRESHOLD)
            .build()
            .unwrap()
            .handle();
        #[cfg(target_os = "linux")]
        while crate::child::threads() > before {
            thread::yield_now();
        }
        // A handle does not keep it.
        drop(handle);
    });
}

#[test]
#[should_panic = "a watchdog's threshold can't be zero"]
fn a_threshold_of_zero_is_refused() {
    drop(Runtime::builder().watchdog(Duration::ZERO));
}
