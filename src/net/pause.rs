//! When to receive again from a socket that only gives errors.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// After how many errors of a UDP socket in a row receiving pauses, at first for 10 ms and for no longer than 1 s: an
/// error that never goes away must not occupy a core.
pub const MAX_RECEIVE_ERRORS: u32 = 16;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// The errors in a row of what a driver receives from.
#[derive(Debug, Default)]
pub(crate) struct ReceivePause {
    errors: u32,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ReceivePause {
    /// Ready where there is no pause, or it is over.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }

    /// Receiving has failed. `true` where a pause begins.
    pub(crate) fn failed(&mut self) -> bool {
        self.errors = self.errors.saturating_add(1);
        let Some(doubled) = self.errors.checked_sub(MAX_RECEIVE_ERRORS) else { return false };
        self.sleep = Some(Box::pin(sleep((FIRST * (1 << doubled.min(16))).min(LONGEST))));
        true
    }

    /// Something was received, or there is nothing to receive: the errors were of something that has passed.
    pub(crate) fn passed(&mut self) {
        self.errors = 0;
    }
}
