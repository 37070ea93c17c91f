//! A dump shows each machine: what it is, where it comes from, and what it waits for.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use netpoller::{
    CancelToken, Conn, Dump, Handle, Protocol, Runtime, Server, TcpListener, TcpStream, UdpSocket,
    UnixStream, net::Serve, spawn, spawn_named, time, yield_now,
};
use serde_json::{Value, json};
use socket2::SockRef;

use crate::support::run::run;
use crate::support::running::{Echo, echo, start};
use crate::support::watchdog::watchdog;

const HOUR: Duration = Duration::from_secs(3600);

/// The dump as a program reads it.
fn parsed(dump: &Dump) -> Value {
    let text = dump.to_json();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A dump made inside of a turn.
fn here() -> Value {
    parsed(&Handle::current().dump(Duration::ZERO))
}

/// The machines of which this field has this value.
fn all<'a>(dump: &'a Value, field: &str, value: &str) -> Vec<&'a Value> {
    let machines = dump["machines"].as_array().unwrap().iter();
    machines.filter(|machine| machine[field] == value).collect()
}

fn find<'a>(dump: &'a Value, name: &str) -> &'a Value {
    let found = all(dump, "name", name);
    assert_eq!(found.len(), 1, "{name}: {dump}");
    found[0]
}

/// What the only wait of a machine is on.
fn wait<'a>(dump: &'a Value, name: &str) -> &'a Value {
    let machine = find(dump, name);
    assert_eq!(machine["status"], "parked", "{machine}");
    assert_eq!(machine["waits"].as_array().unwrap().len(), 1, "{machine}");
    &machine["waits"][0]
}

/// That many seconds, a tick more, or up to a minute less.
fn is_about(seconds: &Value, time: Duration) -> bool {
    let (seconds, time) = (seconds.as_f64().unwrap(), time.as_secs_f64());
    seconds <= time + 0.001 && seconds > time - 60.0
}

/// Lets everything run until it waits.
async fn settle() {
    for _ in 0..5 {
        yield_now().await;
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ours = TcpStream::connect(address).await.unwrap();
    (ours, listener.accept().await.unwrap().0)
}

// ---- what it shows ----

#[test]
fn a_read_shows_both_ends_its_deadline_and_the_place_where_its_task_was_spawned() {
    let runtime = Runtime::new().unwrap();
    let line = line!() + 5;
    let (local, peer) = runtime.block_on(async {
        let (other, stream) = pair().await;
        let ends = (other.peer_addr().unwrap(), other.local_addr().unwrap());
        stream.set_read_deadline(Some(time::now() + HOUR)).unwrap();
        spawn(async move { (stream.read(&mut [0]).await, other).0 });
        settle().await;
        ends
    });
    let dump = runtime.dump();
    let place = format!("{}:{line}", file!());
    let mut read = parsed(&dump)["machines"][0].clone();
    // With the feature `observe`.
    read.as_object_mut().unwrap().remove("for_seconds");
    let left = read["waits"][0]["left_seconds"].take();
    assert!(is_about(&left, HOUR), "{left}");
    let wait = json!({
        "on": "read", "network": "tcp", "local": local.to_string(), "peer": peer.to_string(),
        "left_seconds": null
    });
    let expected = json!({
        "kind": "task", "id": "1.1", "place": place, "status": "parked", "waits": [wait]
    });
    assert_eq!(read, expected);
    let text = dump.to_string();
    let group = format!("\n1 task, spawned at {place}, parked on read\n");
    assert!(text.contains(&group), "{text}");
    // Between the two, the feature `observe` has how long it has waited.
    let own = format!("; read tcp, local {local}, peer {peer}, left 3");
    assert!(text.contains("\n  1.1") && text.contains(&own), "{text}");
}

#[test]
fn each_kind_of_wait_is_named() {
    run(async {
        let (stream, other) = pair().await;
        let stream = Rc::new(stream);
        let reads = async |stream: Rc<TcpStream>| drop(stream.read(&mut [0]).await);
        spawn_named("reader", reads(stream.clone()));
        settle().await;
        spawn_named("second", reads(stream.clone()));
        let hears = stream.clone();
        spawn_named("hang-up", async move { drop(hears.hung_up().await) });
        let writes = stream.clone();
        spawn_named("writer", async move {
            drop(writes.write_all(&[0; 20 << 20]).await)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        spawn_named("acceptor", async move { drop(listener.accept().await) });
        let (unix, far) = UnixStream::pair().unwrap();
        spawn_named("unix", async move { (unix.read(&mut [0]).await, far).0 });
        spawn_named("sleeper", time::sleep(HOUR));
        let joined = spawn_named("joined", time::sleep(HOUR));
        spawn_named("joiner", async move { drop(joined.await) });
        let scope = CancelToken::new();
        let inner = scope.clone();
        spawn_named("scoped", async move { inner.canceled().await });
        let (end, ended) = mpsc::channel::<()>();
        spawn_named("blocking", netpoller::spawn_blocking(move || ended.recv()));
        spawn_named("channel", future::pending::<()>());
        settle().await;

        let dump = here();
        for (name, on) in [
            ("reader", "read"),
            ("second", "read-lock"),
            ("hang-up", "hang-up"),
            ("writer", "write"),
            ("acceptor", "accept"),
            ("unix", "read"),
            ("sleeper", "sleep"),
            ("joiner", "join"),
            ("scoped", "scope"),
            ("blocking", "join"),
        ] {
            assert_eq!(wait(&dump, name)["on"], on, "{name}");
        }
        assert!(is_about(&wait(&dump, "sleeper")["left_seconds"], HOUR));
        let id = |name| &find(&dump, name)["id"];
        assert_eq!(wait(&dump, "second")["behind"], *id("reader"));
        assert_eq!(wait(&dump, "joiner")["behind"], *id("joined"));
        // A blocking job's value comes to a task of the runtime's own.
        let job = all(
            &dump,
            "id",
            wait(&dump, "blocking")["behind"].as_str().unwrap(),
        )[0];
        assert_eq!(job["waits"], json!([{"on": "blocking-job"}]));
        let text = Handle::current().dump(Duration::ZERO).to_string();
        let channel = "parked on what the runtime does not see";
        assert!(text.contains(channel), "{text}");
        assert_eq!(find(&dump, "channel")["waits"], Value::Null);
        let root = all(&dump, "kind", "root")[0];
        assert_eq!(
            (&root["status"], &root["id"]),
            (&json!("running"), &json!("0.1"))
        );
        assert_eq!(all(&dump, "kind", "foreign").len(), 0);
        drop((other, scope, end));
    });
}

#[test]
fn a_machine_in_two_scopes_shows_its_waits_and_none_once_they_are_over() {
    run(async {
        let (stream, other) = pair().await;
        let outer = CancelToken::new();
        let scope = outer.with_timeout(HOUR);
        spawn_named("both", async move {
            let mut byte = [0];
            let read = scope.run(stream.read(&mut byte));
            drop(outer.run(read).await);
            // Nothing of them is left.
            future::pending::<()>().await;
        });
        settle().await;
        let dump = here();
        let waits = find(&dump, "both")["waits"].as_array().unwrap().clone();
        let on: Vec<_> = waits.iter().map(|wait| &wait["on"]).collect();
        assert_eq!(on, ["read", "scope", "sleep"], "{waits:?}");
        assert!(is_about(&waits[2]["left_seconds"], HOUR));
        other.write_all(b"!").await.unwrap();
        while find(&here(), "both")["waits"] != Value::Null {
            yield_now().await;
        }
    });
}

#[test]
fn a_wait_leaves_the_dump_also_when_another_thread_drops_it() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let scope = CancelToken::new();
    let mut waits = Box::pin(async move { scope.canceled().await });
    runtime.block_on(async {
        // By a waker that is kept in the scope alone.
        assert!(future::poll_once(&mut waits).await.is_none());
        assert_eq!(all(&here(), "kind", "foreign").len(), 0);
        assert!(here().to_string().contains("\"scope\""));
    });
    thread::spawn(move || drop(waits)).join().unwrap();
    runtime.turn(None).unwrap();
    let dump = parsed(&runtime.dump()).to_string();
    assert!(!dump.contains("\"scope\""), "{dump}");
}

#[test]
fn the_root_shows_what_it_waits_for_also_where_only_its_waker_is_kept() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (end, ended) = mpsc::channel::<()>();
            let joined = spawn_named("joined", async move {
                while ended.try_recv() != Ok(()) {
                    time::sleep(Duration::from_millis(1)).await;
                }
            });
            tell.send((Handle::current(), end)).unwrap();
            joined.await.unwrap();
        });
    });
    let (handle, end) = told.recv().unwrap();
    let root = loop {
        let dump = parsed(&handle.dump(HOUR));
        let root = all(&dump, "kind", "root")[0];
        if root["status"] == "parked" && root["waits"] != Value::Null {
            break (root["waits"].clone(), find(&dump, "joined")["id"].clone());
        }
    };
    assert_eq!(root.0, json!([{"on": "join", "behind": root.1}]));
    end.send(()).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_clone_of_a_task_s_waker_is_known_as_the_task_s_and_another_executor_s_is_foreign() {
    run(async {
        let (stream, other) = pair().await;
        spawn_named("polled read", async move {
            // Polls with a clone, as a combinator may.
            let mut byte = [0];
            let mut read = std::pin::pin!(stream.read(&mut byte));
            future::poll_fn(|cx| {
                let clone = cx.waker().clone();
                read.as_mut()
                    .poll(&mut std::task::Context::from_waker(&clone))
            })
            .await
        });
        let (far, _near) = pair().await;
        let mut foreign = Box::pin(async move { drop(far.read(&mut [0]).await) });
        let mut noop = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(foreign.as_mut().poll(&mut noop).is_pending());
        settle().await;
        let dump = Handle::current().dump(Duration::ZERO);
        let text = dump.to_string();
        let dump = parsed(&dump);
        assert_eq!(wait(&dump, "polled read")["on"], "read");
        assert_eq!(all(&dump, "kind", "foreign").len(), 1, "{dump}");
        let group = "\n1 foreign, parked on read\n  read tcp, local 127.0.0.1:";
        assert!(text.contains(group), "{text}");
        drop(other);
    });
}

#[test]
fn what_is_alike_is_one_group_with_its_count_and_names_are_escaped() {
    let runtime = Runtime::new().unwrap();
    let name = "line\nbreak \u{1b}[31m\u{202e} \"a\\\" \u{1d173}";
    for _ in 0..3 {
        drop(runtime.spawn_named(name, future::pending::<()>()));
    }
    runtime.turn(None).unwrap();
    let text = runtime.dump().to_string();
    let group = r#"3 task "line\nbreak \u{1b}[31m\u{202e} \"a\\\" \u{1d173}", spawned at "#;
    assert!(text.contains(group), "{text}");
    assert_eq!(text.lines().count(), 1 + 1 + 3, "{text}");
    let text = runtime.dump().to_json();
    assert!(
        !text.contains(|c: char| c.is_control() || c == '\u{202e}'),
        "{text}"
    );
    let dump = parsed(&runtime.dump());
    assert_eq!(all(&dump, "name", name).len(), 3);
}

#[test]
fn a_dump_of_an_empty_runtime_lists_nothing_and_one_of_15_000_tasks_has_them_all() {
    let runtime = Runtime::new().unwrap();
    let nothing = runtime.dump();
    assert_eq!(
        nothing.to_string(),
        "loop answered, descriptors 0, timers 0, mail wakes 0, mail jobs 0, blocking threads 0, \
         blocking jobs 0\n"
    );
    assert_eq!(parsed(&nothing)["machines"], json!([]));
    for _ in 0..15_000 {
        drop(runtime.spawn(async { time::sleep(HOUR).await }));
    }
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
    let dump = runtime.dump();
    let text = dump.to_string();
    assert!(text.contains("\n15000 task, spawned at "), "{text}");
    let dump = parsed(&dump);
    assert_eq!(dump["timers"], 15_000);
    let machines = dump["machines"].as_array().unwrap();
    let sleeps = |machine: &&Value| machine["waits"][0]["on"] == "sleep";
    assert_eq!(machines.iter().filter(sleeps).count(), 15_000);
}

#[test]
fn a_task_that_waits_for_20_000_things_is_shown_with_each_of_them_and_soon() {
    const COUNT: u32 = 20_000;
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    drop(runtime.spawn_named("waits", async {
        let sleep = |number| Box::pin(time::sleep(HOUR + Duration::from_millis(number)));
        let mut all: Vec<_> = (0..COUNT).map(|number| sleep(number.into())).collect();
        future::poll_fn(|cx| {
            all.retain_mut(|sleep| sleep.as_mut().poll(cx).is_pending());
            Poll::<()>::Pending
        })
        .await;
    }));
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
    let start = Instant::now();
    let dump = runtime.dump();
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    let dump = parsed(&dump);
    assert_eq!(
        find(&dump, "waits")["waits"].as_array().unwrap().len(),
        COUNT as usize
    );
}

#[test]
fn every_descriptor_shows_its_slots_its_deadlines_and_its_timer() {
    run(async {
        let (stream, other) = pair().await;
        stream.set_read_deadline(Some(time::now() + HOUR)).unwrap();
        stream
            .set_read_deadline(Some(time::now() + 2 * HOUR))
            .unwrap();
        let peer = stream.peer_addr().unwrap().to_string();
        spawn(async move { drop(stream.read(&mut [0]).await) });
        settle().await;
        let dump = here();
        let sockets = dump["sockets"].as_array().unwrap();
        assert_eq!(dump["descriptors"], sockets.len());
        let socket = sockets.iter().find(|socket| socket["peer"] == peer);
        let socket = socket.unwrap();
        assert_eq!(
            (&socket["read"], &socket["write"]),
            (&json!("Parked"), &json!("Ready"))
        );
        // A deadline that moves later is a store: the timer stays.
        assert!(is_about(&socket["read_left_seconds"], 2 * HOUR), "{socket}");
        assert!(is_about(&socket["timer_seconds"], HOUR), "{socket}");
        assert_eq!(socket["write_left_seconds"], Value::Null);
        assert!(socket["token"].as_str().unwrap().starts_with("Token("));
        drop(other);
    });
}

// ---- listeners ----

#[test]
fn a_dump_keeps_nothing_of_what_it_asks() {
    let runtime = Runtime::new().unwrap();
    let socket = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = peer.local_addr().unwrap();
    // Connected behind our back: `send_to` knows of no peer, and goes on.
    let connect = |fd: BorrowedFd<'_>| SockRef::from(&fd).connect(&peer.into());
    socket.with_fd(connect).unwrap().unwrap();
    let shown = runtime.dump().to_json();
    assert!(shown.contains(&peer.to_string()), "{shown}");
    runtime.block_on(socket.send_to(b"x", peer)).unwrap();
}

#[test]
fn a_listener_shows_where_it_accepts_and_its_permits_and_what_waits_for_one() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Serve::new(listener)
        .max_connections(1)
        .run(|stream, _| async move { stream.read(&mut [0]).await });
    let task = runtime.spawn_named("serve", serving);
    runtime.turn(Some(Duration::ZERO)).unwrap();
    let listener = |free: u32, awaited: u32| {
        json!([{
            "network": "tcp", "local": address.to_string(), "status": "accepting",
            "permits_free": free, "permits_awaited": awaited,
        }])
    };
    assert_eq!(parsed(&runtime.dump())["listeners"], listener(1, 0));
    let clients = [(); 2].map(|()| StdStream::connect(address).unwrap());
    let dump = loop {
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        let dump = runtime.dump();
        if parsed(&dump)["listeners"] == listener(0, 1) {
            break dump;
        }
    };
    let waits = find(&parsed(&dump), "serve")["waits"].to_string();
    assert!(waits.contains(r#""on":"permit""#), "{waits}");
    let row = "\nlistener tcp, local 127.0.0.1:";
    assert!(dump.to_string().contains(row), "{dump}");
    task.abort();
    assert_eq!(parsed(&runtime.dump())["listeners"], json!([]));
    drop(clients);
}

// ---- jobs ----

#[test]
fn blocking_jobs_are_counted_until_they_end() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (end, ended) = mpsc::channel::<()>();
    let mut job = None;
    runtime.block_on(async { job = Some(netpoller::spawn_blocking(move || ended.recv())) });
    let dump = parsed(&runtime.dump());
    assert_eq!(
        (&dump["blocking_threads"], &dump["blocking_jobs"]),
        (&json!(1), &json!(1))
    );
    end.send(()).unwrap();
    runtime.block_on(job.unwrap()).unwrap().unwrap();
}

// ---- connections ----

/// Makes a dump in its callback, and leaves two bytes unused.
struct Dumps(Rc<RefCell<Vec<Value>>>);

impl Protocol for Dumps {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        self.0.borrow_mut().push(here());
        Ok(bytes.len().saturating_sub(2))
    }
}

#[test]
fn a_connection_shows_its_state_its_times_and_its_bytes_and_runs_in_its_own_callback() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let dumps = Rc::new(RefCell::new(Vec::new()));
    let seen = dumps.clone();
    let place = format!("{}:{}", file!(), line!() + 1);
    let server = Server::new(move |_| Dumps(seen.clone()));
    let server = server.idle_timeout(HOUR).heartbeat_with(HOUR / 2, *b"ping");
    let bound = server.bind("127.0.0.1:0").unwrap();
    drop(bound.run_in(&runtime).unwrap());
    let client = StdStream::connect(bound.local_addr()).unwrap();
    io::Write::write_all(&mut &client, b"12345").unwrap();
    while dumps.borrow().is_empty() {
        runtime.turn(None).unwrap();
    }
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
    let first = &dumps.borrow()[0];
    assert_eq!(all(first, "kind", "connection")[0]["status"], "running");

    let dump = runtime.dump();
    let text = dump.to_string();
    let dump = parsed(&dump);
    let mut of = all(&dump, "kind", "connection")[0].clone();
    let [quiet, idle, heartbeat] =
        ["quiet", "idle_in", "heartbeat_in"].map(|name| of[format!("{name}_seconds")].take());
    assert!(quiet.as_f64().unwrap() < 60.0);
    assert!(is_about(&idle, HOUR) && is_about(&heartbeat, HOUR / 2));
    let (local, peer) = (bound.local_addr(), client.local_addr().unwrap());
    assert!(is_about(&of["waits"][1]["left_seconds"].take(), HOUR / 2));
    assert_eq!(of["id"].take().as_str().unwrap().split('.').count(), 2);
    // With the feature `observe`.
    of.as_object_mut().unwrap().remove("for_seconds");
    let expected = json!({
        "kind": "connection", "id": null, "place": place, "state": "Open",
        "network": "tcp", "local": local.to_string(), "peer": peer.to_string(),
        "queued_bytes": 0, "unused_bytes": 2,
        "quiet_seconds": null, "idle_in_seconds": null, "heartbeat_in_seconds": null,
        "status": "parked", "waits": [{"on": "read"}, {"on": "timer", "left_seconds": null}],
    });
    assert_eq!(of, expected);
    let group = format!("1 connection, spawned at {place}, Open, parked on read, timer\n");
    assert!(text.contains(&group), "{text}");
    let own = format!(" tcp, local {local}, peer {peer}, queued bytes 0, unused bytes 2, quiet ");
    assert!(text.contains(&own), "{text}");
}

#[test]
fn the_connection_that_has_been_quiet_for_longest_comes_first() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    drop(bound.run_in(&runtime).unwrap());
    let mut clients = Vec::new();
    for open in 1..=3 {
        clients.push(StdStream::connect(bound.local_addr()).unwrap());
        while runtime.stats().connections < open {
            runtime.turn(None).unwrap();
        }
        runtime.block_on(async { time::sleep(HOUR).await });
    }
    // The first has sent something since.
    io::Write::write_all(&mut &clients[0], b"hi").unwrap();
    let echoed = |client: &StdStream| {
        client.set_nonblocking(true).unwrap();
        client.peek(&mut [0]).is_ok()
    };
    while !echoed(&clients[0]) {
        runtime.turn(Some(Duration::ZERO)).unwrap();
    }
    let dump = parsed(&runtime.dump());
    let peers = all(&dump, "kind", "connection");
    let peers: Vec<_> = peers
        .iter()
        .map(|machine| machine["peer"].clone())
        .collect();
    let expected = [1, 2, 0].map(|at: usize| json!(clients[at].local_addr().unwrap().to_string()));
    assert_eq!(peers, expected);
}

#[cfg(feature = "observe")]
#[test]
fn the_machine_that_has_been_parked_for_longest_comes_first() {
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    for name in ["first", "second", "third"] {
        drop(runtime.spawn_named(name, future::pending::<()>()));
        runtime.block_on(async { time::sleep(HOUR).await });
    }
    let dump = parsed(&runtime.dump());
    for (at, name) in [(0, "first"), (1, "second"), (2, "third")] {
        let machine = &dump["machines"][at];
        assert_eq!(machine["name"], name, "{dump}");
        assert!(is_about(&machine["for_seconds"], HOUR * (3 - at as u32)));
    }
}

#[test]
fn a_dump_in_a_drain_shows_what_it_waits_for_and_a_server_s_handle_has_one_for_each_worker() {
    let _watchdog = watchdog();
    let server = start(Server::new(|_| Echo).workers(2).drain_grace(HOUR));
    let mut client = server.dial();
    echo(&mut client, b"hi");
    let peer = client.local_addr().unwrap().to_string();
    let dumps = || -> Vec<Value> {
        let dumps = server.handle.dump(Duration::from_secs(30));
        dumps.iter().map(parsed).collect()
    };
    let shows = |dumps: &[Value]| {
        dumps
            .iter()
            .any(|dump| !all(dump, "peer", &peer).is_empty())
    };
    let accepts = |dump: &Value| dump.to_string().contains("\"accept\"");
    let first = dumps();
    assert_eq!(first.len(), 2);
    assert!(first.iter().all(|dump| dump["loop"] == "answered"));
    assert!(shows(&first) && first.iter().any(accepts));
    server.handle.drain(HOUR);
    while dumps().iter().any(accepts) {}
    assert!(shows(&dumps()));
    drop(client);
    let (handle, thread) = (server.handle, server.thread);
    thread.join().unwrap().unwrap();
    // They are gone, and nothing is waited for.
    let dumps = handle.dump(HOUR);
    assert!(dumps.iter().all(|dump| parsed(dump)["loop"] == "silent"));
}

// ---- from other threads ----

/// A runtime in a thread of its own, which runs until the answer is dropped.
fn elsewhere() -> (Handle, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (alive, over) = mpsc::channel::<()>();
    thread::spawn(move || {
        let runtime = Runtime::new().unwrap();
        tell.send(runtime.handle()).unwrap();
        runtime.block_on(async {
            while over.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                time::sleep(Duration::from_millis(1)).await;
            }
        });
    });
    (told.recv().unwrap(), alive)
}

#[test]
fn several_threads_ask_at_once_and_each_is_answered_while_the_loop_goes_on() {
    let _watchdog = watchdog();
    let (handle, alive) = elsewhere();
    let spawned = handle.run_blocking(|| async {
        for _ in 0..5000 {
            drop(spawn_named("sleeper", time::sleep(HOUR)));
        }
    });
    spawned.unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let dump = parsed(&handle.dump(HOUR));
                assert_eq!(all(&dump, "name", "sleeper").len(), 5000);
            });
        }
    });
    drop(alive);
}

#[test]
fn a_machine_spawned_during_a_dump_is_not_shown_as_foreign() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let first = runtime.spawn(future::pending::<()>());
    for _ in 0..400 {
        drop(runtime.spawn(async { time::sleep(HOUR).await }));
    }
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
    let handle = runtime.handle();
    let asked = thread::spawn(move || handle.dump(HOUR));
    // The question ends this turn, in which the first portion is made.
    runtime.turn(None).unwrap();
    // The first task's index was visited already; the new timer's was not.
    first.abort();
    drop(runtime.spawn(async { time::sleep(HOUR).await }));
    while !asked.is_finished() {
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
    }
    let dump = parsed(&asked.join().unwrap());
    assert_eq!(dump["timers"], 401);
    assert_eq!(all(&dump, "kind", "foreign").len(), 0);
}

/// Asserts that the loop is held. Returns what holds it.
fn holder(dump: &Dump) -> Value {
    let dump = parsed(dump);
    assert_eq!(dump["loop"], "held", "{dump}");
    dump["machines"][0].clone()
}

#[test]
fn a_loop_that_is_held_does_not_answer_and_the_dump_names_what_holds_it() {
    let _watchdog = watchdog();
    let (handle, alive) = elsewhere();
    let (hold, holds) = mpsc::channel::<()>();
    let (begins, began) = mpsc::channel();
    let place = format!("{}:{}", file!(), line!() + 1);
    handle.spawn(move || async move {
        begins.send(()).unwrap();
        let _ = holds.recv();
    });
    began.recv().unwrap();
    let (start, timeout) = (Instant::now(), Duration::from_millis(50));
    let dump = handle.dump(timeout);
    assert!(start.elapsed() >= timeout);
    let held_by = holder(&dump);
    assert_eq!(
        (&held_by["kind"], &held_by["place"]),
        (&json!("task"), &json!(place))
    );
    assert!(held_by["held_seconds"].as_f64().unwrap() >= 0.05);
    // The question that was given up is in the mail, and harms nothing.
    assert_eq!(parsed(&dump)["mail_jobs"], 1);
    let text = dump.to_string();
    assert!(text.starts_with("loop held, mail wakes "), "{text}");
    assert!(
        text.contains(&format!("\n1 task, spawned at {place}, running\n")),
        "{text}"
    );
    drop(hold);
    assert_eq!(parsed(&handle.dump(HOUR))["loop"], "answered");
    drop(alive);
}

#[test]
fn the_root_and_a_closure_from_another_thread_are_named_when_they_hold_the_loop() {
    let _watchdog = watchdog();
    let held_by = |handle: &Handle| holder(&handle.dump(Duration::from_millis(20)))["kind"].clone();
    let (hold, holds) = mpsc::channel::<()>();
    let (begins, began) = mpsc::channel();
    let (handle, _alive) = elsewhere();
    handle.spawn(move || {
        begins.send(()).unwrap();
        let _ = holds.recv();
        async {}
    });
    began.recv().unwrap();
    assert_eq!(held_by(&handle), "job");
    drop(hold);

    let (tell, told) = mpsc::channel();
    let (hold, holds) = mpsc::channel::<()>();
    thread::spawn(move || {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            tell.send(runtime.handle()).unwrap();
            let _ = holds.recv();
        });
    });
    assert_eq!(held_by(&told.recv().unwrap()), "root");
    drop(hold);
}

#[test]
fn a_loop_that_cannot_answer_is_reported_silent() {
    let _watchdog = watchdog();
    let silent = |dump: &Dump| {
        let dump = parsed(dump);
        dump["loop"] == "silent" && dump["machines"] == json!([])
    };
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    // This thread cannot both wait and turn.
    assert!(silent(&handle.dump(HOUR)));
    // A host that does not turn.
    let elsewhere = handle.clone();
    let asked = thread::spawn(move || elsewhere.dump(Duration::from_millis(10)));
    assert!(silent(&asked.join().unwrap()));
    drop(runtime);
    let asked = thread::spawn(move || handle.dump(HOUR));
    assert!(silent(&asked.join().unwrap()));
}

#[test]
fn a_dump_in_a_destructor_at_the_end_of_a_runtime_is_made_too() {
    struct Dumps(Rc<Cell<usize>>);
    impl Drop for Dumps {
        fn drop(&mut self) {
            assert_eq!(here()["loop"], "answered");
            self.0.set(self.0.get() + 1);
        }
    }
    let made = Rc::new(Cell::new(0));
    let runtime = Runtime::new().unwrap();
    for _ in 0..3 {
        let dumps = Dumps(made.clone());
        drop(runtime.spawn(async move { (future::pending::<()>().await, dumps).0 }));
    }
    runtime.turn(None).unwrap();
    drop(runtime);
    assert_eq!(made.get(), 3);
}

#[test]
fn a_wait_that_goes_to_another_runtime_shows_in_the_dump_of_that_one() {
    let runtimes = [Runtime::new().unwrap(), Runtime::new().unwrap()];
    let scope = CancelToken::new();
    let mut end = pin!(scope.canceled());
    for here in [0, 1] {
        // The same waker on both.
        let mut cx = Context::from_waker(Waker::noop());
        runtimes[here].block_on(async { assert!(end.as_mut().poll(&mut cx).is_pending()) });
        for (index, runtime) in runtimes.iter().enumerate() {
            runtime.turn(Some(Duration::ZERO)).unwrap();
            let dump = parsed(&runtime.dump());
            let waits = all(&dump, "kind", "foreign").len();
            assert_eq!(waits, usize::from(index == here), "{here} {index}: {dump}");
        }
    }
}
