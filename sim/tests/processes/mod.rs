//! Processes of the command line, for tests: started, listened to, ended.

#![allow(dead_code, reason = "each test binary that has this module uses its own part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

pub(crate) mod grapes;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process whose standard error is read line by line; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    /// The lines that were read so far.
    pub(crate) said: Vec<String>,
}

/// The executable under test, with nothing in its environment that changes what it says.
pub(crate) fn grenache() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grenache"));
    for name in ["DEBUG", "NO_COLOR", "COLUMNS", "GRENACHE_GRAPE"] {
        command.env_remove(name);
    }
    command
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command can be started");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: Vec::new() }
    }

    /// As [`start`](Self::start), but standard output is read too.
    pub(crate) fn start_with_results(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command can be started");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        let results = sender.clone();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| results.send(line)));
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: Vec::new() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with `part` in it.
    pub(crate) fn line(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(_) => panic!("no line has {part:?} in it:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        // Standard error is closed when it has ended.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.push(line);
        }
        self.child.wait().expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command that ends by itself came to.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the command can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// As [`ran`], with something on its standard input.
pub(crate) fn ran_with(command: &mut Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    // A command that does not read it may end first.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// One HTTP request, and the status, the head and the body of its answer.
pub(crate) fn http(to: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a head has a status");
    Ok((status, head.to_owned(), body.to_owned()))
}

/// Calls a Grape: the body of its answer.
pub(crate) fn call(api: SocketAddr, route: &str, data: &serde_json::Value) -> String {
    let body = serde_json::json!({ "rid": "test", "data": data }).to_string();
    http(api, "POST", &format!("/{route}"), &body).expect("the Grape answers").2
}

/// Tries until `attempt` gives something.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = grenache_sim::runner::wall_now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(grenache_sim::runner::wall_now() < deadline, "{what}");
        // A pause between two looks: what is looked for decides when it is over.
        thread::park_timeout(Duration::from_millis(5));
    }
}
