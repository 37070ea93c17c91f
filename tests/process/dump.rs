//! A dump where descriptors are short; the memory that a dump takes; and the names in a dump, against
//! their table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netpoller::{
    Conn, Dump, JoinHandle, Protocol, Runtime, Serve, Server, TcpListener, TcpStream, spawn_named,
    time,
};
use serde_json::Value;

use crate::allocator::{held, peak, reset_peak};
use crate::child::{in_child, limit_open_files, take_all_descriptors};

const HOUR: Duration = Duration::from_secs(3600);

/// Spawns so many tasks that wait for ever.
fn spawn_many(runtime: &Runtime, count: usize) -> Vec<JoinHandle<()>> {
    let tasks = (0..count).map(|_| runtime.spawn(pending())).collect();
    runtime.turn(Some(Duration::ZERO)).unwrap();
    tasks
}

#[test]
fn after_a_peak_of_tasks_a_dump_takes_memory_for_those_that_live() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        for task in spawn_many(&runtime, 20_000) {
            task.abort();
        }
        while runtime.stats().tasks > 0 {
            runtime.turn(Some(Duration::ZERO)).unwrap();
        }
        let tasks = spawn_many(&runtime, 3);
        let handle = runtime.handle();
        let before = held();
        reset_peak();
        let asking = thread::spawn(move || handle.dump(HOUR).machines.len());
        while !asking.is_finished() {
            runtime.turn(Some(Duration::ZERO)).unwrap();
        }
        assert_eq!(asking.join().unwrap(), tasks.len());
        let taken = peak() - before;
        assert!(
            taken < 64 << 10,
            "a dump of three tasks takes {taken} bytes"
        );
    });
}

#[test]
fn a_dump_that_a_held_loop_does_not_answer_leaves_nothing_in_its_mail() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let _tasks = spawn_many(&runtime, 5000);
        let handle = runtime.handle();
        let asking = move || {
            let before = held();
            for _ in 0..10 {
                let dump = handle.dump(Duration::from_millis(1));
                assert!(dump.machines.is_empty(), "the loop is in no turn");
            }
            held() - before
        };
        let left = thread::spawn(asking).join().unwrap();
        assert!(left < 64 << 10, "ten dumps leave {left} bytes");
    });
}

fn parsed(dump: &Dump) -> Value {
    serde_json::from_str(&dump.to_json()).unwrap()
}

/// Serves at most ten connections, in a task of the runtime.
fn serve(runtime: &Runtime) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Serve::new(listener).max_connections(10);
    drop(runtime.spawn(serve.run(|stream, _| async move { stream.read(&mut [0]).await })));
    address
}

/// Returns a client that waits for a descriptor, a dump that shows the pause, and all other
/// descriptors.
fn starve(runtime: &Runtime, address: SocketAddr) -> (StdStream, Dump, Vec<fs::File>) {
    limit_open_files(100);
    let mut all = take_all_descriptors();
    drop(all.pop());
    let client = StdStream::connect(address).unwrap();
    loop {
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        let dump = runtime.dump();
        let text = dump.to_json();
        if text.contains("\"paused\"") && text.contains("\"descriptor\"") {
            return (client, dump, all);
        }
    }
}

#[test]
fn a_listener_that_pauses_says_since_when_until_when_and_why_and_then_accepts_again() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let address = serve(&runtime);
        let (client, dump, all) = starve(&runtime, address);
        let of = &parsed(&dump)["listeners"][0];
        assert_eq!(of["local"], address.to_string());
        let [since, left] = ["for_seconds", "left_seconds"].map(|name| of[name].as_f64().unwrap());
        assert!(
            (0.0..=1.0).contains(&since) && (0.0..=1.0).contains(&left),
            "{of}"
        );
        let why = format!("accept tcp {address}: accept4: too many open files");
        assert_eq!(of["why"], why);
        let row = format!("listener tcp, local {address}, paused, for ");
        assert!(dump.to_string().contains(&row), "{dump}");
        drop(all);
        let accepting = |of: &Value| of["status"] == "accepting" && of["permits_free"] == 9;
        while !accepting(&parsed(&runtime.dump())["listeners"][0]) {
            runtime.turn(Some(Duration::from_millis(1))).unwrap();
        }
        drop(client);
    });
}

// ---- the names ----

type Names = BTreeMap<&'static str, BTreeSet<String>>;

const LISTS: [&str; 5] = ["loop", "listener", "machine", "wait", "socket"];

/// The names in the tables of `Dump::to_json`, by what they are of.
fn documented() -> Names {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/runtime/dump.rs");
    let (mut names, mut of) = (Names::new(), None);
    for line in fs::read_to_string(source).unwrap().lines() {
        let Some(line) = line.trim().strip_prefix("/// ") else {
            continue;
        };
        if let Some(what) = line.strip_prefix("Of ") {
            of = LISTS.into_iter().find(|list| what.contains(list));
        }
        let column = line
            .strip_prefix("| `")
            .and_then(|line| line.split(" | ").next());
        if let (Some(of), Some(column)) = (of, column) {
            let column = column
                .split(['`', ',', ' '])
                .filter(|name| !name.is_empty());
            names
                .entry(of)
                .or_default()
                .extend(column.map(str::to_owned));
        }
    }
    names
}

/// Adds the names in a dump.
fn note(names: &mut Names, dump: &Dump) {
    let dump = parsed(dump);
    let mut add = |of, object: &Value| {
        let keys = object.as_object().unwrap().keys().cloned();
        names.entry(of).or_default().extend(keys);
    };
    add("loop", &dump);
    for (list, of) in [("listeners", "listener"), ("sockets", "socket")] {
        dump[list]
            .as_array()
            .unwrap()
            .iter()
            .for_each(|row| add(of, row));
    }
    for machine in dump["machines"].as_array().unwrap() {
        add("machine", machine);
        let waits = machine["waits"].as_array();
        waits.into_iter().flatten().for_each(|row| add("wait", row));
    }
}

struct Discard;

impl Protocol for Discard {
    fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}

#[test]
fn the_names_of_a_dump_are_those_of_its_documented_tables() {
    in_child(|| {
        let (mut seen, documented) = (Names::new(), documented());
        let runtime = Runtime::new().unwrap();
        let address = serve(&runtime);
        let server = Server::new(|_| Discard).idle_timeout(HOUR).heartbeat(HOUR);
        let bound = server.bind("127.0.0.1:0").unwrap();
        drop(bound.run_in(&runtime).unwrap());
        runtime.block_on(async {
            let stream = Rc::new(TcpStream::connect(bound.local_addr()).await.unwrap());
            stream.set_read_deadline(Some(time::now() + HOUR)).unwrap();
            stream.set_write_deadline(Some(time::now() + HOUR)).unwrap();
            for _ in 0..2 {
                let stream = stream.clone();
                spawn_named("reader", async move { drop(stream.read(&mut [0]).await) });
            }
        });
        while bound.handle().stats().live() < 1 {
            runtime.turn(Some(Duration::from_millis(1))).unwrap();
        }
        let (_client, dump, _all) = starve(&runtime, address);
        note(&mut seen, &dump);
        // A loop that is held.
        let handle = runtime.handle();
        let (hold, holds) = mpsc::channel::<()>();
        drop(runtime.spawn(async move { holds.recv() }));
        let asking = thread::spawn(move || {
            let dump = loop {
                let dump = handle.dump(Duration::from_millis(20));
                if parsed(&dump)["loop"] == "held" {
                    break dump;
                }
            };
            drop(hold);
            dump
        });
        while !asking.is_finished() {
            runtime.turn(Some(Duration::from_millis(1))).unwrap();
        }
        note(&mut seen, &asking.join().unwrap());

        // `for_seconds` of a machine is known only with the feature `observe`.
        seen.get_mut("machine")
            .unwrap()
            .insert("for_seconds".to_owned());
        assert_eq!(seen, documented);
    });
}
