//! A command that answers a request: `grenache serve --exec`.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The longest answer of a command, in bytes. A command that writes more is ended, and its client gets an error.
pub(super) const MAX_ANSWER: usize = 1 << 20;

/// A shell command, and how its answers are read.
#[derive(Debug, Clone)]
pub(super) struct Exec {
    pub(super) command: String,
    /// Its output is a text, whatever it looks like.
    pub(super) text: bool,
    /// How long it may run.
    pub(super) timeout: Duration,
}

/// What a command is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) rid: &'a str,
    pub(super) key: &'a str,
    pub(super) payload: &'a Value,
    pub(super) from: SocketAddr,
}

impl Exec {
    /// Runs the command for a request. Dropping the future ends it.
    pub(super) async fn answer(&self, asked: &Asked<'_>) -> Result<Value, String> {
        let run = async {
            let mut running = Running::start(&self.command, asked)?;
            running.feed(asked.payload.to_string()).await
        };
        let output = match timeout(self.timeout, run).await {
            Ok(Ok(output)) => output?,
            Ok(Err(error)) => return Err(format!("ERR_EXEC: {error}")),
            Err(_) => return Err("ERR_EXEC: timed out".to_owned()),
        };
        let text = String::from_utf8(output).map_err(|_| "ERR_EXEC: the output is no UTF-8 text".to_owned())?;
        if !self.text
            && let Ok(value) = serde_json::from_str(&text)
        {
            return Ok(value);
        }
        Ok(text.strip_suffix('\n').unwrap_or(&text).into())
    }
}

/// A command that runs, with all that it has started. Dropping it ends them.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn start(command: &str, asked: &Asked<'_>) -> io::Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", command])
            .env("GRENACHE_RID", printable(asked.rid))
            .env("GRENACHE_KEY", printable(asked.key))
            .env("GRENACHE_FROM", asked.from.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own, so that it can be ended whole.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group })
    }

    /// Gives it the payload and takes its output. The outer error is this machine's, the inner one the command's.
    async fn feed(&mut self, payload: String) -> io::Result<Result<Vec<u8>, String>> {
        let (stdin, stdout) = (self.child.stdin.take(), self.child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let write = async move {
            // Where it does not read all of it, that is its choice.
            let _ = stdin.write_all(payload.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        };
        let read = async move {
            let mut output = Vec::new();
            stdout.take(MAX_ANSWER as u64 + 1).read_to_end(&mut output).await.map(|_| output)
        };
        let read = async {
            let output = read.await?;
            if output.len() > MAX_ANSWER {
                return Ok(Err(format!("ERR_EXEC: more than {MAX_ANSWER} bytes of output")));
            }
            let status = self.child.wait().await?;
            // Its number is another process's from now on.
            self.group = None;
            Ok(if status.success() { Ok(output) } else { Err(format!("ERR_EXEC: {status}")) })
        };
        // What it has not read when it ends, nobody will.
        match futures_util::future::select(std::pin::pin!(read), std::pin::pin!(write)).await {
            futures_util::future::Either::Left((done, _)) => done,
            futures_util::future::Either::Right(((), read)) => read.await,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // An error means that it has ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// What a peer sends, without what an environment cannot hold.
fn printable(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(1024).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exec(command: &str) -> Exec {
        Exec { command: command.to_owned(), text: false, timeout: Duration::from_secs(20) }
    }

    async fn answer(exec: &Exec, payload: Value) -> Result<Value, String> {
        let from = "127.0.0.1:1337".parse().expect("an address");
        exec.answer(&Asked { rid: "1", key: "a\0key", payload: &payload, from }).await
    }

    #[tokio::test]
    async fn a_command_gets_the_payload_and_its_output_is_the_answer() {
        for (command, answered) in [
            ("cat", json!({"a": [1, "é"]})),
            ("printf 42", json!(42)),
            ("echo hello world", json!("hello world")),
            ("true", json!("")),
            ("echo $GRENACHE_KEY $GRENACHE_FROM", json!("akey 127.0.0.1:1337")),
        ] {
            assert_eq!(answer(&exec(command), json!({"a": [1, "é"]})).await, Ok(answered), "{command}");
        }
        assert_eq!(answer(&Exec { text: true, ..exec("echo 1.20") }, json!(1)).await, Ok(json!("1.20")));
    }

    #[tokio::test]
    async fn a_command_that_fails_is_an_error() {
        for (command, error) in [
            ("exit 3", "ERR_EXEC: exit status: 3"),
            ("echo no; false", "ERR_EXEC: exit status: 1"),
            ("kill -9 $$", "ERR_EXEC: signal: 9 (SIGKILL)"),
            ("printf '\\377'", "ERR_EXEC: the output is no UTF-8 text"),
            ("yes", "ERR_EXEC: more than 1048576 bytes of output"),
        ] {
            assert_eq!(answer(&exec(command), json!(1)).await, Err(error.to_owned()), "{command}");
        }
    }

    #[tokio::test]
    async fn a_payload_larger_than_a_pipe_that_nobody_reads_does_not_block() {
        let large = json!("x".repeat(1 << 20));
        assert_eq!(answer(&exec("echo 1"), large.clone()).await, Ok(json!(1)));
        assert_eq!(answer(&exec("wc -c"), large).await, Ok(json!((1 << 20) + 3)));
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_with_what_it_has_started() {
        let mut slow = exec("sleep 1000 & echo $! >&3; wait");
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let pids = folder.path().join("pids");
        slow.command = format!("exec 3>{}; {}", pids.display(), slow.command);
        slow.timeout = Duration::from_millis(300);
        assert_eq!(answer(&slow, json!(1)).await, Err("ERR_EXEC: timed out".to_owned()));
        let pid = std::fs::read_to_string(&pids).expect("it was written");
        let proc = std::path::PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        // It is gone, or dead and not yet reaped by its new parent.
        let gone = || std::fs::read_to_string(&proc).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..1000 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("process {pid} still runs");
    }
}
