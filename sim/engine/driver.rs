//! The loop that moves time: from event to event, exactly, with tokio's own timers firing in their order.
//!
//! Tokio's timers have a resolution of a millisecond, and its paused clock moves on by itself, in whole milliseconds
//! from wherever it stands, when every task is parked. So: within a millisecond the clock is advanced to the exact
//! nanosecond of each event, where no timer can be due; over a boundary it is slept, from a boundary, so that timers
//! fire in their order. At a boundary the timers come first, then the packets.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::{Sleep, advance, sleep_until};

use super::shared::{Bell, Shared};

const MS: u64 = 1_000_000;

/// Runs `main` beside the driver, until `main` returns or the run's time is up.
pub(crate) async fn run<T>(shared: &Shared, main: impl Future<Output = T>) -> Option<T> {
    let woken = Arc::new(MainWaker { woken: AtomicBool::new(true), bell: shared.bell.clone() });
    let main_waker = Waker::from(woken.clone());
    let mut main = pin!(main);
    let mut driver = pin!(drive(shared, &woken));
    poll_fn(|cx| {
        shared.bell.set_driver(cx.waker());
        if let Some(panic) = shared.take_panic() {
            shared.end();
            std::panic::resume_unwind(panic);
        }
        if woken.woken.swap(false, Relaxed)
            && let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&main_waker))
        {
            shared.end();
            return Poll::Ready(Some(result));
        }
        if driver.as_mut().poll(cx).is_ready() {
            shared.end();
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// `main` and the driver are one task to tokio: this tells which of them is meant.
struct MainWaker {
    woken: AtomicBool,
    bell: Arc<Bell>,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Relaxed) {
            self.bell.wake();
        }
    }
}

/// What the events of a millisecond came to.
enum Step {
    /// Something happened at this time that tasks may have to see before anything else does.
    Stop { at_ns: u64, wakers: Vec<Waker> },
    /// Nothing is left in this millisecond; the next event is at this time.
    Idle { next_ns: u64 },
    /// The run's time is up.
    Limit,
}

/// Ends at the run's limit.
async fn drive(shared: &Shared, main: &MainWaker) {
    let mut sleep = pin!(sleep_until(shared.epoch()));
    loop {
        every_task_is_parked(&shared.bell).await;
        let now_ns = shared.clock_ns();
        match step(shared, main, now_ns) {
            Step::Limit => return,
            Step::Stop { at_ns, wakers } => {
                move_clock(now_ns, at_ns).await;
                for waker in wakers {
                    waker.wake();
                }
            }
            Step::Idle { .. } if !now_ns.is_multiple_of(MS) => move_clock(now_ns, now_ns.next_multiple_of(MS)).await,
            Step::Idle { next_ns } => sleep_to(shared, sleep.as_mut(), next_ns / MS * MS).await,
        }
    }
}

/// Handles the events of the current millisecond up to one that wakes somebody. Those before it are handled at their
/// own times though the clock has not moved: every task is parked, so nobody can tell.
fn step(shared: &Shared, main: &MainWaker, now_ns: u64) -> Step {
    let end_ns = (now_ns / MS + 1) * MS;
    let mut engine = shared.lock();
    engine.sleeping_until_ns = 0;
    loop {
        let Some((at_ns, event)) = engine.queue.pop_before(end_ns) else {
            return Step::Idle { next_ns: engine.queue.next_at().unwrap_or(end_ns) };
        };
        let at_ns = at_ns.max(now_ns);
        if !engine.handle(at_ns, event) {
            return Step::Limit;
        }
        if !engine.records.is_empty() {
            drop(engine);
            shared.tell_observers();
            engine = shared.lock();
        }
        // Whatever else happens at this very moment is seen together.
        let woken = !engine.wakers.is_empty() || main.woken.load(Relaxed);
        if woken && engine.queue.next_at() != Some(at_ns) {
            return Step::Stop { at_ns, wakers: std::mem::take(&mut engine.wakers) };
        }
    }
}

async fn every_task_is_parked(bell: &Bell) {
    let mut asked = false;
    poll_fn(|_| {
        if !asked {
            asked = true;
            bell.take_parked();
            bell.wait_for_park();
            return Poll::Pending;
        }
        if bell.take_parked() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn move_clock(from_ns: u64, to_ns: u64) {
    if to_ns > from_ns {
        advance(Duration::from_nanos(to_ns - from_ns)).await;
    }
}

/// Sleeps to a boundary, or until something is due before it.
async fn sleep_to(shared: &Shared, mut sleep: Pin<&mut Sleep>, until_ns: u64) {
    shared.bell.take_rung();
    shared.lock().sleeping_until_ns = until_ns;
    sleep.as_mut().reset(shared.epoch() + Duration::from_nanos(until_ns));
    poll_fn(|cx| if shared.bell.take_rung() { Poll::Ready(()) } else { sleep.as_mut().poll(cx) }).await;
}
