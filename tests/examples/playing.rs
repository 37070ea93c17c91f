//! `game`: sixty frames a second, and players over TCP and UDP.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::process::{Server, run};

/// The next state: the frame, and the places of all players. `None` at the end.
fn next(player: &mut TcpStream) -> Option<(u32, Vec<[u16; 2]>)> {
    let mut head = [0; 6];
    player.read_exact(&mut head).ok()?;
    let number = |at: &[u8]| u16::from_le_bytes([at[0], at[1]]);
    let mut places = vec![0; 4 * usize::from(number(&head[4..]))];
    player.read_exact(&mut places).ok()?;
    let frame = u32::from_le_bytes(head[..4].try_into().unwrap());
    let places = places.chunks(4).map(|at| [number(at), number(&at[2..])]);
    Some((frame, places.collect()))
}

#[test]
fn an_input_moves_its_player_all_see_it_and_a_silent_player_is_dropped() {
    let mut server = Server::start(
        "game",
        &["--clients", "0", "--patience", "1s", "--seconds", "30"],
    );
    let mut mover = server.connect();
    let (first, places) = next(&mut mover).unwrap();
    assert_eq!(places, [[0, 0]]);
    assert_eq!(next(&mut mover).unwrap().0, first + 1, "each frame");

    let mut silent = server.connect();
    // Half an input waits for its other half.
    mover.write_all(&[2]).unwrap();
    while next(&mut mover).unwrap().1.len() < 2 {}
    mover.write_all(&[0]).unwrap();
    while next(&mut silent).unwrap().1[0] == [0, 0] {}
    let (frame, before) = next(&mut silent).unwrap();
    let (later, after) = next(&mut silent).unwrap();
    assert_eq!(later, frame + 1);
    assert_eq!((after[0][0] - before[0][0], after[0][1]), (2, 0));
    assert_eq!(after[1], [0, 0]);

    // The mover goes on, and so is kept.
    while next(&mut silent).is_some() {
        mover.write_all(&[2, 0]).unwrap();
    }
    while next(&mut mover).unwrap().1.len() == 2 {}
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_game_ends_by_itself_and_has_dropped_the_silent_players() {
    let flags = [
        "--seconds",
        "2",
        "--clients",
        "20",
        "--silent",
        "6",
        "--patience",
        "500ms",
    ];
    let ran = run("game", &flags);
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{said}");
    let (counts, _) = said.split_once(" players dropped").expect(&said);
    let numbers: Vec<u64> = counts
        .rsplit_once('\n')
        .map_or(counts, |(_, line)| line)
        .split(' ')
        .filter_map(|word| word.trim_matches(',').parse().ok())
        .collect();
    let [inputs, heard, dropped] = numbers[..] else {
        panic!("{said}");
    };
    assert!(inputs >= 20 && heard >= 20 && dropped >= 6, "{said}");
}

#[test]
fn a_game_may_last_no_time_or_for_ever() {
    for seconds in ["0", "1000000000000000000"] {
        let flags = ["--clients", "0", "--seconds", seconds];
        let (mut server, endless) = (Server::start("game", &flags), seconds != "0");
        if endless {
            assert!(next(&mut server.connect()).is_some());
            server.signal("-TERM");
        }
        let (status, log) = server.end();
        assert_eq!(status, Some(0), "{log}");
    }
}
