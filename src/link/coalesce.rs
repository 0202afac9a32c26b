//! Identical calls at the same time share one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};

use crate::net::BoxFuture;

/// A call that several callers wait for. It ends when none does.
pub(super) type SharedCall<T> = Shared<BoxFuture<'static, T>>;

/// The calls under way, by what they ask. There are no more than callers that wait.
#[derive(Debug)]
pub(super) struct Calls<T: Clone>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T: Clone> {
    under_way: BTreeMap<String, (u64, WeakShared<BoxFuture<'static, T>>)>,
    next: u64,
}

impl<T: Clone> Clone for Calls<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Send + Sync + 'static> Calls<T> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { under_way: BTreeMap::new(), next: 0 })))
    }

    /// Joins the call that asks `what`, or begins it.
    pub(super) fn join(&self, what: &str, begin: impl FnOnce() -> BoxFuture<'static, T>) -> SharedCall<T> {
        let mut state = self.0.lock().expect("no panic while locked");
        if let Some(call) = state.under_way.get(what).and_then(|(_, call)| call.upgrade()) {
            return call;
        }
        let number = state.next;
        state.next += 1;
        let ended = Ended { calls: self.clone(), what: what.to_owned(), number };
        let call = begin();
        let call = async move {
            let _ended = ended;
            call.await
        };
        let call: SharedCall<T> = (Box::pin(call) as BoxFuture<'static, T>).shared();
        if let Some(weak) = call.downgrade() {
            state.under_way.insert(what.to_owned(), (number, weak));
        }
        call
    }
}

/// Forgets a call when it has ended or nobody waits for it any more.
struct Ended<T: Clone> {
    calls: Calls<T>,
    what: String,
    number: u64,
}

impl<T: Clone> Drop for Ended<T> {
    fn drop(&mut self) {
        let mut state = self.calls.0.lock().expect("no panic while locked");
        // Another call may have begun between this one's last waiter and now.
        if state.under_way.get(&self.what).is_some_and(|(number, _)| *number == self.number) {
            state.under_way.remove(&self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callers_share_one_call_until_it_ends() {
        let calls = Calls::new();
        let (go, wait) = tokio::sync::oneshot::channel();
        let first = calls.join("a", || Box::pin(async move { wait.await.unwrap() }));
        let second = calls.join("a", || unreachable!("one is under way"));
        let other = calls.join("b", || Box::pin(async { 2 }));
        assert_eq!(other.await, 2);
        go.send(1).unwrap();
        assert_eq!((first.await, second.await), (1, 1));
        assert_eq!(calls.join("a", || Box::pin(async { 3 })).await, 3, "the next is a new one");
        assert!(calls.0.lock().unwrap().under_way.is_empty());
    }

    #[tokio::test]
    async fn a_call_goes_on_while_one_caller_waits_and_ends_with_the_last() {
        let calls: Calls<()> = Calls::new();
        let alive = Arc::new(());
        let held = alive.clone();
        let begin = || -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let _held = held;
                std::future::pending().await
            })
        };
        let first = calls.join("a", begin);
        let second = calls.join("a", || unreachable!("one is under way"));
        drop(first);
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&alive), 1);
        assert!(calls.0.lock().unwrap().under_way.is_empty());
    }
}
