//! A scenario of several files as the text of one.

use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use super::LoadError;
use super::error::Problems;
use super::read::{Entry, LISTS};
use super::sources::{NAMED, Sources};

/// The text of one file that is the same scenario as this one with all that it extends; comments are left out where it
/// extends any, else it is the file's own text.
///
/// # Errors
/// Where a file cannot be read, or is not TOML.
pub fn flat(path: &Path) -> Result<String, LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let mut problems = Problems::new(&path.display().to_string(), &text);
    let sources = Sources::load(&mut problems, path);
    problems.check()?;
    if problems.sources() == 1 {
        return Ok(text);
    }
    let document = sources.document(&mut problems);
    problems.check()?;
    let mut flat = DocumentMut::new();
    for (key, value) in in_order(document) {
        let item = match value {
            DeValue::Table(tables) if NAMED.contains(&key.as_str()) => named(tables),
            DeValue::Array(tables) if LISTS.contains(&key.as_str()) => Item::ArrayOfTables(list(tables)),
            value => Item::Value(plain(value)),
        };
        flat.insert(&key, item);
    }
    Ok(flat.to_string())
}

/// A table's entries as they are written: what the file is first is first here.
fn in_order(table: DeTable<'_>) -> Vec<(String, DeValue<'_>)> {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries.into_iter().map(|(key, value)| (key.into_inner().into_owned(), value.into_inner())).collect()
}

/// `[kind.NAME]`, each.
fn named(tables: DeTable<'_>) -> Item {
    let mut all = Table::new();
    all.set_implicit(true);
    for (name, value) in in_order(tables) {
        let item = match value {
            DeValue::Table(keys) => Item::Table(table(keys)),
            value => Item::Value(plain(value)),
        };
        all.insert(&name, item);
    }
    Item::Table(all)
}

fn list<'i>(tables: impl IntoIterator<Item = Entry<'i>>) -> ArrayOfTables {
    let mut all = ArrayOfTables::new();
    for value in tables {
        if let DeValue::Table(keys) = value.into_inner() {
            all.push(table(keys));
        }
    }
    all
}

fn table(keys: DeTable<'_>) -> Table {
    in_order(keys).into_iter().map(|(key, value)| (key, Item::Value(plain(value)))).collect()
}

fn plain(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(value) => value.into(),
        DeValue::Datetime(value) => value.into(),
        // As they are written: the parser that reads them again has read them before.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).unwrap_or_default().into(),
        DeValue::Float(number) => number.as_str().parse::<f64>().unwrap_or_default().into(),
        DeValue::Array(values) => values.into_iter().map(|value| plain(value.into_inner())).collect::<Array>().into(),
        DeValue::Table(keys) => {
            in_order(keys).into_iter().map(|(key, value)| (key, plain(value))).collect::<InlineTable>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Scenario, load, parse};

    /// Without what says where something is written.
    fn content(scenario: Scenario) -> Scenario {
        let expectations = scenario.expectations.iter().cloned();
        let expectations = expectations.map(|mut expectation| {
            (expectation.line, expectation.file) = (0, None);
            expectation
        });
        Scenario { expectations: expectations.collect(), draws: None, ..scenario }
    }

    #[test]
    fn what_is_flat_is_the_same_scenario() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let mut extending = 0;
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text = flat(&path).expect("the shipped scenarios are right");
            let read = parse(&path.display().to_string(), &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(content(read), content(load(&path).expect("it is right")), "{}", path.display());
            let own = fs::read_to_string(&path).expect("it can be read");
            extending += u32::from(own != text);
            assert!(!text.contains("extends = "), "{text}");
        }
        assert!(extending > 3, "{extending} files extend others");
    }
}
