//! What was read of a ring: as records, and as the trace-event JSON that ui.perfetto.dev and
//! chrome://tracing open.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::time::Duration;

use super::ring::{Words, parts};
use super::{JOB, Kind, NOTHING, THREAD, Tape, quoted};

/// What a loop has done: see [`Handle::trace_last`](crate::Handle::trace_last).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = netpoller::Runtime::builder().trace(64 << 10).build()?;
/// runtime.block_on(async { netpoller::spawn_named("job", async {}).await.unwrap() });
/// let trace = runtime.handle().trace_last(std::time::Duration::from_secs(9)).unwrap();
/// assert_eq!(trace.lost, 0); // the ring had room for all
/// for record in &trace.records {
///     let machine = trace.machines.get(&record.id);
///     println!("{:?} {record} {}", record.at, machine.map_or("", |name| name));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The oldest first. Their times never go back.
    pub records: Vec<Record>,
    /// How many records the ring has overwritten since it was made.
    pub lost: u64,
    /// What the machines of the [`Run`](Kind::Run)s are, as a [`Dump`](crate::Dump) has it, by id:
    /// `task "slow", spawned at src/main.rs:7`. Without those that have ended and whose slot has another
    /// machine.
    pub machines: BTreeMap<u64, String>,
}

/// A record of a [`Trace`]. It prints as `Wake 3.7 by 2.5`.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::trace::{Kind, Record};
/// let runtime = netpoller::Runtime::builder().trace(64 << 10).build()?;
/// runtime.block_on(async {});
/// let trace = runtime.handle().trace_last(std::time::Duration::from_secs(9)).unwrap();
/// let first: &Record = &trace.records[0];
/// println!("{}: {} of {} at {:?}", first.number, first, first.id, first.at);
/// assert!(trace.records.iter().any(|record| record.kind == Kind::Run));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// How many the ring had before it. An [`Unpark`](Kind::Unpark) has the number of its cause.
    pub number: u64,
    /// Since the loop's beginning. The [module](crate::trace) says how exact it is.
    pub at: Duration,
    /// It says what `id` and `detail` are.
    pub kind: Kind,
    /// The id of the machine or descriptor.
    pub id: u64,
    /// What `kind` says of it.
    pub detail: u64,
}

const KINDS: [Kind; 18] = {
    use Kind::*;
    [
        Turn, TurnEnd, Wait, WaitEnd, Event, Stale, Expired, Fired, Closed, Unpark, Foreign, Mail,
        Wake, Spawn, Run, Done, ReadUntil, WriteUntil,
    ]
};

impl Trace {
    /// The records that are at most `last` older than the newest, if there is a ring.
    pub(crate) fn of(tape: &Tape, last: Duration) -> Option<Self> {
        let (words, lost) = tape.copy()?;
        let mut number = lost;
        let time_of = |words: &Words| parts(words[0]).0;
        let is = |words: &Words, kind: Kind| parts(words[0]).2 == kind as usize;
        let mut records = Vec::with_capacity(2 * words.len());
        let mut rest = &words[..];
        // Records with the same reading share the time until the next reading.
        for same in words.chunk_by(|one, next| time_of(one) == time_of(next)) {
            let now = time_of(&same[0]);
            rest = &rest[same.len()..];
            let time = rest.first().map_or(0, |next| time_of(next) - now);
            // If the clock stood still over several waits, the last wait takes the time, or the runs after it.
            let wait = same.iter().rposition(|words| is(words, Kind::Wait));
            let since = &same[wait.unwrap_or(0)..];
            let runs = since.iter().filter(|words| is(words, Kind::Run)).count() as u64;
            let taker = if runs == 0 { Kind::Wait } else { Kind::Run };
            let mut before = 0;
            for (index, words) in same.iter().enumerate() {
                let &[head, id, detail] = words;
                let at = Duration::from_nanos(now + time / runs.max(1) * before);
                before += u64::from(index >= wait.unwrap_or(0) && is(words, taker));
                let (_, readiness, kind) = parts(head);
                let mut push = |kind, id, detail| {
                    records.push(Record {
                        number,
                        at,
                        kind,
                        id,
                        detail,
                    })
                };
                match KINDS[kind] {
                    kind @ (Kind::Event | Kind::Expired | Kind::Fired | Kind::Closed) => {
                        push(kind, id, readiness);
                        if detail != NOTHING {
                            push(Kind::Unpark, detail, 0);
                        }
                    }
                    kind => push(kind, id, detail),
                }
                number += 1;
            }
        }
        debug_assert!(records.is_sorted_by_key(|record| record.at));
        let end = records.last().map_or(Duration::ZERO, |last| last.at);
        records.retain(|record| record.at.saturating_add(last) >= end);
        let machines = BTreeMap::new();
        Some(Trace {
            records,
            lost,
            machines,
        })
    }

    /// The trace-event JSON. A turn is a slice with waits and runs in it; any other record is a slice in
    /// these, and an `Unpark` in the record that it comes from. An arrow leads from what makes a machine
    /// runnable to the run. `otherData.lost_records` is [`lost`](Trace::lost).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::builder().trace(64 << 10).build()?;
    /// runtime.block_on(async {});
    /// let trace = runtime.handle().trace_last(std::time::Duration::from_secs(9)).unwrap();
    /// let json: serde_json::Value = serde_json::from_str(&trace.to_json()).unwrap();
    /// assert_eq!(json["otherData"]["lost_records"], 0);
    /// assert!(!json["traceEvents"].as_array().unwrap().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_json(&self) -> String {
        let lost = self.lost;
        const NAMED: &str =
            r#"{"ph":"M","pid":1,"tid":1,"name":"thread_name","args":{"name":"loop"}}"#;
        let mut json =
            format!("{{\"otherData\":{{\"lost_records\":{lost}}},\"traceEvents\":[\n{NAMED}");
        let mut event = |phase, at: Duration, more: &str| {
            let micros = at.as_nanos() as f64 / 1e3;
            let _ = write!(
                json,
                ",\n{{\"ph\":\"{phase}\",\"pid\":1,\"tid\":1,\"ts\":{micros:.3}{more}}}"
            );
        };
        // The depth of each open slice; by machine, the arrows that its next run ends.
        let (mut open, mut arrows) = (Vec::new(), HashMap::<u64, Vec<usize>>::new());
        for (number, record) in self.records.iter().enumerate() {
            let Record { at, kind, id, .. } = *record;
            let depth = match kind {
                Kind::Turn | Kind::TurnEnd => 0,
                Kind::Wait | Kind::WaitEnd | Kind::Run => 1,
                Kind::Unpark => 3,
                _ => 2,
            };
            while open.pop_if(|other| *other >= depth).is_some() {
                event('E', at, "");
            }
            if !matches!(kind, Kind::TurnEnd | Kind::WaitEnd) {
                let machine = self.machines.get(&id).filter(|_| kind == Kind::Run);
                let name = match machine {
                    Some(machine) => format!("{record}: {machine}"),
                    None => record.to_string(),
                };
                event('B', at, &format!(",\"name\":{}", quoted(&name)));
                open.push(depth);
            }
            const WAKE: &str = ",\"name\":\"wake\",\"cat\":\"wake\"";
            match kind {
                Kind::Unpark | Kind::Wake | Kind::Spawn => {
                    event('s', at, &format!("{WAKE},\"id\":{number}"));
                    arrows.entry(id).or_default().push(number);
                }
                Kind::Run => {
                    for number in arrows.remove(&id).unwrap_or_default() {
                        event('f', at, &format!("{WAKE},\"bp\":\"e\",\"id\":{number}"));
                    }
                }
                _ => {}
            }
        }
        let end = self.records.last().map_or(Duration::ZERO, |last| last.at);
        for _ in open {
            event('E', end, "");
        }
        json + "\n]}\n"
    }
}

/// An id, as the log has it.
fn shown(id: u64) -> String {
    match id {
        NOTHING => "nothing".into(),
        JOB => "a sent closure".into(),
        THREAD => "another thread".into(),
        // The token of a break.
        u64::MAX => "a break".into(),
        id => format!("{}.{}", id as u32, id >> 32),
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record {
            kind, id, detail, ..
        } = *self;
        write!(f, "{kind:?}")?;
        if id != NOTHING {
            write!(f, " {}", shown(id))?;
        }
        let time = |unit: fn(u64) -> Duration| (detail != u64::MAX).then(|| unit(detail));
        match kind {
            Kind::Event | Kind::Stale | Kind::Expired => {
                let names = (0..).zip(["READ", "WRITE", "HUP", "URGENT"]);
                let mut set = names.filter(|(bit, _)| detail & 1 << bit != 0);
                set.try_for_each(|(_, name)| write!(f, " {name}"))
            }
            Kind::Wake | Kind::Spawn => write!(f, " by {}", shown(detail)),
            Kind::Wait => write!(f, " {:?}", time(Duration::from_nanos)),
            Kind::ReadUntil | Kind::WriteUntil => write!(f, " {:?}", time(Duration::from_millis)),
            _ => Ok(()),
        }
    }
}
