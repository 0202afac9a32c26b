//! A peer's place in a relay: claimed, and kept.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::broker::relay::{Claim, Heard};
use crate::transport::Endpoint;

/// How often the place is claimed until the other side is there.
const CLAIM_EVERY: Duration = Duration::from_millis(50);

/// How often it is claimed after that, which keeps the NAT's mapping and tells a new one.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// How soon it is claimed again where the last claim was not answered: one that is lost must not end what goes on.
const AGAIN_EVERY: Duration = Duration::from_secs(1);

/// After how long without an answer the relay is gone.
const GONE_AFTER: Duration = Duration::from_secs(25);

/// How many claims are sent, in 5 s, before the other side is there, and before anybody has answered at all.
const MAX_CLAIMS: u32 = 100;

/// Tells the relay that it is not needed any more, and the other side through it; twice, for one may be lost.
pub(super) fn leave(endpoint: &Endpoint, relay: SocketAddr, token: &str) {
    for _ in 0..2 {
        endpoint.send_datagram(relay, Claim::encode_leave(token));
    }
}

/// Claims a place, says when the other side has one too, and keeps it until the relay is gone.
pub(super) async fn hold(endpoint: Endpoint, relay: SocketAddr, token: String, ready: watch::Sender<bool>) {
    let claim = Claim::encode(&token);
    let mut datagrams = endpoint.datagrams();
    let mut answered = Instant::now();
    let mut next = answered;
    let mut claims = 0;
    while answered.elapsed() < GONE_AFTER {
        if Instant::now() >= next {
            let is_ready = *ready.borrow();
            if !is_ready && claims >= MAX_CLAIMS {
                return;
            }
            claims += 1;
            endpoint.send_datagram(relay, claim.clone());
            let every = match is_ready {
                false => CLAIM_EVERY,
                true if answered.elapsed() >= KEEP_EVERY => AGAIN_EVERY,
                true => KEEP_EVERY,
            };
            next = Instant::now() + every;
        }
        match timeout_at(next, datagrams.recv()).await {
            Ok(Ok(datagram)) if datagram.from == relay => match Heard::parse(&datagram.payload, &token) {
                Some(Heard::Ended) => return,
                Some(Heard::Claimed { ready: there }) => {
                    answered = Instant::now();
                    if there {
                        ready.send_replace(true);
                        next = answered + KEEP_EVERY;
                    }
                }
                None => {}
            },
            Ok(Err(RecvError::Closed)) => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures_util::future::{Either, select};
    use tokio::time::timeout;

    use super::*;
    use crate::net::{HostNetwork, Net};
    use crate::transport::EndpointConfig;

    #[tokio::test(start_paused = true)]
    async fn claims_that_nobody_answers_come_to_an_end() {
        let net: Net = Arc::new(HostNetwork::new());
        let bind = || Endpoint::bind(&net, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap();
        let (endpoint, deaf) = (bind(), bind());
        let began = Instant::now();
        hold(endpoint, deaf.local_addr(), "ab".repeat(16), watch::Sender::new(false)).await;
        let every = CLAIM_EVERY * MAX_CLAIMS;
        assert!((every..every + CLAIM_EVERY).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_can_forge_the_relays_address_but_knows_no_token_ends_nothing() {
        let net: Net = Arc::new(HostNetwork::new());
        let bind = || Endpoint::bind(&net, ([127, 0, 0, 1], 0).into(), EndpointConfig::default()).unwrap();
        let (relay, side) = (bind(), bind());
        let mut claims = relay.datagrams();
        let (tell, ready) = watch::channel(false);
        let (own, others) = ("a".repeat(32), "b".repeat(32));
        let mut holding = pin!(hold(side.clone(), relay.local_addr(), own.clone(), tell));
        let forging = async {
            // As often as it claims its place, which it goes on with.
            for round in 0..15 {
                let claim = timeout(PATIENCE, claims.recv()).await.unwrap().unwrap();
                assert_eq!(claim.payload, Claim::encode(&own));
                // So many in all that each is heard more often than an unready relay is waited for.
                for _ in 0..if round < 12 { MAX_CLAIMS / 10 } else { 0 } {
                    for forged in [
                        r#"{"grenache":"ended"}"#.to_owned(),
                        format!(r#"{{"grenache":"ended","token":"{others}"}}"#),
                        r#"{"grenache":"claimed","ready":false}"#.to_owned(),
                        format!(r#"{{"grenache":"claimed","ready":false,"token":"{others}"}}"#),
                        format!(r#"{{"grenache":"claimed","ready":true,"token":"{others}"}}"#),
                    ] {
                        relay.send_datagram(side.local_addr(), forged.into());
                    }
                }
            }
        };
        match select(holding.as_mut(), pin!(forging)).await {
            Either::Left(_) => panic!("it was ended by who knows no token"),
            Either::Right(_) => assert!(!*ready.borrow(), "nor does it take the other side to be there"),
        }
        relay.send_datagram(side.local_addr(), format!(r#"{{"grenache":"ended","token":"{own}"}}"#).into());
        timeout(PATIENCE, holding).await.expect("the relay's own word is heard");
    }
}
