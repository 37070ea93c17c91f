//! How a connection runs its filter.

// Mirrors `Conn.Read` and `Conn.Write` of Go's `crypto/tls`.

use std::io;
use std::mem;

use super::conn::Conn;
use super::error::{CloseReason, QUEUED, UNUSED, checked};
use super::filter::{Filter, FilterIo, Filtering};
use super::receive::without;
use super::state::State;
use crate::runtime::lent;

/// The limit of a filter's output: an eighth more than `limit`, for framing.
fn with_framing(limit: usize) -> usize {
    limit.saturating_add(limit / 8)
}

/// Offers bytes as long as some are used. What is left stays.
fn offer(bytes: &mut Vec<u8>, mut offer: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match checked(offer(rest)?, rest)? {
            0 => break,
            used => at += used,
        }
    }
    *bytes = without(mem::take(bytes), at);
    Ok(())
}

impl Conn {
    pub(super) fn filtering(&mut self) -> Option<&mut Filtering> {
        self.extra.as_mut()?.filtering.as_deref_mut()
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.peek(|extra| extra.filtering.is_some())
    }

    /// Input goes through the filter. Then what the filter had held back may go out.
    pub(super) fn filter_input(&mut self, bytes: &[u8]) {
        let most = self.settings().limits.most_unused;
        let mut left = 0;
        self.call_filter(|filter, Filtering { raw, .. }, io| {
            raw.extend_from_slice(bytes);
            offer(raw, |bytes| filter.incoming(bytes, io))?;
            left = raw.len();
            Ok(())
        });
        if left > most {
            self.end_over_limit(UNUSED);
        }
        self.filter_output(&[]);
    }

    /// Passes output through the filter: gives back what it used, and charges what it makes.
    pub(super) fn filter_output(&mut self, bytes: &[u8]) {
        let quota = self.shared.server.queued.clone();
        if let Some(filtering) = self.filtering() {
            filtering.held.extend_from_slice(bytes);
        }
        self.call_filter(|filter, Filtering { held, .. }, io| {
            let before = held.len();
            offer(held, |bytes| filter.outgoing(bytes, io))?;
            quota.give_back(before - held.len());
            Ok(())
        });
        // Once it has failed nothing passes any more.
        if let Some(Filtering {
            filter: None, held, ..
        }) = self.filtering()
        {
            quota.give_back(mem::take(held).len());
        }
        self.note_queued();
        if self.queued() > with_framing(self.settings().limits.most_queued) {
            self.end_over_limit(QUEUED);
        }
    }

    /// Tells the filter of an end, once: of the peer's direction, or of ours. False if it was told
    /// before, or there is none.
    pub(super) fn tell_filter(
        &mut self,
        end: usize,
        call: impl FnOnce(&mut dyn Filter, &mut FilterIo) -> io::Result<()>,
    ) -> bool {
        let told = |filtering: &mut Filtering| mem::replace(&mut filtering.told[end], true);
        let tells = !self.filtering().is_none_or(told);
        if tells {
            self.call_filter(|filter, _, io| call(filter, io));
        }
        tells
    }

    /// Whether the filter closed the connection, and it is still to be done.
    pub(super) fn filter_closes(&mut self) -> bool {
        let extra = self.extra.as_mut();
        extra.is_some_and(|extra| mem::take(&mut extra.closes))
    }

    /// Calls the filter, if there is one, and passes on what comes of it.
    pub(super) fn call_filter(
        &mut self,
        call: impl FnOnce(&mut dyn Filter, &mut Filtering, &mut FilterIo) -> io::Result<()>,
    ) {
        let limits = self.settings().limits;
        let (kept, queued) = (self.peek(|extra| extra.unused.len()), self.to_send());
        // What one read brings is taken in any case.
        let room = |most: usize, held| most.saturating_sub(held).max(lent::LENGTH);
        let unused = room(limits.most_unused, kept);
        let output = room(with_framing(limits.most_queued), queued);
        let Some(filtering) = self.filtering() else {
            return;
        };
        // A panic drops it.
        let Some(mut filter) = filtering.filter.take() else {
            return;
        };
        let mut io = FilterIo {
            to_protocol: Vec::new(),
            to_peer: Vec::new(),
            room: [unused, output],
            over: None,
            closes: false,
        };
        let called = call(&mut *filter, filtering, &mut io);
        filtering.filter = called.is_ok().then_some(filter);
        if let Some(limit) = io.over {
            return self.end_over_limit(limit);
        }
        // After a close nothing is offered.
        if self.state() == State::Opening || self.state().delivers() {
            self.keep_more(&io.to_protocol);
        }
        // Once our direction has ended, nothing goes out.
        if !io.to_peer.is_empty() && self.state() != State::Finished {
            self.shared.server.queued.charge_beyond(io.to_peer.len());
            self.extra().queue.push(&io.to_peer);
            self.note_queued();
        }
        if io.closes && self.can_offer() {
            self.extra().closes = true;
        } else if io.closes {
            self.close_for(CloseReason::Asked);
        }
        if let Err(error) = called {
            self.close_for(CloseReason::Error(error));
        }
    }
}
