//! The files of this package.

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All files below `directory` that end so, as paths from the root, sorted.
pub fn files(directory: &str, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(directory), &mut found);
    let mut files: Vec<String> = found
        .iter()
        .map(|file| {
            file.strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .filter(|file| file.ends_with(end))
        .collect();
    files.sort();
    files
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().unwrap() != "target" {
                collect(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// The modules that a file of `src/` is: `src/net/fd/mod.rs` is `net`, `fd`.
pub fn module(file: &str) -> Vec<String> {
    let path = file.strip_prefix("src/").unwrap().trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}
