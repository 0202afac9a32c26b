//! What `grenache grapes up --on docker` says where Docker is not as it should be. A script stands for `docker`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The exit code and the error of `grenache grapes up --on docker` where `docker` is this script, or nothing. What the
/// script says of being asked to remove a container is after the error.
fn up(docker: Option<&str>) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).expect("made");
    if let Some(script) = docker {
        let path = bin.join("docker");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("allowed");
    }
    let up = Command::new(env!("CARGO_BIN_EXE_grenache"))
        .args(["grapes", "up", "-n", "1", "--on", "docker"])
        .env("PATH", &bin)
        .env("XDG_STATE_HOME", folder.path())
        .output()
        .expect("it runs");
    assert!(up.stdout.is_empty());
    let removed = fs::read_to_string(bin.join("docker.removed")).unwrap_or_default();
    (up.status.code(), String::from_utf8(up.stderr).expect("UTF-8") + &removed)
}

#[test]
fn without_docker() {
    let (code, error) = up(None);
    assert_eq!(code, Some(2));
    assert_eq!(error, "error: there is no `docker` on the PATH: install Docker, or run the Grapes as processes\n");
}

#[test]
fn without_an_engine() {
    let (code, error) = up(Some("echo 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1"));
    assert_eq!(code, Some(2));
    assert_eq!(
        error,
        "error: the Docker engine cannot be reached: start it, or set DOCKER_HOST to where it is \
         (Cannot connect to the Docker daemon at unix:///x.)\n"
    );
}

#[test]
fn without_the_image() {
    let (code, error) = up(Some("case $1 in image) exit 1 ;; esac"));
    assert_eq!(code, Some(2));
    let image = concat!("grenache-grape:", env!("CARGO_PKG_VERSION"));
    let sentence =
        format!("error: there is no image {image}: `docker/build rust` in a clone of the repository builds it\n");
    assert_eq!(error, sentence);
}

#[test]
fn with_a_container_of_that_name() {
    let conflict = "Error response from daemon: Conflict. The container name \"/grenache-grape-1\" is already in use by container \"a\".";
    let script = format!("case $1 in run) echo '{conflict}' >&2; exit 125 ;; rm) echo \"$@\" >$0.removed ;; esac");
    let (code, error) = up(Some(&script));
    assert_eq!(code, Some(1));
    let expected = "error: cannot use the container of grape-1: there is a container grenache-grape-1 already: \
                    `docker rm --force grenache-grape-1` removes it";
    assert!(error.starts_with(expected), "{error}");
    assert!(!error.contains("--volumes"), "it is somebody's: {error}");
}

#[test]
fn what_the_engine_refuses_is_told_in_a_line() {
    let script = "case $1 in run) printf 'docker: Error response from daemon: no.\\nSee 'docker run --help'.\\n' >&2; exit 125 ;; rm) echo \"$@\" >$0.removed ;; esac";
    let (code, error) = up(Some(script));
    assert_eq!(code, Some(1));
    let expected = "error: cannot use the container of grape-1: docker: Error response from daemon: no.";
    assert!(error.starts_with(expected), "{error}");
    assert!(error.ends_with("rm --force --volumes grenache-grape-1\n"), "what was made of it is removed: {error}");
}
