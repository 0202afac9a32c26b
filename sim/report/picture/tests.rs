use super::packets::{DROPPED, FIRST, LAST};
use super::series::{MAX_BINS, MAX_POINTS};
use super::*;
use crate::event::Protocol;

const FILE: &str = r#"
[nat.home]
address = "198.51.100.1"
[nat.inner]
behind = "home"
lan = "10.0.0.0/24"
[nat.cafe]
[node.laptop]
behind = "inner"
[node.tv]
behind = "home"
[node.phone]
behind = "cafe"
[node.server]
address = "203.0.113.9"
[[program]]
node = "server"
run = "grape"
dht-port = 1
api-port = 2
"#;

fn picture() -> Picture {
    Picture::new(&crate::scenario::parse("test", FILE).expect("it is a scenario"))
}

fn lane(picture: &Picture, name: &str) -> usize {
    picture.lanes().index(name).expect("it has a lane")
}

fn lab(picture: &mut Picture, at_ns: u64, at: &str, event: LabEvent) {
    picture.observe(&Record { at_ns, at: Some(at.into()), event: Event::Lab(event) });
}

fn send(picture: &mut Picture, at: u64, packet: u64, summary: &str) {
    let (source, destination) = ("10.0.0.2:5".parse().unwrap(), "203.0.113.9:6".parse().unwrap());
    let (protocol, summary) = (Protocol::Udp, summary.to_owned());
    let sent = LabEvent::PacketSent { packet, protocol, source, destination, size: 48, summary };
    lab(picture, at, "laptop", sent);
}

fn lose(picture: &mut Picture, at: u64, packet: u64, place: &str, hop: &str) {
    let (hop, rule) = (hop.to_owned(), "random loss of 2%".to_owned());
    lab(picture, at, place, LabEvent::PacketDropped { packet, hop, rule });
}

#[test]
fn who_is_behind_a_nat_stands_beside_it() {
    let picture = picture();
    let names: Vec<&str> = picture.lanes().all().iter().map(|lane| &*lane.name).collect();
    assert_eq!(names, ["phone", "cafe", "server", "home", "inner", "laptop", "tv"]);
}

#[test]
fn what_a_link_loses_was_on_its_way_to_the_next() {
    let mut picture = picture();
    for (packet, place, hop, toward) in [
        (1, "laptop", "link of laptop, up", Some("inner")),
        (2, "inner", "link of inner, down", Some("inner")),
        (3, "inner", "nat inner", Some("inner")),
    ] {
        send(&mut picture, 0, packet, "punch");
        lose(&mut picture, 1, packet, place, hop);
        let toward = toward.map(|name| lane(&picture, name));
        let kept = picture.packets().kept();
        let Some((1, Ending::Dropped { lane, lost, .. })) = &kept.last().unwrap().end else { panic!("{kept:?}") };
        assert_eq!((*lane, *lost), (toward, !hop.starts_with("nat")), "{hop}");
    }
    // Out of both NATs, it was on its way to the server.
    send(&mut picture, 0, 4, "punch");
    let (source, destination) = ("198.51.100.1:5".parse().unwrap(), "203.0.113.9:6".parse().unwrap());
    for nat in ["inner", "home"] {
        lab(&mut picture, 1, nat, LabEvent::PacketTranslated { packet: 4, source, destination });
    }
    lose(&mut picture, 2, 4, "home", "link of home, up");
    let server = lane(&picture, "server");
    let kept = picture.packets().kept();
    let last = kept.last().unwrap();
    assert_eq!(last.way.len(), 3);
    assert!(matches!(&last.end, Some((2, Ending::Dropped { lane: Some(lane), .. })) if *lane == server));
}

#[test]
fn of_many_packets_the_first_the_last_and_the_dropped_are_kept() {
    let mut picture = picture();
    let many = (FIRST + LAST + 5_000) as u64;
    for packet in 0..many {
        send(&mut picture, packet, packet, "utp DATA id=1 seq=1 ack=1 len=1");
        if packet % 3 == 0 {
            lose(&mut picture, packet, packet, "laptop", "link of laptop, up");
        } else {
            lab(&mut picture, packet, "server", LabEvent::PacketDelivered { packet });
        }
    }
    let kept = picture.packets().kept();
    assert_eq!(kept.len(), FIRST + LAST + DROPPED);
    assert_eq!((kept[0].id, kept[FIRST - 1].id), (0, FIRST as u64 - 1));
    assert_eq!(kept.last().unwrap().id, many - 1);
    assert!(kept[FIRST..FIRST + DROPPED].iter().all(|packet| packet.id % 3 == 0));
    let counts = picture.packets().counts();
    assert_eq!((counts.sent, counts.delivered + counts.dropped), (many, many));
}

#[test]
fn a_repeated_packet_is_no_goodput() {
    let mut picture = picture();
    let times = [(1, "seq=1"), (2, "seq=1"), (3, "seq=2"), (25_000_000, "seq=3")];
    for (packet, (at, seq)) in times.into_iter().enumerate() {
        send(&mut picture, at, packet as u64, &format!("utp DATA id=9 {seq} ack=1 len=100"));
        lab(&mut picture, at, "server", LabEvent::PacketDelivered { packet: packet as u64 });
    }
    send(&mut picture, 5, 9, "utp STATE id=9 seq=4 ack=1 len=0");
    lab(&mut picture, 6, "server", LabEvent::PacketDelivered { packet: 9 });
    let flows: Vec<_> = picture.goodput().flows().map(|(from, to, bytes)| (from, to, bytes.to_vec())).collect();
    assert_eq!(flows, [(lane(&picture, "laptop"), lane(&picture, "server"), vec![200, 0, 100])]);
    // A day later, time is coarser, and nothing is lost.
    let day = 86_400_000_000_000;
    send(&mut picture, day, 100, "utp DATA id=9 seq=5 ack=1 len=7");
    lab(&mut picture, day, "server", LabEvent::PacketDelivered { packet: 100 });
    let (_, _, bytes) = picture.goodput().flows().next().expect("one flow");
    assert!(bytes.len() <= MAX_BINS);
    assert_eq!((bytes[0], bytes.iter().sum::<u64>()), (300, 307));
}

#[test]
fn a_curve_has_an_end_to_its_points() {
    let mut series = Series::default();
    for at in 0..10 * MAX_POINTS as u64 {
        series.add(at * 1000, [at]);
    }
    assert!((MAX_POINTS / 4..=MAX_POINTS).contains(&series.points().len()), "{}", series.points().len());
    assert_eq!(series.points()[0], (0, [0]));
    assert!(series.points().windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(series.points().last().unwrap().0 > 9_900 * MAX_POINTS as u64, "it goes on to the end");
}

#[test]
fn mappings_and_faults_end_and_marks_are_counted() {
    let mut picture = picture();
    let (internal, external) = ("10.0.0.2:5".parse().unwrap(), "192.168.1.3:5".parse().unwrap());
    let protocol = Protocol::Udp;
    for at in 0..MAX_MAPPINGS as u64 + 3 {
        lab(&mut picture, 2 * at, "inner", LabEvent::MappingCreated { protocol, internal, external, remote: None });
        let reason = "idle for 30s".to_owned();
        lab(&mut picture, 2 * at + 1, "inner", LabEvent::MappingRemoved { protocol, internal, external, reason });
    }
    assert_eq!((picture.mappings().len(), picture.left_out().mappings), (MAX_MAPPINGS, 3));
    assert!(picture.mappings().iter().all(|mapping| mapping.to == Some(mapping.from + 1)));

    let fault = || "partition of a from b".to_owned();
    lab(&mut picture, 5, "tv", LabEvent::FaultBegan { fault: fault() });
    lab(&mut picture, 9, "tv", LabEvent::FaultEnded { fault: fault() });
    assert_eq!(picture.faults(), [Fault { text: fault(), from: 5, to: Some(9) }]);

    for _ in 0..3 {
        lab(&mut picture, 10, "tv", LabEvent::NodeCrashed);
    }
    assert_eq!(picture.marks().iter().map(|mark| mark.times).collect::<Vec<_>>(), [3]);
    for at in 0..=MAX_MARKS as u64 {
        lab(&mut picture, at, "tv", LabEvent::ProgramStarted { program: at.to_string() });
    }
    assert_eq!((picture.marks().len(), picture.left_out().marks), (MAX_MARKS, 2));
}
