//! Every field of the table in the docs of state.rs, written out once more.

use super::{Actions, Event, State};

const EVENTS: [Event; 13] = [
    Event::Opened,
    Event::Bytes,
    Event::CanWrite,
    Event::Flushed,
    Event::Drained,
    Event::PeerEnded,
    Event::HeartbeatDue,
    Event::Idle,
    Event::TooSlow,
    Event::EndAsked,
    Event::CloseAsked,
    Event::AbortAsked,
    Event::Reset,
];

/// A field as text: the next state if it changes, and the actions.
fn field(state: State, event: Event) -> String {
    let Some((next, actions)) = state.on(event) else {
        return "illegal".into();
    };
    let names = [
        (Actions::TELL_OPEN, "open"),
        (Actions::DELIVER, "deliver"),
        (Actions::TELL_END, "end"),
        (Actions::TELL_HEARTBEAT, "heartbeat"),
        (Actions::TELL_IDLE, "idle"),
        (Actions::TELL_DRAINED, "drained"),
        (Actions::ARM, "arm"),
        (Actions::WRITE, "write"),
        (Actions::SHUT_DOWN, "shut"),
        (Actions::RESET, "reset"),
        (Actions::CLOSE, "close"),
    ];
    let mut words = Vec::new();
    if next != state {
        words.push(format!("{next:?}"));
    }
    let done = names.iter().filter(|(action, _)| actions.has(*action));
    words.extend(done.map(|(_, name)| (*name).to_owned()));
    words.join(" ")
}

#[test]
fn every_transition_is_the_tables() {
    let illegal = "illegal";
    // Opening, Open, Finishing, Finished, PeerEnded, Closing, Closed.
    let table = [
        ["Open open arm", illegal, illegal, illegal, illegal, illegal],
        [
            illegal,
            "deliver arm",
            "deliver arm",
            "deliver arm",
            illegal,
            illegal,
        ],
        [illegal, "write", "write", illegal, "write", "write"],
        [illegal, "", "Finished shut", "", "", "Closed close"],
        [illegal, "drained", "drained", "", "drained", ""],
        [
            illegal,
            "PeerEnded end",
            "Closing end write",
            "Closed end close",
            "",
            "",
        ],
        [illegal, "heartbeat", "", "", "heartbeat", ""],
        [
            illegal,
            "Closing idle arm write",
            "Closing idle arm write",
            "Closed idle close",
            "Closing idle arm write",
            "Closed reset close",
        ],
        [
            illegal,
            "Closed reset close",
            "Closed reset close",
            "Closed reset close",
            "Closed reset close",
            "Closed reset close",
        ],
        [illegal, "Finishing write", "", "", "Closing arm write", ""],
        [
            "Closing arm write",
            "Closing arm write",
            "Closing arm write",
            "Closed close",
            "Closing arm write",
            "",
        ],
        ["Closed reset close"; 6],
        ["Closed close"; 6],
    ];
    for (event, row) in EVENTS.into_iter().zip(table) {
        for (state, wanted) in State::ALL.into_iter().zip(row) {
            assert_eq!(field(state, event), wanted, "{event:?} in {state:?}");
        }
        assert_eq!(field(State::Closed, event), illegal);
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
        let reset = state.on(Event::Reset);
        assert_eq!(reset.is_some(), state != State::Closed);
    }
}

#[test]
fn whoever_closes_has_time_to_write() {
    for state in State::ALL {
        for event in EVENTS {
            if let Some((State::Closing, actions)) = state.on(event)
                && state != State::Closing
            {
                assert!(actions.has(Actions::WRITE), "{event:?} in {state:?}");
            }
        }
    }
}
