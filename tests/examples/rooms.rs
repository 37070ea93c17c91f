//! `rooms`: a chat over two workers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::process::Server;

struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects, and reads what a new client is told.
    fn new(server: &Server) -> Client {
        let mut client = Client(BufReader::new(server.connect()));
        client.hears("* you are in lobby");
        client
    }

    fn says(&mut self, line: &str) {
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
    }

    /// The next line that is none of the server's own; empty at the end.
    fn next(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if !line.starts_with("* ") {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Reads up to this line.
    fn hears(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            let length = self.0.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "no {wanted}");
        }
    }
}

fn start(more: &[&str]) -> Server {
    Server::start("rooms", more)
}

#[test]
fn a_line_reaches_its_room_on_every_worker_and_no_other_room() {
    let mut server = start(&[]);
    // So many that with near certainty both workers have some.
    let mut clients: Vec<Client> = (0..16).map(|_| Client::new(&server)).collect();
    for client in &mut clients[8..] {
        client.says("/join attic\n");
        client.hears("* you are in attic");
    }
    clients[0].says("/name ada\nhel");
    clients[0].says("lo\n");
    clients[8].says("up here\n");
    for client in &mut clients[1..8] {
        assert_eq!(client.next(), "ada: hello");
    }
    for client in &mut clients[9..] {
        assert_eq!(client.next(), "guest: up here");
    }
    clients[1].says("/rooms\n");
    clients[1].hears("* attic: 8");
    clients[1].hears("* lobby: 8");
    // A client that has left is in no room.
    drop(clients.pop());
    clients[8].hears("* guest has left");
    clients[1].says("/rooms\n");
    clients[1].hears("* attic: 7");
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn many_lines_in_one_read_drop_no_client_that_reads() {
    let server = start(&["--workers", "1"]);
    let (mut ann, mut bob) = (Client::new(&server), Client::new(&server));
    // One read of the server's: 64 KiB.
    bob.says(&"x\n".repeat(32 << 10));
    for _ in 0..32 << 10 {
        assert_eq!(ann.next(), "guest: x");
    }
}

#[test]
fn a_drain_tells_every_client_and_ends() {
    let mut server = start(&[]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::new(&server)).collect();
    server.signal("-TERM");
    for client in &mut clients {
        client.hears("* the server ends: good-bye");
        // The other worker may still tell that its clients leave.
        let mut rest = String::new();
        client.0.read_to_string(&mut rest).unwrap();
        assert!(
            rest.lines().all(|line| line == "* guest has left"),
            "{rest}"
        );
    }
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_slow_reader_is_dropped_by_its_limit_and_the_others_hear_all() {
    let mut server = start(&["--most-queued", "262144"]);
    let slow = Client::new(&server);
    let (mut quick, mut speaker) = (Client::new(&server), Client::new(&server));
    // A hundred lines, and then the quick one has heard them: it is never behind. In all, more than
    // the system's buffers hold.
    let lines = format!("{}\n", "x".repeat(1000)).repeat(100);
    let mut rounds = 0;
    while !slow_is_dropped(&slow) {
        speaker.says(&lines);
        for _ in 0..100 {
            assert_eq!(quick.next().len(), "guest: ".len() + 1000);
        }
        rounds += 1;
        assert!(rounds < 1000, "the slow one is kept");
    }
    server.wait_for_log("most_queued");
    drop(slow);
    server.signal("-TERM");
    let (status, log) = server.end();
    assert_eq!(status, Some(0));
    assert!(!log.contains("panicked"), "{log}");
}

/// Whether the socket was reset, without a byte being read from it.
fn slow_is_dropped(slow: &Client) -> bool {
    slow.0.get_ref().take_error().unwrap().is_some()
}

#[test]
fn a_line_without_end_ends_its_connection_alone() {
    let mut server = start(&["--longest-line", "100"]);
    let (mut endless, mut other) = (Client::new(&server), Client::new(&server));
    endless.says(&"x".repeat(101));
    server.wait_for_log("most_unused");
    other.hears("* guest has left");
    other.says("/rooms\n");
    other.hears("* lobby: 1");
}

#[test]
fn a_line_that_is_too_long_is_not_said_although_it_comes_whole() {
    let mut server = start(&["--longest-line", "100"]);
    let (mut long, mut other) = (Client::new(&server), Client::new(&server));
    long.says(&format!("{}\n{}\n", "x".repeat(100), "y".repeat(101)));
    assert_eq!(other.next(), format!("guest: {}", "x".repeat(100)));
    server.wait_for_log("a line is too long");
    other.hears("* guest has left");
}

#[test]
fn a_silent_client_is_pinged_and_then_told_good_bye() {
    let server = start(&["--heartbeat", "100ms", "--idle", "600ms"]);
    let mut silent = Client::new(&server);
    silent.hears("* are you there? /pong");
    silent.hears("* good-bye: you have said nothing for long");
    assert_eq!(silent.0.read_to_end(&mut Vec::new()).unwrap(), 0);
}
