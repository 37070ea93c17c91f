//! A random program on the public API: up to four pairs of connected streams on one runtime with a
//! virtual clock, tasks that read and write them, and everything that ends such a task.
//!
//! The model of one direction is what its two ends may see: bytes arrive in order and once; an end
//! of file comes after all bytes of a writer that ended well; each error has a cause.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::dump::Value;
use netpoller::{JoinHandle, NetError, Runtime, TcpListener, TcpStream, spawn, time, yield_now};

use super::choices::Choices;

/// Operations of one program.
const STEPS: usize = 64;
/// Bytes that one program writes at most: the reads at its end are bounded by it.
const BYTES: usize = 8 << 20;
/// Of the virtual clock: what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(1_000_000);

/// The byte at a position of a stream.
pub fn pattern(position: usize) -> u8 {
    (position ^ (position >> 8) ^ (position >> 16)) as u8
}

/// One direction of a pair, as the model knows it.
#[derive(Default)]
struct Way {
    /// Bytes that a write may have passed to the system. Later writes begin here.
    offered: Cell<usize>,
    /// Bytes that reads have returned.
    read: Cell<usize>,
    /// A write failed or was dropped in the middle: the bytes after `offered` are not known.
    broken: Cell<bool>,
    /// The writer half-closed or closed.
    ended: Cell<bool>,
    /// A read returned the end of file.
    eof: Cell<bool>,
}

/// One end of a pair.
struct End {
    stream: TcpStream,
    /// What this end writes, and what it reads.
    out: Rc<Way>,
    incoming: Rc<Way>,
    closed: Cell<bool>,
    read_closed: Cell<bool>,
    /// The soonest deadline that was ever set, each way: a timeout before it is wrong.
    soonest: [Cell<Option<Instant>>; 2],
    /// Something happened on either end after which the system may send a reset.
    reset: Rc<Cell<bool>>,
}

impl End {
    fn check_error(&self, error: &io::Error, direction: usize, what: &str) {
        if error.is_timeout() {
            let soonest = self.soonest[direction].get();
            let soonest = soonest.expect("a timeout, though no deadline was ever set");
            assert!(
                soonest <= time::now(),
                "{what}: a timeout before its deadline"
            );
        } else if error.is_closed() {
            assert!(
                self.closed.get(),
                "{what}: closed, though nothing closed it"
            );
        } else {
            match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                    assert!(
                        self.reset.get(),
                        "{what}: {error}, though nothing was reset"
                    );
                }
                ErrorKind::BrokenPipe => {
                    let ended = self.out.ended.get() || self.reset.get();
                    assert!(ended, "{what}: {error}, though the way is open");
                }
                _ => panic!("{what}: {error}"),
            }
        }
    }

    async fn read(&self, length: usize) {
        let mut buffer = vec![0; length];
        let result = self.stream.read(&mut buffer).await;
        self.took(result, &buffer, length == 0);
    }

    fn took(&self, result: io::Result<usize>, buffer: &[u8], empty: bool) {
        match result {
            Ok(0) if empty => {}
            Ok(0) => {
                let way = &self.incoming;
                let ended = way.ended.get() || self.read_closed.get() || self.reset.get();
                assert!(ended, "an end of file, though the writer goes on");
                if !self.read_closed.get() && !self.reset.get() && !way.broken.get() {
                    assert_eq!(way.read.get(), way.offered.get(), "bytes were lost");
                }
                way.eof.set(true);
            }
            Ok(count) => {
                let way = &self.incoming;
                let from = way.read.get();
                assert!(
                    !way.eof.get() || self.read_closed.get(),
                    "bytes after the end of file"
                );
                assert!(
                    from + count <= way.offered.get(),
                    "bytes that were not written"
                );
                for (offset, &byte) in buffer[..count].iter().enumerate() {
                    assert_eq!(byte, pattern(from + offset), "at {}", from + offset);
                }
                way.read.set(from + count);
            }
            Err(error) => self.check_error(&error, 0, "read"),
        }
    }

    /// One write of the next bytes. It starts after the write before it has ended, so that the
    /// positions are known.
    async fn write(&self, length: usize) {
        if self.out.broken.get() {
            return;
        }
        let from = self.out.offered.get();
        let bytes: Vec<u8> = (from..from + length).map(pattern).collect();
        self.out.offered.set(from + length);
        // Until it has returned, how much of it went is not known.
        self.out.broken.set(true);
        match self.stream.write_all(&bytes).await {
            Ok(()) => self.out.broken.set(false),
            Err(error) => {
                self.check_error(&error, 1, "write");
                let written = error.op_error().map_or(0, |error| error.written);
                assert!(written <= length, "more was written than was given");
                // A timeout says how much went: the next write goes on there.
                if error.is_timeout() {
                    self.out.offered.set(from + written);
                    self.out.broken.set(false);
                }
            }
        }
    }
}

/// Notes a close of this end. The system then sends a reset for bytes that were not read, and for
/// those that the peer sends from now on.
fn note_close(end: &End) {
    end.reset.set(true);
    end.closed.set(true);
    end.out.ended.set(true);
}

/// A socket that is shut down both ways answers the peer's bytes with a reset.
fn note_shut_down(end: &End) {
    if end.read_closed.get() && end.out.ended.get() {
        end.reset.set(true);
    }
}

async fn pair(listener: &TcpListener) -> [Rc<End>; 2] {
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let ways = [Rc::new(Way::default()), Rc::new(Way::default())];
    let reset = Rc::new(Cell::new(false));
    let end = |stream, out: usize| {
        Rc::new(End {
            stream,
            out: ways[out].clone(),
            incoming: ways[1 - out].clone(),
            closed: Cell::new(false),
            read_closed: Cell::new(false),
            soonest: Default::default(),
            reset: reset.clone(),
        })
    };
    [end(client, 0), end(server, 1)]
}

/// A deadline: none, in the past, or so many milliseconds ahead.
fn deadline(choices: &mut Choices) -> Option<Instant> {
    let byte = choices.byte();
    match byte % 8 {
        0 => None,
        1 => time::now().checked_sub(Duration::from_secs(1)),
        _ => Some(time::now() + Duration::from_millis(u64::from(byte) * 7)),
    }
}

fn set_deadline(end: &End, directions: &[usize], when: Option<Instant>) {
    let result = match directions {
        [0] => end.stream.set_read_deadline(when),
        [1] => end.stream.set_write_deadline(when),
        _ => end.stream.set_deadline(when),
    };
    assert_eq!(
        result.is_err(),
        end.closed.get(),
        "set_deadline: {result:?}"
    );
    if let (Ok(()), Some(when)) = (result, when) {
        for &direction in directions {
            let soonest = &end.soonest[direction];
            soonest.set(Some(soonest.get().map_or(when, |before| before.min(when))));
        }
    }
}

/// Reads all figures of the runtime at any moment: they agree, and reading them changes nothing.
pub fn look(runtime: &Runtime) {
    let (stats, dump) = (runtime.stats(), runtime.dump());
    assert_eq!(runtime.stats(), stats);
    assert_eq!(runtime.handle().stats(), *stats);
    let told = dump.runtime.get("descriptors").map(Value::to_string);
    assert_eq!(told, Some(stats.descriptors.to_string()));
    let kinds = dump
        .machines
        .iter()
        .map(|entry| entry.get("kind").map(Value::to_string));
    let tasks = kinds.filter(|kind| kind.as_deref() == Some("task")).count();
    assert_eq!(tasks, stats.tasks);
    assert!(dump.to_json().ends_with('}'));
}

/// Runs the program that `bytes` spell.
pub fn run(bytes: &[u8]) {
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    let mut choices = Choices::new(bytes);
    runtime.block_on(async {
        time::timeout(LIMIT, program(&mut choices, &runtime))
            .await
            .expect("it hangs");
    });
    let stats = runtime.stats();
    assert_eq!((stats.tasks, stats.descriptors), (0, 0), "{stats:?}");
    assert_eq!(stats.waiters, 0, "{stats:?}");
}

async fn program(choices: &mut Choices, runtime: &Runtime) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut ends = Vec::new();
    for _ in 0..=choices.below(4) {
        ends.extend(pair(&listener).await);
    }
    drop(listener);
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    // One write at a time on each end, as the model needs; the library queues them too.
    let writing: Vec<Rc<RefCell<Option<JoinHandle<()>>>>> =
        ends.iter().map(|_| Rc::default()).collect();
    let mut written = 0;
    for _ in 0..STEPS {
        if choices.is_empty() {
            break;
        }
        let number = choices.below(ends.len());
        let end = ends[number].clone();
        match choices.below(15) {
            0 | 1 => {
                let length = choices.length();
                tasks.push(spawn(async move { end.read(length).await }));
            }
            2 | 3 => {
                let length = choices.length().min(BYTES - written);
                written += length;
                let before = writing[number].take();
                let task = spawn(async move {
                    if let Some(before) = before {
                        before.await.unwrap();
                    }
                    end.write(length).await;
                });
                *writing[number].borrow_mut() = Some(task);
            }
            4 => {
                // A read that is dropped before it is done loses no byte.
                let length = choices.length().max(1);
                let limit = Duration::from_millis(u64::from(choices.byte()));
                let mut buffer = vec![0; length];
                let read = time::timeout(limit, end.stream.read(&mut buffer)).await;
                if let Ok(result) = read {
                    end.took(result, &buffer, false);
                }
            }
            5 => {
                let result = end.stream.close_write();
                assert!(
                    result.is_err() || !end.closed.get(),
                    "a closed stream was half-closed"
                );
                end.out.ended.set(true);
                note_shut_down(&end);
            }
            6 => {
                end.read_closed.set(true);
                let _ = end.stream.close_read();
                note_shut_down(&end);
            }
            7 => {
                note_close(&end);
                let _ = end.stream.close();
            }
            8 => {
                note_close(&end);
                let _ = end.stream.abort();
            }
            9 => set_deadline(&end, &[0], deadline(choices)),
            10 => set_deadline(&end, &[1], deadline(choices)),
            11 => set_deadline(&end, &[0, 1], deadline(choices)),
            12 => time::sleep(Duration::from_millis(u64::from(choices.byte()))).await,
            13 => look(runtime),
            _ => yield_now().await,
        }
    }
    // The end: with every deadline cleared each side is closed, and then every task has to end.
    for end in &ends {
        note_close(end);
        let _ = end.stream.close();
    }
    for write in writing {
        if let Some(task) = write.take() {
            task.await.expect("a writer panicked");
        }
    }
    for task in tasks {
        task.await.expect("a reader panicked");
    }
}
