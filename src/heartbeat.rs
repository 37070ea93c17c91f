//! A heartbeat: some bytes after each quiet interval, so that a silent peer knows that this side lives.
//!
//! See [`Heartbeat`] for an example.

// Mirrors the `Pinger` of "Network Programming with Go": there a goroutine, a timer and a channel for
// resets; here a task with a `Sleep`, which a reset moves. It writes only through the trait of futures-io.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_io::AsyncWrite;

use crate::runtime::{self, JoinHandle};
use crate::time::{self, Sleep};

/// What is sent, unless the builder was given something else.
const PAYLOAD: &[u8] = b"ping";

/// Sends `ping` after each quiet interval, from a task of its own, until it is dropped.
///
/// Traffic makes pings unnecessary: call [`reset`](Heartbeat::reset) on every message. The heartbeat
/// keeps a handle of the stream, so the stream stays open until the heartbeat is dropped or another
/// handle closes it. When a write fails the heartbeat ends: see
/// [`is_finished`](Heartbeat::is_finished). If a RST of the peer made it fail, your next read may find a
/// clean end, since the system reports a RST once.
///
/// It is not `Send`: its task runs on this thread.
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
/// # Whole pings
///
/// On streams of this crate a ping waits until a `write_all` under way has ended.
/// There are two limits. A payload that the socket does not take at once is written in parts, and
/// another write may come between them. And a ping is written through futures-io's `AsyncWrite`: a
/// stream wakes only the last task that polls it so. Beside a heartbeat, write by the stream's own methods and
/// not through that trait.
#[must_use = "a heartbeat stops when it is dropped"]
#[doc(alias = "Pinger")]
pub struct Heartbeat {
    beat: Rc<Beat>,
    task: JoinHandle<()>,
}

/// What a heartbeat and its task share.
struct Beat {
    interval: Cell<Duration>,
    /// Ends when the next ping is due. It is borrowed only to poll or reset it, which runs no code of the
    /// user.
    sleep: RefCell<Sleep>,
}

impl Heartbeat {
    /// The interval if none is asked for.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

    /// Starts one that sends `ping` on a clone of `stream`. An interval of zero, or `None`, is 30 s.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
    /// use netpoller::{Heartbeat, UnixStream};
    /// use std::time::Duration;
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let _heartbeat = Heartbeat::start(&ours, Duration::from_secs(20));
    /// let mut ping = [0; 4];
    /// theirs.read_exact(&mut ping).await?;
    /// assert_eq!(&ping, b"ping");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn start(
        stream: &(impl AsyncWrite + Clone + Unpin + 'static),
        interval: impl Into<Option<Duration>>,
    ) -> Heartbeat {
        Heartbeat::builder().interval(interval).start(stream)
    }

    /// One with another payload.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Heartbeat, Runtime, UnixStream};
    /// # use std::time::Duration;
    /// # Runtime::builder().virtual_clock().build()?.block_on(async {
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let beat = Heartbeat::builder().payload(b"\n".as_slice()).interval(Duration::from_secs(9));
    /// let _beat = beat.start(&ours);
    /// let mut line = [0];
    /// theirs.read_exact(&mut line).await?;
    /// assert_eq!(&line, b"\n");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn builder() -> HeartbeatBuilder {
        HeartbeatBuilder {
            payload: Cow::Borrowed(PAYLOAD),
            interval: Heartbeat::DEFAULT_INTERVAL,
        }
    }

    /// Puts the next ping off until an interval from now: a new interval, or the last one for `None`
    /// and zero. "Now" is a fresh reading of the clock. Putting off wakes nothing.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
    /// use netpoller::{Heartbeat, UnixStream, time};
    /// use std::time::Duration;
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let heartbeat = Heartbeat::start(&ours, Duration::from_secs(20));
    /// let begin = time::now();
    /// time::sleep(Duration::from_secs(15)).await;
    /// heartbeat.reset(None); // a message came
    /// theirs.read_exact(&mut [0; 4]).await?;
    /// assert!(time::now() - begin >= Duration::from_secs(35));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn reset(&self, interval: Option<Duration>) {
        if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
            self.beat.interval.set(interval);
        }
        self.beat.put_off();
    }

    /// Whether it has ended, because a write failed.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
    /// use netpoller::{Heartbeat, UnixStream, time};
    /// use std::time::Duration;
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let heartbeat = Heartbeat::start(&ours, Duration::from_secs(20));
    /// theirs.close()?;
    /// time::sleep(Duration::from_secs(60)).await; // a ping fails
    /// assert!(heartbeat.is_finished());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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

/// Settings of a [`Heartbeat`]: see [`Heartbeat::builder`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// use netpoller::{Heartbeat, UnixStream};
/// use std::time::Duration;
///
/// let (ours, theirs) = UnixStream::pair()?;
/// let settings = Heartbeat::builder().payload(&b"\n"[..]).interval(Duration::from_secs(30));
/// let _beat = settings.start(&ours);
/// let mut byte = [0];
/// theirs.read_exact(&mut byte).await?;
/// assert_eq!(&byte, b"\n");
/// # Ok(())
/// # })
/// # }
/// ```
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

    /// The time from the start, the last ping or the last [`Heartbeat::reset`] to the next ping. Zero, or
    /// `None`, is 30 s.
    #[must_use]
    pub fn interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into().filter(|interval| !interval.is_zero());
        self.interval = interval.unwrap_or(Heartbeat::DEFAULT_INTERVAL);
        self
    }

    /// Starts it, on a clone of `stream`.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn start(self, stream: &(impl AsyncWrite + Clone + Unpin + 'static)) -> Heartbeat {
        let due = time::after(time::now(), self.interval);
        let beat = Rc::new(Beat {
            interval: Cell::new(self.interval),
            sleep: RefCell::new(Sleep::judging_a_peer(due)),
        });
        let (writer, theirs) = (stream.clone(), beat.clone());
        let task = runtime::spawn(async move {
            if let Err(error) = theirs.run(writer, &self.payload).await {
                log::debug!("a heartbeat ends: {error}");
            }
        });
        Heartbeat { beat, task }
    }
}

impl Beat {
    fn put_off(&self) {
        let due = time::after(time::now(), self.interval.get());
        self.sleep.borrow_mut().reset(due);
    }

    /// The task. It ends only by an error.
    async fn run(&self, mut writer: impl AsyncWrite + Unpin, payload: &[u8]) -> io::Result<()> {
        loop {
            poll_fn(|cx| Pin::new(&mut *self.sleep.borrow_mut()).poll(cx)).await;
            write_all(&mut writer, payload).await?;
            self.put_off();
        }
    }
}

/// Writes all bytes, and what a writer with a buffer has kept back.
async fn write_all(writer: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *writer).poll_write(cx, bytes));
        match written.await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    poll_fn(|cx| Pin::new(&mut *writer).poll_flush(cx)).await
}
