//! The same topology, seed and programs give the same events.

use grenache::event::Event as StackEvent;
use grenache_sim::engine::World;
use grenache_sim::event::{Event, LabEvent};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::lab::{Lab, address, lines, ms, receive, send, udp};

/// Traffic of every kind, with timers, timeouts, randomness, faults and tasks that end at odd times.
fn busy(seed: u64) -> Vec<String> {
    let lab = Lab::new()
        .nat("east", "198.51.100.1")
        .nat_with("west", "198.51.100.2", |nat| {
            nat.ports = grenache_sim::scenario::model::PortAssignment::Random;
        })
        .behind("east", "a", "192.168.1.2")
        .behind("west", "b", "192.168.1.2")
        .node("server", "203.0.113.1")
        .link(&["a", "b", "server"], ms(30), |link| {
            (link.jitter, link.loss, link.rate) = (ms(10), 0.05, Some(2_000_000));
        });
    let (_, records) = Lab { seed, ..lab }.run(async |world: World| {
        let server = udp(&world, "server", 80);
        world.spawn("server", async move {
            loop {
                let (payload, from) = receive(&server).await;
                send(&server, from, &payload).await;
            }
        });
        let net = world.network("server");
        let mut listener = net.listen_tcp(address("0.0.0.0:80")).await.unwrap();
        world.spawn("server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                net.spawn(Box::pin(async move {
                    let _ = stream.write_all(&[7; 5_000]).await;
                }))
                .detach();
            }
        });
        for node in ["a", "b"] {
            let (socket, net) = (udp(&world, node, 0), world.network(node));
            let mut rng = net.rng("program");
            world.spawn(node, async move {
                for _ in 0..30 {
                    let size = rng.next_u32() as usize % 1_400;
                    send(&socket, "203.0.113.1:80", &vec![1; size]).await;
                    let wait = ms(u64::from(rng.next_u32() % 120));
                    if timeout(wait, receive(&socket)).await.is_err() {
                        net.emit(StackEvent::PunchSent { to: address("203.0.113.1:80") });
                        sleep(wait).await;
                    }
                    if rng.next_u32() % 8 == 0
                        && let Ok(mut stream) = net.connect_tcp(address("203.0.113.1:80")).await
                    {
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    }
                }
            });
        }
        sleep(ms(1_000)).await;
        world.rebind("west");
        let partition = world.partition(&["a".into()], &["server".into()]);
        sleep(ms(500)).await;
        world.heal(partition);
        world.crash("b");
        sleep(ms(500)).await;
        world.start("b");
        sleep(ms(10_000)).await;
    });
    lines(&records)
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let first = busy(1);
    assert!(first.len() > 300, "{} events", first.len());
    assert!(first == busy(1));
    assert!(first == std::thread::spawn(|| busy(1)).join().unwrap(), "on another thread");
    assert!(first != busy(2));
}

#[test]
fn events_are_in_the_order_of_time_and_sums_work_out() {
    let mut last = 0;
    let (mut sent, mut ended) = (0, 0);
    for line in busy(3) {
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        let at = record["at_ns"].as_u64().unwrap();
        assert!(at >= last, "{line}");
        last = at;
        match record["event"].as_str().unwrap() {
            "packet-sent" => sent += 1,
            "packet-delivered" | "packet-dropped" => ended += 1,
            _ => {}
        }
    }
    assert_eq!(sent, ended, "every packet has one fate");
}

#[test]
fn an_observer_sees_everything_at_its_time_and_may_act() {
    let arrived = std::rc::Rc::new(tokio::sync::Notify::new());
    let (notify, seen) = (arrived.clone(), std::rc::Rc::new(std::cell::RefCell::new(Vec::new())));
    let (log, world_of_observer) = (seen.clone(), std::rc::Rc::new(std::cell::OnceCell::<World>::new()));
    let world_of_main = world_of_observer.clone();
    let lab = Lab::new().node("a", "203.0.113.1").node("b", "203.0.113.2");
    let lab = lab.link(&["a"], std::time::Duration::from_nanos(333_333), |_| {});
    let sim = lab.sim().observe(move |record| {
        log.borrow_mut().push(record.clone());
        let stack = matches!(record.event, Event::Stack(_));
        if let Event::Lab(LabEvent::PacketDropped { .. }) = record.event {
            notify.notify_one();
            // What an observer records comes after what it saw.
            let event = Event::Stack(StackEvent::PunchSent { to: address("203.0.113.9:9") });
            world_of_observer.get().unwrap().record(Some("b"), event);
        }
        assert!(!stack || record.at.as_deref() == Some("b"));
    });
    let woken = sim.run(ms(1_000), async |world: World| {
        world_of_main.set(world.clone()).unwrap();
        let a = udp(&world, "a", 1000);
        send(&a, "203.0.113.2:9", b"nobody is there").await;
        // Nothing else is going to happen in this run: the observer's word is what wakes this.
        arrived.notified().await;
        world.now()
    });
    assert_eq!(woken, Some(std::time::Duration::from_nanos(1_333_333)));
    let seen = seen.borrow();
    let last: Vec<_> = seen.iter().rev().take(2).map(|record| record.at_ns).collect();
    assert_eq!(last, [1_333_333, 1_333_333]);
    assert!(matches!(seen.last().unwrap().event, Event::Stack(_)));
}
