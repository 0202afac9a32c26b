//! A scenario file's text, in which keys are set before it is read.
//!
//! | key | where |
//! |---|---|
//! | `time-limit` | above the tables |
//! | `link.dsl.loss`, `nat.home.mapping` | in `[link.dsl]`, `[nat.home]` |
//! | `nat.*.mapping` | in every `[nat.NAME]` |
//! | `program.0.start`, `fault.0.at` | in the first `[[program]]`, the first `[[fault]]` |
//! | `program.client.timeout` | in every `[[program]]` whose `run` is `"client"` |
//! | `program.*.start` | in every `[[program]]` |
//! | `expect.0.reply.count` | in a table that is a value |
//!
//! A value is written as in the file; a text may go without its quotes. A key of a table that is there need not be.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml_edit::{DocumentMut, Item, TableLike, Value};

use crate::scenario::{self, LoadError, Scenario};

/// A scenario file that is right, with what was set in it.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
    edited: DocumentMut,
    set: Vec<(String, String)>,
}

/// Why a key cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SetError {
    /// The seed is not a key like others.
    #[error("`seed` is not set like this: the command line has --seed and --seeds")]
    Seed,
    /// A part of the key names nothing.
    #[error("cannot set `{key}`: there is no `{missing}` in {file}{}", hint(.there))]
    Missing {
        /// The whole key.
        key: String,
        /// The key up to what is not there.
        missing: String,
        /// The file.
        file: String,
        /// What there is instead.
        there: Vec<String>,
    },
    /// The key ends at a table.
    #[error("cannot set `{key}`: it is a table in {file}; its keys can be set, such as `{key}.{example}`")]
    Table {
        /// The whole key.
        key: String,
        /// The file.
        file: String,
        /// A key of the table.
        example: String,
    },
}

fn hint(there: &[String]) -> String {
    match there {
        [] => String::new(),
        [only] => format!(": there is `{only}`"),
        all => format!(": there are `{}`", all.join("`, `")),
    }
}

impl Document {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// As [`scenario::load`].
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        scenario::load(path)?;
        let text = fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        let edited = text.parse().unwrap_or_else(|_| DocumentMut::new());
        Ok(Self { path: path.to_owned(), text, edited, set: Vec::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tables, with what was set.
    pub fn tables(&self) -> &DocumentMut {
        &self.edited
    }

    /// What was set, in order.
    pub fn settings(&self) -> &[(String, String)] {
        &self.set
    }

    /// Sets a key. Whether the value makes sense is told by [`scenario`](Self::scenario).
    ///
    /// # Errors
    /// Where the key's table is not there.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SetError> {
        if key == "seed" {
            return Err(SetError::Seed);
        }
        let file = self.path.display().to_string();
        let parts: Vec<&str> = key.split('.').collect();
        let place = Place { file: &file, key, parts: &parts };
        place.set_in(self.edited.as_table_mut(), 0, &read_value(value))?;
        self.set.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Reads the scenario with what was set in it. Errors point into the text with the settings.
    ///
    /// # Errors
    /// Where it is no scenario that holds together any more.
    pub fn scenario(&self) -> Result<Scenario, LoadError> {
        let file = self.path.display().to_string();
        if self.set.is_empty() {
            return scenario::parse(&file, &self.text);
        }
        let set: Vec<String> = self.set.iter().map(|(key, value)| format!("{key}={value}")).collect();
        scenario::parse_at(&self.path, &format!("{file} with {}", set.join(" ")), &self.edited.to_string())
    }
}

/// A value as TOML has it, or else a text.
fn read_value(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(Value::Datetime(_)) | Err(_) => Value::from(text),
        Ok(value) => value,
    }
}

/// A key on its way to its table.
struct Place<'a> {
    file: &'a str,
    key: &'a str,
    parts: &'a [&'a str],
}

impl Place<'_> {
    /// Sets the part `at` and those after it in `table`.
    fn set_in(&self, table: &mut dyn TableLike, at: usize, value: &Value) -> Result<(), SetError> {
        let part = self.parts[at];
        if at + 1 == self.parts.len() {
            return self.put(table, part, value);
        }
        if part == "*" {
            let names: Vec<String> = table.iter().map(|(name, _)| name.to_owned()).collect();
            for name in names {
                let item = table.get_mut(&name).ok_or_else(|| self.missing(at, Vec::new()))?;
                self.set_item(item, at + 1, value)?;
            }
            return Ok(());
        }
        let there = table.iter().map(|(name, _)| self.instead(at, name)).collect();
        match table.get_mut(part) {
            Some(item) => self.set_item(item, at + 1, value),
            None => Err(self.missing(at, there)),
        }
    }

    fn set_item(&self, item: &mut Item, at: usize, value: &Value) -> Result<(), SetError> {
        if let Some(tables) = item.as_array_of_tables_mut() {
            let part = self.parts[at];
            if at + 1 == self.parts.len() {
                return Err(self.table(&format!("0.{}", tables.get(0).and_then(first_key).unwrap_or("…"))));
            }
            let number = part.parse::<usize>().ok();
            let (mut any, count) = (false, tables.len());
            for (index, table) in tables.iter_mut().enumerate() {
                let runs = table.get("run").and_then(Item::as_str) == Some(part);
                if part == "*" || number == Some(index) || runs {
                    any = true;
                    self.set_in(table, at + 1, value)?;
                }
            }
            let last = self.instead(at, &count.saturating_sub(1).to_string());
            return if any { Ok(()) } else { Err(self.missing(at, vec![self.instead(at, "0"), last])) };
        }
        match item.as_table_like_mut() {
            Some(table) => self.set_in(table, at, value),
            None => Err(self.missing(at, Vec::new())),
        }
    }

    /// Sets a key of the table that it is in, with what stands around it.
    fn put(&self, table: &mut dyn TableLike, key: &str, value: &Value) -> Result<(), SetError> {
        let Some(old) = table.get_mut(key) else {
            table.insert(key, Item::Value(value.clone()));
            return Ok(());
        };
        match old {
            Item::Value(old) => {
                let decor = old.decor().clone();
                *old = value.clone();
                *old.decor_mut() = decor;
                Ok(())
            }
            Item::Table(inner) => Err(self.table(first_key(inner).unwrap_or("…"))),
            _ => Err(self.table("0")),
        }
    }

    fn table(&self, example: &str) -> SetError {
        SetError::Table { key: self.key.to_owned(), file: self.file.to_owned(), example: example.to_owned() }
    }

    fn missing(&self, at: usize, there: Vec<String>) -> SetError {
        let missing = self.parts[..=at].join(".");
        SetError::Missing { key: self.key.to_owned(), missing, file: self.file.to_owned(), there }
    }

    /// The key up to the part `at`, with another name there.
    fn instead(&self, at: usize, name: &str) -> String {
        let mut parts = self.parts[..at].to_vec();
        parts.push(name);
        parts.join(".")
    }
}

fn first_key(table: &toml_edit::Table) -> Option<&str> {
    table.iter().next().map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
time-limit = \"30s\"

[link.dsl]
loss = \"1%\" # of packets
latency = \"10ms\"

[link.lan]

[node.a]
link = \"dsl\"

[[program]]
node = \"a\"
run = \"grape\"
dht-port = 1
api-port = 2

[[expect]]
found = { at = \"a\", service = \"x\" }
within = \"5s\"
";

    fn document() -> Document {
        Document {
            path: "dir/some.toml".into(),
            text: FILE.to_owned(),
            edited: FILE.parse().expect("TOML"),
            set: Vec::new(),
        }
    }

    fn after(key: &str, value: &str) -> String {
        let mut document = document();
        document.set(key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
        document.edited.to_string()
    }

    #[test]
    fn a_key_that_is_there_keeps_its_line_and_comment() {
        assert_eq!(after("link.dsl.loss", "2%"), FILE.replace("\"1%\"", "\"2%\""));
        assert_eq!(after("time-limit", "5s"), FILE.replacen("30s", "5s", 1));
        assert_eq!(after("program.0.dht-port", "7"), FILE.replace("dht-port = 1", "dht-port = 7"));
        assert_eq!(after("program.grape.dht-port", "7"), FILE.replace("dht-port = 1", "dht-port = 7"));
        assert_eq!(after("expect.0.found.service", "y"), FILE.replace("service = \"x\"", "service = \"y\""));
    }

    #[test]
    fn a_key_that_is_not_there_is_added_to_its_table() {
        assert!(after("link.dsl.jitter", "1ms").contains("latency = \"10ms\"\njitter = \"1ms\"\n"));
        assert_eq!(after("link.*.rate", "1 Mbit/s").matches("rate = \"1 Mbit/s\"").count(), 2);
        assert!(after("program.*.start", "1s").contains("start = \"1s\""));
    }

    #[test]
    fn values_are_tomls_or_texts() {
        for (text, toml) in [
            ("3", "x = 3"),
            ("true", "x = true"),
            ("[1, 2]", "x = [1, 2]"),
            ("\"3\"", "x = \"3\""),
            ("3s", "x = \"3s\""),
            ("2026-01-01", "x = \"2026-01-01\""),
        ] {
            assert!(after("link.dsl.x", text).contains(toml), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let mut document = document();
        let mut wrong = |key: &str| document.set(key, "1").expect_err(key).to_string();
        assert_eq!(
            wrong("link.dls.loss"),
            "cannot set `link.dls.loss`: there is no `link.dls` in dir/some.toml: there are `link.dsl`, `link.lan`"
        );
        assert!(wrong("program.5.start").contains("there is no `program.5`"));
        assert!(wrong("program.client.start").contains("there is no `program.client`"));
        assert!(wrong("link.dsl").contains("`link.dsl.loss`"));
        assert!(wrong("program").contains("it is a table"));
        assert!(wrong("link.dsl.loss.x").contains("there is no `link.dsl.loss.x`"));
        assert!(wrong("seed").contains("--seeds"));
    }

    #[test]
    fn errors_point_into_the_text_that_was_set() {
        let mut document = document();
        document.set("link.dsl.loss", "200%").expect("the key is there");
        let error = document.scenario().expect_err("no such share").to_string();
        assert!(error.starts_with("dir/some.toml with link.dsl.loss=200%:4:8: `200%` is out of range"), "{error}");
    }
}
