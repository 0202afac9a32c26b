//! From text to tables: TOML's grammar, the keys' names and the values' types.

use std::path::Path;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{LoadError, Problems, suggestion};
use super::expectation::table::ExpectTable;
use super::fault::table::FaultTable;
use super::population::Populations;
use super::raw::{File, Head, ProgramTable, Text};
use super::sources::Sources;

/// The lists of tables, which are written with two brackets.
pub(super) const LISTS: &[&str] = &["program", "fault", "expect"];

/// What may stand at the top of a file.
const TOP: &[&str] = &[
    "extends",
    "remove",
    "description",
    "seed",
    "time-limit",
    "within",
    "uplink",
    "nat",
    "link",
    "node",
    "firewall",
    "program",
    "fault",
    "expect",
];

pub(super) type Entry<'i> = Spanned<DeValue<'i>>;

/// Reads a text's tables, as TOML has them.
pub(super) fn parse<'t>(problems: &mut Problems, text: &'t str) -> DeTable<'t> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut told = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        // A list's table with one bracket is a duplicate from the second time on, and so is each of its keys.
        if error.message() == "duplicate key"
            && let Some(list) = list_with_one_bracket(text, span.start)
        {
            if !told.contains(&list) {
                told.push(list);
                problems
                    .add(span, format!("there are several [{list}]: each is written [[{list}]], with two brackets"))
                    .label("used again");
            }
            continue;
        }
        problems.add(span, format!("this is not TOML: {}", error.message()));
    }
    document.into_inner()
}

/// Reads the tables of a file and those that it extends. Each table is read on its own, so that one run tells a problem of
/// each.
pub(super) fn read(problems: &mut Problems, path: &Path) -> Result<File, LoadError> {
    let sources = Sources::load(problems, path);
    problems.check()?;
    let mut document = sources.document(problems);
    problems.check()?;

    let populations = Populations::of(problems, &mut document);
    let mut file = File::default();
    let mut head = DeTable::new();
    for (key, value) in document {
        match key.get_ref().as_ref() {
            "description" | "seed" | "time-limit" | "within" | "uplink" => {
                head.insert(key, value);
            }
            "nat" => file.nats = named(problems, "nat", value, &populations),
            "link" => file.links = named(problems, "link", value, &populations),
            "node" => file.nodes = named(problems, "node", value, &populations),
            "firewall" => file.firewalls = named(problems, "firewall", value, &populations),
            "program" => file.programs = each(problems, "program", value, &populations, program),
            "fault" => file.faults = each(problems, "fault", value, &populations, fault),
            "expect" => file.expects = each(problems, "expect", value, &populations, table::<ExpectTable>),
            unknown => {
                let help = suggestion("allowed here", unknown, TOP);
                problems.add(key.span(), format!("unknown key `{unknown}`")).help(help).label("not a key of scenarios");
            }
        }
    }
    if let Some(head) = table::<Head>(problems, Spanned::new(0..0, DeValue::Table(head))) {
        file.head = head;
    }
    if file.head.within.is_none() {
        for expect in file.expects.iter().filter(|expect| expect.get_ref().within.is_none()) {
            problems.add(expect.span(), "the key `within` is missing");
        }
    }
    problems.check()?;
    file.populations = populations;
    Ok(file)
}

/// The list whose table this place is in, where its name stands in one bracket.
fn list_with_one_bracket(text: &str, at: usize) -> Option<&'static str> {
    let line_end = text.get(at..)?.find('\n').map_or(text.len(), |length| at + length);
    let header = text.get(..line_end)?.lines().rev().map(str::trim_start).find(|line| {
        // A line of an array may begin with a bracket too; after a table's come letters or another bracket.
        line.strip_prefix('[').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '['))
    })?;
    let name = header.strip_prefix('[')?.split_once(']')?.0.trim();
    LISTS.iter().find(|list| **list == name).copied()
}

/// `[kind.NAME]` tables, in the file's order.
fn named<'i, T: Deserialize<'i>>(
    problems: &mut Problems,
    kind: &str,
    value: Entry<'i>,
    populations: &Populations,
) -> Vec<(Text, T)> {
    let span = value.span();
    let DeValue::Table(tables) = value.into_inner() else {
        problems.add(span, format!("`{kind}` is a table of named tables: write [{kind}.NAME]"));
        return Vec::new();
    };
    let mut entries: Vec<_> = tables.into_iter().collect();
    entries.sort_by_key(|(name, _)| problems.order(&name.span()));
    let mut read = Vec::new();
    for (name, value) in entries {
        if !value.get_ref().is_table() {
            problems
                .add(name.span(), format!("the {kind} has no name"))
                .help(format!("write [{kind}.NAME] above its keys"))
                .label("a key of a table without a name");
            break;
        }
        let name = Spanned::new(name.span(), name.get_ref().to_string());
        read.extend(populations.multiply(problems, kind, name, value, table));
    }
    read
}

/// `[[kind]]` tables.
fn each<'i, T>(
    problems: &mut Problems,
    kind: &str,
    value: Entry<'i>,
    populations: &Populations,
    read: impl Fn(&mut Problems, Entry<'i>) -> Option<T>,
) -> Vec<Spanned<T>> {
    let span = value.span();
    let DeValue::Array(tables) = value.into_inner() else {
        problems.add(span, format!("`{kind}` is a list of tables: write [[{kind}]], with two brackets"));
        return Vec::new();
    };
    let mut all = Vec::new();
    for mut value in tables {
        let span = value.span();
        let DeValue::Table(table) = value.get_mut() else {
            problems.add(span, format!("`{kind}` is a list of tables: write [[{kind}]]"));
            continue;
        };
        // It is for files that extend this one.
        table.remove("name");
        for value in members(problems, kind, value, populations) {
            // Where one member's cannot be read, the others' would fail alike.
            let Some(table) = read(problems, value) else { break };
            all.push(Spanned::new(span.clone(), table));
        }
    }
    all
}

/// A list's table for each member of a population that it is about. Expectations are about a population as a whole.
fn members<'i>(problems: &mut Problems, kind: &str, mut value: Entry<'i>, populations: &Populations) -> Vec<Entry<'i>> {
    match kind {
        "program" => populations.each(problems, &["node"], value),
        "fault" => {
            if let DeValue::Table(table) = value.get_mut()
                && let Some(DeValue::Array(groups)) = table.get_mut("partition").map(Spanned::get_mut)
            {
                groups.iter_mut().for_each(|group| populations.spread(group));
            }
            // What a fault is about is the value of a key that is the fault's name.
            let keys: Vec<String> = match value.get_ref() {
                DeValue::Table(table) => table.iter().map(|(key, _)| key.get_ref().to_string()).collect(),
                _ => Vec::new(),
            };
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            populations.each(problems, &keys, value)
        }
        _ => vec![value],
    }
}

/// A `[[program]]`: its `run` says which keys it has.
fn program(problems: &mut Problems, value: Entry<'_>) -> Option<ProgramTable> {
    let kinds = || format!("programs: {}", ProgramTable::KINDS.join(", "));
    let Some(run) = value.get_ref().get("run") else {
        problems.add(value.span(), "the program has no `run`").help(kinds()).label("this one");
        return None;
    };
    match run.get_ref().as_str() {
        Some("grape") => table(problems, value).map(ProgramTable::Grape),
        Some("announce") => table(problems, value).map(ProgramTable::Announce),
        Some("lookup") => table(problems, value).map(ProgramTable::Lookup),
        Some("broker") => table(problems, value).map(ProgramTable::Broker),
        Some("worker") => table(problems, value).map(ProgramTable::Worker),
        Some("client") => table(problems, value).map(ProgramTable::Client),
        Some("stun-server") => table(problems, value).map(ProgramTable::StunServer),
        Some("nat-probe") => table(problems, value).map(ProgramTable::NatProbe),
        Some("forward") => table(problems, value).map(ProgramTable::Forward),
        Some(other) => {
            let help = suggestion("programs", other, ProgramTable::KINDS);
            problems.add(run.span(), format!("there is no program `{other}`")).help(help).label("not a program");
            None
        }
        None => {
            problems.add(run.span(), "`run` is a program's name in quotes").help(kinds());
            None
        }
    }
}

/// A `[[fault]]`. Groups of a partition are easily taken for nodes.
fn fault(problems: &mut Problems, value: Entry<'_>) -> Option<FaultTable> {
    if let Some((key, _)) = value.get_ref().as_table().and_then(|table| table.get_key_value("lasts")) {
        problems
            .add(key.span(), "unknown key `lasts`")
            .help("how long a fault goes on is its `for`: write for = \"10s\"")
            .label("now called `for`");
        return None;
    }
    if let Some(partition) = value.get_ref().get("partition")
        && let Some(nodes) = partition.get_ref().as_array()
        && nodes.iter().any(|node| node.get_ref().is_str())
    {
        let groups: Vec<String> =
            nodes.iter().filter_map(|node| node.get_ref().as_str()).map(|node| format!("[{node:?}]")).collect();
        let help = match groups.as_slice() {
            [a, b] if nodes.len() == 2 => format!("write partition = [{a}, {b}]"),
            _ => "write partition = [[\"a\"], [\"b\", \"c\"]]".to_owned(),
        };
        problems.add(partition.span(), "a partition is between two groups of nodes, each in brackets").help(help);
        return None;
    }
    table(problems, value)
}

/// One table, by serde.
fn table<'i, T: Deserialize<'i>>(problems: &mut Problems, value: Entry<'i>) -> Option<T> {
    let span = value.span();
    match T::deserialize(value.into_deserializer()) {
        Ok(table) => Some(table),
        Err(error) => {
            let span = error.span().unwrap_or(span);
            let (message, help) = in_words(error.message());
            let problem = problems.add(span, message);
            if let Some(help) = help {
                problem.help(help);
            }
            None
        }
    }
}

/// RFC 4787's word for what RFC 3489 called symmetric.
const PER_DESTINATION: &str = "address-and-port-dependent";

/// serde's message in this file format's words: a message, and what to do.
pub(super) fn in_words(message: &str) -> (String, Option<String>) {
    let message = message.trim_end();
    if let Some((got, allowed)) = refused(message, "unknown field ") {
        return (format!("unknown key `{got}`"), Some(suggestion("allowed here", got, &allowed)));
    }
    if let Some((got, allowed)) = refused(message, "unknown variant ") {
        let help = if got == "symmetric" && allowed.contains(&PER_DESTINATION) {
            format!("what is often called \"symmetric\" is \"{PER_DESTINATION}\"; allowed: {}", allowed.join(", "))
        } else {
            suggestion("allowed", got, &allowed)
        };
        return (format!("`{got}` is not one of the values allowed here"), Some(help));
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return (format!("the key {key} is missing"), None);
    }
    if let Some((got, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        let expected = match expected {
            "a string" => "a text in quotes",
            "a boolean" => "true or false",
            "a sequence" => "an array",
            expected if expected.starts_with("struct ") || expected == "a map" => "a table",
            expected => expected,
        };
        let got = match got {
            "sequence" => "an array",
            "map" => "a table",
            got => got,
        };
        return (format!("expected {expected}, found {got}"), None);
    }
    (message.to_owned(), None)
}

/// Takes ``<prefix>`got`, expected one of `a`, `b` `` apart.
fn refused<'m>(message: &'m str, prefix: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
    // The key is the file's and may hold anything; the list at the end is ours.
    let (got, allowed) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no "))?;
    let allowed = allowed.split('`').skip(1).step_by(2).collect();
    Some((got, allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_speaks_this_formats_words() {
        let cases = [
            ("unknown field `x`, expected `a` or `b`", "unknown key `x`", Some("allowed here: a, b")),
            ("unknown field `x`, expected one of `a`, `b`, `c`", "unknown key `x`", Some("allowed here: a, b, c")),
            ("unknown field ``, expected`, expected `a`", "unknown key ``, expected`", Some("allowed here: a")),
            ("unknown field `x`, there are no fields", "unknown key `x`", Some("allowed here: none")),
            ("missing field `node`", "the key `node` is missing", None),
            ("invalid type: integer `1`, expected a string", "expected a text in quotes, found integer `1`", None),
            ("something else", "something else", None),
        ];
        for (message, words, help) in cases {
            assert_eq!(in_words(message), (words.to_owned(), help.map(str::to_owned)), "{message}");
        }
    }
}
