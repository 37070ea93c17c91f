//! How a connection runs its filter.

// Mirrors `Conn.Read` and `Conn.Write` of Go's `crypto/tls`.

use std::io;
use std::mem;

use super::conn::Conn;
use super::error::{CloseReason, QUEUED, UNUSED};
use super::filter::{Filter, FilterIo, Filtering};
use super::receive::without;
use super::state::State;
use crate::runtime::lent;

/// How many bytes a filter may make of `limit`: framing adds some.
fn with_framing(limit: usize) -> usize {
    limit.saturating_add(limit / 8)
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
        let Some(filtering) = self.filtering() else {
            return;
        };
        let mut raw = mem::take(&mut filtering.raw);
        raw.extend_from_slice(bytes);
        let used = self.offer_to_filter(&raw, |filter, bytes, io| filter.incoming(bytes, io));
        debug_assert!(used <= raw.len(), "a filter is not believed");
        let raw = without(raw, used);
        if raw.len() > self.shared.server.settings.limits.most_unused {
            self.end_over_limit(UNUSED);
        }
        if let Some(filtering) = self.filtering() {
            filtering.raw = raw;
        }
        self.account_for_unused();
        self.filter_output(&[]);
    }

    /// Output goes through the filter, and is charged anew for what comes of it.
    pub(super) fn filter_output(&mut self, bytes: &[u8]) {
        let Some(filtering) = self.filtering() else {
            return;
        };
        let mut held = mem::take(&mut filtering.held);
        held.extend_from_slice(bytes);
        // Given back before the filter runs, which may panic. What the filter leaves is charged again.
        self.shared.server.queued.give_back(held.len());
        let used = match held.is_empty() {
            true => 0,
            false => self.offer_to_filter(&held, |filter, bytes, io| filter.outgoing(bytes, io)),
        };
        let held = without(held, used);
        let Some(filtering) = self.filtering() else {
            return;
        };
        // Once it has failed nothing passes any more.
        if filtering.filter.is_some() {
            let left = held.len();
            filtering.held = held;
            self.shared.server.queued.charge_beyond(left);
        }
        self.note_queued();
        if self.queued() > with_framing(self.shared.server.settings.limits.most_queued) {
            self.end_over_limit(QUEUED);
        }
    }

    /// Offers bytes as long as some are used. Returns how many were.
    fn offer_to_filter(
        &mut self,
        bytes: &[u8],
        offer: impl Fn(&mut dyn Filter, &[u8], &mut FilterIo) -> io::Result<usize>,
    ) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let mut used = 0;
            self.call_filter(|filter, io| {
                used = offer(filter, rest, io)?;
                if used <= rest.len() {
                    return Ok(());
                }
                let text = format!("a filter used {used} bytes of {}", rest.len());
                used = 0;
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            });
            if used == 0 {
                break;
            }
            at += used;
        }
        at
    }

    /// Tells the filter of an end, once: of the peer's direction, or of ours. False if it was told.
    pub(super) fn tell_filter(
        &mut self,
        end: usize,
        call: impl FnOnce(&mut dyn Filter, &mut FilterIo) -> io::Result<()>,
    ) -> bool {
        let told = |filtering: &mut Filtering| mem::replace(&mut filtering.told[end], true);
        let tells = !self.filtering().is_none_or(told);
        if tells {
            self.call_filter(call);
        }
        tells
    }

    /// Calls the filter, if there is one, and passes on what comes of it.
    pub(super) fn call_filter(
        &mut self,
        call: impl FnOnce(&mut dyn Filter, &mut FilterIo) -> io::Result<()>,
    ) {
        let limits = self.shared.server.settings.limits;
        let (kept, queued) = (self.peek(|extra| extra.unused.len()), self.queued());
        // What one read brings is taken in any case.
        let room = |most: usize, held| most.saturating_sub(held).max(lent::LENGTH);
        let unused = room(limits.most_unused, kept);
        let output = room(with_framing(limits.most_queued), queued);
        let filtering = self.filtering();
        let Some((io, called)) = filtering.and_then(|of| of.call([unused, output], call)) else {
            return;
        };
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
        if io.closes {
            self.close_for(CloseReason::Asked);
        }
        if let Err(error) = called {
            self.close_for(CloseReason::Error(error));
        }
    }
}
