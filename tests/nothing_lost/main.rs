//! Nothing is lost: whatever goes wrong, each request ends exactly once, in its own reply, an error from the peer, an
//! error of the transport or a timeout at its deadline; and when all is dropped, nothing is left.
//!
//! The default run has the same cases each time. `PROPTEST_CASES=10000` (and `PROPTEST_RNG_SEED`) ask for others.

mod case;
mod faulty;
mod lab;

use std::collections::BTreeMap;
use std::time::Duration;

use grenache::event::Event;
use grenache::rpc::RpcError;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::Value;

use case::{Answer, Case, SERVERS, case};
use lab::{Fate, Shown, pad};

/// How exact a deadline is.
const TOLERANCE: Duration = Duration::from_millis(5);

/// How often requests ended in which way.
#[derive(Debug, Default)]
struct Ends(BTreeMap<&'static str, usize>);

fn config() -> ProptestConfig {
    let asked_for = std::env::var_os("PROPTEST_CASES").is_some();
    let fixed = ProptestConfig { rng_seed: RngSeed::Fixed(4), cases: 96, ..ProptestConfig::default() };
    let base = if asked_for { ProptestConfig::default() } else { fixed };
    ProptestConfig { failure_persistence: None, max_shrink_iters: 400, ..base }
}

#[test]
fn each_request_ends_exactly_once_and_nothing_is_left() {
    let ends = std::cell::RefCell::new(Ends::default());
    let result = TestRunner::new(config()).run(&case(), |case| {
        let shown = lab::run(&case);
        judge(&case, &shown, &mut ends.borrow_mut())
    });
    let ends = ends.into_inner();
    if let Err(error) = result {
        panic!("{error}");
    }
    // What never happened has not been tested.
    for kind in ["reply", "error", "timeout", "transport", "lookup", "cancelled", "orphaned", "repeated"] {
        assert!(ends.0.contains_key(kind), "no request ended in {kind}: {ends:?}");
    }
    // For who asked for cases of their own, with `--nocapture`.
    eprintln!("{ends:?}");
}

/// Without faults every request that is given the time is answered.
#[test]
fn without_faults_every_request_is_answered() {
    let quiet = case().prop_map(|mut case| {
        case.faults.clear();
        case.path.loss = case.path.loss.min(5);
        for (nth, ask) in case.asks.iter_mut().enumerate() {
            (ask.timeout, ask.cancel) = (Duration::from_secs(30), None);
            // One attempt to connect in a thousand loses all its SYNs or their answers.
            ask.retries = ask.retries.max(3);
            // A lookup has three tries of a second each, which losses may take.
            ask.to = ask.to.or((case.path.loss > 0).then_some(nth % SERVERS));
        }
        case
    });
    let config = ProptestConfig { cases: config().cases / 4, ..config() };
    let result = TestRunner::new(config).run(&quiet, |case| {
        let shown = lab::run(&case);
        let mut ends = Ends::default();
        judge(&case, &shown, &mut ends)?;
        let answered = ends.0.get("reply").unwrap_or(&0) + ends.0.get("error").unwrap_or(&0);
        prop_assert_eq!(answered, case.asks.len(), "{:?}", shown.fates);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn judge(case: &Case, shown: &Shown, ends: &mut Ends) -> Result<(), TestCaseError> {
    let mut count = |kind| *ends.0.entry(kind).or_default() += 1;
    for (nth, ask) in case.asks.iter().enumerate() {
        let none = Vec::new();
        let fates = shown.fates.get(&nth).unwrap_or(&none);
        if shown.orphaned.contains(&nth) {
            prop_assert!(fates.is_empty(), "request {} of a crashed client ended in {:?}", nth, fates);
            count("orphaned");
            continue;
        }
        prop_assert_eq!(fates.len(), 1, "request {} ended in {:?}", nth, fates);
        let handled: Vec<_> = shown.handled.iter().filter(|handled| handled.ask == nth).collect();
        prop_assert!(handled.len() <= 1 + ask.retries as usize, "request {} handled {} times", nth, handled.len());
        prop_assert!(handled.iter().all(|handled| handled.intact), "request {} arrived changed", nth);
        if handled.len() > 1 {
            count("repeated");
        }
        let Fate::Ended(result, took) = &fates[0] else {
            count("cancelled");
            continue;
        };
        prop_assert!(*took <= ask.timeout + TOLERANCE, "request {} took {:?}: {:?}", nth, took, result);
        match result {
            Ok(value) => {
                count("reply");
                let server = value["server"].as_u64().unwrap_or(u64::MAX) as usize;
                prop_assert_eq!(ask.answer, Answer::Result);
                prop_assert!(value["ask"] == nth && value["pad"] == pad(nth, ask.sizes.1), "another's reply: {}", nth);
                prop_assert!(handled.iter().any(|handled| handled.server == server), "nobody handled {}", nth);
                prop_assert!(ask.to.is_none_or(|to| to == server), "{} was answered by {}", nth, server);
            }
            Err(RpcError::Remote(message)) => {
                count("error");
                prop_assert!(ask.answer != Answer::Result, "request {} ended in {}", nth, message);
                prop_assert_eq!(message, &format!("ERR_ASKED_{nth}"));
                prop_assert!(!handled.is_empty(), "nobody handled {}", nth);
            }
            Err(RpcError::Timeout) => {
                count("timeout");
                prop_assert!(*took + TOLERANCE >= ask.timeout, "request {} timed out after {:?}", nth, took);
            }
            Err(RpcError::Link(_)) => {
                count("lookup");
                prop_assert!(ask.to.is_none());
            }
            Err(error) => {
                count("transport");
                prop_assert!(error.is_transport(), "request {} ended in {}", nth, error);
                prop_assert!(!matches!(error, RpcError::Transport(_)), "request {} ended in {}", nth, error);
            }
        }
    }
    // The events tell the same.
    let mut sent: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ended: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &shown.client_events {
        match event {
            Event::RequestSent { rid, .. } => *sent.entry(rid).or_default() += 1,
            Event::ReplyReceived { rid, .. } | Event::RequestFailed { rid, .. } => *ended.entry(rid).or_default() += 1,
            _ => {}
        }
    }
    prop_assert!(ended.values().all(|&times| times == 1), "ended more than once: {:?}", ended);
    let reported = shown.fates.values().flatten().filter(|fate| matches!(fate, Fate::Ended(..))).count();
    prop_assert_eq!(ended.len(), reported);
    let most = case.asks.iter().map(|ask| ask.retries).max().unwrap_or(0) as usize;
    for handled in &shown.handled {
        let sent = sent.get(handled.rid.as_str()).copied().unwrap_or(0);
        prop_assert!((1..=1 + most).contains(&sent), "{:?} was sent {} times", handled, sent);
    }
    // Whatever went wrong is forgotten once it is over.
    let served = shown.afterwards.iter().filter(|answer| **answer == Ok(Value::Null)).count();
    prop_assert!(case.path.loss > 5 || served == SERVERS, "afterwards: {:?}", shown.afterwards);
    prop_assert_eq!(shown.pooled, 0, "connections in the pool after the inactivity timeout");
    prop_assert!(shown.left.is_empty(), "left: {:?}", shown.left);
    Ok(())
}
