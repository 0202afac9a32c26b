//! What a link does to thousands of packets, against what theory says of its model. Seeds are fixed.

use std::time::Duration;

use super::tests::{MS, Rig, link, state};
use super::*;

const PACKETS: usize = 100_000;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

#[track_caller]
fn assert_near(what: &str, measured: f64, theory: f64, tolerance: f64) {
    assert!((measured - theory).abs() <= tolerance * theory.abs(), "{what}: {measured} where theory says {theory}");
}

/// The latencies of packets that do not meet, in milliseconds.
fn latencies(link: &Link) -> Vec<f64> {
    let mut line = state(link);
    let second = 1_000 * MS;
    let times = (0..PACKETS as u64).map(|nth| line.enter(nth * second, 100).unwrap() - nth * second);
    times.map(|ns| ns as f64 / MS as f64).collect()
}

/// The largest difference between the share of values below a point and what a distribution says (Kolmogorov–Smirnov).
fn distance(values: &[f64], below: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let differences = sorted.iter().zip(0..).map(|(value, rank)| {
        let theory = below(*value);
        (theory - f64::from(rank) / count).abs().max((theory - f64::from(rank + 1) / count).abs())
    });
    differences.fold(0.0, f64::max)
}

/// The share of a standard normal distribution below `z` (Abramowitz and Stegun, 26.2.17: to 7.5e-8).
fn phi(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// Beyond this, one in a thousand samples of a distribution is as far from it.
fn critical() -> f64 {
    1.95 / (PACKETS as f64).sqrt()
}

#[test]
fn jitter_is_uniform() {
    let values = latencies(&Link { jitter: Duration::from_millis(6), ..link() });
    assert_near("mean", mean(&values), 20.0, 0.002);
    assert_near("variance", variance(&values), 12.0_f64.powi(2) / 12.0, 0.01);
    let far = distance(&values, |ms| ((ms - 14.0) / 12.0).clamp(0.0, 1.0));
    assert!(far < critical(), "{far}");
}

#[test]
fn normal_latency_is_normal() {
    let normal = Link { jitter: Duration::from_millis(4), spread: Spread::Normal, ..link() };
    let values = latencies(&normal);
    assert_near("mean", mean(&values), 20.0, 0.002);
    assert_near("variance", variance(&values), 16.0, 0.015);
    let far = distance(&values, |ms| phi((ms - 20.0) / 4.0));
    // A sum of twelve is not quite normal: it is 0.0023 off at most.
    assert!(far < critical() + 0.002_3, "{far}");
    let near_zero = Link { latency: Duration::from_millis(2), ..normal };
    assert!(latencies(&near_zero).iter().all(|ms| *ms > 0.0), "nothing arrives before it is sent");
}

#[test]
fn a_trace_has_its_own_mean() {
    let trace: Vec<Duration> = (0..50).map(Duration::from_millis).collect();
    let values = latencies(&Link { spread: Spread::Trace(trace.into()), ..link() });
    assert_near("mean", mean(&values), 20.0 + 24.5, 1e-9);
    assert_near("variance", variance(&values), (50.0_f64.powi(2) - 1.0) / 12.0, 1e-9);
}

/// Which of a million packets are lost.
fn losses(link: &Link) -> Vec<bool> {
    let mut line = state(link);
    (0..10 * PACKETS).map(|_| line.enter(0, 100).is_err()).collect()
}

/// How long the runs of lost packets are on average.
fn run_length(lost: &[bool]) -> f64 {
    let runs = lost.windows(2).filter(|pair| pair[1] && !pair[0]).count() + usize::from(lost[0]);
    lost.iter().filter(|lost| **lost).count() as f64 / runs as f64
}

#[test]
fn independent_loss_has_no_memory() {
    let lost = losses(&Link { loss: 0.03, ..link() });
    let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
    // Four standard deviations of a binomial distribution.
    let deviation = (0.03_f64 * 0.97 / lost.len() as f64).sqrt();
    assert!((share - 0.03).abs() < 4.0 * deviation, "{share}");
    assert_near("losses in a row", run_length(&lost), 1.0 / 0.97, 0.01);
}

#[test]
fn bursts_are_as_long_and_as_frequent_as_gilbert_and_elliott_say() {
    let model = GilbertElliott { enter: 0.01, leave: 0.25, good: 0.0, bad: 1.0 };
    let lost = losses(&Link { bursts: Some(model), ..link() });
    let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
    // Four standard deviations are 5 %: packets in a row share their fate, so that there are fewer that count.
    assert_near("share", share, model.mean(), 0.05);
    assert_near("the theory itself", model.mean(), 0.01 / 0.26, 1e-12);
    assert_near("losses in a row", run_length(&lost), 1.0 / 0.25, 0.03);
    let soft = GilbertElliott { enter: 0.05, leave: 0.2, good: 0.01, bad: 0.5 };
    let lost = losses(&Link { bursts: Some(soft), ..link() });
    let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
    assert_near("share", share, (0.05 * 0.5 + 0.2 * 0.01) / 0.25, 0.05);
}

#[test]
fn duplication_and_corruption_strike_their_share() {
    let mut line = state(&Link { duplicate: 0.02, corrupt: 0.05, ..link() });
    let passages: Vec<_> = (0..PACKETS).map(|_| line.pass(0, 100, false).unwrap()).collect();
    let share = |is: fn(&Passage) -> bool| passages.iter().filter(|each| is(each)).count() as f64 / PACKETS as f64;
    assert_near("copies", share(|each| each.copy_at_ns.is_some()), 0.02, 0.1);
    assert_near("damaged", share(|each| each.damage.is_some()), 0.05, 0.06);
    let bits = passages.iter().filter_map(|each| each.damage).map(|damage| (damage.bit % 800) as f64);
    assert_near("the flipped bit", mean(&bits.collect::<Vec<_>>()), 399.5, 0.02);
    assert_near("both", share(|each| each.damage.is_some() && each.copy_at_ns.is_some()), 0.001, 0.4);
}

/// Random arrivals at a line that takes a packet of 1,250 bytes in 1 ms, with this share of its rate.
fn arrivals(load: f64) -> impl Iterator<Item = u64> {
    let mut rng = seed::stream(11, &["arrivals"]);
    let mut at = 0.0;
    std::iter::repeat_with(move || {
        let even = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        at += -(1.0 - even).ln() / load * MS as f64;
        at as u64
    })
}

fn line_of_1_ms(link: Link) -> Rig {
    state(&Link { rate: Some(10_000_000), latency: Duration::ZERO, ..link })
}

#[test]
fn a_queue_is_that_of_an_m_d_1_system() {
    for load in [0.3, 0.6, 0.8] {
        let mut line = line_of_1_ms(Link { queue: usize::MAX, ..Link::default() });
        let waits: Vec<f64> = arrivals(load)
            .take(4 * PACKETS)
            .map(|at| (line.enter(at, 1_250).unwrap() - at) as f64 / MS as f64 - 1.0)
            .collect();
        // Pollaczek and Khinchine.
        assert_near("mean wait", mean(&waits), load / (2.0 * (1.0 - load)), 0.04);
    }
}

#[test]
fn a_full_queue_lets_through_its_rate_and_drops_the_rest() {
    let mut line = line_of_1_ms(Link { queue: 12_500, ..Link::default() });
    let times: Vec<u64> = arrivals(1.5).take(PACKETS).collect();
    let end = *times.last().unwrap();
    let mut waits = Vec::new();
    for at in times {
        if let Ok(out) = line.enter(at, 1_250) {
            waits.push((out - at) as f64 / MS as f64);
        }
    }
    assert_near("rate", waits.len() as f64 / (end as f64 / MS as f64), 1.0, 0.01);
    let longest = waits.iter().copied().fold(0.0, f64::max);
    assert!((9.0..=10.0).contains(&longest), "ten packets are the queue and the line: {longest} ms");
}

#[test]
fn a_token_bucket_has_its_rate_in_the_long_run() {
    let mut line = line_of_1_ms(Link { burst: 20_000, queue: 12_500, ..Link::default() });
    let times: Vec<u64> = arrivals(1.5).take(PACKETS).collect();
    let end = *times.last().unwrap();
    let through = times.into_iter().filter(|at| line.enter(*at, 1_250).is_ok()).count();
    // The bucket is full at the beginning: 16 packets that cost no time.
    assert_near("rate", through as f64 - 16.0, end as f64 / MS as f64, 0.01);
    // Below its rate, nobody waits who would have waited on a line.
    let waits = |burst| {
        let mut line = line_of_1_ms(Link { burst, ..Link::default() });
        mean(&arrivals(0.6).take(PACKETS).map(|at| (line.enter(at, 1_250).unwrap() - at) as f64).collect::<Vec<_>>())
    };
    assert!(waits(20_000) < waits(0) / 20.0, "{} against {} ns", waits(20_000), waits(0));
}

/// A sender of 1,250 bytes at a fixed rate; when packets are dropped, and how long those that are not wait, in ms.
fn overload(discipline: Discipline, packets_per_ms: f64, seconds: u64) -> (Vec<f64>, Vec<(f64, f64)>) {
    let mut line = line_of_1_ms(Link { discipline, queue: 1 << 20, ..Link::default() });
    let (mut drops, mut waits) = (Vec::new(), Vec::new());
    for nth in 0..(packets_per_ms * 1_000.0 * seconds as f64) as u64 {
        let at = (nth as f64 / packets_per_ms * MS as f64) as u64;
        match line.enter(at, 1_250) {
            Ok(out) => waits.push((at as f64 / MS as f64, (out - at) as f64 / MS as f64 - 1.0)),
            Err(_) => drops.push(at as f64 / MS as f64),
        }
    }
    (drops, waits)
}

#[test]
fn codel_begins_after_an_interval_above_its_target_and_drops_by_its_law() {
    // A twentieth too much: packets wait 5 ms after 100 ms, and dropping begins 100 ms later.
    let mut codel = codel::CoDel::default();
    // At the head at each millisecond, always after waiting for too long.
    let drops: Vec<u64> = (0..2_000).filter(|ms| codel.drops(ms * MS, 6 * MS, 9_000)).collect();
    assert_eq!(drops[0], 100, "an interval after the first that waited for too long");
    let mut next = 100.0;
    for (count, at) in (1..).zip(&drops).take(20) {
        assert!((*at as f64 - next).abs() <= 1.0, "drop {count} at {at} ms where the law says {next}");
        next += 100.0 / f64::from(count).sqrt();
    }
    let mut short = codel::CoDel::default();
    assert!((0..2_000).all(|ms| !short.drops(ms * MS, 4 * MS, 9_000)), "waiting for 4 ms is no queue");
    let mut few = codel::CoDel::default();
    assert!((0..2_000).all(|ms| !few.drops(ms * MS, 60 * MS, 1_250)), "one packet is no queue");
}

#[test]
fn codel_holds_a_queue_near_its_target_where_drop_tail_fills_it() {
    let (_, tail) = overload(Discipline::DropTail, 1.05, 60);
    let (drops, codel) = overload(Discipline::CoDel, 1.05, 60);
    let late = |waits: &[(f64, f64)]| {
        let late: Vec<f64> = waits.iter().filter(|(at, _)| *at > 30_000.0).map(|(_, wait)| *wait).collect();
        mean(&late)
    };
    // A mebibyte at 10 Mbit/s.
    assert_near("drop-tail's wait", late(&tail), 838.9, 0.02);
    assert!(late(&codel) < 10.0, "{} ms", late(&codel));
    assert_near("what is too much is dropped", drops.len() as f64, 60_000.0 * 0.05, 0.1);
}
