//! Our own lines of code for each box of the picture: cut out of the sources, which are embedded, by the
//! name of the function, so that they can't go stale.

use serde_json::{Value, json};

/// One function, or a passage of this example.
pub struct Shown {
    pub id: &'static str,
    /// Go's function, if it has one.
    pub go: &'static str,
    /// The path from the repository's root, and its text.
    pub file: (&'static str, &'static str),
    /// What its first line contains.
    pub begins: &'static str,
    /// What it does.
    pub say: &'static str,
}

macro_rules! file {
    ($path:literal) => {
        ($path, include_str!(concat!("../../", $path)))
    };
}

const NETPOLL: (&str, &str) = file!("src/reactor/netpoll.rs");
const POLL_DESC: (&str, &str) = file!("src/reactor/poll_desc.rs");
const SELECTOR: (&str, &str) = file!("src/reactor/selector.rs");
const SCHEDULER: (&str, &str) = file!("src/runtime/scheduler.rs");
const SCENES: (&str, &str) = file!("examples/study/scenes.rs");

macro_rules! shown {
    ($($id:literal, $go:literal, $file:expr, $begins:literal, $say:literal;)*) => {
        &[$(Shown { id: $id, go: $go, file: $file, begins: $begins, say: $say }),*]
    };
}

pub const ALL: &[Shown] = shown! {
    "turn", "findRunnable", SCHEDULER, "fn turn(",
        "One turn of the loop: ask the netpoller, open the mail, run a batch.";
    "settle", "", NETPOLL, "fn settle(",
        "If all that was handed out has run, deadlines may expire up to the tick before the last poll. Go has no counterpart: its timers fire before the network is polled.";
    "wait", "netpoll", NETPOLL, "fn wait(",
        "Asks the kernel, and sleeps no longer than until the next entry of a wheel is due.";
    "pending", "netpollunblock", POLL_DESC, "fn evict(",
        "What a close or a deadline in the past has released is handed out by the next turn, which then does not sleep.";
    "unpark_ready", "netpoll", NETPOLL, "fn unpark_ready(",
        "From each event to the descriptor that its token names, if the generation is right.";
    "netpollready", "netpollready", POLL_DESC, "fn netpollready(",
        "Raises Ready, and takes out what is parked.";
    "poll_again", "", NETPOLL, "fn poll_again(",
        "After a wait that found nothing, asks the kernel once more, without waiting: readiness goes before deadlines.";
    "expire", "timers.run", NETPOLL, "fn expire(",
        "Deadlines up to the settled tick, then timers by the clock; a portion of each.";
    "mail", "netpollBreak", SCHEDULER, "fn open_mail(",
        "Wakes and jobs from other threads.";
    "batch", "schedule, execute", SCHEDULER, "fn run_batch(",
        "Runs what is runnable, first come, first served, up to a bound.";
    "poll_step", "FD.Read", file!("src/net/fd/mod.rs"), "fn poll_step",
        "The loop of every operation: may it be tried? Try. EAGAIN? Park, and come again.";
    "park", "netpollblock, gopark", POLL_DESC, "pub fn park(",
        "Leaves a waiter in the slot, unless readiness has come in the meantime.";
    "wake", "goready", SCHEDULER, "fn wake(",
        "Makes a machine runnable, once, from the next turn on.";
    "drained", "", POLL_DESC, "pub fn drained(",
        "Forgets readiness: the last attempt met EAGAIN, or was short.";
    "transferred", "", POLL_DESC, "pub fn transferred(",
        "A short read or write proves that the kernel has no more: Ready is forgotten without an EAGAIN.";
    "set_deadline", "poll_runtime_pollSetDeadline", POLL_DESC, "fn move_deadline(",
        "Stores the deadline, and sets the timer only if the deadline is before it.";
    "netpolldeadlineimpl", "netpolldeadlineimpl", POLL_DESC, "fn netpolldeadlineimpl(",
        "The timer has fired: a deadline that has passed expires, and the timer is set to one that has not.";
    "poll_desc", "pollDesc", POLL_DESC, "pub struct PollDesc<",
        "One registered source: two slots, two deadlines, one timer for both.";
    "out_queue", "net.Buffers", file!("src/connection/out_queue.rs"), "struct OutQueue",
        "What waits to be sent, in order.";
    "place", "timers.addHeap", file!("src/wheel/mod.rs"), "pub fn place(",
        "An entry goes to the level of the highest bit in which its tick differs from the wheel's.";
    "open", "netpollopen", SELECTOR, "fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {",
        "Registers a source, once, for both directions.";
    "token", "taggedPointer", file!("src/reactor/types.rs"), "pub struct Token(",
        "A key and a generation in one word.";
    "state", "http.ConnState", file!("src/connection/state.rs"), "pub(crate) const fn on(",
        "The table of a connection: an event in, the next state out.";
    "is_full", "", file!("src/connection/conn.rs"), "pub fn is_full(",
        "Whether so much waits for the peer that nothing more is read from it.";
    "flush", "net.Buffers", file!("src/connection/send.rs"), "fn flush(",
        "Sends what is queued, as far as the kernel takes it.";
    "spread", "", file!("src/connection/timers.rs"), "fn spread(",
        "A part of the interval for each connection, so that they do not act together.";
    "drain", "Server.Shutdown", file!("src/server/bound.rs"), "pub fn drain(",
        "The order to end in good order.";
    "in_flight", "", file!("src/connection/timers.rs"), "fn in_flight(",
        "Whether a drain has to wait for a connection.";
    "scene1", "", SCENES, "async fn read_for_ever(", "The server of this step.";
    "scene2", "", SCENES, "async fn try_then_wait(", "The server of this step.";
    "scene3", "", SCENES, "async fn write_much(", "The server of this step.";
    "scene4", "", SCENES, "async fn read_two_bytes_at_a_time(", "The server of this step.";
    "scene5", "", SCENES, "async fn read_within_30_seconds(", "The server of this step.";
    "scene7", "", SCENES, "impl Protocol for Echo", "The server of this step.";
    "scene8", "", SCENES, "fn echo_server(", "The server of this step.";
    "scene10", "", SCENES, "fn echo_server(", "The server of this step.";
};

impl Shown {
    /// Its lines, without the documentation above them, and the number of the first; `None` if it
    /// is not there.
    pub fn cut(&self) -> Option<(usize, String)> {
        let lines: Vec<&str> = self.file.1.lines().collect();
        let first = lines.iter().position(|line| line.contains(self.begins))?;
        let indent = lines[first].len() - lines[first].trim_start().len();
        // rustfmt closes it in the column in which it begins; what has no body ends on its line.
        let has_ended = |line: &&str| {
            let own = line.len() - line.trim_start().len();
            own == indent && line.trim_start().starts_with('}')
        };
        let end = match lines[first].trim_end().ends_with(';') {
            true => first,
            false => first + lines[first..].iter().position(has_ended)?,
        };
        let cut = lines[first..=end].iter();
        let cut = cut.map(|line| line.get(indent..).unwrap_or_default());
        Some((first + 1, cut.collect::<Vec<_>>().join("\n")))
    }

    pub fn to_json(&self) -> Value {
        let (line, text) = self.cut().unwrap_or_default();
        json!({
            "id": self.id, "go": self.go, "file": self.file.0, "line": line, "text": text, "say": self.say,
        })
    }
}
