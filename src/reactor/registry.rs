//! Which descriptor a token names: a slab, with a generation in each token.
// Mirrors `pollCache` in Go's runtime/netpoll.go, and `pollDesc.fdseq`, its generation.

use std::cell::Cell;
use std::rc::Rc;

use slab::Slab;

use super::poll_desc::PollDesc;
use super::types::Token;

/// All open descriptors of a reactor.
pub(crate) struct Registry<W, T> {
    pub(super) by_key: Slab<Rc<PollDesc<W, T>>>,
    /// Counts the tokens given out, and wraps: see [`Token`].
    generation: Cell<usize>,
}

impl<W, T> Registry<W, T> {
    pub(super) fn new() -> Self {
        Registry {
            by_key: Slab::new(),
            generation: Cell::new(0),
        }
    }

    /// The token that the next [`Registry::insert`] must carry. `None` when all keys are taken.
    pub(super) fn next_token(&self) -> Option<Token> {
        let key = self.by_key.vacant_key();
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        (key < Token::KEYS).then(|| Token::new(key, generation))
    }

    pub(super) fn insert(&mut self, desc: Rc<PollDesc<W, T>>) {
        let token = desc.token();
        let key = self.by_key.insert(desc);
        debug_assert_eq!(key, token.key(), "the token was not the next one");
    }

    /// The descriptor that `token` names, unless its key has another owner now.
    #[inline]
    pub(super) fn get(&self, token: Token) -> Option<&Rc<PollDesc<W, T>>> {
        let desc = self.by_key.get(token.key())?;
        (desc.token() == token || fault!("stale_event")).then_some(desc)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<Rc<PollDesc<W, T>>> {
        self.get(token)?;
        log::trace!("close {token:?}");
        self.by_key.try_remove(token.key())
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
                    assert_eq!(old.key(), token.key());
                    assert!(registry.get(old).is_none());
                }
            }
            assert_eq!(core.registry.borrow().by_key.len(), 0);
        }
    }

    #[test]
    fn no_token_is_ever_the_breaks() {
        let widest = Token::new(Token::KEYS - 1, usize::MAX);
        assert_ne!(widest, Token::BREAK);
        assert_eq!(widest.key(), Token::KEYS - 1);
        let key = Token::BREAK.key();
        assert_eq!(key, Token::KEYS, "a key that is never given out");
    }
}
