//! The tour: ten steps, each a sentence, an action and a check. A check is data, which the page and the
//! test of this example judge by the same rules: it names values in the frames that the action gave.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::scenes;
use super::stage::Stage;

/// A condition: the value at the JSON pointer `at`, in `frames`, compared with `than`, which is a value
/// or, if it begins with `/`, another pointer.
pub struct Check {
    say: &'static str,
    at: &'static str,
    is: &'static str,
    than: Value,
}

pub struct Step {
    pub title: &'static str,
    sentence: &'static str,
    why: &'static str,
    action: &'static str,
    /// The code that is shown first: ids of `code.rs`.
    code: &'static [&'static str],
    /// Sets the scene.
    pub scene: fn(&mut Stage) -> io::Result<()>,
    /// The action.
    pub act: fn(&mut Stage) -> io::Result<()>,
    checks: fn() -> Vec<Check>,
}

fn check(say: &'static str, at: &'static str, is: &'static str, than: impl Into<Value>) -> Check {
    Check {
        say,
        at,
        is,
        than: than.into(),
    }
}

impl Step {
    pub fn to_json(&self) -> Value {
        let checks = (self.checks)().into_iter();
        let checks = checks.map(
            |check| json!({ "say": check.say, "at": check.at, "is": check.is, "than": check.than }),
        );
        json!({
            "title": self.title,
            "sentence": self.sentence,
            "why": self.why,
            "action": self.action,
            "code": self.code,
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A client connects, and all turns that this makes are taken.
fn with_a_client(stage: &mut Stage) -> io::Result<()> {
    stage.turns()?;
    stage.connect()?;
    stage.prepare()
}

pub const STEPS: [Step; 10] = [
    Step {
        title: "A read that parks",
        sentence: "A read that finds nothing does not hold up the thread: it leaves the number of its \
                   machine in the descriptor's read slot, and the loop goes on.",
        why: "The read is tried first. The kernel has nothing and answers EAGAIN. Only then the machine \
              parks. (The trace has no line for a try: `try` is filled only if the server says something.) \
              The loop has nothing else to run, so its next turn may sleep for ever: no timer wakes it to \
              look again. On this stage no turn sleeps.",
        action: "Connect a client",
        code: &["scene1", "poll_step", "park"],
        scene: |stage| {
            scenes::read(stage);
            stage.prepare()
        },
        act: |stage| {
            stage.connect()?;
            stage.turn()?;
            stage.turn()?;
            stage.turn().map(drop)
        },
        checks: || {
            vec![
                check(
                    "The acceptor's event takes one turn",
                    "/2/turn/events",
                    "is",
                    1,
                ),
                check(
                    "The reader is parked in the read slot",
                    "/3/descriptors/1/read",
                    "is",
                    "Parked",
                ),
                check(
                    "The slot holds the reader",
                    "/3/descriptors/1/read_by/name",
                    "is",
                    "reader",
                ),
                check(
                    "The trace, the runtime's record of what it did, shows it too",
                    "/3/happened",
                    "contains",
                    "reader parks",
                ),
                check("Nothing is runnable", "/3/runnable", "is", 0),
                check("The loop may sleep for ever", "/3/sleep", "is", Value::Null),
            ]
        },
    },
    Step {
        title: "Readiness between the try and the park",
        sentence: "Bytes that come after the try and before the park are not lost: the event finds nothing \
                   parked and leaves Ready in the slot; the read looks at the slot first, finds Ready, and tries at once.",
        why: "This gap is where designs of this kind lose wake-ups. The kernel reports an edge once. Had \
              the turn dropped it, the reader would park a moment later and sleep with five bytes in its \
              socket. A slot has three states for this reason: Nil, Ready, Parked.",
        action: "Send 5 bytes into the gap",
        code: &["scene2", "netpollready", "park"],
        scene: |stage| {
            scenes::gap(stage);
            with_a_client(stage)
        },
        act: |stage| {
            stage.send(0, 5)?;
            stage.turn()?;
            stage.open_gate("the reader goes on to its read");
            stage.turn().map(drop)
        },
        checks: || {
            vec![
                check(
                    "Nothing was parked for reading",
                    "/0/descriptors/1/read",
                    "is",
                    "Nil",
                ),
                check("5 bytes lie in the kernel", "/1/descriptors/1/in", "is", 5),
                check(
                    "The event left Ready in the slot",
                    "/2/descriptors/1/read",
                    "is",
                    "Ready",
                ),
                check("That turn ran no machine", "/2/turn/machines", "is", 0),
                check(
                    "The read got the bytes in one turn",
                    "/4/said",
                    "has",
                    "the reader gets 5 bytes, and did not park",
                ),
                check("The kernel has none left", "/4/descriptors/1/in", "is", 0),
            ]
        },
    },
    Step {
        title: "A partial write",
        sentence: "When the kernel takes only a part, the writer parks in the write slot, and an event tells \
                   it when it can go on: it registers nothing again.",
        why: "“Will I be told when I can go on?” Yes. The socket was registered for both directions when \
              it was opened, and stays so. Room in the kernel's buffer is an edge like any other. The \
              writer keeps the rest of its bytes, and its place in them.",
        action: "Write 400,000 bytes to a client that reads late",
        code: &["scene3", "transferred", "park"],
        scene: |stage| {
            scenes::write(stage);
            stage.turns()?;
            stage.connect()?;
            stage.reads(0, false)?;
            stage.prepare()
        },
        act: |stage| {
            stage.open_gate("the writer begins");
            stage.turn()?;
            stage.turn()?;
            stage.reads(0, true)?;
            stage.turn()?;
            stage.turns()
        },
        checks: || {
            vec![
                check(
                    "The writer is parked in the write slot",
                    "/3/descriptors/1/write",
                    "is",
                    "Parked",
                ),
                check(
                    "Bytes wait in the kernel for the client",
                    "/3/descriptors/1/out",
                    "above",
                    0,
                ),
                check(
                    "The client has read less than all by then",
                    "/3/clients/0/got",
                    "below",
                    scenes::MUCH,
                ),
                check("Room is an event", "/5/turn/events", "is", 1),
                check("The writer ran on", "/5/turn/machines", "is", 1),
                check(
                    "The client got everything",
                    "/6/clients/0/got",
                    "is",
                    scenes::MUCH,
                ),
                check(
                    "Nothing was registered again: still 2, as before: listener and connection",
                    "/6/registrations",
                    "is",
                    "/0/registrations",
                ),
            ]
        },
    },
    Step {
        title: "A readiness event must be drained",
        sentence: "The kernel reports five bytes once; a reader that takes two gets no second event, so the \
                   slot stays Ready until a read has emptied the socket, or a park has used it up.",
        why: "With edges, what was reported once has to be remembered. A program that takes two bytes and \
              waits for the next event waits for ever, though three bytes are in the socket. Here the slot \
              remembers. A read that comes back short has emptied the socket, and only then Ready is \
              forgotten.",
        action: "Send 5 bytes to a reader of 2",
        code: &["scene4", "transferred", "drained"],
        scene: |stage| {
            scenes::small_buffer(stage);
            with_a_client(stage)
        },
        act: |stage| {
            stage.send(0, 5)?;
            stage.turn()?;
            stage.turn()?;
            stage.open_gate("the reader reads again");
            stage.turn()?;
            stage.open_gate("the reader reads again");
            stage.turn()?;
            stage.open_gate("the reader reads again");
            stage.turn().map(drop)
        },
        checks: || {
            vec![
                check("The event runs the reader", "/2/turn/events", "is", 1),
                check("Three bytes are left", "/2/descriptors/1/in", "is", 3),
                check("No second event comes for them", "/3/turn/events", "is", 0),
                check(
                    "The slot remembers: Ready",
                    "/3/descriptors/1/read",
                    "is",
                    "Ready",
                ),
                check(
                    "So the next read is tried at once",
                    "/5/descriptors/1/in",
                    "is",
                    1,
                ),
                check(
                    "A short read has emptied the socket: Ready is forgotten",
                    "/7/descriptors/1/read",
                    "is",
                    "Nil",
                ),
                check(
                    "And the reader parks",
                    "/9/descriptors/1/read",
                    "is",
                    "Parked",
                ),
            ]
        },
    },
    Step {
        title: "A deadline moved by a store",
        sentence: "Moving a deadline later is a store into the descriptor: the wheel's entry stays where it \
                   is, and when it comes up the loop finds the later deadline there.",
        why: "A server moves a deadline with every message, and hardly any deadline ever passes. So the \
              wheel is told nothing. It pays with one look in each length of the timeout: at 30 s the entry \
              comes up, nothing has expired, and the entry moves to where the deadline lies now.",
        action: "Send a message after 10 s, then fall silent",
        code: &["scene5", "set_deadline", "netpolldeadlineimpl"],
        scene: |stage| {
            scenes::deadline(stage);
            with_a_client(stage)
        },
        act: |stage| {
            stage.pass(10 * SECOND);
            stage.send(0, 5)?;
            stage.turn()?;
            stage.pass_to_next();
            stage.turn()?;
            stage.pass_to_next();
            stage.turn().map(drop)
        },
        checks: || {
            vec![
                check(
                    "At first the deadline and the entry are the same",
                    "/0/descriptors/1/read_left_seconds",
                    "is",
                    "/0/descriptors/1/timer_seconds",
                ),
                check(
                    "After the message the deadline lies 30 s ahead",
                    "/3/descriptors/1/read_left_seconds",
                    "is",
                    30.0,
                ),
                check(
                    "The entry stays: 20 s ahead",
                    "/3/descriptors/1/timer_seconds",
                    "is",
                    20.0,
                ),
                check(
                    "The trace has the store",
                    "/3/happened",
                    "contains",
                    "the read deadline of socket 1.1 moves to 40 s",
                ),
                check(
                    "The wheel holds no entry more",
                    "/3/entries",
                    "is",
                    "/0/entries",
                ),
                check(
                    "The entry comes up, and nothing expires",
                    "/5/turn/expired",
                    "is",
                    0,
                ),
                check(
                    "It moves to the deadline",
                    "/5/descriptors/1/timer_seconds",
                    "is",
                    "/5/descriptors/1/read_left_seconds",
                ),
                check(
                    "Ten silent seconds later the read ends",
                    "/7/turn/expired",
                    "is",
                    1,
                ),
                check(
                    "It ends with i/o timeout",
                    "/7/said",
                    "contains",
                    "i/o timeout",
                ),
            ]
        },
    },
    Step {
        title: "A stale event is refused",
        sentence: "An event for a connection that is gone must not wake the one that has taken its key: the \
                   token's generation tells them apart.",
        why: "On a runtime of many threads, one may have harvested the event while another closes the \
              connection. Here the stage's selector keeps it back for that long. The event is the kernel's, \
              and what refuses it is the loop. The first client is reset: its 5 bytes were unread at the \
              close.",
        action: "Close and reconnect before the event is handed out",
        code: &["unpark_ready", "token", "open"],
        scene: |stage| {
            scenes::shared(stage);
            with_a_client(stage)
        },
        act: |stage| {
            stage.hold(1);
            stage.send(0, 5)?;
            stage.turn()?;
            stage.close_shared(0)?;
            stage.turn()?;
            stage.connect()?;
            stage.turns()?;
            stage.let_go();
            stage.turn().map(drop)
        },
        checks: || {
            vec![
                check("The selector keeps one event back", "/2/held", "above", 0),
                check(
                    "The reader of the closed connection ends",
                    "/4/said",
                    "contains",
                    "use of closed network connection",
                ),
                check(
                    "The new connection has the same key, and another generation",
                    "/6/descriptors/1/token",
                    "differs",
                    "/0/descriptors/1/token",
                ),
                check(
                    "Its reader is parked",
                    "/6/descriptors/1/read",
                    "is",
                    "Parked",
                ),
                check(
                    "The trace calls the old event stale",
                    "/8/happened",
                    "contains",
                    "stale event of socket 1.1",
                ),
                check("It names no descriptor", "/8/turn/events", "is", 0),
                check("It runs no machine", "/8/turn/machines", "is", 0),
                check(
                    "The new reader waits on",
                    "/8/descriptors/1/read",
                    "is",
                    "Parked",
                ),
            ]
        },
    },
    Step {
        title: "Half-close",
        sentence: "The two directions of a connection end apart: after the client's FIN the server reads the \
                   end of file, and may still write.",
        why: "A FIN says: I send no more. It says nothing about reading. A hang-up event means: the peer has \
              sent a FIN or a RST. The connection moves from Open to \
              PeerEnded in a table that is pure: an event in, the next state out. A second later the server \
              says good-bye, and closes once that is sent.",
        action: "Send 5 bytes and end the client's direction",
        code: &["scene7", "state", "netpollready"],
        scene: |stage| {
            scenes::echo(stage)?;
            with_a_client(stage)
        },
        act: |stage| {
            stage.send(0, 5)?;
            stage.end(0)?;
            stage.turn()?;
            stage.pass(SECOND);
            stage.turns()
        },
        checks: || {
            vec![
                check(
                    "The connection is open",
                    "/0/descriptors/1/connection/state",
                    "is",
                    "Open",
                ),
                check(
                    "Then the peer has ended",
                    "/3/descriptors/1/connection/state",
                    "is",
                    "PeerEnded",
                ),
                check(
                    "The 5 bytes came back all the same",
                    "/3/clients/0/got",
                    "is",
                    5,
                ),
                check(
                    "A second later the good-bye came too: 13 bytes, 5 echoed and 8 of \"good-bye\"",
                    "/5/clients/0/got",
                    "is",
                    5 + scenes::GOODBYE.len(),
                ),
                check(
                    "Then the client reads the end of file",
                    "/5/clients/0/state",
                    "is",
                    "has read the end of file",
                ),
                check("The descriptor is gone", "/5/connections", "is", 0),
            ]
        },
    },
    Step {
        title: "Back-pressure",
        sentence: "A peer that does not read is not read from: the server's queue stops growing, the kernel's \
                   buffers fill, and at last the client's own write says EAGAIN.",
        why: "A server that reads on while it cannot send keeps more and more. So above a high-water mark (here 32,768 bytes) \
              the connection waits for room alone. The pressure goes back through both kernels to where the \
              bytes come from. Once the peer reads, all of it flows again.",
        action: "Flood the server without reading",
        code: &["scene8", "is_full", "flush"],
        scene: |stage| {
            scenes::echo(stage)?;
            stage.turns()?;
            stage.connect()?;
            stage.reads(0, false)?;
            stage.prepare()
        },
        act: |stage| {
            for _ in 0..4 {
                stage.send(0, 200_000)?;
                stage.turns()?;
            }
            stage.reads(0, true)?;
            stage.turns()
        },
        checks: || {
            vec![
                check(
                    "Bytes are queued in the server, above the mark of 32,768",
                    "/8/descriptors/1/connection/queued_bytes",
                    "above",
                    scenes::HIGH_WATER,
                ),
                check(
                    "They are bounded: the mark and one read",
                    "/8/descriptors/1/connection/queued_bytes",
                    "below",
                    scenes::HIGH_WATER + (64 << 10) + 1,
                ),
                check(
                    "The connection waits for room",
                    "/8/descriptors/1/write",
                    "is",
                    "Parked",
                ),
                check(
                    "It does not wait for bytes",
                    "/8/descriptors/1/read_by",
                    "is",
                    Value::Null,
                ),
                check(
                    "Unread bytes lie in the server's kernel",
                    "/8/descriptors/1/in",
                    "above",
                    0,
                ),
                check(
                    "The client's write says EAGAIN",
                    "/7/did",
                    "contains",
                    "EAGAIN",
                ),
                check(
                    "Once it reads, everything comes back",
                    "/10/clients/0/got",
                    "is",
                    "/10/clients/0/sent",
                ),
                check(
                    "Nothing is queued any more",
                    "/10/descriptors/1/connection/queued_bytes",
                    "is",
                    0,
                ),
            ]
        },
    },
    Step {
        title: "A storm of timers",
        sentence: "Four thousand five hundred sleeps end in the same millisecond: a turn fires a portion, runs a batch, and \
                   asks the kernel again before it goes on.",
        why: "A loop that fired them all at once would keep its sockets waiting. A turn hands out 4,096 entries \
              of a wheel at most, and runs 1,024 machines at most. A \
              heartbeat is a message that the server sends (here a ping) when nothing has come from the peer \
              for an interval. The heartbeats of connections that were opened together are spread, so that \
              they make no storm.",
        action: "Let the second pass",
        code: &["expire", "batch", "spread"],
        scene: |stage| {
            scenes::beating(stage)?;
            stage.turns()?;
            for _ in 0..4 {
                stage.connect()?;
            }
            stage.turns()?;
            scenes::sleepers(stage);
            stage.prepare()
        },
        act: |stage| {
            stage.pass(SECOND);
            stage.turn()?;
            stage.send(0, 5)?;
            stage.turn()?;
            stage.turn()?;
            stage.turns()
        },
        checks: || {
            vec![
                check(
                    "4,500 machines sleep, and 5 others wait",
                    "/0/parked",
                    "is",
                    scenes::STORM + 5,
                ),
                check(
                    "The first turn fires a portion of them",
                    "/2/turn/expired",
                    "below",
                    4097,
                ),
                check("And not only a batch", "/2/turn/expired", "above", 1024),
                check("It runs a batch", "/2/turn/machines", "is", 1024),
                check(
                    "There is more to do, so the next turn does not sleep",
                    "/2/turn/more",
                    "is",
                    true,
                ),
                check(
                    "In the midst of it the kernel is asked: a message has come",
                    "/4/turn/events",
                    "above",
                    0,
                ),
                check(
                    "The second turn fires the rest",
                    "/4/turn/expired",
                    "above",
                    0,
                ),
                check(
                    "All have run, and the message is answered",
                    "/6/clients/0/got",
                    "is",
                    5,
                ),
                check(
                    "The next heartbeats of four connections lie apart",
                    "/6/beats",
                    "distinct",
                    4,
                ),
            ]
        },
    },
    Step {
        title: "Drain",
        sentence: "A server that is told to end closes its port and its idle connections at once, and lets the \
                   one that is busy take its last bytes.",
        why: "One client is idle. The other has sent a message and has not read the whole answer. The drain \
              closes the first, and waits for the second, within its limit. After the last byte it waits one \
              second more, in case the client answers: the grace of a drain. Then the connection is closed, the \
              server's task ends, and nothing is left in the runtime.",
        action: "Drain the server",
        code: &["scene10", "drain", "in_flight"],
        scene: |stage| {
            scenes::echo(stage)?;
            stage.turns()?;
            stage.connect()?;
            stage.connect()?;
            stage.reads(1, false)?;
            stage.turns()?;
            for _ in 0..3 {
                stage.send(1, 200_000)?;
                stage.turns()?;
            }
            stage.pass(5 * SECOND);
            stage.prepare()
        },
        act: |stage| {
            stage.drain()?;
            stage.turns()?;
            stage.reads(1, true)?;
            stage.turns()?;
            stage.pass(2 * SECOND);
            stage.turns()
        },
        checks: || {
            vec![
                check("Two connections are open", "/0/connections", "is", 2),
                check("The idle one is closed at once", "/2/connections", "is", 1),
                check(
                    "Its client reads the end of file",
                    "/2/clients/0/state",
                    "is",
                    "has read the end of file",
                ),
                check(
                    "The port is closed too: one descriptor is left",
                    "/2/descriptors",
                    "distinct",
                    1,
                ),
                check(
                    "The busy client gets all of its answer",
                    "/6/clients/1/got",
                    "is",
                    "/6/clients/1/sent",
                ),
                check(
                    "And then the end of file",
                    "/6/clients/1/state",
                    "is",
                    "has read the end of file",
                ),
                check("The server's task has ended", "/6/served", "is", true),
                check("No descriptor is left", "/6/descriptors", "distinct", 0),
            ]
        },
    },
];
