//! What lives on a runtime and what it waits for: as names and values, as text and as JSON.

// Mirrors the traceback that Go prints on SIGQUIT (`tracebackothers` in `runtime/traceback.go`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Display, Write};
use std::time::Duration;

use crate::endpoints::Addr;
use crate::trace::quoted;

/// What lives on a runtime, and what it waits for: see [`Runtime::dump`](crate::Runtime::dump).
///
/// It prints for people: what runs and what is runnable first, then what is parked. With the feature
/// `observe` the longest parked comes first; else the connection that has been quiet for longest. What
/// looks alike is grouped and counted. [`to_json`](Dump::to_json) is for programs.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{Runtime, UdpSocket, spawn_named};
/// let runtime = Runtime::new()?;
/// runtime.block_on(async {
///     let socket = UdpSocket::bind("127.0.0.1:0").await?;
///     spawn_named("echo", async move { socket.recv(&mut [0; 1500]).await });
///     netpoller::yield_now().await;
///     std::io::Result::Ok(())
/// })?;
///
/// let dump = runtime.dump();
/// assert_eq!(dump.machines[0].get("name").unwrap().to_string(), "echo");
/// println!("{dump}");
/// // loop answered, descriptors 1, timers 0, mail wakes 0, mail jobs 0, blocking threads 0, blocking jobs 0
/// // 1 task "echo", spawned at src/main.rs:6, parked on read
/// //   1.1; read udp, local 127.0.0.1:40213
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dump {
    /// About the loop itself.
    pub runtime: Entry,
    /// The accept loops: of servers, and of [`Serve`](crate::Serve).
    pub listeners: Vec<Entry>,
    /// Tasks, connections, the future of `block_on`, and foreign wakers that wait. If the loop has not
    /// answered, only what holds it.
    pub machines: Vec<Entry>,
    /// All descriptors. The text shows only those that a machine waits for.
    pub sockets: Vec<Entry>,
}

/// Names and values, a part of a [`Dump`]. What is not known is left out.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::dump::{Entry, Value};
/// let runtime = netpoller::Runtime::new()?;
/// let entry: Entry = runtime.dump().runtime;
/// assert_eq!(entry.get("descriptors"), Some(&Value::Number(0)));
/// assert!(entry.to_string().starts_with("loop answered, descriptors 0"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(pub Vec<(&'static str, Value)>);

/// A value in a [`Dump`]. It prints as in the dump's text.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::dump::Value;
/// let runtime = netpoller::Runtime::new()?;
/// runtime.spawn_named("job", std::future::pending::<()>());
/// for (name, value) in &runtime.dump().machines[0].0 {
///     match value {
///         Value::Text(text) if *name == "name" => assert_eq!(text, "job"),
///         other => println!("{name}: {other}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Value {
    /// A count.
    Number(usize),
    /// A word or a name.
    Text(Cow<'static, str>),
    /// The address of a socket's end. Text in JSON.
    Addr(Addr),
    /// Seconds in JSON.
    Time(Duration),
    /// What a machine waits for.
    List(Vec<Entry>),
}

impl Value {
    pub(crate) fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Value::Text(text.into())
    }

    pub(crate) fn shown(what: impl Display) -> Self {
        Value::text(what.to_string())
    }
}

impl Entry {
    /// The value of this name.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let dump = runtime.dump();
    /// assert_eq!(dump.runtime.get("loop").unwrap().to_string(), "answered");
    /// assert_eq!(dump.runtime.get("nothing"), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, name: &str) -> Option<&Value> {
        let mut all = self.0.iter();
        all.find_map(|(of, value)| (*of == name).then_some(value))
    }

    pub(crate) fn put(&mut self, name: &'static str, value: impl Into<Option<Value>>) -> &mut Self {
        self.0.extend(value.into().map(|value| (name, value)));
        self
    }
}

// ---- text ----

/// Machines are grouped by these, and by what they wait on.
const COMMON: [&str; 5] = ["kind", "name", "place", "state", "status"];

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            // A name or a path may hold anything.
            Value::Text(text) => text.escape_debug().fmt(f),
            Value::Addr(addr) => addr.to_string().escape_debug().fmt(f),
            Value::Time(time) => write!(f, "{time:.1?}"),
            Value::List(list) => list.iter().try_for_each(|entry| write!(f, "; {entry}")),
        }
    }
}

/// `task 3.1 "name", spawned at FILE:LINE`.
impl Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match *name {
                "kind" | "on" | "waits" => write!(f, "{value}")?,
                "name" => write!(f, " \"{value}\"")?,
                "id" | "network" => write!(f, "{}{value}", comma.trim_start_matches(','))?,
                "state" | "status" => write!(f, "{comma}{value}")?,
                "place" => write!(f, "{comma}spawned at {value}")?,
                name => {
                    let words = name.trim_end_matches("_seconds").replace('_', " ");
                    write!(f, "{comma}{words} {value}")?;
                }
            }
        }
        Ok(())
    }
}

impl Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.runtime)?;
        for listener in &self.listeners {
            writeln!(f, "listener {listener}")?;
        }
        // Groups stand in the order of their first machines.
        let mut groups: Vec<(String, Vec<Entry>)> = Vec::new();
        let mut places = HashMap::new();
        for machine in &self.machines {
            let pairs = machine.0.iter().cloned();
            let (common, own) = pairs.partition(|(name, _)| COMMON.contains(name));
            let mut common = Entry(common).to_string();
            if let Some(Value::List(waits)) = machine.get("waits") {
                let on = waits.iter().filter_map(|wait| wait.get("on"));
                let on: Vec<String> = on.map(Value::to_string).collect();
                write!(common, " on {}", on.join(", "))?;
            } else if common.ends_with("parked") {
                common += " on what the runtime does not see";
            }
            let place = *places.entry(common.clone()).or_insert(groups.len());
            if place == groups.len() {
                groups.push((common, Vec::new()));
            }
            groups[place].1.push(Entry(own));
        }
        for (common, own) in groups {
            writeln!(f, "{} {common}", own.len())?;
            own.iter().try_for_each(|entry| {
                writeln!(f, "  {}", entry.to_string().trim_start_matches("; "))
            })?;
        }
        Ok(())
    }
}

// ---- JSON ----

impl Entry {
    fn to_json(&self) -> String {
        let value = |value: &Value| match value {
            Value::Number(number) => number.to_string(),
            Value::Text(text) => quoted(text),
            Value::Addr(addr) => quoted(&addr.to_string()),
            Value::Time(time) => format!("{:.3}", time.as_secs_f64()),
            Value::List(list) => {
                let list: Vec<String> = list.iter().map(Entry::to_json).collect();
                format!("[{}]", list.join(","))
            }
        };
        let pairs = self.0.iter();
        let pairs = pairs.map(|(name, of)| format!("\"{name}\":{}", value(of)));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
    }
}

impl Dump {
    /// For programs: one object. Its names, and the words of `kind`, `status`, `state` and `on`, change
    /// only with a new version of the crate. What is not known is left out.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// runtime.spawn_named("a \"quoted\" name", std::future::pending::<()>());
    /// let json: serde_json::Value = serde_json::from_str(&runtime.dump().to_json()).unwrap();
    /// assert_eq!(json["machines"][0]["name"], "a \"quoted\" name");
    /// assert_eq!(json["machines"][0]["status"], "runnable");
    /// assert_eq!(json["loop"], "answered");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Of the loop:
    ///
    /// | name | value |
    /// |---|---|
    /// | `loop` | `answered`; `held`: it has not answered, and one machine has run all the while; `silent`: it has not answered, since the runtime is in no turn, is gone, or runs many machines |
    /// | `descriptors`, `timers` | how many are registered; how many are to fire, without the deadlines of descriptors |
    /// | `mail_wakes`, `mail_jobs` | from other threads, and not looked at yet |
    /// | `blocking_threads`, `blocking_jobs` | of `spawn_blocking`; a job is queued or under way |
    /// | `listeners`, `machines`, `sockets` | lists |
    ///
    /// Of a listener, which a [`Server`](crate::Server) or a [`Serve`](crate::Serve) accepts from:
    ///
    /// | name | value |
    /// |---|---|
    /// | `network`, `local` | where it listens |
    /// | `status` | `accepting`, or `paused` after an accept that failed |
    /// | `for_seconds`, `left_seconds`, `why` | of a pause: since when, until when, and the error |
    /// | `permits_free`, `permits_awaited` | how many more connections it may have (absent without a limit); how many accept loops wait for a permit |
    ///
    /// Of a machine, or of what is shown like one:
    ///
    /// | name | value |
    /// |---|---|
    /// | `kind` | `task`, `connection`, `root` (the future of `block_on`), `job` (a closure that another thread has sent); `foreign`: a waker of another executor, or of a join of many |
    /// | `id` | as the log has it; a job and a foreign waker have none |
    /// | `name`, `place` | what it was [named](crate::spawn_named); `FILE:LINE` where it was spawned, of a connection where its server was made |
    /// | `status` | `running`, `runnable` or `parked` |
    /// | `for_seconds` | since when it has its status; with the feature `observe` |
    /// | `held_seconds` | how long it has held a loop that has not answered, counted from the beginning of its batch |
    /// | `state` | of a connection: `Opening`, `Open`, `Finishing`, `Finished`, `PeerEnded`, `Closing`, `Lingering` or `Closed` |
    /// | `network`, `local`, `peer` | of a connection |
    /// | `queued_bytes`, `unused_bytes` | of a connection: bytes that wait to be sent; bytes that have come and that its protocol has not used |
    /// | `quiet_seconds` | of a connection: since the peer was last heard from |
    /// | `idle_in_seconds`, `heartbeat_in_seconds` | of a connection: until its idle timeout, until its next heartbeat |
    /// | `waits` | a list. A parked machine without it waits for what the runtime does not see: a channel, another library |
    ///
    /// Of a wait:
    ///
    /// | name | value |
    /// |---|---|
    /// | `on` | `read`, `write`, `accept`, `connect`, `hang-up`; `read-lock`, `write-lock`: another operation has the direction; `sleep`, `timer` (one that judges a peer); `join`; `scope`: its end; `permit`: to have one more connection; `descriptor`: that one becomes free; `blocking-job` and `look-up`: its result; of a server's worker: `order`; `arrival`: from another worker; `connections`: their end |
    /// | `network`, `local`, `peer` | of the descriptor, unless the machine has the same |
    /// | `left_seconds` | until the deadline, or the timer; zero once that has passed |
    /// | `behind` | the id of the machine that is joined, or that has the lock |
    ///
    /// Of a socket, or another descriptor:
    ///
    /// | name | value |
    /// |---|---|
    /// | `network`, `local`, `peer` | as far as they are known |
    /// | `token` | as the log has it at trace |
    /// | `read`, `write` | its slots: `Nil`, `Ready` or `Parked` |
    /// | `read_left_seconds`, `write_left_seconds` | until its deadlines |
    /// | `timer_seconds` | until its timer comes up. A deadline may have moved later since |
    pub fn to_json(&self) -> String {
        let mut all = self.runtime.clone();
        for (name, list) in [
            ("listeners", &self.listeners),
            ("machines", &self.machines),
            ("sockets", &self.sockets),
        ] {
            all.put(name, Value::List(list.clone()));
        }
        all.to_json()
    }
}
