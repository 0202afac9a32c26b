//! From paths on the command line to scenarios.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use grenache_sim::scenario::{self, LoadError, Scenario};
use grenache_sim::sweep::document::Document;
use thiserror::Error;

use super::OneSetting;
use super::terminal::Terminal;

/// A scenario and the file it is from.
#[derive(Debug)]
pub(super) struct ScenarioFile {
    pub(super) path: PathBuf,
    pub(super) scenario: Scenario,
}

/// Why there is nothing to load at a path.
#[derive(Debug, Error)]
enum PathError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("there are no *.toml files in the folder {}", path.display())]
    Empty { path: PathBuf },
}

/// Loads the files at all paths, a folder's sorted by name, and sets keys in each. What is wrong with any of them is told,
/// and gives `None`.
pub(super) fn load(terminal: &mut Terminal, paths: &[PathBuf], set: &[OneSetting]) -> Option<Vec<ScenarioFile>> {
    let mut files = Vec::new();
    let mut wrong = false;
    for path in paths {
        match list(path) {
            Ok(found) => {
                for path in found {
                    match load_with(terminal, &path, set) {
                        Some(scenario) => files.push(ScenarioFile { path, scenario }),
                        None => wrong = true,
                    }
                }
            }
            Err(error) => {
                terminal.error(format_args!("error: {error}"));
                wrong = true;
            }
        }
    }
    if wrong { None } else { Some(files) }
}

/// Loads one file and sets keys in it.
fn load_with(terminal: &mut Terminal, path: &Path, set: &[OneSetting]) -> Option<Scenario> {
    if set.is_empty() {
        return scenario::load(path).map_err(|error| tell(terminal, &error)).ok();
    }
    document(terminal, path, set)?.scenario().map_err(|error| tell(terminal, &error)).ok()
}

/// Loads one file's text and sets keys in it. What is wrong is told, and gives `None`.
pub(super) fn document(terminal: &mut Terminal, path: &Path, set: &[OneSetting]) -> Option<Document> {
    let mut document = Document::load(path).map_err(|error| tell(terminal, &error)).ok()?;
    for OneSetting { key, value } in set {
        document.set(key, value).map_err(|error| terminal.error(format_args!("error: {error}"))).ok()?;
    }
    Some(document)
}

pub(super) fn tell(terminal: &mut Terminal, error: &LoadError) {
    match error {
        LoadError::Invalid(_) => {
            let (theme, width) = terminal.theme();
            terminal.error(error.render(theme, width));
        }
        _ => terminal.error(format_args!("error: {error}")),
    }
}

/// A file, or the scenario files of a folder.
fn list(path: &Path) -> Result<Vec<PathBuf>, PathError> {
    let unreadable = |source| PathError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(PathError::Empty { path: path.to_owned() });
    }
    // By name without the extension: `punch` goes before `punch-lossy`.
    files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    Ok(files)
}
