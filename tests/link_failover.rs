//! A link with several Grapes, on the paused clock.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use grenache::event::Event;
use grenache::link::{CallOptions, GRAPE_REST, Link, LinkConfig, LinkError};
use grenache::net::{BoxFuture, HttpClient};
use tokio::time::{Instant, advance};

use common::Recorder;

mod common;

/// Grapes of which some are down, and who was asked.
#[derive(Debug, Default, Clone)]
struct Grapes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    down: BTreeSet<u16>,
    silent: BTreeSet<u16>,
    asked: Vec<u16>,
}

impl HttpClient for Grapes {
    fn post(&self, server: SocketAddr, _: &str, _: Bytes) -> BoxFuture<'static, io::Result<(u16, Bytes)>> {
        let mut state = self.0.lock().unwrap();
        state.asked.push(server.port());
        if state.silent.contains(&server.port()) {
            return Box::pin(std::future::pending());
        }
        let down = state.down.contains(&server.port());
        let answer = match server.port() {
            4 => r#""ERR_GRAPE_GENERIC""#,
            _ => r#"["203.0.113.5:1337"]"#,
        };
        Box::pin(
            async move { if down { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok((200, answer.into())) } },
        )
    }
}

impl Grapes {
    fn set(&self, down: &[u16], silent: &[u16]) {
        let mut state = self.0.lock().unwrap();
        (state.down, state.silent) = (down.iter().copied().collect(), silent.iter().copied().collect());
    }

    fn asked(&self) -> Vec<u16> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

/// A link to the Grapes at these ports, in this order.
fn link(ports: &[u16]) -> (Grapes, Link, Arc<Recorder>) {
    let grapes = Grapes::default();
    let (recorder, net) = Recorder::with_http(Arc::new(grapes.clone()));
    let mut addresses = ports.iter().map(|&port| SocketAddr::from(([127, 0, 0, 1], port)));
    let config = LinkConfig::new(addresses.next().unwrap());
    (grapes, Link::new(&net, addresses.fold(config, LinkConfig::fallback)), recorder)
}

#[tokio::test(start_paused = true)]
async fn the_first_grape_that_is_reached_answers_and_who_was_not_comes_last_for_a_while() {
    let (grapes, link, net) = link(&[1, 2, 3]);
    link.lookup_fresh("name").await.unwrap();
    assert_eq!(grapes.asked(), [1]);
    grapes.set(&[1, 2], &[]);
    link.lookup_fresh("name").await.unwrap();
    assert_eq!(grapes.asked(), [1, 2, 3]);
    grapes.set(&[], &[]);
    link.lookup_fresh("name").await.unwrap();
    assert_eq!(grapes.asked(), [3], "the others rest, though they are back");
    advance(GRAPE_REST).await;
    link.lookup_fresh("name").await.unwrap();
    assert_eq!(grapes.asked(), [1], "in the old order");
    assert_eq!(net.count(|e| matches!(e, Event::LinkFailed { .. })), 0, "none of this was a failure");
}

#[tokio::test(start_paused = true)]
async fn each_try_asks_every_grape_and_then_the_call_fails() {
    let (grapes, link, net) = link(&[1, 2]);
    grapes.set(&[1, 2], &[]);
    assert!(matches!(link.lookup("name").await, Err(LinkError::Unreachable(_))));
    assert_eq!(grapes.asked(), [1, 2, 1, 2, 1, 2], "three tries");
    assert!(link.get("00").await.is_err());
    assert_eq!(grapes.asked(), [1, 2], "one try for a value, yet every Grape");
    let twice = link.with(CallOptions::default().tries(1).value_tries(2));
    assert!(twice.get("00").await.is_err());
    assert!(twice.announce("name", 1).await.is_err());
    assert_eq!(grapes.asked(), [1, 2, 1, 2, 1, 2]);
    assert_eq!(net.count(|e| matches!(e, Event::LinkFailed { .. })), 4, "one for each call");
}

#[tokio::test(start_paused = true)]
async fn a_silent_grape_costs_one_timeout_and_then_no_more() {
    let (grapes, link, _) = link(&[1, 2]);
    grapes.set(&[], &[1]);
    let quick = link.with(CallOptions::default().timeout(Duration::from_millis(300)));
    for (expected, asked) in [(300, &[1, 2][..]), (0, &[2])] {
        let begun = Instant::now();
        quick.lookup_fresh("name").await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_millis(expected));
        assert_eq!(grapes.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_grape_refuses_is_asked_nowhere_else() {
    let (grapes, link, _) = link(&[4, 1]);
    assert_eq!(link.lookup("name").await, Err(LinkError::Refused("ERR_GRAPE_GENERIC".to_owned())));
    assert_eq!(grapes.asked(), [4]);
}
