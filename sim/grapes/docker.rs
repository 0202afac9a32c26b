//! A Grape in a container, by the `docker` command.
//!
//! It uses the host's network, so that a [`GrapeSpec`] means the same as for a process: same addresses, same ports.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use super::{GrapeKind, GrapeSpec, GrapesError};

/// The image of our Grape, as `docker/build rust` names it.
pub const RUST_IMAGE: &str = concat!("grenache-grape:", env!("CARGO_PKG_VERSION"));

/// The image of the original's Grape, as `docker/build node` names it.
pub const NODE_IMAGE: &str = "grenache-grape-node:1.0.0";

/// The label of each container, with the Grape's name: `docker ps --filter label=grenache.grape` shows them.
pub const LABEL: &str = "grenache.grape";

/// How long a Grape may take to end before the engine kills it, in seconds.
const PATIENCE: &str = "5";

/// How many lines of a log are read.
const TAIL: &str = "20";

/// How often a `docker` command that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// The image of a kind.
pub fn image(kind: GrapeKind) -> &'static str {
    match kind {
        GrapeKind::Rust => RUST_IMAGE,
        GrapeKind::Node => NODE_IMAGE,
    }
}

/// What the container of the Grape `name` is called.
pub fn container_name(name: &str) -> String {
    format!("grenache-{name}")
}

/// A container that runs a Grape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id, as the engine gave it: what is kept to find it again.
    pub id: String,
}

/// Whether there is an engine that can be used, and the images of these kinds.
///
/// # Errors
/// Where something is missing, with a sentence that says what to install, to start or to build.
pub async fn check(kinds: impl IntoIterator<Item = GrapeKind>) -> Result<(), GrapesError> {
    let version = docker(["version", "--format", "{{.Server.Version}}"]).await?;
    if !version.status.success() {
        let said = said(&version.stderr);
        let text = format!("the Docker engine cannot be reached: start it, or set DOCKER_HOST to where it is ({said})");
        return Err(GrapesError::NoDocker(text));
    }
    let kinds: BTreeSet<GrapeKind> = kinds.into_iter().collect();
    for kind in kinds {
        let image = image(kind);
        if !docker(["image", "inspect", "--format", "{{.Id}}", image]).await?.status.success() {
            let text =
                format!("there is no image {image}: `docker/build {kind}` in a clone of the repository builds it");
            return Err(GrapesError::NoDocker(text));
        }
    }
    Ok(())
}

impl Container {
    /// Starts a Grape in a container, which goes on when this process ends. Does not wait until the Grape is ready.
    /// Where this future is dropped, there is no container.
    ///
    /// # Errors
    /// Where the engine cannot, such as for an image that is not there.
    pub async fn up(spec: &GrapeSpec) -> Result<Self, GrapesError> {
        let name = container_name(&spec.name);
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--pull", "never", "--name", &name]);
        run.args(["--label", &format!("{LABEL}={}", spec.name), "--network", "host"]);
        run.args(["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
        if spec.debug {
            run.args(["--env", "DEBUG=grenache:grape"]);
        }
        run.arg(image(spec.kind)).args(spec.arguments());
        let mut running = Running::start(run)?;
        running.container = Some(name.clone());
        let output = running.output().await?;
        if output.status.success() {
            return Ok(Self { id: String::from_utf8_lossy(&output.stdout).trim().to_owned() });
        }
        let problem = said(&output.stderr);
        // The container is made before it is started, but one of the same name is somebody's.
        if problem.contains("is already in use") {
            let text = format!("there is a container {name} already: `docker rm --force {name}` removes it");
            return Err(GrapesError::Docker { name: spec.name.clone(), problem: text });
        }
        remove(&name).await?;
        Err(GrapesError::Docker { name: spec.name.clone(), problem })
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Where the engine cannot be asked.
    pub async fn is_running(&self) -> Result<bool, GrapesError> {
        let output = docker(["container", "inspect", "--format", "{{.State.Running}}", &self.id]).await?;
        if output.status.success() {
            return Ok(output.stdout.starts_with(b"true"));
        }
        self.unless_gone(&output).map(|()| false)
    }

    /// The last of what the Grape has written.
    ///
    /// # Errors
    /// Where the engine cannot be asked.
    pub async fn log(&self) -> Result<String, GrapesError> {
        let output = docker(["logs", "--tail", TAIL, &self.id]).await?;
        if !output.status.success() {
            self.unless_gone(&output)?;
        }
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// Ends it and removes it; nothing where it is gone already.
    ///
    /// # Errors
    /// Where the engine cannot.
    pub async fn down(&self) -> Result<(), GrapesError> {
        let stopped = docker(["stop", "-t", PATIENCE, &self.id]).await?;
        if !stopped.status.success() {
            return self.unless_gone(&stopped);
        }
        remove(&self.id).await
    }

    /// Kills it and removes it; nothing where it is gone already.
    ///
    /// # Errors
    /// Where the engine cannot.
    pub async fn kill(&self) -> Result<(), GrapesError> {
        remove(&self.id).await
    }

    /// Writes all that the Grape says to the file `log`, in place of what was there.
    ///
    /// # Errors
    /// Where the file cannot be written, or there is no `docker`.
    pub fn follow(&self, log: &Path) -> Result<Follower, GrapesError> {
        let log_error = |source| GrapesError::Log { path: log.to_owned(), source };
        let file = File::create(log).map_err(log_error)?;
        let mut command = Command::new("docker");
        command.args(["logs", "--follow", &self.id]).stdin(Stdio::null());
        // Both write at the file's one position.
        command.stdout(file.try_clone().map_err(log_error)?).stderr(file);
        Ok(Follower(command.spawn().map_err(|error| cannot_run(&error))?))
    }

    /// What went wrong, except that it is not there.
    fn unless_gone(&self, output: &Output) -> Result<(), GrapesError> {
        unless_gone(&self.id, output)
    }
}

/// Writes a container's log to a file until this is dropped.
#[derive(Debug)]
pub struct Follower(Child);

impl Follower {
    /// Whether the container has stopped, and all of its log is in the file.
    ///
    /// # Errors
    /// Where the operating system does not say.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended already; it is waited for so that it leaves no zombie.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn remove(container: &str) -> Result<(), GrapesError> {
    let removed = docker(["rm", "--force", "--volumes", container]).await?;
    if removed.status.success() { Ok(()) } else { unless_gone(container, &removed) }
}

fn unless_gone(container: &str, output: &Output) -> Result<(), GrapesError> {
    let problem = said(&output.stderr);
    if problem.to_ascii_lowercase().contains("no such container") {
        Ok(())
    } else {
        Err(GrapesError::Docker { name: container.to_owned(), problem })
    }
}

/// Runs `docker` to its end.
async fn docker<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Output, GrapesError> {
    let mut command = Command::new("docker");
    command.args(arguments);
    Running::start(command)?.output().await
}

/// A `docker` command that runs. What it prints has to fit into a pipe's buffer, for it is read at its end.
#[derive(Debug)]
struct Running {
    child: Child,
    /// What it makes, which is removed where nobody waits for it any more.
    container: Option<String>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self, GrapesError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Ok(Self { child, container: None }),
            Err(error) => Err(cannot_run(&error)),
        }
    }

    async fn output(mut self) -> Result<Output, GrapesError> {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => sleep(GLANCE).await,
                Err(error) => return Err(cannot_run(&error)),
            }
        };
        self.container = None;
        let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        let read = [
            self.child.stdout.as_mut().map(|pipe| pipe.read_to_end(&mut output.stdout)),
            self.child.stderr.as_mut().map(|pipe| pipe.read_to_end(&mut output.stderr)),
        ];
        for read in read.into_iter().flatten() {
            read.map_err(|error| cannot_run(&error))?;
        }
        Ok(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(container) = self.container.take() else { return };
        // First it has to be there. Nobody is left to tell of what goes wrong here.
        let _ = self.child.wait();
        let _ = Command::new("docker").args(["rm", "--force", "--volumes", &container]).output();
    }
}

fn cannot_run(error: &io::Error) -> GrapesError {
    GrapesError::NoDocker(match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no `docker` on the PATH: install Docker, or run the Grapes as processes".to_owned()
        }
        _ => format!("cannot run `docker`: {error}"),
    })
}

/// What a `docker` command complains of, in a line.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    // Below an error of `docker run` is where to find help.
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("See 'docker"));
    let said: Vec<&str> = lines.filter(|line| !line.starts_with("Run 'docker")).collect();
    said.join(" ")
}
