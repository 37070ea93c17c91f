//! For tests: an order of the seed's choice. In each turn it shuffles what is runnable and decides
//! how much of it runs before the selector is asked again.
//!
//! What is left over keeps its place before what is woken later, so that every machine has its turn
//! and a round ends as it does without a seed.
// Go: `-race` builds shuffle the run queue (`randomizeScheduler` in runtime/proc.go).

use std::cell::RefCell;

use super::machine::MachineId;
use crate::reactor::faulty::Random;

/// What a turn found and chose: two runs with one seed differ only where these do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledTurn {
    /// The loop's time, in milliseconds.
    pub time: u64,
    /// Machines that were runnable.
    pub runnable: usize,
    /// How many of them were to run.
    pub chosen: usize,
    /// Of the ids of those that were runnable, in their order before it was changed.
    pub hash: u64,
}

/// The choices of one seed.
pub(super) struct Schedule {
    random: RefCell<Random>,
    log: RefCell<Vec<ScheduledTurn>>,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Schedule {
            // Not the numbers that the selector has.
            random: RefCell::new(Random::new(!seed)),
            log: RefCell::default(),
        }
    }

    pub(super) fn log(&self) -> Vec<ScheduledTurn> {
        self.log.borrow().clone()
    }

    /// Shuffles the first `round` of what is runnable, and returns how many may run: one at least,
    /// and `max` at most.
    pub(super) fn arrange(
        &self,
        ids: &mut [MachineId],
        round: usize,
        max: usize,
        time: u64,
    ) -> usize {
        let mut random = self.random.borrow_mut();
        let hash = hash(ids);
        let runnable = ids.len();
        let round = round.min(runnable);
        // Fisher and Yates.
        for left in (2..=round).rev() {
            ids.swap(left - 1, random.below(left as u64) as usize);
        }
        let max = max.min(runnable);
        let chosen = match random.one_in(2) || max == 0 {
            true => max,
            false => 1 + random.below(max as u64) as usize,
        };
        self.log.borrow_mut().push(ScheduledTurn {
            time,
            runnable,
            chosen,
            hash,
        });
        chosen
    }
}

/// FNV-1a.
fn hash(ids: &[MachineId]) -> u64 {
    ids.iter().fold(0xcbf2_9ce4_8422_2325, |hash, id| {
        (hash ^ id.bits().get()).wrapping_mul(0x0100_0000_01b3)
    })
}
