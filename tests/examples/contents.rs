//! `examples/README.md` leaves no row and no example out. That the tests which it names exist is
//! checked by `tests/house`.

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
    let rows = [('T', 13), ('R', 12), ('D', 9), ('F', 7), ('C', 6), ('O', 6)];
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
