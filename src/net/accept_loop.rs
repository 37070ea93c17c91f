//! The one accept loop, for tasks and servers: it waits out shortages, and keeps to a limit of
//! connections. [`Serve`] runs a task for each connection.
//!
//! ```text
//!   accept, with a permit ──► `take` has the connection
//!        ▲  │ no permit, or a shortage
//!        │  ▼
//!   wait for a permit, or for the back-off         (ends when the listener closes or times out)
//! ```
//!
//! Dropping the loop's future loses no connection and no permit. To end the loop, drop it: a server
//! uses `select`.
// Mirrors the loop of `Server.Serve` in Go's `net/http/server.go`.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::addr::Kind;
use super::error::{NetError, OpError};
use super::fd::{Fd, Name};
use super::listener::{self, Accepted, Listener};
use super::permits::{Permit, Permits};
use super::stream::Stream;
use crate::endpoints::End;
use crate::reactor::Direction;
use crate::runtime::context;
use crate::runtime::dump::{Entry, Value};
use crate::runtime::look::{Note, Noted, noted, until};
use crate::runtime::sync::Counter;
use crate::runtime::waiters::UntilClosed;
use crate::runtime::{Either, select, spawn};
use crate::time;

/// The first and the longest wait after an accept that found the system short: net/http's.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A shortage is over when no accept has failed for this time. So each shortage logs one warning when it
/// begins, even if a connection is accepted now and then, and one when accepting goes on.
const QUIET: Duration = Duration::from_secs(5);

/// No limit of accepts: the loop ends when the listener is closed on our side.
pub(crate) const ALL: Option<u32> = None;

/// Accepts until the queue is empty, in at most this many calls: without a limit, clients that keep coming
/// could keep the loop busy for ever. The number is above the default limit of a queue.
pub(crate) const QUEUED: Option<u32> = Some(1 << 16);

/// Why an accept failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The process or the system has no descriptor left.
    NoDescriptor,
    NoMemory,
    /// The peer gave up before it was accepted.
    Aborted,
    Otherwise,
}

impl Failed {
    pub(crate) fn by(error: &io::Error) -> Self {
        match number(error) {
            Some(libc::EMFILE | libc::ENFILE) => Failed::NoDescriptor,
            Some(libc::ENOMEM | libc::ENOBUFS) => Failed::NoMemory,
            _ => Failed::Otherwise,
        }
    }
}

/// Failures within [`QUIET`] of each other are one shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// With this failure.
    Begins,
    GoesOn,
    /// One peer has given up.
    None,
}

/// The system's number of an error, with or without the operation that failed.
fn number(error: &io::Error) -> Option<i32> {
    let of_operation = error.op_error().and_then(OpError::raw_os_error);
    of_operation.or_else(|| error.raw_os_error())
}

/// Accepts, with a permit for each connection, and gives both to `take`. An error of `take` counts as
/// one of accepting: the loop goes on if it `may_pass`, and ends if not. `failed` is called for each
/// failure after which the loop goes on.
///
/// # Errors
///
/// An error after which trying again does not help; a timeout, if the listener's deadline passes.
///
/// # Cancel safety
///
/// Dropping it loses no connection and no permit.
pub(crate) async fn accept_each(
    listener: &Fd,
    permits: &Arc<Permits>,
    mut tries: Option<u32>,
    failed: impl Fn(Failed, Shortage),
    mut take: impl FnMut(Accepted, Permit) -> io::Result<()>,
) -> io::Result<()> {
    let mut backoff = Backoff::default();
    // While accepting pauses: since when, until when, and why.
    let pause = Rc::new(RefCell::new(None));
    let (mut row, of, shown) = (Entry::default(), permits.clone(), pause.clone());
    listener.socket().look(&mut row);
    let _note = Note::new(Noted::Listener(Box::new(move |now| {
        look(row.clone(), &shown.borrow(), of.figures(), now)
    })));
    loop {
        let taken = match next(listener, permits, &mut tries, &failed).await {
            Ok(Some((accepted, permit))) => {
                log::debug!("{}: accepted", accepted.peer);
                take(accepted, permit).map_err(|error| listener::failed(listener, error))
            }
            Ok(None) => return Ok(()),
            Err(error) => Err(error),
        };
        let error = match taken {
            Ok(()) => {
                if let Some(pause) = backoff.accepted(time::now) {
                    let (net, at) = (listener.network().name(), listener.endpoint(End::Local));
                    let at = at.map_or_else(String::new, |at| format!(" {at}"));
                    log::warn!("accepting on {net}{at} goes on after {pause:?}");
                }
                continue;
            }
            Err(error) if error.is_closed() => return Ok(()),
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => error,
        };
        let now = time::now();
        let (wait, shortage) = backoff.failed(now);
        let before = pause.replace(Some((now, now + wait, error.to_string())));
        debug_assert!(before.is_none(), "a pause within a pause");
        match shortage {
            Shortage::Begins => log::warn!("{error}; accepting pauses"),
            _ => log::debug!("{error}; trying again after {wait:?}"),
        }
        failed(Failed::by(&error), shortage);
        // Until one of our own descriptors is closed, but no longer than the back-off. No close is
        // missed: nothing runs between the failure and the first poll. The next accept finds out why the wait ended.
        let room = time::timeout(wait, noted("descriptor", UntilClosed::default()));
        select(room, ended(listener)).await;
        // A close may have ended it early.
        *pause.borrow_mut() = None;
    }
}

/// The next connection, with its permit. With `tries`, accepts only queued connections, in at most that many
/// calls. `None` when no more is queued, or the calls are used up.
async fn next(
    listener: &Fd,
    permits: &Arc<Permits>,
    tries: &mut Option<u32>,
    failed: &impl Fn(Failed, Shortage),
) -> io::Result<Option<(Accepted, Permit)>> {
    loop {
        match tries {
            None => {
                let ready = listener.op(Direction::Read, |_| Ok(()));
                ready.named(Name::Accept).await?
            }
            Some(0) => return Ok(None),
            // It does not wait for readiness: a connection may be queued of which no event has told yet.
            Some(left) => {
                *left -= 1;
                context::yield_once().await;
            }
        }
        // The permit is taken when a connection may be there, and given back if there is none.
        let permit = match select(noted("permit", permits.take()), ended(listener)).await {
            Either::First(permit) => permit,
            Either::Second(ended) => return ended.map(|()| None),
        };
        match listener::accept_now(listener) {
            Ok(Some(accepted)) => return Ok(Some((accepted, permit))),
            Ok(None) => failed(Failed::Aborted, Shortage::None),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if tries.is_some() => return Ok(None),
            Err(_nothing_there) => {}
        }
    }
}

/// Waits until the listener is closed or shut down, or its deadline passes: no listener is ever writable.
async fn ended(listener: &Fd) -> io::Result<()> {
    let never = listener.op(Direction::Write, |fd| match fd.desc.is_hung_up() {
        // What accept(2) says. With poll(2) a wait would end at once, again and again.
        true => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        false => Err(io::ErrorKind::WouldBlock.into()),
    });
    never.named(Name::Accept).await
}

/// An accept loop, as a dump shows it.
fn look(
    mut row: Entry,
    pause: &Option<(Instant, Instant, String)>,
    [free, waiting]: [usize; 2],
    now: Instant,
) -> Entry {
    match pause {
        Some((from, end, why)) if now < *end => row
            .put("status", Value::text("paused"))
            .put("for_seconds", Value::Time(now - *from))
            .put("left_seconds", until(Some(*end), now))
            .put("why", Value::shown(why)),
        _ => row.put("status", Value::text("accepting")),
    };
    // Without a limit there is no figure.
    let free = (free < usize::MAX / 2).then_some(Value::Number(free));
    row.put("permits_free", free)
        .put("permits_awaited", Value::Number(waiting));
    row
}

// ---- shortages ----

/// The errors of a descriptor that is no listener, or is broken. Any other is a shortage, or an error of
/// one connection, which Linux returns from accept(2); EPERM is a firewall's answer.
const FATAL: [i32; 5] = [
    libc::EBADF,
    libc::EFAULT,
    libc::EINVAL,
    libc::EIO,
    libc::ENOTSOCK,
];

/// Whether an accept failed for want of something, or by one connection's fault, so that the next
/// may succeed. An error without a number is not the system's: a timeout of ours is `is_temporary` too,
/// but it ends the loop.
fn may_pass(error: &io::Error) -> bool {
    number(error).is_some_and(|number| !FATAL.contains(&number))
}

/// How long accepting pauses after a failure: 5 ms, then twice as long each time, up to a second.
#[derive(Debug, Default)]
struct Backoff {
    /// The last wait; zero after an accept that succeeded.
    wait: Duration,
    /// The last failure.
    failed: Option<Instant>,
    /// When the pause that still lasts began. `None` if no warning has told of it.
    announced: Option<Instant>,
}

impl Backoff {
    /// An accept failed: how long to wait, and whether a shortage begins, of which a warning is logged.
    fn failed(&mut self, now: Instant) -> (Duration, Shortage) {
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        let last = self.failed.replace(now);
        if last.is_some_and(|last| now.saturating_duration_since(last) <= QUIET) {
            return (self.wait, Shortage::GoesOn);
        }
        self.announced = Some(now);
        (self.wait, Shortage::Begins)
    }

    /// An accept succeeded: how long accepting has paused, if a warning told of the pause.
    fn accepted(&mut self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        self.wait = Duration::ZERO;
        let paused = self.announced.take()?;
        debug_assert!(self.failed >= Some(paused), "a pause begins with a failure");
        Some(now().saturating_duration_since(paused))
    }
}

// ---- with tasks ----
//
// Mirrors `http.Serve`.

impl<K: Kind> Listener<K> {
    /// Accepts until the listener is closed, and runs `handler` for each connection, in a task of
    /// its own: [`Serve`] with its defaults.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{TcpListener, TcpStream, net, spawn};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let serving = spawn(listener.serve(async |stream, _| net::copy(&stream, &stream).await));
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// client.write_all(b"hello").await?;
    /// assert_eq!(client.read(&mut [0; 8]).await?, 5);
    /// listener.close()?;
    /// serving.await.unwrap()?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Serve::run`].
    pub fn serve<H: FnMut(Stream<K>, K::Addr) -> F, F: Future<Output: 'static> + 'static>(
        &self,
        handler: H,
    ) -> impl Future<Output = io::Result<()>> + use<K, H, F> {
        Serve::new(self.clone()).run(handler)
    }
}

/// Accepts until its listener is closed, and runs a task for each connection.
///
/// After an error that may pass, such as a shortage of descriptors or memory, accepting neither ends nor
/// spins: it pauses, 5 ms at first and twice as long each time, up to a second, and goes on early
/// when a socket of this thread is closed. For each shortage one warning is logged when accepting pauses,
/// with the reason, and one when it goes on; at debug each accepted connection has a line with its peer.
///
/// It is not `Send`, because its listener is not.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream, net, net::Serve};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let serve = Serve::new(listener.clone()).max_connections(1000);
/// let counters = serve.counters();
/// let serving = netpoller::spawn(serve.run(async |stream: TcpStream, _peer| {
///     net::copy(&stream, &stream).await
/// }));
///
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// client.write_all(b"hello").await?;
/// assert_eq!(client.read_with(|bytes| bytes.to_vec()).await?, b"hello");
/// assert_eq!((counters.accepted(), counters.live()), (1, 1));
///
/// listener.close()?;
/// serving.await.unwrap()
/// # })
/// # }
/// ```
#[must_use]
#[derive(Debug)]
pub struct Serve<K> {
    listener: Listener<K>,
    counters: ServeCounters,
    max: usize,
}

impl<K: Kind> Serve<K> {
    /// Serves a listener: give it a clone, to keep the handle that closes it.
    pub fn new(listener: Listener<K>) -> Self {
        Serve {
            listener,
            counters: ServeCounters::default(),
            max: usize::MAX,
        }
    }

    /// At most `max` connections at once; without a limit by default. While there are so many, the
    /// next is not accepted: it waits in the system's backlog until one has ended, with its task.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Serve, TcpListener, TcpStream, spawn};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let serve = Serve::new(listener.clone()).max_connections(1);
    /// let counters = serve.counters();
    /// let _serving = spawn(serve.run(async |stream: TcpStream, _| stream.read(&mut [0]).await));
    /// let one = TcpStream::connect(listener.local_addr()?).await?;
    /// let two = TcpStream::connect(listener.local_addr()?).await?; // waits in the backlog
    /// one.close()?;
    /// two.close_write()?;
    /// assert_eq!(two.read(&mut [0]).await?, 0); // its turn came, and has passed
    /// assert_eq!(counters.accepted(), 2);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If it is zero: nothing would ever be served.
    pub fn max_connections(mut self, max: usize) -> Self {
        assert!(
            max > 0,
            "netpoller: a server of zero connections would never serve"
        );
        self.max = max;
        self
    }

    /// What it has done and does, to be read while it runs.
    pub fn counters(&self) -> ServeCounters {
        self.counters.clone()
    }

    /// Serves until the listener is closed. What the handler's future returns is dropped; if it
    /// panics, that is logged, and the others go on.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{NetError, Serve, TcpListener, TcpStream, time};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// listener.set_deadline(Some(time::now()))?;
    /// let served = Serve::new(listener).run(async |_: TcpStream, peer| println!("{peer}")).await;
    /// assert!(served.unwrap_err().is_timeout());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A timeout, if the listener has a deadline and it passed; the system's, where trying again
    /// does not help.
    ///
    /// # Panics
    ///
    /// Outside a runtime; and if `handler` panics before it has returned its future.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the accepting, and leaves the connections running.
    pub async fn run<F: Future<Output: 'static> + 'static>(
        self,
        mut handler: impl FnMut(Stream<K>, K::Addr) -> F,
    ) -> io::Result<()> {
        let counts = &self.counters.0;
        let failed = |_, shortage| {
            counts.refused.add(u64::from(shortage != Shortage::None));
            counts.episodes.add(u64::from(shortage == Shortage::Begins));
        };
        let take = |accepted, permit| {
            let (stream, peer) = self.listener.open(accepted)?;
            counts.accepted.add(1);
            let live = counts.live.clone();
            let handled = handler(stream, peer);
            spawn(async move {
                // Both go with the task, however it ends.
                let (_permit, _live) = (permit, live);
                handled.await
            });
            Ok(())
        };
        let permits = Arc::new(Permits::new(self.max));
        accept_each(&self.listener.fd, &permits, ALL, failed, take).await
    }
}

#[derive(Debug, Default)]
struct ServeCounts {
    accepted: Counter,
    /// Each task of a connection has a clone.
    live: Rc<()>,
    refused: Counter,
    episodes: Counter,
}

/// The counters of a [`Serve`]: what it has done, and what it serves now.
///
/// They are not `Send`, because they share their memory with the tasks of that thread without a lock.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{Serve, TcpListener};
///
/// let serve = Serve::new(TcpListener::bind("127.0.0.1:0").await?);
/// let counters = serve.counters();
/// assert_eq!((counters.accepted(), counters.live(), counters.refused()), (0, 0, 0));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServeCounters(Rc<ServeCounts>);

impl ServeCounters {
    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.get()
    }

    /// Connections being served.
    pub fn live(&self) -> usize {
        Rc::strong_count(&self.0.live) - 1
    }

    /// Accepts that failed. A connection that its peer aborted does not count.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Shortages: failures within 5 s of each other count as one.
    pub fn episodes(&self) -> u64 {
        self.0.episodes.get()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::{Duration, Instant};

    use super::{Backoff, Failed, Shortage, may_pass};
    use crate::net::error::{Cause, OpError};

    #[test]
    fn the_wait_is_5_ms_doubling_to_a_second_and_5_ms_again_after_a_success() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let mut waits = |times| -> Vec<_> {
            let wait = |_| backoff.failed(now).0.as_millis();
            let waits = (0..times).map(wait).collect();
            backoff.accepted(|| now);
            waits
        };
        assert_eq!(waits(10), [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(waits(1), [5]);
    }

    #[test]
    fn of_pauses_in_quick_succession_the_first_alone_is_announced() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(backoff.failed(at(0)).1, Shortage::Begins);
        for second in 1..=60 {
            assert_eq!(backoff.failed(at(second)).1, Shortage::GoesOn);
        }
        assert_eq!(backoff.accepted(|| at(61)), Some(Duration::from_secs(61)));
        assert_eq!(backoff.accepted(|| at(61)), None);

        assert_eq!(backoff.failed(at(70)).1, Shortage::Begins);
        assert!(backoff.accepted(|| at(71)).is_some());
        for second in [72, 75, 80, 85] {
            assert_eq!(backoff.failed(at(second)).1, Shortage::GoesOn);
            assert_eq!(backoff.accepted(|| at(second)), None);
        }
        assert_eq!(backoff.failed(at(91)).1, Shortage::Begins);
    }

    #[test]
    fn a_shortage_and_one_connection_s_network_error_pass_and_others_do_not() {
        let failed = |cause| OpError::new("accept", "tcp", None, cause).into();
        let by_system = |number| Cause::by("accept")(io::Error::from_raw_os_error(number));
        let passes = |number| may_pass(&failed(by_system(number)));
        let short = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::ENOSPC,
        ];
        let network = [
            libc::EPROTO,
            libc::ENETDOWN,
            libc::EHOSTUNREACH,
            libc::EPERM,
        ];
        assert!(short.into_iter().chain(network).all(passes));
        // The connection's, and not a deadline of ours.
        assert!(passes(libc::ETIMEDOUT));
        let kind = |number| Failed::by(&failed(by_system(number)));
        // Of what is handed over, the error comes without an operation.
        let bare = io::Error::from_raw_os_error(libc::ENOMEM);
        assert_eq!(Failed::by(&bare), Failed::NoMemory);
        assert_eq!(
            short.map(kind),
            [
                Failed::NoDescriptor,
                Failed::NoDescriptor,
                Failed::NoMemory,
                Failed::NoMemory,
                Failed::Otherwise,
            ]
        );
        assert!(!passes(libc::EINVAL) && !passes(libc::EBADF));
        assert!(!may_pass(&failed(Cause::Timeout)));
    }
}
