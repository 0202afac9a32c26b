//! The engine as its users share it: behind a lock, with the clock, the observers and the driver's bell.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

use super::builder::Programs;
use super::capture::Sighting;
use super::state::Engine;
use crate::event::Record;

/// Someone who is told every event.
pub(crate) type Observer = Box<dyn FnMut(&Record)>;

/// Someone who is shown every packet that passes.
pub(crate) type CaptureObserver = Box<dyn FnMut(&Sighting)>;

thread_local! {
    /// The running simulation's observers: here, because handles on the simulation must be `Send` and they are not.
    static OBSERVERS: RefCell<Vec<Observer>> = const { RefCell::new(Vec::new()) };
    static CAPTURES: RefCell<Vec<CaptureObserver>> = const { RefCell::new(Vec::new()) };
}

/// What every handle on a run shares. All of it is used from the run's one thread; the locks are never contended.
pub(crate) struct Shared {
    engine: Mutex<Engine>,
    /// When the run began.
    epoch: Instant,
    pub(crate) bell: std::sync::Arc<Bell>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    pub(crate) programs: Programs,
}

impl Shared {
    /// To be called in the run's runtime, whose clock is paused.
    pub(crate) fn new(engine: Engine, bell: std::sync::Arc<Bell>, programs: Programs) -> Self {
        Self { engine: Mutex::new(engine), epoch: Instant::now(), bell, panic: Mutex::new(None), programs }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the clock says, since the run began.
    pub(crate) fn clock_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Works on the engine from a task; then tells the observers and wakes whom it concerns.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Engine, u64) -> T) -> T {
        let (result, wakers, records, ring) = {
            let mut engine = self.lock();
            let now_ns = if engine.ended { engine.now_ns } else { self.clock_ns().max(engine.now_ns) };
            engine.now_ns = now_ns;
            let result = work(&mut engine, now_ns);
            if engine.ended {
                engine.wakers.clear();
            }
            let ring = engine.queue.next_at().is_some_and(|at_ns| at_ns < engine.sleeping_until_ns);
            if ring {
                engine.sleeping_until_ns = 0;
            }
            (result, std::mem::take(&mut engine.wakers), !engine.records.is_empty(), ring)
        };
        if ring {
            self.bell.ring();
        }
        for waker in wakers {
            waker.wake();
        }
        if records {
            self.tell_observers();
        }
        result
    }

    /// Shows the observers what they have not seen. What an observer itself brings about comes after what it sees.
    pub(crate) fn tell_observers(&self) {
        OBSERVERS.with(|observers| {
            let Ok(mut observers) = observers.try_borrow_mut() else { return };
            loop {
                let (records, sightings) = {
                    let mut engine = self.lock();
                    (std::mem::take(&mut engine.records), std::mem::take(&mut engine.watch.sightings))
                };
                if records.is_empty() && sightings.is_empty() {
                    return;
                }
                CAPTURES.with(|captures| {
                    for sighting in &sightings {
                        captures.borrow_mut().iter_mut().for_each(|capture| capture(sighting));
                    }
                });
                for record in &records {
                    for observer in observers.iter_mut() {
                        observer(record);
                    }
                }
            }
        });
    }

    /// Nothing happens and nothing is recorded from now on.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
    }

    /// A task panicked: the run does too, instead of going on without it.
    pub(crate) fn panicked(&self, panic: Box<dyn Any + Send>) {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        self.bell.ring();
    }

    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Installs the observers on this thread until it is dropped.
pub(crate) struct Installed;

impl Installed {
    pub(crate) fn new(observers: Vec<Observer>, captures: Vec<CaptureObserver>) -> Self {
        OBSERVERS.set(observers);
        CAPTURES.set(captures);
        Self
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        drop(OBSERVERS.take());
        drop(CAPTURES.take());
    }
}

/// What the driver waits for: that every task is parked, or that something earlier than planned is due.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    driver: Mutex<Option<Waker>>,
    waits_for_park: AtomicBool,
    parked: AtomicBool,
    rung: AtomicBool,
}

impl Bell {
    /// Whom to wake: the run's root future.
    pub(crate) fn set_driver(&self, waker: &Waker) {
        self.lock().clone_from(&Some(waker.clone()));
    }

    /// Asks to be told when every task is parked.
    pub(crate) fn wait_for_park(&self) {
        self.waits_for_park.store(true, Relaxed);
    }

    /// Whether every task was parked since.
    pub(crate) fn take_parked(&self) -> bool {
        self.parked.swap(false, Relaxed)
    }

    /// Whether there is something earlier than planned.
    pub(crate) fn take_rung(&self) -> bool {
        self.rung.swap(false, Relaxed)
    }

    pub(crate) fn ring(&self) {
        self.rung.store(true, Relaxed);
        self.wake();
    }

    /// The runtime's hook: every task is parked.
    pub(crate) fn on_park(&self) {
        if self.waits_for_park.swap(false, Relaxed) {
            self.parked.store(true, Relaxed);
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(driver) = self.lock().as_ref() {
            driver.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
