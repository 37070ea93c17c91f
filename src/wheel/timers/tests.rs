//! What `Timers` promises, and when entries become stale.

use super::*;

#[test]
fn moving_a_timer_later_leaves_no_entry_behind() {
    let mut timers = Timers::new();
    let key = timers.insert(Tick::new(5), ());
    for later in 6..1_000 {
        assert!(timers.move_to(key, Tick::new(later)));
        assert_eq!(timers.entries(), 1);
    }
    assert!(!timers.advance(Tick::new(998), usize::MAX, |()| panic!("early")));
    assert_eq!(timers.next(), Some(Tick::new(999)));
    assert!(!timers.advance(Tick::new(999), usize::MAX, |()| ()));
    assert!(timers.is_empty());
    assert!(!timers.move_to(key, Tick::new(1_001)));
}

#[test]
fn only_a_move_to_an_earlier_tick_makes_a_new_entry() {
    let mut timers = Timers::new();
    let key = timers.insert(Tick::new(100), ());
    for (when, entries) in [
        (100, 1),
        (110, 1),
        (90, 2),
        (95, 2),
        (95, 2),
        (100, 2),
        (89, 3),
    ] {
        timers.move_to(key, Tick::new(when));
        assert_eq!(timers.entries(), entries, "after a move to {when}");
    }
}

#[test]
fn an_entry_left_behind_lapses_when_it_comes_out() {
    let mut timers = Timers::new();
    let key = timers.insert(Tick::new(10), ());
    timers.move_to(key, Tick::new(5));
    timers.move_to(key, Tick::new(100));
    timers.advance(Tick::new(5), usize::MAX, |()| panic!("early"));
    assert_eq!((timers.len(), timers.entries()), (1, 2));
    timers.advance(Tick::new(10), usize::MAX, |()| panic!("early"));
    assert_eq!((timers.len(), timers.entries()), (1, 1));
}

#[test]
fn an_idle_timer_moved_a_thousand_times_wakes_its_owner_once_an_entry() {
    let mut timers = Timers::new();
    let key = timers.insert(Tick::new(60), ());
    let mut wakes = 0;
    for now in 0..600 {
        timers.move_to(key, Tick::new(now + 60));
        if timers.next() <= Some(Tick::new(now)) {
            wakes += 1;
            timers.advance(Tick::new(now), usize::MAX, |()| panic!("early"));
        }
    }
    assert_eq!(wakes, 9);
}

#[test]
fn an_entry_left_behind_that_is_taken_for_the_live_one_does_no_harm() {
    let mut timers = Timers::new();
    // A timer leaves an entry at 1,000, and four billion entries later another timer of its index
    // has one of the same number.
    let first = timers.insert(Tick::new(1_000), "first");
    timers.cancel(first);
    timers.placed = NonZeroU32::MAX;
    let second = timers.insert(Tick::new(2_000), "second");
    assert_eq!((timers.len(), timers.entries()), (1, 2));

    let mut fired = Vec::new();
    timers.advance(Tick::new(1_999), usize::MAX, |value| fired.push(value));
    assert_eq!(
        (fired.len(), timers.when(second)),
        (0, Some(Tick::new(2_000)))
    );
    timers.advance(Tick::new(2_000), usize::MAX, |value| fired.push(value));
    assert_eq!(fired, ["second"]);
    assert_eq!((timers.len(), timers.entries()), (0, 0));
}

#[test]
fn keys_tell_timers_apart_where_the_count_of_insertions_wraps() {
    let mut timers = Timers::new();
    let before = timers.insert(Tick::new(1), 'a');
    timers.placed = NonZeroU32::MAX;
    timers.cancel(before);
    let last = timers.insert(Tick::new(1), 'b');
    assert_eq!(last, before, "the one key in four billion that comes again");
    timers.cancel(last);
    let next = timers.insert(Tick::new(1), 'c');
    assert_ne!(next, last);
    assert_eq!((timers.get(last), timers.get(next)), (None, Some(&'c')));
}

#[test]
fn a_timer_of_an_eight_byte_value_takes_24_bytes_and_an_entry_16() {
    assert_eq!(size_of::<Option<Timer<u64>>>(), 24);
    assert_eq!(size_of::<(Tick, EntryKey)>(), 16);
    assert_eq!(size_of::<Option<TimerKey>>(), 8);
}
