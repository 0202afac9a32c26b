//! Punches and messages without end.

use std::time::Duration;

use grenache::event::Event;
use grenache::limits::Limit;
use grenache::punch::{MAX_BEHIND, MAX_COUNTED, PUNCH, PUNCH_BACK_RATE, PUNCH_RATE, Puncher};
use grenache::transport::{Endpoint, EndpointConfig, MAX_MESSAGE};
use tokio::time::{sleep, timeout};

use crate::wire::{Wire, address, forged, settle};

fn puncher(wire: &Wire, last: u8) -> (Endpoint, Puncher) {
    let endpoint = Endpoint::bind(&wire.net(), address(last), EndpointConfig::default()).unwrap();
    let puncher = Puncher::new(&endpoint);
    (endpoint, puncher)
}

#[tokio::test(start_paused = true)]
async fn punches_of_one_source_are_reported_at_a_bounded_rate() {
    let wire = Wire::default();
    let (endpoint, puncher) = puncher(&wire, 1);
    settle().await;
    for port in 0..2000 {
        let mut from = forged(1);
        from.set_port(1 + port);
        wire.inject(from, address(1), &PUNCH);
        if port % 100 == 99 {
            settle().await;
        }
    }
    wire.inject(forged(2), address(1), &PUNCH);
    settle().await;
    let reported = |from: std::net::IpAddr| {
        let events = wire.events();
        events.iter().filter(|e| matches!(e, Event::Punched { from: by } if by.ip() == from)).count() as u32
    };
    let burst = reported(forged(1).ip());
    assert!((PUNCH_RATE.burst..PUNCH_RATE.burst + 10).contains(&burst), "{burst} were reported");
    assert_eq!(endpoint.limits().times(Limit::PunchRate), 2000 - u64::from(burst));
    assert_eq!(reported(forged(2).ip()), 1, "another source is heard");
    assert_eq!(puncher.count(forged(2)), 1);
}

#[tokio::test(start_paused = true)]
async fn so_many_punchers_are_counted_and_no_more() {
    let wire = Wire::default();
    let (_endpoint, puncher) = puncher(&wire, 1);
    settle().await;
    for nth in 0..=MAX_COUNTED.get() as u32 {
        wire.inject(forged(nth), address(1), &PUNCH);
        settle().await;
    }
    assert_eq!((puncher.count(forged(0)), puncher.count(forged(1))), (0, 1), "the first is forgotten");
}

#[tokio::test(start_paused = true)]
async fn two_that_punch_back_do_not_keep_each_other_busy() {
    let wire = Wire::default().latency(Duration::from_millis(5));
    let peers = [puncher(&wire, 1), puncher(&wire, 2)];
    let net = wire.net();
    let tasks = peers.each_ref().map(|(_, puncher)| {
        let (puncher, mut punched) = (puncher.clone(), puncher.punched());
        net.spawn(Box::pin(async move {
            while let Some(from) = punched.next().await {
                puncher.punch_back(from);
            }
        }))
    });
    settle().await;
    peers[0].1.punch(address(2));
    sleep(Duration::from_secs(10)).await;
    drop(tasks);
    let sent = wire.events().iter().filter(|e| matches!(e, Event::PunchSent { .. })).count();
    let most = 2 * (PUNCH_BACK_RATE.burst + 10 * PUNCH_BACK_RATE.per_second) as usize;
    assert!((10..=most).contains(&sent), "{sent} punches in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_is_bounded_and_what_is_too_long_is_dropped() {
    let wire = Wire::default();
    let (endpoint, puncher) = puncher(&wire, 1);
    let mut messages = puncher.messages();
    settle().await;
    wire.inject(forged(1), address(1), &vec![b'x'; MAX_MESSAGE + 1]);
    wire.inject(forged(1), address(1), &vec![b'y'; MAX_MESSAGE]);
    settle().await;
    assert_eq!(endpoint.limits().times(Limit::DatagramSize), 1);
    assert_eq!(messages.next().await.unwrap().payload[..], vec![b'y'; MAX_MESSAGE]);
    // Nobody reads meanwhile.
    for nth in 0..10_000_u32 {
        wire.inject(forged(1), address(1), &nth.to_be_bytes());
        if nth % 64 == 0 {
            settle().await;
        }
    }
    settle().await;
    let mut seen = Vec::new();
    while let Ok(Some(message)) = timeout(Duration::from_millis(1), messages.next()).await {
        seen.push(u32::from_be_bytes(message.payload[..].try_into().unwrap()));
    }
    assert_eq!(seen.len(), MAX_BEHIND);
    assert_eq!(seen.last(), Some(&9_999), "the oldest are skipped");
}
