//! Imports point down: the table of layers in ARCHITECTURE.md, against what `src/` uses.

use std::collections::{BTreeSet, HashMap};

use crate::rust::{self, Path};
use crate::tree;

/// A row of the table. What stands above may use what stands below.
struct Layer {
    name: String,
    crates: BTreeSet<String>,
}

fn table() -> Vec<Layer> {
    let document = tree::read("ARCHITECTURE.md");
    let mut parts = document.split("<!-- layers -->");
    let table = parts.nth(1).expect("ARCHITECTURE.md has the table");
    // "| `net` | sockets | mio, socket2 |", below two lines of heading.
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let crates = cells[3]
            .split([',', ' ', '`'])
            .filter(|word| !word.is_empty());
        Layer {
            name: cells[1].trim_matches('`').to_owned(),
            crates: crates.map(|name| name.replace('-', "_")).collect(),
        }
    })
    .collect()
}

/// The crates that the library depends on, as paths name them.
fn dependencies() -> Vec<String> {
    let manifest = tree::read("Cargo.toml");
    let (_, after) = manifest.split_once("[dependencies]\n").unwrap();
    let lines = after.lines().take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split_once(['=', '.']))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .collect()
}

/// What a file uses: the first name of each path below the crate, or another crate.
struct Use {
    file: String,
    line: usize,
    of: String,
    path: String,
}

/// Everything that `src/` uses, but for its tests.
fn uses() -> Vec<Use> {
    let dependencies = dependencies();
    let mut files = HashMap::new();
    let mut for_tests = Vec::new();
    for file in tree::files("src", ".rs") {
        let (tokens, modules) = rust::without_tests(&rust::tokens(&tree::read(&file)));
        let module = tree::module(&file);
        for name in modules {
            for_tests.push([module.clone(), vec![name]].concat());
        }
        files.insert(file, (module, tokens));
    }
    files.retain(|_, (module, _)| !for_tests.iter().any(|tests| module.starts_with(tests)));
    let root = files.remove("src/lib.rs").expect("a root").1;
    let exports = exports(&root);

    let mut uses = Vec::new();
    for (file, (module, tokens)) in files {
        for path in rust::paths(&tokens, &dependencies) {
            let Some(mut of) = absolute(&module, &path).into_iter().next() else {
                continue;
            };
            // `crate::TcpStream`: what the root exports is its layer's.
            if let Some(layer) = exports.get(&of) {
                of.clone_from(layer);
            }
            let (file, line) = (file.clone(), path.line);
            let path = path.parts.join("::");
            uses.push(Use {
                file,
                line,
                of,
                path,
            });
        }
    }
    uses.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    uses
}

/// What the root exports, and from which layer: `pub use net::{Dialer, …}`.
fn exports(root: &[rust::Token]) -> HashMap<String, String> {
    let modules: Vec<String> = root
        .windows(2)
        .filter(|pair| pair[0].text == "mod")
        .map(|pair| pair[1].text.clone())
        .collect();
    let paths = rust::paths(root, &modules);
    let named = paths.into_iter().filter(|path| path.parts.len() > 1);
    named
        .map(|path| (path.parts.last().unwrap().clone(), path.parts[0].clone()))
        .collect()
}

/// A path from the crate's root, or from another crate.
fn absolute(module: &[String], path: &Path) -> Vec<String> {
    let mut base = [module, &path.within].concat();
    let mut rest = &path.parts[..];
    match rest[0].as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop();
        }
        _ => return rest.to_vec(),
    }
    rest = &rest[1..];
    while rest.first().is_some_and(|part| part == "super") {
        base.pop();
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    base
}

fn layer_of(file: &str) -> String {
    tree::module(file).swap_remove(0)
}

#[test]
fn the_table_has_every_layer_once() {
    let mut named: Vec<String> = table().into_iter().map(|layer| layer.name).collect();
    named.sort();
    let mut there: Vec<String> = tree::files("src", ".rs")
        .iter()
        .filter(|file| *file != "src/lib.rs")
        .map(|file| layer_of(file))
        .collect();
    there.sort();
    there.dedup();
    assert_eq!(named, there, "the table's, and those of src/");
}

#[test]
fn imports_point_down() {
    let table = table();
    let height = |name: &str| table.iter().rev().position(|layer| layer.name == name);
    let mut up = Vec::new();
    let (mut down, uses) = (0, uses());
    for Use {
        file,
        line,
        of,
        path,
    } in &uses
    {
        let from = layer_of(file);
        let (Some(here), Some(there)) = (height(&from), height(of)) else {
            continue;
        };
        if there > here && !is_old_path(&from, of, file) {
            up.push(format!("{file}:{line}: {path} is in {of}, above {from}"));
        }
        down += usize::from(there < here);
    }
    assert!(up.is_empty(), "\n{}", up.join("\n"));
    assert!(down > 100, "{down}: the imports were not found");
}

/// Until 0.2 the server's types are exported by their old paths too.
fn is_old_path(from: &str, of: &str, file: &str) -> bool {
    (from, of, file) == ("connection", "server", "src/connection/mod.rs")
}

#[test]
fn each_layer_uses_the_crates_of_its_row() {
    let dependencies = dependencies();
    assert!(
        dependencies.iter().any(|name| name == "mio"),
        "{dependencies:?}"
    );
    let (mut wrong, uses) = (Vec::new(), uses());
    for layer in table() {
        let used: BTreeSet<String> = uses
            .iter()
            .filter(|used| layer_of(&used.file) == layer.name)
            .filter(|used| dependencies.contains(&used.of))
            .map(|used| used.of.clone())
            .collect();
        if used != layer.crates {
            let (name, said) = (layer.name, layer.crates);
            wrong.push(format!(
                "{name}: the table says {said:?}, and it uses {used:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

// ---- circles ----

/// Files that use one another in a circle are hard to read: none is the first. One that stays says
/// why at its top, with that word.
#[test]

fn no_files_use_one_another_in_a_circle_but_one_that_says_why() {
    let edges = edges();
    let count = edges.len();
    assert!(count > 100, "{count}: the imports were not found");
    let mut unnamed = String::new();
    for circle in circles(&edges) {
        let says_why = circle.iter().any(|file| {
            let text = tree::read(file);
            let is_head = |line: &&str| line.is_empty() || line.starts_with("//");
            let mut head = text.lines().take_while(is_head);
            head.any(|line| line.contains("circle"))
        });
        if !says_why {
            unnamed += "a circle:\n";
            let within = |(from, to): &&(_, _)| circle.contains(from) && circle.contains(to);
            for (from, to) in edges.iter().filter(within) {
                unnamed += &format!("  {from} uses {to}\n");
            }
        }
    }
    assert!(unnamed.is_empty(), "\n{unnamed}");
}

/// Which file of `src/` uses which.
fn edges() -> BTreeSet<(String, String)> {
    let dependencies = dependencies();
    let mut modules = HashMap::new();
    let mut read = Vec::new();
    for file in tree::files("src", ".rs") {
        let (tokens, _) = rust::without_tests(&rust::tokens(&tree::read(&file)));
        let module = tree::module(&file);
        if file == "src/lib.rs" || module.iter().any(|name| name == "tests") {
            continue;
        }
        modules.insert(module.clone(), file.clone());
        read.push((file, module, tokens));
    }
    // `pub use` in a module: its names are elsewhere.
    let mut exports = HashMap::new();
    for (_, module, tokens) in &read {
        for path in exported(tokens) {
            let to = absolute(module, &path);
            let name = to.last().unwrap().clone();
            exports.insert([module.clone(), vec![name]].concat(), to);
        }
    }
    let mut edges = BTreeSet::new();
    for (file, module, tokens) in &read {
        let reexported: Vec<usize> = exported(tokens).iter().map(|path| path.line).collect();
        for path in rust::paths(tokens, &dependencies) {
            if reexported.contains(&path.line) {
                continue;
            }
            let mut to = absolute(module, &path);
            for length in (1..=to.len()).rev() {
                if let Some(there) = exports.get(&to[..length]) {
                    to.clone_from(there);
                    break;
                }
            }
            let target = (1..=to.len())
                .rev()
                .find_map(|length| modules.get(&to[..length]));
            if let Some(target) = target.filter(|target| *target != file) {
                edges.insert((file.clone(), target.clone()));
            }
        }
    }
    edges
}

/// The paths of `pub use` and `pub(crate) use`.
fn exported(tokens: &[rust::Token]) -> Vec<Path> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let here = at;
        at += 1;
        if tokens[here].text != "pub" {
            continue;
        }
        let mut next = here + 1;
        if tokens[next].text == "(" {
            next += 1 + tokens[next..].iter().position(|t| t.text == ")").unwrap();
        }
        if tokens[next].text != "use" {
            continue;
        }
        let end = next + tokens[next..].iter().position(|t| t.text == ";").unwrap();
        // A path that begins with a module of this file is one of `self`.
        let mut one = tokens[next + 1..end].to_vec();
        if !["crate", "super", "self"].contains(&&*one[0].text) {
            let line = one[0].line;
            let text = |text: &str| rust::Token {
                text: text.to_owned(),
                line,
            };
            one.splice(0..0, [text("self"), text("::")]);
        }
        found.extend(rust::paths(&one, &[]));
    }
    found
}

/// The strongly connected sets of more than one file.
fn circles(edges: &BTreeSet<(String, String)>) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = todo.pop() {
            for (_, to) in edges.iter().filter(|(a, _)| *a == file) {
                if seen.insert(to.clone()) {
                    todo.push(to.clone());
                }
            }
        }
        seen
    };
    let files: BTreeSet<String> = edges.iter().map(|(from, _)| from.clone()).collect();
    let reached: HashMap<&String, BTreeSet<String>> =
        files.iter().map(|file| (file, reach(file))).collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for file in &files {
        if circles.iter().any(|circle| circle.contains(file)) || !reached[file].contains(file) {
            continue;
        }
        let back =
            |other: &&String| reached[*other].contains(file) && reached[file].contains(*other);
        circles.push(files.iter().filter(back).cloned().collect());
    }
    circles
}
