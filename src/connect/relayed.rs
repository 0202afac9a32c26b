//! A peer's place in a relay: claimed, and kept.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::broker::relay::{Claim, Claimed, ENDED};
use crate::transport::Endpoint;

/// How often the place is claimed until the other side is there.
const CLAIM_EVERY: Duration = Duration::from_millis(50);

/// How often it is claimed after that, which keeps the NAT's mapping and tells a new one.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// After how long without an answer the relay is gone.
const GONE_AFTER: Duration = Duration::from_secs(25);

/// How many unready answers are waited for: the other side had time enough.
const MAX_UNREADY: u32 = 100;

/// Claims a place, says when the other side has one too, and keeps it until the relay is gone.
pub(super) async fn hold(endpoint: Endpoint, relay: SocketAddr, token: String, ready: watch::Sender<bool>) {
    let claim = Claim::encode(&token);
    let mut datagrams = endpoint.datagrams();
    let mut answered = Instant::now();
    let mut next = answered;
    let mut unready = 0;
    while answered.elapsed() < GONE_AFTER && unready < MAX_UNREADY {
        if Instant::now() >= next {
            endpoint.send_datagram(relay, claim.clone());
            next = Instant::now() + if *ready.borrow() { KEEP_EVERY } else { CLAIM_EVERY };
        }
        match timeout_at(next, datagrams.recv()).await {
            Ok(Ok(datagram)) if datagram.from == relay => {
                if datagram.payload == ENDED {
                    return;
                }
                if let Some(claimed) = Claimed::parse(&datagram.payload) {
                    answered = Instant::now();
                    unready += u32::from(!claimed.ready);
                    if claimed.ready && !ready.send_replace(true) {
                        next = answered + KEEP_EVERY;
                    }
                }
            }
            Ok(Err(RecvError::Closed)) => return,
            _ => {}
        }
    }
}
