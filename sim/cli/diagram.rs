//! `grenache diagram`: a run as a Mermaid sequence diagram.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use grenache_sim::backend::{self, On, RunOptions};
use grenache_sim::report::Diagram;
use grenache_sim::scenario::Scenario;

use super::terminal::Terminal;
use super::{Exit, files};

/// What `--help` says of exit codes.
pub(super) const AFTER_HELP: &str = "\
Exit codes:
  0  the diagram is on standard output
  2  the file or the command line is wrong, or the simulator cannot run the file";

#[derive(Debug, Args)]
pub(super) struct DiagramArgs {
    /// A scenario file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The seed, in place of the file's
    #[arg(long, value_name = "N", value_parser = super::seed, allow_negative_numbers = true)]
    seed: Option<u64>,
}

pub(super) fn diagram(terminal: &mut Terminal, args: &DiagramArgs) -> Exit {
    let Some(loaded) = files::load(terminal, std::slice::from_ref(&args.file), &[]) else { return Exit::WRONG };
    let [file] = loaded.as_slice() else {
        terminal.error("error: a diagram is of one run: name one file");
        return Exit::WRONG;
    };
    match draw(&file.scenario, args.seed.unwrap_or(file.scenario.seed)) {
        Ok(text) => {
            terminal.line(text.trim_end());
            Exit::PASSED
        }
        Err(error) => {
            terminal.error(format_args!("error: {error}"));
            Exit::WRONG
        }
    }
}

fn draw(scenario: &Scenario, seed: u64) -> Result<String, backend::BackendError> {
    let drawn = scenario.drawn(seed)?;
    let scenario = drawn.as_ref().unwrap_or(scenario);
    let diagram = Rc::new(RefCell::new(Diagram::new(scenario)));
    let watching = diagram.clone();
    backend::run(scenario, &RunOptions { seed, on: On::Sim }, move |record| watching.borrow_mut().observe(record))?;
    let text = diagram.borrow().mermaid();
    Ok(text)
}
