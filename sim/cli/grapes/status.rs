//! `grenache grapes status`, and the table that `up` shows too.

use futures_util::future::join_all;
use serde::Serialize;

use super::WhichArgs;
use super::state::{Entry, Handle, State, StateError};
use crate::cli::Exit;
use crate::cli::terminal::{Terminal, Tone};

pub(super) async fn status(terminal: &mut Terminal, args: &WhichArgs) -> Result<Exit, StateError> {
    let entries = State::load()?.of(args.name.as_deref());
    let problems = join_all(entries.iter().map(Entry::problem)).await;
    let grapes: Vec<(&Entry, Option<String>)> = entries.iter().zip(problems).collect();
    if grapes.is_empty() && !args.json {
        terminal.line("no Grapes were started: `grenache grapes up` starts some");
    } else {
        table(terminal, &grapes, args.json);
    }
    let all_up = !grapes.is_empty() && grapes.iter().all(|(_, problem)| problem.is_none());
    Ok(if all_up { Exit::PASSED } else { Exit::FAILED })
}

/// A Grape in JSON.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    kind: String,
    up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    dht_port: u16,
    api: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

/// Shows Grapes and what is wrong with each, to people or as JSON.
pub(super) fn table(terminal: &mut Terminal, grapes: &[(&Entry, Option<String>)], json: bool) {
    let rows: Vec<Row<'_>> = grapes.iter().map(|(entry, problem)| row(entry, problem.as_deref())).collect();
    if json {
        terminal.line(serde_json::to_string_pretty(&rows).expect("rows are plain data, which JSON can hold"));
        return;
    }
    let name_width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(4);
    let api_width = rows.iter().map(|row| row.api.len()).max().unwrap_or(0);
    terminal.line(format_args!("{:<name_width$}  kind  state  DHT    {:<api_width$}  process", "name", "API"));
    for row in &rows {
        let state = if row.up { terminal.tone(Tone::Good, "up   ") } else { terminal.tone(Tone::Bad, "down ") };
        let process = match (row.pid, row.container) {
            (Some(pid), _) => pid.to_string(),
            // As much of an id as people type.
            (None, Some(id)) => id.chars().take(12).collect(),
            (None, None) => "-".to_owned(),
        };
        let (name, kind, dht, api) = (row.name, &row.kind, row.dht_port, &row.api);
        terminal.line(format_args!("{name:<name_width$}  {kind:<4}  {state}  {dht:<5}  {api:<api_width$}  {process}"));
        if let Some(problem) = row.problem {
            let log = row.log.as_ref().map(|log| format!("; its log is {log}")).unwrap_or_default();
            terminal.line(format_args!("  {problem}{log}"));
        }
    }
}

fn row<'a>(entry: &'a Entry, problem: Option<&'a str>) -> Row<'a> {
    let (pid, container) = match &entry.on {
        Handle::Process { pid, .. } => (Some(*pid), None),
        Handle::Docker { container } => (None, Some(container.as_str())),
    };
    Row {
        name: &entry.name,
        kind: entry.kind.to_string(),
        up: problem.is_none(),
        problem,
        dht_port: entry.dht_port,
        api: format!("http://{}", entry.api),
        pid,
        container,
        log: entry.log.as_ref().map(|log| log.display().to_string()),
    }
}
