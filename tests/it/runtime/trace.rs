//! A trace: what a loop has done, read from any thread, in the format of trace viewers.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpStream as StdStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netpoller::reactor::{Direction, Reactor};
use netpoller::trace::{Kind, Record, Trace};
use netpoller::{Handle, Runtime, Server, TcpListener, TcpStream, spawn, time, yield_now};
use serde_json::Value;

use crate::support::running::Echo;
use crate::support::watchdog::watchdog;

const MINUTE: Duration = Duration::from_secs(60);

fn traced(bytes: usize) -> Runtime {
    Runtime::builder().trace(bytes).build().unwrap()
}

fn last(runtime: &Runtime) -> Trace {
    last_of(runtime, MINUTE)
}

fn last_of(runtime: &Runtime, time: Duration) -> Trace {
    runtime.handle().trace_last(time).unwrap()
}

/// A client sends one message, and the echo comes back.
async fn echo_once() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let echo = spawn(async move {
        let (stream, _) = listener.accept().await?;
        let heard = stream.read_with(|bytes| bytes.to_vec()).await?;
        stream.write_all(&heard).await
    });
    let stream = TcpStream::connect(address).await?;
    // So that the echo waits for the message.
    time::sleep(Duration::from_millis(2)).await;
    stream.write_all(b"hello").await?;
    stream.read_exact(&mut [0; 5]).await?;
    echo.await.expect("it does not panic")
}

/// Checks the format of the file: begins and ends nest, no time goes back, an arrow that begins
/// ends once at most. Returns the arrows that end: the slices that are open where each begins, and
/// where it ends.
fn checked(json: &str) -> Vec<[Vec<String>; 2]> {
    let file: Value = serde_json::from_str(json).expect("it is JSON");
    let (mut open, mut now) = (Vec::new(), 0.0);
    let (mut begun, mut ended) = (HashMap::new(), Vec::new());
    for event in file["traceEvents"].as_array().expect("a list") {
        if event["ph"] == "M" {
            continue;
        }
        let at = event["ts"].as_f64().expect("a time");
        assert!(at >= now, "{at} comes after {now}");
        now = at;
        let id = event["id"].as_u64();
        match event["ph"].as_str().expect("a phase") {
            "B" => open.push(event["name"].as_str().expect("a name").to_owned()),
            "E" => drop(open.pop().expect("an end has a begin")),
            "s" => assert!(begun.insert(id, open.clone()).is_none(), "numbers differ"),
            "f" => {
                let from = begun.remove(&id).expect("it began, and has not ended");
                ended.push([from, open.clone()]);
            }
            phase => panic!("{phase}"),
        }
    }
    assert!(open.is_empty(), "some have no end");
    ended
}

#[test]
fn begins_and_ends_nest_and_no_time_goes_back() {
    let runtime = traced(1 << 20);
    runtime.block_on(echo_once()).unwrap();
    let trace = last(&runtime);
    assert!(trace.records.is_sorted_by_key(|record| record.at));
    assert_eq!(trace.lost, 0);
    checked(&trace.to_json());
}

#[test]
fn each_run_has_its_cause_before_it() {
    let runtime = traced(1 << 20);
    runtime.block_on(echo_once()).unwrap();
    let records = last(&runtime).records;
    for (at, run) in records.iter().enumerate() {
        if run.kind != Kind::Run {
            continue;
        }
        let wakes = [Kind::Unpark, Kind::Wake, Kind::Spawn];
        let woken = |record: &&Record| record.id == run.id && wakes.contains(&record.kind);
        // The first run of the root is block_on's own.
        let Some(wake) = records[..at].iter().rev().find(woken) else {
            assert_eq!(at, 0, "{run} has no cause");
            continue;
        };
        if wake.kind == Kind::Unpark {
            let at = records.iter().position(|record| record == wake).unwrap();
            let mut before = records[..at].iter().rev();
            let cause = before.find(|record| record.kind != Kind::Unpark).unwrap();
            let causes = [Kind::Event, Kind::Fired, Kind::Expired, Kind::Closed];
            assert!(causes.contains(&cause.kind), "{cause} unparks {}", run.id);
        }
    }
}

#[test]
fn an_arrow_leads_from_the_event_of_a_message_to_the_run_that_reads_it() {
    let runtime = traced(1 << 20);
    runtime.block_on(echo_once()).unwrap();
    let mut causes = Vec::new();
    for [from, to] in checked(&last(&runtime).to_json()) {
        if let [turn, cause, unpark] = &from[..] {
            let id = unpark
                .strip_prefix("Unpark ")
                .expect("an unpark lies in its cause");
            let run = to.last().expect("an arrow ends in a run");
            assert_eq!(turn, "Turn");
            assert!(run.starts_with(&format!("Run {id}: ")), "{run}");
            causes.push(cause.split(' ').next().unwrap().to_owned());
        }
    }
    // The echo accepts and reads, the client sleeps and reads.
    let count = |kind| causes.iter().filter(|cause| *cause == kind).count();
    assert!(count("Event") >= 2 && count("Fired") >= 1, "{causes:?}");
}

#[test]
fn a_wake_says_by_which_machine_or_that_another_thread_made_it() {
    let runtime = traced(1 << 20);
    runtime.block_on(async {
        let (tell, told) = mpsc::channel();
        let job = netpoller::spawn_blocking(move || told.recv());
        // Once the job is waited for.
        drop(spawn(async move {
            yield_now().await;
            tell.send(())
        }));
        job.await.unwrap().unwrap();
        // It wakes the root when it ends.
        spawn(async {}).await.unwrap();
    });
    let records = last(&runtime).records;
    let wakes = records.iter().filter(|record| record.kind == Kind::Wake);
    let texts: Vec<String> = wakes.map(|record| record.to_string()).collect();
    let ended = records
        .iter()
        .rev()
        .find(|record| record.kind == Kind::Done)
        .unwrap();
    let task = ended.to_string().replace("Done ", " by ");
    assert!(
        texts
            .iter()
            .any(|text| text.ends_with(" by another thread")),
        "{texts:?}"
    );
    assert!(
        texts.iter().any(|text| text.ends_with(&task)),
        "{texts:?}: none {task}"
    );
}

#[test]
fn a_run_says_what_machine_it_is_also_by_a_strange_name_and_nothing_of_an_earlier_one_at_its_index()
{
    let runtime = traced(1 << 20);
    let named = netpoller::spawn_named::<std::future::Ready<()>>;
    let (first, second) = runtime.block_on(async {
        named("a \"name\"\n\u{1b}[2J", std::future::ready(()))
            .await
            .unwrap();
        let first = last(&runtime);
        // It takes the index of the first.
        spawn(async {}).await.unwrap();
        (first, last(&runtime))
    });
    let texts = |trace: &Trace| trace.machines.values().cloned().collect::<Vec<_>>();
    let is_named =
        |text: &String| text.starts_with("task \"a \\\"name\\\"\\n\\u{1b}[2J\", spawned at ");
    assert!(texts(&first).iter().any(is_named), "{:?}", texts(&first));
    assert!(texts(&first).contains(&"root".to_owned()));
    assert!(!texts(&second).iter().any(is_named), "{:?}", texts(&second));
    let unnamed = |text: &String| text.starts_with("task, spawned at tests/it/runtime/trace.rs:");
    assert!(texts(&second).iter().any(unnamed), "{:?}", texts(&second));
    let file: Value = serde_json::from_str(&first.to_json()).unwrap();
    let events = file["traceEvents"].as_array().unwrap().iter();
    let mut names = events.filter_map(|event| event["name"].as_str());
    assert!(names.any(|name| name.contains("task \"a \\\"name\\\"\\n")));
}

#[test]
fn two_threads_read_while_the_loop_writes() {
    let runtime = traced(4096);
    let read = |handle: Handle| {
        let mut lost = 0;
        while lost < 10_000 {
            let trace = handle.trace_last(MINUTE).unwrap();
            assert!(trace.lost >= lost, "the ring forgot a loss");
            lost = trace.lost;
            checked(&trace.to_json());
        }
    };
    let _watchdog = watchdog();
    let readers = [(); 2].map(|()| {
        let handle = runtime.handle();
        thread::spawn(move || read(handle))
    });
    while readers.iter().any(|reader| !reader.is_finished()) {
        runtime.turn(Some(Duration::ZERO)).unwrap();
    }
    readers
        .into_iter()
        .for_each(|reader| reader.join().unwrap());
}

#[test]
fn a_trace_is_read_during_a_drain_and_after_the_end() {
    let runtime = traced(1 << 20);
    let handle = runtime.handle();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    let mut client = StdStream::connect(bound.local_addr()).unwrap();
    client.write_all(b"hi").unwrap();
    let _watchdog = watchdog();
    while bound.handle().stats().received() < 2 {
        runtime.turn(None).unwrap();
    }
    bound.handle().drain(Duration::from_secs(9));
    runtime.turn(Some(Duration::ZERO)).unwrap();
    let during = handle.trace_last(MINUTE).unwrap().records.len();
    drop(client);
    runtime.block_on(serving).unwrap().unwrap();
    drop(runtime);
    let after = handle.trace_last(MINUTE).unwrap();
    let ended = |record: &Record| record.kind == Kind::Done;
    assert!(
        after.records[during..].iter().any(ended),
        "the connection has ended since"
    );
    checked(&after.to_json());
}

#[test]
fn a_ring_that_is_too_small_is_refused() {
    for bytes in [0, 1, 4095] {
        let refused = Runtime::builder().trace(bytes).build().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let text = refused.to_string();
        assert!(
            text.contains(&format!("{bytes} bytes")) && text.contains("4096"),
            "{text}"
        );
        let refused = Reactor::with_trace(bytes, |_: &usize| 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    let refused = Runtime::builder().trace(usize::MAX).build().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
}

#[test]
fn a_ring_that_overflows_drops_the_oldest_and_says_how_many() {
    let runtime = traced(4096);
    runtime.block_on(async {
        for _ in 0..1000 {
            yield_now().await;
        }
    });
    let trace = last(&runtime);
    // Turn, Wait, WaitEnd, Run, Wake, TurnEnd: six records a turn.
    assert!(trace.lost > 5000, "{}", trace.lost);
    assert_eq!(trace.records.len(), 127);
    let json = trace.to_json();
    checked(&json);
    let file: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(file["otherData"]["lost_records"], trace.lost);
}

#[test]
fn with_a_virtual_clock_only_the_wait_takes_time() {
    let runtime = Runtime::builder().virtual_clock().trace(1 << 20);
    let runtime = runtime.build().unwrap();
    runtime.block_on(async {
        let other = spawn(async { yield_now().await });
        time::sleep(60 * MINUTE).await;
        other.await.unwrap();
    });
    let records = last_of(&runtime, 120 * MINUTE).records;
    assert!(records.is_sorted_by_key(|record| record.at));
    let slept = |record: &&Record| record.kind == Kind::Fired;
    let fired = records.iter().find(slept).expect("the sleep ends");
    assert_eq!(fired.at, 60 * MINUTE);
    let at = |kind: Kind| records.iter().filter(move |record| record.kind == kind);
    assert!(at(Kind::Run).count() > 3);
    for record in at(Kind::Run).chain(at(Kind::Wait)) {
        assert!(
            [Duration::ZERO, fired.at].contains(&record.at),
            "{record:?}"
        );
    }
}

#[test]
fn without_a_ring_there_is_no_trace() {
    let runtime = Runtime::new().unwrap();
    assert!(runtime.handle().trace_last(MINUTE).is_none());
    let reactor: Reactor<usize> = Reactor::new().unwrap();
    assert!(reactor.trace_last(MINUTE).is_none());
}

#[test]
fn a_moved_deadline_and_one_that_passes_are_recorded() {
    let reactor = Reactor::with_trace(4096, |id: &usize| *id as u64).unwrap();
    let (mut ours, _theirs) = mio::net::UnixStream::pair().unwrap();
    let descriptor = reactor.open(&mut ours).unwrap();
    let _ = descriptor.park(Direction::Write, 7);
    let soon = std::time::Instant::now() + Duration::from_millis(2);
    descriptor.set_deadline(Direction::Read, Some(soon));
    let _ = descriptor.park(Direction::Read, 8);
    let mut out = Vec::new();
    while !out.contains(&8) {
        reactor.turn(None, &mut out).unwrap();
    }
    let records = reactor.trace_last(MINUTE).unwrap().records;
    let of = |kind| records.iter().position(|record| record.kind == kind);
    let (moved, passed) = (of(Kind::ReadUntil).unwrap(), of(Kind::Expired).unwrap());
    assert!(moved < passed);
    assert_eq!(records[moved].id, records[passed].id);
    assert_eq!(
        (records[passed + 1].kind, records[passed + 1].id),
        (Kind::Unpark, 8)
    );
}
