//! Which packets of a batch are acked by themselves.

use std::time::Instant;

use grenache::utp::wire::{Extensions, Kind, Repr, acked_by};
use grenache::utp::{Batch, Config, Connection, Seq};

/// The first DATA packet's number.
const FIRST: u16 = 0xfff0;

/// How many packets from one out of order on are acked one by one.
const QUICK_ACKS: u16 = 16;

fn data(number: u16) -> Repr<'static> {
    Repr {
        kind: Kind::Data,
        connection_id: 8,
        timestamp: 1,
        timestamp_difference: 0,
        window: 1 << 20,
        seq: Seq(FIRST) + number,
        ack: Seq(499),
        extensions: Extensions::NONE,
        payload: b"x",
    }
}

fn accepted(now: Instant) -> Connection {
    let syn = Repr { kind: Kind::Syn, connection_id: 7, seq: Seq(FIRST - 1), ack: Seq(0), payload: &[], ..data(0) };
    let mut connection = Connection::accept(now, Config::default(), &syn, Seq(500));
    connection.poll_transmit(now, Batch::SINGLE, &mut Vec::new()).unwrap();
    connection
}

/// Takes the packet with this number, counted from the first, and gives the ack that it gets by itself: up to which
/// number, and which after.
fn take(connection: &mut Connection, now: Instant, number: u16) -> Option<(i16, Vec<i16>)> {
    connection.handle_datagram(now, &data(number));
    let mut out = Vec::new();
    connection.poll_ack(now, &mut out)?;
    let packet = Repr::parse(&out).unwrap();
    assert_eq!(packet.kind, Kind::State);
    let number = |seq: Seq| seq.distance(Seq(FIRST));
    let sack = packet.extensions.selective_ack().map(|mask| acked_by(packet.ack, mask).map(number).collect());
    Some((number(packet.ack), sack.unwrap_or_default()))
}

#[test]
fn packets_in_order_share_an_ack() {
    let now = tokio::time::Instant::now().into_std();
    let mut connection = accepted(now);
    for number in 0..40 {
        assert_eq!(take(&mut connection, now, number), None);
    }
    let mut out = Vec::new();
    connection.poll_transmit(now, Batch::SINGLE, &mut out).unwrap();
    assert_eq!(Repr::parse(&out).unwrap().ack, Seq(FIRST) + 39);
    assert!(connection.poll_transmit(now, Batch::SINGLE, &mut out).is_none());
}

#[test]
fn rfc5681_packets_out_of_order_and_that_fill_a_gap_are_acked_by_themselves() {
    let now = tokio::time::Instant::now().into_std();
    let mut connection = accepted(now);
    assert_eq!(take(&mut connection, now, 0), None);
    assert_eq!(take(&mut connection, now, 2), Some((0, vec![2])));
    assert_eq!(take(&mut connection, now, 4), Some((0, vec![2, 4])));
    assert_eq!(take(&mut connection, now, 1), Some((2, vec![4])));
    assert_eq!(take(&mut connection, now, 3), Some((4, vec![])));
    assert!(connection.poll_transmit(now, Batch::SINGLE, &mut Vec::new()).is_none(), "each was acked already");
}

#[test]
fn packets_in_order_are_acked_one_by_one_for_a_while_after_a_gap_or_a_duplicate() {
    let now = tokio::time::Instant::now().into_std();
    let mut connection = accepted(now);
    assert_eq!(take(&mut connection, now, 0), None);
    assert_eq!(take(&mut connection, now, 0), Some((0, vec![])), "a duplicate");
    for number in 1..QUICK_ACKS {
        assert_eq!(take(&mut connection, now, number), Some((number.cast_signed(), vec![])));
    }
    assert_eq!(take(&mut connection, now, QUICK_ACKS), None);
}

#[test]
fn a_packet_that_shares_no_ack_is_acked_once() {
    let now = tokio::time::Instant::now().into_std();
    let mut connection = accepted(now);
    assert_eq!(take(&mut connection, now, 1), Some((-1, vec![1])));
    assert_eq!(connection.poll_ack(now, &mut Vec::new()), None);
}
