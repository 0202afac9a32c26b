//! Static translation, static forwards, and forwards that hosts ask for.

use super::*;
use crate::probe::nat_pmp::{Granted, Refusal, Request, Response};
use crate::scenario::model::{Forward, NatPmp};

const SECOND: Duration = Duration::from_secs(1);

fn forwarding() -> Rig {
    Rig::with(|nat| {
        let to = HOST.parse().unwrap();
        nat.forwards = vec![Forward { protocol: Protocol::Udp, port: 80, to }];
        nat.mapping = AddressAndPortDependent;
    })
}

#[test]
fn a_static_forward_lets_everybody_in_and_answers_leave_with_its_port() {
    let mut rig = forwarding();
    let public = "198.51.100.10:80".parse().unwrap();
    for now_s in [0, 10_000_000] {
        assert_eq!(rig.back(now_s * S, OTHER_HOST, public), Ok(HOST.parse().unwrap()));
        assert_eq!(rig.out(now_s * S, HOST, OTHER_HOST), Ok(public), "whatever the mapping");
        assert_eq!(rig.out(now_s * S, HOST, SERVER), Ok(public));
    }
    assert_eq!(rig.out(0, "192.168.1.3:80", SERVER).unwrap().port(), 1024, "the port is taken");
    rig.nat.rebind(0, &mut rig.notes);
    assert_eq!(rig.back(0, OTHER_HOST, public), Ok(HOST.parse().unwrap()), "it is configured, and not forgotten");
    let mut tcp = Headers { protocol: Protocol::Tcp, ..packet(OTHER_HOST, "198.51.100.10:80") };
    assert_eq!(rig.nat.inbound(0, &mut tcp, &mut rig.notes), Err(Rule::NoMapping(80)), "UDP's only");
}

#[test]
fn one_to_one_translation_keeps_every_port_and_filters_nothing() {
    let mut rig = Rig::with(|nat| {
        let pair = |internal: &str, public: &str| (internal.parse().unwrap(), public.parse().unwrap());
        nat.one_to_one = [pair("192.168.1.2", "198.51.100.10"), pair("192.168.1.3", "198.51.100.11")].into();
        nat.more_addresses = vec!["198.51.100.11".parse().unwrap()];
        nat.hairpinning = Hairpinning::ExternalSource;
    });
    assert_eq!(rig.back(0, SERVER, "198.51.100.11:7".parse().unwrap()), Ok("192.168.1.3:7".parse().unwrap()));
    assert_eq!(rig.out(0, HOST, SERVER), Ok("198.51.100.10:5000".parse().unwrap()));
    assert_eq!(rig.out(0, "192.168.1.4:5000", SERVER), Err(Rule::NoPublicAddress));
    assert_eq!(rig.notes, [], "there are no mappings");
    let mut turned = packet(HOST, "198.51.100.11:9");
    assert_eq!(rig.nat.outbound(0, &mut turned, &mut rig.rng, &mut rig.notes), Ok(true));
    assert_eq!(rig.nat.inbound(0, &mut turned, &mut rig.notes), Ok(()));
    assert_eq!(
        (turned.source.to_string(), turned.destination.to_string()),
        ("198.51.100.10:5000".into(), "192.168.1.3:9".into())
    );
}

fn pmp(per_host: u32) -> Rig {
    Rig::with(|nat| nat.nat_pmp = Some(NatPmp { per_host, lifetime: 600 * SECOND }))
}

fn ask(rig: &mut Rig, now_ns: u64, internal: &str, external_port: u16, lifetime: Duration) -> Response {
    let from: SocketAddrV4 = internal.parse().unwrap();
    let request = Request::Forward { protocol: Protocol::Udp, internal_port: from.port(), external_port, lifetime };
    let bytes = request.encode();
    let sender = SocketAddrV4::new(*from.ip(), 40_000);
    let answer = rig.nat.on_request(now_ns, sender, &bytes, &mut rig.rng, &mut rig.notes).unwrap();
    Response::parse(&answer, &request).unwrap()
}

fn granted(response: Response) -> (u16, Duration) {
    match response.result {
        Ok(Granted::Forward { external_port, lifetime, .. }) => (external_port, lifetime),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc_6886_3_3_a_forward_that_was_asked_for_lives_its_lifetime_and_is_renewed() {
    let mut rig = pmp(8);
    let public = "198.51.100.10:8000".parse().unwrap();
    assert_eq!(rig.back(0, SERVER, public), Err(Rule::NoMapping(8000)));
    assert_eq!(granted(ask(&mut rig, 0, HOST, 8000, 100 * SECOND)), (8000, 100 * SECOND));
    assert_eq!(rig.back(99 * S, OTHER_HOST, public), Ok(HOST.parse().unwrap()), "whatever the filtering");
    assert_eq!(rig.out(99 * S, HOST, OTHER_HOST), Ok(public));
    // Packets do not renew it, asking does; the port stays, whichever is asked for.
    assert_eq!(granted(ask(&mut rig, 99 * S, HOST, 9000, 5000 * SECOND)), (8000, 600 * SECOND), "the NAT's longest");
    assert!(rig.back(698 * S, OTHER_HOST, public).is_ok());
    rig.notes.clear();
    assert_eq!(rig.back(699 * S, OTHER_HOST, public), Err(Rule::NoMapping(8000)));
    assert!(matches!(&rig.notes[..], [Note::ForwardRemoved { reason, .. }] if reason == "its lifetime is over"));
}

#[test]
fn rfc_6886_3_3_a_taken_port_gives_another_one_and_a_hosts_own_mapping_gives_way() {
    let mut rig = pmp(8);
    rig.out(0, "192.168.1.3:8000", SERVER).unwrap();
    let (port, _) = granted(ask(&mut rig, 0, HOST, 8000, 100 * SECOND));
    assert_eq!(port, 5000, "as ports are preserved");
    let mut rig = pmp(8);
    assert_eq!(rig.out(0, HOST, SERVER).unwrap().port(), 5000);
    assert_eq!(granted(ask(&mut rig, 0, HOST, 5000, 100 * SECOND)).0, 5000);
    assert!(rig.back(0, OTHER_HOST, "198.51.100.10:5000".parse().unwrap()).is_ok());
}

#[test]
fn a_host_has_as_many_forwards_as_it_may() {
    let mut rig = pmp(2);
    for port in [1, 2] {
        assert!(ask(&mut rig, 0, &format!("192.168.1.2:{port}"), 0, 100 * SECOND).result.is_ok());
    }
    assert_eq!(ask(&mut rig, 0, "192.168.1.2:3", 0, 100 * SECOND).result, Err(Refusal::OutOfResources));
    assert!(ask(&mut rig, 0, "192.168.1.2:2", 0, 100 * SECOND).result.is_ok(), "a renewal is no new one");
    assert!(ask(&mut rig, 0, "192.168.1.3:3", 0, 100 * SECOND).result.is_ok(), "another host's");
}

#[test]
fn rfc_6886_3_4_a_host_ends_its_forwards_and_nobody_elses() {
    let mut rig = pmp(8);
    for host in ["192.168.1.2:1", "192.168.1.2:2", "192.168.1.2:3", "192.168.1.3:4"] {
        ask(&mut rig, 0, host, 0, 100 * SECOND);
    }
    rig.notes.clear();
    assert_eq!(granted(ask(&mut rig, 1, "192.168.1.2:1", 0, Duration::ZERO)), (0, Duration::ZERO));
    assert_eq!(rig.notes.len(), 1);
    ask(&mut rig, 1, "192.168.1.2:0", 0, Duration::ZERO);
    assert_eq!(rig.notes.len(), 3, "port 0 is all of the host's");
    assert!(
        rig.notes
            .iter()
            .all(|note| matches!(note, Note::ForwardRemoved { internal, .. } if internal.ip().octets()[3] == 2))
    );
}

#[test]
fn rfc_6886_3_6_the_epoch_begins_anew_when_the_nat_forgets() {
    let mut rig = pmp(8);
    assert_eq!(ask(&mut rig, 100 * S, HOST, 0, 100 * SECOND).epoch, 100);
    rig.nat.rebind(150 * S, &mut rig.notes);
    let again = ask(&mut rig, 160 * S, HOST, 5000, 100 * SECOND);
    assert_eq!((again.epoch, granted(again).0), (10, 5000), "a port that is asked for comes back, unlike others");
    let request = [0, 0];
    let answer = rig.nat.on_request(160 * S, HOST.parse().unwrap(), &request, &mut rig.rng, &mut rig.notes).unwrap();
    assert_eq!(answer, [0, 128, 0, 0, 0, 0, 0, 10, 198, 51, 100, 10], "3.2: the public address");
    assert_eq!(rig.nat.on_request(0, HOST.parse().unwrap(), &[2, 1], &mut rig.rng, &mut rig.notes).unwrap()[3], 1);
}
