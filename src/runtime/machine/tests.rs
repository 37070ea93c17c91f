//! Ids that come again, and stale ones.

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

fn insert(machines: &mut Machines) -> MachineId {
    machines.insert(|_| Box::pin(Nothing))
}

fn end(machines: &mut Machines, id: MachineId) {
    drop(machines.abort(id).expect("it is idle"));
    machines.free(id);
}

mod invariant_2 {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing_whatever_is_asked() {
        let mut machines = Machines::new();
        let old = insert(&mut machines);
        end(&mut machines, old);
        let new = insert(&mut machines);
        assert_eq!(old.slot(), new.slot(), "the same slot");
        assert_ne!(old, new);
        assert!(!machines.wake(old) && !machines.is_alive(old));
        assert!(machines.take_body(old).is_none() && machines.abort(old).is_none());
        let body = machines.take_body(new).expect("it is untouched");
        assert!(machines.put_back(new, body).is_none(), "it is kept");
        assert!(machines.wake(new), "and idle");
        assert_eq!(machines.slots_used(), 2, "it and the root");
    }

    #[test]
    fn a_generation_wraps_to_one_and_is_never_the_roots() {
        let mut machines = Machines {
            inserted: u64::from(MachineId::MAX_GENERATION) - 1,
            ..Machines::new()
        };
        let last = insert(&mut machines);
        assert_eq!(last.generation(), MachineId::MAX_GENERATION);
        assert_eq!(
            last.bits().get() >> 63,
            0,
            "the top bit tells a machine from a foreign waker"
        );
        end(&mut machines, last);
        let first = insert(&mut machines);
        assert_eq!((first.slot(), first.generation()), (last.slot(), 1));
        assert!(first != last && first != MachineId::ROOT);
        assert!(!machines.is_alive(last) && machines.is_alive(first));
    }
}

#[test]
fn a_machine_that_is_woken_while_it_runs_is_queued_once() {
    let mut machines = Machines::new();
    let id = insert(&mut machines);
    assert!(!machines.wake(id), "it is queued from the beginning");
    let body = machines.take_body(id).expect("it is queued");
    assert!(machines.take_body(id).is_none(), "it runs");
    assert!(machines.wake(id) && !machines.wake(id));
    assert!(machines.put_back(id, body).is_none());
    assert!(!machines.wake(id), "it is queued still");
}

#[test]
fn a_machine_that_is_aborted_while_it_runs_is_handed_back_when_it_suspends() {
    let mut machines = Machines::new();
    let id = insert(&mut machines);
    let body = machines.take_body(id).expect("it is queued");
    assert!(machines.abort(id).is_none(), "its body is out");
    assert!(!machines.wake(id), "it ends");
    let body = machines.put_back(id, body).expect("it was aborted");
    assert!(machines.is_alive(id), "until its body is dropped");
    drop(body);
    machines.free(id);
    assert!(!machines.is_alive(id));
}
