//! One registered source: its parking slots, its flags, its deadlines.
// Mirrors `pollDesc` in Go's runtime/netpoll.go: `rg` and `wg` are the slots, `rd` and `wd` the
// deadlines, `rt` and `wt` the timer.
//
// # A slot, one for each direction
//
// | state | meaning | moved there by | on to |
// |---|---|---|---|
// | Nil | no waiter, and not ready as far as is known | `new`; `drained`; `park` from Ready; `unpark`, a deadline, `evict` | Parked, Ready |
// | Ready | an attempt may succeed | `netpollready`, `park_short`; `assume_ready` at first | Nil by `drained` or `park` |
// | Parked(W) | W waits | `park`, `park_waiting` from Nil | Nil by `unpark`, a deadline, `evict`; Ready by `netpollready` |
//
// Ready is a bit of `flags`. Parked is a W in `slots`. Nil is neither. A slot holds one W: `park` panics on
// a second, and `park_waiting` replaces the first. Illegal: Parked and Ready at once, except within a call.
// `evict` empties the slots, and on a closed descriptor `park` fills none. The ready bits of a closed
// descriptor may still change, and have no effect.
//
// # The flags
//
//   bit    7              6       5..4           3       2        1..0
//        | short I/O    | closed | expired    | urgent | hung up | ready      |
//        | inconclusive |        | write read |        |         | write read |
//
// | flag | set by | cleared by |
// |---|---|---|
// | ready | `netpollready`, `assume_ready`, `park_short` | `drained`, `park` |
// | hung up | `netpollready` | never |
// | urgent | `netpollready` | `drained` of Read |
// | expired | `expire`: a deadline passes, or is set in the past | a deadline moved ahead, or cleared |
// | closed | `evict` | never |
// | short I/O inconclusive | `set_short_io_inconclusive` | never |
//
// # The timer, one for both deadlines
//
// | state | meaning | moved there by | on to |
// |---|---|---|---|
// | none (NEVER) | no timer | `new`; the timer fires and no deadline is set; `evict` | due |
// | due(tick) | no deadline is before `tick` | the first deadline, or one before the timer | earlier, by a deadline before it; later, or none, when it fires; none by `evict` |
//
// If a deadline moves later, or is cleared, it is only stored: the timer is not touched. When the timer
// fires, it is set to the next deadline, if there is one. (On a virtual clock the timer is always set to
// the sooner deadline, so that the clock does not jump to a time at which nothing is due.)

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Instant;

use mio::event::Source;

use super::netpoll::Core;
use super::types::{Direction, May, Park, Readiness, Refusal, Token, TryIo};
use crate::trace::{Kind, NOTHING};
use crate::wheel::Tick;

// The lowest four bits are those of `Readiness`.
const HUNG_UP: u32 = Readiness::HUNG_UP.0 as u32;
const URGENT: u32 = Readiness::URGENT.0 as u32;
const CLOSED: u32 = 1 << 6;
const SHORT_IO_INCONCLUSIVE: u32 = 1 << 7;

const fn ready_bit(direction: Direction) -> u32 {
    1 << direction as u32
}

const fn expired_bit(direction: Direction) -> u32 {
    1 << (4 + direction as u32)
}

/// No deadline: later than every other.
pub(crate) const NEVER: Tick = Tick::MAX;

/// One registered source: two parking slots, two deadlines, a closing flag. Go's `pollDesc`.
///
/// A [`Descriptor`] derefs to it. It is not `Send`, because the loop of its reactor's thread changes
/// it without a lock.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::reactor::{Direction, PollDesc, Reactor};
///
/// /// For a loop that hangs: what is it waiting for?
/// fn show(desc: &PollDesc<&str>) {
///     desc.parked(|direction, who| println!("{who} waits to {direction:?}, {:?}", desc.token()));
/// }
///
/// let reactor: Reactor<&str> = Reactor::new()?;
/// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
/// let descriptor = reactor.open(&mut ours)?;
/// let _ = descriptor.park(Direction::Read, "the reader");
/// reactor.for_each(show);
/// # reactor.close(descriptor, &mut ours)?;
/// # Ok(())
/// # }
/// ```
pub struct PollDesc<W, T = ()> {
    // The fields are `Cell`s, because the registry and the handles share them.
    /// The runtime's part: a socket's locks, waiters and addresses. Nothing on a bare reactor.
    pub(crate) user_data: T,
    pub(crate) core: Rc<Core<W, T>>,
    token: Token,
    flags: Cell<u32>,
    slots: [Cell<Option<W>>; 2],
    deadlines: [Cell<Tick>; 2],
    /// The timer's index in `Core::deadlines`. It means nothing if `due` is `NEVER`.
    timer: Cell<u32>,
    /// When the timer is due, or `NEVER` if there is none. No deadline is before it.
    due: Cell<Tick>,
}

// Its size without `user_data`. Each connection keeps one descriptor.
const _: () = assert!(size_of::<PollDesc<std::num::NonZeroU64>>() <= 64);

impl<W, T> PollDesc<W, T> {
    pub(super) fn new(core: Rc<Core<W, T>>, token: Token, user_data: T) -> Self {
        PollDesc {
            user_data,
            core,
            token,
            flags: Cell::new(0),
            slots: [const { Cell::new(None) }; 2],
            deadlines: [const { Cell::new(NEVER) }; 2],
            timer: Cell::new(0),
            due: Cell::new(NEVER),
        }
    }

    /// The token by which the selector and the log name it.
    pub fn token(&self) -> Token {
        self.token
    }

    fn raise(&self, bits: u32) {
        self.flags.set(self.flags.get() | bits);
    }

    fn lower(&self, bits: u32) {
        self.flags.set(self.flags.get() & !bits);
    }

    fn has(&self, bits: u32) -> bool {
        self.flags.get() & bits != 0
    }

    // ---- may it be tried? ----

    /// Whether an operation is not refused. It may still have to wait.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Reactor, Refusal};
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// assert_eq!(descriptor.check(Direction::Read), Ok(()));
    /// descriptor.evict();
    /// assert_eq!(descriptor.check(Direction::Read), Err(Refusal::Closed));
    /// # reactor.close(descriptor, &mut ours)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The refusal: the descriptor is closed, or the deadline has passed and has not been moved since.
    #[doc(alias = "netpollcheckerr")]
    pub fn check(&self, direction: Direction) -> Result<(), Refusal> {
        match self.may_try(direction) {
            May::Refused(refusal) => Err(refusal),
            May::Try | May::Wait => Ok(()),
        }
    }

    /// Whether an operation may be tried, must wait, or is refused.
    pub(crate) fn may_try(&self, direction: Direction) -> May {
        // In a child of fork a try would take the parent's bytes.
        match self.core.is_inherited() {
            true => May::Refused(Refusal::Closed),
            false => self.may_by_flags(direction),
        }
    }

    /// As `may_try`, by the flags alone. For parking, which does no harm in a child of fork: no turn runs
    /// there.
    fn may_by_flags(&self, direction: Direction) -> May {
        let asked = CLOSED | expired_bit(direction) | ready_bit(direction);
        match self.flags.get() & asked {
            0 => May::Wait,
            // Closed before expired: a close is final, and a deadline can be moved.
            bits if bits & CLOSED != 0 => May::Refused(Refusal::Closed),
            bits if bits & expired_bit(direction) != 0 => May::Refused(Refusal::TimedOut),
            _ => May::Try,
        }
    }

    /// Whether an attempt may be made and a short transfer would be conclusive (`short_means_drained`).
    pub(crate) fn is_plainly_ready(&self, direction: Direction) -> bool {
        let against = CLOSED | expired_bit(direction) | HUNG_UP | URGENT | SHORT_IO_INCONCLUSIVE;
        self.flags.get() & (against | ready_bit(direction)) == ready_bit(direction)
            && !self.core.is_inherited()
    }

    /// Whether an attempt may succeed, as far as is known.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Reactor};
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let (mut ours, theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// drop(theirs);
    /// while !descriptor.is_hung_up() {
    ///     reactor.turn(None, &mut Vec::new())?;
    /// }
    /// assert!(descriptor.is_ready(Direction::Read)); // a read returns the end
    /// assert!(!descriptor.is_closed());
    /// # reactor.close(descriptor, &mut ours)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_ready(&self, direction: Direction) -> bool {
        self.has(ready_bit(direction))
    }

    /// Whether the peer sent FIN or RST, or our own direction for reading was shut, as far as the selector has
    /// reported.
    pub fn is_hung_up(&self) -> bool {
        self.has(HUNG_UP)
    }

    /// Whether it was evicted or closed.
    pub fn is_closed(&self) -> bool {
        self.has(CLOSED)
    }

    // ---- parking ----

    /// Parks `w` until the direction is ready, its deadline expires or the descriptor is evicted. A turn
    /// then hands it out.
    ///
    /// If an attempt fails with `WouldBlock`, call [`drained`](PollDesc::drained), then this. Take no turn
    /// between the attempt and `drained`.
    ///
    /// ```
    /// # use netpoller::reactor::{Direction, Park, Reactor};
    /// # fn main() -> std::io::Result<()> {
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// assert_eq!(descriptor.park(Direction::Read, "reader"), Park::Parked);
    /// descriptor.evict();
    /// assert_eq!(descriptor.park(Direction::Read, "another"), Park::Closed("another"));
    /// # reactor.close(descriptor, &mut ours)
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the slot holds a W already: one waiter a direction.
    #[doc(alias = "netpollblock")]
    pub fn park(&self, direction: Direction, w: W) -> Park<W> {
        match self.may_by_flags(direction) {
            May::Refused(Refusal::TimedOut) => Park::TimedOut(w),
            May::Refused(Refusal::Closed) => Park::Closed(w),
            // A turn has reported readiness since `drained`, or `drained` was not called.
            May::Try => {
                self.lower(ready_bit(direction));
                Park::Ready(w)
            }
            May::Wait => {
                let first = self.slots[direction as usize].replace(Some(w));
                if first.is_some() {
                    // Put back before the panic, so that the first waiter is not lost with it.
                    self.slots[direction as usize].set(first);
                    panic!("netpoller: a W is parked already for {direction:?}");
                }
                Park::Parked
            }
        }
    }

    /// As [`PollDesc::park`], after [`PollDesc::may_try`] said `Wait`. Replaces the W that is in the slot,
    /// and returns it.
    pub(crate) fn park_waiting(&self, direction: Direction, w: W) -> Option<W> {
        debug_assert_eq!(self.may_by_flags(direction), May::Wait);
        self.slots[direction as usize].replace(Some(w))
    }

    /// Parks after a short read or write of a byte stream, which moved less than was asked for. If it was
    /// [conclusive](PollDesc::short_means_drained), this calls [`drained`](PollDesc::drained) and
    /// [`park`](PollDesc::park). Otherwise the direction counts as ready, and `park` returns [`Park::Ready`],
    /// unless it is refused: try again until `WouldBlock`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Park, Reactor};
    /// use std::io::{Read, Write};
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let mut ours = mio::net::TcpStream::connect(listener.local_addr()?)?;
    /// let (mut theirs, _) = listener.accept()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// theirs.write_all(b"hello")?;
    /// while !descriptor.is_ready(Direction::Read) {
    ///     reactor.turn(None, &mut Vec::new())?;
    /// }
    /// assert_eq!(ours.read(&mut [0; 64])?, 5); // short: no more is there
    /// # #[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
    /// assert_eq!(descriptor.park_short(Direction::Read, 7), Park::Parked);
    /// # reactor.close(descriptor, &mut ours)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`park`](PollDesc::park).
    pub fn park_short(&self, direction: Direction, w: W) -> Park<W> {
        match self.short_means_drained() {
            true => self.drained(direction),
            // `park` lowers it and returns Ready, unless the direction is refused.
            false => self.raise(ready_bit(direction)),
        }
        self.park(direction, w)
    }

    /// Calls `f`, which tries an operation. If `f` returns `WouldBlock`, parks `w`: try, EAGAIN, park, in
    /// one call. When a turn hands `w` out, call `try_io` again.
    ///
    /// If a signal interrupted `f`, it is called again. `f` must not call `turn`: what that turn finds
    /// ready would be cleared.
    ///
    /// ```
    /// use netpoller::reactor::{Direction, Reactor, TryIo};
    /// use std::io::{Read, Write};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let (mut ours, mut theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// let mut byte = [0];
    /// let mut read = || descriptor.try_io(Direction::Read, 7, || ours.read(&mut byte));
    /// assert!(matches!(read(), TryIo::Parked));
    ///
    /// theirs.write_all(b"!")?;
    /// let mut ready = Vec::new();
    /// while ready.is_empty() {
    ///     reactor.turn(None, &mut ready)?;
    /// }
    /// assert!(matches!(read(), TryIo::Done(Ok(1), 7)));
    /// # reactor.close(descriptor, &mut ours)
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`park`](PollDesc::park).
    pub fn try_io<R>(
        &self,
        direction: Direction,
        mut w: W,
        mut f: impl FnMut() -> io::Result<R>,
    ) -> TryIo<io::Result<R>, W> {
        loop {
            if let Err(refusal) = self.check(direction) {
                return TryIo::Refused(refusal, w);
            }
            match f() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return TryIo::Done(result, w),
            }
            self.drained(direction);
            // If `f` closed the descriptor or set a deadline in the past, the next pass refuses.
            w = match self.park(direction, w) {
                Park::Parked => return TryIo::Parked,
                Park::Ready(w) | Park::TimedOut(w) | Park::Closed(w) => w,
            };
        }
    }

    /// Takes out the W that is parked. Call it when the operation of that W is given up.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Park, Reactor};
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// assert_eq!(descriptor.park(Direction::Read, "reader"), Park::Parked);
    /// assert_eq!(descriptor.unpark(Direction::Read), Some("reader"));
    /// assert_eq!(descriptor.park(Direction::Read, "another"), Park::Parked);
    /// # reactor.close(descriptor, &mut ours)?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "netpollunblock")]
    pub fn unpark(&self, direction: Direction) -> Option<W> {
        self.slots[direction as usize].take()
    }

    /// Calls `look` with each W that is parked, and the direction for which it waits. `look` must not use
    /// the descriptor.
    pub fn parked(&self, mut look: impl FnMut(Direction, &W)) {
        for (direction, slot) in Direction::BOTH.into_iter().zip(&self.slots) {
            // Its drop puts the W back into the slot, also if `look` panics.
            let shown = Shown(slot, slot.take());
            if let Some(w) = &shown.1 {
                look(direction, w);
            }
        }
    }

    // ---- readiness ----

    /// Clears what is known of a direction's readiness; of `Read`, also that urgent data is there. Call it
    /// after `WouldBlock`, or after a [conclusive](PollDesc::short_means_drained) short read or write. The
    /// next [`park`](PollDesc::park) waits for a new edge.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Park, Reactor};
    /// use std::io::{ErrorKind, Read};
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// let error = ours.read(&mut [0; 8]).unwrap_err();
    /// if error.kind() == ErrorKind::WouldBlock {
    ///     descriptor.drained(Direction::Read);
    ///     assert_eq!(descriptor.park(Direction::Read, 7), Park::Parked);
    /// }
    /// # reactor.close(descriptor, &mut ours)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn drained(&self, direction: Direction) {
        let urgent = URGENT * u32::from(direction == Direction::Read);
        self.lower(ready_bit(direction) | urgent);
    }

    /// Call it when a read or write of a byte stream has moved `bytes` of the `asked`. If it was short and
    /// [conclusive](PollDesc::short_means_drained), this calls [`drained`](PollDesc::drained). Zero bytes change
    /// nothing: they may be an end of file.
    ///
    /// ```
    /// use netpoller::reactor::{Descriptor, Direction};
    /// use std::io::{self, Read};
    ///
    /// /// Saves the read that would say `WouldBlock`, if `socket` had less than was asked for.
    /// fn read(
    ///     socket: &mut mio::net::TcpStream,
    ///     descriptor: &Descriptor<usize>,
    ///     buffer: &mut [u8],
    /// ) -> io::Result<usize> {
    ///     let bytes = socket.read(buffer)?;
    ///     descriptor.transferred(Direction::Read, bytes, buffer.len());
    ///     Ok(bytes)
    /// }
    /// ```
    pub fn transferred(&self, direction: Direction, bytes: usize, asked: usize) {
        debug_assert!(bytes <= asked);
        if 0 < bytes && bytes < asked && self.short_means_drained() {
            self.drained(direction);
        }
    }

    /// Whether a short read or write is conclusive: it proves that the kernel's buffer is empty, or full.
    /// It is not
    ///
    /// - after a hang-up: an end of file or an error may follow;
    /// - before urgent data: a read stops there;
    /// - if the selector reports no edges, or no urgent data.
    pub fn short_means_drained(&self) -> bool {
        let hung_up = match fault!("short_read_after_hang_up") {
            true => 0,
            false => HUNG_UP,
        };
        !self.has(hung_up | URGENT | SHORT_IO_INCONCLUSIVE)
    }

    /// From now on no short read or write is conclusive. Call it for a source that is no TCP stream, and
    /// when its file descriptor was lent.
    pub(crate) fn set_short_io_inconclusive(&self) {
        self.raise(SHORT_IO_INCONCLUSIVE);
    }

    /// Sets the ready bits of a new source, so that the first operation tries before it parks.
    pub(crate) fn assume_ready(&self) {
        self.raise(Readiness::BOTH.0.into());
    }

    /// Stores the readiness that the selector has reported, and hands the waiters to `out`.
    pub(super) fn netpollready(&self, readiness: Readiness, out: &mut impl FnMut(W) -> u64) {
        if !fault!("lost_wake_up") {
            self.raise(readiness.0.into());
        }
        self.hand_out(Kind::Event, readiness, out);
        if readiness.contains(Readiness::HUNG_UP) {
            self.hand_out_others(out);
        }
    }

    /// Hands out what is parked for the directions in `readiness`, with a trace record of the cause.
    #[inline(always)]
    fn hand_out(&self, kind: Kind, readiness: Readiness, out: &mut impl FnMut(W) -> u64) {
        let (trace, token) = (&self.core.trace, self.token.0 as u64);
        let mut handed = false;
        for direction in Direction::BOTH {
            if u32::from(readiness.0) & ready_bit(direction) != 0
                && let Some(w) = self.unpark(direction)
            {
                trace.handed(kind, token, readiness.0.into(), out(w));
                handed = true;
            }
        }
        if !handed {
            trace.handed(kind, token, readiness.0.into(), NOTHING);
        }
    }

    /// Hands out what waits in no slot: see `HandOutOthers`.
    #[cold]
    fn hand_out_others(&self, out: &mut impl FnMut(W) -> u64) {
        let trace = &self.core.trace;
        (self.core.hand_out_others)(&self.user_data, &mut |w| trace.put(Kind::Unpark, out(w), 0));
    }

    // ---- deadlines ----

    /// Moves a direction's deadline; `None` clears it. Moving it later only stores it: no timer is touched
    /// (except on a virtual clock).
    ///
    /// If `when` has passed, the deadline expires at once, even if there is data to read. (If the loop was held up
    /// for more than ten seconds, it may expire in a later turn.) If the old deadline had expired, operations
    /// may be tried again. On an evicted descriptor nothing changes.
    ///
    /// ```
    /// # use netpoller::reactor::{Direction, Reactor, Refusal};
    /// # fn main() -> std::io::Result<()> {
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// descriptor.set_deadline(Direction::Read, Some(std::time::Instant::now()));
    /// assert_eq!(descriptor.check(Direction::Read), Err(Refusal::TimedOut));
    /// descriptor.set_deadline(Direction::Read, None);
    /// assert_eq!(descriptor.check(Direction::Read), Ok(()));
    /// # reactor.close(descriptor, &mut ours)
    /// # }
    /// ```
    #[doc(alias = "poll_runtime_pollSetDeadline")]
    pub fn set_deadline(&self, direction: Direction, when: Option<Instant>) {
        match when.and_then(|when| self.core.clock.remembered(when)) {
            // No conversion, and no timer to set. (Of a closed descriptor `due` is NEVER: it
            // does not come here.)
            Some(tick) if tick >= self.due.get() => self.store_deadline(direction, tick),
            _ => self.move_deadline(direction, when),
        }
    }

    fn store_deadline(&self, direction: Direction, tick: Tick) {
        self.deadlines[direction as usize].set(tick);
        self.lower(expired_bit(direction));
        let kind = [Kind::ReadUntil, Kind::WriteUntil][direction as usize];
        let trace = &self.core.trace;
        trace.put(kind, self.token.0 as u64, tick.get());
    }

    #[inline(never)]
    fn move_deadline(&self, direction: Direction, when: Option<Instant>) {
        if self.is_closed() {
            return;
        }
        match when.map(|when| self.core.clock.tick_ahead(when)) {
            // `when` has passed: the next turn hands the waiter out, and does not block.
            Some(None) => self.expire(direction, &mut |w| self.pend(w)),
            // `when` is ahead; or it is `None`, and the deadline is cleared.
            ahead => self.store_deadline(direction, ahead.flatten().unwrap_or(NEVER)),
        }
        if self.next_deadline() < self.due.get() || self.core.clock.is_virtual() {
            self.set_timer();
        }
        self.core.wake_host();
    }

    /// A direction's deadline, rounded up to a millisecond of the reactor's clock. `None` if none is set, or it
    /// has expired.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Reactor};
    /// use std::time::{Duration, Instant};
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// let soon = Instant::now() + Duration::from_secs(9);
    /// descriptor.set_deadline(Direction::Read, Some(soon));
    /// assert!(descriptor.deadline(Direction::Read) >= Some(soon)); // rounded up
    /// assert_eq!(descriptor.deadline(Direction::Write), None);
    /// # reactor.close(descriptor, &mut ours)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn deadline(&self, direction: Direction) -> Option<Instant> {
        let when = self.deadlines[direction as usize].get();
        (when != NEVER).then(|| self.core.clock.instant_of(when))
    }

    /// When its timer fires. No deadline is before that, but both may be later.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = self.due.get();
        (due != NEVER).then(|| self.core.clock.instant_of(due))
    }

    /// Marks the direction as expired, until its deadline is moved. Hands out its waiter, and all that waits
    /// in no slot: see `HandOutOthers`. They learn of the timeout from `may_try`.
    fn expire(&self, direction: Direction, out: &mut impl FnMut(W) -> u64) {
        self.deadlines[direction as usize].set(NEVER);
        self.raise(expired_bit(direction));
        self.hand_out(Kind::Expired, Readiness(1 << direction as u8), out);
        self.hand_out_others(out);
    }

    /// Makes `w` pending: the next turn hands it out. Returns its number in the trace.
    fn pend(&self, w: W) -> u64 {
        let number = self.core.trace.number(&w);
        self.core.pending.borrow_mut().push(w);
        number
    }

    /// The sooner deadline, or `NEVER` if neither is set.
    fn next_deadline(&self) -> Tick {
        self.deadlines[0].get().min(self.deadlines[1].get())
    }

    /// Sets the timer to the sooner deadline. If there is none, there is no timer.
    fn set_timer(&self) {
        let next = self.next_deadline();
        let mut timers = self.core.deadlines.borrow_mut();
        if self.due.replace(next) != NEVER {
            timers.cancel_at(self.timer.get());
        }
        if next != NEVER {
            let key = timers.insert(next, self.token.key());
            self.timer.set(key.index);
        }
    }

    /// The timer has fired. Expires each deadline up to `limit`, sets the timer to the next one, and
    /// returns how many have expired.
    pub(super) fn netpolldeadlineimpl(&self, limit: Tick, out: &mut impl FnMut(W) -> u64) -> usize {
        let mut expired = 0;
        for direction in Direction::BOTH {
            // A cleared deadline is NEVER, which is after each `limit`.
            if self.deadlines[direction as usize].get() <= limit {
                self.expire(direction, out);
                expired += 1;
            }
        }
        debug_assert!(expired == 0 || self.next_deadline() > limit);
        // `Timers` has freed the index, and may have given it to another descriptor's timer. So forget it
        // before `set_timer`.
        self.due.set(NEVER);
        self.set_timer();
        expired
    }

    // ---- the end ----

    /// Closes the descriptor for parking, for ever: the next turn, which does not block, hands out
    /// what is parked, and every later [`park`](PollDesc::park) and [`check`](PollDesc::check) says
    /// closed.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Park, Reactor};
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// assert_eq!(descriptor.park(Direction::Read, "reader"), Park::Parked);
    /// descriptor.evict();
    /// let mut ready = Vec::new();
    /// reactor.turn(None, &mut ready)?; // does not block
    /// assert_eq!(ready, ["reader"]);
    /// # reactor.close(descriptor, &mut ours)?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "poll_runtime_pollUnblock")]
    pub fn evict(&self) {
        self.raise(CLOSED);
        self.deadlines.iter().for_each(|when| when.set(NEVER));
        self.set_timer();
        self.hand_out(Kind::Closed, Readiness::BOTH, &mut |w| self.pend(w));
        self.core.wake_host();
    }

    /// Asks the selector again for the directions that are not ready. Call it after `WouldBlock` and
    /// [`drained`](PollDesc::drained), if the source does not arm itself (mio's sources do). Where the
    /// selector reports edges, and on a closed descriptor, it does nothing.
    ///
    /// ```
    /// # use netpoller::reactor::{Direction, Park, Reactor};
    /// # use std::io::{Read, Write};
    /// # use std::os::fd::AsRawFd;
    /// # fn main() -> std::io::Result<()> {
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
    /// ours.set_nonblocking(true)?;
    /// let fd = ours.as_raw_fd();
    /// let mut source = mio::unix::SourceFd(&fd);
    /// let descriptor = reactor.open(&mut source)?;
    /// assert!(ours.read(&mut [0; 8]).is_err());
    /// descriptor.drained(Direction::Read);
    /// descriptor.rearm(&mut source)?;
    /// assert_eq!(descriptor.park(Direction::Read, "the reader"), Park::Parked);
    ///
    /// theirs.write_all(b"hello")?;
    /// let mut ready = Vec::new();
    /// while ready.is_empty() {
    ///     reactor.turn(None, &mut ready)?;
    /// }
    /// # reactor.close(descriptor, &mut source)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The selector's. After an error no readiness is reported.
    pub fn rearm(&self, source: &mut dyn Source) -> io::Result<()> {
        if self.core.traits.edges || self.is_closed() {
            return Ok(());
        }
        let wanted = Readiness(!self.flags.get() as u8 & Readiness::BOTH.0);
        let mut selector = self.core.selector.borrow_mut();
        selector.rearm(source, self.token, wanted)
    }

    /// Evicts, and takes the source out of the registry and the selector. It is not enough to close the file
    /// descriptor: if it has a duplicate, epoll keeps the registration and reports further events.
    pub(crate) fn close(&self, source: &mut dyn Source) -> io::Result<()> {
        // In a child of fork the registration is its parent's.
        match self.unregister() && !self.core.is_inherited() {
            true => self.core.selector.borrow_mut().close(source),
            false => Ok(()),
        }
    }

    /// Frees the key, and evicts. Returns false, and does nothing, if the descriptor is no longer in the
    /// registry: it was closed before, or the reactor is gone.
    fn unregister(&self) -> bool {
        let mut registry = self.core.registry.borrow_mut();
        match registry.get(self.token.key()) {
            // Not the last reference: `self` is that of a handle.
            Some(desc) if desc.token == self.token => drop(registry.remove(self.token.key())),
            _ => return false,
        }
        drop(registry);
        self.evict();
        log::trace!("close {:?}", self.token);
        true
    }
}

/// A W that is lent to a closure. Its drop, also by a panic, puts the W back into the slot.
struct Shown<'a, W>(&'a Cell<Option<W>>, Option<W>);

impl<W> Drop for Shown<'_, W> {
    fn drop(&mut self) {
        self.0.set(self.1.take());
    }
}

/// A handle of one registered source: see [`PollDesc`], which it derefs to.
///
/// Clones are the same descriptor. It is not `Send`: it belongs to its reactor's thread. When the last clone
/// is dropped, the reactor forgets the descriptor and drops its events. Close the source by
/// [`Reactor::close`](super::Reactor::close): otherwise the selector forgets it only when its last duplicate
/// is closed.
///
/// ```
/// use netpoller::reactor::{Direction, Park, Reactor, Refusal};
/// use std::time::Instant;
///
/// # fn main() -> std::io::Result<()> {
/// let reactor: Reactor<&str> = Reactor::new()?;
/// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
/// let descriptor = reactor.open(&mut ours)?;
/// descriptor.set_deadline(Direction::Read, Some(Instant::now()));
/// assert_eq!(descriptor.check(Direction::Read), Err(Refusal::TimedOut));
/// assert_eq!(descriptor.park(Direction::Read, "reader"), Park::TimedOut("reader"));
/// // The other direction has no deadline.
/// assert_eq!(descriptor.check(Direction::Write), Ok(()));
/// reactor.close(descriptor, &mut ours)
/// # }
/// ```
pub struct Descriptor<W, T = ()>(pub(super) Rc<PollDesc<W, T>>);

impl<W, T> Descriptor<W, T> {
    /// Whether it is the last handle of a socket. The registry has one more, unless the socket is closed.
    pub(crate) fn is_last(&self) -> bool {
        Rc::strong_count(&self.0) <= if self.is_closed() { 1 } else { 2 }
    }
}

impl<W, T> Deref for Descriptor<W, T> {
    type Target = PollDesc<W, T>;

    fn deref(&self) -> &PollDesc<W, T> {
        &self.0
    }
}

impl<W, T> Clone for Descriptor<W, T> {
    fn clone(&self) -> Self {
        Descriptor(self.0.clone())
    }
}

impl<W, T> Drop for Descriptor<W, T> {
    fn drop(&mut self) {
        // One for us and one for the registry, unless the descriptor is not there any more.
        if Rc::strong_count(&self.0) <= 2 {
            self.0.unregister();
        }
    }
}

impl<W, T> fmt::Debug for PollDesc<W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollDesc")
            .field("token", &self.token)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl<W, T> fmt::Debug for Descriptor<W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
pub(super) mod tests;
