//! A scenario file with those that it extends, made one document.
//!
//! What extends another file has all that is in it, changed: keys of `[nat.NAME]`, `[link.NAME]`, `[node.NAME]` and `[firewall.NAME]` replace
//! those of the same table there, and so do those of a list's table that has the same `name` as one there; other tables of
//! lists are added. `remove` takes things out before.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::{Problems, suggestion};
use super::read::{Entry, LISTS, parse};

/// The tables of named tables.
pub(super) const NAMED: [&str; 4] = ["nat", "link", "node", "firewall"];

/// How many files may extend each other in a row.
const MAX_DEPTH: usize = 8;

/// How many files a scenario may be made of.
const MAX_FILES: usize = 32;

/// A file, by its number, with those that it extends.
#[derive(Debug)]
struct Node {
    number: usize,
    extends: Vec<Node>,
}

/// The texts of a scenario's files, each at the place of its spans.
#[derive(Debug)]
pub(super) struct Sources {
    root: Node,
    texts: Vec<String>,
}

impl Sources {
    /// Reads the files that the scenario's own extends; what cannot be read is a problem.
    pub(super) fn load(problems: &mut Problems, file: &Path) -> Self {
        let mut loading =
            Loading { problems, way: vec![(identity(file), file.display().to_string())], seen: Vec::new() };
        loading.seen.push(identity(file));
        let root = loading.load(0, file);
        let mut ranks = 0;
        rank(loading.problems, &root, &mut ranks);
        let texts = (0..loading.problems.sources()).map(|number| {
            let (text, start) = loading.problems.text(number);
            // Spans count from the beginning of the first file.
            format!("{}{text}", " ".repeat(start))
        });
        let texts = texts.collect();
        Self { root, texts }
    }

    /// The document that all files come to.
    pub(super) fn document<'t>(&'t self, problems: &mut Problems) -> DeTable<'t> {
        self.merged(problems, &self.root)
    }

    fn merged<'t>(&'t self, problems: &mut Problems, node: &Node) -> DeTable<'t> {
        let mut document = DeTable::new();
        for base in &node.extends {
            let base = self.merged(problems, base);
            merge(&mut document, base);
        }
        let mut own = parse(problems, &self.texts[node.number]);
        own.remove("extends");
        check_names(problems, &own);
        if let Some(remove) = own.remove("remove") {
            if node.extends.is_empty() {
                problems
                    .add(remove.span(), "there is nothing to remove: this file extends none")
                    .help("write `extends = \"FILE\"`, or leave `remove` out");
            } else {
                take_out(problems, &mut document, remove);
            }
        }
        merge(&mut document, own);
        document
    }
}

struct Loading<'p> {
    problems: &'p mut Problems,
    /// From the scenario's own file to the one that is read: what it is, and what it is called.
    way: Vec<(PathBuf, String)>,
    seen: Vec<PathBuf>,
}

impl Loading<'_> {
    fn load(&mut self, number: usize, path: &Path) -> Node {
        let extends = self.extends(number);
        let folder = path.parent().unwrap_or(Path::new(""));
        let bases = extends.into_iter().filter_map(|base| self.base(&base, folder)).collect();
        Node { number, extends: bases }
    }

    /// The files that one says it extends.
    fn extends(&mut self, number: usize) -> Vec<Spanned<String>> {
        let (text, start) = self.problems.text(number);
        let text = format!("{}{text}", " ".repeat(start));
        // What else is wrong with it is told later.
        let (document, _) = DeTable::parse_recoverable(&text);
        let Some(extends) = document.get_ref().get("extends") else { return Vec::new() };
        let list = match extends.get_ref() {
            DeValue::Array(list) => list.iter().collect(),
            _ => vec![extends],
        };
        let mut files = Vec::new();
        for file in list {
            match file.get_ref().as_str() {
                Some(name) if !name.is_empty() => files.push(Spanned::new(file.span(), name.to_owned())),
                _ => {
                    self.problems
                        .add(file.span(), "`extends` is a file's name in quotes, or several in brackets")
                        .help("write extends = \"other.toml\": where it is, seen from this file's folder");
                }
            }
        }
        files
    }

    fn base(&mut self, written: &Spanned<String>, folder: &Path) -> Option<Node> {
        let path = folder.join(written.get_ref());
        let (it, called) = (identity(&path), path.display().to_string());
        if let Some(first) = self.way.iter().position(|(other, _)| *other == it) {
            let mut way: Vec<&str> = self.way[first..].iter().map(|(_, called)| &**called).collect();
            way.push(&called);
            let way = way.join(" extends ");
            self.problems.add(written.span(), format!("this file extends itself: {way}")).label("leads back");
            return None;
        }
        if self.way.len() > MAX_DEPTH {
            self.problems.add(written.span(), format!("more than {MAX_DEPTH} files extend each other in a row"));
            return None;
        }
        if self.seen.contains(&it) {
            // Two ways lead to it: it counts where it was met first.
            return None;
        }
        if self.problems.sources() >= MAX_FILES {
            self.problems.add(written.span(), format!("the scenario is made of more than {MAX_FILES} files"));
            return None;
        }
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                self.problems
                    .add(written.span(), format!("cannot read {called}: {error}"))
                    .help("`extends` is a file's name, seen from the folder of the file that it stands in");
                return None;
            }
        };
        let (number, _) = self.problems.add_source(&called, &text);
        self.seen.push(it.clone());
        self.way.push((it, called));
        let node = self.load(number, &path);
        self.way.pop();
        Some(node)
    }
}

/// What a path leads to, by whatever way.
fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Files rank in the order in which they add to the document.
fn rank(problems: &mut Problems, node: &Node, next: &mut usize) {
    node.extends.iter().for_each(|base| rank(problems, base, next));
    problems.rank(node.number, *next);
    *next += 1;
}

/// Lays a document over another.
fn merge<'t>(under: &mut DeTable<'t>, over: DeTable<'t>) {
    for (key, value) in over {
        let name = key.get_ref().to_string();
        let Some(there) = under.get_mut(name.as_str()) else {
            under.insert(key, value);
            continue;
        };
        match (there.get_mut(), value.get_ref()) {
            (DeValue::Table(tables), DeValue::Table(_)) if NAMED.contains(&&*name) => {
                for (name, value) in entries(value) {
                    match tables.get_mut(name.get_ref().as_ref()) {
                        Some(table) => lay_over(table, value),
                        None => {
                            tables.insert(name, value);
                        }
                    }
                }
            }
            (DeValue::Array(list), DeValue::Array(_)) if LISTS.contains(&&*name) => {
                let DeValue::Array(over) = value.into_inner() else { continue };
                for value in over {
                    let same =
                        list.iter_mut().find(|there| name_of(&value).is_some() && name_of(there) == name_of(&value));
                    match same {
                        Some(there) => lay_over(there, value),
                        None => list.push(value),
                    }
                }
            }
            _ => *there = value,
        }
    }
}

/// Lays a table's keys over those of another; what is no table takes the other's place.
fn lay_over<'t>(under: &mut Entry<'t>, over: Entry<'t>) {
    match under.get_mut() {
        DeValue::Table(table) if over.get_ref().is_table() => table.extend(entries(over)),
        _ => *under = over,
    }
}

fn entries<'t>(value: Entry<'t>) -> DeTable<'t> {
    match value.into_inner() {
        DeValue::Table(table) => table,
        _ => DeTable::new(),
    }
}

/// The name of a list's table.
fn name_of<'e>(entry: &'e Entry<'_>) -> Option<&'e str> {
    entry.get_ref().as_table()?.get("name")?.get_ref().as_str()
}

/// Names of a list's tables are texts, and each is there once in a file.
fn check_names(problems: &mut Problems, document: &DeTable<'_>) {
    for list in LISTS {
        let Some(tables) = document.get(*list).and_then(|list| list.get_ref().as_array()) else { continue };
        let mut names: Vec<&Entry<'_>> = Vec::new();
        for name in tables.iter().filter_map(|table| table.get_ref().as_table()?.get("name")) {
            let Some(text) = name.get_ref().as_str().filter(|text| !text.is_empty()) else {
                problems.add(name.span(), format!("the name of a {list} is a text in quotes"));
                continue;
            };
            if let Some(other) = names.iter().find(|other| other.get_ref().as_str() == Some(text)) {
                problems
                    .add(name.span(), format!("there are two {list}s with the name `{text}` in this file"))
                    .label("used again")
                    .also(other.span(), "used here already");
            }
            names.push(name);
        }
    }
}

/// Takes things out of what is extended: `"node.NAME"`, `"program.NAME"`, or all of a list: `"expect"`.
fn take_out(problems: &mut Problems, document: &mut DeTable<'_>, remove: Entry<'_>) {
    let DeValue::Array(things) = remove.get_ref() else {
        problems
            .add(remove.span(), "`remove` is a list of what is not to be there")
            .help("write remove = [\"node.NAME\", \"program.NAME\", \"expect\"]");
        return;
    };
    for thing in things {
        let Some(written) = thing.get_ref().as_str() else {
            problems.add(thing.span(), "what is removed is named by a text in quotes");
            continue;
        };
        let (kind, name) = written.split_once('.').map_or((written, None), |(kind, name)| (kind, Some(name)));
        let there = document.get_mut(kind).map(Spanned::get_mut);
        let found = match (there, name) {
            (Some(DeValue::Array(_)), None) if LISTS.contains(&kind) => document.remove(kind).is_some(),
            (Some(DeValue::Array(list)), Some(name)) if LISTS.contains(&kind) => {
                let before = list.len();
                let kept =
                    std::mem::replace(list, DeArray::new()).into_iter().filter(|entry| name_of(entry) != Some(name));
                *list = kept.collect();
                list.len() < before
            }
            (Some(DeValue::Table(tables)), Some(name)) if NAMED.contains(&kind) => tables.remove(name).is_some(),
            _ => false,
        };
        if !found {
            let all = removable(document);
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            problems.add(thing.span(), format!("there is no `{written}` in what this file extends")).help(suggestion(
                "what can be removed",
                written,
                &all,
            ));
        }
    }
}

/// What [`take_out`] can take out.
fn removable(document: &DeTable<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for kind in NAMED {
        let tables = document.get(kind).and_then(|tables| tables.get_ref().as_table());
        all.extend(tables.into_iter().flatten().map(|(name, _)| format!("{kind}.{}", name.get_ref())));
    }
    for list in LISTS {
        let Some(tables) = document.get(*list).and_then(|tables| tables.get_ref().as_array()) else { continue };
        all.push((*list).to_owned());
        all.extend(tables.iter().filter_map(name_of).map(|name| format!("{list}.{name}")));
    }
    all
}
