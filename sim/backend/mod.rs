//! Where a scenario runs: in the simulator, or on this machine's loopback addresses.

use thiserror::Error;

use crate::event::Record;
use crate::report::Outcome;
use crate::scenario::Scenario;

/// Where a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum On {
    /// In the simulator.
    #[default]
    Sim,
    /// Over real UDP and TCP sockets on loopback addresses.
    Loopback,
}

/// Settings of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The seed of all randomness in the simulator.
    pub seed: u64,
    /// Where to run.
    pub on: On,
}

/// Why a scenario could not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The backend cannot do what the file asks for.
    #[error("{0}")]
    Unsupported(String),
}

/// Runs a scenario and shows `observer` every event in order.
///
/// # Errors
/// [`BackendError::Unsupported`] where the backend cannot run this file.
pub fn run(
    scenario: &Scenario,
    _options: &RunOptions,
    _observer: impl FnMut(&Record) + 'static,
) -> Result<Outcome, BackendError> {
    Err(BackendError::Unsupported(format!("\"{}\" cannot run here: run it with `--on sim`", scenario.name)))
}
