//! Tokens at the end of their generations, and those of earlier owners.

use super::*;

struct Owner(Token);

impl Tokened for Owner {
    fn token(&self) -> Token {
        self.0
    }
}

fn open(registry: &mut Registry<Owner>) -> Token {
    let token = registry.next_token().expect("there are slots");
    registry.insert(Owner(token));
    token
}

#[test]
fn invariant_2_generations_of_tokens_wrap_and_tell_neighbours_apart() {
    let mut registry = Registry::new();
    // The generation keeps half the bits of a token; the counter runs on past them.
    let half = 1usize << (usize::BITS / 2);
    for start in [half - 2, usize::MAX - 1] {
        registry.generation = start;
        let mut old = None;
        for _ in 0..4 {
            let token = open(&mut registry);
            assert_ne!(token, Token::BREAK);
            assert_ne!(Some(token), old);
            assert!(registry.get(token).is_some());
            if let Some(old) = old {
                assert!(registry.get(old).is_none() && registry.remove(old).is_none());
            }
            assert!(registry.remove(token).is_some());
            old = Some(token);
        }
    }
    assert_eq!(registry.len(), 0);
}

#[test]
fn invariant_2_no_token_is_ever_the_breaks() {
    let widest = Token::new(Token::MOST - 1, usize::MAX);
    assert_ne!(widest, Token::BREAK);
    assert_eq!(widest.slot(), Token::MOST - 1);
    assert_eq!(
        Token::BREAK.slot(),
        Token::MOST,
        "a slot that is never given out"
    );
}

#[test]
fn a_token_that_was_asked_for_and_not_used_costs_no_slot() {
    let mut registry = Registry::new();
    let refused = registry.next_token().unwrap();
    let opened = open(&mut registry);
    assert_eq!(refused.slot(), opened.slot());
    assert_ne!(refused, opened);
    assert_eq!(registry.len(), 1);
    assert!(registry.get(refused).is_none());
}
