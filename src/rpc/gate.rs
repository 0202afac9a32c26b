//! A gate that lets in until it is closed, and knows how many are inside: how clients and servers stop.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;

/// Cheap to clone; clones are one gate.
#[derive(Debug, Clone)]
pub(super) struct Gate(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    inside: usize,
}

/// Somebody inside. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Pass(Gate);

impl Gate {
    /// An open one.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// Lets one more in; `None` where it is closed.
    pub(super) fn enter(&self) -> Option<Pass> {
        let mut entered = false;
        self.0.send_if_modified(|state| {
            entered = !state.closed;
            state.inside += usize::from(entered);
            // Nobody waits for this.
            false
        });
        entered.then(|| Pass(self.clone()))
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.0.send_modify(|state| state.closed = true);
    }

    /// Waits until everybody has left a closed gate.
    pub(super) async fn empty(&self) {
        // An error means that there is no sender, and this is one.
        let _ = self.0.subscribe().wait_for(|state| state.closed && state.inside == 0).await;
    }

    /// What comes of the future; `None` where the gate is closed before, and at once where it is.
    pub(super) async fn unless_closed<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut state = self.0.subscribe();
        let mut closed = pin!(state.wait_for(|state| state.closed));
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.0.borrow().closed {
                return Poll::Ready(None);
            }
            // Before the wait for the end, which mostly need not begin.
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            closed.as_mut().poll(cx).map(|_| None)
        })
        .await
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|state| {
            state.inside -= 1;
            state.closed && state.inside == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_is_inside_may_stay_after_it_was_closed_and_nobody_enters() {
        let gate = Gate::new();
        let (first, second) = (gate.enter(), gate.clone().enter());
        assert_eq!(gate.unless_closed(async { 1 }).now_or_never(), Some(Some(1)));
        let mut empty = pin!(gate.empty());
        drop(first);
        assert_eq!(empty.as_mut().now_or_never(), None, "open");
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.unless_closed(std::future::pending::<()>()).now_or_never(), Some(None));
        assert_eq!(empty.as_mut().now_or_never(), None, "one is inside");
        drop(second);
        assert_eq!(empty.now_or_never(), Some(()));
    }
}
