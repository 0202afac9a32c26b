//! `--state`: a file that keeps a Grape's id and token secrets across restarts.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use grenache::grape::GrapeState;
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::sync::watch;

/// Why a state file cannot be used.
#[derive(Debug, Error)]
pub(super) enum StateError {
    #[error("cannot read the state file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{}:{}: this is no state of a Grape; delete the file to start as a new node", path.display(), source.line(), source.column())]
    Invalid { path: PathBuf, source: serde_json::Error },
    #[error("cannot write the state file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// The state of last time; `None` where there is no file yet.
pub(super) fn load(path: &Path) -> Result<Option<GrapeState>, StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| StateError::Invalid { path: path.to_owned(), source })
}

/// Writes the state in place of what is there, all of it or nothing. Nobody else may read it: who knows the secrets
/// can store under any address.
pub(super) fn save(path: &Path, state: &GrapeState) -> Result<(), StateError> {
    let write = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Its mode is 0600.
        let mut file = NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, state)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok::<_, io::Error>(())
    };
    write().map_err(|source| StateError::Write { path: path.to_owned(), source })
}

/// Saves the state whenever it changes, until the Grape ends.
pub(super) async fn keep(path: PathBuf, mut state: watch::Receiver<GrapeState>) {
    while state.changed().await.is_ok() {
        let state = state.borrow_and_update().clone();
        if let Err(error) = save(&path, &state) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the token secrets are not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{
  "node_id": "0101010101010101010101010101010101010101",
  "token_secrets": {
    "current": "0202020202020202020202020202020202020202",
    "previous": "0303030303030303030303030303030303030303"
  }
}
"#;

    #[test]
    fn what_is_saved_is_loaded_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let path = folder.path().join("grape.json");
        assert!(load(&path).expect("no file is no error").is_none());
        let state: GrapeState = serde_json::from_str(STATE).expect("a state");
        fs::write(&path, "an older one").expect("written");
        save(&path, &state).expect("saved");
        assert_eq!(load(&path).expect("loaded"), Some(state));
        assert_eq!(fs::read_to_string(&path).expect("read"), STATE);
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("the folder is there").count(), 1, "nothing is left over");
    }

    #[tokio::test]
    async fn a_change_is_kept() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let path = folder.path().join("grape.json");
        let state = |text: &str| serde_json::from_str::<GrapeState>(text).expect("a state");
        let (sender, watched) = watch::channel(state(STATE));
        let rotated = STATE.replace("03", "02").replace("\"current\": \"02", "\"current\": \"04");
        let rotate = async { sender.send(state(&rotated)).map(|()| drop(sender)) };
        let ((), sent) = futures_util::future::join(keep(path.clone(), watched), rotate).await;
        sent.expect("it is watched");
        assert_eq!(load(&path).expect("loaded"), Some(state(&rotated)));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_place() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let path = folder.path().join("grape.json");
        for (text, place) in [
            ("", ":1:0: "),
            ("{", ":1:1: "),
            (&STATE.replace("0101010101", "01"), ":2:"),
            (&STATE.replace("current", "currant"), ":4:"),
        ] {
            fs::write(&path, text).expect("written");
            let error = load(&path).expect_err(text).to_string();
            assert!(error.contains(&format!("grape.json{place}")), "{error}");
            assert!(error.contains("delete the file"), "{error}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let state: GrapeState = serde_json::from_str(STATE).expect("a state");
        let error = save(Path::new("no/such/folder/grape.json"), &state).expect_err("there is no folder");
        assert_eq!(error.to_string(), "cannot write the state file no/such/folder/grape.json");
    }
}
