//! Being registered with a broker, and hearing at once what it has to tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::ladder::Opener;
use crate::broker::extension::{Extension, RelayOffer, Signal};
use crate::broker::{Entry, REGISTER_INTERVAL, REGISTER_RETRY, Rendezvous};
use crate::nat::Behaviour;
use crate::net::{Net, Task};

/// How long a broker holds an answer back: peers renew their entries at least this often.
const WAIT: Duration = Duration::from_millis(1500);

/// The least time between two registrations, however much news there is.
const SPACING: Duration = Duration::from_millis(20);

/// How many signals may wait to be looked at; then the oldest is skipped.
const MAX_BEHIND: usize = 64;

/// What peers say to each other through their broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Note {
    /// The caller is about to do its part of this.
    Call(Call),
    /// The peer does its part.
    Answer(Answer),
    /// The broker relays (it says so itself).
    Relay(RelayOffer),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) plan: Plan,
    /// Where the caller's socket will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<SocketAddr>,
    /// What the caller's NAT does.
    pub(super) nat: Behaviour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Plan {
    /// Punch from the sockets that are registered.
    Punch,
    /// Punch from fresh sockets, at the predicted ports.
    Predict,
    /// Punch from many sockets, or at many ports.
    ManyPorts(Opener),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) id: u64,
    /// Where the peer's socket will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<SocketAddr>,
    /// Why the peer does nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
}

impl Note {
    /// What a signal says; nothing where it makes no sense.
    pub(super) fn of(signal: &Signal) -> Option<Self> {
        Self::deserialize(&signal.data).ok()
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("addresses and numbers can be written as JSON")
    }
}

/// A registration that is kept up.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) rendezvous: Arc<Rendezvous>,
    signals: broadcast::Sender<Signal>,
    seen: watch::Receiver<Option<Result<Seen, String>>>,
    _task: Task,
}

/// What the broker said last.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Those of the other role.
    pub(super) others: Vec<Entry>,
    /// `None` where the broker does not know the extension.
    pub(super) extension: Option<Extension>,
}

impl Presence {
    /// Registers from now on.
    pub(super) fn start(net: &Net, rendezvous: Rendezvous) -> Self {
        let rendezvous = Arc::new(rendezvous);
        let signals = broadcast::Sender::new(MAX_BEHIND);
        let (tell, seen) = watch::channel(None);
        let task = net.spawn(Box::pin(keep(rendezvous.clone(), signals.clone(), tell)));
        Self { rendezvous, signals, seen, _task: task }
    }

    /// What others say to this peer from now on.
    pub(super) fn signals(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Result<Seen, String>>> {
        self.seen.clone()
    }

    /// The broker's answer as soon as one satisfies; when the time is over the last one, or why there is none.
    pub(super) async fn until(&self, enough: impl Fn(&Seen) -> bool, patience: Duration) -> Result<Seen, String> {
        let mut seen = self.seen.clone();
        let satisfied = seen.wait_for(|seen| matches!(seen, Some(Ok(seen)) if enough(seen)));
        if let Ok(Ok(seen)) = timeout(patience, satisfied).await
            && let Some(Ok(seen)) = &*seen
        {
            return Ok(seen.clone());
        }
        self.seen.borrow().clone().unwrap_or_else(|| Err("no answer in time".to_owned()))
    }
}

async fn keep(
    rendezvous: Arc<Rendezvous>,
    signals: broadcast::Sender<Signal>,
    tell: watch::Sender<Option<Result<Seen, String>>>,
) {
    loop {
        let began = Instant::now();
        let pause = match rendezvous.register(WAIT).await {
            Ok(registered) => {
                let server = rendezvous.is_server();
                let others = registered.entries.into_iter().filter(|entry| entry.server != server).collect();
                let mut extension = registered.extension;
                let arrived = extension.as_mut().map(|it| std::mem::take(&mut it.signals)).unwrap_or_default();
                let pause = if extension.is_some() { SPACING } else { REGISTER_INTERVAL };
                tell.send_replace(Some(Ok(Seen { others, extension })));
                // Nobody may be listening.
                arrived.into_iter().for_each(|signal| drop(signals.send(signal)));
                pause
            }
            Err(error) => {
                tell.send_replace(Some(Err(error.to_string())));
                REGISTER_RETRY
            }
        };
        sleep_until(began + pause).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notes_are_read_back_and_nonsense_is_not() {
        let at = Some("198.51.100.1:5".parse().unwrap());
        for note in [
            Note::Call(Call { id: u64::MAX, plan: Plan::Punch, at: None, nat: Behaviour::UNKNOWN }),
            Note::Call(Call { id: 1, plan: Plan::ManyPorts(Opener::Caller), at, nat: Behaviour::OPEN }),
            Note::Answer(Answer { id: 1, at, refused: None }),
            Note::Answer(Answer { id: 1, at: None, refused: Some("busy".to_owned()) }),
            Note::Relay(RelayOffer { port: 7, token: "ab".repeat(16) }),
        ] {
            let signal = |data| Signal { from: "k".to_owned(), address: "192.0.2.1:1".parse().unwrap(), data };
            assert_eq!(Note::of(&signal(note.to_json())), Some(note.clone()));
            assert!(note.to_json().to_string().len() <= crate::broker::MAX_SIGNAL);
            assert_eq!(Note::of(&signal(json!({"call": {"id": -1}}))), None);
        }
    }
}
