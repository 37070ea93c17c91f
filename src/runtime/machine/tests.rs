//! Ids of machines at the end of their generations, and stale ones.

use std::pin::Pin;
use std::task::Poll;

use super::*;

/// A machine that never runs.
struct Nothing;

impl Machine for Nothing {
    fn run(self: Pin<&mut Self>, _: MachineId) -> Poll<()> {
        Poll::Pending
    }
}

fn insert(machines: &Machines) -> MachineId {
    machines.insert(|_| Box::pin(Nothing))
}

#[test]
fn invariant_2_a_stale_id_finds_nothing_whatever_is_asked() {
    let machines = Machines::new();
    let old = insert(&machines);
    assert!(machines.abort(old).is_some());
    let new = insert(&machines);
    assert_eq!(old.slot(), new.slot(), "the same slot");
    assert_ne!(old, new);
    assert!(!machines.wake(old) && !machines.is_alive(old));
    assert!(machines.slot(old).is_none() && machines.abort(old).is_none());
    machines.detach(old);
    let slot = machines.slot(new).expect("it is untouched");
    let body = slot.start().expect("and not running");
    assert!(slot.suspend(body).is_none(), "it is kept");
    assert!(machines.finish(new), "and joined");
    assert_eq!(machines.len(), 0);
}

#[test]
fn invariant_2_generations_of_machines_wrap_and_pass_over_the_roots() {
    let machines = Machines::new();
    machines.generation.set(MachineId::LAST_GENERATION);
    let last = insert(&machines);
    assert_eq!(last.generation(), MachineId::LAST_GENERATION);
    assert_eq!(
        last.bits().get() >> 63,
        0,
        "the top bit tells a machine from a foreign waker"
    );
    machines.abort(last);
    let first = insert(&machines);
    assert_eq!(first.generation(), MachineId::FIRST_GENERATION);
    assert_eq!(first.slot(), last.slot());
    assert!(first != last && first != MachineId::ROOT);
    assert!(!machines.is_alive(last) && machines.is_alive(first));
}

#[test]
fn taking_all_machines_out_leaves_their_slots_to_others() {
    let machines = Machines::new();
    let ids: Vec<_> = (0..5).map(|_| insert(&machines)).collect();
    machines.abort(ids[2]);
    let body = machines.slot(ids[4]).and_then(Slot::start);
    let all = machines.take_all();
    let taken: Vec<_> = all.iter().map(|(id, body)| (*id, body.is_some())).collect();
    let expected = [0, 1, 3, 4].map(|at| (ids[at], at != 4));
    assert_eq!(taken, expected, "the one that runs has its body elsewhere");
    assert_eq!(machines.len(), 0);
    drop(body);
    let again: Vec<_> = (0..6).map(|_| insert(&machines)).collect();
    assert_eq!(machines.len(), 6);
    assert!(again.iter().all(|&id| machines.is_alive(id)));
    assert!(ids.iter().all(|&id| !machines.is_alive(id)));
}
