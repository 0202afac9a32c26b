//! One question and its answer.

use std::net::SocketAddr;

use grenache::net::Rng;
use rand::RngExt as _;
use tokio::time::{Instant, timeout_at};

use super::super::socket::Socket;
use super::super::stun::{Binding, Change};
use super::ProberConfig;

/// A question, and whom it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) to: SocketAddr,
    pub(super) request: Binding,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// Where the server saw the question come from.
    pub(super) mapped: SocketAddr,
    /// The server's other address and port.
    pub(super) other: Option<SocketAddr>,
}

/// A Binding request with a transaction of its own.
pub(super) fn request(rng: &mut Rng, change: Change) -> Binding {
    Binding::Request { transaction: rng.random::<u128>() >> 32, change, response_port: None }
}

/// Asks until the answer comes or the time is over.
pub(super) async fn exchange(socket: &mut Socket, ask: Ask, config: ProberConfig) -> Option<Answer> {
    let answer = until_message(socket, None, ask, config).await?;
    match answer.1 {
        Binding::Response { mapped, other, .. } => Some(Answer { mapped, other }),
        _ => None,
    }
}

/// Asks from one socket, and waits for the answer at another one.
pub(super) async fn elsewhere(asks: &Socket, listens: &mut Socket, ask: Ask, config: ProberConfig) -> Option<()> {
    until_message(listens, Some(asks), ask, config).await.map(drop)
}

/// Sends a request that may come back to its own sender; gives its source then.
pub(super) async fn loops_back(socket: &mut Socket, ask: Ask, config: ProberConfig) -> Option<SocketAddr> {
    until_message(socket, None, ask, config).await.map(|(source, _)| source)
}

/// Sends again and again, until a message of the same transaction arrives at `socket`.
async fn until_message(
    socket: &mut Socket,
    sender: Option<&Socket>,
    ask: Ask,
    config: ProberConfig,
) -> Option<(SocketAddr, Binding)> {
    let datagram = ask.request.encode();
    let transaction = ask.request.transaction();
    let deadline = Instant::now() + config.timeout;
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            // What cannot be sent is lost, as on the way.
            let _ = sender.unwrap_or(socket).send(ask.to, &datagram).await;
            next += config.interval;
        }
        let until = next.min(deadline);
        match timeout_at(until, socket.receive()).await {
            Ok(Ok((source, datagram))) => {
                let answer = Binding::parse(&datagram).filter(|message| message.transaction() == transaction);
                if let Some(message) = answer {
                    return Some((source, message));
                }
            }
            Ok(Err(_)) => tokio::time::sleep_until(until).await,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return None;
        }
    }
}
