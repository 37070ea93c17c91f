//! What was read of a ring: as records, and as the trace-event JSON that Perfetto's page and Chromium's
//! `chrome://tracing` open.

use std::collections::HashMap;
use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::recorder::Words;
use super::{JOB, Kind, NOTHING, THREAD};

/// What a loop has done: see [`Handle::trace_last`](crate::Handle::trace_last), which has an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The oldest first. Their times never go back.
    pub records: Vec<Record>,
    /// How many older records the ring has dropped for newer ones, since it was made.
    pub lost: u64,
}

/// A record of a [`Trace`]. It prints as `wake 3.7 by 2.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Since the loop's beginning. The [module](crate::trace) says how exact it is.
    pub at: Duration,
    /// What the rest means.
    pub kind: Kind,
    /// Of a machine or a descriptor: see [`Kind`].
    pub id: u64,
    /// More of it: see [`Kind`].
    pub detail: u64,
}

const KINDS: [Kind; 17] = [
    Kind::Turn,
    Kind::TurnEnd,
    Kind::Wait,
    Kind::WaitEnd,
    Kind::Event,
    Kind::Stale,
    Kind::Expired,
    Kind::Fired,
    Kind::Closed,
    Kind::Unpark,
    Kind::Waker,
    Kind::Wake,
    Kind::Spawn,
    Kind::Run,
    Kind::Done,
    Kind::ReadDeadline,
    Kind::WriteDeadline,
];

impl Trace {
    /// Of what was copied, the records of the `last` time.
    pub(super) fn new(words: &[Words], lost: u64, last: Duration) -> Self {
        let mut records: Vec<Record> = Vec::with_capacity(words.len());
        // Those of one reading share the time until the next.
        for one_reading in words.chunk_by(|a, b| a[0] >> 8 == b[0] >> 8) {
            let from = one_reading[0][0] >> 8;
            let next = words.get(records.len() + one_reading.len());
            let time = next.map_or(0, |next| (next[0] >> 8) - from);
            let parts = |words: &Words| {
                let kind = words[0] as u8;
                u64::from(kind == Kind::Run as u8 || kind == Kind::Wait as u8)
            };
            let all: u64 = one_reading.iter().map(parts).sum();
            let mut before = 0;
            for words in one_reading {
                let at = u128::from(time) * u128::from(before) / u128::from(all.max(1));
                before += parts(words);
                let [kind, id, detail] = *words;
                records.push(Record {
                    at: Duration::from_nanos(from + at as u64),
                    kind: KINDS[usize::from(kind as u8)],
                    id,
                    detail,
                });
            }
        }
        let end = records.last().map_or(Duration::ZERO, |last| last.at);
        records.retain(|record| record.at + last >= end);
        Trace { records, lost }
    }

    /// The trace-event JSON. Turns are slices, and in them waits and runs; all else is a slice until
    /// the next record. An arrow leads from each wake to the run that it caused, and a run's argument
    /// `causes` says the same in words. `otherData.lost_records` says how many records the ring has
    /// dropped.
    pub fn to_json(&self) -> String {
        let mut json = Json::default();
        for (index, record) in self.records.iter().enumerate() {
            let next = self.records.get(index + 1).unwrap_or(record);
            json.add(record, next.at);
        }
        json.close(|_| true);
        format!(
            "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"lost_records\":{}}},\"traceEvents\":[\n\
             {{\"ph\":\"M\",\"pid\":1,\"tid\":1,\"name\":\"thread_name\",\"args\":{{\"name\":\"loop\"}}}}\
             {}\n]}}\n",
            self.lost, json.text
        )
    }
}

#[derive(Default)]
struct Json {
    text: String,
    /// The slices that are open, and now.
    open: Vec<Kind>,
    now: Duration,
    /// What the records before hand out what follows.
    cause: String,
    /// Of each machine that is to run: the arrows that lead to it, and why it runs.
    wakes: HashMap<u64, Vec<(usize, String)>>,
    arrows: usize,
}

impl Json {
    fn add(&mut self, record: &Record, next: Duration) {
        self.now = record.at;
        let args = format!(
            ",\"name\":\"{record}\",\"args\":{{\"id\":\"{}\"",
            Id(record.id)
        );
        match record.kind {
            Kind::Turn => {
                self.close(|_| true);
                self.begin(Kind::Turn, ",\"name\":\"turn\"");
            }
            Kind::Wait => self.begin(Kind::Wait, &format!(",\"name\":\"{record}\"")),
            Kind::WaitEnd => self.close(|kind| kind == Kind::Wait),
            Kind::TurnEnd => self.close(|_| true),
            Kind::Run => {
                self.close(|kind| kind == Kind::Run);
                let wakes = self.wakes.remove(&record.id).unwrap_or_default();
                let causes: Vec<_> = wakes.iter().map(|(_, why)| format!("\"{why}\"")).collect();
                self.begin(
                    Kind::Run,
                    &format!("{args},\"causes\":[{}]}}", causes.join(",")),
                );
                for (arrow, _) in wakes {
                    self.event("f", &format!("{ARROW},\"bp\":\"e\",\"id\":{arrow}"));
                }
            }
            kind => {
                let why = match kind {
                    Kind::Unpark => self.cause.clone(),
                    _ => record.to_string(),
                };
                self.event("B", &format!("{args},\"cause\":\"{why}\"}}"));
                match kind {
                    Kind::Unpark | Kind::Wake | Kind::Spawn => {
                        self.arrows += 1;
                        let arrow = self.arrows;
                        self.event("s", &format!("{ARROW},\"id\":{arrow}"));
                        self.wakes.entry(record.id).or_default().push((arrow, why));
                    }
                    _ => self.cause = why,
                }
                self.now = next;
                self.event("E", "");
            }
        }
    }

    fn begin(&mut self, kind: Kind, what: &str) {
        self.event("B", what);
        self.open.push(kind);
    }

    /// Closes what is open innermost, as long as it is such.
    fn close(&mut self, such: impl Fn(Kind) -> bool) {
        while self.open.pop_if(|kind| such(*kind)).is_some() {
            self.event("E", "");
        }
    }

    fn event(&mut self, phase: &str, what: &str) {
        let nanos = self.now.as_nanos();
        let (micros, nanos) = (nanos / 1000, nanos % 1000);
        let _ = write!(
            self.text,
            ",\n{{\"ph\":\"{phase}\",\"pid\":1,\"tid\":1,\"ts\":{micros}.{nanos:03}{what}}}"
        );
    }
}

const ARROW: &str = ",\"name\":\"wake\",\"cat\":\"wake\"";

/// As the log has it.
struct Id(u64);

impl Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 as u32, self.0 >> 32)
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { id, detail, .. } = *self;
        let when = |limit: u64, time: Duration| match limit {
            u64::MAX => "never".to_owned(),
            _ => format!("{time:?}"),
        };
        match self.kind {
            Kind::Turn => write!(f, "turn"),
            Kind::TurnEnd => write!(f, "turn ends"),
            Kind::Wait => write!(f, "wait {}", when(detail, Duration::from_nanos(detail))),
            Kind::WaitEnd => write!(f, "wait ends"),
            Kind::Event | Kind::Stale => {
                let name = if self.kind == Kind::Event {
                    "event"
                } else {
                    "stale event"
                };
                write!(f, "{name} {}", Id(id))?;
                let bits = ["READ", "WRITE", "HUP", "URGENT"];
                let mut set = (0..).zip(bits).filter(|(bit, _)| detail & 1 << bit != 0);
                set.try_for_each(|(_, name)| write!(f, " {name}"))
            }
            Kind::Expired => write!(
                f,
                "{} deadline of {} passes",
                ["read", "write"][detail as usize & 1],
                Id(id)
            ),
            Kind::Fired => write!(f, "timer"),
            Kind::Closed => write!(f, "close {}", Id(id)),
            Kind::Unpark => write!(f, "unpark {}", Id(id)),
            Kind::Waker => write!(f, "waker {}", Id(id)),
            Kind::Wake | Kind::Spawn => {
                let name = if self.kind == Kind::Wake {
                    "wake"
                } else {
                    "spawn"
                };
                write!(f, "{name} {} by ", Id(id))?;
                match detail {
                    NOTHING => write!(f, "no machine"),
                    JOB => write!(f, "a sent closure"),
                    THREAD => write!(f, "another thread"),
                    machine => Id(machine).fmt(f),
                }
            }
            Kind::Run if id == JOB => write!(f, "run a sent closure"),
            Kind::Run => write!(f, "run {}", Id(id)),
            Kind::Done => write!(f, "done {}", Id(id)),
            Kind::ReadDeadline => write!(
                f,
                "read deadline of {} to {}",
                Id(id),
                when(detail, Duration::from_millis(detail))
            ),
            Kind::WriteDeadline => write!(
                f,
                "write deadline of {} to {}",
                Id(id),
                when(detail, Duration::from_millis(detail))
            ),
        }
    }
}
