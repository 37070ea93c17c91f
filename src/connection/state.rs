//! A connection's life as a pure table: events in, actions out. No I/O and no clock.
//!
//! ```text
//!                        ┌── end asked ──► Finishing ── flushed ──► Finished
//!   Opening ── opened ► Open                   │ peer ended             │ peer ended ► Closed
//!                        │ └─ peer ended ► PeerEnded                    │
//!                        │  close asked, idle  │ close, end asked, idle │ close asked, idle
//!                        └─────────────────────┴─────► Closing ◄────────┘
//!                                                       │  │ flushed, with input unread
//!                                              flushed, │  ▼
//!                                              idle     │ Lingering ── acknowledged, peer ended, idle
//!                                                       ▼               │
//!                        (reset, abort, too slow) ──► Closed ◄──────────┘
//! ```
//!
//! # The table
//!
//! | event \ state | Opening | Open | Finishing | Finished | PeerEnded | Closing | Lingering |
//! |---|---|---|---|---|---|---|---|
//! | Opened | **Open** open, arm | | | | | | |
//! | Flushed | | | **Finished** shut down | | | **Closed** close | |
//! | FlushedUnread | | | | | | **Lingering** arm, shut down | |
//! | Acknowledged | | | | | | | **Closed** close |
//! | Writable | | tell writable | – | | tell writable | – | |
//! | PeerEnded | | **PeerEnded** tell end | **Closing** tell end, arm | **Closed** tell end, close | | | **Closed** close |
//! | HeartbeatDue | | tell heartbeat | | | tell heartbeat | | |
//! | Idle | | **Closing** tell idle, arm | the same | the same | the same | **Closed** reset, close | the same |
//! | TooSlow | | **Closed** reset, close | the same | the same | the same | the same | |
//! | DrainBegun | | tell draining | the same | the same | the same | – | – |
//! | TimerDue | | tell timer | the same | the same | the same | – | – |
//! | EndAsked | | **Finishing** | – | – | **Closing** arm | – | – |
//! | CloseAsked | | **Closing** arm | the same | the same | the same | – | – |
//! | AbortAsked | **Closed** reset, close | the same | the same | the same | the same | the same | the same |
//! | Broken | **Closed** close | the same | the same | the same | the same | the same | the same |
//!
//! A bold name is the next state; without one the state stays. A dash changes nothing. An empty
//! field is illegal, as is every event in Closed. "Close" includes telling the protocol why. Each way
//! into Closing and into Lingering arms: the peer then has its whole time to take the last bytes.

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Both directions flow. It is zero, so that one comparison finds the common case.
    Open = 0,
    /// The connection was accepted. Its protocol has not run yet.
    Opening,
    /// Our direction is to end. Bytes are left to write.
    Finishing,
    /// Our direction has ended. The peer's goes on.
    Finished,
    /// The peer's direction has ended. Ours goes on.
    PeerEnded,
    /// The connection closes once what is left has been written.
    Closing,
    /// All is written, and input is unread: closed now, the system would send a RST, which may
    /// overtake the last bytes. Input is discarded until the peer has acknowledged everything and
    /// sends nothing more.
    Lingering,
    /// The socket is closed, and the protocol was told.
    Closed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The loop runs the connection for the first time.
    Opened,
    /// Nothing is left to write.
    Flushed,
    /// The same, while input is unread.
    FlushedUnread,
    /// The peer has acknowledged everything, and sends nothing more.
    Acknowledged,
    /// The queue fell to the low mark, after it had been above the high one.
    Writable,
    /// End of file.
    PeerEnded,
    /// Nothing has come for a heartbeat's interval.
    HeartbeatDue,
    /// The peer has shown no sign of life for the idle timeout.
    Idle,
    /// The peer does not meet a minimum rate.
    TooSlow,
    /// The server began to drain, or the connection has reached its greatest age.
    DrainBegun,
    /// The time has come that the protocol has set.
    TimerDue,
    /// Our direction is to end.
    EndAsked,
    /// The connection is to be closed once all is written.
    CloseAsked,
    /// The connection is to be closed, whatever is left.
    AbortAsked,
    /// The peer reset the connection, or a system call failed.
    Broken,
}

/// What is to be done: a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actions(u16);

impl Actions {
    pub(crate) const NONE: Actions = Actions(0);
    pub(crate) const TELL_OPEN: Actions = Actions(1);
    pub(crate) const TELL_END: Actions = Actions(2);
    pub(crate) const TELL_HEARTBEAT: Actions = Actions(4);
    pub(crate) const TELL_IDLE: Actions = Actions(8);
    pub(crate) const TELL_WRITABLE: Actions = Actions(16);
    /// The peer's time begins anew.
    pub(crate) const ARM: Actions = Actions(32);
    /// Send a FIN.
    pub(crate) const SHUT_DOWN: Actions = Actions(64);
    /// Let the close be a RST.
    pub(crate) const RESET: Actions = Actions(128);
    /// Close the socket, and tell why.
    pub(crate) const CLOSE: Actions = Actions(256);
    pub(crate) const TELL_TIMER: Actions = Actions(512);
    pub(crate) const TELL_DRAINING: Actions = Actions(1024);

    const fn and(self, other: Actions) -> Actions {
        Actions(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Actions) -> bool {
        self.0 & other.0 != 0
    }
}

impl State {
    /// In the order of the enum.
    pub(crate) const ALL: [State; 8] = [
        State::Open,
        State::Opening,
        State::Finishing,
        State::Finished,
        State::PeerEnded,
        State::Closing,
        State::Lingering,
        State::Closed,
    ];

    /// The table: the next state and what to do, `None` for what is illegal.
    pub(crate) const fn on(self, event: Event) -> Option<(State, Actions)> {
        use State::{Closed, Closing, Finished, Finishing, Lingering, Open, Opening, PeerEnded};
        const TO_CLOSING: (State, Actions) = (Closing, Actions::ARM);
        const CLOSED: (State, Actions) = (Closed, Actions::CLOSE);
        const RESET: (State, Actions) = (Closed, Actions::RESET.and(Actions::CLOSE));
        Some(match (event, self) {
            (_, Closed) => return None,
            (Event::Broken, _) => CLOSED,
            (Event::AbortAsked, _) => RESET,

            (Event::Opened, Opening) => (Open, Actions::TELL_OPEN.and(Actions::ARM)),
            (_, Opening) => return None,

            (Event::CloseAsked, Closing | Lingering) => (self, Actions::NONE),
            (Event::CloseAsked, _) => TO_CLOSING,
            (Event::EndAsked, Open) => (Finishing, Actions::NONE),
            (Event::EndAsked, PeerEnded) => TO_CLOSING,
            (Event::EndAsked, _) => (self, Actions::NONE),

            (Event::Flushed, Finishing) => (Finished, Actions::SHUT_DOWN),
            (Event::Flushed, Closing) => CLOSED,
            (Event::FlushedUnread, Closing) => (Lingering, Actions::ARM.and(Actions::SHUT_DOWN)),
            (Event::Acknowledged, Lingering) => CLOSED,

            (Event::Writable, Open | PeerEnded) => (self, Actions::TELL_WRITABLE),
            (Event::Writable, Finishing | Closing) => (self, Actions::NONE),

            (Event::PeerEnded, Open) => (PeerEnded, Actions::TELL_END),
            (Event::PeerEnded, Finishing) => (Closing, Actions::TELL_END.and(Actions::ARM)),
            (Event::PeerEnded, Finished) => (Closed, Actions::TELL_END.and(Actions::CLOSE)),
            (Event::PeerEnded, Lingering) => CLOSED,

            (Event::HeartbeatDue, Open | PeerEnded) => (self, Actions::TELL_HEARTBEAT),

            (Event::Idle, Closing | Lingering) => RESET,
            (Event::Idle, _) => (Closing, Actions::TELL_IDLE.and(Actions::ARM)),
            (Event::TooSlow, Open | Finishing | Finished | PeerEnded | Closing) => RESET,
            (Event::DrainBegun | Event::TimerDue, Closing | Lingering) => (self, Actions::NONE),
            (Event::DrainBegun, _) => (self, Actions::TELL_DRAINING),
            (Event::TimerDue, _) => (self, Actions::TELL_TIMER),
            _ => return None,
        })
    }

    /// Whether the protocol may write.
    #[inline]
    pub(crate) const fn takes_writes(self) -> bool {
        matches!(self, State::Opening | State::Open | State::PeerEnded)
    }

    /// Whether what the peer sends is for the protocol.
    #[inline]
    pub(crate) const fn delivers(self) -> bool {
        matches!(self, State::Open | State::Finishing | State::Finished)
    }

    /// Whether the socket is read: to deliver, to learn of a reset, to discard.
    pub(crate) const fn reads(self) -> bool {
        self.delivers() || matches!(self, State::PeerEnded | State::Lingering)
    }

    /// Whether the end of the queue is waited for.
    pub(crate) const fn flushes(self) -> bool {
        matches!(self, State::Finishing | State::Closing)
    }
}

/// When a connection closes that [drains](crate::Protocol::draining).
///
/// Never while anything is in flight on it: bytes that are queued or unused, a call of
/// [`writable`](crate::Protocol::writable) that is owed, or a mark as [busy](crate::Conn::set_busy).
///
/// ```
/// use netpoller::{Conn, Drain, Protocol};
/// use std::io;
///
/// struct Lines;
///
/// impl Protocol for Lines {
///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         conn.write(bytes)?;
///         Ok(bytes.len())
///     }
///     fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
///         conn.write(b"-SHUTDOWN\n")?;
///         Ok(Drain::AtBoundary)
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drain {
    /// When there was no traffic for the [grace](crate::Server::drain_grace) either: a client may
    /// have sent its next request already.
    #[default]
    WhenQuiet,
    /// At the next boundary between messages: as soon as all that has come is used. For protocols
    /// whose clients send what was not answered to another server.
    AtBoundary,
}

/// What was asked for. A later variant outdoes an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Asked {
    #[default]
    Nothing,
    End,
    Close,
    Abort,
}

const ASKED: [Asked; 4] = [Asked::Nothing, Asked::End, Asked::Close, Asked::Abort];

/// A connection's state, what its protocol asked for since it was last looked at, whether it has
/// something to attend to besides reading, and whether it drains, in a byte that the socket has to
/// spare.
///
/// ```text
///   | 6      | 5      | 4 3   | 2 1 0 |
///   | drains | attend | asked | state |
/// ```
///
/// Zero is an open connection with nothing to do but to read: one comparison finds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(u8);

const STATE: u8 = 7;
const ASKED_SHIFT: u8 = 3;
const ATTEND: u8 = 1 << 5;
const DRAINS: u8 = 1 << 6;

impl Status {
    pub(crate) const OPENING: Status = Status(State::Opening as u8);

    pub(crate) const fn with_state(self, state: State) -> Self {
        Status(self.0 & !STATE | state as u8)
    }

    pub(crate) const fn with_asked(self, asked: Asked) -> Self {
        Status(self.0 & !(3 << ASKED_SHIFT) | (asked as u8) << ASKED_SHIFT)
    }

    /// Whether the connection has something to attend to: what it keeps, mail, a lost handle.
    pub(crate) const fn with_attend(self, attend: bool) -> Self {
        Status(if attend {
            self.0 | ATTEND
        } else {
            self.0 & !ATTEND
        })
    }

    /// The connection closes when nothing is in flight on it, and its protocol was told so.
    pub(crate) const fn draining(self) -> Self {
        Status(self.0 | DRAINS)
    }

    pub(crate) const fn drains(self) -> bool {
        self.0 & DRAINS != 0
    }

    pub(crate) const fn from_byte(byte: u8) -> Self {
        Status(byte)
    }

    pub(crate) const fn byte(self) -> u8 {
        self.0
    }

    #[inline]
    pub(crate) fn state(self) -> State {
        State::ALL[usize::from(self.0 & STATE)]
    }

    #[inline]
    pub(crate) fn asked(self) -> Asked {
        ASKED[usize::from(self.0 >> ASKED_SHIFT & 3)]
    }

    /// Open, nothing asked, and nothing to attend to.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 == 0
    }

    /// By state, and by what the protocol asked for itself.
    #[inline]
    pub(crate) fn may_write(self) -> bool {
        self.is_plain() || (self.state().takes_writes() && self.asked() == Asked::Nothing)
    }
}

/// Whether a connection takes what its handles and other threads write.
///
/// | state | who moves it there | on to |
/// |---|---|---|
/// | Open | `new` | Ended, Closed |
/// | Ended | the connection, when its direction has ended or is about to; `ConnHandle::close` | Closed |
/// | Closed | the connection, when its socket is closed | |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Takes {
    #[default]
    Open,
    Ended,
    Closed,
}

#[cfg(test)]
mod tests;
