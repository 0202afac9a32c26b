//! Finds the original's Grape: Node.js, and the npm package grenache-grape.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The environment variable that names the package's `bin/grape.js`.
pub const VARIABLE: &str = "GRENACHE_NODE_GRAPE";

/// Where the package may be, below the current folder or one above it.
const FOLDERS: [&str; 2] = ["node_modules/grenache-grape", "tests/interop/node_modules/grenache-grape"];

/// The original's Grape on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGrape {
    /// The executable of Node.js.
    pub node: PathBuf,
    /// The package's `bin/grape.js`.
    pub script: PathBuf,
}

/// Why there is no Grape of the original's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoNodeGrape {
    /// Node.js is not installed.
    #[error("the original's Grape needs Node.js, and there is no `node` on the PATH: install Node.js 16 or later")]
    NoNode,
    /// The package is not installed.
    #[error(
        "the original's Grape is not installed: `npm install -g grenache-grape@1.0.0`, or set {VARIABLE} to the path \
         of its bin/grape.js"
    )]
    NoPackage,
    /// [`VARIABLE`] names nothing.
    #[error("{VARIABLE} is {}, which is no file: set it to the path of grenache-grape's bin/grape.js", .0.display())]
    NoScript(PathBuf),
}

/// Finds it: what [`VARIABLE`] names; else the package in `node_modules` or `tests/interop/node_modules` of the
/// current folder or one above it; else the `grape` that npm put on the PATH.
///
/// # Errors
/// Where a part of it is missing, with what to install.
pub fn find() -> Result<NodeGrape, NoNodeGrape> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folder = env::current_dir().unwrap_or_default();
    find_in(env::var_os(VARIABLE).as_deref(), &folder, &path)
}

fn find_in(variable: Option<&OsStr>, folder: &Path, path: &OsStr) -> Result<NodeGrape, NoNodeGrape> {
    let script = match variable.filter(|variable| !variable.is_empty()) {
        Some(script) => {
            let script = PathBuf::from(script);
            // A process may run in another folder.
            script.canonicalize().ok().filter(|file| file.is_file()).ok_or(NoNodeGrape::NoScript(script))?
        }
        None => installed(folder).or_else(|| on_path(path)).ok_or(NoNodeGrape::NoPackage)?,
    };
    let node = env::split_paths(path).map(|folder| folder.join("node")).find(|file| file.is_file());
    Ok(NodeGrape { node: node.ok_or(NoNodeGrape::NoNode)?, script })
}

fn installed(folder: &Path) -> Option<PathBuf> {
    let mut places = folder.ancestors().flat_map(|above| FOLDERS.map(|place| above.join(place).join("bin/grape.js")));
    places.find(|file| file.is_file())
}

/// Other programs are called `grape` too: Groovy's is one.
fn on_path(path: &OsStr) -> Option<PathBuf> {
    let mut files = env::split_paths(path).filter_map(|folder| folder.join("grape").canonicalize().ok());
    files.find(|file| file.ends_with("grenache-grape/bin/grape.js"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(path: PathBuf) -> PathBuf {
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("made");
        fs::write(&path, "").expect("written");
        path
    }

    #[test]
    fn it_is_found_where_npm_puts_it() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let root = folder.path().canonicalize().expect("it is there");
        let node = file(root.join("bin/node"));
        let global = file(root.join("lib/node_modules/grenache-grape/bin/grape.js"));
        let project = root.join("project");
        let below = project.join("src/deep");
        fs::create_dir_all(&below).expect("made");
        let path = root.join("bin").into_os_string();
        let script = |variable: Option<&OsStr>| {
            find_in(variable, &below, &path).map(|found| {
                assert_eq!(found.node, node);
                found.script
            })
        };

        assert_eq!(script(None), Err(NoNodeGrape::NoPackage));
        file(root.join("bin/grape"));
        assert_eq!(script(None), Err(NoNodeGrape::NoPackage), "a program that is called the same");
        fs::remove_file(root.join("bin/grape")).expect("removed");
        std::os::unix::fs::symlink(&global, root.join("bin/grape")).expect("linked");
        assert_eq!(script(None), Ok(global.clone()));
        let interop = file(project.join("tests/interop/node_modules/grenache-grape/bin/grape.js"));
        assert_eq!(script(None), Ok(interop), "the project's own goes before the machine's");
        assert_eq!(script(Some(global.as_os_str())), Ok(global));
        let nowhere = OsStr::new("/nowhere/grape.js");
        assert_eq!(script(Some(nowhere)), Err(NoNodeGrape::NoScript(nowhere.into())));
    }

    #[test]
    fn without_node_the_package_is_of_no_use() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        file(folder.path().join("node_modules/grenache-grape/bin/grape.js"));
        let found = find_in(None, folder.path(), OsStr::new(""));
        assert_eq!(found, Err(NoNodeGrape::NoNode));
        assert!(NoNodeGrape::NoNode.to_string().contains("install Node.js"));
    }
}
