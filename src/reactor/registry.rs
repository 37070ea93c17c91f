//! Who is registered under which slot: a vector and a list of free slots.
//!
//! May touch: the token. Eight bytes a source, and one load to find it. Mirrors Go's `pollCache`.

use super::selector::Token;

/// Slots that there is room for from the beginning: a table of this size comes from the system by
/// the page, so that it costs memory as it is used, and does not move until it is full.
const ROOM: usize = 16 << 10;

/// Anything that knows its own token.
pub(crate) trait Tokened {
    fn token(&self) -> Token;
}

pub(crate) struct Registry<R> {
    slots: Vec<Option<R>>,
    free: Vec<u32>,
    generation: usize,
}

impl<R: Tokened> Registry<R> {
    pub(crate) fn new() -> Self {
        Registry {
            slots: Vec::with_capacity(ROOM),
            free: Vec::new(),
            generation: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The token that the next [`Registry::insert`] must carry; `None` when all slots are taken.
    pub(crate) fn next_token(&mut self) -> Option<Token> {
        let slot = match self.free.last() {
            Some(&slot) => slot as usize,
            None if self.slots.len() < Token::MOST => self.slots.len(),
            None => return None,
        };
        let token = Token::new(slot, self.generation);
        self.generation = self.generation.wrapping_add(1);
        Some(token)
    }

    pub(crate) fn insert(&mut self, registered: R) {
        let slot = registered.token().slot();
        if slot == self.slots.len() {
            self.slots.push(Some(registered));
        } else {
            let taken = self.free.pop();
            debug_assert_eq!(taken, Some(slot as u32), "the token was not the next one");
            self.slots[slot] = Some(registered);
        }
    }

    /// Whoever the token names, unless its slot has another owner now.
    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&R> {
        match self.slots.get(token.slot()) {
            Some(Some(registered)) if registered.token() == token => Some(registered),
            _ => None,
        }
    }

    /// Whoever holds the slot.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<&R> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<R> {
        self.get(token)?;
        self.free.push(token.slot() as u32);
        self.slots[token.slot()].take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.slots.iter().flatten()
    }

    pub(crate) fn take_all(&mut self) -> Vec<R> {
        self.free.clear();
        let all = std::mem::take(&mut self.slots);
        all.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests;
