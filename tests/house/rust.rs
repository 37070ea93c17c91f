//! As much of Rust as the house needs: the tokens of a file, what it imports, what it declares.

use std::collections::HashSet;

/// A word, a number, or punctuation; `::`, `->` and `=>` are one token each. Comments are none,
/// a string is `""`.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

pub fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

pub fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let rest = &chars[at..];
        let next = |n: usize| rest.get(n).copied().unwrap_or('\0');
        let text = match rest[0] {
            c if c.is_whitespace() => {
                at += 1;
                None
            }
            '/' if next(1) == '/' => {
                at += rest.iter().position(|&c| c == '\n').unwrap_or(rest.len());
                None
            }
            '/' if next(1) == '*' => {
                at += block_comment(rest);
                None
            }
            '"' => {
                at += string(rest);
                Some("\"\"".to_owned())
            }
            'r' | 'b' | 'c' if raw_hashes(rest).is_some() => {
                at += raw_string(rest);
                Some("\"\"".to_owned())
            }
            'b' | 'c' if next(1) == '"' => {
                at += 1 + string(&rest[1..]);
                Some("\"\"".to_owned())
            }
            '\'' if next(1) == '\\' => {
                let end = rest[3..].iter().position(|&c| c == '\'');
                at += 4 + end.expect("a character ends");
                Some("''".to_owned())
            }
            '\'' if next(2) == '\'' => {
                at += 3;
                Some("''".to_owned())
            }
            // A lifetime.
            '\'' => {
                at += 1 + word(&rest[1..]);
                None
            }
            c if c.is_alphanumeric() || c == '_' => {
                at += word(rest);
                Some(rest[..at - start].iter().collect())
            }
            c => {
                let pair: String = rest.iter().take(2).collect();
                let double = ["::", "->", "=>"].contains(&pair.as_str());
                at += if double { 2 } else { 1 };
                Some(if double { pair } else { c.to_string() })
            }
        };
        tokens.extend(text.map(|text| Token { text, line }));
        line += chars[start..at].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

fn word(chars: &[char]) -> usize {
    let end = chars.iter().position(|c| !c.is_alphanumeric() && *c != '_');
    end.unwrap_or(chars.len())
}

fn string(chars: &[char]) -> usize {
    let mut at = 1;
    while chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn block_comment(chars: &[char]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (at, depth) = (at + 2, depth + 1),
            ('*', '/') => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

/// The number of `#` of a raw string that begins here, and where its quote is.
fn raw_hashes(chars: &[char]) -> Option<(usize, usize)> {
    let start = chars.iter().take(2).position(|&c| c == 'r')? + 1;
    let hashes = chars[start..].iter().take_while(|&&c| c == '#').count();
    (chars.get(start + hashes) == Some(&'"')).then_some((hashes, start + hashes))
}

fn raw_string(chars: &[char]) -> usize {
    let (hashes, quote) = raw_hashes(chars).unwrap();
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let body = &chars[quote + 1..];
    let length = body.windows(end.len()).position(|part| part == end);
    quote + 1 + length.expect("a raw string ends") + end.len()
}

/// The tokens without what is compiled for tests only, and the names of modules that are so in
/// files of their own.
pub fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if !starts(&tokens[at..], &["#", "[", "cfg", "("]) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = at + group(&tokens[at + 1..]) + 1;
        let condition: Vec<&str> = tokens[at..end].iter().map(|t| t.text.as_str()).collect();
        let for_tests = condition.contains(&"test") || condition.contains(&"doctest");
        if !for_tests || condition.contains(&"not") || condition.contains(&"any") {
            kept.extend_from_slice(&tokens[at..end]);
            at = end;
            continue;
        }
        let dropped = item(&tokens[end..]);
        if let [.., module, name, semicolon] = &tokens[end..end + dropped]
            && (module.text.as_str(), semicolon.text.as_str()) == ("mod", ";")
        {
            modules.push(name.text.clone());
        }
        at = end + dropped;
    }
    (kept, modules)
}

fn starts(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(t, text)| t.text == *text)
}

/// The length of the bracketed group that begins here.
fn group(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    panic!("brackets match");
}

/// The length of the item, field or statement that begins here, with its attributes.
fn item(tokens: &[Token]) -> usize {
    const ITEMS: [&str; 14] = [
        "fn",
        "mod",
        "impl",
        "struct",
        "enum",
        "trait",
        "use",
        "const",
        "static",
        "type",
        "unsafe",
        "async",
        "extern",
        "macro_rules",
    ];
    let mut at = 0;
    while tokens[at].text == "#" {
        at += 1 + group(&tokens[at + 1..]);
    }
    let mut kind = at;
    if tokens[kind].text == "pub" {
        kind += 1;
        if tokens[kind].text == "(" {
            kind += group(&tokens[kind..]);
        }
    }
    let kind = tokens[kind].text.as_str();
    let is_item = ITEMS.contains(&kind);
    let ends_with_braces = is_item && !["use", "const", "static", "type"].contains(&kind);
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            "}" => return at,
            "{" if ends_with_braces => return at + group(&tokens[at..]),
            "(" | "[" | "{" => at += group(&tokens[at..]),
            _ => at += 1,
        }
    }
    at
}

/// A path as it is written, each branch of a `use` by itself, and its line. It begins with `crate`,
/// `super`, `self`, or one of `crates`.
pub struct Path {
    pub parts: Vec<String>,
    pub line: usize,
    /// The modules of this file that it stands in.
    pub within: Vec<String>,
}

pub fn paths(tokens: &[Token], crates: &[String]) -> Vec<Path> {
    let mut paths = Vec::new();
    let (mut within, mut depth) = (Vec::new(), 0);
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        match text {
            "mod" if starts(&tokens[at + 2..], &["{"]) => {
                within.push((tokens[at + 1].text.clone(), depth));
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                within.pop_if(|(_, outer)| *outer == depth);
            }
            _ => {}
        }
        let before = if at > 0 { &*tokens[at - 1].text } else { "" };
        let first = ["crate", "super", "self"].contains(&text) || crates.iter().any(|c| c == text);
        let goes_on = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        if !first || !goes_on || ["::", ".", "$"].contains(&before) {
            at += 1;
            continue;
        }
        let mut found = Vec::new();
        let end = tree(tokens, at, &mut Vec::new(), &mut found);
        paths.extend(found.into_iter().map(|parts| Path {
            parts,
            line: tokens[at].line,
            within: within.iter().map(|(name, _)| name.clone()).collect(),
        }));
        at = end;
    }
    paths
}

/// Reads a path or a tree of them, and returns where it ends.
fn tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let length = prefix.len();
    loop {
        match tokens.get(at).map(|token| token.text.as_str()) {
            Some("{") => {
                at += 1;
                while tokens[at].text != "}" {
                    at = tree(tokens, at, prefix, found);
                    if tokens[at].text == "as" {
                        at += 2;
                    }
                    if tokens[at].text == "," {
                        at += 1;
                    }
                }
                prefix.truncate(length);
                return at + 1;
            }
            Some(text) if is_word(text) || text == "*" => {
                prefix.push(text.to_owned());
                at += 1;
                if tokens.get(at).is_some_and(|token| token.text == "::") {
                    at += 1;
                    continue;
                }
            }
            // `::<`
            _ => {}
        }
        found.push(prefix.clone());
        prefix.truncate(length);
        return at;
    }
}

/// What a file declares.
#[derive(Default)]
pub struct Declared {
    pub names: HashSet<String>,
    /// Members with the type, trait or module that they are in.
    pub members: HashSet<(String, String)>,
    /// What `type A = B<C>` and `impl Deref for A` say: A's members are also B's.
    pub aliases: HashSet<(String, String)>,
}

enum Scope {
    Owner(String),
    Struct(String),
    Enum(String),
    Other,
}

pub fn declared(tokens: &[Token], module: &str) -> Declared {
    let mut declared = Declared::default();
    let mut scopes = vec![Scope::Owner(module.to_owned())];
    let mut pending = None;
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    for at in 0..tokens.len() {
        let before = if at > 0 { text(at - 1) } else { ";" };
        let name = text(at + 1).to_owned();
        let at_item = ["}", ";", "]", "{", "unsafe", "default"].contains(&before);
        match text(at) {
            "impl" if at_item => pending = Some(Scope::Owner(implementor(&tokens[at + 1..]))),
            "trait" if is_word(&name) => {
                declare(&mut declared, &scopes, &name);
                pending = Some(Scope::Owner(name));
            }
            "mod" if is_word(&name) => {
                declare(&mut declared, &scopes, &name);
                pending = Some(Scope::Owner(name));
            }
            "struct" | "union" if is_word(&name) && before != "." => {
                declare(&mut declared, &scopes, &name);
                pending = Some(Scope::Struct(name));
            }
            "enum" if is_word(&name) => {
                declare(&mut declared, &scopes, &name);
                pending = Some(Scope::Enum(name));
            }
            "fn" if is_word(&name) => {
                declare(&mut declared, &scopes, &name);
                pending = Some(Scope::Other);
            }
            "macro_rules" => declare(&mut declared, &scopes, text(at + 2)),
            "const" | "static" | "type" if is_word(&name) && before != "*" => {
                let name = if name == "mut" { text(at + 2) } else { &name };
                declare(&mut declared, &scopes, name);
                if text(at) == "type" {
                    alias(&mut declared, &scopes, &tokens[at + 1..]);
                }
            }
            ";" => pending = None,
            "{" => scopes.push(pending.take().unwrap_or(Scope::Other)),
            "}" => {
                scopes.pop();
            }
            word if is_word(word) => match scopes.last() {
                Some(Scope::Struct(owner))
                    if text(at + 1) == ":" && ["{", ",", "pub", ")", "]"].contains(&before) =>
                {
                    declared.names.insert(word.to_owned());
                    declared.members.insert((owner.clone(), word.to_owned()));
                }
                Some(Scope::Enum(owner)) if ["{", ",", "]"].contains(&before) => {
                    declared.names.insert(word.to_owned());
                    declared.members.insert((owner.clone(), word.to_owned()));
                }
                _ => {}
            },
            _ => {}
        }
    }
    declared
}

fn declare(declared: &mut Declared, scopes: &[Scope], name: &str) {
    declared.names.insert(name.to_owned());
    let mut owners = scopes.iter().filter_map(|scope| match scope {
        Scope::Owner(owner) => Some(owner),
        _ => None,
    });
    if let Some(owner) = owners.next_back() {
        declared.members.insert((owner.clone(), name.to_owned()));
    }
}

/// `type A = b::B<C>;`, and `type Target = B;` within an `impl ... for A`.
fn alias(declared: &mut Declared, scopes: &[Scope], tokens: &[Token]) {
    let Some(equals) = tokens.iter().position(|t| [";", "="].contains(&&*t.text)) else {
        return;
    };
    if tokens[equals].text == ";" {
        return;
    }
    let of = path_end(&tokens[equals + 1..]);
    let name = match (tokens[0].text.as_str(), scopes.last()) {
        ("Target", Some(Scope::Owner(owner))) => owner.clone(),
        (name, _) => name.to_owned(),
    };
    declared.aliases.insert((name, of));
}

/// The type of an `impl`: `X` of `<T> X<T> where …` and of `<T> Trait<T> for a::X<T>`.
fn implementor(tokens: &[Token]) -> String {
    let mut at = 0;
    if tokens[0].text == "<" {
        at = angles(tokens);
    }
    let header = tokens[at..].iter().position(|token| token.text == "{");
    let header = &tokens[at..at + header.expect("an impl has a body")];
    // The `for` of a trait, and none of a `for<'a>`.
    let of = header
        .iter()
        .enumerate()
        .position(|(at, token)| {
            token.text == "for" && header.get(at + 1).is_some_and(|t| t.text != "<")
        })
        .map_or(0, |at| at + 1);
    path_end(&header[of..])
}

fn angles(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "<" => depth += 1,
            ">" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    panic!("angle brackets match");
}

/// `B` of `&mut a::B<C>`.
fn path_end(tokens: &[Token]) -> String {
    let mut end = String::new();
    for token in tokens {
        match token.text.as_str() {
            "&" | "mut" | "dyn" | "::" => {}
            word if is_word(word) => end = word.to_owned(),
            _ => break,
        }
    }
    end
}
