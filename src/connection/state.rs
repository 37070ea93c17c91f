//! A connection's life as a pure state machine: events in, actions out; no I/O, no clock.
//!
//! May touch: nothing. Mirrors what Go's `net/http.conn` keeps as `ConnState`, with TCP's own
//! half-closes beside it.
//!
//! ```text
//!                        ┌── end asked ──► Finishing ── flushed ──► Finished ─┐
//!   Opening ── opened ► Open                   │ peer ended                   │ peer ended,
//!                        │ └─ peer ended ► PeerEnded                          │ idle
//!                        │  close asked,       │ close or end asked, idle     ▼
//!                        └─ idle ──────────► Closing ── flushed, idle ────► Closed
//!                                                     (from anywhere: reset, abort, too slow)
//! ```
//!
//! # The table
//!
//! | event \ state | Opening | Open | Finishing | Finished | PeerEnded | Closing |
//! |---|---|---|---|---|---|---|
//! | Opened | **Open** open, arm | | | | | |
//! | Bytes | | deliver, arm | deliver, arm | deliver, arm | | |
//! | CanWrite | | write | write | | write | write |
//! | Flushed | | – | **Finished** shut down | – | – | **Closed** close |
//! | Drained | | tell drained | tell drained | – | tell drained | – |
//! | PeerEnded | | **PeerEnded** tell end | **Closing** tell end, write | **Closed** tell end, close | – | – |
//! | HeartbeatDue | | tell heartbeat | – | – | tell heartbeat | – |
//! | Idle | | **Closing** tell idle, arm, write | the same | **Closed** tell idle, close | as Open | **Closed** reset, close |
//! | TooSlow | | **Closed** reset, close | the same | the same | the same | the same |
//! | EndAsked | | **Finishing** write | – | – | **Closing** arm, write | – |
//! | CloseAsked | **Closing** arm, write | the same | the same | **Closed** close | as Open | – |
//! | AbortAsked | **Closed** reset, close | the same | the same | the same | the same | the same |
//! | Reset | **Closed** close | the same | the same | the same | the same | the same |
//!
//! A bold name is the next state; where there is none it stays. A dash changes nothing. An empty
//! field is illegal and refused, as is every event in Closed. "Close" includes telling why.

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Accepted; its protocol has not run yet.
    Opening,
    /// Both directions flow.
    Open,
    /// We want to end our direction, and have bytes left to write.
    Finishing,
    /// Our direction has ended; the peer's goes on.
    Finished,
    /// The peer's direction has ended; ours goes on.
    PeerEnded,
    /// It will be closed once what is left has been written.
    Closing,
    /// The socket is closed, and the protocol told.
    Closed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The loop runs it for the first time.
    Opened,
    /// The peer sent something.
    Bytes,
    /// There is something to write, and the system may take it.
    CanWrite,
    /// Nothing is left to write.
    Flushed,
    /// What is left to write fell below the low mark, after it had been above the high one.
    Drained,
    /// End of file.
    PeerEnded,
    /// No byte has come for a heartbeat's interval.
    HeartbeatDue,
    /// No byte has come for the idle timeout.
    Idle,
    /// The peer does not meet a minimum rate.
    TooSlow,
    /// Our direction is to end.
    EndAsked,
    /// The connection is to be closed, once all is written.
    CloseAsked,
    /// The connection is to be closed, whatever is left.
    AbortAsked,
    /// It broke: the peer reset it, a system call or the protocol failed.
    Reset,
}

/// What is to be done: a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actions(u16);

impl Actions {
    pub(crate) const NONE: Actions = Actions(0);
    pub(crate) const TELL_OPEN: Actions = Actions(1);
    pub(crate) const DELIVER: Actions = Actions(2);
    pub(crate) const TELL_END: Actions = Actions(4);
    pub(crate) const TELL_HEARTBEAT: Actions = Actions(8);
    pub(crate) const TELL_IDLE: Actions = Actions(16);
    pub(crate) const TELL_DRAINED: Actions = Actions(32);
    /// Push the deadlines.
    pub(crate) const ARM: Actions = Actions(64);
    /// Write what is queued, and say `Flushed` if nothing is.
    pub(crate) const WRITE: Actions = Actions(128);
    /// Send a FIN.
    pub(crate) const SHUT_DOWN: Actions = Actions(256);
    /// Let the close be a RST.
    pub(crate) const RESET: Actions = Actions(512);
    /// Close the socket, and tell why.
    pub(crate) const CLOSE: Actions = Actions(1024);

    const fn and(self, other: Actions) -> Actions {
        Actions(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Actions) -> bool {
        self.0 & other.0 != 0
    }
}

impl State {
    /// In the order of the enum.
    pub(crate) const ALL: [State; 7] = [
        State::Opening,
        State::Open,
        State::Finishing,
        State::Finished,
        State::PeerEnded,
        State::Closing,
        State::Closed,
    ];

    /// The table: the next state and what to do, `None` for what is illegal.
    pub(crate) const fn on(self, event: Event) -> Option<(State, Actions)> {
        const CLOSING: (State, Actions) = (State::Closing, Actions::ARM.and(Actions::WRITE));
        Some(match (self, event) {
            (State::Closed, _) => return None,
            (_, Event::Reset) => (State::Closed, Actions::CLOSE),
            (_, Event::AbortAsked) => (State::Closed, Actions::RESET.and(Actions::CLOSE)),

            (State::Finished, Event::CloseAsked) => (State::Closed, Actions::CLOSE),
            (State::Closing, Event::CloseAsked) => (self, Actions::NONE),
            (_, Event::CloseAsked) => CLOSING,

            (State::Opening, Event::Opened) => (State::Open, Actions::TELL_OPEN.and(Actions::ARM)),
            (State::Opening, _) | (_, Event::Opened) => return None,

            (State::Open | State::Finishing | State::Finished, Event::Bytes) => {
                (self, Actions::DELIVER.and(Actions::ARM))
            }
            (State::PeerEnded | State::Closing, Event::Bytes) => return None,

            (State::Finished, Event::CanWrite) => return None,
            (_, Event::CanWrite) => (self, Actions::WRITE),

            (State::Finishing, Event::Flushed) => (State::Finished, Actions::SHUT_DOWN),
            (State::Closing, Event::Flushed) => (State::Closed, Actions::CLOSE),
            (_, Event::Flushed) => (self, Actions::NONE),

            (State::Open | State::Finishing | State::PeerEnded, Event::Drained) => {
                (self, Actions::TELL_DRAINED)
            }
            (_, Event::Drained) => (self, Actions::NONE),

            (State::Open, Event::PeerEnded) => (State::PeerEnded, Actions::TELL_END),
            (State::Finishing, Event::PeerEnded) => {
                (State::Closing, Actions::TELL_END.and(Actions::WRITE))
            }
            (State::Finished, Event::PeerEnded) => {
                (State::Closed, Actions::TELL_END.and(Actions::CLOSE))
            }
            (_, Event::PeerEnded) => (self, Actions::NONE),

            (State::Open | State::PeerEnded, Event::HeartbeatDue) => {
                (self, Actions::TELL_HEARTBEAT)
            }
            (_, Event::HeartbeatDue) => (self, Actions::NONE),

            (State::Finished, Event::Idle) => {
                (State::Closed, Actions::TELL_IDLE.and(Actions::CLOSE))
            }
            (State::Closing, Event::Idle) => (State::Closed, Actions::RESET.and(Actions::CLOSE)),
            (_, Event::Idle) => (State::Closing, CLOSING.1.and(Actions::TELL_IDLE)),

            (_, Event::TooSlow) => (State::Closed, Actions::RESET.and(Actions::CLOSE)),

            (State::Open, Event::EndAsked) => (State::Finishing, Actions::WRITE),
            (State::PeerEnded, Event::EndAsked) => CLOSING,
            (_, Event::EndAsked) => (self, Actions::NONE),
        })
    }

    /// Whether the protocol may write.
    #[inline]
    pub(crate) const fn takes_writes(self) -> bool {
        matches!(self, State::Opening | State::Open | State::PeerEnded)
    }

    /// Whether what the peer sends is for the protocol.
    #[inline]
    pub(crate) const fn reads(self) -> bool {
        matches!(self, State::Open | State::Finishing | State::Finished)
    }
}

#[cfg(test)]
mod tests;
