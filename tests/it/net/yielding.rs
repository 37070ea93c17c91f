//! Invariant 7, within a task: an operation yields once for want of budget, and then proceeds, also
//! beside another future of the task that uses the budget up in every run.
//!
//! Counted in runs of the task, not timed.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::io::Cursor;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use netpoller::{UdpSocket, UnixStream, net, time};

use crate::support::bytes::noise;
use crate::support::run::run;

/// Is ready whenever it is asked, until the budget is used up.
async fn always_ready() {
    loop {
        time::sleep(Duration::ZERO).await;
    }
}

/// Polls one that is always ready and then the other, as a join does, until the other is done.
async fn beside_always_ready(other: impl Future<Output = ()>) {
    let (mut busy, mut other) = (pin!(always_ready()), pin!(other));
    let mut runs = 0;
    poll_fn(|cx| {
        runs += 1;
        assert!(runs < 200, "it does not proceed");
        let _: Poll<()> = busy.as_mut().poll(cx);
        other.as_mut().poll(cx)
    })
    .await;
}

#[test]
fn polled_operations_proceed_without_budget() {
    run(async {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        beside_always_ready(async {
            assert_eq!(AsyncWriteExt::write(&mut ours, b"x").await.unwrap(), 1);
            let mut byte = [0];
            assert_eq!(AsyncReadExt::read(&mut theirs, &mut byte).await.unwrap(), 1);
            assert_eq!(AsyncReadExt::read(&mut theirs, &mut []).await.unwrap(), 0);
            assert_eq!(AsyncWriteExt::write(&mut ours, b"").await.unwrap(), 0);
            AsyncWriteExt::close(&mut ours).await.unwrap();
            assert_eq!(AsyncReadExt::read(&mut theirs, &mut byte).await.unwrap(), 0);
            theirs.set_write_deadline(Some(time::now())).unwrap();
            AsyncWriteExt::write(&mut theirs, b"x").await.unwrap_err();
            theirs.close().unwrap();
            AsyncReadExt::read(&mut theirs, &mut byte)
                .await
                .unwrap_err();
        })
        .await;
    });
}

/// A yield is for the next try alone: not for one that comes after a run with budget.
#[test]
fn an_operation_yields_again_once_it_has_tried_with_budget() {
    run(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut byte = [0];
        let (mut busy, mut reading) = (pin!(always_ready()), pin!(ours.read(&mut byte)));
        let mut runs = 0;
        let got = poll_fn(|cx| {
            runs += 1;
            if runs == 2 {
                // With budget: nothing is there, and it parks.
                let parked = reading.as_mut().poll(cx);
                theirs.try_write(b"x").unwrap();
                return parked;
            }
            let _: Poll<()> = busy.as_mut().poll(cx);
            reading.as_mut().poll(cx)
        });
        assert_eq!(got.await.unwrap(), 1);
        assert_eq!(runs, 4, "it yields in the first run and in the third");
    });
}

#[test]
fn an_operation_on_no_bytes_proceeds_without_budget() {
    run(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        beside_always_ready(async {
            assert_eq!(ours.read(&mut []).await.unwrap(), 0);
            assert_eq!(ours.write(&[]).await.unwrap(), 0);
            ours.read_exact(&mut []).await.unwrap();
            ours.write_all(&[]).await.unwrap();
            assert_eq!(ours.read_vectored(&mut []).await.unwrap(), 0);
            assert_eq!(socket.recv(&mut []).await.unwrap(), 0);
        })
        .await;
    });
}

#[test]
fn an_operation_that_is_ready_or_refused_proceeds() {
    run(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        beside_always_ready(async {
            ours.write_all(b"ab").await.unwrap();
            assert_eq!(theirs.read(&mut [0]).await.unwrap(), 1);
            assert_eq!(theirs.read_with(|bytes| bytes.len()).await.unwrap(), 1);
            // Queued behind an operation that is not polled, and refused there.
            let mut byte = [0];
            let mut first = pin!(theirs.read(&mut byte));
            let began = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await;
            assert!(began);
            theirs.set_read_deadline(Some(time::now())).unwrap();
            theirs.read(&mut [0]).await.unwrap_err();
            theirs.readable().await.unwrap_err();
            ours.close().unwrap();
            theirs.hung_up().await.unwrap();
        })
        .await;
    });
}

#[test]
fn a_copy_between_two_ends_in_memory_proceeds_without_budget() {
    run(async {
        let sent = noise(256 << 10);
        let mut arrived = Cursor::new(Vec::new());
        beside_always_ready(async {
            let copied = net::copy(&mut &sent[..], &mut arrived).await;
            assert_eq!(copied.unwrap(), sent.len() as u64);
        })
        .await;
        assert!(arrived.into_inner() == sent);
    });
}

#[test]
fn operations_that_never_wait_let_the_other_tasks_run() {
    run(async {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let other = netpoller::spawn(async {});
        while !other.is_finished() {
            assert_eq!(AsyncReadExt::read(&mut ours, &mut []).await.unwrap(), 0);
            assert_eq!(AsyncWriteExt::write(&mut ours, &[]).await.unwrap(), 0);
        }
    });
}
