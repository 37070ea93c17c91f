//! A heartbeat: so many bytes each interval, unless traffic says that we live.
//!
//! May touch: the runtime, time. Knows writers by futures-io's trait alone, not our sockets.
//! Mirrors the `Pinger` of "Network Programming with Go": there a goroutine with a timer and a
//! channel for its resets; here a task with a sleep and a cell.
//!
//! | state | meaning | who moves it there | on to |
//! |---|---|---|---|
//! | Asleep | it waits for `due`, wherever that has been moved to | the start; a ping's end | Sending, when it is due |
//! | Sending(n) | n bytes of the payload have gone | the time; a short write | Flushing with the last byte; the end by an error |
//! | Flushing | what a writer with a buffer kept back goes out | the last byte | Asleep; the end by an error |
//!
//! A reset is a store: the task finds the new time when the old one comes. Only one that makes the
//! next ping earlier than the task sleeps for has to wake it.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_io::AsyncWrite;

use crate::runtime::{self, JoinHandle};
use crate::time::{self, Sleep};

/// What is sent where nothing else was asked for.
const PAYLOAD: &[u8] = b"ping";

/// Sends `ping` at each interval, from a task of its own, until it is dropped.
///
/// Traffic makes pings unnecessary: call [`reset`](Heartbeat::reset) on every message. It has a
/// handle of the stream, which so stays open until the heartbeat is dropped, or somebody closes
/// it. When a write fails, the heartbeat ends; whoever reads or writes will learn the same.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{Heartbeat, Runtime, TcpListener, TcpStream, time};
/// use std::time::Duration;
/// let runtime = Runtime::builder().virtual_clock().build()?;
/// runtime.block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let client = TcpStream::connect(listener.local_addr()?).await?;
///     let (server, _) = listener.accept().await?;
///
///     let heartbeat = Heartbeat::start(&server, Duration::from_secs(1));
///     let start = time::now();
///     let mut ping = [0; 4];
///     client.read_exact(&mut ping).await?;
///     assert_eq!((&ping, (time::now() - start).as_secs()), (b"ping", 1));
///
///     heartbeat.reset(Some(Duration::from_secs(3)));
///     client.read_exact(&mut ping).await?;
///     assert_eq!((time::now() - start).as_secs(), 4);
///     # Ok(())
/// })
/// # }
/// ```
///
/// On streams of ours, a ping waits for a `write_all` that is under way, and none comes into the
/// middle of it. A payload that the socket does not take at once has no such protection: between
/// its parts others may write. And it is written through futures-io's `AsyncWrite`, of which a
/// stream wakes the last poller alone: beside a heartbeat, write by the stream's own methods, not by
/// that trait.
#[must_use = "a heartbeat stops when it is dropped"]
pub struct Heartbeat {
    beat: Rc<Beat>,
    task: JoinHandle<()>,
}

/// What a heartbeat and its task share.
struct Beat {
    interval: Cell<Duration>,
    due: Cell<Instant>,
    /// What the task's sleep is set to.
    asleep_until: Cell<Instant>,
    /// The task's.
    waker: RefCell<Option<Waker>>,
}

impl Heartbeat {
    /// The interval if none is asked for.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

    /// Starts one with `ping` as its payload. An interval of zero is 30 s.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn start<S>(stream: &S, interval: Duration) -> Heartbeat
    where
        S: AsyncWrite + Clone + Unpin + 'static,
    {
        Heartbeat::builder().interval(interval).start(stream)
    }

    /// One with another payload.
    pub fn builder() -> HeartbeatBuilder {
        HeartbeatBuilder {
            payload: Cow::Borrowed(PAYLOAD),
            interval: Duration::ZERO,
        }
    }

    /// Puts the next ping off until an interval from now: a new one, or the last one for `None`
    /// and zero. Now is the loop's time, and putting off costs a store.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[inline]
    pub fn reset(&self, interval: Option<Duration>) {
        if let Some(interval) = interval
            && !interval.is_zero()
        {
            self.beat.interval.set(interval);
        }
        let due = time::after(time::now(), self.beat.interval.get());
        self.beat.due.set(due);
        if due < self.beat.asleep_until.get() {
            self.beat.wake();
        }
    }

    /// Whether it has ended because a write failed.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat")
            .field("interval", &self.beat.interval.get())
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// Settings of a [`Heartbeat`].
#[derive(Clone, Debug)]
pub struct HeartbeatBuilder {
    payload: Cow<'static, [u8]>,
    interval: Duration,
}

impl HeartbeatBuilder {
    /// What to send, in place of `ping`.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Cow<'static, [u8]>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// How long after the start, the last ping or the last [`Heartbeat::reset`] to send it; zero
    /// is 30 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Starts it, on a clone of `stream`.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn start<S>(self, stream: &S) -> Heartbeat
    where
        S: AsyncWrite + Clone + Unpin + 'static,
    {
        let interval = match self.interval {
            Duration::ZERO => Heartbeat::DEFAULT_INTERVAL,
            interval => interval,
        };
        let sleep = time::sleep(interval);
        let beat = Rc::new(Beat {
            interval: Cell::new(interval),
            due: Cell::new(sleep.deadline()),
            asleep_until: Cell::new(sleep.deadline()),
            waker: RefCell::new(None),
        });
        let beating = Beating {
            writer: stream.clone(),
            payload: self.payload,
            beat: beat.clone(),
            sleep,
            state: State::Asleep,
        };
        let task = runtime::spawn(async {
            if let Err(error) = beating.await {
                log::debug!("a heartbeat ends: {error}");
            }
        });
        Heartbeat { beat, task }
    }
}

impl Beat {
    #[cold]
    fn wake(&self) {
        // Once is enough, however often it is moved until the task runs.
        self.asleep_until.set(self.due.get());
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn fall_asleep(&self, until: Instant, waker: &Waker) {
        self.asleep_until.set(until);
        if self
            .waker
            .borrow()
            .as_ref()
            .is_some_and(|kept| kept.will_wake(waker))
        {
            return;
        }
        let old = self.waker.replace(Some(waker.clone()));
        drop(old);
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Asleep,
    Sending(usize),
    Flushing,
}

/// The task. It ends only by an error.
struct Beating<S> {
    writer: S,
    payload: Cow<'static, [u8]>,
    beat: Rc<Beat>,
    sleep: Sleep,
    state: State,
}

impl<S: AsyncWrite + Unpin> Future for Beating<S> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.state = match this.state {
                State::Asleep => {
                    ready!(this.poll_sleep(cx));
                    State::Sending(0)
                }
                State::Sending(gone) if gone == this.payload.len() => State::Flushing,
                State::Sending(gone) => {
                    let rest = &this.payload[gone..];
                    match ready!(Pin::new(&mut this.writer).poll_write(cx, rest))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        more => State::Sending(gone + more),
                    }
                }
                State::Flushing => {
                    ready!(Pin::new(&mut this.writer).poll_flush(cx))?;
                    let interval = this.beat.interval.get();
                    // By a fresh reading: a turn may take longer than the interval, and what is due
                    // by the loop's time would be due again at once, over and over.
                    this.beat.due.set(time::after(time::clock(), interval));
                    State::Asleep
                }
            };
        }
    }
}

impl<S> Beating<S> {
    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.beat.due.get();
        if self.sleep.deadline() != due {
            self.sleep.reset(due);
        }
        self.beat.fall_asleep(due, cx.waker());
        Pin::new(&mut self.sleep).poll(cx)
    }
}
