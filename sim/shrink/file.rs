//! The file that is written.

use toml_edit::{DocumentMut, Item};

use super::Shrunk;

/// What was shrunk.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The file.
    pub file: &'a str,
    /// What was set in it.
    pub set: &'a [(String, String)],
    /// The seed it fails with.
    pub seed: u64,
    /// How many lines with something in them it has.
    pub lines: usize,
    /// The command that runs the new file.
    pub replay: &'a str,
}

/// The widest line of the comment.
const WIDTH: usize = 100;

/// The text of the new file: a scenario by itself, with a comment that says what it is.
pub fn text(shrunk: &Shrunk, origin: Origin<'_>) -> String {
    let mut tables = shrunk.tables.clone();
    tables["seed"] = toml_edit::value(i64::try_from(origin.seed).unwrap_or(i64::MAX));
    strip_first_comment(&mut tables);
    let set: Vec<String> = origin.set.iter().map(|(key, value)| format!(" with {key}={value}")).collect();
    let mut comment = vec![format!(
        "Shrunk by grenache {} from {}{}, seed {}: {} of {} lines are left, after {} runs. It fails as the original does:",
        env!("CARGO_PKG_VERSION"),
        origin.file,
        set.concat(),
        origin.seed,
        lines(&tables),
        origin.lines,
        shrunk.runs
    )];
    comment.push(format!("    {}", shrunk.cause));
    let mut calm = shrunk.calm.to_string();
    calm[..1].make_ascii_uppercase();
    comment.push(format!("{calm}. Run it:"));
    comment.push(format!("    {}", origin.replay));
    if shrunk.bounded {
        comment.push("The search was ended by its bound: more might be cut.".to_owned());
    }
    let mut text: String = comment.iter().flat_map(|line| wrapped(line)).map(|line| format!("# {line}\n")).collect();
    text.push('\n');
    text.push_str(tables.to_string().trim_start());
    text
}

/// Lines with something in them that is no comment.
pub(super) fn lines(tables: &DocumentMut) -> usize {
    count_lines(&tables.to_string())
}

/// Lines of a file with something in them that is no comment.
pub fn count_lines(text: &str) -> usize {
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

/// The comment above everything describes the whole file, which this is no more.
fn strip_first_comment(tables: &mut DocumentMut) {
    let first = tables.as_table().iter().next().map(|(key, _)| key.to_owned());
    let Some(key) = first else { return };
    if tables.get(&key).is_some_and(Item::is_value)
        && let Some(mut key) = tables.as_table_mut().key_mut(&key)
    {
        key.leaf_decor_mut().set_prefix("");
        return;
    }
    if let Some(Item::Table(kind)) = tables.get_mut(&key) {
        let named = kind.iter_mut().next();
        if let Some((_, Item::Table(table))) = named {
            table.decor_mut().set_prefix("\n");
        }
    }
}

fn wrapped(line: &str) -> Vec<String> {
    if line.starts_with(' ') {
        return vec![line.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.last_mut().expect("there is one from the beginning");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}
