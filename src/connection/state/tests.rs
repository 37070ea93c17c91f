//! Every field of the table in the docs of state.rs.

use super::{Event, State};

const EVENTS: [Event; 9] = [
    Event::Opened,
    Event::Flushed,
    Event::FlushedUnread,
    Event::Acknowledged,
    Event::PeerEnded,
    Event::Idle,
    Event::EndAsked,
    Event::CloseAsked,
    Event::Aborted,
];

/// The columns of the table.
const STATES: [State; 7] = [
    State::Opening,
    State::Open,
    State::Finishing,
    State::Finished,
    State::PeerEnded,
    State::Closing,
    State::Lingering,
];

/// A field as text: the next state, a dash if it stays, nothing if it is illegal.
fn field(state: State, event: Event) -> String {
    match state.on(event) {
        None => String::new(),
        Some(next) if next == state => "–".to_owned(),
        Some(next) => format!("{next:?}"),
    }
}

#[test]
fn all_states_are_in_the_order_of_the_enum() {
    for (at, state) in State::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, at);
    }
}

#[test]
fn every_transition_is_the_tables() {
    let rows = include_str!("../state.rs").lines();
    let mut rows = rows.filter_map(|line| line.strip_prefix("//! |")?.strip_suffix('|'));
    let mut next_row = || rows.next().unwrap().split('|').map(str::trim);
    let names = STATES.map(|state| format!("{state:?}"));
    assert!(next_row().skip(1).eq(names), "the columns");
    assert!(next_row().all(|field| field == "---"));
    for event in EVENTS {
        let mut row = next_row();
        assert_eq!(row.next(), Some(&*format!("{event:?}")));
        for state in STATES {
            assert_eq!(
                row.next(),
                Some(&*field(state, event)),
                "{event:?} in {state:?}"
            );
        }
        assert_eq!(
            (row.next(), field(State::Closed, event)),
            (None, String::new())
        );
    }
    assert!(rows.next().is_none());
}

#[test]
fn the_guide_shows_every_move_of_the_table() {
    let mut lines = Vec::new();
    for state in STATES {
        let mut first = format!("{state:?}");
        for next in State::ALL {
            let events = EVENTS
                .iter()
                .filter(|&&event| next != state && state.on(event) == Some(next));
            let events: Vec<String> = events.map(|event| format!("{event:?}")).collect();
            if !events.is_empty() {
                lines.push(format!(
                    "{first:9} ─► {:9}  {}",
                    format!("{next:?}"),
                    events.join(", ")
                ));
                first.clear();
            }
        }
    }
    let wanted = lines.join("\n");
    let guide = include_str!("../../../docs/guide.md");
    let shown = guide.split("<!-- states -->").nth(1).unwrap().trim();
    assert_eq!(shown, format!("```text\n{wanted}\n```"), "\n{wanted}\n");
}
