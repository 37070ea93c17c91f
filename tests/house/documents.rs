//! What the documents name exists: files, items of the code, tests, programs. Code spans are looked
//! at, links, and the names in drawings.

use std::collections::{HashMap, HashSet};

use crate::rust::{self, Declared};
use crate::tree;

/// Documents whose names are checked.
const DOCUMENTS: [&str; 13] = [
    "README.md",
    "ARCHITECTURE.md",
    "docs/decisions.md",
    "docs/faults-of-others.md",
    "docs/invariants.md",
    "docs/measured.md",
    "docs/peers.md",
    "docs/proofs.md",
    "docs/cookbook.md",
    "docs/guide.md",
    "docs/what.md",
    "examples/README.md",
    "tests/CONFORMANCE.md",
];

/// Names that are not ours: Rust's, Go's, the system's, tools'. Each is in a document, and none is
/// declared here.
const FOREIGN: &str = "
    AsFd Drop Instant IoSlice Rc RawWaker RefCell Send WouldBlock io::Error Waker std u16 unsafe
    epoll_wait netpollblock socktest golang.org/x/net/nettest
    info nc top wrk
";

/// All that `src/`, `tests/`, `examples/` and `benches/` declare.
struct Names {
    all: HashSet<String>,
    members: HashSet<(String, String)>,
    aliases: HashMap<String, Vec<String>>,
    by_file: HashMap<String, HashSet<String>>,
    /// Files by their modules' names: `lent` has `src/runtime/lent.rs`.
    modules: HashMap<String, Vec<String>>,
    files: HashSet<String>,
    crates: HashSet<String>,
}

impl Names {
    fn collect() -> Names {
        let mut names = Names {
            all: HashSet::new(),
            members: HashSet::new(),
            aliases: HashMap::new(),
            by_file: HashMap::new(),
            modules: HashMap::new(),
            files: HashSet::new(),
            crates: HashSet::new(),
        };
        for directory in [
            "src", "tests", "examples", "benches", "docs", ".ci", ".github",
        ] {
            if tree::root().join(directory).exists() {
                names.files.extend(tree::files(directory, ""));
            }
        }
        for file in std::fs::read_dir(tree::root()).unwrap() {
            names
                .files
                .insert(file.unwrap().file_name().to_string_lossy().into_owned());
        }
        let sources = names.files.iter().filter(|file| file.ends_with(".rs"));
        for file in sources.cloned().collect::<Vec<_>>() {
            let mut parts = file.trim_end_matches(".rs").rsplit('/');
            let module = match parts.next().unwrap() {
                "mod" | "main" => parts.next().unwrap().to_owned(),
                name => name.to_owned(),
            };
            let found = rust::declared(&rust::tokens(&tree::read(&file)), &module);
            names.add(file, module, found);
        }
        let manifests = names
            .files
            .iter()
            .filter(|file| file.ends_with("Cargo.toml"));
        for manifest in manifests {
            for line in tree::read(manifest).lines() {
                if let Some((name, _)) = line.split_once([' ', '.']) {
                    names.crates.insert(name.to_owned());
                }
                if let Some(name) = line.strip_prefix("name = ") {
                    names.crates.insert(name.trim_matches('"').to_owned());
                }
            }
        }
        names
    }

    fn add(&mut self, file: String, module: String, found: Declared) {
        // A module is a member of the folder that it lies in.
        if let Some((folder, _)) = file.trim_end_matches("/mod.rs").rsplit_once('/') {
            let folder = folder.rsplit('/').next().unwrap();
            self.members.insert((folder.to_owned(), module.clone()));
        }
        self.all.insert(module.clone());
        self.all.extend(found.names.iter().cloned());
        self.members.extend(found.members);
        for (alias, of) in found.aliases {
            self.aliases.entry(alias).or_default().push(of);
        }
        self.modules.entry(module).or_default().push(file.clone());
        self.by_file.insert(file, found.names);
    }

    /// Whether `owner::name` is there: a member, also by way of an alias; or anywhere in a module.
    fn has(&self, owner: &str, name: &str) -> bool {
        if self.members.contains(&(owner.to_owned(), name.to_owned())) {
            return true;
        }
        if self
            .aliases
            .get(owner)
            .is_some_and(|of| of.iter().any(|of| of != owner && self.has(of, name)))
        {
            return true;
        }
        self.in_module(owner)
            .any(|file| self.by_file[file].contains(name))
    }

    /// The files of a module, those below it too.
    fn in_module(&self, module: &str) -> impl Iterator<Item = &String> {
        let folder = format!("/{module}/");
        let own = self.modules.get(module).cloned().unwrap_or_default();
        let files = self.by_file.keys();
        files.filter(move |file| own.contains(file) || file.contains(&folder))
    }

    /// The sources that a path names: itself, or those below it.
    fn below(&self, path: &str) -> Vec<String> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let files = self.by_file.keys();
        let files = files.filter(|file| *file == path || file.starts_with(&below));
        files.cloned().collect()
    }

    fn file(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.contains(path)
            || self.files.iter().any(|file| {
                file.starts_with(&format!("{path}/")) || file.ends_with(&format!("/{path}"))
            })
            || self
                .files
                .iter()
                .any(|file| file.contains(&format!("/{path}/")))
    }
}

/// What is wrong with a document.
struct Reader<'a> {
    names: &'a Names,
    document: &'a str,
    foreign: HashSet<&'static str>,
    used: HashSet<&'static str>,
    wrong: Vec<String>,
    looked_at: usize,
}

impl Reader<'_> {
    fn fault(&mut self, line: usize, what: &str) {
        self.wrong.push(format!("{}:{line}: {what}", self.document));
    }

    fn known(&mut self, name: &str) -> bool {
        self.looked_at += 1;
        if let Some(&name) = self.foreign.get(name) {
            self.used.insert(name);
            return true;
        }
        self.names.all.contains(name)
            || self.names.crates.contains(name)
            || is_of_the_system(name)
            || is_gos(name)
    }

    fn line(&mut self, number: usize, line: &str) {
        // A test's file, or a module and a colon, stands in front of its tests.
        let mut place: Option<Vec<String>> = None;
        let mut parts = line.split('`').skip(1);
        while let Some(span) = parts.next() {
            let after = parts.next().unwrap_or_default();
            if is_path(span) {
                self.path(number, span);
                place = span.starts_with("tests/").then(|| self.names.below(span));
            } else if is_item(span) && after == ": " {
                let module = span.rsplit("::").next().unwrap();
                place = Some(self.names.in_module(module).cloned().collect());
                self.span(number, span);
            } else if let (Some(files), true) = (&place, is_item(span) && span.contains('_')) {
                self.test(number, &files.clone(), span);
            } else {
                self.span(number, span);
            }
        }
        for link in line.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                let folder = self
                    .document
                    .rsplit_once('/')
                    .map_or("", |(folder, _)| folder);
                let path = tree::root().join(folder).join(target);
                self.looked_at += 1;
                if !path.exists() {
                    self.fault(number, &format!("no file {target}"));
                }
            }
        }
    }

    fn path(&mut self, line: usize, path: &str) {
        self.looked_at += 1;
        if let Some(&path) = self.foreign.get(path) {
            self.used.insert(path);
        } else if !self.names.file(path) {
            self.fault(line, &format!("no file {path}"));
        }
    }

    fn test(&mut self, line: usize, files: &[String], name: &str) {
        self.looked_at += 1;
        let last = name.rsplit("::").next().unwrap();
        let mut names = files.iter().map(|file| &self.names.by_file[file]);
        if !names.any(|names| names.contains(last)) {
            self.fault(line, &format!("no {name} in {}", files.join(", ")));
        }
    }

    fn span(&mut self, line: usize, span: &str) {
        if ["cargo ", "python3 "]
            .iter()
            .any(|tool| span.contains(tool))
        {
            return self.command(line, span);
        }
        if let Some(&span) = self.foreign.get(span) {
            self.used.insert(span);
            return;
        }
        if is_item(span) {
            let parts: Vec<&str> = span.trim_end_matches("()").split("::").collect();
            if let [.., owner, name] = parts[..] {
                self.looked_at += 1;
                let foreign = self.foreign.contains(owner) || !self.names.all.contains(owner);
                if foreign {
                    if !self.known(owner) {
                        self.fault(line, &format!("no {owner}, of {span}"));
                    }
                } else if !self.names.has(owner, name) {
                    self.fault(line, &format!("no {name} in {owner}"));
                }
            } else if !self.known(parts[0]) {
                self.fault(line, &format!("no {}", parts[0]));
            }
            return;
        }
        // `net.Error` is Go's.
        let (before, after) = span.split_once('.').unwrap_or((span, ""));
        if is_item(before) && is_item(after) && after.starts_with(char::is_uppercase) {
            return;
        }
        // Of anything else, what is called and what is a type.
        if span.contains(['$', '*', '\\', '\'', '"']) {
            return;
        }
        let tokens = rust::tokens(span);
        for (at, token) in tokens.iter().enumerate() {
            let called = tokens.get(at + 1).is_some_and(|next| next.text == "(");
            let mut letters = token.text.chars();
            let of_a_type =
                letters.next().is_some_and(char::is_uppercase) && letters.any(char::is_lowercase);
            if rust::is_word(&token.text) && (called || of_a_type) && !self.known(&token.text) {
                self.fault(line, &format!("no {}, of {span}", token.text));
            }
        }
    }

    /// Of a drawing, the words that are names by their look.
    fn drawing(&mut self, line: usize, text: &str) {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        for word in words.map(|word| word.trim_matches(':')) {
            let name = rust::is_word(word) && (word.contains('_') || word.contains("::"));
            let last = word.rsplit("::").next().unwrap();
            if name && !self.known(last) {
                self.fault(line, &format!("no {word}"));
            }
        }
    }

    fn command(&mut self, line: usize, command: &str) {
        let mut words = command.split(' ');
        while let Some(word) = words.next() {
            self.looked_at += 1;
            let there = match word {
                "--test" => {
                    let name = words.next().unwrap();
                    let paths = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")];
                    paths.iter().any(|path| self.names.files.contains(path))
                }
                "--example" => {
                    let name = words.next().unwrap();
                    let paths = [
                        format!("examples/{name}.rs"),
                        format!("examples/{name}/main.rs"),
                        format!("benches/{name}/main.rs"),
                    ];
                    name == "NAME" || paths.iter().any(|path| self.names.files.contains(path))
                }
                "-p" => self.names.crates.contains(words.next().unwrap()),
                word if is_path(word) => self.names.file(word),
                _ => true,
            };
            if !there {
                self.fault(line, &format!("{word} of {command}"));
            }
        }
    }
}

fn is_path(span: &str) -> bool {
    const ENDS: [&str; 8] = [".rs", ".md", ".toml", ".py", ".c", ".json", ".go", ".yml"];
    let plain = !span.contains(|c: char| c.is_whitespace() || "()<>{}*,:=$'\"".contains(c));
    let inside = span.contains('/') && !span.starts_with(['/', '-', '[']);
    plain
        && !span.contains("..")
        && (inside
            || ENDS
                .iter()
                .any(|end| span.len() > end.len() && span.ends_with(end)))
}

fn is_item(span: &str) -> bool {
    let path = span.trim_end_matches("()");
    path.split("::")
        .all(|part| rust::is_word(part) && part.chars().all(|c| c.is_alphanumeric() || c == '_'))
}

/// `pollDesc`: no name of ours is written so.
fn is_gos(name: &str) -> bool {
    name.starts_with(char::is_lowercase) && name.contains(char::is_uppercase)
}

/// Error numbers, and constants of the system's headers.
fn is_of_the_system(name: &str) -> bool {
    const HEADERS: [&str; 9] = [
        "SO_", "TCP_", "MSG_", "EPOLL", "IPV6_", "IP_", "POLL", "RLIMIT_", "SIG",
    ];
    let constant = name
        .chars()
        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    constant && (name.starts_with('E') || HEADERS.iter().any(|start| name.starts_with(start)))
}

#[test]
fn what_the_documents_name_exists() {
    let names = Names::collect();
    let foreign: HashSet<&str> = FOREIGN.split_whitespace().collect();
    let (mut wrong, mut used, mut looked_at) = (Vec::new(), HashSet::new(), 0);
    for document in DOCUMENTS {
        let mut reader = Reader {
            names: &names,
            document,
            foreign: foreign.clone(),
            used: HashSet::new(),
            wrong: Vec::new(),
            looked_at: 0,
        };
        let (mut in_block, mut in_drawing) = (false, false);
        let mut skipped = Vec::new();
        for (number, line) in tree::read(document).lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
                in_drawing = in_block && line.trim_end().ends_with("```text");
            } else if in_drawing {
                reader.drawing(number + 1, line);
            } else if !in_block {
                // Go's names, and what a program prints.
                let cells: Vec<&str> = line.split(" | ").collect();
                let mut heading = cells.iter().map(|cell| cell.trim_matches(['|', ' ']));
                if let Some(at) = heading.position(|cell| cell == "Go" || cell == "see") {
                    skipped.push(at);
                } else if !line.starts_with('|') {
                    skipped.clear();
                }
                let cells = cells.iter().enumerate();
                let cells = cells.filter(|(at, _)| !skipped.contains(at));
                let cells: Vec<&str> = cells.map(|(_, cell)| *cell).collect();
                reader.line(number + 1, &cells.join(" | "));
            }
        }
        wrong.append(&mut reader.wrong);
        used.extend(reader.used);
        looked_at += reader.looked_at;
    }
    for name in &foreign {
        if names.all.contains(*name) {
            wrong.push(format!("FOREIGN: {name} is ours"));
        }
        if !used.contains(name) {
            wrong.push(format!("FOREIGN: {name} is in no document"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(looked_at > 50, "{looked_at}: the documents read otherwise");
}

#[test]
fn each_fault_of_others_has_an_issue_and_a_test() {
    let text = tree::read("docs/faults-of-others.md");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| their fault"))
        .collect();
    assert!(rows.len() >= 40, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [_, issue, test] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let has_issue = issue.contains("](https://") || issue.starts_with("man ");
        let has_test = test.starts_with("`tests/") && test.contains(".rs`: `");
        assert!(has_issue && has_test, "{row}");
    }
}

/// Comments may name a file of Go's, which has no folder of ours in front.
#[test]
fn files_that_comments_name_exist() {
    const FOLDERS: [&str; 6] = ["src/", "tests/", "docs/", "examples/", "benches/", ".ci/"];
    let names = Names::collect();
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    // The peers' servers cite the examples of other crates.
    let ours = |file: &&String| file.ends_with(".rs") && !file.starts_with("benches/peers/");
    for file in names.files.iter().filter(ours) {
        for (number, line) in tree::read(file).lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            let words = comment.split(|c: char| c.is_whitespace() || "`\"()[],;:".contains(c));
            for word in words.map(|word| word.trim_end_matches('.')) {
                let ours = FOLDERS.iter().any(|folder| word.starts_with(folder));
                let is_file = [".rs", ".md", ".py", ".c"]
                    .iter()
                    .any(|end| word.ends_with(end));
                if is_file && (ours || word.ends_with(".md")) {
                    looked_at += 1;
                    if !names.file(word) {
                        wrong.push(format!("{file}:{}: no file {word}", number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(looked_at > 5, "{looked_at}: the comments read otherwise");
}

/// Types in private modules that no code can name.
const WITHOUT_EXAMPLE: [&str; 1] = ["MachineId"];

#[test]
fn each_public_type_has_an_example() {
    let (mut without, mut looked_at) = (Vec::new(), 0);
    for file in tree::files("src", ".rs") {
        let text = tree::read(&file);
        let mut docs = String::new();
        for line in text.lines() {
            let words: Vec<&str> = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .collect();
            if let ["pub", "struct" | "enum" | "trait", name, ..] = words[..] {
                looked_at += 1;
                let has = docs.contains("```");
                if !has && !WITHOUT_EXAMPLE.contains(&name) {
                    without.push(format!("{file}: {name}"));
                }
            }
            match line.starts_with("///") {
                true => docs += line,
                // Attributes, and the rest of one, stand between the docs and the type.
                false if line.starts_with(['#', ' ', ')']) => {}
                false => docs.clear(),
            }
        }
    }
    assert!(without.is_empty(), "\n{}", without.join("\n"));
    assert!(
        looked_at > 70,
        "{looked_at}: the types are declared otherwise"
    );
}
