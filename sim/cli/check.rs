//! `grenache check`: reads scenario files and runs nothing; `grenache schema`: says how they are written.

use std::path::PathBuf;

use super::terminal::Terminal;
use super::{Exit, files};

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
