//! Many timers of netpoller at once: `time::Sleep` futures, as a program has them, or with `--wheel`
//! the bare wheel below them, as a loop of one's own has it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use clap::Parser;
use netpoller::time::{self, Sleep};
use netpoller::wheel::{Tick, Timers};
use peers::{TimerFlags, Timing};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    timers: TimerFlags,
    #[arg(long)]
    wheel: bool,
}

fn main() -> std::io::Result<()> {
    let flags = Flags::parse();
    let waits = flags.timers.waits();
    let timing = match flags.wheel {
        true => wheel(&waits),
        false => netpoller::Runtime::new()?.block_on(sleeps(&waits)),
    };
    timing.print();
    Ok(())
}

async fn sleeps(waits: &[Duration]) -> Timing {
    let mut sleeps: Vec<Pin<Box<Sleep>>> = Vec::with_capacity(waits.len());
    let mut timing = Timing::new(waits.len());
    let now = time::now();
    poll_fn(|context| {
        timing.step("insert", || {
            for &wait in waits {
                let mut sleep = Box::pin(time::sleep_until(now + wait));
                assert!(sleep.as_mut().poll(context).is_pending());
                sleeps.push(sleep);
            }
        });
        timing.step("move", || {
            for (sleep, &wait) in sleeps.iter_mut().zip(waits) {
                sleep.reset(now + wait + Duration::from_secs(60));
            }
        });
        timing.step("cancel", || drop(std::mem::take(&mut sleeps)));
        Poll::Ready(())
    })
    .await;
    timing
}

fn wheel(waits: &[Duration]) -> Timing {
    let mut timers = Timers::new();
    let mut keys = Vec::with_capacity(waits.len());
    let mut timing = Timing::new(waits.len());
    let tick = |wait: Duration| Tick::new(wait.as_millis() as u64);
    timing.step("insert", || {
        for (index, &wait) in waits.iter().enumerate() {
            keys.push(timers.insert(tick(wait), index));
        }
    });
    timing.step("move", || {
        for (&key, &wait) in keys.iter().zip(waits) {
            assert!(timers.move_to(key, tick(wait + Duration::from_secs(60))));
        }
    });
    timing.step("cancel", || {
        for &key in &keys {
            assert!(timers.cancel(key).is_some());
        }
    });
    timing
}
