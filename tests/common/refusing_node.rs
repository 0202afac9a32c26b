//! A DHT node that gives tokens but takes nothing.

use std::net::SocketAddr;

use grenache::grape::krpc::{Answer, Body, Message, NodeId, Query};
use tokio::net::UdpSocket;

use super::http_table::{MISMATCH, STALE};

const ID: NodeId = NodeId([7; 20]);

/// A refusing node that a Grape has seen.
#[derive(Debug)]
pub(crate) struct RefusingNode(UdpSocket);

impl RefusingNode {
    /// Pings a Grape's DHT node until it answers, so that it knows this one.
    pub(crate) async fn known_to(dht: SocketAddr) -> Self {
        let socket = UdpSocket::bind(super::any_port()).await.unwrap();
        let body = Body::Query { sender: Some(ID), query: Query::Ping };
        let ping = Message { transaction: b"p1".to_vec(), body }.encode();
        socket.send_to(&ping, dht).await.unwrap();
        let mut buffer = [0; 2048];
        loop {
            let (len, _) = socket.recv_from(&mut buffer).await.unwrap();
            let message = Message::decode(&buffer[..len]).unwrap();
            if message.transaction == b"p1" && matches!(message.body, Body::Answer(_)) {
                return Self(socket);
            }
        }
    }

    /// Answers for ever. A put of [`STALE`] or [`MISMATCH`] is refused with that, anything else with a code that means
    /// nothing to anybody.
    pub(crate) async fn refuse(self) {
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = self.0.recv_from(&mut buffer).await.unwrap();
            let Message { transaction, body } = Message::decode(&buffer[..len]).unwrap();
            let Body::Query { query, .. } = body else { continue };
            let body = match query {
                Query::GetPeers { .. } | Query::Get { .. } => {
                    let mut answer = Answer::new(ID);
                    answer.token = Some(vec![1]);
                    Body::Answer(Box::new(answer))
                }
                Query::Put { value, .. } => refusal(value.to_json().as_str().unwrap_or_default()),
                _ => refusal(""),
            };
            self.0.send_to(&Message { transaction, body }.encode(), from).await.unwrap();
        }
    }
}

fn refusal(value: &str) -> Body {
    let (code, text) = match value.split_once(' ') {
        Some((code, text)) if [STALE, MISMATCH].contains(&value) => (code.parse().unwrap(), text),
        _ => (202, "no"),
    };
    Body::Error { code, text: text.to_owned() }
}
