//! Asks the NAT for a forward, and keeps it (RFC 6886, 3).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use grenache::net::Net;
use tokio::time::{sleep, timeout};

use super::nat_pmp::{Granted, Refusal, Request, Response};
use super::socket::Socket;
use crate::event::Protocol;

/// How often a request is sent (RFC 6886, 3.1): after 250 ms, 500 ms, …, each time twice as long.
const TRIES: u32 = 9;

/// The first of these times.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A forward to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// This host's port.
    pub internal_port: u16,
    /// The public port that would be liked; 0 is any.
    pub external_port: u16,
    /// For how long; NAT-PMP counts whole seconds.
    pub lifetime: Duration,
}

/// What was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// The public port.
    pub external_port: u16,
    /// For how long.
    pub lifetime: Duration,
}

/// Why there is no forward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// Nobody answered.
    #[error("{0} does not answer NAT-PMP: does the NAT forward ports on request?")]
    NoAnswer(SocketAddr),
    /// The NAT refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No socket could be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
}

/// Asks the NAT at `gateway` for a forward, or for more time for one. With no lifetime it ends the forward.
///
/// Where nobody answers it takes two minutes.
///
/// # Errors
/// Where the NAT refuses or does not answer, or no socket can be opened.
pub async fn ask(net: &Net, gateway: SocketAddr, forward: Forward) -> Result<Forwarded, ForwardError> {
    let Forward { protocol, internal_port, external_port, lifetime } = forward;
    let request = Request::Forward { protocol, internal_port, external_port, lifetime };
    let datagram = request.encode();
    let mut socket = Socket::bind(net, 0, gateway.ip())?;
    for nth in 0..TRIES {
        // What cannot be sent is lost, as on the way.
        let _ = socket.send(gateway, &datagram).await;
        let answer = async {
            loop {
                let Ok((source, datagram)) = socket.receive().await else { std::future::pending().await };
                if source == gateway
                    && let Some(response) = Response::parse(&datagram, &request)
                {
                    return response;
                }
            }
        };
        if let Ok(response) = timeout(FIRST_WAIT * 2_u32.pow(nth), answer).await {
            return match response.result? {
                Granted::Forward { external_port, lifetime, .. } => Ok(Forwarded { external_port, lifetime }),
                Granted::PublicAddress(_) => Err(ForwardError::NoAnswer(gateway)),
            };
        }
    }
    Err(ForwardError::NoAnswer(gateway))
}

/// Asks for a forward, and again after half of the time that it was granted for, for ever (RFC 6886, 3.3).
///
/// # Errors
/// As [`ask`]'s, the first time or later.
pub async fn keep(net: &Net, gateway: SocketAddr, forward: Forward) -> Result<(), ForwardError> {
    loop {
        let granted = ask(net, gateway, forward).await?;
        sleep(granted.lifetime.max(Duration::from_secs(1)) / 2).await;
    }
}
