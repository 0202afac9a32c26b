//! One run, without anything that a sweep does not need: nothing is logged, and a panic is caught without a word.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

use super::measure::{Counter, Measures};
use crate::backend::{self, On, RunOptions};
use crate::report::RunResult;
use crate::scenario::Scenario;

/// Runs a scenario in the simulator, and measures it.
pub fn play(scenario: &Scenario, seed: u64) -> (RunResult, Measures) {
    let counter = Rc::new(RefCell::new(Counter::default()));
    let watching = counter.clone();
    let result = catch(|| {
        let options = RunOptions { seed, on: On::Sim };
        match backend::run(scenario, &options, move |record| watching.borrow_mut().observe(record)) {
            Ok(outcome) => RunResult::Done(outcome),
            Err(error) => RunResult::Refused(error.to_string()),
        }
    })
    .unwrap_or_else(RunResult::Panicked);
    let outcome = match &result {
        RunResult::Done(outcome) => Some(outcome),
        _ => None,
    };
    // The counter may have been leaked with its borrow by a panic inside of it: then nothing was counted.
    let counted = counter.try_borrow_mut().map(|mut counter| std::mem::take(&mut *counter)).unwrap_or_default();
    let measures = counted.measures(outcome);
    (result, measures)
}

thread_local! {
    /// Whether this thread is in [`catch`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does `work`; a panic becomes its message and place, and is not printed.
///
/// # Errors
/// Where `work` panicked.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                PLACE.set(info.location().map(|place| format!("{}:{}", place.file(), place.line())));
            } else {
                before(info);
            }
        }));
    });
    let outer = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    result.map_err(|panic| {
        let message = message(&*panic);
        match PLACE.take() {
            Some(place) => format!("{message} ({place})"),
            None => message,
        }
    })
}

/// What a panic says.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_place() {
        assert_eq!(catch(|| 7), Ok(7));
        let caught = catch(|| panic!("no {}", "luck")).expect_err("it panics");
        assert!(caught.starts_with("no luck (") && caught.contains("play.rs:"), "{caught}");
    }
}
