//! Two futures at once, until one of them is ready.

// Mirrors a Go `select` over two channels, with an order where Go chooses at random.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Which of two futures was ready, and what it returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Polls both futures, `first` before `second`, until one is ready. The other one is dropped.
///
/// If both are ready in the same poll, `first` wins and `second` is not polled.
pub(crate) async fn select<A: Future, B: Future>(
    first: A,
    second: B,
) -> Either<A::Output, B::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Either::First(output)),
        Poll::Pending => second.as_mut().poll(cx).map(Either::Second),
    })
    .await
}
