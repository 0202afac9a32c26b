//! A socket that only fails, and one that is sent too much through.

use std::time::Duration;

use bytes::Bytes;
use grenache::event::Event;
use grenache::grape::{Grape, GrapeConfig};
use grenache::limits::Limit;
use grenache::transport::{DATAGRAM_QUEUE, Endpoint, EndpointConfig};
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
    endpoint.close().await;
}

#[tokio::test(start_paused = true)]
async fn nor_do_they_in_a_grape() {
    let wire = Wire::default();
    let config = GrapeConfig::default().dht_address(address(1)).api_address(address(1));
    let grape = Grape::start(&wire.net(), config).await.unwrap();
    settle().await;
    wire.fail();
    let before = wire.polls();
    sleep(Duration::from_secs(60)).await;
    let polls = wire.polls() - before;
    assert!((60..150).contains(&polls), "polled {polls} times in a minute");
    drop(grape);
}

#[tokio::test(start_paused = true)]
async fn datagrams_to_be_sent_have_a_queue_of_a_bounded_length() {
    let wire = Wire::default();
    let endpoint = Endpoint::bind(&wire.net(), address(1), EndpointConfig::default()).unwrap();
    // The driver has no turn meanwhile.
    for _ in 0..DATAGRAM_QUEUE + 10 {
        endpoint.send_datagram(forged(1), Bytes::from_static(b"x"));
    }
    settle().await;
    assert_eq!(wire.strays().len(), DATAGRAM_QUEUE);
    assert_eq!((endpoint.dropped_datagrams(), endpoint.limits().times(Limit::DatagramQueue)), (10, 10));
}
