//! Running twice finds the very event from which on two runs differ.

use std::sync::atomic::{AtomicU64, Ordering};

use grenache_sim::engine::World;
use grenache_sim::event::{Event, LabEvent, Record};
use grenache_sim::report::{Difference, lockstep};
use tokio::time::sleep;

use crate::lab::{Lab, ms, receive, send, udp};

/// Of how many datagrams is sent.
const DATAGRAMS: usize = 2_000;

/// The one whose size comes from outside of the run.
const ODD: usize = 1_234;

/// What all runs of a process share, and no run may know: a mistake that is easily made.
static SHARED: AtomicU64 = AtomicU64::new(0);

/// Pings back and forth; with `hidden`, one datagram's size depends on how often this was run before.
fn play(hidden: bool, observer: impl FnMut(&Record) + 'static) {
    let lab = Lab::new().node("a", "203.0.113.1").node("b", "203.0.113.2");
    let lab = lab.link(&["a"], ms(5), |link| (link.jitter, link.loss) = (ms(3), 0.1));
    let done = lab.sim().observe(observer).run(ms(60_000), async |world: World| {
        let (a, b) = (udp(&world, "a", 1000), udp(&world, "b", 2000));
        world.spawn("b", async move {
            loop {
                let (payload, from) = receive(&b).await;
                send(&b, from, &payload).await;
            }
        });
        for number in 0..DATAGRAMS {
            let more = if hidden && number == ODD { SHARED.fetch_add(1, Ordering::Relaxed) as usize } else { 0 };
            send(&a, "203.0.113.2:2000", &vec![0; 100 + more]).await;
            sleep(ms(2)).await;
        }
    });
    assert_eq!(done, Some(()));
}

fn twice(hidden: bool) -> Option<Difference> {
    let end = |(): &()| "ended".to_owned();
    let first = |mut ahead: grenache_sim::report::Ahead| play(hidden, move |record| ahead.observe(record));
    let second = |behind: grenache_sim::report::Behind| play(hidden, move |record| behind.observe(record));
    lockstep(first, second, end, end).2
}

#[test]
fn what_is_deterministic_does_not_differ() {
    assert_eq!(twice(false), None);
}

#[test]
fn the_first_event_that_a_hidden_state_changed_is_found() {
    // Where it is, from a run that nobody changed.
    let (log, events) = (std::rc::Rc::new(std::cell::RefCell::new(Vec::new())), std::rc::Rc::default());
    let (seen, count): (_, std::rc::Rc<std::cell::Cell<usize>>) = (log.clone(), events);
    play(false, move |record| {
        count.set(count.get() + 1);
        if matches!(&record.event, Event::Lab(LabEvent::PacketSent { .. })) && record.at.as_deref() == Some("a") {
            seen.borrow_mut().push(count.get());
        }
    });
    let expected = log.borrow()[ODD];

    let difference = twice(true).expect("they differ");
    assert_eq!(difference.event, expected);
    assert_eq!((difference.before.len(), difference.first.len(), difference.second.len()), (5, 3, 3));
    // One of the two came first to the shared state; their sizes tell which.
    let size = |lines: &[String]| serde_json::from_str::<serde_json::Value>(&lines[0]).expect("JSON")["size"].as_u64();
    let (first, second) = (size(&difference.first), size(&difference.second));
    assert_eq!(first.zip(second).map(|(a, b)| a.abs_diff(b)), Some(1), "{difference:?}");
}
