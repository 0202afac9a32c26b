//! What a link does to single packets.

use std::time::Duration;

use super::*;

pub(super) const MS: u64 = 1_000_000;

pub(super) fn link() -> Link {
    Link { latency: Duration::from_millis(20), ..Link::default() }
}

/// One direction of a link, with what it draws from.
pub(super) struct Rig {
    state: LinkState,
    rng: Rng,
}

pub(super) fn state(link: &Link) -> Rig {
    Rig { state: LinkState::new(link, true, |drawn| seed::stream(7, &["link", drawn])), rng: rng() }
}

impl Rig {
    /// When an IPv4 packet comes out.
    pub(super) fn enter(&mut self, now_ns: u64, bytes: usize) -> Result<u64, Rule> {
        self.pass(now_ns, bytes, false).map(|passage| passage.at_ns)
    }

    pub(super) fn pass(&mut self, now_ns: u64, bytes: usize, is_ipv6: bool) -> Result<Passage, Rule> {
        self.state.on_packet(now_ns, Freight { bytes, is_ipv6 }, &mut self.rng)
    }
}

fn rng() -> Rng {
    seed::stream(7, &["link"])
}

#[test]
fn latency_is_exact_and_never_zero() {
    let mut plain = state(&link());
    assert_eq!(plain.enter(123_456_789, 1500), Ok(123_456_789 + 20 * MS));
    let mut none = state(&Link { latency: Duration::ZERO, ..link() });
    assert_eq!(none.enter(5, 1500), Ok(1_005));
}

#[test]
fn packets_queue_behind_each_other_at_the_rate() {
    // 1,250 bytes at 10 Mbit/s take exactly 1 ms.
    let mut line = state(&Link { rate: Some(10_000_000), ..link() });
    for nth in 1..=10 {
        assert_eq!(line.enter(0, 1_250), Ok((20 + nth) * MS));
    }
    assert_eq!(line.enter(100 * MS, 125), Ok(120 * MS + MS / 10), "an idle line starts afresh");
}

#[test]
fn a_full_queue_drops_from_the_tail() {
    let mut line = state(&Link { rate: Some(10_000_000), queue: 2_500, ..link() });
    assert_eq!(line.enter(0, 1_250), Ok(21 * MS));
    assert_eq!(line.enter(0, 1_250), Ok(22 * MS));
    assert_eq!(line.enter(0, 1), Err(Rule::QueueFull(2_500)));
    assert_eq!(line.enter(MS - 1, 1_250), Err(Rule::QueueFull(2_500)), "a byte too early");
    assert_eq!(line.enter(MS, 1_250), Ok(23 * MS), "room for it");
    let mut none = state(&Link { rate: Some(10_000_000), queue: 0, ..link() });
    assert_eq!(none.enter(0, 1_250), Ok(21 * MS), "nothing waits");
    assert_eq!(none.enter(0, 1), Err(Rule::QueueFull(0)));
}

#[test]
fn loss_and_jitter_are_as_asked() {
    let jitter = Duration::from_millis(5);
    let mut line = state(&Link { jitter, loss: 0.1, ..link() });
    let fates: Vec<_> = (0..10_000).map(|_| line.enter(0, 100)).collect();
    let lost = fates.iter().filter(|fate| **fate == Err(Rule::Loss(0.1))).count();
    assert!((900..1_100).contains(&lost), "{lost} of 10,000 lost");
    let times: Vec<u64> = fates.into_iter().flatten().collect();
    assert!(times.iter().all(|at| (15 * MS..=25 * MS).contains(at)));
    assert!(*times.iter().min().unwrap() < 15 * MS + MS / 10 && *times.iter().max().unwrap() > 25 * MS - MS / 10);
    let mean = times.iter().sum::<u64>() / times.len() as u64;
    assert!((19_900_000..20_100_000).contains(&mean), "mean {mean}");
}

#[test]
fn packets_are_lost_by_their_place() {
    let mut line = state(&Link { lose: vec![(2, 2), (4, 5)], ..link() });
    let lost: Vec<u64> = (1..=6).filter(|_| line.enter(0, 100).is_err()).collect();
    assert_eq!(lost, [2, 4, 5]);
    let mut line = state(&Link { lose: vec![(1, 1)], ..link() });
    assert_eq!(line.enter(0, 100), Err(Rule::Position(1)));
}

#[test]
fn what_does_not_fit_is_cut_or_dropped() {
    let narrow = Link { mtu: Some(576), rate: Some(8_000_000), ..link() };
    let mut dropping = state(&narrow);
    assert_eq!(dropping.enter(0, 577), Err(Rule::LargerThanLink(576)));
    assert_eq!(dropping.enter(0, 576), Ok(20 * MS + 576_000), "what fits is not cut: a byte takes a microsecond");
    let mut cutting = state(&Link { fragments: true, ..narrow.clone() });
    // 1,480 bytes of payload are 552 + 552 + 376, each with a header of its own.
    assert_eq!(cutting.enter(0, 1_500), Ok(20 * MS + 1_540_000));
    assert_eq!(cutting.pass(0, 1_500, true), Err(Rule::LargerThanLink(576)), "routers do not cut IPv6");
    // A packet is lost where any of its three fragments is.
    let mut lossy = state(&Link { fragments: true, mtu: Some(576), loss: 0.1, ..link() });
    let lost = (0..10_000).filter(|_| lossy.enter(0, 1_500).is_err()).count();
    assert!((2_590..2_830).contains(&lost), "{lost} of 10,000, where 1 − 0.9³ are 2,710");
}

#[test]
fn a_burst_goes_out_at_once_and_then_the_rate_holds() {
    // 8 Mbit/s: a byte a microsecond. The bucket is full at the beginning, and again after a while.
    let mut line = state(&Link { rate: Some(8_000_000), burst: 3_000, latency: Duration::from_millis(1), ..link() });
    for start in [0, 100 * MS] {
        for at in [0, 0, 0, 1_000, 2_000] {
            assert_eq!(line.enter(start, 1_000), Ok(start + MS + at * 1_000));
        }
    }
}

#[test]
fn none_overtakes_where_that_is_asked() {
    let jitter = Duration::from_millis(15);
    let times = |reordering| {
        let mut line = state(&Link { jitter, reordering, ..link() });
        (0..1_000_u64).map(|nth| line.enter(nth * MS, 100).unwrap()).collect::<Vec<_>>()
    };
    assert!(times(false).is_sorted());
    assert!(!times(true).is_sorted());
}

#[test]
fn a_trace_is_played_again_and_again() {
    let trace = [1, 5, 2].map(Duration::from_millis);
    let mut line = state(&Link { spread: Spread::Trace(trace.into()), ..link() });
    let times: Vec<u64> = (0..5).map(|_| line.enter(0, 100).unwrap() / MS).collect();
    assert_eq!(times, [21, 25, 22, 21, 25]);
}

#[test]
fn a_direction_may_be_another_link() {
    let slow = Link { latency: Duration::from_millis(90), ..link() };
    let link = Link { up: Some(Box::new(slow)), ..link() };
    let new = |up| LinkState::new(&link, up, |_| rng()).on_packet(0, Freight { bytes: 1, is_ipv6: false }, &mut rng());
    assert_eq!((new(true).unwrap().at_ns, new(false).unwrap().at_ns), (90 * MS, 20 * MS));
}

#[test]
fn what_one_feature_draws_changes_nothing_of_the_others() {
    let jitter = Duration::from_millis(5);
    let plain = Link { jitter, loss: 0.1, ..link() };
    let more = Link { duplicate: 0.2, corrupt: 0.2, ..plain.clone() };
    let (mut plain, mut more) = (state(&plain), state(&more));
    for nth in 0..1_000 {
        assert_eq!(plain.enter(nth, 100), more.enter(nth, 100));
    }
}
