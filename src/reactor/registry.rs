//! Which descriptor a token names: a slab, with a generation in each token.
// Mirrors `pollCache` in Go's runtime/netpoll.go, and `pollDesc.fdseq`, its generation.

use std::cell::Cell;
use std::rc::Rc;

use slab::Slab;

use super::poll_desc::PollDesc;
use super::selector::Token;

/// All open descriptors of a reactor.
pub(crate) struct Registry<W, T> {
    slots: Slab<Rc<PollDesc<W, T>>>,
    /// Counts the tokens given out, and wraps: see [`Token`].
    generation: Cell<usize>,
}

impl<W, T> Registry<W, T> {
    pub(super) fn new() -> Self {
        Registry {
            slots: Slab::new(),
            generation: Cell::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The token that the next [`Registry::insert`] must carry. `None` when all slots are taken.
    pub(super) fn next_token(&self) -> Option<Token> {
        let slot = self.slots.vacant_key();
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        (slot < Token::SLOTS).then(|| Token::new(slot, generation))
    }

    pub(super) fn insert(&mut self, desc: Rc<PollDesc<W, T>>) {
        let token = desc.token();
        let slot = self.slots.insert(desc);
        debug_assert_eq!(slot, token.slot(), "the token was not the next one");
    }

    /// The descriptor that `token` names, unless its slot has another owner now.
    #[inline]
    pub(super) fn get(&self, token: Token) -> Option<&Rc<PollDesc<W, T>>> {
        let desc = self.slots.get(token.slot())?;
        (desc.token() == token || fault!("stale_event")).then_some(desc)
    }

    /// The descriptor in a slot, whichever it is.
    #[inline]
    pub(super) fn in_slot(&self, slot: usize) -> Option<&Rc<PollDesc<W, T>>> {
        self.slots.get(slot)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<Rc<PollDesc<W, T>>> {
        self.get(token)?;
        self.slots.try_remove(token.slot())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<PollDesc<W, T>>> {
        self.slots.iter().map(|(_, desc)| desc)
    }

    pub(super) fn take_all(&mut self) -> Vec<Rc<PollDesc<W, T>>> {
        self.slots.drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll_desc::tests::{core, open};
    use super::*;

    #[test]
    fn generations_of_tokens_wrap_and_tell_neighbours_apart() {
        // The generation keeps half the bits of a token; the counter runs on past them.
        let half = 1usize << (usize::BITS / 2);
        for start in [half - 2, usize::MAX - 1] {
            let core = core();
            core.registry.borrow().generation.set(start);
            let mut old = None;
            for _ in 0..4 {
                let desc = open(&core);
                let token = desc.token();
                assert_ne!(token, Token::BREAK);
                let registry = core.registry.borrow();
                assert!(registry.get(token).is_some());
                if let Some(old) = old.replace(token) {
                    assert_eq!(old.slot(), token.slot());
                    assert!(registry.get(old).is_none());
                }
            }
            assert_eq!(core.registry.borrow().len(), 0);
        }
    }

    #[test]
    fn no_token_is_ever_the_breaks() {
        let widest = Token::new(Token::SLOTS - 1, usize::MAX);
        assert_ne!(widest, Token::BREAK);
        assert_eq!(widest.slot(), Token::SLOTS - 1);
        let slot = Token::BREAK.slot();
        assert_eq!(slot, Token::SLOTS, "a slot that is never given out");
    }
}
