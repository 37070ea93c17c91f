//! The table, and its explanation.

pub mod html;
pub mod json;
mod pictures;

use crate::flags::Plan;
use crate::measure::cpu::Cpu;
use crate::measure::system;
use crate::measure::{Cell, Target};
use crate::run::Results;

pub const HEADINGS: [&str; 12] = [
    "mode",
    "connections",
    "messages/s",
    "p50 µs",
    "p90 µs",
    "p99 µs",
    "p99.9 µs",
    "max µs",
    "user ns",
    "system ns",
    "busy",
    "B/idle",
];

/// What the columns mean. The page has the same words.
pub const MEANINGS: [(&str, &str); 5] = [
    (
        "messages/s",
        "echoed flat out: every connection sends again as soon as it is answered",
    ),
    (
        "p50 to max",
        "latency at half that rate, from the time each message was due, whether or not it could be sent then (no \
         coordinated omission); ~ where fewer than 10 messages were slower",
    ),
    (
        "user, system",
        "CPU time of the server for a message, flat out. System time is the system calls and the TCP below them. \
         The sum is exact, the split comes from the kernel's clock ticks; ~ where those are too few to rely on",
    ),
    (
        "busy",
        "how much of the time the server ran, flat out; what is missing it waited for the load or the computer",
    ),
    (
        "B/idle",
        "user memory of the server for a connection that waits, its idle timeout of 300 s armed: bytes asked of the \
         allocator, tables' spare room included, the kernel's socket buffers not; from 500 connections on",
    ),
];

/// Other processes take up to this share of a CPU on any machine.
const OTHERS_WORTH_A_WORD: f64 = 0.1;

pub const NOISE: &str = "One run on one computer: expect 5 to 10 % between runs, and much more in p99.9 and max. \
                         Compare lines of one run.";

/// The line above the table when other processes took the CPU meanwhile.
pub fn disturbance(results: &Results) -> Option<String> {
    let cpus = results.others.filter(|&cpus| cpus > OTHERS_WORTH_A_WORD)?;
    Some(format!(
        "DISTURBED: other processes took {cpus:.1} CPUs or more meanwhile. Do not quote these figures: run it again \
         when the machine is idle."
    ))
}

/// Everything, as text.
pub fn text(plan: &Plan, results: &Results) -> String {
    let mut text = disturbance(results).map_or_else(String::new, |line| wrapped("", &line) + "\n");
    text += &format!("{}\n\n", subtitle(plan, results));
    let rows: Vec<_> = results.cells.iter().map(row).collect();
    text += &aligned(&rows);
    text.push('\n');
    for (column, meaning) in MEANINGS {
        text += &wrapped(&format!("{column:<14}"), meaning);
    }
    if let Some(line) = deadline_line(results) {
        text += &wrapped(&format!("{:<14}", "deadlines"), &line);
    }
    text += &wrapped(&format!("{:<14}", "noise"), NOISE);
    text
}

/// What was run, and where.
pub fn subtitle(plan: &Plan, results: &Results) -> String {
    let (size, depth) = (
        grouped(plan.shape.size as f64),
        grouped(plan.shape.depth as f64),
    );
    let bytes = if plan.shape.size == 1 {
        "byte"
    } else {
        "bytes"
    };
    let placement = match (results.cpus.server, results.loader_cpu) {
        _ if matches!(plan.targets[..], [Target::Running(_), ..]) => {
            "server already running, so no figures of its inside".to_owned()
        }
        (Some(server), Some(loader)) => format!("server on CPU {server}, load on CPU {loader}"),
        _ if results.cpus.loader_has_its_own => "server and load placed by the system".to_owned(),
        _ => "server and load share one CPU, which costs both".to_owned(),
    };
    format!(
        "Echo over TCP: messages of {size} {bytes}, {depth} in flight on each connection, every byte checked.\n\
         {}; {placement}.",
        system::machine(),
    )
}

pub fn deadline_line(results: &Results) -> Option<String> {
    let cost = results.deadline?;
    Some(format!(
        "moving one takes {:.1} ns when the loop's time is that of the last move, as for all reads of a turn, \
         {:.1} ns when it is new, and {:.1} ns with a fresh reading of the clock",
        cost.same_time, cost.new_time, cost.fresh_time
    ))
}

/// One line of the table; `-` is a figure that is not available.
pub fn row(cell: &Cell) -> [String; HEADINGS.len()] {
    let messages = cell.paced.latencies.len() as f64;
    let percentile = |percentile: f64| {
        let few = messages * (100.0 - percentile) / 100.0 < 10.0;
        format!(
            "{}{}",
            if few { "~" } else { "" },
            microseconds(cell.latency(percentile))
        )
    };
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let cpu = cell.cpu_per_message();
    let rough = if cell.cpu.is_some_and(Cpu::split_is_rough) {
        "~"
    } else {
        ""
    };
    [
        cell.target.name(),
        grouped(cell.connections as f64),
        grouped(cell.messages_per_second()),
        percentile(50.0),
        percentile(90.0),
        percentile(99.0),
        percentile(99.9),
        microseconds(cell.latency_max()),
        or_dash(cpu.map(|(user, _)| format!("{rough}{}", grouped(user)))),
        or_dash(cpu.map(|(_, system)| grouped(system))),
        or_dash(
            cell.server_busy()
                .map(|busy| format!("{:.0} %", busy * 100.0)),
        ),
        or_dash(cell.memory.map(grouped)),
    ]
}

/// The first column to the left, the figures to the right.
fn aligned(rows: &[[String; HEADINGS.len()]]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&headings]);
        cells
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for row in [&headings].into_iter().chain(rows) {
        for (column, value) in row.iter().enumerate() {
            let width = width(column);
            text += &match column {
                0 => format!("{value:<width$}"),
                _ => format!("  {value:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

/// Words in lines of at most 110 characters. The first follows `label`, the others are indented as far.
fn wrapped(label: &str, words: &str) -> String {
    let indent = " ".repeat(label.chars().count());
    let (mut text, mut line) = (String::new(), label.to_owned());
    for word in words.split_whitespace() {
        if line.chars().count() + word.chars().count() > 110 {
            text += line.trim_end();
            text.push('\n');
            line.clone_from(&indent);
        }
        line += word;
        line.push(' ');
    }
    text + line.trim_end() + "\n"
}

pub fn connections(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} connection{plural}", grouped(count as f64))
}

/// Three figures or so: 8.15, 81.5, 815, 8,150.
pub fn microseconds(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// 1234567.8 is 1,234,568.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 {
        "-".to_owned()
    } else {
        String::new()
    };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
