//! Many `tokio::time::Sleep`s at once: armed by their first poll, moved, canceled by being dropped.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use clap::Parser;
use peers::{TimerFlags, Timing};
use tokio::time::{Instant, Sleep, sleep_until};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let flags = TimerFlags::parse();
    let waits = flags.waits();
    let mut sleeps: Vec<Pin<Box<Sleep>>> = Vec::with_capacity(flags.count);
    let mut timing = Timing::new(flags.count);
    let now = Instant::now();
    poll_fn(|context| {
        timing.step("insert", || {
            for &wait in &waits {
                let mut sleep = Box::pin(sleep_until(now + wait));
                assert!(sleep.as_mut().poll(context).is_pending());
                sleeps.push(sleep);
            }
        });
        timing.step("move", || {
            for (sleep, &wait) in sleeps.iter_mut().zip(&waits) {
                sleep.as_mut().reset(now + wait + Duration::from_secs(60));
            }
        });
        timing.step("cancel", || drop(std::mem::take(&mut sleeps)));
        Poll::Ready(())
    })
    .await;
    timing.print();
}
