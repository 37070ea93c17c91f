//! `embed_host_loop`: the host's frame and the network beside each other.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::{Runtime, yield_now};

use crate::embed_host_loop::run_until;

#[test]
fn a_frame_lasts_its_time_beside_a_network_that_always_has_more_to_do() {
    let _watchdog = crate::watchdog::watchdog();
    let runtime = Runtime::new().unwrap();
    let rounds = Rc::new(Cell::new(0));
    let counter = rounds.clone();
    runtime.spawn(async move {
        loop {
            counter.set(counter.get() + 1);
            yield_now().await;
        }
    });
    for _ in 0..20 {
        let (before, start) = (rounds.get(), Instant::now());
        run_until(&runtime, start + Duration::from_millis(2)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(2));
        assert!(rounds.get() > before, "the network has had no turn");
    }
}

#[test]
fn a_frame_that_is_late_gives_the_network_one_turn() {
    let runtime = Runtime::new().unwrap();
    let task = runtime.spawn(async {});
    run_until(&runtime, Instant::now() - Duration::from_secs(1)).unwrap();
    assert!(task.is_finished());
}
