//! A server under abuse for as long as is asked: what it holds, how often it wakes up and how long it
//! takes to answer must not grow.
//!
//! ```text
//! cargo run --release -p netpoller-benches --example soak -- --seconds 60 --plot soak.svg
//! ```
//!
//! This process is the server: connections of a `Protocol`, tasks that echo, and 100,000 timers, in
//! one loop, with few descriptors. Its child is the load (`load.rs`): connects, floods, slow readers,
//! resets, half-closes, more connections than there are descriptors; then a rest. In each rest the
//! server is measured. In the end the first cycles are compared with the last: `verdict`.
//!
//! `--leak 8` forgets so many bytes of each connection: what a leak looks like, and that it is found.

#[path = "../../examples/common/allocator.rs"]
mod allocator;
mod load;
mod plot;

use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use netpoller::{Conn, Protocol, Runtime, Server, TcpListener, spawn, spawn_blocking, time};

/// A soak of the server under abuse
#[derive(Clone, Parser)]
struct Flags {
    /// Seconds that it lasts
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the plot goes
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Forget so many bytes of each connection
    #[arg(long, default_value_t = 0)]
    leak: usize,
    /// Be the load of the servers on these two ports
    #[arg(long, hide = true, num_args = 2)]
    load: Option<Vec<u16>>,
}

/// Descriptors that the server may have: fewer than the load asks for.
const MOST_DESCRIPTORS: u64 = 300;
const TIMERS: usize = 100_000;
/// A p99 is a time of the wall clock. A soak of fewer seconds shows it and does not judge it: another
/// process that takes the CPU for half a minute would be half of what was measured.
const JUDGES_TIME: u64 = 600;
/// How much of a rest is measured.
const MEASURED: Duration = Duration::from_millis(700);

/// What was measured in a rest.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    /// What the process has asked for and not given back, in KiB.
    heap: f64,
    /// The most that it ever held at once until then, in MiB.
    peak: f64,
    /// What of the process is in memory, in MiB.
    resident: f64,
    descriptors: f64,
    /// Turns of the loop while nothing happened.
    wake_ups: f64,
    /// The p99 of a quiet client's messages while the others abuse the server, in milliseconds.
    p99: f64,
}

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting(count);
static HEAP: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn count(more: isize) {
    let held = HEAP.fetch_add(more, Relaxed) + more;
    PEAK.fetch_max(held, Relaxed);
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(ports) = &flags.load {
        load::run(ports[0], ports[1], Duration::from_secs(flags.seconds));
        return ExitCode::SUCCESS;
    }
    let samples = serve(&flags).expect("the soak goes through");
    if let Some(path) = &flags.plot {
        plot::draw(path, &samples).expect("the plot can be drawn");
    }
    let flat = verdict(&samples, flags.seconds);
    println!(
        "{} cycles, {}",
        samples.len(),
        if flat { "flat" } else { "NOT FLAT" }
    );
    if flat {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
}

/// Runs the server, and its load beside it.
fn serve(flags: &Flags) -> io::Result<Vec<Sample>> {
    let runtime = Runtime::new()?;
    let leak = flags.leak;
    let protocol = move |_| {
        std::mem::forget(vec![0_u8; leak]);
        Echo
    };
    let bound = Server::new(protocol)
        .idle_timeout(Duration::from_secs(flags.seconds + 3600))
        .bind("127.0.0.1:0")?;
    let serving = bound.run_in(&runtime)?;
    let samples = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let tasks = listener.clone();
        let tasks = spawn(async move { tasks.serve(|stream, _| echo(stream)).await });
        let mut load = Command::new(std::env::current_exe()?)
            .args(["--seconds", &flags.seconds.to_string(), "--load"])
            .arg(bound.local_addr().port().to_string())
            .arg(listener.local_addr()?.port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut go_on = load.stdin.take().expect("it is piped");
        // The load inherits no limit.
        limit_descriptors();
        let mut lines = BufReader::new(load.stdout.take().expect("it is piped")).lines();
        // Room for a cycle a second: what is measured is not to grow by its own samples.
        let mut samples = Vec::with_capacity(flags.seconds as usize + 60);
        let start = Instant::now();
        loop {
            let line;
            (line, lines) = next(lines).await;
            let Some(line) = line else { break };
            match line.split_once(' ') {
                Some(("rest", p99)) => {
                    let sample = measure(&runtime, start, p99.parse().expect("a number")).await;
                    println!("{sample:?}");
                    samples.push(sample);
                    // The timers may have outlasted the abuse, so the rest lasts until this line.
                    go_on.write_all(b"go on\n")?;
                }
                _ if line == "timers" => storm().await,
                _ => panic!("the load says {line}"),
            }
        }
        assert!(load.wait()?.success(), "the load has found a fault");
        listener.close()?;
        tasks.await.expect("no panic")?;
        bound.handle().drain(Duration::from_secs(5));
        Ok::<_, io::Error>(samples)
    })?;
    let stats = runtime.block_on(serving).expect("no panic")?;
    assert!(stats.refused() > 0, "descriptors have never run out");
    Ok(samples)
}

async fn echo(stream: netpoller::TcpStream) {
    let mut buffer = vec![0; 4096];
    while let Ok(got @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..got]).await.is_err() {
            return;
        }
    }
}

/// The next line of the load, without holding up the loop.
async fn next(
    mut lines: Lines<BufReader<ChildStdout>>,
) -> (Option<String>, Lines<BufReader<ChildStdout>>) {
    let reading = spawn_blocking(move || {
        let line = lines.next();
        (line.map(|line| line.expect("a line")), lines)
    });
    reading.await.expect("no panic")
}

/// Timers by the 100,000: a third passes, a third is moved, a third is given up.
async fn storm() {
    let sleeps: Vec<_> = (0..TIMERS)
        .map(|at| {
            spawn(async move {
                let mut sleep = time::sleep(Duration::from_millis(1 + at as u64 % 300));
                if at % 3 == 1 {
                    sleep.reset(time::now() + Duration::from_millis(at as u64 % 500));
                }
                sleep.await;
            })
        })
        .collect();
    for (at, sleep) in sleeps.into_iter().enumerate() {
        match at % 3 {
            2 => sleep.abort(),
            _ => sleep.await.expect("no panic"),
        }
    }
}

async fn measure(runtime: &Runtime, start: Instant, p99: f64) -> Sample {
    // What the load has closed is closed here too.
    time::sleep(Duration::from_millis(200)).await;
    let before = runtime.stats().turns;
    time::sleep(MEASURED).await;
    Sample {
        seconds: start.elapsed().as_secs_f64(),
        heap: HEAP.load(Relaxed) as f64 / 1024.0,
        peak: PEAK.load(Relaxed) as f64 / 1048576.0,
        resident: resident(),
        descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64,
        wake_ups: (runtime.stats().turns - before) as f64,
        p99,
    }
}

/// What of this process is in memory, in MiB, but for pages of files: how many of these are mapped is
/// the system's choice.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn limit_descriptors() {
    let limit = libc::rlimit {
        rlim_cur: MOST_DESCRIPTORS,
        rlim_max: MOST_DESCRIPTORS,
    };
    // SAFETY: the pointer is to a live rlimit that the call only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// Whether the last cycles are as the first were. The very first are left out: caches fill.
fn verdict(samples: &[Sample], seconds: u64) -> bool {
    let settled = &samples[(samples.len() / 6).min(3)..];
    if settled.len() < 4 {
        println!("{} cycles are too few to compare", samples.len());
        return false;
    }
    let third = settled.len().div_ceil(3);
    let (first, last) = (&settled[..third], &settled[settled.len() - third..]);
    let mut flat = true;
    let mut compare = |what, of: fn(&Sample) -> f64, factor: f64, more: f64| {
        let (was, is) = (median(first, of), median(last, of));
        let good = is <= was * factor + more;
        println!(
            "{what}: {was:.2} at first, {is:.2} at last{}",
            if good { "" } else { ": GROWS" }
        );
        flat &= good;
    };
    compare("live heap in KiB", |sample| sample.heap, 1.0, 32.0);
    compare("descriptors", |sample| sample.descriptors, 1.0, 0.0);
    compare("wake-ups in a rest", |sample| sample.wake_ups, 1.0, 3.0);
    let allowed = if seconds < JUDGES_TIME {
        f64::INFINITY
    } else {
        5.0
    };
    compare("p99 in ms", |sample| sample.p99, 2.0, allowed);
    // malloc keeps the pages of peaks, with holes in them: so what is resident is bounded by the peak.
    let (peak, resident) = (
        median(last, |sample| sample.peak),
        median(last, |sample| sample.resident),
    );
    let bounded = resident <= peak * 1.5;
    println!(
        "resident memory: {resident:.2} MiB, where the heap was {peak:.2} at its most{}",
        if bounded { "" } else { ": TOO MUCH" }
    );
    flat && bounded && is_given_back()
}

/// Whether what malloc keeps is free: nearly all that is not live goes back when it is asked for.
fn is_given_back() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time.
    unsafe {
        libc::malloc_trim(0)
    };
    let (heap, resident) = (HEAP.load(Relaxed) as f64 / 1048576.0, resident());
    let good = resident <= heap + 8.0 || cfg!(not(target_env = "gnu"));
    println!(
        "given back what is free: {resident:.2} MiB stay resident, of which {heap:.2} are live{}",
        if good { "" } else { ": TOO MUCH" }
    );
    good
}

fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
