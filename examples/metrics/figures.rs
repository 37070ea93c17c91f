//! The names of the figures, and what each is read from.
//!
//! | name | meaning |
//! |---|---|
//! | **counters** | |
//! | `netpoller_loop_turns_total` | turns |
//! | `netpoller_loop_events_total` | events of the selector |
//! | `netpoller_loop_runs_total` | runs of tasks and connections |
//! | `netpoller_loop_expired_total` | deadlines that passed and timers that fired |
//! | `netpoller_loop_spawned_total` | tasks and connections that began |
//! | `netpoller_loop_panics_total` | tasks and connections that panicked |
//! | `netpoller_connections_accepted_total` | |
//! | `netpoller_connections_ended_total` | reason: peer, asked, drained, idle, too_slow, limit, stopped, error |
//! | `netpoller_accept_errors_total` | reason: no_descriptor (EMFILE, ENFILE), no_memory (ENOMEM, ENOBUFS), aborted, other |
//! | `netpoller_received_bytes_total` | |
//! | `netpoller_sent_bytes_total` | |
//! | `netpoller_heartbeats_total` | |
//! | **gauges** | |
//! | `netpoller_connections` | that are open |
//! | `netpoller_loop_tasks` | at the end of the last turn, like the next two |
//! | `netpoller_loop_descriptors` | |
//! | `netpoller_loop_wheel_entries` | stale ones too |
//! | **histograms: _bucket, _sum, _count** | |
//! | `netpoller_loop_turn_events` | events of a turn |
//! | `netpoller_loop_turn_seconds` | time in a turn, without its wait |
//! | `netpoller_loop_lag_seconds` | how late the loop came to deadlines and timers |
//! | `netpoller_loop_wake_delay_seconds` | from wake to run |
//! | `netpoller_loop_run_seconds` | kind: task, connection, root |

use std::fmt;

use netpoller::{Handle, Histogram, LoopStats, ServerHandle, WorkerStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// Of each worker's loop.
type OfLoop<T> = (&'static str, &'static str, fn(&LoopStats) -> T);
/// Of each worker's connections.
type OfServer<T> = (&'static str, &'static str, fn(&WorkerStats) -> T);
type OfKind = (&'static str, fn(&LoopStats) -> Histogram);

const LOOP_COUNTERS: [OfLoop<u64>; 6] = [
    ("loop_turns", "Turns of the loop", LoopStats::turns),
    ("loop_events", "Events of the selector", LoopStats::events),
    (
        "loop_runs",
        "Runs of tasks and connections",
        LoopStats::machines,
    ),
    (
        "loop_expired",
        "Deadlines that passed and timers that fired",
        LoopStats::expired,
    ),
    (
        "loop_spawned",
        "Tasks and connections that began",
        LoopStats::spawned,
    ),
    (
        "loop_panics",
        "Tasks and connections that panicked",
        LoopStats::panicked,
    ),
];

const LOOP_GAUGES: [OfLoop<u64>; 3] = [
    ("loop_tasks", "Tasks that live", LoopStats::tasks),
    (
        "loop_descriptors",
        "Sources that are registered",
        LoopStats::descriptors,
    ),
    (
        "loop_wheel_entries",
        "Entries of the timer wheels",
        LoopStats::entries,
    ),
];

const LOOP_TIMES: [OfLoop<Histogram>; 3] = [
    (
        "loop_turn",
        "Time in a turn, without its wait",
        LoopStats::turn_time,
    ),
    (
        "loop_lag",
        "How late the loop came to deadlines and timers",
        LoopStats::lag,
    ),
    (
        "loop_wake_delay",
        "Time from wake to run",
        LoopStats::wake_delay,
    ),
];

/// By kind of machine.
const RUN_TIMES: [OfKind; 3] = [
    ("task", LoopStats::task_time),
    ("connection", LoopStats::connection_time),
    ("root", LoopStats::root_time),
];

const COUNTERS: [OfServer<u64>; 2] = [
    (
        "connections_accepted",
        "Connections accepted",
        WorkerStats::accepted,
    ),
    ("heartbeats", "Heartbeats", WorkerStats::heartbeats),
];

const BYTES: [OfServer<u64>; 2] = [
    ("received", "Bytes received", WorkerStats::received),
    (
        "sent",
        "Bytes that the system took to be sent",
        WorkerStats::sent,
    ),
];

/// Buckets end below these powers of two. Smaller values are in the first, larger ones in +Inf.
const NANOSECONDS: std::ops::RangeInclusive<u32> = 10..=36;
const EVENTS: std::ops::RangeInclusive<u32> = 0..=10;

/// The figures of a server, to be encoded at each scrape.
pub fn registry(server: ServerHandle) -> Registry {
    let mut registry = Registry::with_prefix("netpoller");
    registry.register_collector(Box::new(Figures(server)));
    registry
}

#[derive(Debug)]
struct Figures(ServerHandle);

/// The labels of a series.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut loops: Vec<_> = self.0.runtimes().iter().map(Handle::stats).collect();
        let server = self.0.stats();
        // Until all workers have started, it is not known which loop is which worker's.
        if loops.len() < server.workers().len() {
            loops.clear();
        }
        let names: Vec<String> = (0..server.workers().len()).map(|n| n.to_string()).collect();
        let loops = || names.iter().map(String::as_str).zip(&loops);
        let workers = || names.iter().map(String::as_str).zip(server.workers());
        let out = &mut encoder;

        for (name, help, of) in LOOP_COUNTERS {
            counters(
                out,
                name,
                help,
                None,
                loops().map(|(n, stats)| (worker(n), of(stats))),
            )?;
        }
        for (name, help, of) in LOOP_GAUGES {
            gauges(
                out,
                name,
                help,
                loops().map(|(n, stats)| (worker(n), of(stats))),
            )?;
        }
        let events = loops().map(|(n, stats)| (worker(n), stats.turn_events()));
        histograms(out, "loop_turn_events", "Events of a turn", None, events)?;
        if cfg!(feature = "observe") {
            for (name, help, of) in LOOP_TIMES {
                let series = loops().map(|(n, stats)| (worker(n), of(stats)));
                histograms(out, name, help, Some(Unit::Seconds), series)?;
            }
            let series = loops().flat_map(|(n, stats)| {
                let labels = |kind| vec![("worker", n), ("kind", kind)];
                RUN_TIMES.map(|(kind, of)| (labels(kind), of(stats)))
            });
            histograms(
                out,
                "loop_run",
                "Time of a run",
                Some(Unit::Seconds),
                series,
            )?;
        }

        for (name, help, of) in COUNTERS {
            counters(
                out,
                name,
                help,
                None,
                workers().map(|(n, stats)| (worker(n), of(stats))),
            )?;
        }
        for (name, help, of) in BYTES {
            let series = workers().map(|(n, stats)| (worker(n), of(stats)));
            counters(out, name, help, Some(Unit::Bytes), series)?;
        }
        let open = workers().map(|(n, stats)| (worker(n), stats.live()));
        gauges(out, "connections", "Connections that are open", open)?;
        let by_reason = |n, counts: &[(&'static str, u64)]| -> Vec<_> {
            let labels = |reason| vec![("worker", n), ("reason", reason)];
            counts
                .iter()
                .map(|&(reason, count)| (labels(reason), count))
                .collect()
        };
        let ended = workers().flat_map(|(n, stats)| by_reason(n, &stats.ends()));
        counters(
            out,
            "connections_ended",
            "Connections that ended",
            None,
            ended,
        )?;
        let errors = workers().flat_map(|(n, stats)| by_reason(n, &stats.accept_errors()));
        counters(out, "accept_errors", "Accepts that failed", None, errors)
    }
}

fn worker(number: &str) -> Labels<'_> {
    vec![("worker", number)]
}

fn counters<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    series: impl Iterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
    for (labels, value) in series {
        let mut one = metric.encode_family(&labels)?;
        one.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

fn gauges<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

/// Converts nanoseconds to seconds; events stay as they are.
fn histograms<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    series: impl Iterator<Item = (Labels<'a>, Histogram)>,
) -> fmt::Result {
    let (powers, scale) = match unit {
        Some(Unit::Seconds) => (NANOSECONDS, 1e9),
        _ => (EVENTS, 1.0),
    };
    let mut metric = out.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
    for (labels, histogram) in series {
        let mut buckets = Vec::new();
        let mut count = 0;
        for (most, more) in histogram.buckets() {
            count += more;
            if powers.contains(&most.count_ones()) {
                buckets.push((most as f64 / scale, std::mem::take(&mut count)));
            }
        }
        buckets.push((f64::INFINITY, count));
        let (sum, count) = (histogram.sum() as f64 / scale, histogram.count());
        let mut one = metric.encode_family(&labels)?;
        one.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}
