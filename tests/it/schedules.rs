//! Runs the tests on virtual clocks again, each in the schedules of many seeds: machines run in another
//! order, a turn runs some of them, and the selector errs in every way that it may.
//!
//! A failure names its test and seed. The test then runs twice more, alone, and the two are compared
//! turn by turn: what the seed chooses is repeated; what the kernel's timing changes is shown.
//! By hand: `SCHEDULE_SEED=7 cargo test --test it NAME`. `SCHEDULES=2000` sets how many seeds, and
//! `SCHEDULES=100..200` which.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::support::schedule::{LOGS, SEED};

const SEEDS: u64 = 20;

/// Connections, servers under `run_in`, locks, copies, heartbeats.
const MODULES: [&str; 7] = [
    "connection::",
    "net::copy::",
    "net::locks::",
    "net::relay::",
    "runtime::heartbeat::",
    "server::drain::a_busy_connection_is_waited_for_until_the_limit_and_then_cut_off",
    "server::drain::a_second_drain_with_a_shorter_limit_wins_and_a_longer_one_changes_nothing",
];

/// What runs as well where more seeds are asked for.
const MORE_MODULES: [&str; 9] = [
    "net::close::",
    "net::deadlines::",
    "net::futures_io::",
    "net::io::",
    "net::read::",
    "net::serve::",
    "net::unix::",
    "net::write::",
    "runtime::cancel",
];

const LEFT_OUT: [&str; 15] = [
    // They count wakes or attempts, of which an event that is made up makes more.
    "a_polled_read_that_is_given_up_holds_up_nothing",
    "a_polling_reader_and_writer_are_woken_separately",
    "a_source_parks_after_eagain",
    "after_a_try_that_would_block_writable_waits",
    "moving_it_later_runs_no_task_and_moving_it_earlier_does",
    "while_nothing_happens_a_call_is_made_once",
    // A ping and a deadline are due at the same tick: their order is not promised.
    "moving_the_deadline_on_every_byte_ends_at_9_seconds",
    // They take a second and more in any order.
    "a_close_ends_in_time_however_it_came_about",
    "a_close_goes_on_while_the_peer_takes_something",
    "a_payload_for_a_thousand_peers",
    "an_idle_connection_ends_in_each_state_from_open_to_peer_ended",
    "bytes_in_time_win_behind_many_machines_handed_out_at_once",
    "time_in_which_the_loop_was_held_up_is_not_charged",
    "what_waits_for_a_slow_peer_is_not_thrown_away",
    // Its server has a thread and a clock of its own.
    "what_a_write_by_id_accepts_is_sent_before_an_idle_connection_ends",
];

#[test]
fn what_holds_in_one_order_holds_in_the_orders_of_many_seeds() {
    let asked = env::var("SCHEDULES").ok();
    let (first, seeds) = match &asked {
        None => (0, SEEDS),
        Some(asked) => {
            let (first, seeds) = asked.split_once("..").unwrap_or(("0", asked));
            let number = |text: &str| text.parse().expect("a number");
            (number(first), number(seeds))
        }
    };
    let next = AtomicU64::new(first);
    let one_by_one = || {
        let mut failures = Vec::new();
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < seeds) {
            let mut tests = child(seed);
            tests.args(MODULES).args(["--test-threads", "8"]);
            if asked.is_some() {
                tests.args(MORE_MODULES);
            }
            for left_out in LEFT_OUT {
                tests.args(["--skip", left_out]);
            }
            let output = tests.output().unwrap();
            let failed = failed(&output).into_iter();
            failures.extend(failed.map(|test| look_at(&test, seed, &lossy(&output.stdout))));
        }
        failures
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let both = [scope.spawn(one_by_one), scope.spawn(one_by_one)];
        both.into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// This program, in the schedule of a seed.
fn child(seed: u64) -> Command {
    let mut child = Command::new(env::current_exe().unwrap());
    child.env(SEED, seed.to_string()).env("RUST_BACKTRACE", "0");
    child
}

/// The tests that failed, as the program told.
fn failed(output: &Output) -> Vec<String> {
    if output.status.success() {
        return Vec::new();
    }
    let (told, complained) = (lossy(&output.stdout), lossy(&output.stderr));
    let failed = told.lines().filter_map(|line| {
        let (test, _) = line.strip_prefix("test ")?.split_once(" ... FAILED")?;
        Some(test.to_owned())
    });
    let hangs = complained
        .lines()
        .filter_map(|line| line.strip_suffix(" hangs"));
    let tests: Vec<String> = failed.chain(hangs.map(str::to_owned)).collect();
    assert!(!tests.is_empty(), "{}: {complained}", output.status);
    tests
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a test twice more, and says how it went and where the two runs part. `told` is what the run
/// of all has said.
fn look_at(test: &str, seed: u64, told: &str) -> String {
    let folder = env::temp_dir().join(format!("netpoller-schedules-{}-{seed}", std::process::id()));
    let runs = ["first", "second"].map(|name| run_alone(test, seed, &folder.join(name)));
    let _ = fs::remove_dir_all(&folder);
    let fails = runs.iter().filter(|run| run.failure.is_some()).count();
    let failure = runs
        .iter()
        .find_map(|run| run.failure.clone())
        .unwrap_or_else(|| complaint(told, test).to_owned());
    let [first, second] = runs.map(|run| run.turns);
    format!(
        "{test} fails by SCHEDULE_SEED={seed}, and alone {fails} times of two; {}\n{failure}",
        parting(&first, &second)
    )
}

/// What a test that failed among others has said.
fn complaint<'a>(told: &'a str, test: &str) -> &'a str {
    let from = told.find(&format!("---- {test} stdout"));
    let complaint = from.map_or("", |from| &told[from..]);
    let others = ["\n---- ", "\nfailures:"];
    let end = others.iter().filter_map(|next| complaint.find(next)).min();
    complaint[..end.unwrap_or(complaint.len())].trim_end()
}

struct Run {
    failure: Option<String>,
    turns: Vec<String>,
}

fn run_alone(test: &str, seed: u64, logs: &Path) -> Run {
    fs::create_dir_all(logs).unwrap();
    let mut alone = child(seed);
    let output = alone
        .args(["--exact", test])
        .env(LOGS, logs)
        .output()
        .unwrap();
    let log: PathBuf = logs.join(test.replace("::", "."));
    let turns = fs::read_to_string(log).unwrap_or_default();
    Run {
        failure: (!output.status.success()).then(|| lossy(&output.stdout) + &lossy(&output.stderr)),
        turns: turns.lines().map(str::to_owned).collect(),
    }
}

/// Where two runs of one seed part: only the kernel's timing can do that.
fn parting(first: &[String], second: &[String]) -> String {
    let turns = first.len().max(second.len());
    let differs = (0..turns).find(|&turn| first.get(turn) != second.get(turn));
    match differs {
        None => format!("both take the same {turns} turns"),
        Some(turn) => format!(
            "from turn {turn} the kernel's timing differs: {:?}, and then {:?}",
            first.get(turn),
            second.get(turn)
        ),
    }
}

#[test]
fn where_two_runs_of_a_seed_differ_is_reported() {
    let turns = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        parting(&turns("a b"), &turns("a b")),
        "both take the same 2 turns"
    );
    let told = parting(&turns("a b c"), &turns("a x c"));
    assert!(
        told.starts_with("from turn 1 ") && told.contains("\"x\""),
        "{told}"
    );
    assert!(parting(&turns("a b"), &turns("a")).starts_with("from turn 1 "));
}

#[test]
fn what_a_test_that_failed_among_others_printed_is_found() {
    let told = "---- a stdout ----\n\nfirst\n\n---- b stdout ----\n\nsecond\nthird\n\nfailures:\n";
    assert_eq!(complaint(told, "a"), "---- a stdout ----\n\nfirst");
    assert_eq!(complaint(told, "b"), "---- b stdout ----\n\nsecond\nthird");
    assert_eq!(complaint(told, "c"), "");
}
