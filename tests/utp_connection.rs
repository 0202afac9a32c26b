//! What connections do on a path whose every loss is chosen: handshake, loss recovery, windows, ends.

mod model;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use grenache::utp::wire::{HEADER_LEN, Kind, Repr, is_utp};
use grenache::utp::{Batch, Config, Connection, Error, Event, Seq};
use model::{Path, World, pattern};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

fn world(config: Config) -> World {
    World::new(1, Path::PERFECT, config, (100, 500), 7)
}

fn open(world: &World) -> bool {
    world.initiator.connection.was_established()
        && world.acceptor.as_ref().is_some_and(|side| side.connection.was_established())
}

fn both_closed(world: &World) -> bool {
    world.initiator.closed.is_some() && world.acceptor.as_ref().is_some_and(|side| side.closed.is_some())
}

/// Runs until both sides are closed, and asserts that all went well.
fn finish(world: &mut World, limit: Duration) {
    world.run(limit, both_closed);
    let acceptor = world.acceptor.as_ref().unwrap();
    assert_eq!((world.initiator.closed, acceptor.closed), (Some(None), Some(None)), "\n{}", world.log.join("\n"));
    assert!(acceptor.read == world.initiator.to_write && world.initiator.read == acceptor.to_write);
}

/// The log's lines that contain `what`, each up to its window.
fn lines<'a>(world: &'a World, what: &str) -> Vec<&'a str> {
    world.log.iter().filter(|line| line.contains(what)).map(|line| line.split(" win").next().unwrap()).collect()
}

fn kind(bytes: &[u8]) -> Kind {
    Repr::parse(bytes).unwrap().kind
}

#[test]
fn bep29_a_whole_connection() {
    let mut world = world(Config::default());
    world.initiator.to_write = pattern(50, 1);
    world.acceptor_writes(pattern(60, 2), 100);
    finish(&mut world, MINUTE);
    let log: Vec<_> = world.log.iter().map(|line| line.as_str()).collect();
    insta::assert_snapshot!(log.join("\n"));
}

#[test]
fn a_lost_syn_is_repeated_after_250_ms() {
    let mut world = world(Config::default());
    world.drop = Some(|number, _, _| number < 2);
    world.run(MINUTE, open);
    assert_eq!(
        lines(&world, "SYN"),
        [
            "0ns > µTP SYN id 7 seq 100 ack 0",
            "250ms > µTP SYN id 7 seq 100 ack 0",
            "750ms > µTP SYN id 7 seq 100 ack 0"
        ]
    );
}

#[test]
fn connecting_ends_with_its_timeout() {
    let mut world = world(Config::default().connect_timeout(Duration::from_millis(1234)));
    world.drop = Some(|_, _, _| true);
    world.run(MINUTE, |world| world.initiator.closed.is_some());
    assert_eq!(world.initiator.closed, Some(Some(Error::TimedOut)));
    assert_eq!(world.elapsed(), Duration::from_millis(1234));
}

#[test]
fn an_unanswered_syn_asks_for_another_id() {
    let start = tokio::time::Instant::now().into_std();
    let mut connection = Connection::connect(start, Config::default(), 7, Seq(1));
    let mut out = Vec::new();
    let mut sent = Vec::new();
    let mut now = start;
    while now < start + Duration::from_secs(9) {
        connection.handle_timeout(now);
        if connection.poll_event() == Some(Event::Redial) {
            connection.redial(now, connection.receive_id() + 10);
        }
        out.clear();
        while connection.poll_transmit(now, Batch::SINGLE, &mut out).is_some() {}
        if !out.is_empty() {
            sent.push(((now - start).as_millis(), Repr::parse(&out).unwrap().connection_id));
        }
        now = connection.poll_timeout().unwrap();
    }
    assert_eq!(sent, [(0, 7), (250, 7), (750, 7), (1750, 17), (3750, 17), (7750, 17)]);
}

#[test]
fn a_lost_syn_ack_and_a_lost_first_ack_are_made_up_for() {
    for lost in 0..5 {
        let mut world = world(Config::default());
        // Only the acceptor has something to say: it must learn that it may.
        world.acceptor_writes(pattern(3000, 2), 3000);
        world.drop = Some(match lost {
            0 => |number, _, _| number == 1,
            1 => |number, _, _| number == 2,
            2 => |number, _, _| (1..3).contains(&number),
            3 => |number, _, _| (2..5).contains(&number),
            _ => |number, _, _| number == 3,
        });
        finish(&mut world, Duration::from_secs(20));
    }
}

#[test]
fn the_initiator_confirms_again_and_the_acceptor_repeats_nothing_by_itself() {
    let mut world = world(Config::default());
    world.initiator.finish = false;
    world.drop = Some(|number, to_acceptor, _| to_acceptor && (1..4).contains(&number));
    world.run(MINUTE, open);
    assert_eq!(
        lines(&world, "µTP"),
        [
            "0ns > µTP SYN id 7 seq 100 ack 0",
            "10ms < µTP STATE id 7 seq 500 ack 100",
            "20ms > µTP STATE id 8 seq 101 ack 499",
            "1.02s > µTP STATE id 8 seq 101 ack 499",
            "3.02s > µTP STATE id 8 seq 101 ack 499",
            "3.03s < µTP FIN id 7 seq 500 ack 100",
        ]
    );
}

#[test]
fn a_duplicate_syn_is_answered_with_the_same_numbers() {
    let now = tokio::time::Instant::now().into_std();
    let mut connection = Connection::connect(now, Config::default(), 0xffff, Seq(0xffff));
    let mut syn = Vec::new();
    connection.poll_transmit(now, Batch::SINGLE, &mut syn).unwrap();
    let syn = Repr::parse(&syn).unwrap();
    let mut acceptor = Connection::accept(now, Config::default(), &syn, Seq(9));
    assert_eq!((acceptor.receive_id(), acceptor.send_id()), (0, 0xffff));
    for _ in 0..2 {
        let mut answer = Vec::new();
        acceptor.poll_transmit(now, Batch::SINGLE, &mut answer).unwrap();
        let answer = Repr::parse(&answer).unwrap();
        assert_eq!(
            (answer.kind, answer.connection_id, answer.seq, answer.ack),
            (Kind::State, 0xffff, Seq(9), Seq(0xffff))
        );
        assert!(acceptor.poll_transmit(now, Batch::SINGLE, &mut Vec::new()).is_none());
        acceptor.handle_datagram(now, &syn);
    }
    assert!(!acceptor.is_superseded_by(now, &syn));
    assert!(acceptor.is_superseded_by(now, &Repr { seq: Seq(1), ..syn }), "a peer that has started anew");
}

#[test]
fn a_message_is_one_datagram_and_a_burst_has_one_size() {
    let mut world = world(Config::default());
    world.initiator.finish = false;
    world.run(MINUTE, open);
    let now = world.now;
    let connection = &mut world.initiator.connection;
    let full = 1402 - HEADER_LEN;
    for (len, datagrams) in [(1, 1), (full, 1), (full + 1, 2)] {
        connection.write(&pattern(len, 1)).unwrap();
        let mut out = Vec::new();
        let sent = connection.poll_transmit(now, Batch { datagrams: 64, bytes: 65_507 }, &mut out).unwrap();
        assert_eq!(sent.datagrams, datagrams, "{len} bytes");
        assert_eq!(sent.segment_size, HEADER_LEN + len.min(full));
        assert_eq!(out.len(), datagrams * HEADER_LEN + len);
        // What would be more than the congestion window of two packets is acked first.
        let seq = out.chunks(sent.segment_size).last().map(|last| Repr::parse(last).unwrap().seq).unwrap();
        let ack = ack_of(seq);
        connection.handle_datagram(now, &ack);
    }
}

fn ack_of(seq: Seq) -> Repr<'static> {
    Repr {
        kind: Kind::State,
        connection_id: 7,
        timestamp: 1,
        timestamp_difference: 0,
        window: 1 << 20,
        seq: Seq(500),
        ack: seq,
        extensions: grenache::utp::wire::Extensions::NONE,
        payload: &[],
    }
}

#[test]
fn an_ack_of_what_was_never_sent_drops_the_packet() {
    let mut world = world(Config::default());
    world.initiator.finish = false;
    world.run(MINUTE, open);
    let (now, connection) = (world.now, &mut world.initiator.connection);
    let data = |ack| Repr { kind: Kind::Data, payload: b"x", ..ack_of(ack) };
    let mut out = [0];
    connection.handle_datagram(now, &data(Seq(101)));
    assert_eq!(connection.read(&mut out), Ok(None), "one ahead of the last sent");
    connection.handle_datagram(now, &data(Seq(100)));
    assert_eq!(connection.read(&mut out), Ok(Some(1)), "the last sent");
}

#[test]
fn a_loss_is_made_up_for_within_a_few_round_trips() {
    let mut world = world(Config::default());
    world.initiator.to_write = pattern(300_000, 1);
    world.drop = Some(|number, to_acceptor, _| to_acceptor && number == 40);
    finish(&mut world, MINUTE);
    assert!(world.elapsed() < Duration::from_millis(400), "{:?}: no retransmission timer", world.elapsed());
    let lost = world.log.iter().position(|line| line.contains("lost")).unwrap();
    let seq = world.log[lost - 1].split(" ack").next().unwrap().split("seq ").nth(1).unwrap();
    let again = lines(&world, &format!("seq {seq} ")).iter().filter(|line| line.contains("DATA")).count();
    assert_eq!(again, 2, "sent again once");
}

#[test]
fn rfc8985_a_lost_tail_is_probed_for() {
    for lost in [1, 10] {
        let mut world = world(Config::default());
        world.initiator.finish = false;
        world.initiator.to_write = pattern(100_000, 1);
        world.run(MINUTE, |world| world.acceptor.as_ref().is_some_and(|side| side.read.len() == 100_000));
        let began = world.now;
        // A burst of which nothing arrives, so that nothing tells.
        world.drop = Some(|_, to_acceptor, bytes| to_acceptor && kind(bytes) == Kind::Data);
        world.initiator.to_write.extend(pattern(lost * 1382, 2));
        world.run(MINUTE, |world| world.initiator.written == world.initiator.to_write.len());
        world.drop = None;
        let all = world.initiator.to_write.len();
        world.run(2 * MINUTE, |world| world.acceptor.as_ref().unwrap().read.len() == all);
        let took = world.now - began;
        assert!(took < Duration::from_millis(150), "{lost} lost, {took:?}: sooner than any timeout");
    }
}

/// libutp's selective ack tells of 32 packets: what a probe's ack is to tell must not depend on more.
#[test]
fn the_first_of_a_burst_is_found_lost_without_selective_acks() {
    let mut world = world(Config::default());
    world.initiator.finish = false;
    world.initiator.to_write = pattern(100_000, 1);
    world.run(MINUTE, |world| world.acceptor.as_ref().is_some_and(|side| side.read.len() == 100_000));
    let began = world.now;
    // The first of the next packets is lost, and then each ack that has an extension.
    world.drop = Some(|_, to_acceptor, bytes| {
        static LOST: AtomicBool = AtomicBool::new(false);
        let first = to_acceptor && kind(bytes) == Kind::Data && !LOST.swap(true, Ordering::Relaxed);
        first || !to_acceptor && bytes[1] != 0
    });
    world.initiator.to_write.extend(pattern(20 * 1382, 2));
    let all = world.initiator.to_write.len();
    world.run(2 * MINUTE, |world| world.acceptor.as_ref().unwrap().read.len() == all);
    let took = world.now - began;
    assert!(took < Duration::from_millis(150), "{took:?}: sooner than any timeout");
}

#[test]
fn rfc6298_a_dead_peer_is_tried_often_and_then_given_up() {
    let mut world = world(Config::default().give_up_after(Duration::from_secs(30)).keep_alive(None));
    world.initiator.finish = false;
    world.run(MINUTE, open);
    let began = world.now;
    world.drop = Some(|_, to_acceptor, _| to_acceptor);
    world.initiator.to_write = pattern(100, 1);
    world.run(2 * MINUTE, |world| world.initiator.closed.is_some());
    assert_eq!(world.initiator.closed, Some(Some(Error::TimedOut)));
    assert_eq!(world.now - began, Duration::from_secs(30));
    let tries = lines(&world, "DATA").len();
    // Three probes and what the timer sends, every 2 s in the end.
    assert!((17..=20).contains(&tries), "{tries}");
    assert_eq!(world.initiator.connection.write(b"x"), Err(Error::TimedOut));
    assert!(!world.initiator.connection.path_suspect(), "a small packet says nothing of the path");
}

#[test]
fn a_path_that_never_carries_full_packets_is_suspected() {
    let mut world = world(Config::default());
    world.initiator.to_write = pattern(100, 1);
    world.initiator.finish = false;
    world.run(MINUTE, open);
    world.initiator.to_write.extend(pattern(3000, 1));
    world.drop = Some(|_, _, bytes| bytes.len() > 1000);
    world.run(2 * MINUTE, |world| world.initiator.closed.is_some());
    assert_eq!(world.initiator.closed, Some(Some(Error::TimedOut)));
    assert!(world.initiator.connection.path_suspect());
}

#[test]
fn thousands_of_packets_in_flight_cross_the_wrap() {
    let config = Config::default().max_datagram(576).receive_window(8 << 20).send_buffer(8 << 20);
    let path = Path { latency: Duration::from_millis(100), ..Path::PERFECT };
    for drop in [None, Some((|number, to_acceptor, _| to_acceptor && number % 1009 == 5) as model::Loss)] {
        let mut world = World::new(1, path, config.clone(), (60_000, 65_000), 0xffff);
        world.drop = drop;
        world.initiator.to_write = pattern(8 << 20, 1);
        world.initiator.chunk = 1 << 20;
        world.acceptor_writes(pattern(1 << 20, 2), 1 << 20);
        if drop.is_none() {
            world.run(10 * MINUTE, |world| world.in_transit(true) > 3000);
            assert!(world.in_transit(true) > 3000);
        }
        finish(&mut world, 10 * MINUTE);
    }
}

#[test]
fn an_idle_connection_lives_by_keep_alives() {
    let mut world = world(Config::default().idle_timeout(Some(2 * MINUTE)));
    world.initiator.finish = false;
    world.acceptor_finish = false;
    world.run(MINUTE, open);
    world.run(30 * MINUTE, |_| false);
    assert_eq!(world.initiator.closed, None);
    let keep_alives = lines(&world, "> µTP STATE id 8 seq 101 ack 498");
    // The first 29 s after the handshake was confirmed for the last time, at 7 s.
    assert_eq!(keep_alives.len(), 61, "every 29 s, acking one packet less than arrived");
    // One side vanishes.
    world.drop = Some(|_, to_acceptor, _| !to_acceptor);
    let began = world.now;
    world.run(60 * MINUTE, |world| world.initiator.closed.is_some());
    assert_eq!(world.initiator.closed, Some(Some(Error::TimedOut)));
    assert!(world.now - began <= 2 * MINUTE && world.now - began > MINUTE);
}

#[test]
fn a_reader_that_pauses_stops_the_writer_but_not_the_connection() {
    let mut world = world(Config::default().receive_window(50_000).send_buffer(300_000));
    world.initiator.to_write = pattern(200_000, 1);
    world.run(MINUTE, open);
    world.acceptor.as_mut().unwrap().reading = false;
    world.run(10 * MINUTE, |_| false);
    assert_eq!(world.initiator.closed, None, "{}", world.log[world.log.len() - 20..].join("\n"));
    assert!(lines(&world, "win 0").len() < 200, "probes are rare");
    world.acceptor.as_mut().unwrap().reading = true;
    let began = world.now;
    finish(&mut world, 11 * MINUTE);
    assert!(world.now - began < Duration::from_secs(5), "a window update, not a probe, lets it go on");
}

#[test]
fn a_lost_window_update_is_made_up_for_by_a_probe() {
    let mut world = world(Config::default().receive_window(20_000));
    world.initiator.to_write = pattern(100_000, 1);
    world.run(MINUTE, open);
    world.acceptor.as_mut().unwrap().reading = false;
    world.run(Duration::from_secs(5), |_| false);
    world.acceptor.as_mut().unwrap().reading = true;
    world.drop = Some(|_, to_acceptor, _| !to_acceptor);
    let update = |world: &World| world.log.last().is_some_and(|line| line.contains("lost"));
    world.run(MINUTE, update);
    world.drop = None;
    finish(&mut world, 2 * MINUTE);
}

#[test]
fn either_side_may_finish_first_and_the_other_go_on() {
    for first_is_initiator in [true, false] {
        let mut world = world(Config::default());
        world.initiator.finish = false;
        world.acceptor_finish = false;
        world.run(MINUTE, open);
        let (first, second) = sides(&mut world, first_is_initiator);
        first.finish = true;
        second.to_write = pattern(100_000, 3);
        world.run(MINUTE, |_| false);
        let (first, second) = sides(&mut world, first_is_initiator);
        assert!(first.finished && second.end_of_stream && !first.end_of_stream);
        assert_eq!(first.read.len(), 100_000);
        assert_eq!(first.connection.write(b"x"), Err(Error::Finished));
        second.finish = true;
        finish(&mut world, 2 * MINUTE);
    }
}

fn sides(world: &mut World, initiator_first: bool) -> (&mut model::Side, &mut model::Side) {
    let acceptor = world.acceptor.as_mut().unwrap();
    if initiator_first { (&mut world.initiator, acceptor) } else { (acceptor, &mut world.initiator) }
}

#[test]
fn a_reset_is_known_by_either_id_and_ends_both_sides() {
    let mut world = world(Config::default());
    world.initiator.finish = false;
    world.run(MINUTE, open);
    let acceptor = &world.acceptor.as_ref().unwrap().connection;
    assert!(acceptor.takes_reset(7) && acceptor.takes_reset(8) && !acceptor.takes_reset(9));
    world.initiator.connection.reset();
    world.run(MINUTE, both_closed);
    assert_eq!(world.initiator.closed, Some(Some(Error::Aborted)));
    assert_eq!(world.acceptor.as_ref().unwrap().closed, Some(Some(Error::Reset)));
    assert_eq!(lines(&world, "RESET").len(), 1);
}

#[test]
fn a_lost_last_ack_does_not_spoil_the_end() {
    let mut world = world(Config::default());
    world.initiator.to_write = pattern(10, 1);
    world.acceptor_writes(pattern(10, 2), 10);
    // Every ack of a FIN is lost until the FIN was sent three times.
    world.drop =
        Some(|number, to_acceptor, bytes| to_acceptor && kind(bytes) == Kind::State && (4..12).contains(&number));
    finish(&mut world, MINUTE);
}

#[test]
fn a_dropped_connection_delivers_and_then_really_ends() {
    let mut world = world(Config::default());
    world.initiator.to_write = pattern(100_000, 1);
    // The peer reads everything but never finishes, as some do not.
    world.acceptor_finish = false;
    world.run(MINUTE, |world| open(world) && world.initiator.written == 100_000);
    let began = world.now;
    world.initiator.connection.orphan(world.now);
    world.run(10 * MINUTE, both_closed);
    let acceptor = world.acceptor.as_ref().unwrap();
    assert!(acceptor.read == world.initiator.to_write && acceptor.end_of_stream);
    assert_eq!(acceptor.closed, Some(Some(Error::Reset)), "it is told that nobody is there any more");
    let took = world.now - began;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
}

#[test]
fn a_dropped_connection_that_cannot_deliver_ends_with_its_linger() {
    let mut world = world(Config::default().receive_window(10_000).linger(Duration::from_secs(42)));
    world.initiator.to_write = pattern(100_000, 1);
    world.run(MINUTE, open);
    world.acceptor.as_mut().unwrap().reading = false;
    world.initiator.finish = false;
    world.run(MINUTE, |world| world.initiator.written == 100_000);
    let began: Instant = world.now;
    world.initiator.connection.orphan(world.now);
    world.run(10 * MINUTE, |world| world.initiator.closed.is_some());
    assert_eq!(world.now - began, Duration::from_secs(42));
}

proptest! {
    #[test]
    fn what_parses_encodes_to_the_same_bytes(
        first in prop::sample::select(vec![0x01u8, 0x11, 0x21, 0x31, 0x41]),
        rest in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut bytes = vec![first];
        bytes.extend(rest);
        match Repr::parse(&bytes) {
            Ok(packet) => {
                let mut again = Vec::new();
                packet.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
            Err(_) => prop_assert!(!is_utp(&bytes) || bytes[1] != 0),
        }
    }
}
