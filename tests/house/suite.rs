//! The tests themselves: what none of them does.

use crate::rust;
use crate::tree;

/// Each line of a test that has these tokens, except in files whose paths begin with `spared`.
fn lines_with(what: &[&str], spared: &str) -> Vec<String> {
    let files = tree::files("tests", ".rs");
    assert!(files.len() > 50, "the tests were not found");
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.starts_with(spared)) {
        let tokens = rust::tokens(&tree::read(file));
        for at in 0..tokens.len() {
            let mut there = tokens[at..].iter().map(|token| token.text.as_str());
            if what.iter().all(|wanted| there.next() == Some(wanted)) {
                found.push(format!("{file}:{}", tokens[at].line));
            }
        }
    }
    found
}

#[test]
fn a_thread_sleeps_only_where_it_is_said_why() {
    let sleeps = lines_with(&["thread", "::", "sleep"], "tests/it/support/stall.rs");
    assert!(sleeps.is_empty(), "use support::stall: {sleeps:?}");
}

/// A seed that failed and a test that could not run are told on standard error.
#[test]
fn no_test_prints() {
    let mut prints = lines_with(&["println", "!"], "-");
    prints.extend(lines_with(&["dbg", "!"], "-"));
    assert!(prints.is_empty(), "{prints:?}");
}

#[test]
fn no_test_is_named_by_a_code() {
    // "t1_a_claim"
    let is_code = |name: &str| {
        let (first, rest) = name.split_once('_').unwrap_or((name, ""));
        let digits = first.trim_start_matches(|c: char| c.is_ascii_lowercase());
        first.len() == digits.len() + 1 && !digits.is_empty() && !rest.is_empty()
    };
    assert!(is_code("t13_a_claim") && !is_code("poll_2") && !is_code("a_claim"));
    let mut coded = Vec::new();
    for file in tree::files("tests", ".rs") {
        let declared = rust::declared(&rust::tokens(&tree::read(&file)), "");
        let names = declared.names.into_iter().filter(|name| is_code(name));
        coded.extend(names.map(|name| format!("{file}: {name}")));
    }
    assert!(coded.is_empty(), "{coded:?}");
}
