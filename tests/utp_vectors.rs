//! Packets recorded from libutp parse, mean what they should, and encode to the same bytes.

use grenache::utp::Seq;
use grenache::utp::wire::{Kind, Packet, Repr, acked_by, is_utp};
use serde_json::Value;

fn vectors() -> Vec<(String, Vec<u8>)> {
    let file: Value = serde_json::from_str(include_str!("vectors/utp_rpc_http.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    vectors
        .iter()
        .map(|vector| {
            let name = vector["name"].as_str().unwrap().to_owned();
            (name, hex::decode(vector["hex"].as_str().unwrap()).unwrap())
        })
        .collect()
}

fn vector(name: &str) -> Vec<u8> {
    vectors().into_iter().find(|(found, _)| found == name).unwrap().1
}

#[test]
fn every_recorded_packet_encodes_to_the_same_bytes() {
    let mut packets = 0;
    for (name, bytes) in vectors() {
        let expected = name.starts_with("utp_") || name.starts_with("rpc_");
        assert_eq!(is_utp(&bytes), expected, "{name}");
        if !expected {
            continue;
        }
        packets += 1;
        let mut again = Vec::new();
        Packet::new_checked(&bytes).unwrap().repr().encode(&mut again);
        assert_eq!(hex::encode(again), hex::encode(&bytes), "{name}");
    }
    assert_eq!(packets, 19);
}

#[test]
fn recorded_packets_read_like_a_dump() {
    let dump: Vec<_> =
        vectors().iter().filter_map(|(name, bytes)| Some(format!("{name}: {}", Repr::parse(bytes).ok()?))).collect();
    insta::assert_snapshot!(dump.join("\n"));
}

#[test]
fn the_recorded_handshake_numbers_packets_as_libutp_does() {
    let (syn, syn_ack) = (vector("utp_syn"), vector("utp_syn_ack"));
    let (request, reply) = (vector("rpc_request"), vector("rpc_reply"));
    let [syn, syn_ack, request, reply] = [&syn, &syn_ack, &request, &reply].map(|bytes| Repr::parse(bytes).unwrap());
    assert_eq!(syn.kind, Kind::Syn);
    assert_eq!(syn_ack.connection_id, syn.connection_id);
    assert_eq!(request.connection_id, syn.connection_id + 1);
    assert_eq!(request.ack, syn_ack.seq - 1, "a SYN-ACK takes no number");
    assert_eq!(reply.seq, syn_ack.seq, "the first DATA has it");
}

#[test]
fn recorded_selective_acks_name_the_packet_after_the_gap() {
    for name in ["utp_sack", "utp_sack2"] {
        let bytes = vector(name);
        let packet = Repr::parse(&bytes).unwrap();
        let mask = packet.extensions.selective_ack().unwrap();
        assert_eq!(acked_by(packet.ack, mask).collect::<Vec<_>>(), [Seq(0x17)], "{name}");
    }
}

#[test]
fn a_reset_is_what_libutp_answers() {
    let recorded = vector("utp_reset");
    let offending = vector("utp_reset_in");
    let offending = Repr::parse(&offending).unwrap();
    let mut bytes = Vec::new();
    Repr::reset(offending.connection_id, Seq(0x23c6), offending.seq).encode(&mut bytes);
    assert_eq!(bytes, recorded);
}
