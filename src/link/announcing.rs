//! Announcing a name again and again.

use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{DAY, Link};
use crate::net::Task;

/// How soon [`Link::start_announcing`] tries again after a failure.
pub const ANNOUNCE_RETRY: Duration = Duration::from_secs(1);

/// The interval of [`Link::start_announcing`] that others use.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(120);

/// Announces a name for as long as it lives: see [`Link::start_announcing`]. Grapes forget the name two to four minutes
/// after the last announce.
#[derive(Debug)]
#[must_use = "dropping it ends the announcing"]
pub struct Announcing {
    task: Task,
    /// How often it was announced. Its sender ends with the task.
    announced: watch::Receiver<u64>,
}

impl Announcing {
    pub(super) fn start(link: &Link, name: &str, port: u16, interval: Duration) -> Self {
        let (link, name, interval) = (link.clone(), name.to_owned(), interval.min(DAY));
        let (count, announced) = watch::channel(0);
        let net = link.0.caller.net.clone();
        let task = net.spawn(Box::pin(async move {
            loop {
                let pause = match link.announce(&name, port).await {
                    Ok(_) => {
                        count.send_modify(|count| *count += 1);
                        interval.mul_f64(link.0.caller.rng().random_range(0.5..1.5))
                    }
                    // The failure has been reported as an event.
                    Err(_) => ANNOUNCE_RETRY,
                };
                sleep(pause).await;
            }
        }));
        Self { task, announced }
    }

    /// Waits until the name was announced for the first time; returns at once from then on.
    pub async fn announced(&self) {
        // An error means that the host has ended, which nothing waits out.
        let _ = self.announced.clone().wait_for(|count| *count > 0).await;
    }

    /// How often the name was announced so far.
    pub fn count(&self) -> u64 {
        *self.announced.borrow()
    }

    /// Ends the announcing, and waits until nothing of it is left. An announce under way is cut off.
    ///
    /// Dropping does the same without the wait.
    pub async fn stop(self) {
        let Self { task, mut announced } = self;
        drop(task);
        while announced.changed().await.is_ok() {}
    }
}
