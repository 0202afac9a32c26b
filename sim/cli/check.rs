//! `grenache check`: reads scenario files and runs nothing; `grenache schema`: says how they are written.

use std::path::PathBuf;

use super::terminal::Terminal;
use super::{Exit, files};

/// What `schema --help` ends with.
pub(super) const SCHEMA_HELP: &str = "\
Examples:
  grenache schema >scenario.schema.json

Exit codes:
  0  it is printed
  2  the command line is wrong";

pub(super) fn check(terminal: &mut Terminal, paths: &[PathBuf]) -> Exit {
    match files::load(terminal, paths, &[]) {
        Some(files) => {
            let (count, s) = (files.len(), if files.len() == 1 { "" } else { "s" });
            terminal.line(format_args!("{count} scenario file{s} checked: no problems"));
            Exit::PASSED
        }
        None => Exit::WRONG,
    }
}

pub(super) fn schema(terminal: &mut Terminal) -> Exit {
    terminal.line(grenache_sim::scenario::schema().trim_end());
    Exit::PASSED
}
