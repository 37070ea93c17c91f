//! The heartbeat, on the virtual clock: when it beats, when not, and that it leaves nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_io::AsyncWrite;
use netpoller::{Heartbeat, NetError, Runtime, TcpStream, spawn, time, yield_now};

use crate::support::loopback::{pair, virtual_runtime};
use crate::support::run::run_virtual;
use crate::support::stall::stall;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

async fn read_ping(stream: &TcpStream) {
    let mut ping = [0; 4];
    stream.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"ping");
}

/// What was written, and when.
type Line = (Instant, Vec<u8>);

/// Notes what is written to it, and when; takes so many bytes at once, and fails when told to.
#[derive(Clone)]
struct Recorder {
    written: Rc<RefCell<Vec<Line>>>,
    flushed: Rc<Cell<usize>>,
    at_once: usize,
    fails: Rc<Cell<bool>>,
}

impl Recorder {
    fn new() -> Self {
        Recorder {
            written: Rc::default(),
            flushed: Rc::default(),
            at_once: usize::MAX,
            fails: Rc::default(),
        }
    }

    fn count(&self) -> usize {
        self.written.borrow().len()
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.fails.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let bytes = &bytes[..bytes.len().min(self.at_once)];
        let line = (time::now(), bytes.to_vec());
        self.written.borrow_mut().push(line);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed.set(self.flushed.get() + 1);
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn each_reset_gives_the_next_interval() {
    run_virtual(async {
        let (server, client) = pair().await;
        let heartbeat = Heartbeat::start(&server, SECOND);
        let millis = |n| Some(n * MILLISECOND);
        let resets = [
            millis(0),
            millis(200),
            millis(300),
            millis(0),
            None,
            None,
            None,
        ];
        let mut intervals = Vec::new();
        for (nth, reset) in resets.into_iter().enumerate() {
            // The last three rounds: no reset, a reset by `None`, no reset. The interval stays the
            // same.
            if nth < 4 || nth == 5 {
                heartbeat.reset(reset);
            }
            let start = time::now();
            read_ping(&client).await;
            intervals.push((time::now() - start).as_millis());
        }
        assert_eq!(intervals, [1000, 200, 300, 300, 300, 300, 300]);
    });
}

#[test]
fn zero_at_the_start_is_30_seconds() {
    run_virtual(async {
        let recorder = Recorder::new();
        let start = time::now();
        let _heartbeat = Heartbeat::start(&recorder, Duration::ZERO);
        time::sleep(61 * SECOND).await;
        let written = recorder.written.borrow();
        let times: Vec<u64> = written
            .iter()
            .map(|(at, _)| (*at - start).as_secs())
            .collect();
        assert_eq!(times, [30, 60]);
    });
}

#[test]
fn moving_the_deadline_on_every_byte_ends_at_9_seconds() {
    run_virtual(async {
        let (server, client) = pair().await;
        let start = time::now();
        let serving = spawn(async move {
            let heartbeat = Heartbeat::start(&server, SECOND);
            server
                .set_read_deadline(Some(time::now() + 5 * SECOND))
                .unwrap();
            let mut buffer = [0; 1024];
            loop {
                match server.read(&mut buffer).await {
                    Ok(got) => assert_eq!(&buffer[..got], b"pong"),
                    Err(error) => return error,
                }
                heartbeat.reset(None);
                server
                    .set_read_deadline(Some(time::now() + 5 * SECOND))
                    .unwrap();
            }
        });
        for second in 1..=4 {
            read_ping(&client).await;
            assert_eq!((time::now() - start).as_secs(), second);
        }
        client.write_all(b"pong").await.unwrap();
        for second in 5..=8 {
            read_ping(&client).await;
            assert_eq!((time::now() - start).as_secs(), second);
        }
        let mut rest = Vec::new();
        while client
            .read_with(|bytes| {
                rest.extend_from_slice(bytes);
                bytes.len()
            })
            .await
            .unwrap()
            > 0
        {}
        assert_eq!((time::now() - start).as_secs(), 9);
        assert!(rest.is_empty(), "{rest:?}");
        assert!(serving.await.unwrap().is_timeout());
    });
}

#[test]
fn neither_side_pings_while_the_other_s_bytes_arrive() {
    run_virtual(async {
        let (server, client) = pair().await;
        let pings = Rc::new(Cell::new(0));
        let side = |stream: TcpStream| {
            let pings = pings.clone();
            async move {
                let heartbeat = Heartbeat::start(&stream, SECOND);
                let mut buffer = [0; 1024];
                while let Ok(got @ 1..) = stream.read(&mut buffer).await {
                    heartbeat.reset(None);
                    pings.set(pings.get() + usize::from(buffer[..got].ends_with(b"ping")));
                }
            }
        };
        let both = [spawn(side(client.clone())), spawn(side(server.clone()))];
        for _ in 0..20 {
            time::sleep(SECOND / 2).await;
            client.write_all(b"data").await.unwrap();
            server.write_all(b"data").await.unwrap();
        }
        assert_eq!(pings.get(), 0);
        // Once it is quiet they do ping, and each side's ping delays the other's.
        time::sleep(10 * SECOND).await;
        assert!((9..=20).contains(&pings.get()), "{}", pings.get());
        client.close().unwrap();
        for task in both {
            task.await.unwrap();
        }
    });
}

#[test]
fn moving_it_later_runs_no_task_and_moving_it_earlier_does() {
    let runtime = virtual_runtime();
    let recorder = Recorder::new();
    runtime.block_on(async {
        let heartbeat = Heartbeat::start(&recorder, SECOND);
        netpoller::yield_now().await;
        let start = time::now();
        let before = runtime.stats().machines;
        for _ in 0..10_000 {
            heartbeat.reset(Some(2 * SECOND));
        }
        netpoller::yield_now().await;
        assert_eq!(runtime.stats().machines, before);
        heartbeat.reset(Some(100 * MILLISECOND));
        time::sleep(150 * MILLISECOND).await;
        assert_eq!(recorder.written.borrow()[0].0, start + 100 * MILLISECOND);
    });
}

#[test]
fn a_payload_of_the_user_goes_out_whole_and_flushed() {
    run_virtual(async {
        let recorder = Recorder {
            at_once: 3,
            ..Recorder::new()
        };
        let builder = Heartbeat::builder().payload(b"are you there?".as_slice());
        let _heartbeat = builder.interval(SECOND).start(&recorder);
        time::sleep(SECOND * 3 / 2).await;
        let all: Vec<u8> = recorder
            .written
            .borrow()
            .iter()
            .flat_map(|(_, part)| part.clone())
            .collect();
        assert_eq!(all, b"are you there?");
        assert_eq!(recorder.flushed.get(), 1);
    });
}

#[test]
fn a_turn_that_takes_longer_than_the_interval_does_not_send_a_ping_for_each() {
    Runtime::new().unwrap().block_on(async {
        let (server, client) = pair().await;
        let _heartbeat = Heartbeat::start(&server, 20 * MILLISECOND);
        // Due before the ping, and in the same turn, which it holds up.
        drop(spawn(async {
            time::sleep(10 * MILLISECOND).await;
            stall(70 * MILLISECOND);
        }));
        yield_now().await;
        stall(30 * MILLISECOND);
        let mut pings = [0; 1024];
        let heard = client.read(&mut pings).await.unwrap();
        // Usually one. If the computer stalls again, there may be another.
        assert!(heard <= 4 * 4, "{} pings", heard / 4);
    });
}

#[test]
fn it_stops_when_dropped_and_leaves_nothing() {
    let runtime = virtual_runtime();
    let recorder = Recorder::new();
    runtime.block_on(async {
        let heartbeat = Heartbeat::start(&recorder, SECOND);
        time::sleep(SECOND * 5 / 2).await;
        assert_eq!(recorder.count(), 2);
        drop(heartbeat);
        assert_eq!(
            Rc::strong_count(&recorder.written),
            1,
            "its handle of the stream is gone"
        );
        time::sleep(10 * SECOND).await;
        assert_eq!(recorder.count(), 2);
    });
    let stats = runtime.stats();
    assert_eq!((stats.tasks, stats.timers, stats.waiters), (0, 0, 0));
}

#[test]
fn a_write_error_ends_it() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let recorder = Recorder::new();
        let heartbeat = Heartbeat::start(&recorder, SECOND);
        time::sleep(SECOND * 3 / 2).await;
        assert!(!heartbeat.is_finished());
        recorder.fails.set(true);
        time::sleep(SECOND).await;
        assert!(heartbeat.is_finished());
        assert_eq!(runtime.stats().tasks, 0);
        // Resetting it changes nothing.
        heartbeat.reset(Some(MILLISECOND));
        time::sleep(SECOND).await;
        assert_eq!(recorder.count(), 1);
    });
}

#[test]
fn closing_the_stream_ends_it_at_the_next_beat() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let (server, _client) = pair().await;
        let heartbeat = Heartbeat::start(&server, SECOND);
        server.close().unwrap();
        time::sleep(2 * SECOND).await;
        assert!(heartbeat.is_finished());
    });
    assert_eq!(runtime.stats().descriptors, 0);
}

#[test]
fn pings_come_whole_between_whole_writes() {
    run_virtual(async {
        let (server, client) = pair().await;
        let _heartbeat = Heartbeat::start(&server, MILLISECOND);
        let packet = vec![b'.'; 4 << 20];
        let writer = server.clone();
        let writing = spawn(async move {
            for _ in 0..3 {
                writer.write_all(&packet).await.unwrap();
                time::sleep(5 * MILLISECOND).await;
            }
            writer.close_write().unwrap();
        });
        let mut all = Vec::new();
        while client
            .read_with(|bytes| {
                all.extend_from_slice(bytes);
                bytes.len()
            })
            .await
            .unwrap()
            > 0
        {
            // Slowly, so that the writer's lock is held over many beats.
            time::sleep(MILLISECOND).await;
        }
        writing.await.unwrap();
        let text = String::from_utf8(all).unwrap();
        let runs: Vec<&str> = text.split("ping").collect();
        let (dots, between): (Vec<&str>, Vec<&str>) =
            runs.into_iter().partition(|run| !run.is_empty());
        assert_eq!(
            dots.iter().map(|run| run.len()).collect::<Vec<_>>(),
            [4 << 20; 3]
        );
        assert!(!between.is_empty());
    });
}
