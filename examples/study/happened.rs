//! What a turn did, from the trace: a list in the order of the loop, each line with the box of the
//! picture that it belongs to.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use netpoller::trace::{Kind, Record};
use serde_json::{Value, json};

use super::stage::seconds;

/// Lines of one kind in a frame. The others are counted.
const ALIKE: usize = 4;

/// The names of machines, by their ids as the dump has them.
pub type Names = HashMap<String, String>;

/// `at_gate` are the machines that wait at the stage's gate by now.
pub fn list(records: &[Record], names: &Names, at_gate: &[String], said: &[String]) -> Vec<Value> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
    let mut add = |kind: String, at: &'static str, say: String| {
        let (count, _) = counts.entry(kind).or_insert((0, lines.len()));
        *count += 1;
        if *count <= ALIKE {
            lines.push((at, say));
        }
    };
    // What hands out the machines that follow.
    let mut hands_out = "pending";
    let mut running = None;
    let turns = records
        .iter()
        .filter(|record| record.kind == Kind::Turn)
        .count();
    let mut turn = 0;
    for (index, record) in records.iter().enumerate() {
        let id = id(record.id);
        let machine = names.get(&id).map_or(format!("machine {id}"), |name| {
            format!("machine {id} {name}")
        });
        let kind = format!("{:?}", record.kind);
        if matches!(record.kind, Kind::Run | Kind::TurnEnd)
            && let Some((machine, is_at_gate)) = running.take()
        {
            match is_at_gate {
                true => add(
                    "Gate".to_owned(),
                    "batch",
                    format!("{machine} stops, and waits for the stage (in no slot)"),
                ),
                false => add("Park".to_owned(), "park", format!("{machine} parks")),
            }
        }
        match record.kind {
            Kind::Turn if turns > 1 => {
                turn += 1;
                add(kind, "turn", format!("turn {turn} of {turns}"));
            }
            Kind::Wait => add(
                kind,
                "wait",
                format!("asks the kernel {}", patience(record.detail)),
            ),
            Kind::Event => {
                hands_out = "netpollready";
                let say = format!("event of socket {id}: {}", ready(record.detail));
                add(kind, "unpark_ready", say);
                let say = format!("the slot of socket {id} becomes Ready");
                add("Ready".to_owned(), "netpollready", say);
            }
            Kind::Stale => {
                // The break's key has all bits set.
                let say = match record.id as u32 {
                    u32::MAX => {
                        "a break: another thread, or the stage, has news for the loop".to_owned()
                    }
                    _ => format!(
                        "stale event of socket {id}: {}; no descriptor has this token",
                        ready(record.detail)
                    ),
                };
                add(kind, "unpark_ready", say);
            }
            Kind::Expired => {
                hands_out = "expire";
                let side = ready(record.detail);
                let say = format!("the {side} deadline of socket {id} has passed");
                add(kind, "netpolldeadlineimpl", say);
            }
            Kind::Fired => {
                hands_out = "expire";
                add(kind, "expire", "a timer fires".to_owned());
            }
            Kind::Closed => {
                hands_out = "pending";
                add(kind, "pending", format!("socket {id} is closed"));
            }
            Kind::Unpark => {
                let goes = match hands_out {
                    "pending" => "is released: the next turn hands it out",
                    _ => "goes into the run queue",
                };
                let of = format!("{kind} {hands_out}");
                add(of, hands_out, format!("{machine} {goes}"));
            }
            Kind::Mail => add(kind, "mail", "other threads have left messages".to_owned()),
            Kind::Wake | Kind::Spawn => {
                let what = match record.kind {
                    Kind::Wake => "is woken",
                    _ => "is new",
                };
                // `wake 3.7 by 2.5`, in the trace's words.
                let text = record.to_string();
                let by = text.split_once(" by ").map_or("", |(_, by)| by);
                // The stage acts between two turns. It has the loop's thread, and the trace does
                // not know it.
                let (by, runs) = match by {
                    "another thread" => ("the stage".to_owned(), "this turn"),
                    _ => (format!("machine {by}"), "the next turn"),
                };
                add(
                    kind,
                    "wake",
                    format!("{machine} {what}, by {by}: it runs in {runs}"),
                );
                // A machine that has woken itself yields.
                running = running.filter(|(running, _)| *running != machine);
            }
            Kind::Run => {
                add(kind, "batch", format!("{machine} runs"));
                let mut later = records[index + 1..].iter();
                let runs_again =
                    later.any(|later| later.kind == Kind::Run && later.id == record.id);
                running = Some((machine, at_gate.contains(&id) && !runs_again));
            }
            Kind::Done => {
                add(kind, "batch", format!("{machine} has ended"));
                running = None;
            }
            Kind::ReadUntil | Kind::WriteUntil => {
                let side = if record.kind == Kind::ReadUntil {
                    "read"
                } else {
                    "write"
                };
                let to = match record.detail {
                    u64::MAX => "none".to_owned(),
                    ms => format!(
                        "{} of the stage's clock",
                        seconds(Duration::from_millis(ms))
                    ),
                };
                add(
                    kind,
                    "set_deadline",
                    format!("the {side} deadline of socket {id} moves to {to}"),
                );
            }
            _ => {}
        }
    }
    for said in said {
        add("said".to_owned(), "try", said.clone());
    }
    for (count, first) in counts.into_values().filter(|(count, _)| *count > ALIKE) {
        lines[first].1 += &format!(" (the first of {count} lines of its kind; {ALIKE} are listed)");
    }
    let lines = lines.into_iter();
    lines
        .map(|(at, say)| json!({ "box": at, "say": say }))
        .collect()
}

/// The run queue, in its order: the dump says what is runnable, and the trace in which order it
/// became so.
#[derive(Default)]
pub struct Queue {
    /// What is left of the batches so far, and what the netpoller has handed out.
    queue: VecDeque<u64>,
    /// Woken and spawned since: a turn appends it to the queue.
    woken: VecDeque<u64>,
    /// Whether the batch of this turn has begun, before which what was woken earlier is appended.
    in_batch: bool,
}

impl Queue {
    pub fn take_in(&mut self, records: &[Record]) {
        for record in records {
            match record.kind {
                Kind::Unpark => self.queue.push_back(record.id),
                Kind::Wake | Kind::Spawn => self.woken.push_back(record.id),
                Kind::Turn => self.in_batch = false,
                Kind::Run | Kind::TurnEnd => {
                    if !self.in_batch {
                        self.queue.append(&mut self.woken);
                        self.in_batch = true;
                    }
                    if let Some(at) = self.queue.iter().position(|&id| id == record.id) {
                        self.queue.remove(at);
                    }
                }
                _ => {}
            }
        }
    }

    /// The ids, the next to run first.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        self.queue.iter().chain(&self.woken).map(|&bits| id(bits))
    }
}

/// As the log has it.
fn id(bits: u64) -> String {
    format!("{}.{}", bits as u32, bits >> 32)
}

fn patience(nanoseconds: u64) -> String {
    match nanoseconds {
        0 => "without waiting (on this stage no turn sleeps)".to_owned(),
        u64::MAX => "and waits for ever".to_owned(),
        time => format!("and waits {} at most", seconds(Duration::from_nanos(time))),
    }
}

/// The bits of a `Readiness`.
fn ready(bits: u64) -> String {
    let names = ["read", "write", "hang-up", "urgent"];
    let names = (0..).zip(names).filter(|(bit, _)| bits & 1 << bit != 0);
    names.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}
