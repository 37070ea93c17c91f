//! The cost of a scope, and of ending one: `cargo bench -p netpoller-benches --bench cancel`.
//!
//! With several scopes or tasks the figure is the share of each. Go's counterpart is
//! BenchmarkCancelTree in `context`.

use std::cell::Cell;
use std::future::{pending, ready};
use std::hint::black_box;
use std::rc::Rc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use netpoller::{CancelError, CancelToken, Runtime};

#[path = "common/mod.rs"]
mod common;

use common::{CpuTime, brief, timed, worked};

/// The number of scopes or tasks that are canceled at once.
const MANY: u64 = 1_000;

/// The number of children below each scope that is canceled.
const SCOPES: [(&str, u64); 2] = [("1 in a scope", 1), ("1,000 in one", MANY)];

fn scope(criterion: &mut Criterion<CpuTime>) {
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
                let start = CpuTime::now();
                for number in 0..iterations {
                    let ran = black_box(&root).run(ready(number)).await;
                    assert_eq!(ran, Ok(number));
                }
                CpuTime::now() - start
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

fn tree(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("cancel, each one's share");
    for (name, in_each) in SCOPES {
        let scopes = MANY / in_each;
        group.bench_function(BenchmarkId::new("children", name), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, MANY, || {
                    let roots: Vec<_> = (0..scopes).map(|_| CancelToken::new()).collect();
                    let child = |child| roots[(child / in_each) as usize].child();
                    let children: Vec<_> = (0..MANY).map(child).collect();
                    let spent = worked(|| roots.iter().for_each(CancelToken::cancel));
                    let canceled = |child: &CancelToken| child.err() == Some(CancelError::Canceled);
                    assert!(children.iter().all(canceled));
                    spent
                })
            });
        });
    }
    for (name, in_each) in SCOPES {
        let scopes = MANY / in_each;
        let runtime = Runtime::new().expect("there are descriptors");
        group.bench_function(BenchmarkId::new("tasks, to their ends", name), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, MANY, || {
                    let roots: Vec<_> = (0..scopes).map(|_| CancelToken::new()).collect();
                    let waiting = Rc::new(Cell::new(0));
                    let tasks: Vec<_> = (0..MANY)
                        .map(|task| roots[(task / in_each) as usize].clone())
                        .map(|scope| runtime.spawn(wait_in(scope, waiting.clone())))
                        .collect();
                    while waiting.get() < MANY {
                        runtime.turn(None).expect("the system polls");
                    }
                    worked(|| {
                        roots.iter().for_each(CancelToken::cancel);
                        for task in tasks {
                            let ended = runtime.block_on(task).expect("no panic");
                            assert_eq!(ended, Err(CancelError::Canceled));
                        }
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
