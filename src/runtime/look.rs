//! Makes a dump, in the loop's thread and in portions: reads tables, polls nothing, and runs no code of
//! the user's but a clock and a selector's break that were given.
//!
//! ```text
//!   PORTION keys of each table: machines, descriptors, timers, notes ──► the next keys ──► … ──► `finish`
//!   (a portion)                                                                   (on the asking thread)
//! ```
//!
//! Most tables name the machine that waits by its id. A table that keeps a waker names it by the
//! waker's address, which all clones share. `finish` finds the machine of each address. A machine that
//! runs between two portions may be seen parked in one and ended in the other.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::mem;
use std::ops::Range;
use std::pin::pin;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use super::context::{MachineId, ParkKey, Waiter};
use super::current;
use super::dump::{Dump, Entry, Value};
use super::handle::Handle;
use super::scheduler::Scheduler;
use super::socket::Socket;
use super::stats::Figures;
use super::sync;
use super::waker::{Job, Remote};
use crate::endpoints::{End, Network};
use crate::reactor::{Direction, PollDesc};

/// Keys of each table that are looked at in one portion, which takes well under a millisecond.
const PORTION: usize = 64;

/// Pairs for which an entry has room: the loop puts in no more.
const PAIRS: usize = 14;

/// At most this many entries are made before the loop is asked: 22 MB. The loop makes all others.
const BLANKS: usize = 32_768;

/// A dump that is being made.
#[derive(Default)]
pub(super) struct Look {
    dump: Dump,
    /// For each machine: the two names under which its waits appear, its id and its waker.
    known_as: Vec<[Option<Waiter>; 2]>,
    waits: Vec<Wait>,
    /// The first key of the next portion.
    next: usize,
    /// Entries for the loop to fill.
    blank: Vec<Entry>,
}

/// The waiter, what it waits for, the index of its socket, the time left, and the waiter before it.
type Wait = (
    Waiter,
    &'static str,
    Option<usize>,
    Option<Value>,
    Option<Waiter>,
);

pub(crate) fn until(end: Option<Instant>, now: Instant) -> Option<Value> {
    end.map(|end| Value::Time(end.saturating_duration_since(now)))
}

// ---- what is in no table of its own ----

/// What stands in a runtime's table of notes, for its dumps.
pub(crate) enum Noted {
    /// What waits, and for what.
    Wait(Waiter, &'static str),
    /// An accept loop, which describes itself when it is called.
    Listener(Box<dyn Fn(Instant) -> Entry>),
}

/// An entry in the current runtime's table of notes. Dropping it removes the entry.
#[derive(Default)]
pub(crate) struct Note(Option<(Handle, usize)>);

impl Note {
    pub(crate) fn new(noted: Noted) -> Self {
        Note(current::try_with(|scheduler| {
            let key = scheduler.notes.borrow_mut().insert(noted);
            (scheduler.handle(), key)
        }))
    }

    /// Notes that a future waits with this waker.
    pub(crate) fn waits(&mut self, waker: &Waker, on: &'static str) {
        let noted = || Noted::Wait(Waiter::waker(waker), on);
        let renew = |(home, key): &(Handle, usize)| {
            home.if_here(|scheduler| scheduler.notes.borrow_mut()[*key] = noted())
        };
        // Written over in place where it can be: many futures are polled for each message.
        if self.0.as_ref().and_then(renew).is_none() {
            *self = Note::new(noted());
        }
    }
}

/// A future, with a note while it waits.
pub(crate) async fn noted<F: Future>(on: &'static str, future: F) -> F::Output {
    let (mut future, mut note) = (pin!(future), Note::default());
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() {
            note.waits(cx.waker(), on);
        }
        polled
    })
    .await
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some((home, key)) = self.0.take() {
            home.tell(move |scheduler| {
                scheduler.notes.borrow_mut().try_remove(key);
            });
        }
    }
}

impl Look {
    /// On the asking thread, makes room for what lives, as the last turn has published it. In the loop,
    /// malloc would go through all small pieces that were freed with the last dump, which takes more than
    /// a millisecond.
    fn reserve(&mut self, figures: &Figures) {
        let machines = (figures.tasks.get() + figures.connections.get()) as usize + 1;
        let sockets = figures.descriptors.get() as usize;
        self.dump.machines.reserve(machines);
        self.dump.sockets.reserve(sockets);
        self.known_as.reserve(machines);
        self.waits.reserve(machines + sockets);
        let blank = || Entry(Vec::with_capacity(PAIRS));
        let blanks = BLANKS.min(machines + sockets);
        self.blank.resize_with(blanks, blank);
    }

    fn blank(&mut self) -> Entry {
        self.blank.pop().unwrap_or_default()
    }

    /// Looks at one portion. False if there are no more.
    fn portion(&mut self, scheduler: &Scheduler) -> bool {
        let keys = self.next..self.next + PORTION;
        self.next = keys.end;
        let core = &scheduler.reactor.core;
        let now = core.clock.read();
        let mut more = self.machines(scheduler, keys.clone());
        let registry = core.registry.borrow();
        more |= keys.end < registry.capacity();
        let sockets = keys.clone().filter_map(|key| registry.get(key));
        sockets.for_each(|desc| self.socket(desc, now));
        let mut count = 0;
        for (timers, on) in [(&core.timers, "sleep"), (&core.peer_timers, "timer")] {
            let timers = timers.borrow();
            count += timers.len();
            more |= timers.for_each_in(keys.clone(), |when, parked| {
                let left = until(Some(core.clock.instant_of(when)), now);
                let wait = |waiter| (waiter, on, None, left, None);
                self.waits.extend(parked.waiter().map(wait));
            });
        }
        let notes = scheduler.notes.borrow();
        more |= keys.end < notes.capacity();
        for noted in keys.filter_map(|key| notes.get(key)) {
            match noted {
                Noted::Wait(waiter, on) => self.waits.push((*waiter, on, None, None, None)),
                Noted::Listener(look) => self.dump.listeners.push(look(now)),
            }
        }
        if !more {
            let descriptors = scheduler.reactor.descriptors();
            let runtime = &mut self.dump.runtime;
            runtime
                .put("loop", Value::text("answered"))
                .put("descriptors", Value::Number(descriptors))
                .put("timers", Value::Number(count));
            put_mail(runtime, &scheduler.remote);
        }
        more
    }

    fn machines(&mut self, scheduler: &Scheduler, keys: Range<usize>) -> bool {
        let (running, now) = (&scheduler.remote.running, scheduler.reactor.now());
        let machines = scheduler.machines.borrow();
        machines.for_each_in(keys, |id, body, is_queued| {
            let root = scheduler.root_waker.get();
            if id == MachineId::ROOT && root.is_none() {
                return;
            }
            let mut entry = self.blank();
            running.put_origin(&mut entry, id.bits());
            let [waker, joiner] = match body {
                Some(body) => body.look(&mut entry),
                None => [root.filter(|_| id == MachineId::ROOT), None],
            };
            let status = match is_queued {
                _ if running.runs(id) => "running",
                true => "runnable",
                false => "parked",
            };
            entry.put("status", Value::text(status));
            debug_assert!(entry.0.len() < PAIRS, "the loop makes no room");
            if status != "running"
                && let Some(since) = scheduler.stopwatch.since(id)
            {
                entry.put("for_seconds", Value::Time(now - since));
            }
            self.dump.machines.push(entry);
            let id = Some(Waiter::Machine(id));
            self.known_as.push([id, waker]);
            let join = |joiner| (joiner, "join", None, None, id);
            self.waits.extend(joiner.map(join));
        })
    }

    fn socket(&mut self, desc: &PollDesc<ParkKey, Socket>, now: Instant) {
        let (socket, index) = (&desc.user_data, Some(self.dump.sockets.len()));
        let mut entry = self.blank();
        socket.look(&mut entry);
        let is_stream = socket.network().is_tcp() || socket.network() == Network::Unix;
        let operations = match is_stream && entry.get("peer").is_none() {
            true => ["accept", "connect"],
            false => ["read", "write"],
        };
        entry.put("token", Value::shown(format_args!("{:?}", desc.token())));
        // By queue: what its slot holds, and the time left. The queue for hang-ups has no slot and no
        // deadline.
        let (mut parked, mut left) = ([None; 3], [None, None, None]);
        desc.parked(|at, key| parked[at as usize] = key.waiter());
        for direction in Direction::BOTH {
            let at = direction as usize;
            left[at] = until(desc.deadline(direction), now);
            let wait = |waiter| (waiter, operations[at], index, left[at].clone(), None);
            self.waits.extend(parked[at].map(wait));
            let slot = match parked[at] {
                Some(_) => "Parked",
                None if desc.is_ready(direction) => "Ready",
                None => "Nil",
            };
            let left_seconds = ["read_left_seconds", "write_left_seconds"][at];
            entry
                .put(["read", "write"][at], Value::text(slot))
                .put(left_seconds, left[at].clone());
        }
        entry.put("timer_seconds", until(desc.due(), now));
        debug_assert!(entry.0.len() <= PAIRS, "the loop makes no room");
        self.dump.sockets.push(entry);
        // What waits for a hang-up, or for a lock, behind what is parked.
        socket.waiting(|queue, waiter| {
            let on = ["read-lock", "write-lock", "hang-up"][queue];
            let wait = (waiter, on, index, left[queue].clone(), parked[queue]);
            self.waits.push(wait);
        });
    }

    /// Puts together what the tables said.
    pub(super) fn finish(self) -> Dump {
        drop(self.blank);
        let mut dump = self.dump;
        let machines = &mut dump.machines;
        let mut known = HashMap::new();
        for (index, names) in self.known_as.into_iter().enumerate() {
            known.extend(names.into_iter().flatten().map(|name| (name, index)));
        }
        let mut waits: HashMap<usize, Vec<Entry>> = HashMap::new();
        for (waiter, on, socket, left, behind) in self.waits {
            // A machine that came after its slot was looked at: the next dump shows it.
            if matches!(waiter, Waiter::Machine(_)) && !known.contains_key(&waiter) {
                continue;
            }
            let mut wait = Entry(vec![("on", Value::text(on))]);
            for name in ["network", "local", "peer"] {
                let socket = socket.map(|index| &dump.sockets[index]);
                wait.put(name, socket.and_then(|socket| socket.get(name).cloned()));
            }
            let behind = behind.and_then(|behind| known.get(&behind));
            let behind = behind.and_then(|&index| machines[index].get("id").cloned());
            wait.put("left_seconds", left).put("behind", behind);
            let index = *known.entry(waiter).or_insert_with(|| {
                let (kind, status) = (Value::text("foreign"), Value::text("parked"));
                machines.push(Entry(vec![("kind", kind), ("status", status)]));
                machines.len() - 1
            });
            // Remove what the machine's entry already contains.
            wait.0.retain(|pair| !machines[index].0.contains(pair));
            waits.entry(index).or_default().push(wait);
        }
        for (index, mut waits) in waits {
            // Two futures of a machine, as of a split stream, may wait alike.
            waits.sort();
            waits.dedup();
            machines[index].put("waits", Value::List(waits));
        }
        // Backwards through the alphabet: "running", "runnable", "parked".
        machines.sort_by_cached_key(|machine| {
            Reverse(
                ["status", "for_seconds", "quiet_seconds"].map(|name| machine.get(name).cloned()),
            )
        });
        dump
    }

    /// A job that looks at one portion, and sends itself again for the next. The last one sends the
    /// answer. The asking thread owns the `Look`: if it gives up, the job stops.
    fn job(asked: Weak<Mutex<Look>>, answer: Sender<()>) -> Job {
        Box::new(move || {
            current::try_with(|scheduler| {
                let Some(look) = asked.upgrade() else { return };
                if sync::lock(&look).portion(scheduler) {
                    scheduler.remote.send(Look::job(asked, answer));
                } else {
                    let _ = answer.send(());
                }
            });
        })
    }
}

/// Adds how much mail the loop has not looked at, and the work of `spawn_blocking`.
fn put_mail(runtime: &mut Entry, remote: &Remote) {
    let [wakes, jobs] = remote.mail_waiting().map(Value::Number);
    let [threads, blocking] = remote.lane.figures().map(Value::Number);
    runtime.put("mail_wakes", wakes).put("mail_jobs", jobs);
    runtime
        .put("blocking_threads", threads)
        .put("blocking_jobs", blocking);
}

impl Scheduler {
    /// A dump, made at once.
    pub(crate) fn dump(&self) -> Dump {
        let mut look = Look::default();
        while look.portion(self) {}
        look.finish()
    }
}

impl Socket {
    /// Adds the network, and both ends as far as they are known.
    pub(crate) fn look(&self, entry: &mut Entry) {
        // A look keeps nothing: what is known of the peer decides what `send_to` may do.
        let ask = |end| self.endpoint(end).or_else(|| self.ask_endpoint(end).ok());
        let [local, peer] = [End::Local, End::Peer].map(ask);
        entry
            .put("network", Value::text(self.network().name()))
            .put("local", local.map(Value::Addr))
            .put("peer", peer.map(Value::Addr));
    }
}

impl Handle {
    /// What lives on the runtime, and what it waits for, made in its thread in portions of less than a
    /// millisecond. If the loop has not answered within `timeout`, the dump says what holds it. Inside a
    /// turn of the runtime it is made at once. On the runtime's own thread, outside a turn, call
    /// [`Runtime::dump`](crate::Runtime::dump): there this one gets no answer.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// let runtime = netpoller::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let (tell, told) = std::sync::mpsc::channel();
    /// runtime.spawn_named("slow", async move {
    ///     // This holds the loop, which it should not.
    ///     let dump = std::thread::spawn(move || handle.dump(Duration::from_millis(20)));
    ///     tell.send(dump.join().unwrap()).unwrap();
    /// });
    /// runtime.turn(None)?;
    /// let dump = told.recv().unwrap();
    /// assert_eq!(dump.runtime.get("loop").unwrap().to_string(), "held");
    /// assert_eq!(dump.machines[0].get("name").unwrap().to_string(), "slow");
    /// # Ok(())
    /// # }
    /// ```
    pub fn dump(&self, timeout: Duration) -> Dump {
        let asked = self.if_here(|scheduler| scheduler.dump());
        asked.unwrap_or_else(|| self.ask(timeout))
    }

    fn ask(&self, timeout: Duration) -> Dump {
        let remote = &self.remote;
        let (first, start) = (remote.running.sample(), Instant::now());
        let (answer, answered) = mpsc::channel();
        // In a child of fork, threads that are not there may hold the locks.
        let inherited = remote.is_inherited();
        let look = Arc::new(Mutex::new(Look::default()));
        sync::lock(&look).reserve(&remote.running.figures);
        let job = Look::job(Arc::downgrade(&look), answer);
        // The runtime's own thread would wait for itself.
        let is_own = remote.thread == thread::current().id();
        if !is_own && remote.send(job) && answered.recv_timeout(timeout).is_ok() {
            return mem::take(&mut *sync::lock(&look)).finish();
        }
        let (mut dump, mut loop_is) = (Dump::default(), "silent");
        if !inherited && let Some((mut holder, began)) = remote.running.holder(first, start) {
            loop_is = "held";
            holder
                .put("status", Value::text("running"))
                .put("held_seconds", Value::Time(began.elapsed()));
            dump.machines.push(holder);
        }
        dump.runtime.put("loop", Value::text(loop_is));
        if !inherited {
            put_mail(&mut dump.runtime, remote);
        }
        dump
    }
}
