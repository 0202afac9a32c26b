//! Plays a scenario on a stage: starts its programs, lets its faults happen, and waits for its expectations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use grenache::net::{BoxFuture, Net, Task};
use tokio::sync::Notify;

use super::judge::Judge;
use super::programs::{self, ProgramError};
use crate::event::{LabEvent, Record};
use crate::scenario::model::{FaultKind, Name, ProgramKind, Scenario};

/// Where a scenario is played: the simulator, or this machine's loopback addresses.
pub(super) trait Stage {
    /// Time since the run began.
    fn now(&self) -> Duration;
    /// A node's network.
    fn network(&self, node: &Name) -> Net;
    /// A program that runs outside of this process; `None` where it is one of this process's.
    fn outside(&self, node: &Name, program: &ProgramKind) -> Option<BoxFuture<'static, Result<(), ProgramError>>>;
    /// Runs a task on a node; it ends where the node crashes, or is dropped.
    fn spawn(&self, node: &Name, task: BoxFuture<'static, ()>) -> Task;
    /// Appends to the event stream.
    fn record(&self, at: Option<&Name>, event: LabEvent);
    /// A way for a task on a node to append to the event stream, once.
    fn reporter(&self, node: &Name) -> Box<dyn FnOnce(LabEvent) + Send>;
    /// Lets a fault begin, except for what the director does itself. Whether the fault's node has started by that.
    fn begin(&self, fault: usize, kind: &FaultKind) -> bool;
    /// Ends a fault that began. Whether the fault's node has started by that.
    fn end(&self, fault: usize, kind: &FaultKind) -> bool;
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
    let mut faults = Vec::new();
    for fault in &scenario.faults {
        for each in fault.occurrences(scenario.time_limit) {
            cues.push((each.begins, Cue::BeginFault(faults.len())));
            cues.extend(each.ends.map(|ends| (ends, Cue::EndFault(faults.len()))));
            faults.push(&fault.kind);
        }
    }
    cues.sort();
    let mut play = Play { stage, scenario, faults, grapes: BTreeMap::new(), outages: BTreeMap::new() };
    let mut cues = cues.into_iter().peekable();
    loop {
        let now = stage.now();
        while let Some((_, cue)) = cues.next_if(|(at, _)| *at <= now) {
            play.cue(cue, now);
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

/// A scenario while it is played.
struct Play<'a, S> {
    stage: &'a S,
    scenario: &'a Scenario,
    /// Every fault, as often as it happens.
    faults: Vec<&'a FaultKind>,
    /// The Grapes that run, by the program's place in the file: what an outage ends.
    grapes: BTreeMap<usize, Task>,
    /// The outages of Grapes that go on, by fault.
    outages: BTreeMap<usize, Name>,
}

impl<S: Stage> Play<'_, S> {
    fn cue(&mut self, cue: Cue, now: Duration) {
        match cue {
            Cue::StartProgram(i) => self.start_program(i),
            Cue::BeginFault(i) => {
                let kind = self.faults[i];
                self.stage.record(None, LabEvent::FaultBegan { fault: kind.to_string() });
                let started = self.stage.begin(i, kind);
                match kind {
                    FaultKind::Restart(node) if started => self.restart_programs(node, now),
                    FaultKind::GrapeOutage(node) => {
                        self.outages.insert(i, node.clone());
                        let programs = &self.scenario.programs;
                        self.grapes.retain(|i, _| programs[*i].node != *node);
                    }
                    _ => {}
                }
            }
            Cue::EndFault(i) => {
                let kind = self.faults[i];
                let started = self.stage.end(i, kind);
                self.stage.record(None, LabEvent::FaultEnded { fault: kind.to_string() });
                match kind {
                    FaultKind::Crash(node) if started => self.restart_programs(node, now),
                    FaultKind::GrapeOutage(node) => {
                        self.outages.remove(&i);
                        self.start_programs(node, now, |kind| matches!(kind, ProgramKind::Grape { .. }));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Starts the programs of a node that came back, those that had been started before.
    fn restart_programs(&mut self, node: &Name, now: Duration) {
        self.start_programs(node, now, |_| true);
    }

    fn start_programs(&mut self, node: &Name, now: Duration, which: impl Fn(&ProgramKind) -> bool) {
        let scenario = self.scenario;
        for (i, program) in scenario.programs.iter().enumerate() {
            if program.node == *node && program.start < now && which(&program.kind) {
                self.start_program(i);
            }
        }
    }

    fn start_program(&mut self, i: usize) {
        let program = self.scenario.programs[i].clone();
        let node = program.node.clone();
        let is_grape = matches!(program.kind, ProgramKind::Grape { .. });
        if is_grape && self.outages.values().any(|out| *out == node) {
            return;
        }
        let name = programs::name(&program.kind);
        self.stage.record(Some(&node), LabEvent::ProgramStarted { program: name.to_owned() });
        let net = self.stage.network(&node);
        let reporter = self.stage.reporter(&node);
        let outside = self.stage.outside(&node, &program.kind);
        let task = self.stage.spawn(
            &node,
            Box::pin(async move {
                let ran = match outside {
                    Some(outside) => outside.await.map(|()| None),
                    None => programs::run(&net, program.kind).await,
                };
                match ran {
                    Ok(None) => {}
                    Ok(Some(told)) => reporter(told),
                    Err(error) => {
                        reporter(LabEvent::ProgramFailed { program: name.to_owned(), error: error.to_string() });
                    }
                }
            }),
        );
        if is_grape {
            self.grapes.insert(i, task);
        } else {
            task.detach();
        }
    }
}
