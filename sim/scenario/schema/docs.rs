//! What keys mean, from the tables in the documentation of scenario files.

use std::collections::BTreeMap;

/// The documentation: its tables are the one place where keys are explained.
const TEXT: &str = include_str!("../mod.rs");

/// Explanations by table and key.
#[derive(Debug)]
pub(super) struct Docs(BTreeMap<(String, String), String>);

impl Docs {
    pub(super) fn read() -> Self {
        let mut all = BTreeMap::new();
        let mut table = None;
        for line in TEXT.lines() {
            let Some(row) = line.strip_prefix("//! |") else {
                table = None;
                continue;
            };
            let cells: Vec<&str> = row.trim_end().trim_end_matches('|').split('|').map(str::trim).collect();
            let (Some(first), Some(last)) = (cells.first(), cells.last()) else { continue };
            let Some(table) = &table else {
                table = Some(name(first));
                continue;
            };
            let default = match cells.as_slice() {
                [_, "required", _] => "; required".to_owned(),
                [_, default, _] if !default.is_empty() => format!("; default: {default}"),
                _ => String::new(),
            };
            for key in keys(first) {
                all.entry((table.clone(), key)).or_insert_with(|| format!("{last}{default}"));
            }
        }
        Self(all)
    }

    /// What a table's key means.
    pub(super) fn of(&self, table: &str, key: &str) -> Option<String> {
        self.0.get(&(table.to_owned(), key.to_owned())).cloned()
    }
}

/// What a table is called here: `` `[nat.NAME]` `` is `nat`, and `` `[[fault]]` `` is `fault`.
fn name(header: &str) -> String {
    let word = header.trim_matches(|c: char| "`[]".contains(c)).split('.').next().unwrap_or_default();
    if word.contains(' ') { "top".to_owned() } else { word.to_owned() }
}

/// The keys that a row is about: those in backticks, without what they are set to.
fn keys(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(|text| text.split(" = ").next().unwrap_or_default().trim_matches('"').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_explained() {
        let docs = Docs::read();
        assert_eq!(docs.of("link", "latency").as_deref(), Some("one way; default: `\"0ms\"`"));
        assert_eq!(docs.of("expect", "failed").map(|text| text.contains("ended in an error")), Some(true));
        assert_eq!(docs.of("program", "run").map(|text| text.contains("required")), Some(true));
        assert!(docs.of("run", "worker").is_some() && docs.of("top", "seed").is_some());
    }
}
