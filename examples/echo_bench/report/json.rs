//! The results as JSON, for programs. Units are in the names; null is a figure that is not available.

use serde_json::{Value, json};

use crate::flags::Plan;
use crate::measure::Cell;
use crate::measure::system;
use crate::report::NOISE;
use crate::run::Results;

pub fn json(plan: &Plan, results: &Results) -> String {
    let deadline = results.deadline.map(|cost| {
        json!({
            "same_time_ns": rounded(cost.same_time),
            "new_time_ns": rounded(cost.new_time),
            "fresh_time_ns": rounded(cost.fresh_time),
        })
    });
    let value = json!({
        "machine": system::machine(),
        "seconds": plan.length.as_secs_f64(),
        "message_bytes": plan.shape.size,
        "in_flight_per_connection": plan.shape.depth,
        "server_cpu": results.cpus.server,
        "load_cpu": results.loader_cpu,
        "least_cpus_taken_by_others": results.others.map(rounded),
        "moving_a_deadline": deadline,
        "noise": NOISE,
        "html": plan.html.display().to_string(),
        "results": results.cells.iter().map(cell).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn cell(cell: &Cell) -> Value {
    let cpu = cell.cpu_per_message();
    let counts = cell.counts.as_ref().map(|counts| {
        json!({
            "accepted": counts.accepted,
            "bytes": counts.bytes,
            "turns": counts.turns,
            "events": counts.events,
        })
    });
    json!({
        "mode": cell.target.name(),
        "connections": cell.connections,
        "messages": cell.flat_out.messages,
        "seconds": rounded(cell.flat_out.elapsed.as_secs_f64()),
        "messages_per_second": rounded(cell.messages_per_second()),
        "paced_latency": {
            "messages": cell.paced.latencies.len(),
            "per_second": rounded(cell.paced.rate),
            "p50_us": cell.latency(50.0),
            "p90_us": cell.latency(90.0),
            "p99_us": cell.latency(99.0),
            "p99_9_us": cell.latency(99.9),
            "max_us": cell.latency_max(),
        },
        "user_ns_per_message": cpu.map(|(user, _)| rounded(user)),
        "system_ns_per_message": cpu.map(|(_, system)| rounded(system)),
        "server_busy": cell.server_busy().map(rounded),
        "bytes_per_idle_connection": cell.memory.map(rounded),
        "server_counts": counts,
        "flat_out_per_second_each_100_ms": cell.flat_out.timeline.rates().collect::<Vec<_>>(),
        "paced_per_second_each_100_ms": cell.paced.timeline.rates().collect::<Vec<_>>(),
    })
}

/// To three decimals.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
