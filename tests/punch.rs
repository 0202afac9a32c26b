//! Punches, messages and handshakes on loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join};
use grenache::event::Event;
use grenache::link::{Link, LinkConfig, LinkError};
use grenache::punch::{HandshakeConfig, HandshakeError, Message, PUNCH, Puncher, Subscription};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::json;
use tokio::time::timeout;

use common::fake_grape::{Answer, FakeGrape};
use common::{PATIENCE, Recorder, any_port};

mod common;

struct Peer {
    endpoint: Endpoint,
    puncher: Puncher,
    net: Arc<Recorder>,
}

fn peer() -> Peer {
    let (recorder, net) = Recorder::new();
    let endpoint = Endpoint::bind(&net, any_port(), EndpointConfig::default()).unwrap();
    Peer { puncher: Puncher::new(&endpoint), endpoint, net: recorder }
}

async fn next<T: Clone>(subscription: &mut Subscription<T>) -> T {
    timeout(PATIENCE, subscription.next()).await.expect("something in time").expect("the endpoint is open")
}

#[tokio::test]
async fn a_punch_is_two_bytes_and_reaches_every_listener() {
    let (a, b) = (peer(), peer());
    let mut raw = b.endpoint.datagrams();
    let mut listeners = [b.puncher.punched(), b.puncher.punched(), b.puncher.clone().punched()];
    a.puncher.punch(b.endpoint.local_addr());
    for listener in &mut listeners {
        assert_eq!(next(listener).await, a.endpoint.local_addr());
    }
    assert_eq!(timeout(PATIENCE, raw.recv()).await.unwrap().unwrap().payload[..], PUNCH);
    assert_eq!(PUNCH, [0xc3, 0xbf]);
    assert_eq!(b.net.count(|e| matches!(e, Event::Punched { .. })), 1, "one event, however many listen");
    assert_eq!(a.net.count(|e| matches!(e, Event::PunchSent { .. })), 1);
    assert_eq!(b.puncher.count(a.endpoint.local_addr()), 1);
    assert_eq!(a.puncher.count(b.endpoint.local_addr()), 0);
}

#[tokio::test]
async fn anything_else_is_a_message() {
    let (a, b) = (peer(), peer());
    let mut messages = b.puncher.messages();
    let mut punched = b.puncher.punched();
    for payload in [&b"\xff"[..], b"\xc3\xbf\x0a", b"\xc3\xbf\xc3\xbf", b"\xc3", br#"{"json":"text"}"#] {
        a.endpoint.send_datagram(b.endpoint.local_addr(), Bytes::from_static(payload));
        let expected = Message { from: a.endpoint.local_addr(), payload: Bytes::from_static(payload) };
        assert_eq!(next(&mut messages).await, expected);
    }
    a.puncher.punch(b.endpoint.local_addr());
    assert_eq!(next(&mut punched).await, a.endpoint.local_addr());
    let events = b.net.events();
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Message { .. })).count(), 5);
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Punched { .. })).count(), 1);
}

#[tokio::test]
async fn a_handshake_completes_on_both_sides() {
    let (a, b) = (peer(), peer());
    let config = HandshakeConfig::default();
    let both = join(
        a.puncher.handshake(b.endpoint.local_addr(), config),
        b.puncher.handshake(a.endpoint.local_addr(), config),
    );
    assert_eq!(timeout(PATIENCE, both).await.unwrap(), (Ok(()), Ok(())));
    for net in [&a.net, &b.net] {
        assert_eq!(net.count(|e| matches!(e, Event::Handshake { .. })), 1);
        assert!(net.count(|e| matches!(e, Event::PunchSent { .. })) >= 5);
    }
    assert!(a.puncher.count(b.endpoint.local_addr()) >= 2);
}

#[tokio::test]
async fn one_handshake_a_peer_at_a_time_and_an_end_where_nobody_punches_back() {
    let (a, b, c) = (peer(), peer(), peer());
    let config = HandshakeConfig::default().timeout(Duration::from_millis(100));
    let to_b = b.endpoint.local_addr();
    let (first, second) = join(a.puncher.handshake(to_b, config), a.puncher.handshake(to_b, config)).await;
    assert_eq!(first, Err(HandshakeError::Timeout));
    assert_eq!(second, Err(HandshakeError::UnderWay(to_b)));
    let to_c = c.endpoint.local_addr();
    let (again, other) = join(a.puncher.handshake(to_b, config), a.puncher.handshake(to_c, config)).await;
    assert_eq!((again, other), (Err(HandshakeError::Timeout), Err(HandshakeError::Timeout)), "each runs");
    assert_eq!(a.net.count(|e| matches!(e, Event::Handshake { .. })), 0);
}

#[tokio::test]
async fn a_handshake_reaches_every_listener() {
    let (a, b) = (peer(), peer());
    let mut listeners = [a.puncher.handshakes(), a.puncher.clone().handshakes()];
    let mut punched = [a.puncher.punched(), a.puncher.punched()];
    let mut at_b = b.puncher.handshakes();
    let config = HandshakeConfig::default();
    let (to_a, to_b) = (a.endpoint.local_addr(), b.endpoint.local_addr());
    let both = join(a.puncher.handshake(to_b, config), b.puncher.handshake(to_a, config));
    assert_eq!(timeout(PATIENCE, both).await.unwrap(), (Ok(()), Ok(())));
    for listener in &mut listeners {
        assert_eq!(next(listener).await, to_b);
    }
    for listener in &mut punched {
        assert_eq!(next(listener).await, to_b);
    }
    assert_eq!(next(&mut at_b).await, to_a);
}

#[tokio::test]
async fn dropping_a_handshake_ends_it_and_frees_its_place() {
    let (a, b) = (peer(), peer());
    let to_b = b.endpoint.local_addr();
    let mut at_b = b.puncher.punched();
    {
        let shaking = std::pin::pin!(a.puncher.handshake(to_b, HandshakeConfig::default()));
        let first = std::pin::pin!(next(&mut at_b));
        let punched = matches!(futures_util::future::select(first, shaking).await, Either::Left(_));
        assert!(punched, "the handshake goes on");
    }
    let again = HandshakeConfig::default().timeout(Duration::from_millis(50));
    assert_eq!(a.puncher.handshake(to_b, again).await, Err(HandshakeError::Timeout), "none is under way");
}

#[tokio::test]
async fn a_name_is_looked_up_and_every_address_found_is_punched() {
    let (a, b, c) = (peer(), peer(), peer());
    let found = json!([b.endpoint.local_addr().to_string(), c.endpoint.local_addr().to_string()]).to_string();
    let grape = FakeGrape::new(move |_, _, name| {
        Answer::Body(200, if name == "service" { found.clone() } else { "[]".to_owned() })
    });
    let (at, _listening) = grape.listen(a.endpoint.net()).await;
    let link = Link::new(a.endpoint.net(), LinkConfig::new(at));
    let mut punched = [b.puncher.punched(), c.puncher.punched()];
    let to = a.puncher.punch_name(&link, "service").await.unwrap();
    assert_eq!(to, [b.endpoint.local_addr(), c.endpoint.local_addr()]);
    for punched in &mut punched {
        assert_eq!(next(punched).await, a.endpoint.local_addr());
    }
    assert_eq!(a.puncher.punch_name(&link, "nobody").await, Err(LinkError::LookupEmpty));
    assert_eq!(a.net.count(|e| matches!(e, Event::PunchSent { .. })), 2);
}
