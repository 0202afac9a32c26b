//! A peer in Node.js as a child process: told what to do and telling what happens in lines of JSON.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::{Duration, timeout};

use crate::common::PATIENCE;
use crate::original::{folder, node, package};

/// A script that runs. It is killed when this is dropped.
pub(crate) struct Script {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// What was heard and not asked for yet.
    heard: VecDeque<Value>,
    /// Its UDP port.
    pub(crate) port: u16,
}

impl Script {
    /// Starts a script of this folder, and waits until its socket is bound.
    pub(crate) async fn start(name: &str, args: &[&str]) -> Self {
        let mut command = node();
        package("utp-native");
        command.arg(folder().join(name)).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut this = Self { _child: child, input, output, heard: VecDeque::new(), port: 0 };
        this.port = this.hear("listening").await["port"].as_u64().unwrap().try_into().unwrap();
        this
    }

    /// Its UDP address.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Has it do something: `{"do": what, …}`.
    pub(crate) async fn tell(&mut self, command: Value) {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    /// The next event of this name; those of other names are kept.
    pub(crate) async fn hear(&mut self, event: &str) -> Value {
        self.hear_within(PATIENCE, event).await
    }

    /// The same, for what takes longer.
    pub(crate) async fn hear_within(&mut self, patience: Duration, event: &str) -> Value {
        if let Some(at) = self.heard.iter().position(|heard| heard["event"] == event) {
            return self.heard.remove(at).unwrap();
        }
        let next = async {
            loop {
                let line = self.output.next_line().await.unwrap();
                let Some(line) = line else { panic!("the script ended before {event:?}; heard: {:?}", self.heard) };
                let heard: Value = serde_json::from_str(&line).unwrap();
                if heard["event"] == event {
                    return heard;
                }
                self.heard.push_back(heard);
            }
        };
        match timeout(patience, next).await {
            Ok(heard) => heard,
            Err(_) => panic!("no {event:?}; heard: {:?}", self.heard),
        }
    }

    /// How many events of this name were heard so far beside what was waited for.
    pub(crate) fn count(&self, event: &str) -> usize {
        self.heard.iter().filter(|heard| heard["event"] == event).count()
    }

    /// The lengths of the next so many packets that were no JSON text.
    pub(crate) async fn lost(&mut self, count: usize) -> Vec<u64> {
        let mut lengths = Vec::new();
        for _ in 0..count {
            lengths.push(self.hear("lost").await["length"].as_u64().unwrap());
        }
        lengths
    }

    /// Sends a request to a port from it and gives the outcome: `{"value": …}` or `{"error": message}`.
    pub(crate) async fn request(&mut self, to: SocketAddr, payload: &Value) -> Value {
        self.tell(json!({"do": "request", "to": to.port(), "payload": payload})).await;
        self.hear("replies").await["results"][0].take()
    }
}
