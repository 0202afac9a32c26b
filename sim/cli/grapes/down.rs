//! `grenache grapes down`.

use std::time::Duration;

use futures_util::future::join_all;
use grenache_sim::grapes::docker::Container;
use grenache_sim::grapes::process;

use super::WhichArgs;
use super::state::{Entry, Handle, Locked, StateError};
use crate::cli::Exit;
use crate::cli::terminal::{Causes, Terminal};

/// How long a Grape may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn down(terminal: &mut Terminal, args: &WhichArgs) -> Result<Exit, StateError> {
    let mut state = Locked::load()?;
    let entries = state.state().of(args.name.as_deref());
    let ended = join_all(entries.iter().map(end)).await;
    let mut gone = Vec::new();
    let mut exit = Exit::PASSED;
    for (entry, ended) in entries.iter().zip(ended) {
        match ended {
            Ok(()) => gone.push(entry.clone()),
            Err(problem) => {
                terminal.error(format_args!("error: cannot end {}: {problem}", entry.name));
                exit = Exit::FAILED;
            }
        }
    }
    state.remove(&gone)?;
    if args.json {
        let names: Vec<&str> = gone.iter().map(|entry| entry.name.as_str()).collect();
        terminal.line(serde_json::json!({ "ended": names }));
    } else {
        terminal.line(match gone.len() {
            0 => "no Grapes were up".to_owned(),
            1 => "ended 1 Grape".to_owned(),
            count => format!("ended {count} Grapes"),
        });
    }
    Ok(exit)
}

async fn end(entry: &Entry) -> Result<(), String> {
    match &entry.on {
        Handle::Process { pid, started } => {
            process::end(*pid, *started, PATIENCE).await.map_err(|error| Causes(&error).to_string())
        }
        Handle::Docker { container } => {
            let container = Container { id: container.clone() };
            container.down().await.map_err(|error| Causes(&error).to_string())
        }
    }
}
