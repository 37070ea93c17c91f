//! Every field of the table in the docs of state.rs, written out once more.

use super::{ASKED, ATTEND, Asked, Event, State, Status};

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
fn every_transition_is_the_tables() {
    let (close, closed) = ("Closing", "Closed");
    let table = [
        ["Open", "", "", "", "", "", ""],
        ["", "", "Finished", "", "", closed, ""],
        ["", "", "", "", "", "Lingering", ""],
        ["", "", "", "", "", "", closed],
        ["", "PeerEnded", close, closed, "", "", closed],
        ["", close, close, close, close, closed, closed],
        ["", "Finishing", "–", "–", close, "–", "–"],
        ["", close, close, close, close, "–", "–"],
        [closed; 7],
    ];
    for (event, row) in EVENTS.into_iter().zip(table) {
        for (state, wanted) in STATES.into_iter().zip(row) {
            assert_eq!(field(state, event), wanted, "{event:?} in {state:?}");
        }
        assert_eq!(field(State::Closed, event), "");
    }
}

#[test]
fn a_byte_tells_the_state_what_was_asked_and_whether_there_is_more_to_attend_to() {
    for state in State::ALL {
        for asked in ASKED {
            for attend in [0, ATTEND] {
                let status = Status(Status::OPENING.0 | attend);
                let status = status.with_asked(asked).with_state(state);
                assert_eq!((status.state(), status.asked()), (state, asked));
                let may_write = asked == Asked::Nothing && state.takes_writes();
                assert_eq!(status.may_write(), may_write);
                let plain = state == State::Open && asked == Asked::Nothing && attend == 0;
                assert_eq!(status.is_plain(), plain);
            }
        }
    }
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
