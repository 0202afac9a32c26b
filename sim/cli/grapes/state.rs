//! What `grenache grapes` keeps between commands: which Grapes it started.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use grenache_sim::grapes::docker::Container;
use grenache_sim::grapes::{GrapeKind, answers, process};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use thiserror::Error;

/// A Grape that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The `--name` that it was started with.
    pub(super) set: String,
    pub(super) name: String,
    pub(super) kind: GrapeKind,
    pub(super) dht_port: u16,
    /// Where its HTTP API can be reached.
    pub(super) api: SocketAddr,
    pub(super) log: Option<PathBuf>,
    pub(super) on: Handle,
}

/// By what a Grape is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Handle {
    /// A process, and when it started: another may have its id by now.
    Process { pid: u32, started: u64 },
    /// A container.
    Docker { container: String },
}

/// Why what is kept cannot be used.
#[derive(Debug, Error)]
pub(super) enum StateError {
    #[error("there is no place to keep what is up: set HOME or XDG_STATE_HOME")]
    NoPlace,
    #[error("cannot use the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("another `grenache grapes` is at work: try again when it has ended")]
    Busy,
    #[error("cannot read or write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no list of Grapes: end them by hand and delete it", path.display())]
    Invalid { path: PathBuf, source: serde_json::Error },
}

/// The Grapes that were started, as the file tells them.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    pub(super) grapes: Vec<Entry>,
}

/// A state that no other command changes meanwhile.
#[derive(Debug)]
pub(super) struct Locked {
    state: State,
    /// Closing it unlocks it.
    _lock: File,
}

impl State {
    /// Reads it.
    pub(super) fn load() -> Result<Self, StateError> {
        Self::load_from(folder()?)
    }

    fn load_from(folder: PathBuf) -> Result<Self, StateError> {
        let path = file(&folder);
        let grapes = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| StateError::Invalid { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(StateError::File { path, source }),
        };
        Ok(Self { folder, grapes })
    }

    /// Those that a `--name` means: all where there is none.
    pub(super) fn of(&self, set: Option<&str>) -> Vec<Entry> {
        self.grapes.iter().filter(|entry| set.is_none_or(|set| entry.set == set)).cloned().collect()
    }

    /// Where a Grape's log goes.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

impl Locked {
    /// Reads it, and keeps others from changing it.
    pub(super) fn load() -> Result<Self, StateError> {
        Self::load_from(folder()?)
    }

    fn load_from(folder: PathBuf) -> Result<Self, StateError> {
        let unusable = |source| StateError::Folder { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(unusable)?;
        let lock = File::create(folder.join("grapes.lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Busy),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        Ok(Self { state: State::load_from(folder)?, _lock: lock })
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Adds a Grape.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), StateError> {
        self.state.grapes.push(entry);
        self.save()
    }

    /// Removes Grapes.
    pub(super) fn remove(&mut self, gone: &[Entry]) -> Result<(), StateError> {
        self.state.grapes.retain(|entry| !gone.contains(entry));
        self.save()
    }

    /// Writes it, all or nothing; where no Grape is left, there is no file.
    fn save(&self) -> Result<(), StateError> {
        let State { folder, grapes } = &self.state;
        let path = file(folder);
        let write = || {
            if grapes.is_empty() {
                return match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            }
            let mut file = NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, grapes)?;
            file.write_all(b"\n")?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|source| StateError::File { path: path.clone(), source })
    }
}

impl Entry {
    /// What is wrong with it; `None` where it is up.
    pub(super) async fn problem(&self) -> Option<String> {
        if let Some(ended) = self.ended().await {
            return Some(ended);
        }
        (!answers(self.api).await).then(|| "its HTTP API does not answer".to_owned())
    }

    /// How its process or container is not there any more; `None` where it runs.
    pub(super) async fn ended(&self) -> Option<String> {
        match &self.on {
            Handle::Process { pid, started } => {
                (process::started(*pid) != Some(*started)).then(|| "its process has ended".to_owned())
            }
            Handle::Docker { container } => match (Container { id: container.clone() }).is_running().await {
                Ok(true) => None,
                Ok(false) => Some("its container does not run".to_owned()),
                Err(error) => Some(error.to_string()),
            },
        }
    }
}

/// `$XDG_STATE_HOME/grenache`, or `~/.local/state/grenache`.
fn folder() -> Result<PathBuf, StateError> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Ok(state.ok_or(StateError::NoPlace)?.join("grenache"))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("grapes.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            set: "grape".to_owned(),
            name: name.to_owned(),
            kind: GrapeKind::Rust,
            dht_port: 20001,
            api: ([127, 0, 0, 1], 30001).into(),
            log: None,
            on: Handle::Process { pid: 1, started: 2 },
        }
    }

    #[test]
    fn what_is_added_is_there_until_it_is_removed() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let load = || State::load_from(folder.path().to_owned()).expect("it can be read").grapes;
        let mut locked = Locked::load_from(folder.path().to_owned()).expect("it can be locked");
        locked.add(entry("grape-1")).expect("written");
        locked.add(entry("grape-2")).expect("written");
        assert_eq!(load(), [entry("grape-1"), entry("grape-2")]);
        locked.remove(&[entry("grape-1")]).expect("written");
        assert_eq!(load(), [entry("grape-2")]);
        locked.remove(&[entry("grape-2"), entry("grape-3")]).expect("written");
        assert_eq!(load(), []);
        assert!(!file(folder.path()).exists());
    }

    #[test]
    fn two_cannot_change_it_at_once() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let first = Locked::load_from(folder.path().to_owned()).expect("it can be locked");
        let second = Locked::load_from(folder.path().to_owned());
        assert!(matches!(second, Err(StateError::Busy)), "{second:?}");
        drop(first);
        Locked::load_from(folder.path().to_owned()).expect("it is free again");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        fs::write(file(folder.path()), "[{}]").expect("written");
        let error = State::load_from(folder.path().to_owned()).expect_err("not a Grape").to_string();
        assert!(error.contains("grapes.json is no list of Grapes"), "{error}");
    }
}
