//! What goes wrong with a peer or a Grape: what to say, what to do next, and the exit code.

use std::fmt;
use std::time::Duration;

use grenache::link::LinkError;
use grenache::rpc::RpcError;
use serde_json::{Value, json};

use crate::cli::Exit;
use crate::cli::printable::{printable, printable_lines};

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    exit: Exit,
    problem: String,
    /// Whether the problem's lines are our own, and not a peer's.
    in_lines: bool,
    /// What to do next.
    advice: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Peers' words are in it, which shall not command a terminal.
        let problem = if self.in_lines { printable_lines(&self.problem) } else { printable(&self.problem) };
        write!(f, "error: {problem}")?;
        match &self.advice {
            Some(advice) => write!(f, "\nhelp: {}", printable(advice)),
            None => Ok(()),
        }
    }
}

impl Failure {
    fn new(exit: Exit, problem: impl Into<String>) -> Self {
        Self { exit, problem: problem.into(), in_lines: false, advice: None }
    }

    /// A peer, a Grape or this machine refused.
    pub(super) fn refused(problem: impl Into<String>) -> Self {
        Self::new(Exit::FAILED, problem)
    }

    /// The command line or a file is wrong.
    pub(super) fn wrong(problem: impl Into<String>) -> Self {
        Self::new(Exit::WRONG, problem)
    }

    /// There is no such name or value.
    pub(super) fn not_found(problem: impl Into<String>) -> Self {
        Self::new(Exit::NOT_FOUND, problem)
    }

    /// Nobody answered in time, or there is nobody.
    pub(super) fn unreached(problem: impl Into<String>) -> Self {
        Self::new(Exit::UNREACHED, problem)
    }

    /// Says what to do next.
    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// The problem is told in several lines, in which peers' words have none of their own.
    pub(super) fn in_lines(self) -> Self {
        Self { in_lines: true, ..self }
    }

    /// All of it, where results are JSON.
    pub(super) fn to_json(&self) -> Value {
        let Self { exit: Exit(code), problem, advice, .. } = self;
        json!({ "event": "failed", "error": problem, "help": advice, "exit_code": code })
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }

    /// What is wrong, without what to do.
    pub(super) fn problem(&self) -> &str {
        &self.problem
    }

    /// A command that has used up its time.
    pub(super) fn late(what: impl fmt::Display, timeout: Duration) -> Self {
        let time = humantime::format_duration(timeout);
        Self::unreached(format!("{what} within {time}")).advise("try again, or give it longer with --timeout")
    }

    /// A call to one of these Grapes. `name` is what it was about.
    pub(super) fn link(error: &LinkError, grapes: &str, name: &str) -> Self {
        match error {
            LinkError::LookupEmpty => Self::not_found(format!("nobody has announced `{name}`")).advise(
                "start the service, or ask another Grape with --grape; names expire minutes after their last announce",
            ),
            LinkError::Timeout => Self::unreached(format!("no Grape has answered in time at {grapes}"))
                .advise("see whether it runs, with `grenache grape-health`, or give it longer with --timeout"),
            LinkError::Unreachable(why) => {
                Self::unreached(format!("no Grape can be reached at {grapes}: {}", root(why))).advise(
                    "start some with `grenache grapes up`, or say where they are with --grape or GRENACHE_GRAPE",
                )
            }
            LinkError::Refused(message) if message == "No nodes to query" => {
                Self::refused(format!("the Grape at {grapes} knows no other: {message}"))
                    .advise("start a second Grape, for they store at each other")
            }
            LinkError::Refused(message) => Self::refused(format!("the Grape at {grapes} answers: {message}")),
            LinkError::CasMismatch => {
                Self::refused("the value has been changed: its sequence number is not that of --cas")
                    .advise("get it again, and decide again")
            }
            LinkError::Stale => Self::refused("a value with this sequence number or a higher one is stored")
                .advise("get it, and put with a higher --seq, or leave --seq out"),
            LinkError::Value(error) => Self::wrong(format!("this cannot be stored: {error}")),
            LinkError::Forged => {
                Self::refused(format!("what the Grape at {grapes} gave does not fit its hash or its signature"))
                    .advise("give the --salt that it was put with, or ask another Grape")
            }
            other => Self::refused(format!("what answers at {grapes} is no Grape: {other}")),
        }
    }

    /// A request to a peer. `to` says whom; `grapes` are those that were asked where it is.
    pub(super) fn rpc(error: &RpcError, to: &str, grapes: &str, timeout: Duration) -> Self {
        match error {
            RpcError::Timeout => Self::late(format_args!("no reply from {to}"), timeout),
            RpcError::Link(error) => Self::link(error, grapes, to),
            RpcError::Remote(message) => Self::refused(format!("{to} answers with an error: {message}")),
            RpcError::TooLarge { .. } => Self::wrong(error.to_string())
                .advise("ask for less at a time; --reference-peer is for peers of the original implementation only"),
            error if error.is_transport() => Self::unreached(format!("cannot reach {to}: {error}"))
                .advise("see whether it runs, and whether a NAT or a firewall is between (`grenache punch`)"),
            other => Self::refused(format!("the request to {to} failed: {other}")),
        }
    }
}

/// An error's message with the last of its causes, which says it best, and none of those between.
pub(super) fn brief(message: &str) -> String {
    match message.split_once(": ") {
        Some((first, causes)) => format!("{first}: {}", root(causes)),
        None => message.to_owned(),
    }
}

fn root(why: &str) -> &str {
    why.rsplit(": ").next().unwrap_or(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_do_not_command_the_terminal() {
        let failure = Failure::refused("a says: \u{1b}[2J\r\u{9b}\nhelp: \u{202e}pay").advise("go on");
        let told = r"error: a says: \u{1b}[2J\r\u{9b}\nhelp: \u{202e}pay";
        assert_eq!(failure.to_string(), format!("{told}\nhelp: go on"));
        assert_eq!(Failure::refused("one\n  two\u{9b}").in_lines().to_string(), "error: one\n  two\\u{9b}");
    }

    #[test]
    fn the_first_and_the_last_of_causes_are_told() {
        for (message, told) in [
            ("ERR_TIMEOUT", "ERR_TIMEOUT"),
            ("ERR_A: refused", "ERR_A: refused"),
            ("ERR_A: error sending: client error: refused (os error 111)", "ERR_A: refused (os error 111)"),
        ] {
            assert_eq!(brief(message), told);
        }
    }
}
