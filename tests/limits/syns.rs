//! SYNs without end, from forged and from honest addresses.

use std::net::SocketAddr;
use std::time::Duration;

use grenache::event::Event;
use grenache::limits::Limit;
use grenache::transport::{Endpoint, EndpointConfig};
use grenache::utp::Seq;
use grenache::utp::wire::{Extensions, Kind, Repr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::wire::{Wire, address, forged, settle};

/// Bytes of a µTP packet without payload.
const HEADER: usize = 20;

pub(crate) fn packet(kind: Kind, id: u16, seq: u16, ack: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Repr {
        kind,
        connection_id: id,
        timestamp: 1,
        timestamp_difference: 0,
        window: 1 << 20,
        seq: Seq(seq),
        ack: Seq(ack),
        extensions: Extensions::NONE,
        payload,
    };
    header.encode(&mut bytes);
    bytes
}

fn endpoint(wire: &Wire, config: EndpointConfig) -> Endpoint {
    Endpoint::bind(&wire.net(), address(1), config).unwrap()
}

/// Opens a connection by hand; gives the number of its SYN-ACK.
async fn open(wire: &Wire, from: SocketAddr, id: u16) -> Option<u16> {
    wire.inject(from, address(1), &packet(Kind::Syn, id, 1, 0, b""));
    settle().await;
    let answers = wire.strays();
    let syn_ack = answers.iter().find(|(to, bytes)| *to == from && Repr::parse(bytes).unwrap().kind == Kind::State)?;
    let seq = Repr::parse(&syn_ack.1).unwrap().seq.0;
    wire.inject(from, address(1), &packet(Kind::State, id.wrapping_add(1), 2, seq.wrapping_sub(1), b""));
    settle().await;
    Some(seq)
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_forged_syns_takes_a_bounded_room_and_locks_nobody_out() {
    let wire = Wire::default().latency(Duration::from_millis(50));
    let server = endpoint(&wire, EndpointConfig::default());
    let client = Endpoint::bind(&wire.net(), address(2), EndpointConfig::default()).unwrap();
    // 100,000 a second, for as long as the honest peers need: each takes the room of one that waits for 10 ms only.
    let flood = {
        let wire = wire.clone();
        server.net().spawn(Box::pin(async move {
            for nth in 0.. {
                wire.inject(forged(nth % 4_000_000), address(1), &packet(Kind::Syn, 7, 1, 0, b""));
                if nth % 100 == 99 {
                    settle().await;
                }
            }
        }))
    };
    sleep(Duration::from_millis(100)).await;
    for nth in 0..5_u8 {
        let begun = Instant::now();
        let (near, far) = timeout(Duration::from_secs(2), async {
            let mut near = client.connect(address(1)).await.unwrap();
            near.write_all(&[nth; 3000]).await.unwrap();
            (near, server.accept().await.unwrap())
        })
        .await
        .expect("an honest peer gets through");
        let (mut near, mut far) = (near, far);
        let mut received = vec![0; 3000];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(received, [nth; 3000]);
        far.write_all(b"answer").await.unwrap();
        near.read_exact(&mut received[..6]).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(700), "took {:?}", begun.elapsed());
        assert!(server.connections() <= 1024 + 5, "{} connections", server.connections());
    }
    drop(flood);
    assert!(server.limits().times(Limit::HalfOpen) > 10_000);
    let told = |event: &&Event| matches!(event, Event::LimitReached { limit: Limit::HalfOpen, from: Some(_), .. });
    let told = wire.events().iter().filter(told).count();
    assert!((1..=5).contains(&told), "told of {told} times: once a second is enough");
    // The forged ones are forgotten in time.
    sleep(Duration::from_secs(11)).await;
    assert!(server.connections() <= 5);
}

#[tokio::test(start_paused = true)]
async fn an_unproven_address_gets_no_more_than_it_has_sent() {
    let wire = Wire::default();
    let server = endpoint(&wire, EndpointConfig::default());
    let to = address(1);
    let send = |victims: &mut Vec<SocketAddr>, packets: &[Vec<u8>]| {
        let from = forged(victims.len() as u32);
        packets.iter().for_each(|bytes| wire.inject(from, to, bytes));
        victims.push(from);
    };
    let mut victims = Vec::new();
    let syn = |id: u16| packet(Kind::Syn, id, 1, 0, b"");
    // A SYN, repeated ones, with garbage after it, with payload; packets of no connection, new and repeated; a FIN; a
    // RESET; a guess at the SYN-ACK's number; a punch; text; nothing; a broken extension.
    send(&mut victims, &[syn(1)]);
    send(&mut victims, &[syn(1), syn(1), syn(1)]);
    send(&mut victims, &[syn(1), packet(Kind::Data, 2, 2, 77, b"x"), packet(Kind::Data, 2, 3, 78, b"x")]);
    send(&mut victims, &[packet(Kind::Syn, 1, 1, 0, &[0; 500])]);
    send(
        &mut victims,
        &[packet(Kind::Data, 9, 9, 9, b"x"), packet(Kind::Data, 9, 9, 9, b"x"), packet(Kind::Fin, 9, 10, 9, b"")],
    );
    send(&mut victims, &[packet(Kind::Reset, 9, 9, 9, b"")]);
    send(&mut victims, &(0..200).map(|guess| packet(Kind::State, 2, 2, guess, b"")).collect::<Vec<_>>());
    send(&mut victims, &[vec![0xc3, 0xbf]]);
    send(&mut victims, &[b"hello".to_vec(), Vec::new(), vec![0x41; 20]]);
    // Longer than any answer to it could be repeated.
    sleep(Duration::from_secs(120)).await;
    let mut answered = 0;
    for (nth, victim) in victims.iter().enumerate() {
        let (received, sent) = wire.bytes(*victim);
        assert!(sent <= received, "case {nth}: {sent} bytes for {received}");
        answered += usize::from(sent > 0);
    }
    assert!(answered >= 5, "only {answered} were answered at all");
    assert_eq!(wire.bytes(victims[0]), (HEADER, HEADER), "a SYN gets its SYN-ACK");
    assert_eq!(wire.bytes(victims[1]).1, 3 * HEADER, "and each repeated one too, as the answer may be lost");
    // Nor does the end of the endpoint send anything.
    send(&mut victims, &[syn(3)]);
    settle().await;
    server.close().await;
    settle().await;
    assert_eq!(wire.bytes(*victims.last().unwrap()), (HEADER, HEADER));
}

#[tokio::test(start_paused = true)]
async fn resets_are_for_each_packet_once_and_of_a_bounded_rate() {
    let wire = Wire::default();
    let server = endpoint(&wire, EndpointConfig::default());
    for nth in 0..3000 {
        wire.inject(forged(nth), address(1), &packet(Kind::Data, 9, 9, 9, b"x"));
        settle().await;
    }
    assert_eq!(wire.strays().len(), grenache::utp::MAX_RESETS);
    assert_eq!(server.limits().times(Limit::Resets), 3000 - grenache::utp::MAX_RESETS as u64);
}

#[tokio::test(start_paused = true)]
async fn one_source_has_so_many_connections_and_no_more() {
    let wire = Wire::default();
    let server = endpoint(&wire, EndpointConfig::default().max_connections_per_source(3));
    let mut held = Vec::new();
    for id in [10, 20, 30] {
        open(&wire, forged(1), id).await.unwrap();
        held.push(server.accept().await.unwrap());
    }
    assert_eq!(open(&wire, forged(1), 40).await, None, "a fourth");
    let mut other_port = forged(1);
    other_port.set_port(4001);
    assert_eq!(open(&wire, other_port, 40).await, None, "from another port of the same address");
    assert!(open(&wire, forged(2), 40).await.is_some(), "from another address");
    assert_eq!(server.limits().times(Limit::ConnectionsPerSource), 2);
    held.pop().unwrap().reset();
    settle().await;
    assert!(open(&wire, forged(1), 50).await.is_some(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn all_addresses_of_an_ipv6_network_are_one_source() {
    let wire = Wire::default();
    let server = endpoint(&wire, EndpointConfig::default().max_connections_per_source(3));
    let host = |network: u16, host: u16| SocketAddr::from(([0x2001, 0xdb8, 0, network, host, 0, 0, host], 4000));
    let mut held = Vec::new();
    for nth in 1..=3 {
        open(&wire, host(1, nth), 10).await.unwrap();
        held.push(server.accept().await.unwrap());
    }
    assert_eq!(open(&wire, host(1, 4), 10).await, None, "a fourth address of the same /64");
    assert_eq!(server.limits().times(Limit::ConnectionsPerSource), 1);
    assert!(open(&wire, host(2, 4), 10).await.is_some(), "from another network");
    held.pop().unwrap().reset();
    settle().await;
    assert!(open(&wire, host(1, 5), 10).await.is_some(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_forged_does_not_lock_its_owner_out() {
    let wire = Wire::default();
    let server = endpoint(&wire, EndpointConfig::default().max_connections_per_source(3));
    for id in 0..100 {
        wire.inject(forged(1), address(1), &packet(Kind::Syn, id * 2, 1, 0, b""));
    }
    settle().await;
    wire.strays();
    assert!(server.connections() <= 3);
    assert!(open(&wire, forged(1), 1000).await.is_some(), "the oldest half-open one goes for it");
    server.accept().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_has_so_many_connections_in_all() {
    let wire = Wire::default();
    let server = endpoint(&wire, EndpointConfig::default().max_connections(2));
    let mut held = Vec::new();
    for nth in 0..2 {
        open(&wire, forged(nth), 10).await.unwrap();
        held.push(server.accept().await.unwrap());
    }
    assert_eq!(open(&wire, forged(2), 10).await, None);
    assert_eq!(server.limits().times(Limit::Connections), 1);
    assert!(server.connect(forged(3)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn where_nobody_accepts_the_backlog_and_what_it_holds_are_bounded() {
    let wire = Wire::default();
    let config = EndpointConfig::default().accept_backlog(3).unaccepted_window(4 << 10);
    let server = endpoint(&wire, config);
    let mut seqs = Vec::new();
    for nth in 0..5 {
        seqs.push(open(&wire, forged(nth), 10).await.unwrap());
    }
    assert_eq!(server.limits().times(Limit::AcceptBacklog), 2);
    let resets = wire.strays();
    let reset = |(_, bytes): &(SocketAddr, Vec<u8>)| Repr::parse(bytes).unwrap().kind == Kind::Reset;
    assert_eq!(resets.iter().filter(|stray| reset(stray)).count(), 1, "the last one is told so");
    assert_eq!(server.connections(), 3);
    // The peer goes on sending whatever it is told; what is kept ends at twice the window.
    for nth in 0..100_u16 {
        let data = packet(Kind::Data, 11, 2 + nth, seqs[0].wrapping_sub(1), &[1; 1000]);
        wire.inject(forged(0), address(1), &data);
        settle().await;
    }
    let last = wire.strays().pop_back().unwrap().1;
    let ack = Repr::parse(&last).unwrap();
    assert_eq!((ack.window, ack.ack), (0, Seq(9)), "eight packets of 1000 bytes are kept, and the window is closed");
    // Once it is accepted, the window is the usual one, and the peer is told.
    let mut stream = server.accept().await.unwrap();
    settle().await;
    let update = wire.strays().pop_back().expect("it hears of the window").1;
    assert!(Repr::parse(&update).unwrap().window > 1_000_000);
    let mut received = vec![0; 8000];
    stream.read_exact(&mut received).await.unwrap();
    assert_eq!(received, [1; 8000]);
}
