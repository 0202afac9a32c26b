//! Hosts: lives, tasks, crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use grenache_sim::engine::{Sim, SimError, World};
use grenache_sim::event::{Event, LabEvent};
use rand::Rng;
use tokio::time::sleep;

use crate::lab::{Lab, address, drops, ms, receive, receives, send, udp};

fn two() -> Lab {
    Lab::new().node("a", "203.0.113.1").node("b", "203.0.113.2")
}

/// Counts how many of its kind are alive.
struct Alive(Arc<AtomicU32>);

impl Alive {
    fn new(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn a_crash_drops_every_task_and_socket_and_tells_nobody() {
    let (_, records) = two().run(async |world: World| {
        let alive = Arc::new(AtomicU32::new(0));
        for _ in 0..3 {
            let (token, net) = (Alive::new(&alive), world.network("b"));
            world.spawn("b", async move {
                let inner = Alive(token.0.clone());
                inner.0.fetch_add(1, SeqCst);
                // A task of a task belongs to the host too.
                net.spawn(Box::pin(async move {
                    let _inner = inner;
                    std::future::pending().await
                }))
                .detach();
                let _token = token;
                std::future::pending().await
            });
        }
        let server = udp(&world, "b", 2000);
        let mut listener = world.network("b").listen_tcp(address("0.0.0.0:80")).await.unwrap();
        let stream = world.network("a").connect_tcp(address("203.0.113.2:80")).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        assert_eq!(alive.load(SeqCst), 6);
        let live = world.live("b");
        assert_eq!((live.tasks, live.udp_sockets, live.tcp_sockets), (6, 1, 2));
        world.crash("b");
        assert!(!world.is_up("b") && world.live("b").is_nothing());
        sleep(ms(1)).await;
        assert_eq!(alive.load(SeqCst), 0);
        drop((accepted, listener));
        // What is left of the old life does nothing.
        assert!(world.network("b").bind_udp(address("0.0.0.0:1")).is_err());
        world.spawn("b", async { panic!("it must not run") });
        let silent = std::future::poll_fn(|cx| {
            server.socket.poll_recv(cx, &mut [std::io::IoSliceMut::new(&mut [0; 9])], &mut [Default::default()])
        });
        assert!(silent.await.is_err());
        sleep(ms(1_000)).await;
        drop(stream);
    });
    let from_b = records.iter().filter(|record| record.at.as_deref() == Some("b"));
    let crashed = from_b.skip_while(|record| record.event != Event::Lab(LabEvent::NodeCrashed));
    let after: Vec<_> = crashed.skip(1).map(|record| &record.event).collect();
    assert!(after.iter().all(|event| matches!(event, Event::Lab(LabEvent::PacketDropped { .. }))), "{after:?}");
    assert!(drops(&records).iter().all(|drop| drop == "host b: host is down"));
}

#[test]
fn a_restarted_host_binds_the_same_ports_and_knows_nothing() {
    two().run(async |world: World| {
        let a = udp(&world, "a", 1000);
        for _ in 0..3 {
            let old = udp(&world, "b", 2000);
            let _listener = world.network("b").listen_tcp(address("0.0.0.0:80")).await.unwrap();
            send(&a, "203.0.113.2:2000", b"lost").await;
            sleep(ms(1)).await;
            world.crash("b");
            world.start("b");
            let new = udp(&world, "b", 2000);
            drop(old);
            // The one in flight finds the new socket; what waited in the old one is gone.
            assert!(receives(&new).await);
            assert!(!receives(&new).await);
            world.crash("b");
            world.start("b");
        }
    });
}

#[test]
fn a_host_may_crash_itself() {
    two().run(async |world: World| {
        let (inner, alive) = (world.clone(), Arc::new(AtomicU32::new(0)));
        let token = Alive::new(&alive);
        world.spawn("a", async move {
            let _token = token;
            inner.crash("a");
            inner.start("a");
            sleep(ms(1)).await;
            panic!("it runs on after its crash");
        });
        sleep(ms(10)).await;
        assert_eq!(alive.load(SeqCst), 0);
        assert!(world.is_up("a"));
    });
}

#[test]
fn a_panic_in_a_task_is_the_runs() {
    let panicked = std::panic::catch_unwind(|| {
        two().sim().run(Duration::from_secs(10), async |world| {
            world.spawn("a", async {
                sleep(ms(5)).await;
                panic!("five is right out");
            });
            std::future::pending::<()>().await
        })
    });
    let message = panicked.unwrap_err();
    assert_eq!(message.downcast_ref::<&str>(), Some(&"five is right out"));
    // The thread can simulate again.
    assert_eq!(two().sim().run(Duration::from_secs(1), async |_| 7), Some(7));
}

#[test]
fn the_limit_ends_a_run_at_its_time() {
    let last = Arc::new(std::sync::Mutex::new(Duration::ZERO));
    let seen = last.clone();
    let result = two().sim().run(ms(1_500), async move |world| {
        loop {
            *seen.lock().unwrap() = world.now();
            sleep(ms(100)).await;
        }
    });
    assert_eq!(result, None::<()>);
    assert_eq!(*last.lock().unwrap(), ms(1_500));
    // Nothing is going to happen at all: time passes all the same.
    assert_eq!(two().sim().run(Duration::MAX, async |_| std::future::pending::<()>().await), None);
}

#[test]
fn random_streams_are_the_hosts_own_and_differ_from_life_to_life() {
    let draw = |seed, nodes: &[(&str, &str)]| {
        let lab = nodes.iter().fold(Lab { seed, ..Lab::new() }, |lab, (name, address)| lab.node(name, address));
        let (drawn, _) = lab.run(async |world: World| {
            let draw = |name| world.network("a").rng(name).next_u64();
            let mut drawn = vec![draw("x"), draw("x"), draw("y")];
            world.crash("a");
            world.start("a");
            drawn.push(world.network("a").rng("x").next_u64());
            drawn
        });
        drawn
    };
    let drawn = draw(1, &[("a", "203.0.113.1")]);
    assert_eq!(drawn.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert_eq!(drawn, draw(1, &[("0", "203.0.113.9"), ("a", "203.0.113.1")]));
    assert_ne!(drawn, draw(2, &[("a", "203.0.113.1")]));
}

#[test]
fn a_hundred_idle_hosts_cost_nothing() {
    let lab = (1..=100).fold(Lab::new(), |lab, nth| lab.node(&format!("host{nth:03}"), &format!("203.0.113.{nth}")));
    let (polls, _) = lab.run(async |world: World| {
        let polls = Arc::new(AtomicU32::new(0));
        for nth in 1..=100 {
            let name = format!("host{nth:03}");
            let (socket, polls) = (udp(&world, &name, 1000), polls.clone());
            world.spawn(&name, async move {
                loop {
                    polls.fetch_add(1, SeqCst);
                    receive(&socket).await;
                }
            });
        }
        sleep(Duration::from_secs(3_599)).await;
        polls.load(SeqCst)
    });
    assert_eq!(polls, 100, "nobody is woken for nothing");
}

#[test]
fn a_topology_that_does_not_hold_together_is_refused() {
    let refused = |lab: Lab| Sim::new(1, &lab.nats, &lab.links, &lab.nodes).unwrap_err().to_string();
    let mut unlinked = two();
    unlinked.nodes.get_mut("a").unwrap().link = Some("dsl".into());
    let mut looped = Lab::new().nat("home", "192.168.1.1");
    looped.nats.get_mut("home").unwrap().behind = Some("home".into());
    for (lab, message) in [
        (unlinked, "node a names the link dsl, which is not defined: define it, or correct the name"),
        (
            two().behind("home", "c", "192.168.1.2"),
            "node c names the nat home, which is not defined: define it, or correct the name",
        ),
        (two().node("c", "203.0.113.2"), "node c has the address 203.0.113.2 of node b: give it another one"),
        (
            Lab::new().nat("home", "198.51.100.1").behind("home", "c", "10.0.0.1"),
            "node c is behind the nat home, but its address 10.0.0.1 is not in 192.168.1.0/24: give it one that is",
        ),
        (looped, "the nat home is behind itself: name another one, or none"),
    ] {
        assert_eq!(refused(lab), message);
    }
    let nobody = BTreeMap::new();
    assert!(matches!(Sim::new(1, &BTreeMap::new(), &BTreeMap::new(), &nobody), Ok(_) | Err(SimError::Cycle { .. })));
}
