//! A trace: what a loop has done, read from any thread, in the format of trace viewers.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use netpoller::reactor::{Direction, Reactor};
use netpoller::trace::{Kind, Trace};
use netpoller::{Runtime, TcpListener, TcpStream, spawn, time, yield_now};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

fn traced(bytes: usize) -> Runtime {
    Runtime::builder().trace(bytes).build().unwrap()
}

fn last(runtime: &Runtime) -> Trace {
    runtime.handle().trace_last(MINUTE).unwrap()
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

/// The events of the file. Holds it to the format: begins and ends nest on each track, no time goes back,
/// an arrow that begins ends once at most.
fn checked(json: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(json).expect("it is JSON");
    let events = file["traceEvents"].as_array().expect("a list").clone();
    let mut tracks: HashMap<String, (f64, usize)> = HashMap::new();
    let mut arrows: HashMap<u64, usize> = HashMap::new();
    for event in &events {
        if event["ph"] == "M" {
            continue;
        }
        let track = tracks.entry(event["tid"].to_string()).or_default();
        let at = event["ts"].as_f64().expect("a time");
        assert!(at >= track.0, "{at} comes after {}", track.0);
        track.0 = at;
        match event["ph"].as_str().expect("a phase") {
            "B" => track.1 += 1,
            "E" => track.1 = track.1.checked_sub(1).expect("an end has a begin"),
            "s" => assert!(arrows.insert(event["id"].as_u64().unwrap(), 0).is_none()),
            "f" => {
                *arrows
                    .get_mut(&event["id"].as_u64().unwrap())
                    .expect("it began") += 1
            }
            phase => panic!("{phase}"),
        }
    }
    assert!(tracks.values().all(|(_, open)| *open == 0), "all ends");
    assert!(arrows.values().all(|ends| *ends <= 1));
    events
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
fn each_run_for_a_message_is_followed_to_the_event_that_brought_it() {
    let runtime = traced(1 << 20);
    runtime.block_on(echo_once()).unwrap();
    let records = last(&runtime).records;
    for (at, run) in records.iter().enumerate() {
        if run.kind != Kind::Run {
            continue;
        }
        let wakes = [Kind::Unpark, Kind::Wake, Kind::Spawn];
        let woken = |record: &&netpoller::trace::Record| {
            record.id == run.id && wakes.contains(&record.kind)
        };
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
