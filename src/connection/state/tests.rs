//! Every field of the table in the docs of state.rs, written out once more.

use super::{ASKED, Actions, Asked, Event, State, Status};

const EVENTS: [Event; 15] = [
    Event::Opened,
    Event::Flushed,
    Event::FlushedUnread,
    Event::Acknowledged,
    Event::Writable,
    Event::PeerEnded,
    Event::HeartbeatDue,
    Event::Idle,
    Event::TooSlow,
    Event::DrainBegun,
    Event::TimerDue,
    Event::EndAsked,
    Event::CloseAsked,
    Event::AbortAsked,
    Event::Broken,
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

/// A field as text: the next state if it changes, and the actions. Empty if it is illegal.
fn field(state: State, event: Event) -> String {
    let Some((next, actions)) = state.on(event) else {
        return String::new();
    };
    let names = [
        (Actions::TELL_OPEN, "open"),
        (Actions::TELL_END, "end"),
        (Actions::TELL_HEARTBEAT, "heartbeat"),
        (Actions::TELL_IDLE, "idle"),
        (Actions::TELL_WRITABLE, "writable"),
        (Actions::ARM, "arm"),
        (Actions::SHUT_DOWN, "shut"),
        (Actions::RESET, "reset"),
        (Actions::CLOSE, "close"),
        (Actions::TELL_TIMER, "timer"),
        (Actions::TELL_DRAINING, "draining"),
    ];
    let mut words = Vec::new();
    if next != state {
        words.push(format!("{next:?}"));
    }
    let done = names.iter().filter(|(action, _)| actions.has(*action));
    words.extend(done.map(|(_, name)| (*name).to_owned()));
    if words.is_empty() {
        return "–".to_owned();
    }
    words.join(" ")
}

#[test]
fn every_transition_is_the_tables() {
    let closing = "Closing arm";
    let idle = "Closing idle arm";
    let reset = "Closed reset close";
    let (draining, timer) = ("draining", "timer");
    let table = [
        ["Open open arm", "", "", "", "", "", ""],
        ["", "", "Finished shut", "", "", "Closed close", ""],
        ["", "", "", "", "", "Lingering arm shut", ""],
        ["", "", "", "", "", "", "Closed close"],
        ["", "writable", "–", "", "writable", "–", ""],
        [
            "",
            "PeerEnded end",
            "Closing end arm",
            "Closed end close",
            "",
            "",
            "Closed close",
        ],
        ["", "heartbeat", "", "", "heartbeat", "", ""],
        ["", idle, idle, idle, idle, reset, reset],
        ["", reset, reset, reset, reset, reset, ""],
        ["", draining, draining, draining, draining, "–", "–"],
        ["", timer, timer, timer, timer, "–", "–"],
        ["", "Finishing", "–", "–", closing, "–", "–"],
        ["", closing, closing, closing, closing, "–", "–"],
        [reset; 7],
        ["Closed close"; 7],
    ];
    for (event, row) in EVENTS.into_iter().zip(table) {
        for (state, wanted) in STATES.into_iter().zip(row) {
            assert_eq!(field(state, event), wanted, "{event:?} in {state:?}");
        }
        assert_eq!(field(State::Closed, event), "");
    }
}

#[test]
fn closed_is_reached_from_everywhere_and_only_once() {
    for state in State::ALL {
        for event in EVENTS {
            let Some((next, actions)) = state.on(event) else {
                continue;
            };
            let closes = actions.has(Actions::CLOSE);
            assert_eq!(closes, next == State::Closed, "{event:?} in {state:?}");
        }
        let broken = state.on(Event::Broken);
        assert_eq!(broken.is_some(), state != State::Closed);
    }
}

#[test]
fn every_way_into_closing_and_lingering_arms() {
    for state in State::ALL {
        for event in EVENTS {
            if let Some((next @ (State::Closing | State::Lingering), actions)) = state.on(event)
                && state != next
            {
                assert!(actions.has(Actions::ARM), "{event:?} in {state:?}");
            }
        }
    }
}

#[test]
fn a_byte_tells_the_state_what_was_asked_and_whether_there_is_more_to_attend_to() {
    for state in State::ALL {
        for asked in ASKED {
            for attend in [false, true] {
                let status = Status::OPENING.with_attend(attend);
                let status = status.with_asked(asked).with_state(state);
                let status = Status::from_byte(status.byte());
                assert_eq!((status.state(), status.asked()), (state, asked));
                let may_write = asked == Asked::Nothing && state.takes_writes();
                assert_eq!(status.may_write(), may_write);
                let plain = state == State::Open && asked == Asked::Nothing && !attend;
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
            let events = EVENTS.iter().filter(|&&event| {
                next != state && state.on(event).is_some_and(|(reached, _)| reached == next)
            });
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
