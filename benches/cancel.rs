//! What a scope costs, and what it costs to end one: `cargo bench --bench cancel`.
//!
//! Touches `CancelToken` and the runtime by their public names. With several scopes or tasks the
//! figure is each one's share. Go's `context` has BenchmarkCancelTree for the same; design.md has
//! no peers' figures for this.

use std::cell::Cell;
use std::future::{pending, ready};
use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use netpoller::{CancelError, CancelToken, Runtime, spawn, yield_now};

#[path = "common/mod.rs"]
mod common;

use common::{brief, taken, timed};

fn scope(criterion: &mut Criterion) {
    let root = CancelToken::new();
    criterion.bench_function("a child, made and dropped", |bencher| {
        bencher.iter(|| black_box(&root).child());
    });
    criterion.bench_function("err", |bencher| {
        bencher.iter(|| black_box(&root).err());
    });
    let runtime = Runtime::new().expect("there are descriptors");
    criterion.bench_function("run of what is ready", |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let start = Instant::now();
                for number in 0..iterations {
                    let ran = black_box(&root).run(ready(number)).await;
                    assert_eq!(ran, Ok(number));
                }
                start.elapsed()
            })
        });
    });
}

async fn wait_in(scope: CancelToken, waiting: Rc<Cell<u64>>) -> Result<(), CancelError> {
    let wait = async {
        waiting.set(waiting.get() + 1);
        pending().await
    };
    scope.run(wait).await
}

fn tree(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cancel");
    for count in [1, 1_000] {
        group.bench_function(BenchmarkId::new("children", count), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, count, || {
                    let root = CancelToken::new();
                    let children: Vec<_> = (0..count).map(|_| root.child()).collect();
                    let spent = taken(|| root.cancel());
                    let canceled = |child: &CancelToken| child.err() == Some(CancelError::Canceled);
                    assert!(children.iter().all(canceled));
                    spent
                })
            });
        });
    }
    for count in [1, 1_000] {
        let runtime = Runtime::new().expect("there are descriptors");
        let name = BenchmarkId::new("tasks in the scope, until all have ended", count);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, count, || {
                    let root = CancelToken::new();
                    let mut tasks = Vec::new();
                    let waiting = Rc::new(Cell::new(0));
                    runtime.block_on(async {
                        for _ in 0..count {
                            tasks.push(spawn(wait_in(root.clone(), waiting.clone())));
                        }
                        while waiting.get() < count {
                            yield_now().await;
                        }
                    });
                    taken(|| {
                        root.cancel();
                        runtime.block_on(async {
                            for task in tasks {
                                let ended = task.await.expect("no panic");
                                assert_eq!(ended, Err(CancelError::Canceled));
                            }
                        });
                    })
                })
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = brief();
    targets = scope, tree
}
criterion_main!(benches);
