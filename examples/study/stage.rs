//! The stage: a runtime that moves only when it is told to, with a clock that stands still, and clients
//! that are plain sockets. Each thing that is done gives a *frame*: what the loop did, and what it looks
//! like now.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netpoller::reactor::{Break, Event, Harvest, MioSelector, Readiness, Selector, Token, Traits};
use netpoller::trace::Record;
use netpoller::{JoinHandle, Runtime, ServerHandle, ServerStats, Turn};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::happened::{self, Names, Queue};

/// The kernel's buffers of each socket, so that they are full soon.
const BUFFER: usize = 32 << 10;
/// Machines that a frame lists. The others are counted.
const LISTED: usize = 24;
/// Bytes that one command sends at most.
pub const MOST_BYTES: usize = 1 << 20;
/// Clients at once.
pub const MOST_CLIENTS: usize = 8;
/// Turns that "Turns until it is quiet" takes at most.
const MOST_TURNS: usize = 64;
/// The ring of the trace, in bytes: a frame's records fit.
const TRACE: usize = 4 << 20;
/// All that the ring holds.
const ALL: Duration = Duration::from_secs(1 << 30);

/// What the selector saw.
#[derive(Default)]
pub struct Seen {
    /// The descriptors that are open, by key.
    open: BTreeMap<usize, (Token, RawFd)>,
    /// Registrations so far: a socket has one, however often it waits.
    registrations: usize,
    /// The source that has its events kept back.
    hold: Option<Token>,
    held: Vec<Event>,
}

/// The system's selector, watched. It may keep an event back, like a thread that has harvested it and
/// not handed it out yet.
struct Watched {
    system: MioSelector,
    seen: Rc<RefCell<Seen>>,
}

impl Selector for Watched {
    fn open(&mut self, source: &mut dyn mio::event::Source, token: Token) -> io::Result<()> {
        self.open_fd(source, token, None)
    }

    fn open_fd(
        &mut self,
        source: &mut dyn mio::event::Source,
        token: Token,
        fd: Option<RawFd>,
    ) -> io::Result<()> {
        self.system.open_fd(source, token, fd)?;
        let mut seen = self.seen.borrow_mut();
        seen.registrations += 1;
        seen.open.insert(key_of(token), (token, fd.unwrap_or(-1)));
        Ok(())
    }

    fn rearm(
        &mut self,
        source: &mut dyn mio::event::Source,
        token: Token,
        interest: Readiness,
    ) -> io::Result<()> {
        self.system.rearm(source, token, interest)
    }

    fn close(&mut self, source: &mut dyn mio::event::Source) -> io::Result<()> {
        self.system.close(source)
    }

    fn netpoll(&mut self, wait: Option<Duration>, out: &mut Vec<Event>) -> io::Result<Harvest> {
        let mut found = Vec::new();
        let mut harvest = self.system.netpoll(wait, &mut found)?;
        let mut seen = self.seen.borrow_mut();
        match seen.hold {
            Some(token) => {
                let held = found.extract_if(.., |event| event.token == token);
                let held: Vec<Event> = held.collect();
                seen.held.extend(held);
            }
            None => found.append(&mut seen.held),
        }
        if !seen.held.is_empty() {
            harvest = Harvest::Partial;
        }
        out.append(&mut found);
        Ok(harvest)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        self.system.breaker()
    }

    fn traits(&self) -> Traits {
        self.system.traits()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None // It does not tell of what is kept back.
    }
}

/// `3.7`: the key, and the generation.
fn name(token: Token) -> String {
    bare(&format!("{token:?}")).to_owned()
}

fn key_of(token: Token) -> usize {
    let name = name(token);
    let key = name.split('.').next().and_then(|key| key.parse().ok());
    key.unwrap_or(usize::MAX)
}

/// A client: a socket of this thread that the runtime knows nothing of.
struct Client {
    name: char,
    socket: Option<TcpStream>,
    port: u16,
    reads: bool,
    sent: usize,
    got: usize,
    state: &'static str,
}

/// A task of the stage waits here until the stage opens it.
#[derive(Default)]
pub struct Gate {
    passes: Cell<usize>,
    waker: Cell<Option<std::task::Waker>>,
}

impl Gate {
    pub async fn pass(&self) {
        std::future::poll_fn(|cx| match self.passes.get().checked_sub(1) {
            Some(left) => {
                self.passes.set(left);
                std::task::Poll::Ready(())
            }
            None => {
                self.waker.set(Some(cx.waker().clone()));
                std::task::Poll::Pending
            }
        })
        .await;
    }

    fn is_waited_at(&self) -> bool {
        let waker = self.waker.take();
        let is_waited_at = waker.is_some();
        self.waker.set(waker);
        is_waited_at
    }

    fn open(&self) {
        self.passes.set(self.passes.get() + 1);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What the tasks of the stage say, for the frame.
#[derive(Clone, Default)]
pub struct Say(Rc<RefCell<Vec<String>>>);

impl Say {
    pub fn say(&self, what: String) {
        self.0.borrow_mut().push(what);
    }
}

pub struct Stage {
    pub runtime: Runtime,
    seen: Rc<RefCell<Seen>>,
    clock: Rc<Cell<Duration>>,
    pub say: Say,
    pub gate: Rc<Gate>,
    /// Streams that a task of the stage shares, so that the stage can close them.
    pub shared: Rc<RefCell<Vec<netpoller::TcpStream>>>,
    addr: SocketAddr,
    listener: Option<TcpListener>,
    pub server: Option<ServerHandle>,
    pub serving: Option<JoinHandle<io::Result<ServerStats>>>,
    clients: Vec<Client>,
    /// Records of the trace that earlier frames have shown.
    recorded: u64,
    names: Names,
    queue: Queue,
    frames: Vec<Value>,
}

impl Stage {
    pub fn new() -> io::Result<Self> {
        let (seen, clock) = (Rc::<RefCell<Seen>>::default(), Rc::<Cell<_>>::default());
        let selector = Watched {
            system: MioSelector::new()?,
            seen: seen.clone(),
        };
        let (base, passed) = (Instant::now(), clock.clone());
        let runtime = Runtime::builder()
            .selector(Box::new(selector))
            .clock(move || base + passed.get())
            .trace(TRACE)
            .build()?;
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // The sockets that it accepts have these from it.
        listener.set_recv_buffer_size(BUFFER)?;
        listener.set_send_buffer_size(BUFFER)?;
        listener.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
        listener.listen(16)?;
        let listener = TcpListener::from(listener);
        let addr = listener.local_addr()?;
        Ok(Stage {
            runtime,
            seen,
            clock,
            say: Say::default(),
            gate: Rc::default(),
            shared: Rc::default(),
            addr,
            listener: Some(listener),
            server: None,
            serving: None,
            clients: Vec::new(),
            recorded: 0,
            names: Names::new(),
            queue: Queue::default(),
            frames: Vec::new(),
        })
    }

    /// The listening socket, for the server of the scene.
    pub fn listener(&mut self) -> TcpListener {
        self.listener.take().expect("a scene has one server")
    }

    /// What stood before, and the frames since.
    pub fn take_frames(&mut self) -> Vec<Value> {
        let last = self.frames.last().cloned();
        std::mem::replace(&mut self.frames, last.into_iter().collect())
    }

    // ---- what a reader may do ----

    /// One turn of the loop, which does not wait.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let turn = self.turn_unseen()?;
        self.frame("turn", "one turn of the loop".to_owned(), Some(turn));
        Ok(turn)
    }

    fn turn_unseen(&mut self) -> io::Result<Turn> {
        let turn = self.runtime.turn(Some(Duration::ZERO))?;
        self.settle();
        Ok(turn)
    }

    /// Turns until nothing is runnable and nothing comes, as one frame.
    pub fn turns(&mut self) -> io::Result<()> {
        let mut all = Turn::default();
        let mut count = 0;
        for _ in 0..MOST_TURNS {
            let turn = self.turn_unseen()?;
            count += 1;
            all.events += turn.events;
            all.machines += turn.machines;
            all.expired += turn.expired;
            all.more = turn.more;
            if turn.events + turn.machines + turn.expired == 0 && !turn.more {
                break;
            }
        }
        let did = match count {
            1 => "one turn of the loop, in vain".to_owned(),
            count => format!("{count} turns of the loop, the last in vain"),
        };
        self.frame("turns", did, Some(all));
        Ok(())
    }

    /// As [`Stage::turns`], for what stands before the first frame that is shown.
    pub fn prepare(&mut self) -> io::Result<()> {
        self.turns()?;
        self.frames.clear();
        self.frame("scene", "the scene before the action".to_owned(), None);
        Ok(())
    }

    /// A new client.
    pub fn connect(&mut self) -> io::Result<usize> {
        let index = self.clients.len();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        // To an address of this computer, the kernel answers by itself, at once.
        socket.connect(&SockAddr::from(self.addr))?;
        socket.set_nonblocking(true)?;
        let socket = TcpStream::from(socket);
        let name = (b'A' + index as u8) as char;
        self.clients.push(Client {
            name,
            port: socket.local_addr()?.port(),
            socket: Some(socket),
            reads: true,
            sent: 0,
            got: 0,
            state: "open",
        });
        self.settle();
        self.frame("client", format!("client {name} connects"), None);
        Ok(index)
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Why no client may connect.
    pub fn may_connect(&self) -> Result<(), String> {
        match self.clients.len() {
            MOST_CLIENTS => Err("there are enough clients".to_owned()),
            // A listener that is closed would refuse.
            _ if self.serving.as_ref().is_some_and(JoinHandle::is_finished) => {
                Err("the server has ended".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Why the server may not be drained.
    pub fn may_drain(&self) -> Result<(), String> {
        match self.server.is_some() {
            true => Ok(()),
            false => Err("this scene has no server to drain".to_owned()),
        }
    }

    fn client(&mut self, index: usize) -> io::Result<&mut Client> {
        let client = self.clients.get_mut(index);
        client.ok_or_else(|| io::Error::other("there is no such client"))
    }

    /// The client sends what the kernel takes of these bytes.
    pub fn send(&mut self, index: usize, bytes: usize) -> io::Result<()> {
        let client = self.client(index)?;
        let name = client.name;
        let block = vec![b'.'; bytes.min(MOST_BYTES)];
        let (mut rest, mut why) = (&block[..], String::new());
        while !rest.is_empty() {
            let Some(mut socket) = client.socket.as_ref() else {
                why = " (it is closed)".to_owned();
                break;
            };
            match socket.write(rest) {
                Ok(took) => rest = &rest[took..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    why = ", then EAGAIN".to_owned();
                    break;
                }
                Err(error) => {
                    why = format!(", then: {error}");
                    break;
                }
            }
        }
        let took = block.len() - rest.len();
        client.sent += took;
        let did = match rest.len() {
            0 => format!("client {name} sends {} bytes", grouped(took)),
            _ => format!(
                "client {name} sends {} of {} bytes{why}",
                grouped(took),
                grouped(bytes)
            ),
        };
        self.settle();
        self.frame("client", did, None);
        Ok(())
    }

    /// The client reads all that comes from now on, or nothing.
    pub fn reads(&mut self, index: usize, reads: bool) -> io::Result<()> {
        let client = self.client(index)?;
        client.reads = reads;
        let does = if reads { "reads" } else { "stops reading" };
        let did = format!("client {} {does}", client.name);
        self.settle();
        self.frame("client", did, None);
        Ok(())
    }

    /// The client sends no more: a FIN.
    pub fn end(&mut self, index: usize) -> io::Result<()> {
        let client = self.client(index)?;
        if let Some(socket) = &client.socket {
            socket.shutdown(Shutdown::Write)?;
            client.state = "has ended its direction";
        }
        let did = format!("client {} ends its direction: a FIN", client.name);
        self.settle();
        self.frame("client", did, None);
        Ok(())
    }

    /// The client is gone: a RST.
    pub fn reset(&mut self, index: usize) -> io::Result<()> {
        let client = self.client(index)?;
        if let Some(socket) = client.socket.take() {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            client.state = "has reset the connection";
        }
        let did = format!("client {} resets the connection: a RST", client.name);
        self.settle();
        self.frame("client", did, None);
        Ok(())
    }

    /// The clock of the stage moves.
    pub fn pass(&mut self, time: Duration) {
        self.clock.set(self.clock.get() + time);
        self.frame("clock", format!("{} pass", seconds(time)), None);
    }

    /// The clock of the stage moves to the time at which the loop would wake by itself.
    pub fn pass_to_next(&mut self) {
        match self.runtime.next_timeout() {
            Some(time) => self.pass(time),
            None => self.frame(
                "clock",
                "no deadline is set: nothing to wait for".to_owned(),
                None,
            ),
        }
    }

    pub fn open_gate(&mut self, did: &str) {
        self.gate.open();
        self.frame("task", did.to_owned(), None);
    }

    /// From now on the selector keeps what it finds for this descriptor.
    pub fn hold(&mut self, key: usize) {
        let mut seen = self.seen.borrow_mut();
        seen.hold = seen.open.get(&key).map(|(token, _)| *token);
    }

    pub fn let_go(&mut self) {
        self.seen.borrow_mut().hold = None;
        let did = "the selector will give the old event out in the next turn".to_owned();
        self.frame("kernel", did, None);
    }

    pub fn close_shared(&mut self, index: usize) -> io::Result<()> {
        let stream = self.shared.borrow().get(index).cloned();
        if let Some(stream) = stream {
            stream.close()?;
        }
        self.settle();
        self.frame(
            "task",
            "the server closes the first connection".to_owned(),
            None,
        );
        Ok(())
    }

    pub fn drain(&mut self) -> io::Result<()> {
        if let Some(server) = &self.server {
            server.drain(Duration::from_secs(30));
        }
        self.frame(
            "task",
            "the server is told to drain, within 30 s".to_owned(),
            None,
        );
        Ok(())
    }

    // ---- the world around ----

    /// Lets the clients read, and waits until what was sent over loopback has arrived.
    ///
    /// The kernel carries bytes from one socket to the other by itself, a moment later at times. The
    /// stage's turns do not wait, so this does.
    fn settle(&mut self) {
        let mut before = Vec::new();
        let mut same = 0;
        for _ in 0..400 {
            let mut left = Vec::new();
            for client in &mut self.clients {
                client.read();
                let fd = client.socket.as_ref().map(|socket| socket.as_raw_fd());
                left.extend(fd.map(|fd| [queued(fd), unread(fd)]));
            }
            let open = self.seen.borrow();
            let fds = open.open.values().map(|&(_, fd)| fd);
            left.extend(fds.filter(|&fd| fd >= 0).map(|fd| [queued(fd), unread(fd)]));
            let is_underway = left.iter().any(|[queued, _]| *queued > 0);
            same = if left == before { same + 1 } else { 0 };
            // A peer that does not read may leave bytes queued for ever; one that reads
            // acknowledges them within 40 ms.
            if same > if is_underway { 60 } else { 1 } {
                return;
            }
            before = left;
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The descriptors that were closed since are forgotten.
    fn forget_closed(&self, listed: &[Value]) {
        let is_listed = |token: Token| listed.iter().any(|entry| entry["token"] == name(token));
        let mut seen = self.seen.borrow_mut();
        seen.open.retain(|_, (token, _)| is_listed(*token));
    }

    // ---- a frame ----

    /// Adds what the loop did since the last frame, and what it looks like now.
    pub fn frame(&mut self, kind: &str, did: String, turn: Option<Turn>) {
        let dump: Value = serde_json::from_str(&self.runtime.dump().to_json()).unwrap_or_default();
        let listed = sockets(&dump);
        self.forget_closed(&listed);
        let said = std::mem::take(&mut *self.say.0.borrow_mut());
        let machines = dump["machines"].as_array().cloned().unwrap_or_default();
        for machine in &machines {
            let of = label(machine);
            let text = |name: &str| of[name].as_str().unwrap_or_default().to_owned();
            self.names.insert(text("id"), text("name"));
        }
        let descriptors = listed.iter().map(|entry| self.descriptor(entry, &machines));
        let descriptors: Vec<Value> = descriptors.collect();
        let records = self.new_records();
        self.queue.take_in(&records);
        let mut happened = happened::list(
            &records,
            &self.names,
            &self.at_gate(&dump, &descriptors),
            &said,
        );
        // An entry that comes up and moves on concerns no machine, so the trace does not have it.
        let before = self.frames.last().map(|frame| frame["descriptors"].clone());
        for one in before.iter().filter_map(Value::as_array).flatten() {
            let now = descriptors.iter().find(|now| now["token"] == one["token"]);
            let left = now.and_then(|now| now["timer_seconds"].as_f64());
            if let Some(left) = left.filter(|&left| left > 0.0 && one["timer_seconds"] == 0.0) {
                let token = one["token"].as_str().unwrap_or_default();
                let left = seconds(Duration::from_secs_f64(left));
                let say = format!("the entry of socket {token} comes up, and moves on by {left}");
                happened.push(json!({ "box": "netpolldeadlineimpl", "say": say }));
            }
        }
        let stats = self.runtime.stats();
        let runnable = machines
            .iter()
            .filter(|machine| machine["status"] == "runnable");
        let runnable: HashMap<&str, Value> = runnable
            .map(|machine| (machine["id"].as_str().unwrap_or_default(), label(machine)))
            .collect();
        let queue = self
            .queue
            .ids()
            .filter_map(|id| runnable.get(id.as_str()).cloned());
        let frame = json!({
            "kind": kind,
            "did": did,
            "turn": turn.map(|turn| json!({
                "events": turn.events, "machines": turn.machines, "expired": turn.expired, "more": turn.more,
            })),
            "happened": happened,
            "now": self.clock.get().as_secs_f64(),
            "sleep": self.runtime.next_timeout().map(|time| time.as_secs_f64()),
            "runnable": runnable.len(),
            "queue": queue.take(LISTED).collect::<Vec<_>>(),
            "parked": machines.iter().filter(|machine| machine["status"] == "parked").count(),
            "descriptors": descriptors,
            "timers": timers(&machines),
            "entries": stats.places,
            "registrations": self.seen.borrow().registrations,
            "held": self.seen.borrow().held.len(),
            "clients": self.clients.iter().map(Client::shown).collect::<Vec<_>>(),
            "beats": machines.iter().filter_map(|machine| machine.get("heartbeat_in_seconds")).collect::<Vec<_>>(),
            "connections": stats.connections,
            "served": self.serving.as_ref().is_some_and(JoinHandle::is_finished),
            "machines": machines.iter().take(LISTED).collect::<Vec<_>>(),
            "said": said,
        });
        self.frames.push(frame);
    }

    /// The machines that wait, but in no slot, in a scene with a gate that is waited at.
    fn at_gate(&self, dump: &Value, descriptors: &[Value]) -> Vec<String> {
        if !self.gate.is_waited_at() {
            return Vec::new();
        }
        let machines = dump["machines"].as_array().into_iter().flatten();
        let waits = machines.filter(|machine| {
            let is_in_slot = |one: &Value| {
                ["read_by", "write_by"]
                    .iter()
                    .any(|by| one[by]["id"] == machine["id"])
            };
            machine["status"] == "parked" && !descriptors.iter().any(is_in_slot)
        });
        let ids = waits.filter_map(|machine| machine["id"].as_str());
        ids.map(str::to_owned).collect()
    }

    /// What the dump says of a descriptor, the machine that waits on it, and the bytes in the kernel.
    fn descriptor(&self, entry: &Value, machines: &[Value]) -> Value {
        let mut shown = entry.clone();
        let seen = self.seen.borrow();
        let token = entry["token"].as_str().unwrap_or_default();
        let known = seen.open.values().find(|(open, _)| name(*open) == token);
        // A listening socket has no queues.
        let is_stream = !entry["peer"].is_null();
        if let Some(&(_, fd)) = known.filter(|(_, fd)| is_stream && *fd >= 0) {
            shown["in"] = unread(fd).into();
            shown["out"] = queued(fd).into();
        }
        let same = |one: &Value| one["local"] == entry["local"] && one["peer"] == entry["peer"];
        for machine in machines {
            if machine["kind"] == "connection" && same(machine) {
                shown["connection"] = machine.clone();
            }
            for wait in machine["waits"].as_array().into_iter().flatten() {
                let side = match wait["on"].as_str() {
                    Some("read" | "accept") => "read_by",
                    Some("write" | "connect") => "write_by",
                    _ => continue,
                };
                // A wait leaves out what its machine's entry says already.
                if same(wait) || (wait["local"].is_null() && same(machine)) {
                    shown[side] = label(machine);
                }
            }
        }
        let port = entry["peer"]
            .as_str()
            .and_then(|peer| peer.rsplit(':').next());
        let client = self
            .clients
            .iter()
            .find(|client| Some(client.port.to_string().as_str()) == port);
        shown["client"] = client.map(|client| client.name.to_string()).into();
        shown
    }

    /// What the trace has since the last frame.
    fn new_records(&mut self) -> Vec<Record> {
        let trace = self.runtime.handle().trace_last(ALL).unwrap_or_default();
        let mut records = trace.records;
        records.retain(|record| record.number >= self.recorded);
        self.recorded = records.last().map_or(self.recorded, |last| last.number + 1);
        records
    }
}

/// The descriptors by their keys. A token is written as in the log: `Token(3.7)`.
fn sockets(dump: &Value) -> Vec<Value> {
    let mut sockets = dump["sockets"].as_array().cloned().unwrap_or_default();
    for socket in &mut sockets {
        let token = socket["token"].as_str().unwrap_or_default();
        socket["token"] = bare(token).into();
    }
    sockets
}

fn bare(token: &str) -> &str {
    token.trim_start_matches("Token(").trim_end_matches(')')
}

/// `1.2 reader`: the name of a machine in the pictures.
fn label(machine: &Value) -> Value {
    let id = machine["id"].as_str().unwrap_or("");
    let name = machine["name"].as_str().or(machine["kind"].as_str());
    json!({ "id": id, "name": name.unwrap_or("") })
}

/// Sleeps, and timers that judge a peer: until when, and how many machines.
fn timers(machines: &[Value]) -> Vec<Value> {
    let mut at: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for machine in machines {
        for wait in machine["waits"].as_array().into_iter().flatten() {
            let on = wait["on"].as_str().unwrap_or_default();
            if matches!(on, "sleep" | "timer") {
                let left = wait["left_seconds"].as_f64().unwrap_or_default();
                let left = (left * 1000.0).round() as u64;
                *at.entry((on.to_owned(), left)).or_default() += 1;
            }
        }
    }
    let timers = at.into_iter().take(LISTED);
    timers
        .map(|((on, left), count)| json!({ "on": on, "left_ms": left, "count": count }))
        .collect()
}

impl Client {
    /// Reads what has come, if it reads.
    fn read(&mut self) {
        let mut block = [0; 16 << 10];
        while let Some(mut socket) = self.socket.as_ref().filter(|_| self.reads) {
            match socket.read(&mut block) {
                Ok(0) => {
                    if self.state == "open" || self.state == "has ended its direction" {
                        self.state = "has read the end of file";
                    }
                    return;
                }
                Ok(count) => self.got += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.state = "was reset";
                    self.socket = None;
                }
            }
        }
    }

    fn shown(&self) -> Value {
        let fd = self.socket.as_ref().map(|socket| socket.as_raw_fd());
        json!({
            "name": self.name.to_string(),
            "reads": self.reads,
            "sent": self.sent,
            "got": self.got,
            "state": self.state,
            "in": fd.map(unread),
            "out": fd.map(queued),
        })
    }
}

pub fn seconds(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// `200,000`.
pub fn grouped(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1000), number % 1000),
    }
}

// ---- the kernel's queues ----

/// How many bytes the kernel has in a queue of a socket. A listening socket has none.
macro_rules! ask {
    ($fd:expr, $request:expr) => {{
        let mut count: libc::c_int = 0;
        // SAFETY: both requests write one int.
        match unsafe { libc::ioctl($fd, $request, &mut count) } {
            0 => count.max(0) as usize,
            _ => 0,
        }
    }};
}

/// Bytes that have come and were not read: SIOCINQ.
fn unread(fd: RawFd) -> usize {
    ask!(fd, libc::FIONREAD)
}

/// Bytes that the peer's kernel has not acknowledged: SIOCOUTQ.
fn queued(fd: RawFd) -> usize {
    ask!(fd, libc::TIOCOUTQ)
}
