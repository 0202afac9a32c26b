//! A Grape as a child process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{GrapeKind, GrapeSpec, GrapesError, answers, node};

/// How often a process that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// How long a killed process may take to be gone.
const KILLED: Duration = Duration::from_secs(1);

/// How many lines of a log are told where something went wrong.
const TAIL: usize = 10;

/// What is run for each kind.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The executable `grenache`; `None` is the one that is running.
    pub grenache: Option<PathBuf>,
}

impl Programs {
    fn command(&self, spec: &GrapeSpec) -> Result<Command, GrapesError> {
        let mut command =
            match (spec.kind, &self.grenache) {
                (GrapeKind::Rust, Some(program)) => Command::new(program),
                (GrapeKind::Rust, None) => Command::new(std::env::current_exe().map_err(|source| {
                    GrapesError::Start { name: spec.name.clone(), program: "grenache".into(), source }
                })?),
                (GrapeKind::Node, _) => {
                    let found = node::find()?;
                    let mut command = Command::new(found.node);
                    command.arg(found.script);
                    command
                }
            };
        if spec.kind == GrapeKind::Rust {
            command.arg("grape");
        }
        command.args(spec.arguments());
        if spec.debug {
            command.env("DEBUG", "grenache:grape");
        }
        Ok(command)
    }
}

/// A Grape that runs as a child of this process, and is killed when this is dropped.
///
/// Where this process itself is killed, nothing is dropped, and the Grape runs on.
#[derive(Debug)]
pub struct GrapeProcess {
    spec: GrapeSpec,
    /// `None` once it was let go.
    child: Option<Child>,
    log: PathBuf,
}

impl GrapeProcess {
    /// Starts it. What it says goes to the file `log`, in place of what was there.
    ///
    /// It is in this process's group: a Ctrl-C at the terminal ends it too.
    ///
    /// # Errors
    /// Where there is nothing to run, or it cannot be.
    pub fn start(spec: GrapeSpec, programs: &Programs, log: &Path) -> Result<Self, GrapesError> {
        let command = programs.command(&spec)?;
        Self::spawn(spec, command, log)
    }

    /// Starts it in a process group of its own, where no Ctrl-C reaches it: for one that will be
    /// [let go](Self::detach).
    ///
    /// # Errors
    /// Where there is nothing to run, or it cannot be.
    pub fn start_apart(spec: GrapeSpec, programs: &Programs, log: &Path) -> Result<Self, GrapesError> {
        let mut command = programs.command(&spec)?;
        command.process_group(0);
        Self::spawn(spec, command, log)
    }

    fn spawn(spec: GrapeSpec, mut command: Command, log: &Path) -> Result<Self, GrapesError> {
        let log_error = |source| GrapesError::Log { path: log.to_owned(), source };
        File::create(log).map_err(log_error)?;
        // Both streams append to one file.
        let open = || OpenOptions::new().append(true).open(log).map_err(log_error);
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let child = command.spawn().map_err(|source| GrapesError::Start {
            name: spec.name.clone(),
            program: command.get_program().into(),
            source,
        })?;
        Ok(Self { spec, child: Some(child), log: log.to_owned() })
    }

    /// What it is like.
    pub fn spec(&self) -> &GrapeSpec {
        &self.spec
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was not let go").id()
    }

    /// Where it says what it does.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// Where the operating system does not say.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Waits until its HTTP API answers and, where its `debug` is on, its bootstrap is over.
    ///
    /// # Errors
    /// Where it ends instead, or takes longer than `patience`, with the last lines of its log.
    pub async fn ready(&mut self, patience: Duration) -> Result<(), GrapesError> {
        match timeout(patience, self.become_ready()).await {
            Ok(ready) => ready,
            Err(_) => Err(GrapesError::Late { name: self.spec.name.clone(), waited: patience, tail: self.tail() }),
        }
    }

    async fn become_ready(&mut self) -> Result<(), GrapesError> {
        loop {
            if let Ok(Some(status)) = self.status() {
                return Err(GrapesError::Ended {
                    name: self.spec.name.clone(),
                    status: status.to_string(),
                    tail: self.tail(),
                });
            }
            if (!self.spec.debug || self.says_ready()) && answers(self.spec.api()).await {
                return Ok(());
            }
            sleep(GLANCE).await;
        }
    }

    fn says_ready(&self) -> bool {
        let line = format!("grenache:grape {} ready", self.spec.dht_port);
        fs::read_to_string(&self.log).is_ok_and(|log| log.lines().any(|said| said.ends_with(&line)))
    }

    /// The last lines of its log.
    pub fn tail(&self) -> Vec<String> {
        tail(&self.log)
    }

    /// Asks it to end (SIGTERM), and kills it where it does not within `patience`. Gives how it ended.
    ///
    /// # Errors
    /// Where the operating system does not let it be ended.
    pub async fn end(mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        signal(self.pid(), rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.status()? {
                return Ok(Some(status));
            }
            sleep(GLANCE).await;
        }
        let child = self.child.as_mut().expect("it was not let go");
        child.kill()?;
        child.wait().map(Some)
    }

    /// Lets it run on by itself; gives its process id.
    pub fn detach(mut self) -> u32 {
        self.child.take().expect("it was not let go before").id()
    }
}

impl Drop for GrapeProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already; it is waited for so that it leaves no zombie.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last lines of a log file; none where there is no file.
pub fn tail(log: &Path) -> Vec<String> {
    last_lines(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()))
}

/// The last lines of a log.
pub fn last_lines(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| (*line).to_owned()).collect()
}

/// Tells one run of a process from a later one with the same id.
///
/// `None` where there is no such process, or it has ended and waits for its parent to notice. Linux only: it is the
/// moment that the process started at, from `/proc`.
pub fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may itself hold parentheses and spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    // proc(5): the state is field 3, the start time field 22.
    let started = fields.nth(22 - 3 - 1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

/// Ends a process that is no child of this one: SIGTERM, and SIGKILL where it still runs after `patience`. Nothing
/// where the process that started then is gone.
///
/// # Errors
/// Where the operating system does not let it be ended.
pub async fn end(pid: u32, started_at: u64, patience: Duration) -> io::Result<()> {
    let running = || started(pid) == Some(started_at);
    for (name, patience) in [(rustix::process::Signal::TERM, patience), (rustix::process::Signal::KILL, KILLED)] {
        if !running() {
            return Ok(());
        }
        signal(pid, name)?;
        let deadline = Instant::now() + patience;
        while running() && Instant::now() < deadline {
            sleep(GLANCE).await;
        }
    }
    if running() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end, not even by SIGKILL"));
    }
    Ok(())
}

fn signal(pid: u32, signal: rustix::process::Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is no process id"))?;
    match rustix::process::kill_process(pid, signal) {
        // It has ended meanwhile.
        Err(rustix::io::Errno::SRCH) => Ok(()),
        sent => sent.map_err(io::Error::from),
    }
}
