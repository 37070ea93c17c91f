//! `Conn`, which the callbacks are given, and its state.

// Mirrors what a Go handler does with its `net.Conn`.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::error::{CloseReason, UNUSED};
use super::filter::{Filter, Filtering};
use super::handle::{ConnHandle, ConnId, Inbox};
use super::out_queue::{OutQueue, Piece, SMALL};
use super::rate::{NEVER, Progress};
use super::shared::{ConnSettings, Phase, WorkerShared, ticks};
use super::state::{ABORT, ASKED, ATTEND, CLOSE, Drain, END, Event, STATE, State};
use crate::endpoints::{Addr, End};
use crate::net::fd::Fd;
use crate::runtime::context::{self, ParkKey};
use crate::wheel::TimerKey;

/// A connection, as the callbacks of its [`Protocol`](crate::Protocol) see it.
///
/// It is lent to one callback at a time and does not leave its thread. To write later, from a task or
/// another connection, take a [handle](Conn::handle).
///
/// ```
/// use std::io;
/// use netpoller::{Conn, Protocol};
///
/// /// Answers one request, and closes.
/// struct Once;
/// impl Protocol for Once {
///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         conn.write(b"answer")?;
///         conn.close();
///         Ok(bytes.len())
///     }
/// }
/// ```
pub struct Conn {
    pub(super) fd: Fd,
    pub(super) shared: Rc<WorkerShared>,
    /// State that most idle connections do not need. [`Conn::extra`] makes it; then the next run does not
    /// take the fast path.
    pub(super) extra: Option<Box<Extra>>,
    /// The timer that judges the peer; `None` if none was set. One that was set may have fired.
    pub(super) judge_timer: Option<TimerKey>,
    /// The tick from which the peer's idle time counts: its last sign of life (it sent bytes or,
    /// while it is not read from, took some), or when its time began anew.
    pub(super) heard_at: u64,
    /// The tick from which the next heartbeat counts; while the connection closes, the next check of
    /// acknowledgements.
    pub(super) beat: u64,
}

/// What a connection has only while something waits or is set, or there is a handle.
#[derive(Default)]
pub(super) struct Extra {
    pub(super) queue: OutQueue,
    /// Bytes that are charged to the limit over all connections (`most_queued_in_all`): the memory of
    /// what waits, as it was noted last.
    pub(super) charged: usize,
    /// The queue was above the high mark, and has not been at or below the low one since: a call of
    /// `writable` is owed.
    pub(super) is_full: bool,
    /// Bytes that the protocol has not used.
    pub(super) unused: Vec<u8>,
    /// How many of them it has seen. Never more than there are.
    pub(super) seen: usize,
    /// How many must be there before the protocol is offered any. `data` sets it, for the next offer
    /// alone.
    pub(super) need: usize,
    /// The protocol has seen what is left, and waits for new bytes. `data` sets it, for the next offer
    /// alone.
    pub(super) waits: bool,
    /// The peer has ended, so that what is kept is offered whatever the protocol needs.
    pub(super) is_last: bool,
    /// The protocol's own timer, which may have fired.
    pub(super) timer: Option<TimerKey>,
    /// The connection's own idle timeout, in ticks, in place of the server's.
    pub(super) idle: Option<u64>,
    /// What stands between the socket and the protocol.
    pub(super) filtering: Option<Box<Filtering>>,
    /// The filter closes the connection, once the protocol was offered what the filter had passed on.
    pub(super) closes: bool,
    /// When the connection has reached its greatest age, if it has one.
    pub(super) old_at: Option<u64>,
    /// How it drains, once its protocol was told: what `draining` returned.
    pub(super) drain: Option<Drain>,
    /// Why the connection is ending: the first failure, or else the first request.
    pub(super) why: Option<CloseReason>,
    /// A write of the callback under way met a limit: if the callback fails too, the connection
    /// ends by the limit.
    pub(super) is_refused: bool,
    /// The connection's own handle, once it was asked for one or for its id.
    pub(super) handle: Option<ConnHandle>,
    /// Whether the peer meets the minimum rates, by direction; `None` while nothing is expected of it.
    pub(super) progress: [Option<Progress>; 2],
    /// When bytes last were queued from elsewhere, or went out, except as a reply that went whole; of a
    /// lingering connection, when input was last discarded.
    pub(super) sent_at: u64,
    /// What the peer had not acknowledged at the last check, while the connection closes.
    pub(super) unacknowledged: usize,
    /// Bytes read, for the log: `None` unless debug was on when the connection opened.
    pub(super) received: Option<u64>,
}

impl Extra {
    /// Whether there is anything to attend to in a run: then the fast path is not taken.
    pub(super) fn needs_attention(&self) -> bool {
        !self.queue.is_empty()
            || self.is_full
            || !self.unused.is_empty()
            || self.need > 0
            || self.why.is_some()
            || self.drain.is_some()
            || self.timer.is_some()
            || self.filtering.is_some()
            || self.progress != [None; 2]
            || self.received.is_some()
            || self.has_others_writes()
    }

    /// What handles and other threads have put there.
    pub(super) fn inbox(&self) -> Option<MutexGuard<'_, Inbox>> {
        Some(self.handle.as_ref()?.mailbox.inbox())
    }

    pub(super) fn has_others_writes(&self) -> bool {
        self.inbox().is_some_and(|inbox| !inbox.is_empty())
    }
}

impl Conn {
    pub(crate) fn new(fd: Fd, shared: Rc<WorkerShared>, filter: Option<Box<dyn Filter>>) -> Self {
        fd.socket().note.set(State::Opening as u8);
        let mut conn = Conn {
            fd,
            shared,
            extra: None,
            judge_timer: None,
            heard_at: 0,
            beat: 0,
        };
        if filter.is_some() {
            conn.extra().filtering.get_or_insert_default().filter = filter;
        }
        conn
    }

    pub(super) fn settings(&self) -> &ConnSettings {
        &self.shared.server.settings
    }

    // ---- its status ----

    pub(super) fn note(&self) -> &Cell<u8> {
        &self.fd.socket().note
    }

    /// Open, and with nothing to attend to but reading.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.note().get() == 0
    }

    pub(super) fn state(&self) -> State {
        State::ALL[usize::from(self.note().get() & STATE)]
    }

    pub(super) fn enter(&mut self, state: State) {
        debug_assert_ne!(self.state(), State::Closed);
        if !state.takes_writes() {
            self.end_others_writes();
            // What they have put there is taken in, unless the connection is closed: then it is dropped, and
            // no filter runs.
            if state != State::Closed {
                self.take_others_writes();
            }
        }
        self.note().set(self.note().get() & !STATE | state as u8);
    }

    /// Whether the protocol may write: by the state, and by what was asked for.
    pub(super) fn may_write(&self) -> bool {
        self.state().takes_writes() && !self.is_asked()
    }

    /// The connection is to end: `asked` is [`END`], [`CLOSE`] or [`ABORT`].
    pub(super) fn ask(&mut self, asked: u8) {
        self.note().set(self.note().get() | asked);
        self.end_others_writes();
    }

    pub(super) fn is_asked(&self) -> bool {
        self.note().get() & ASKED != 0
    }

    /// Takes the strongest of the requests: abort, close, end.
    pub(super) fn take_asked(&mut self) -> Option<Event> {
        let note = self.note();
        let asked = note.get() & ASKED;
        let event = match asked {
            0 => return None,
            END => Event::EndAsked,
            _ if asked & ABORT != 0 => Event::Aborted,
            _ => Event::CloseAsked,
        };
        note.set(note.get() & !ASKED);
        Some(event)
    }

    /// Reads from `extra`; a default if there is none.
    pub(super) fn peek<T: Default>(&self, read: impl FnOnce(&Extra) -> T) -> T {
        self.extra.as_deref().map_or_else(T::default, read)
    }

    pub(super) fn filtering(&mut self) -> Option<&mut Filtering> {
        self.extra.as_mut()?.filtering.as_deref_mut()
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.peek(|extra| extra.filtering.is_some())
    }

    /// Counts bytes that the filter has not used.
    pub(super) fn peek_filter(&self, count: impl FnOnce(&Filtering) -> usize) -> usize {
        self.peek(|extra| extra.filtering.as_deref().map_or(0, count))
    }

    /// `extra`, made if there is none.
    pub(super) fn extra(&mut self) -> &mut Extra {
        self.attend();
        self.extra.get_or_insert_default()
    }

    /// There is something to attend to.
    pub(super) fn attend(&self) {
        self.note().set(self.note().get() | ATTEND);
    }

    /// How it drains, once its protocol was told.
    pub(super) fn drains(&self) -> Option<Drain> {
        self.peek(|extra| extra.drain)
    }

    /// From here on what handles and other threads write is refused: it could only be dropped.
    fn end_others_writes(&self) {
        if let Some(mut inbox) = self.extra.as_ref().and_then(|extra| extra.inbox()) {
            inbox.end();
        }
    }

    /// Notes why the connection ends. The first failure is kept; without one, the first request.
    pub(super) fn blame(&mut self, why: CloseReason) {
        let kept = &mut self.extra().why;
        let outdone = |kept: &CloseReason| kept.error().is_none() && why.error().is_some();
        if kept.as_ref().is_none_or(outdone) {
            *kept = Some(why);
        }
    }

    // ---- what a protocol asks for ----

    /// Writes: all of it, at the end of the callback or whenever the peer takes it. It never waits.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         conn.write(b"you said: ")?;
    ///         conn.write(bytes)?; // both go out in one system call
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `QuotaExceeded`: too much would wait, see [`Limits`](crate::Limits). Nothing of it was taken; or
    /// a part was, and the connection ends. `BrokenPipe`: our direction has ended, or is to.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.shared.out.borrow_mut();
        // Nothing waits, and there is room: it goes out with what else this callback writes.
        if self.is_plain() && out.len() + bytes.len() <= self.shared.gathers {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        drop(out);
        self.write_slow(bytes)
    }

    /// As [`write`](Conn::write), of bytes that are shared with other connections and not copied,
    /// unless they are few or there is a filter.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// use std::{io, rc::Rc};
    ///
    /// /// All connections of a thread send the same bytes.
    /// struct Page(Rc<[u8]>);
    /// impl Protocol for Page {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write_shared(&self.0)
    ///     }
    /// #   fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_shared(&mut self, bytes: &Rc<[u8]>) -> io::Result<()> {
        if bytes.len() < SMALL {
            return self.write(bytes);
        }
        self.check_write(bytes.len())?;
        self.write_queued(bytes, |queue| {
            queue.push_piece(Piece::Shared(bytes.clone()))
        })
    }

    /// Offers nothing more until `bytes` bytes are there, counted from the first that this call of
    /// [`data`](crate::Protocol::data) leaves: for messages that say how long they are. It holds
    /// for the next offer alone. What is left when the peer ends is offered once more, however
    /// little it is.
    ///
    /// A need of more than [`Limits::most_unused`](crate::Limits::most_unused) ends the connection.
    ///
    /// ```
    /// use std::io;
    /// use netpoller::{Conn, Protocol};
    ///
    /// /// Messages behind their length in four bytes. A long one is not looked at with each byte.
    /// struct Messages;
    /// impl Protocol for Messages {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         let Some((head, rest)) = bytes.split_first_chunk() else {
    ///             conn.need(4);
    ///             return Ok(0);
    ///         };
    ///         let length = u32::from_be_bytes(*head) as usize;
    ///         let Some(message) = rest.get(..length) else {
    ///             conn.need(4 + length);
    ///             return Ok(0);
    ///         };
    ///         conn.write(message)?;
    ///         Ok(4 + length)
    ///     }
    /// }
    /// ```
    pub fn need(&mut self, bytes: usize) {
        if bytes > self.settings().limits.most_unused {
            return self.end_over_limit(UNUSED);
        }
        self.extra().need = bytes;
    }

    /// What this call of [`data`](crate::Protocol::data) leaves is offered again only with new bytes:
    /// the protocol has seen that no whole message is left. Without `wait`, it is offered again at
    /// once, if some was used.
    ///
    /// ```
    /// use std::io;
    /// use netpoller::{Conn, Protocol};
    ///
    /// /// Takes all lines that are there, and waits for the end of the next.
    /// struct Lines;
    /// impl Protocol for Lines {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    ///         for line in bytes[..end].split_inclusive(|&byte| byte == b'\n') {
    ///             conn.write(line)?;
    ///         }
    ///         conn.wait();
    ///         Ok(end)
    ///     }
    /// }
    /// ```
    pub fn wait(&mut self) {
        self.extra().waits = true;
    }

    /// Calls [`timer`](crate::Protocol::timer) once at this time, in place of a time that was set
    /// before; at once if it has passed. `None` cancels the timer. So does a close.
    ///
    /// The timer says nothing of the peer: it ends nothing by itself, keeps no connection from being
    /// idle, and no drain waits for it. While it is set, the connection leaves its fast path, and each
    /// message costs a little more.
    ///
    /// ```
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Protocol, time};
    ///
    /// /// Gives a client five seconds for its first request.
    /// struct Greets;
    /// impl Protocol for Greets {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.set_timer(Some(time::now() + Duration::from_secs(5)));
    ///         Ok(())
    ///     }
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         conn.set_timer(None);
    ///         conn.write(bytes)?;
    ///         Ok(bytes.len())
    ///     }
    ///     fn timer(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(b"too slow\n")?;
    ///         conn.close();
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn set_timer(&mut self, when: Option<Instant>) {
        let core = self.fd.desc.core.clone();
        let mut timers = core.timers.borrow_mut();
        if let Some(key) = self.extra.as_mut().and_then(|extra| extra.timer.take()) {
            timers.cancel(key);
        }
        if let Some(when) = when {
            let parked = ParkKey::machine(context::running_machine());
            // What lies in the past fires in the next turn.
            let key = timers.insert(core.clock.tick_of(when), parked);
            self.extra().timer = Some(key);
        }
    }

    /// Gives this connection an idle timeout of its own, in place of the
    /// [server's](crate::Server::idle_timeout); `None` and zero mean never, as there. The time counts
    /// from the peer's last sign of life: a timeout that has passed already ends the connection at
    /// once.
    ///
    /// ```
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Protocol};
    ///
    /// /// A client that has logged in may be silent for longer.
    /// struct Chat;
    /// impl Protocol for Chat {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         if bytes.starts_with(b"login ") {
    ///             conn.set_idle_timeout(Duration::from_secs(3600));
    ///         }
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        let timeout = timeout.into().filter(|wait| !wait.is_zero());
        self.extra().idle = Some(timeout.map_or(NEVER, ticks));
        // From here on a connection of this thread may be judged by time.
        self.shared.judges_by_time.set(true);
    }

    /// Bytes that wait to be written, without those that this callback has gathered for the one write at
    /// its end (see [`Protocol`](crate::Protocol)).
    ///
    /// ```
    /// use netpoller::Conn;
    ///
    /// /// Leaves the picture out, where the peer is behind already.
    /// fn answer(conn: &mut Conn, text: &[u8], picture: &[u8]) -> std::io::Result<()> {
    ///     conn.write(text)?;
    ///     match conn.queued() < 64 << 10 {
    ///         true => conn.write(picture),
    ///         false => Ok(()),
    ///     }
    /// }
    /// ```
    pub fn queued(&self) -> usize {
        self.to_send() + self.peek_filter(|filtering| filtering.held.len())
    }

    /// Bytes that wait for the system to take them: those that a filter has let through.
    pub(super) fn to_send(&self) -> usize {
        self.peek(|extra| extra.queue.len())
    }

    /// Whether so much waits that nothing is read from the peer:
    /// [`writable`](crate::Protocol::writable) will say when there is room again.
    pub fn is_full(&self) -> bool {
        self.peek(|extra| extra.is_full)
    }

    /// Whether input waits until the peer has taken its answers. In Finishing there are no more
    /// answers, and input is read, to see whether the peer has ended.
    pub(super) fn holds_input(&self) -> bool {
        self.is_full() && self.state() != State::Finishing
    }

    /// Whether the socket is read: to deliver, to learn of a reset, to discard. In Closing, only if a
    /// filter holds output back, which input may release.
    pub(super) fn reads(&self) -> bool {
        let may_help = self.state() != State::Closing || self.queued() > self.to_send();
        may_help && !self.holds_input()
    }

    /// Marks the connection as busy, or no longer. A busy connection is never idle, and a drain waits
    /// for it. For an answer that is computed elsewhere, where the netpoller can't see it.
    ///
    /// ```
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Protocol, spawn, time};
    ///
    /// struct Slow;
    /// impl Protocol for Slow {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         conn.set_busy(true);
    ///         let handle = conn.handle();
    ///         spawn(async move {
    ///             time::sleep(Duration::from_secs(10)).await;
    ///             let _ = handle.write(b"answer");
    ///             handle.set_busy(false);
    ///         });
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    pub fn set_busy(&mut self, busy: bool) {
        if busy || self.extra.is_some() {
            self.own_handle().set_busy(busy);
        }
    }

    /// Lends the descriptor, to set options: see [`Stream::with_fd`](crate::net::Stream::with_fd). From
    /// then on the connection leaves its fast path, and a message costs a system call more, since your
    /// options may have changed what a short read proves.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// struct Files;
    /// impl Protocol for Files {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.with_fd(|fd| socket2::SockRef::from(&fd).set_send_buffer_size(4 << 20))?
    ///     }
    /// #   fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        self.fd.with_fd(f)
    }

    /// Closes the connection once all is written. No more input is offered. What is unread by then
    /// is discarded until the peer has acknowledged the last bytes and sends nothing more: a close
    /// at once would make the system send a RST, which may overtake them.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    ///
    /// struct Greeter;
    /// impl Protocol for Greeter {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(b"hello, and good-bye\n")?;
    ///         conn.close(); // once that is sent
    ///         Ok(())
    ///     }
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    #[doc(alias = "lingering_close")]
    pub fn close(&mut self) {
        self.ask(CLOSE);
    }

    /// Ends our direction once all is written: the peer reads end of file, and can still send.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// /// Answers once, and reads on until the peer ends too.
    /// struct Once;
    /// impl Protocol for Once {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         if conn.write(b"that will do\n").is_ok() {
    ///             conn.close_write();
    ///         }
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    pub fn close_write(&mut self) {
        self.ask(END);
    }

    /// Closes with a RST: what was not sent is thrown away.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// /// Has nothing to say to a peer that speaks another protocol.
    /// struct Strict;
    /// impl Protocol for Strict {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         if !bytes.starts_with(b"MAGIC") {
    ///             conn.abort();
    ///         }
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    pub fn abort(&mut self) {
        self.ask(ABORT);
    }

    /// Whether the connection is to end as soon as nothing is in flight on it: the server is being
    /// drained, or the connection has reached its greatest age.
    /// [`draining`](crate::Protocol::draining) was called, or will be.
    ///
    /// ```
    /// use netpoller::Conn;
    ///
    /// /// Of an answer of HTTP: whether the client may send another request.
    /// fn head(conn: &Conn) -> &'static str {
    ///     match conn.is_draining() {
    ///         true => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ///         false => "HTTP/1.1 200 OK\r\n\r\n",
    ///     }
    /// }
    /// ```
    pub fn is_draining(&self) -> bool {
        self.shared.phase.get() != Phase::Serving || self.old_at() <= self.now()
    }

    /// The connection's idle timeout, rounded up to milliseconds: its
    /// [own](Conn::set_idle_timeout), or the [server's](crate::Server::idle_timeout).
    pub fn idle_timeout(&self) -> Option<Duration> {
        let ticks = self.idle_ticks();
        (ticks != NEVER).then(|| Duration::from_millis(ticks))
    }

    /// The peer's address.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    ///
    /// struct Mirror;
    /// impl Protocol for Mirror {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         let peer = conn.peer_addr()?;
    ///         conn.write(format!("you are {peer}\n").as_bytes())
    ///     }
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's, if the address was not known at the accept.
    pub fn peer_addr(&self) -> io::Result<Addr> {
        self.fd.socket_addr(End::Peer)
    }

    /// Our end's address.
    ///
    /// # Errors
    ///
    /// As [`peer_addr`](Conn::peer_addr).
    pub fn local_addr(&self) -> io::Result<Addr> {
        self.fd.socket_addr(End::Local)
    }

    /// A handle to write by from other connections and tasks of this thread.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol, spawn, time};
    /// use std::{io, time::Duration};
    ///
    /// struct Later;
    /// impl Protocol for Later {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         let handle = conn.handle();
    ///         spawn(async move {
    ///             time::sleep(Duration::from_secs(1)).await;
    ///             handle.write(b"an answer, a second later\n")
    ///         });
    ///         Ok(bytes.len())
    ///     }
    /// }
    /// ```
    pub fn handle(&mut self) -> ConnHandle {
        self.own_handle().clone()
    }

    /// An id by which any thread writes to the connection and closes it: see
    /// [`ServerHandle::write`](crate::ServerHandle::write). It is the same each time.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io::{self, Read};
    /// use std::sync::mpsc::{Sender, channel};
    /// use netpoller::{Conn, ConnId, Protocol, Server};
    ///
    /// /// Tells a thread of each client.
    /// struct Room(Sender<ConnId>);
    /// impl Protocol for Room {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         let _ = self.0.send(conn.id());
    ///         Ok(())
    ///     }
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let (tell, told) = channel();
    /// let bound = Server::new(move |_peer| Room(tell.clone())).workers(2).bind("127.0.0.1:0")?;
    /// let (addr, handle) = (bound.local_addr(), bound.handle());
    /// let server = std::thread::spawn(move || bound.run());
    ///
    /// let mut client = std::net::TcpStream::connect(addr)?;
    /// let id = told.recv().unwrap();
    /// handle.write(id, b"news".as_slice().into())?;
    /// handle.close(id)?;
    /// let mut news = String::new();
    /// client.read_to_string(&mut news)?;
    /// assert_eq!(news, "news");
    /// handle.stop();
    /// # server.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn id(&mut self) -> ConnId {
        let shared = self.shared.clone();
        shared.server.remotes.enter(self.own_handle())
    }

    fn own_handle(&mut self) -> &ConnHandle {
        let own = self.extra().handle.take();
        let own = own.unwrap_or_else(|| {
            let mut inbox = Inbox::default();
            inbox.queued = self.queued();
            if !self.may_write() {
                inbox.end();
            }
            let quota = self.shared.server.queued.clone();
            ConnHandle::new(&self.fd, self.settings().limits.most_queued, quota, inbox)
        });
        self.extra().handle.insert(own)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.shared.gone();
    }
}

/// Nothing waits: `write` takes all, as [`Conn::write`] does, and `flush` has nothing to do.
impl io::Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Conn::write(self, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("state", &self.state())
            .field("peer", &self.fd.endpoint(End::Peer))
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}
