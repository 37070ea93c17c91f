//! The examples' parsers: what they find does not depend on how the bytes are cut.

use super::choices::Choices;
use request::Taken;
use splitter::{Split, Splitter};

#[allow(dead_code, reason = "an example's")]
#[path = "../../../examples/http/request.rs"]
mod request;
#[allow(dead_code, reason = "an example's")]
#[path = "../../../examples/http/response.rs"]
mod response;
#[allow(dead_code, reason = "an example's")]
#[path = "../../../examples/lines/splitter.rs"]
mod splitter;

/// Calls `take` with each piece, by the cuts of `choices`; or with all at once.
fn cut(bytes: &[u8], choices: Option<&mut Choices>, mut take: impl FnMut(&[u8])) {
    let Some(choices) = choices else {
        return take(bytes);
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = (1 + choices.below(32)).min(rest.len());
        take(&rest[..length]);
        rest = &rest[length..];
    }
}

fn tokens(split: Split, bytes: &[u8], choices: Option<&mut Choices>) -> Vec<Option<Vec<u8>>> {
    let mut splitter = Splitter::new(split);
    let mut found = Vec::new();
    let mut take = |piece: &[u8]| {
        splitter.push(piece);
        loop {
            match splitter.take() {
                Ok(Some(token)) => found.push(Some(token)),
                Ok(None) => break,
                // Too long: nothing after it counts.
                Err(_) => {
                    found.push(None);
                    break;
                }
            }
        }
    };
    cut(bytes, choices, &mut take);
    take(&[]);
    found
}

fn requests(bytes: &[u8], choices: Option<&mut Choices>) -> Vec<String> {
    let (mut held, mut found, mut failed) = (Vec::new(), Vec::new(), false);
    cut(bytes, choices, |piece| {
        held.extend_from_slice(piece);
        while !failed {
            match request::take(&mut held) {
                Ok(Taken::Request(request)) => found.push(format!("{request:?}")),
                Ok(Taken::Part | Taken::Expects) => break,
                Err(status) => {
                    found.push(format!("{status:?}"));
                    failed = true;
                }
            }
        }
    });
    found
}

/// Words of HTTP, so that a fuzzer needs not find them letter by letter.
const WORDS: [&str; 16] = [
    "GET / HTTP/1.1\r\n",
    "POST /time?zone=utc HTTP/1.0\r\n",
    "host: a\r\n",
    "content-length: 5\r\n",
    "content-length: 5, 5\r\n",
    "content-length: 70000\r\n",
    "transfer-encoding: chunked\r\n",
    "expect: 100-continue\r\n",
    "connection: close\r\n",
    "connection: keep-alive\r\n",
    "\r\n",
    "hello",
    "\n",
    " ",
    "\r",
    "http://a/b",
];

/// Runs the program that `bytes` spell: a text, and where it is cut.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut text = Vec::new();
    for _ in 0..choices.below(64) {
        match choices.below(20) {
            word if word < WORDS.len() => text.extend_from_slice(WORDS[word].as_bytes()),
            _ => text.push(choices.byte()),
        }
    }
    for split in [splitter::line as Split, splitter::word] {
        let whole = tokens(split, &text, None);
        assert_eq!(tokens(split, &text, Some(&mut choices)), whole);
    }
    let whole = requests(&text, None);
    assert_eq!(requests(&text, Some(&mut choices)), whole);
}
