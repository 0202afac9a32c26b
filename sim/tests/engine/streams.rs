//! Randomness is keyed by who draws it: what is added to a topology changes nothing for those who were there.

use grenache_sim::engine::World;
use grenache_sim::event::{Event, LabEvent, Record};
use grenache_sim::scenario::model::PortAssignment;
use tokio::time::sleep;

use crate::lab::{Lab, ms, send, udp};

/// A host behind a NAT with random ports that sends to a server, over lossy links with jitter.
fn small() -> Lab {
    Lab::new()
        .nat_with("home", "198.51.100.1", |nat| nat.ports = PortAssignment::Random)
        .behind("home", "laptop", "192.168.1.2")
        .node("server", "203.0.113.1")
        .link(&["laptop", "home", "server"], ms(20), |link| (link.jitter, link.loss) = (ms(5), 0.2))
}

/// The same, and others: their names come before and after, and some are behind the same NAT.
fn large() -> Lab {
    small()
        .nat_with("alley", "198.51.100.2", |nat| nat.ports = PortAssignment::Random)
        .behind("alley", "a", "192.168.1.2")
        .behind("home", "zebra", "192.168.1.3")
        .node("m", "203.0.113.9")
        .link(&["a", "zebra", "m", "alley"], ms(10), |link| (link.jitter, link.loss) = (ms(5), 0.3))
}

/// What became of the packets from the laptop: of each in the order of sending, its fate and when.
fn fates(lab: &Lab, others: &[&str]) -> Vec<String> {
    let (_, records) = lab.run(async |world: World| {
        let _server = udp(&world, "server", 80);
        for node in others {
            let socket = udp(&world, node, 0);
            world.spawn(node, async move {
                loop {
                    send(&socket, "203.0.113.1:80", b"me too").await;
                    sleep(ms(3)).await;
                }
            });
        }
        let laptop = udp(&world, "laptop", 5000);
        for _ in 0..1_000 {
            send(&laptop, "203.0.113.1:80", b"hello").await;
            sleep(ms(7)).await;
        }
        sleep(ms(1_000)).await;
    });
    let mut mine = Vec::new();
    let mut told = Vec::new();
    for Record { at_ns, at, event } in &records {
        match event {
            Event::Lab(LabEvent::PacketSent { packet, .. }) if at.as_deref() == Some("laptop") => mine.push(*packet),
            Event::Lab(LabEvent::PacketTranslated { packet, source, .. }) if mine.contains(packet) => {
                told.push(format!("{at_ns} from {source}"));
            }
            Event::Lab(LabEvent::PacketDropped { packet, hop, rule }) if mine.contains(packet) => {
                told.push(format!("{at_ns} {hop}: {rule}"));
            }
            Event::Lab(LabEvent::PacketDelivered { packet }) if mine.contains(packet) => {
                told.push(format!("{at_ns} delivered"));
            }
            _ => {}
        }
    }
    told
}

#[test]
fn adding_hosts_changes_no_other_links_losses() {
    let alone = fates(&small(), &[]);
    let lost = alone.iter().filter(|fate| fate.contains("random loss")).count();
    assert!((300..700).contains(&lost), "{lost} of 1,000 are lost on three links");

    let beside = fates(&large(), &[]);
    assert!(alone == beside, "hosts that are there and do nothing");
    // Of those that share the NAT and the home's uplink the draws would be in the same streams: not these.
    let busy = fates(&large(), &["m"]);
    let until_the_shared_server = |fates: &[String]| {
        let shared = |fate: &&String| !fate.contains("link kind0 of server") && !fate.contains("delivered");
        fates.iter().filter(shared).cloned().collect::<Vec<_>>()
    };
    assert_eq!(until_the_shared_server(&alone), until_the_shared_server(&busy), "a host that sends beside it");
}

#[test]
fn another_seed_changes_them() {
    let other = Lab { seed: 7, ..small() };
    assert_ne!(fates(&small(), &[]), fates(&other, &[]));
}
