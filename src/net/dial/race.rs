//! Several addresses: one family against the other, and within a family one after the other.
// Mirrors Go's `dialParallel`, `dialSerial` and `partialDeadline`.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::connect::Dial;
use crate::net::error::{Cause, OpError};
use crate::net::fd::Fd;
use crate::runtime::select::{Either, select};
use crate::time;

/// The errors of all attempts; the first is the one to show.
pub(super) type Failed = Vec<OpError>;

/// Dials the addresses until one connects. Every other attempt is closed on return.
pub(super) async fn race(
    dial: &Dial<'_>,
    addresses: &[SocketAddr],
    fallback_delay: Duration,
) -> Result<Fd, Failed> {
    let (primaries, fallbacks): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv4() == addresses[0].is_ipv4());
    let mut primary = pin!(one_by_one(dial, &primaries));
    if fallbacks.is_empty() {
        return primary.await;
    }
    let mut fallback = pin!(one_by_one(dial, &fallbacks));
    // The first family has a head start, and loses it when all its addresses have failed.
    let head_start = time::sleep(fallback_delay);
    let ended = match select(primary.as_mut(), head_start).await {
        Either::First(ended) => Either::First(ended),
        Either::Second(()) => {
            log::debug!("dial: no answer from {primaries:?} yet, trying {fallbacks:?} too");
            select(primary.as_mut(), fallback.as_mut()).await
        }
    };
    // If one family has failed, the other decides. Its errors come behind those of the first.
    let (failed, others) = match ended {
        Either::First(Ok(fd)) | Either::Second(Ok(fd)) => return Ok(fd),
        Either::First(Err(failed)) => (failed, fallback.await),
        Either::Second(Err(others)) => match primary.await {
            Ok(fd) => return Ok(fd),
            Err(failed) => (failed, Err(others)),
        },
    };
    others.map_err(|others| failed.into_iter().chain(others).collect())
}

/// One address after the other, each in its share of the time. The first error is the one that counts,
/// unless the scope ends: then nothing else is tried, and that is the error.
async fn one_by_one(dial: &Dial<'_>, addresses: &[SocketAddr]) -> Result<Fd, Failed> {
    let mut failed = Failed::new();
    for (done, &address) in addresses.iter().enumerate() {
        let has_ended = dial.scope.err().is_some();
        let remaining = addresses.len() - done;
        let scope = match dial.scope.deadline() {
            Some(deadline) if remaining > 1 => {
                let share = share(time::clock(), deadline, remaining);
                dial.scope.with_deadline(share)
            }
            _ => dial.scope.clone(),
        };
        let cause = match scope.run(dial.connect(address)).await {
            Ok(Ok(fd)) => return Ok(fd),
            Ok(Err(cause)) => cause,
            Err(ended) => ended.into(),
        };
        let ends = has_ended || matches!(cause, Cause::Canceled);
        let at = if ends { 0 } else { failed.len() };
        failed.insert(at, dial.error(address, cause));
        if ends {
            break;
        }
    }
    Err(failed)
}

/// When an attempt is given up for the next: after an equal part of the time that is left, but not
/// before two seconds, so that the last addresses may get no time.
fn share(now: Instant, deadline: Instant, remaining: usize) -> Instant {
    const SANE: Duration = Duration::from_secs(2);
    let left = deadline.saturating_duration_since(now);
    let part = left / u32::try_from(remaining).unwrap_or(u32::MAX);
    now + part.max(SANE.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_as_go_shares_it() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        for (left, remaining, part) in [
            (seconds(12), 1, seconds(12)),
            (seconds(12), 2, seconds(6)),
            (seconds(12), 3, seconds(4)),
            (seconds(12), 1000, seconds(2)),
            (seconds(3), 2, seconds(2)),
            (seconds(1), 2, seconds(1)),
            (Duration::from_nanos(1), 2, Duration::from_nanos(1)),
            (seconds(0), 2, seconds(0)),
        ] {
            assert_eq!(share(now, now + left, remaining), now + part);
        }
    }
}
