//! A socket that only fails.

use std::time::Duration;

use grenache::event::Event;
use grenache::limits::Limit;
use grenache::transport::{Endpoint, EndpointConfig};
use tokio::time::sleep;

use crate::wire::{Wire, address, forged, settle};

#[tokio::test(start_paused = true)]
async fn errors_without_end_do_not_occupy_a_core() {
    let wire = Wire::default();
    let endpoint = Endpoint::bind(&wire.net(), address(1), EndpointConfig::default()).unwrap();
    let mut datagrams = endpoint.datagrams();
    settle().await;
    wire.fail();
    let before = wire.polls();
    sleep(Duration::from_secs(60)).await;
    let polls = wire.polls() - before;
    assert!((60..150).contains(&polls), "polled {polls} times in a minute");
    assert!(endpoint.limits().times(Limit::ReceiveErrors) > 50);
    assert!(wire.events().iter().any(|e| matches!(e, Event::LimitReached { limit: Limit::ReceiveErrors, .. })));
    // It goes on where the socket does.
    wire.recover();
    wire.inject(forged(1), address(1), b"back");
    let datagram = tokio::time::timeout(Duration::from_secs(2), datagrams.recv()).await.unwrap().unwrap();
    assert_eq!(&datagram.payload[..], b"back");
    // A few errors between other things cost nothing.
    wire.fail();
    settle().await;
    wire.recover();
    endpoint.close().await;
}
