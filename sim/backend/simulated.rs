//! Runs scenarios in the simulator.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use grenache::net::{BoxFuture, Net, Task};

use super::director::{Court, Stage, direct};
use super::programs::ProgramError;
use super::{BackendError, RunOptions, Spectator, outside};
use crate::engine::{FaultId, Sim, World};
use crate::event::{Event, LabEvent};
use crate::report::Outcome;
use crate::scenario::Scenario;
use crate::scenario::model::{FaultKind, GrapeKind, Name, ProgramKind};

/// The simulated world as a stage.
struct SimulatedStage {
    world: World,
    faults: RefCell<BTreeMap<usize, FaultId>>,
}

pub(super) fn run(
    scenario: &Scenario,
    options: &RunOptions,
    spectator: impl Spectator + 'static,
) -> Result<Outcome, BackendError> {
    if let Some((kind, node)) = outside::kinds(scenario).next() {
        let what = match kind {
            GrapeKind::Container => "in a container",
            GrapeKind::Node | GrapeKind::Rust => "on Node.js",
        };
        return Err(BackendError::Unsupported(format!(
            "\"{}\" has a Grape {what} on \"{node}\", which cannot run in simulated time: run it with `--on loopback`",
            scenario.name
        )));
    }
    let court = Court::new(scenario);
    let watching = court.clone();
    let spectator = Rc::new(RefCell::new(spectator));
    let mut sim = Sim::new(options.seed, &scenario.nats, &scenario.links, &scenario.nodes)?;
    if spectator.borrow().wants_packets() {
        let spectator = spectator.clone();
        sim = sim.capture(move |sighting| spectator.borrow_mut().packet(sighting));
    }
    if spectator.borrow().wants_samples() {
        sim = sim.sample();
    }
    let sim = sim.observe(move |record| {
        spectator.borrow_mut().event(record);
        watching.observe(record);
    });
    let play = scenario.clone();
    let directed = court.clone();
    // The director watches the time limit; the engine's own is there in case it never gets to.
    let limit = scenario.time_limit + Duration::from_secs(1);
    let simulated = sim.run(limit, move |world| async move {
        let stage = SimulatedStage { world, faults: RefCell::default() };
        direct(&stage, &play, &directed).await;
        stage.now()
    });
    Ok(super::outcome(court, simulated.unwrap_or(limit)))
}

impl Stage for SimulatedStage {
    fn now(&self) -> Duration {
        self.world.now()
    }

    fn network(&self, node: &Name) -> Net {
        self.world.network(node)
    }

    fn outside(&self, _: &Name, _: &ProgramKind) -> Option<BoxFuture<'static, Result<(), ProgramError>>> {
        // Refused before the run.
        None
    }

    fn spawn(&self, node: &Name, task: BoxFuture<'static, ()>) -> Task {
        self.world.network(node).spawn(task)
    }

    fn record(&self, at: Option<&Name>, event: LabEvent) {
        self.world.record(at.map(|name| &**name), Event::Lab(event));
    }

    fn reporter(&self, node: &Name) -> Box<dyn FnOnce(LabEvent) + Send> {
        let (world, node) = (self.world.clone(), node.clone());
        Box::new(move |event| world.record(Some(&node), Event::Lab(event)))
    }

    fn begin(&self, fault: usize, kind: &FaultKind) -> bool {
        let starts = matches!(kind, FaultKind::Restart(node) if !self.world.is_up(node));
        self.faults.borrow_mut().insert(fault, self.world.apply(kind));
        starts
    }

    fn end(&self, fault: usize, _: &FaultKind) -> bool {
        let fault = self.faults.borrow_mut().remove(&fault);
        fault.and_then(|fault| self.world.lift(fault)).is_some()
    }
}
