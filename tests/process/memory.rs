//! What is over leaves nothing on the heap, however often.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::time::{self, Sleep};
use netpoller::{
    CancelToken, Conn, Dialer, Protocol, Runtime, Server, TcpStream, UnixStream, spawn, yield_now,
};

use crate::allocator::held;
use crate::child::in_child;

const NOW: Option<Duration> = Some(Duration::ZERO);
const HOUR: Duration = Duration::from_secs(3600);

/// How many bytes `f` leaves on the heap.
fn left_by(f: impl FnOnce()) -> isize {
    let before = held();
    f();
    held() - before
}

/// A task that waits for ever, and its waker.
fn waiting_task(runtime: &Runtime) -> Waker {
    let (tell, told) = mpsc::channel();
    drop(runtime.spawn(poll_fn(move |cx| {
        let _ = tell.send(cx.waker().clone());
        Poll::<()>::Pending
    })));
    runtime.turn(NOW).unwrap();
    told.recv().unwrap()
}

/// A sleep whose timer is in the runtime's wheel.
async fn asleep(until: Instant) -> Sleep {
    let mut sleep = time::sleep_until(until);
    assert!(!poll_once(pin!(&mut sleep)).await);
    sleep
}

/// Polls once. Whether it is ready.
async fn poll_once(mut future: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

#[test]
fn a_task_stands_in_the_mail_once_however_often_another_thread_wakes_it() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let wakers = [waiting_task(&runtime), waiting_task(&runtime)];
        let grown = left_by(|| {
            let wake =
                move || (0..200_000).for_each(|_| wakers.iter().for_each(Waker::wake_by_ref));
            thread::spawn(wake).join().unwrap();
        });
        assert!(
            grown < 64 << 10,
            "400,000 wakes of two tasks take {grown} bytes"
        );
    });
}

#[test]
fn a_task_that_is_aborted_leaves_the_queue() {
    in_child(|| {
        Runtime::new().unwrap().block_on(async {
            yield_now().await;
            let grown = left_by(|| (0..200_000).for_each(|_| spawn(pending::<()>()).abort()));
            assert!(
                grown < 64 << 10,
                "no task lives, and they take {grown} bytes"
            );
        });
    });
}

#[test]
#[allow(
    clippy::async_yields_async,
    reason = "the sleep is carried out of the runtime"
)]
fn a_sleep_is_in_the_mail_once_however_often_another_thread_moves_it() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let hour = Duration::from_secs(3600);
        let mut sleep = runtime.block_on(async {
            let mut sleep = time::sleep(hour);
            poll_fn(|cx| Poll::Ready(pin!(&mut sleep).poll(cx).is_pending())).await;
            sleep
        });
        let grown = left_by(|| {
            let start = Instant::now();
            let moves = || {
                for step in 0..200_000 {
                    sleep.reset(start + Duration::from_millis(step % 20));
                }
            };
            thread::scope(|scope| scope.spawn(moves).join().unwrap());
        });
        assert!(grown < 64 << 10, "200,000 moves take {grown} bytes");
        // The last move counts.
        runtime.block_on(sleep);
    });
}

#[test]
fn scopes_and_waits_that_are_gone_take_nothing() {
    in_child(|| {
        let scope = CancelToken::new();
        let grown = left_by(|| {
            for _ in 0..100_000 {
                let child = scope.child();
                let mut end = pin!(child.canceled());
                let mut above = pin!(scope.canceled());
                let mut cx = Context::from_waker(Waker::noop());
                assert!(end.as_mut().poll(&mut cx).is_pending());
                assert!(above.as_mut().poll(&mut cx).is_pending());
            }
        });
        assert!(grown < 4 << 10, "{grown} bytes");
    });
}

#[test]
fn handles_that_are_joined_and_dropped_take_nothing() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let round = || {
            for n in 0..1000 {
                let task = runtime.spawn(async move { vec![n; 10] });
                if n % 2 == 0 {
                    assert_eq!(runtime.block_on(task).unwrap()[0], n);
                }
            }
            runtime.turn(NOW).unwrap();
        };
        round();
        let grown = left_by(|| (0..20).for_each(|_| round()));
        assert!(grown < 4 << 10, "{grown} bytes");
    });
}

#[test]
fn a_thread_that_reads_after_its_runtime_is_gone_leaves_no_buffer() {
    in_child(|| {
        let one_thread = || {
            let reading = thread::spawn(|| {
                let runtime = Runtime::new().unwrap();
                let (ours, _theirs) = runtime.block_on(async { UnixStream::pair().unwrap() });
                drop(runtime);
                let mut read = pin!(ours.read_with(|bytes| bytes.len()));
                let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_ready(), "the runtime is gone, and it waits");
            });
            reading.join().unwrap();
        };
        one_thread();
        let grown = left_by(|| (0..20).for_each(|_| one_thread()));
        assert!(grown < 20 * 1024, "{grown} bytes are left by 20 threads");
    });
}

/// Messages of 900,000 bytes, each answered with a byte.
struct Long;

impl Protocol for Long {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() < 900_000 {
            conn.need(900_000);
            return Ok(0);
        }
        conn.write(b"k")?;
        Ok(900_000)
    }
}

#[test]
fn an_unused_byte_behind_a_long_message_keeps_no_long_messages_memory() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let bound = Server::new(|_| Long).bind("127.0.0.1:0").unwrap();
        drop(bound.run_in(&runtime).unwrap());
        let mut clients = Vec::new();
        let message = vec![7; 900_001];
        let grown = left_by(|| {
            runtime.block_on(async {
                for _ in 0..10 {
                    let client = TcpStream::connect(bound.local_addr()).await.unwrap();
                    client.write_all(&message).await.unwrap();
                    client.read_exact(&mut [0]).await.unwrap();
                    clients.push(client);
                }
            });
        });
        assert!(grown < 256 << 10, "10 bytes take {grown}");
    });
}

#[test]
fn a_sleep_that_is_dropped_after_a_call_that_never_turned_takes_no_memory() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let sleep = || drop(runtime.block_on(asleep(Instant::now() + HOUR)));
        (0..1000).for_each(|_| sleep());
        let grown = left_by(|| (0..100_000).for_each(|_| sleep()));
        assert!(grown < 64 << 10, "{grown} bytes");
    });
}

#[test]
fn look_ups_that_are_given_up_before_they_begin_take_no_memory() {
    in_child(|| {
        // 64 look-ups run at a time, and these never come to an end.
        let stuck = Dialer::new().resolver(|_| {
            loop {
                thread::park();
            }
        });
        Runtime::new().unwrap().block_on(async {
            let mut running: Vec<_> = (0..64)
                .map(|_| Box::pin(stuck.dial("stuck.test:1")))
                .collect();
            for dial in &mut running {
                assert!(!poll_once(dial.as_mut()).await);
                yield_now().await;
            }
            let give_up = async || {
                assert!(!poll_once(pin!(stuck.dial("stuck.test:1"))).await);
                // A fresh budget, so that the next begins too.
                yield_now().await;
            };
            for _ in 0..1000 {
                give_up().await;
            }
            let before = held();
            for _ in 0..20_000 {
                give_up().await;
            }
            let grown = held() - before;
            assert!(grown < 64 << 10, "{grown} bytes");
        });
    });
}
