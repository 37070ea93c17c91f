//! The table in docs/guide.md is what the code does.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use netpoller::reactor::{Descriptor, Direction, Park, Reactor};

use crate::support::watchdog::watchdog;

const GUIDE: &str = include_str!("../../docs/guide.md");

/// A descriptor in one of the slot's three states.
struct Slot {
    reactor: Reactor<&'static str>,
    ours: mio::net::UnixStream,
    theirs: mio::net::UnixStream,
    descriptor: Descriptor<&'static str>,
}

impl Slot {
    fn new(state: &str) -> Slot {
        let reactor = Reactor::new().unwrap();
        let (mut ours, theirs) = mio::net::UnixStream::pair().unwrap();
        let descriptor = reactor.open(&mut ours).unwrap();
        let mut slot = Slot {
            reactor,
            ours,
            theirs,
            descriptor,
        };
        match state {
            "Nil" => {}
            "Ready" => assert!(slot.event().is_empty()),
            "Parked(W)" => {
                let parked = slot.descriptor.park(Direction::Read, "W");
                assert_eq!(parked, Park::Parked);
            }
            other => panic!("{other}"),
        }
        assert_eq!(slot.state(), state);
        slot
    }

    fn state(&self) -> &'static str {
        if self.descriptor.is_ready(Direction::Read) {
            return "Ready";
        }
        match self.descriptor.unpark(Direction::Read) {
            None => "Nil",
            Some(w) => {
                if self.descriptor.check(Direction::Read).is_ok() {
                    assert_eq!(self.descriptor.park(Direction::Read, w), Park::Parked);
                }
                "Parked(W)"
            }
        }
    }

    /// Sends a byte, and turns until its event has come.
    fn event(&mut self) -> Vec<&'static str> {
        self.theirs.write_all(b"!").unwrap();
        let mut out = Vec::new();
        // A turn may bring the event of the other direction alone.
        for _ in 0..3 {
            let wait = Some(Duration::from_millis(20));
            self.reactor.turn(wait, &mut out).unwrap();
        }
        out
    }

    fn turn(&self) -> Vec<&'static str> {
        let mut out = Vec::new();
        self.reactor.turn(Some(Duration::ZERO), &mut out).unwrap();
        out
    }

    /// What `event` does in this state: the state after it, and where the W goes.
    fn field(mut self, event: &str) -> String {
        let mut came_back = false;
        let out = match event {
            "park" => {
                let parked = catch_unwind(AssertUnwindSafe(|| {
                    self.descriptor.park(Direction::Read, "W")
                }));
                match parked {
                    Err(_) => return "panics".to_owned(),
                    Ok(parked) => came_back = parked != Park::Parked,
                }
                Vec::new()
            }
            "an event" => self.event(),
            "drained" => {
                self.descriptor.drained(Direction::Read);
                self.turn()
            }
            "its deadline passes" => {
                let past = Instant::now() - Duration::from_millis(5);
                self.descriptor.set_deadline(Direction::Read, Some(past));
                self.turn()
            }
            "evict" => {
                self.descriptor.evict();
                self.turn()
            }
            other => panic!("{other}"),
        };
        let state = self.state();
        self.reactor.close(self.descriptor, &mut self.ours).unwrap();
        match (out.as_slice(), came_back) {
            ([], false) => state.to_owned(),
            ([], true) => format!("{state}; W comes back"),
            (_, false) => format!("{state}; W goes out"),
            (_, true) => panic!("W twice"),
        }
    }
}

/// As a table of Markdown, in aligned columns.
fn drawn(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().enumerate();
            let cells = cells.map(|(column, cell)| format!(" {cell:0$} |", width(column)));
            format!("|{}", cells.collect::<String>())
        })
        .collect();
    let rule = lines[0].chars().map(|c| if c == '|' { '|' } else { '-' });
    lines.insert(1, rule.collect());
    lines.join("\n")
}

#[test]
fn the_table_of_a_slot_is_what_the_code_does() {
    let _watchdog = watchdog();
    let events = [
        "park",
        "an event",
        "drained",
        "its deadline passes",
        "evict",
    ];
    let heading = ["state"].iter().chain(&events);
    let mut rows = vec![heading.map(|word| (*word).to_owned()).collect()];
    for state in ["Nil", "Ready", "Parked(W)"] {
        let fields = events.iter().map(|event| Slot::new(state).field(event));
        rows.push([state.to_owned()].into_iter().chain(fields).collect());
    }
    let wanted = drawn(&rows);
    let shown = GUIDE.split("<!-- slot -->").nth(1).unwrap().trim();
    assert_eq!(shown, format!("```text\n{wanted}\n```"), "\n{wanted}\n");
}
