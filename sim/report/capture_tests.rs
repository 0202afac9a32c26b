use pcap_file::pcapng::Block;
use pcap_file::pcapng::PcapNgReader;

use super::*;
use crate::backend::{self, On, RunOptions, Spectator};
use crate::scenario;

/// A scenario's capture, kept in memory.
struct Spy(std::rc::Rc<std::cell::RefCell<Option<Capture<Vec<u8>>>>>);

impl Spectator for Spy {
    fn event(&mut self, record: &Record) {
        self.0.borrow_mut().iter_mut().for_each(|capture| capture.event(record));
    }
    fn packet(&mut self, sighting: &Sighting) {
        self.0.borrow_mut().iter_mut().for_each(|capture| capture.packet(sighting));
    }
    fn wants_packets(&self) -> bool {
        true
    }
}

/// What a packet in a capture is: its interface, its comment, when, its bytes.
type Seen = (u32, String, Duration, Vec<u8>);

fn capture(name: &str, max_held: usize) -> (Vec<String>, Vec<Seen>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(name).with_extension("toml");
    let scenario = scenario::load(&path).expect("it is a scenario");
    let mut capture = Capture::new(Vec::new(), &scenario).expect("a Vec takes all");
    capture.max_held = max_held;
    let shared = std::rc::Rc::new(std::cell::RefCell::new(Some(capture)));
    let options = RunOptions { seed: 1, on: On::Sim };
    backend::watch(&scenario, &options, Spy(shared.clone())).expect("it runs");
    let bytes = shared.take().expect("it is there").finish().expect("a Vec takes all");
    let mut reader = PcapNgReader::new(&bytes[..]).expect("it is pcapng");
    let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.expect("blocks are whole") {
            Block::InterfaceDescription(block) => {
                let name = block.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                interfaces.push(name.expect("each has a name"));
            }
            Block::EnhancedPacket(block) => {
                let comment = block.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                    _ => None,
                });
                let comment = comment.expect("each has a comment");
                packets.push((block.interface_id, comment, block.timestamp, block.data.to_vec()));
            }
            other => panic!("{other:?} has no place here"),
        }
    }
    (interfaces, packets)
}

#[test]
fn each_side_has_an_interface_and_each_packet_its_fate() {
    let (interfaces, packets) = capture("broker-both-nat", MAX_HELD);
    for side in ["server", "phone", "home (inside)", "home (outside)"] {
        assert!(interfaces.iter().any(|name| name == side), "{side} is not in {interfaces:?}");
    }
    assert!(packets.windows(2).all(|pair| pair[0].2 <= pair[1].2), "they are in the order of time");
    let comments: Vec<&str> = packets.iter().map(|(_, comment, ..)| comment.as_str()).collect();
    for part in ["delivered to phone", ": filtered: nothing was sent", "; translated to ", " > ", " later"] {
        let part = part.trim_start_matches("; ");
        assert!(comments.iter().any(|comment| comment.contains(part)), "{part:?} is in no comment");
    }
    let known =
        |comment: &&str| ["delivered to ", "dropped at ", "on its way when"].iter().any(|f| comment.contains(f));
    assert!(comments.iter().all(|comment| comment.starts_with("packet ")));
    assert_eq!(comments.iter().filter(|comment| !known(comment)).count(), 0);
}

#[test]
fn what_is_held_is_bounded() {
    let (_, all) = capture("broker-both-nat", MAX_HELD);
    let (_, packets) = capture("broker-both-nat", 4 * (1500 + OVERHEAD));
    let early = packets.iter().filter(|(_, comment, ..)| comment.ends_with("not known")).count();
    assert!(early > 0, "some were written before their fate was known");
    assert!(early < packets.len());
    let bytes =
        |packets: &[Seen]| packets.iter().map(|(side, _, at, bytes)| (*side, *at, bytes.clone())).collect::<Vec<_>>();
    assert_eq!(bytes(&all), bytes(&packets), "nothing but comments is lost");
}
