//! How much a server may queue in all, shared by its workers without a lock on each write.
//!
//! May touch: nothing. Mirrors how a P of Go's scheduler takes memory from the heap: in chunks,
//! with a cache of its own (`runtime/mcache.go`).
//!
//! The server has an account; each worker has a purse. A worker pays for what it queues from its
//! purse, fills that from the account by the chunk, and puts back what it has too much of: all of
//! it, when it queues nothing any more. What is queued and what lies in purses is never more than
//! the limit, but for what a callback had gathered before anybody could ask: that is taken from
//! the account whatever is in it, and the next who asks is refused.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What a server may still queue; less than nothing, where a callback could not be refused.
#[derive(Debug)]
pub(crate) struct Account {
    left: AtomicI64,
    chunk: i64,
}

/// Filled by so much at a time, or less where workers could starve each other by it.
const CHUNK: usize = 64 << 10;

impl Account {
    /// None for no limit.
    pub(crate) fn new(limit: usize, workers: usize) -> Option<Arc<Account>> {
        let left = i64::try_from(limit).ok()?;
        let chunk = CHUNK.min(limit / (16 * workers.max(1)));
        Some(Arc::new(Account {
            left: AtomicI64::new(left),
            chunk: chunk as i64,
        }))
    }

    /// Takes so much, or nothing.
    fn take(&self, wanted: i64) -> bool {
        let less = |left: i64| (left >= wanted).then(|| left - wanted);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    fn add(&self, amount: i64) {
        self.left.fetch_add(amount, Ordering::Relaxed);
    }
}

/// A worker's share of the account.
#[derive(Debug)]
pub(crate) struct Purse {
    account: Option<Arc<Account>>,
    /// Taken from the account, and not paid with.
    spare: Cell<i64>,
    /// Paid with: what the worker queues.
    paid: Cell<i64>,
}

impl Purse {
    pub(crate) fn new(account: Option<Arc<Account>>) -> Self {
        Purse {
            account,
            spare: Cell::new(0),
            paid: Cell::new(0),
        }
    }

    /// Sees to it that so much can be paid for; whether it can.
    pub(crate) fn reserve(&self, amount: usize) -> bool {
        let Some(account) = &self.account else {
            return true;
        };
        let Ok(amount) = i64::try_from(amount) else {
            return false;
        };
        let lacking = amount - self.spare.get();
        if lacking <= 0 {
            return true;
        }
        let taken = [lacking + account.chunk, lacking]
            .into_iter()
            .find(|&wanted| account.take(wanted));
        let Some(taken) = taken else {
            // What others hold back may yet come; ours is of no use here.
            self.trim();
            return false;
        };
        self.spare.set(self.spare.get() + taken);
        true
    }

    /// Pays, from the account itself where nobody reserved.
    pub(crate) fn pay(&self, amount: usize) {
        let Some(account) = &self.account else { return };
        let amount = amount as i64;
        self.paid.set(self.paid.get() + amount);
        let lacking = (amount - self.spare.get()).max(0);
        if lacking > 0 {
            account.add(-lacking);
        }
        self.spare.set(self.spare.get() + lacking - amount);
    }

    pub(crate) fn pay_back(&self, amount: usize) {
        self.take_back(amount);
        self.trim();
    }

    /// As [`Purse::pay_back`], of what will be paid again at once: nobody else gets it meanwhile.
    pub(crate) fn take_back(&self, amount: usize) {
        if self.account.is_some() {
            let amount = amount as i64;
            self.paid.set(self.paid.get() - amount);
            self.spare.set(self.spare.get() + amount);
        }
    }

    /// Keeps a chunk, while it has use for it.
    pub(crate) fn trim(&self) {
        let Some(account) = &self.account else { return };
        let keep = match self.paid.get() {
            0 => 0,
            _ => account.chunk,
        };
        let more = self.spare.get() - keep;
        if more > 0 {
            self.spare.set(keep);
            account.add(more);
        }
    }
}

/// A worker that is gone queues nothing.
impl Drop for Purse {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.add(self.spare.get() + self.paid.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, Purse};
    use std::sync::atomic::Ordering;
    use std::thread;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn one_worker_may_use_nearly_all_of_it_and_never_more() {
        let account = Account::new(LIMIT, 2);
        let (one, other) = (Purse::new(account.clone()), Purse::new(account));
        let mut queued = 0;
        while one.reserve(1000) {
            one.pay(1000);
            queued += 1000;
        }
        assert!((LIMIT - 1000..=LIMIT).contains(&queued), "{queued}");
        assert!(!other.reserve(1000));
        one.pay_back(queued);
        assert!(other.reserve(LIMIT), "all of it has come back");
    }

    #[test]
    fn a_worker_that_queues_nothing_holds_nothing_back() {
        let account = Account::new(LIMIT, 2);
        let (one, other) = (Purse::new(account.clone()), Purse::new(account));
        for _ in 0..1000 {
            assert!(one.reserve(5000));
            one.pay(5000);
            one.pay_back(5000);
        }
        assert!(one.reserve(5000), "reserved, and then not queued");
        one.trim();
        assert!(other.reserve(LIMIT));
    }

    #[test]
    fn what_could_not_be_refused_is_owed() {
        let account = Account::new(LIMIT, 1);
        let purse = Purse::new(account.clone());
        purse.pay(LIMIT + 10);
        assert_eq!(account.as_ref().unwrap().left.load(Ordering::Relaxed), -10);
        assert!(!purse.reserve(1));
        purse.pay_back(11);
        assert!(purse.reserve(1));
    }

    #[test]
    fn what_a_worker_that_died_had_queued_is_the_others_again() {
        let account = Account::new(LIMIT, 2);
        let dead = Purse::new(account.clone());
        assert!(dead.reserve(LIMIT));
        dead.pay(LIMIT);
        drop(dead);
        assert!(Purse::new(account).reserve(LIMIT));
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        assert!(Account::new(usize::MAX, 2).is_none());
        assert!(Purse::new(None).reserve(usize::MAX));
    }

    #[test]
    fn nothing_is_lost_or_made_between_threads() {
        let account = Account::new(LIMIT, 4);
        thread::scope(|scope| {
            for n in 0..4 {
                let purse = Purse::new(account.clone());
                // Moved, not shared: a purse is one thread's.
                scope.spawn(move || {
                    for round in 0..10_000 {
                        let amount = (round * 37 + n * 1009) % 9000;
                        if purse.reserve(amount) {
                            purse.pay(amount);
                            purse.pay_back(amount);
                        }
                    }
                });
            }
        });
        let account = account.unwrap();
        assert_eq!(account.left.load(Ordering::Relaxed), LIMIT as i64);
    }
}
