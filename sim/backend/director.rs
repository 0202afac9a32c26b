//! Plays a scenario on a stage: starts its programs, lets its faults happen, and waits for its expectations.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use grenache::net::{BoxFuture, Net};
use tokio::sync::Notify;

use super::judge::Judge;
use super::programs::{self, ProgramError};
use crate::event::{LabEvent, Record};
use crate::scenario::model::{Fault, FaultKind, Name, ProgramKind, Scenario};

/// Where a scenario is played: the simulator, or this machine's loopback addresses.
pub(super) trait Stage {
    /// Time since the run began.
    fn now(&self) -> Duration;
    /// A node's network.
    fn network(&self, node: &Name) -> Net;
    /// A program that runs outside of this process; `None` where it is one of this process's.
    fn outside(&self, node: &Name, program: &ProgramKind) -> Option<BoxFuture<'static, Result<(), ProgramError>>>;
    /// Runs a task on a node; it ends where the node crashes.
    fn spawn(&self, node: &Name, task: BoxFuture<'static, ()>);
    /// Appends to the event stream.
    fn record(&self, at: Option<&Name>, event: LabEvent);
    /// A way for a task on a node to append to the event stream, once.
    fn reporter(&self, node: &Name) -> Box<dyn FnOnce(LabEvent) + Send>;
    /// Lets a fault begin, except for what the director does itself.
    fn begin(&self, fault: usize, kind: &FaultKind);
    /// Ends a fault that began.
    fn end(&self, fault: usize, kind: &FaultKind);
}

/// The judge, and a bell that it rings when it has decided something.
#[derive(Debug, Clone)]
pub(super) struct Court {
    judge: Arc<Mutex<Judge>>,
    bell: Arc<Notify>,
}

impl Court {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self { judge: Arc::new(Mutex::new(Judge::new(scenario))), bell: Arc::new(Notify::new()) }
    }

    /// Shows the judge an event.
    pub(super) fn observe(&self, record: &Record) {
        if self.judge().observe(record) {
            self.bell.notify_one();
        }
    }

    /// Takes the judge out, with all it decided.
    pub(super) fn finish(self) -> (Vec<crate::report::ExpectationOutcome>, Vec<String>) {
        self.judge().finish()
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().expect("no holder of the lock panics")
    }
}

/// Something to do at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cue {
    EndFault(usize),
    BeginFault(usize),
    StartProgram(usize),
}

/// Plays `scenario` until every expectation is decided, or its time limit passes.
pub(super) async fn direct<S: Stage>(stage: &S, scenario: &Scenario, court: &Court) {
    let mut cues: Vec<(Duration, Cue)> =
        scenario.programs.iter().enumerate().map(|(i, program)| (program.start, Cue::StartProgram(i))).collect();
    for (i, fault) in scenario.faults.iter().enumerate() {
        cues.push((fault.at, Cue::BeginFault(i)));
        cues.extend(fault.lasts.map(|lasts| (fault.at + lasts, Cue::EndFault(i))));
    }
    cues.sort();
    let mut cues = cues.into_iter().peekable();
    loop {
        let now = stage.now();
        while let Some((_, cue)) = cues.next_if(|(at, _)| *at <= now) {
            play(stage, scenario, cue, now);
        }
        let deadline = {
            let mut judge = court.judge();
            judge.expire(now);
            judge.next_deadline()
        };
        announce_decisions(stage, court);
        let nothing_left = !scenario.expectations.is_empty() && court.judge().is_done();
        if nothing_left || now >= scenario.time_limit {
            break;
        }
        let next = [deadline, cues.peek().map(|(at, _)| *at)].into_iter().flatten().min();
        let wait = next.unwrap_or(scenario.time_limit).min(scenario.time_limit).saturating_sub(now);
        // Either the bell or the time: what is due is looked up anew in both cases.
        let _ = tokio::time::timeout(wait, court.bell.notified()).await;
    }
    court.judge().expire(Duration::MAX);
    announce_decisions(stage, court);
}

/// Writes what the judge decided into the event stream.
fn announce_decisions<S: Stage>(stage: &S, court: &Court) {
    loop {
        // The stream is shown to the judge again, so that the lock must not be held while it is written.
        let decision = court.judge().next_decision();
        let Some(outcome) = decision else { return };
        stage.record(
            None,
            LabEvent::Expectation { expectation: outcome.text, met: outcome.met, reason: outcome.reason },
        );
    }
}

fn play<S: Stage>(stage: &S, scenario: &Scenario, cue: Cue, now: Duration) {
    match cue {
        Cue::StartProgram(i) => start_program(stage, scenario, i),
        Cue::BeginFault(i) => {
            let fault = &scenario.faults[i];
            stage.record(None, LabEvent::FaultBegan { fault: describe(fault) });
            stage.begin(i, &fault.kind);
            if let FaultKind::Restart(node) = &fault.kind {
                restart_programs(stage, scenario, node, now);
            }
        }
        Cue::EndFault(i) => {
            let fault = &scenario.faults[i];
            stage.end(i, &fault.kind);
            stage.record(None, LabEvent::FaultEnded { fault: describe(fault) });
            if let FaultKind::Crash(node) = &fault.kind {
                restart_programs(stage, scenario, node, now);
            }
        }
    }
}

/// Starts the programs of a node that came back, those that had been started before.
fn restart_programs<S: Stage>(stage: &S, scenario: &Scenario, node: &Name, now: Duration) {
    for (i, program) in scenario.programs.iter().enumerate() {
        if program.node == *node && program.start < now {
            start_program(stage, scenario, i);
        }
    }
}

fn start_program<S: Stage>(stage: &S, scenario: &Scenario, i: usize) {
    let program = scenario.programs[i].clone();
    let node = program.node.clone();
    let name = programs::name(&program.kind);
    stage.record(Some(&node), LabEvent::ProgramStarted { program: name.to_owned() });
    let net = stage.network(&node);
    let reporter = stage.reporter(&node);
    let outside = stage.outside(&node, &program.kind);
    stage.spawn(
        &node,
        Box::pin(async move {
            let ran = match outside {
                Some(outside) => outside.await.map(|()| None),
                None => programs::run(&net, program.kind).await,
            };
            match ran {
                Ok(None) => {}
                Ok(Some(told)) => reporter(told),
                Err(error) => reporter(LabEvent::ProgramFailed { program: name.to_owned(), error: error.to_string() }),
            }
        }),
    );
}

/// A fault in words.
fn describe(fault: &Fault) -> String {
    match &fault.kind {
        FaultKind::Partition(a, b) => format!("partition of {} from {}", a.join(", "), b.join(", ")),
        FaultKind::Rebind(nat) => format!("rebinding of {nat}"),
        FaultKind::Crash(node) => format!("crash of {node}"),
        FaultKind::Restart(node) => format!("restart of {node}"),
    }
}
