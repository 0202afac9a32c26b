//! Where a scenario runs: in the simulator, or over real sockets on this machine's loopback addresses.
//!
//! Both play the same programs to the same director and judge; they differ in the [`Network`](grenache::net::Network)
//! that the programs are given, and in the faults that they can let happen.

use std::time::Duration;

use thiserror::Error;

use crate::engine::Sighting;
use crate::event::Record;
use crate::report::{Outcome, Verdict};
use crate::scenario::Scenario;

mod director;
mod judge;
mod loopback;
mod outside;
mod probing;
mod programs;
mod simulated;

use director::Court;

/// Where a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum On {
    /// In the simulator: virtual time, modelled links and NATs, the same seed gives the same run.
    #[default]
    Sim,
    /// Over real UDP and TCP sockets on loopback addresses, in real time.
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
    /// The simulator refused the topology.
    #[error(transparent)]
    Sim(#[from] crate::engine::SimError),
    /// What the seed draws does not hold together.
    #[error("with this seed: {0}")]
    Drawn(#[from] crate::scenario::LoadError),
    /// The operating system refused something.
    #[error("cannot run on loopback: {0}")]
    Io(#[from] std::io::Error),
}

/// Who watches a run.
pub trait Spectator {
    /// Is shown every event, in order.
    fn event(&mut self, record: &Record);

    /// Is shown every packet at each side that it passes, in order, before the events that tell what became of it
    /// there. Only where [`wants_packets`](Self::wants_packets) says so, and only in the simulator.
    fn packet(&mut self, _: &Sighting) {}

    /// Whether packets are wanted. Asked once, before the run.
    fn wants_packets(&self) -> bool {
        false
    }

    /// Whether samples are wanted among the events: see [`Record::is_sample`]. Asked once, before the run.
    fn wants_samples(&self) -> bool {
        false
    }
}

/// Who watches only events.
struct Events<F>(F);

impl<F: FnMut(&Record)> Spectator for Events<F> {
    fn event(&mut self, record: &Record) {
        self.0(record);
    }
}

/// Runs a scenario and shows `observer` every event in order.
///
/// # Errors
/// [`BackendError::Unsupported`] where the backend cannot run this file, with a sentence that says which one can.
pub fn run(
    scenario: &Scenario,
    options: &RunOptions,
    observer: impl FnMut(&Record) + 'static,
) -> Result<Outcome, BackendError> {
    watch(scenario, options, Events(observer))
}

/// Runs a scenario before a spectator.
///
/// # Errors
/// As with [`run`].
pub fn watch(
    scenario: &Scenario,
    options: &RunOptions,
    mut spectator: impl Spectator + 'static,
) -> Result<Outcome, BackendError> {
    let drawn = scenario.drawn(options.seed)?;
    let scenario = drawn.as_ref().unwrap_or(scenario);
    match options.on {
        On::Sim => simulated::run(scenario, options, spectator),
        On::Loopback => loopback::run(scenario, move |record| spectator.event(record)),
    }
}

/// What a run came to.
fn outcome(court: Court, simulated: Duration) -> Outcome {
    let (expectations, programs_failed) = court.finish();
    let passed = programs_failed.is_empty() && expectations.iter().all(|expectation| expectation.met);
    let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
    Outcome { verdict, expectations, simulated, programs_failed }
}
