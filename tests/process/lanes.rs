//! Look-ups, lingering closes and blocking jobs: each kind has threads of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use netpoller::{
    JoinHandle, Runtime, TcpListener, TcpStream, UnixStream, spawn_blocking, time, yield_now,
};

use crate::child::{in_child, threads};
use crate::support::run::run;
use crate::support::stall::stall;

/// Far more than a look-up takes, and less than what it might wait for.
const SOON: Duration = Duration::from_secs(20);

/// Jobs that are under way until the sender is dropped.
fn jobs_that_wait(jobs: usize) -> (mpsc::Sender<()>, Vec<JoinHandle<()>>) {
    let (end, ends) = mpsc::channel::<()>();
    let ends = Arc::new(Mutex::new(ends));
    let job = |_| {
        let ends = ends.clone();
        spawn_blocking(move || {
            let _ = ends.lock().unwrap().recv();
        })
    };
    (end, (0..jobs).map(job).collect())
}

async fn dial_by_name(port: u16) {
    let dialled = time::timeout(SOON, TcpStream::connect(("localhost", port))).await;
    dialled.expect("the look-up waits for a thread").unwrap();
}

#[test]
fn a_hundred_blocking_jobs_hold_up_no_look_up_and_no_other_runtimes_jobs() {
    in_child(|| {
        run(async {
            let listener = TcpListener::bind("localhost:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (end, jobs) = jobs_that_wait(100);
            dial_by_name(port).await;
            let other = std::thread::spawn(|| {
                let job = async { spawn_blocking(|| 7).await.unwrap() };
                Runtime::new().unwrap().block_on(job)
            });
            assert_eq!(other.join().unwrap(), 7);
            drop(end);
            for job in jobs {
                job.await.unwrap();
            }
        });
    });
}

#[test]
fn closes_that_linger_hold_up_no_look_up_and_no_job() {
    in_child(|| {
        run(async {
            let listener = TcpListener::bind("localhost:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut clients = Vec::new();
            for _ in 0..64 {
                clients.push(TcpStream::connect(address).await.unwrap());
                let (server, _) = listener.accept().await.unwrap();
                // As much as goes in: the peer does not read.
                while server.try_write(&[0; 1 << 16]).is_ok() {}
                server.set_linger(Some(Duration::from_secs(40))).unwrap();
                server.close().unwrap();
            }
            dial_by_name(address.port()).await;
            let job = time::timeout(SOON, spawn_blocking(|| 7)).await;
            assert_eq!(job.expect("the job waits for a thread").unwrap(), 7);
            drop(clients);
        });
    });
}

#[test]
fn jobs_that_run_a_runtime_which_looks_a_name_up_end() {
    in_child(|| {
        run(async {
            let listener = TcpListener::bind("localhost:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let nested = |_| spawn_blocking(move || run(dial_by_name(port)));
            let jobs: Vec<_> = (0..64).map(nested).collect();
            for job in jobs {
                job.await.unwrap();
            }
        });
    });
}

#[test]
fn a_runtime_has_as_many_threads_for_jobs_as_it_is_allowed() {
    in_child(|| {
        let runtime = Runtime::builder().blocking_threads(3).build().unwrap();
        runtime.block_on(async {
            let running = Arc::new(AtomicUsize::new(0));
            let most = Arc::new(AtomicUsize::new(0));
            let before = threads();
            let job = |_| {
                let (running, most) = (running.clone(), most.clone());
                spawn_blocking(move || {
                    let now = running.fetch_add(1, Ordering::AcqRel) + 1;
                    most.fetch_max(now, Ordering::AcqRel);
                    stall(Duration::from_millis(1));
                    running.fetch_sub(1, Ordering::AcqRel);
                })
            };
            let jobs: Vec<_> = (0..50).map(job).collect();
            for job in jobs {
                job.await.unwrap();
            }
            assert!(most.load(Ordering::Acquire) <= 3);
            assert!(threads() <= before + 3);
        });
    });
}

#[test]
fn jobs_run_in_the_order_in_which_they_were_spawned() {
    in_child(|| {
        let runtime = Runtime::builder().blocking_threads(1).build().unwrap();
        let ran = runtime.block_on(async {
            let (tell, told) = mpsc::channel();
            let mut jobs = Vec::new();
            for n in 0..20 {
                let tell = tell.clone();
                jobs.push(spawn_blocking(move || tell.send(n).unwrap()));
                yield_now().await;
            }
            for job in jobs {
                job.await.unwrap();
            }
            told.try_iter().collect::<Vec<_>>()
        });
        assert!(ran.is_sorted() && ran.len() == 20, "{ran:?}");
    });
}

#[test]
fn a_runtime_that_only_reads_and_writes_starts_no_thread() {
    in_child(|| {
        run(async {
            let before = threads();
            let (one, other) = UnixStream::pair().unwrap();
            one.write_all(b"x").await.unwrap();
            other.read(&mut [0; 1]).await.unwrap();
            time::sleep(Duration::from_millis(1)).await;
            assert_eq!(threads(), before);
        });
    });
}

#[test]
fn the_blocking_threads_of_a_runtime_that_is_gone_end() {
    in_child(|| {
        let before = threads();
        for _ in 0..50 {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async { spawn_blocking(|| ()).await.unwrap() });
        }
        // At once, and not only after ten idle seconds.
        let start = std::time::Instant::now();
        while threads() > before {
            assert!(
                start.elapsed() < Duration::from_secs(9),
                "{} threads",
                threads()
            );
            std::thread::yield_now();
        }
    });
}
