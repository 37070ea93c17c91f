//! `examples/README.md` leaves nothing out and promises nothing that is not there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn contents() -> String {
    fs::read_to_string(root().join("examples/README.md")).unwrap()
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(root().join(directory)).unwrap();
    entries.map(|entry| entry.unwrap().path())
}

#[test]
fn every_row_is_there_once() {
    let rows = [('T', 13), ('R', 12), ('D', 9), ('F', 7), ('C', 6), ('O', 5)];
    let contents = contents();
    // "| R6, R11 what it is | …"
    let firsts = contents.lines().filter_map(|line| line.strip_prefix("| "));
    let named: Vec<_> = firsts
        .flat_map(|row| row.split(' '))
        .map(|word| word.trim_end_matches(','))
        .collect();
    for (letter, last) in rows {
        for number in 1..=last {
            let row = format!("{letter}{number}");
            let count = named.iter().filter(|&&word| word == row).count();
            assert_eq!(count, 1, "{row}");
        }
    }
}

#[test]
fn every_example_is_there() {
    let contents = contents();
    for path in entries("examples") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists() {
            assert!(contents.contains(&format!("[`{name}`]")), "{name}");
        }
    }
}

/// All functions of the tests, by their names and as `module::name`.
fn functions(directory: &str, functions: &mut Vec<String>) {
    for path in entries(directory) {
        if path.is_dir() {
            self::functions(path.to_str().unwrap(), functions);
            continue;
        }
        let module = path.file_stem().unwrap().to_str().unwrap();
        for line in fs::read_to_string(&path).unwrap().lines() {
            if let Some(rest) = line.trim_start().strip_prefix("fn ") {
                let name = rest.split(['(', '<']).next().unwrap();
                functions.push(name.to_owned());
                functions.push(format!("{module}::{name}"));
            }
        }
    }
}

#[test]
fn every_test_that_the_contents_name_exists() {
    let mut count = 0;
    let mut all = Vec::new();
    functions("tests", &mut all);
    for row in contents().lines().filter(|line| line.starts_with("| ")) {
        let tests = row.trim_end_matches([' ', '|']).rsplit(" | ").next();
        // "`stream`: `t1_…`, `t6_…`; `examples`: `closing::o1_…`"
        for part in tests.unwrap_or_default().split("; ") {
            let Some((_, names)) = part.split_once("`: `") else {
                continue;
            };
            for name in names.split("`, `") {
                let name = name.trim_end_matches('`');
                let exists = match name.strip_suffix('…') {
                    Some(start) => all.iter().any(|known| known.starts_with(start)),
                    None => all.iter().any(|known| known == name),
                };
                assert!(exists, "{name} of {part}");
                count += 1;
            }
        }
    }
    assert!(count > 60, "{count}: the table reads otherwise");
}
