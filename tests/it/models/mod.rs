//! Models of the library, for fuzzers (`fuzz/`): bytes in, a panic if the library and the model
//! disagree. Here each runs its corpus, and random programs; `PROGRAMS=1000` sets their number.

use std::env;
use std::fs;

use crate::support::random::Random;
use crate::support::watchdog::watchdog;

pub mod choices;
pub mod host_port;
pub mod parsers;
pub mod poll_desc;
pub mod protocol;
pub mod sockets;
pub mod timers;

const PROGRAMS: u64 = 20;

/// Runs what is in the corpus of a target, and random programs. One that fails is named.
fn replay(target: &str, run: fn(&[u8])) {
    struct Named(String);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input that failed: {}", self.0);
            }
        }
    }
    let corpus = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    // A published package has no corpus.
    for file in fs::read_dir(corpus).into_iter().flatten() {
        let path = file.unwrap().path();
        let _named = Named(path.display().to_string());
        let _watchdog = watchdog();
        run(&fs::read(path).unwrap());
    }
    let programs = env::var("PROGRAMS").map_or(PROGRAMS, |programs| programs.parse().unwrap());
    for seed in 0..programs {
        let _named = Named(format!("the random program {seed}"));
        let _watchdog = watchdog();
        let mut random = Random::new(seed);
        let length = random.below(300);
        let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        run(&bytes);
    }
}

#[test]
fn sockets_do_as_the_model_of_two_ends_does() {
    replay("sockets", sockets::run);
}

#[test]
fn connections_whose_callbacks_do_anything_keep_order_limits_and_counts() {
    replay("protocol", protocol::run);
}

#[test]
fn descriptors_do_as_their_table_says() {
    replay("poll_desc", poll_desc::run);
}

#[test]
fn timers_do_as_a_sorted_list_does() {
    replay("timers", timers::run);
}

#[test]
fn parsers_of_examples_find_the_same_however_the_bytes_are_cut() {
    replay("parsers", parsers::run);
}

#[test]
fn texts_are_dialled_as_go_s_rules_say() {
    replay("host_port", host_port::run);
}

#[test]
fn what_go_made_of_a_text_is_what_its_rules_say_and_what_a_dial_comes_to() {
    use host_port::{Outcome, Rules, dialled, expected};
    let table = include_str!("host_port.tsv");
    assert!(table.lines().count() > 500);
    let _watchdog = watchdog();
    for row in table.lines() {
        let [network, text, told] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let go = match told.split_at(1) {
            ("=", all) => Outcome::Addresses(all.split(' ').map(str::to_owned).collect()),
            ("?", port) => {
                let (host, _) = text.rsplit_once(':').unwrap();
                let host = host.trim_matches(['[', ']']);
                Outcome::Name(format!("{host}:{port}"))
            }
            _ => Outcome::Error(told.to_owned()),
        };
        assert_eq!(expected(Rules::Gos, network, text), go, "{row}");
        let ours = expected(Rules::Ours, network, text);
        assert_eq!(dialled(network, text), ours, "{row}");
    }
}
