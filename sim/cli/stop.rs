//! What ends many runs early: the time that was given, or a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use grenache_sim::runner::wall_now;

use super::signals::Signals;

/// Whether to stop, and why. The first reason stays.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    reason: Arc<Mutex<Option<String>>>,
    deadline: Option<(Instant, String)>,
}

impl Stop {
    /// Stops on SIGINT and SIGTERM, a second of which ends the process at once; and after `time`, which the option
    /// `--for` names.
    pub(super) fn new(time: Option<Duration>) -> Self {
        let deadline = time.and_then(|time| {
            let reason = format!("--for {}", humantime::format_duration(time));
            wall_now().checked_add(time).map(|deadline| (deadline, reason))
        });
        let stop = Self { asked: Arc::default(), reason: Arc::default(), deadline };
        let asked = stop.clone();
        // It waits for as long as the process lives. Without it signals end the process, as they do otherwise.
        let _ = thread::Builder::new().name("signals".to_owned()).spawn(move || asked.wait_for_signals());
        stop
    }

    fn wait_for_signals(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(mut signals) = Signals::new() else { return };
            let name = signals.next().await;
            self.ask(name);
            signals.next().await;
            std::process::exit(130);
        });
    }

    fn ask(&self, reason: &str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.asked.store(true, Ordering::Release);
    }

    /// Whether to stop now.
    pub(super) fn is_asked(&self) -> bool {
        if let Some((deadline, reason)) = &self.deadline
            && wall_now() >= *deadline
        {
            self.ask(reason);
        }
        self.asked.load(Ordering::Acquire)
    }

    /// Why it was asked to stop; `None` where it was not.
    pub(super) fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
