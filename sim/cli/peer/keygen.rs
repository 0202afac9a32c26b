//! `grenache keygen`: makes the key that signs mutable values; key files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use grenache::link::KeyPair;
use grenache::net::{HostNetwork, Network as _};
use serde_json::json;

use super::common::OutputArgs;
use super::failure::Failure;
use crate::cli::Exit;
use crate::cli::terminal::Terminal;

/// What `grenache keygen --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It prints the public key, 64 hex digits: `grenache get` finds a value by it.
The file is for nobody else's eyes: who reads it can change your values.

--json prints {\"file\", \"public_key\", \"hash\"}; values without a salt are stored
under the hash.

Exit codes: 0 done; 1 the file cannot be written; 2 wrong usage, the file
exists already, or with --show is no key.";

/// The largest key file that is read, in bytes.
const MAX_FILE: u64 = 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct KeygenArgs {
    /// Where the key goes [default: grenache/key in $XDG_CONFIG_HOME or ~/.config]
    file: Option<PathBuf>,
    /// Overwrite a file that exists: values signed with its key cannot be changed any more
    #[arg(short, long, conflicts_with = "show")]
    force: bool,
    /// Print the public key of a file that exists, and make none
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

pub(super) fn keygen(terminal: &mut Terminal, args: &KeygenArgs) -> Result<Exit, Failure> {
    let file = path_or_default(args.file.as_deref())?;
    let keys = if args.show {
        load(&file)?
    } else {
        let keys = KeyPair::random(&mut HostNetwork::new().rng("keys"));
        save(&file, &keys, args.force)?;
        keys
    };
    let public_key = hex::encode(keys.public_key());
    let json = json!({ "file": file, "public_key": public_key, "hash": keys.hash(None) });
    args.output.on(terminal).result(public_key, &json);
    Ok(Exit::PASSED)
}

/// Where the key is that is used where none is named.
pub(super) fn path_or_default(file: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(file) = file {
        return Ok(file.to_owned());
    }
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = from("XDG_CONFIG_HOME").or_else(|| from("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("grenache/key")).ok_or_else(|| {
        Failure::wrong("where is the key? There is neither HOME nor XDG_CONFIG_HOME").advise("name its file")
    })
}

/// The key of a file that only its owner can read.
pub(super) fn load(file: &Path) -> Result<KeyPair, Failure> {
    let shown = file.display();
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::wrong(format!("there is no key at {shown}"))
            .advise("make one with `grenache keygen`, or name another file"),
        _ => Failure::wrong(format!("cannot read the key {shown}: {error}")),
    };
    let found = fs::metadata(file).map_err(unreadable)?;
    let no_key = || {
        Failure::wrong(format!("{shown} is no key: a key is 64 hex digits"))
            .advise("name a file that `grenache keygen` made")
    };
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(no_key());
    }
    if found.mode() & 0o077 != 0 {
        return Err(Failure::wrong(format!("others can read the key {shown}"))
            .advise(format!("take that from them: chmod 600 {shown}")));
    }
    let text = fs::read(file).map_err(unreadable)?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim_ascii(), &mut seed).map_err(|_| no_key())?;
    Ok(KeyPair::from_seed(seed))
}

/// Writes a key so that only its owner can read it.
fn save(file: &Path, keys: &KeyPair, force: bool) -> Result<(), Failure> {
    let write = || {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let text = format!("{}\n", hex::encode(keys.seed()));
        if force {
            // In place of what is there, all of it or nothing. Its mode is 0600.
            let mut new = tempfile::NamedTempFile::new_in(folder)?;
            new.write_all(text.as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(file)?;
        } else {
            let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
        }
        Ok::<_, io::Error>(())
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::wrong(format!("{} exists already", file.display()))
            .advise("name another file, see its public key with --show, or overwrite it with --force"),
        _ => Failure::refused(format!("cannot write the key {}: {error}", file.display())),
    })
}
