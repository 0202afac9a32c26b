//! Binding lifetime: what keeps a mapping alive, and for how long.

use super::*;
use crate::scenario::model::Refresh;

#[test]
fn rfc_4787_4_3_the_refresh_direction_is_the_configured_one() {
    for refresh in [Refresh::Outbound, Refresh::Inbound, Refresh::Both] {
        for outbound in [true, false] {
            let mut rig = Rig::with(|nat| nat.refresh = refresh);
            let external = rig.out(0, HOST, SERVER).unwrap();
            match outbound {
                true => assert!(rig.out(20 * S, HOST, SERVER).is_ok()),
                false => assert!(rig.back(20 * S, SERVER, external).is_ok()),
            }
            let lives = match refresh {
                Refresh::Both => true,
                Refresh::Outbound => outbound,
                Refresh::Inbound => !outbound,
            };
            assert_eq!(rig.back(31 * S, SERVER, external).is_ok(), lives, "{refresh:?}, outbound: {outbound}");
            assert!(rig.back(62 * S, SERVER, external).is_err());
        }
    }
}

#[test]
fn what_is_filtered_keeps_nothing_alive() {
    let mut rig = Rig::with(|nat| nat.refresh = Refresh::Both);
    let external = rig.out(0, HOST, SERVER).unwrap();
    assert!(rig.back(20 * S, OTHER_HOST, external).is_err());
    assert_eq!(rig.back(30 * S, SERVER, external), Err(Rule::NoMapping(5000)));
}

#[test]
fn rfc_5382_5_tcp_has_a_lifetime_of_its_own() {
    for (protocol, lives_s) in [(Protocol::Udp, 30), (Protocol::Tcp, 600)] {
        let mut rig = Rig::with(|nat| nat.tcp_timeout = Duration::from_secs(600));
        let mut there = Headers { protocol, ..packet(HOST, SERVER) };
        rig.nat.outbound(0, &mut there, &mut rig.rng, &mut rig.notes).unwrap();
        for (now_ns, alive) in [(lives_s * S - 1, true), (lives_s * S, false)] {
            let mut back = Headers { protocol, source: there.destination, destination: there.source };
            assert_eq!(rig.nat.inbound(now_ns, &mut back, &mut rig.notes).is_ok(), alive, "{protocol:?}");
        }
    }
}

#[test]
fn rfc_4787_6_with_an_internal_source_the_turned_packet_names_its_sender() {
    for (hairpinning, source) in
        [(Hairpinning::ExternalSource, "198.51.100.10:5000"), (Hairpinning::InternalSource, HOST)]
    {
        let rig = Rig::with(|nat| nat.hairpinning = hairpinning);
        let (internal, external) = (HOST.parse().unwrap(), "198.51.100.10:5000".parse().unwrap());
        assert_eq!(rig.nat.hairpin_source(internal, external), source.parse().unwrap());
    }
}
