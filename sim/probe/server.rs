//! A STUN server with RFC 5780's extensions.
//!
//! RFC 5780 wants a server on two addresses with two ports each. Here each address has a server of its own, with two
//! ports; where a response is to come from the other address, the server asks its partner there to send it. So the two
//! may be one machine with two addresses or two machines.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;

use grenache::net::{Net, Task};

use super::socket::Socket;
use super::stun::{Binding, Change, refusal};

/// The port of STUN (RFC 8489, 18.6).
pub const PORT: u16 = 3478;

/// The other port, as servers with RFC 5780's extensions usually have it.
pub const ALTERNATE_PORT: u16 = 3479;

/// Settings of a [`StunServer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its port (usually [`PORT`]).
    pub port: u16,
    /// Its other port (usually [`ALTERNATE_PORT`]).
    pub alternate_port: u16,
    /// The address of its partner, which has the same ports; without one it answers from its own address only.
    pub partner: Option<IpAddr>,
}

impl Default for ServerConfig {
    /// The usual ports, and no partner.
    fn default() -> Self {
        Self { port: PORT, alternate_port: ALTERNATE_PORT, partner: None }
    }
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct StunServer {
    _task: Task,
}

impl StunServer {
    /// Binds both ports and serves until it is dropped. It keeps nothing of what clients send.
    ///
    /// # Errors
    /// Where a port cannot be bound.
    pub fn start(net: &Net, config: ServerConfig) -> io::Result<Self> {
        // Where there is no partner it is IPv4 that is served.
        let family = config.partner.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let bind = |port| Socket::bind(net, port, family);
        let mut sockets = [bind(config.port)?, bind(config.alternate_port)?];
        let network = net.clone();
        let task = net.spawn(Box::pin(async move {
            while let Ok((at, source, datagram)) = receive(&mut sockets).await {
                let own = network.local_ip(source).ok();
                let Some(out) = config.answer(at, source, &datagram, own) else { continue };
                // What cannot be sent is lost, as on the way.
                let _ = sockets[out.from].send(out.to, &out.datagram).await;
            }
        }));
        Ok(Self { _task: task })
    }
}

/// A datagram to send.
#[derive(Debug, PartialEq, Eq)]
struct Outgoing {
    /// From which of the two ports.
    from: usize,
    to: SocketAddr,
    datagram: Vec<u8>,
}

impl ServerConfig {
    /// What to send for a datagram that came in at port number `at`, 0 or 1. Without I/O.
    fn answer(&self, at: usize, source: SocketAddr, datagram: &[u8], own: Option<IpAddr>) -> Option<Outgoing> {
        if let Some(datagram) = refusal(datagram) {
            return Some(Outgoing { from: at, to: source, datagram });
        }
        match Binding::parse(datagram)? {
            Binding::Request { transaction, change, response_port } => {
                let from = if change.port { 1 - at } else { at };
                let to = SocketAddr::new(source.ip(), response_port.unwrap_or(source.port()));
                if change.address {
                    let partner = SocketAddr::new(self.partner?, self.port);
                    // The partner learns where to answer, and from which port. A response to another port than the
                    // request's tells that port's address, which is all that its receiver asks.
                    let change = Change { address: false, port: from == 1 };
                    let relayed = Binding::Indication { transaction, mapped: Some(to), change };
                    return Some(Outgoing { from: at, to: partner, datagram: relayed.encode() });
                }
                Some(self.response(transaction, source, from, to, own))
            }
            Binding::Indication { transaction, mapped: Some(to), change } => {
                // Only its partner may have others answered.
                let partner = self.partner.is_some_and(|partner| source.ip().to_canonical() == partner);
                partner.then(|| self.response(transaction, to, usize::from(change.port), to, own))
            }
            Binding::Indication { mapped: None, .. } | Binding::Response { .. } => None,
        }
    }

    fn response(
        &self,
        transaction: u128,
        mapped: SocketAddr,
        from: usize,
        to: SocketAddr,
        own: Option<IpAddr>,
    ) -> Outgoing {
        let ports = [self.port, self.alternate_port];
        let origin = own.map(|own| SocketAddr::new(own.to_canonical(), ports[from]));
        // RFC 5780, 7.4: the address and the port that this response does not come from.
        let other = self.partner.map(|partner| SocketAddr::new(partner, ports[1 - from]));
        let mapped = SocketAddr::new(mapped.ip().to_canonical(), mapped.port());
        let response = Binding::Response { transaction, mapped, origin, other };
        Outgoing { from, to, datagram: response.encode() }
    }
}

/// The next datagram at either socket.
async fn receive(sockets: &mut [Socket; 2]) -> io::Result<(usize, SocketAddr, Vec<u8>)> {
    poll_fn(|cx| {
        for (at, socket) in sockets.iter_mut().enumerate() {
            if let Poll::Ready(received) = socket.poll_receive(cx) {
                return Poll::Ready(received.map(|(source, datagram)| (at, source, datagram)));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ServerConfig = ServerConfig { port: 3478, alternate_port: 3479, partner: Some(PARTNER) };
    const PARTNER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 2));

    fn ask(at: usize, change: Change, response_port: Option<u16>) -> (usize, String, Option<Binding>) {
        let request = Binding::Request { transaction: 7, change, response_port };
        let source = "198.51.100.1:5000".parse().unwrap();
        let out = CONFIG.answer(at, source, &request.encode(), "203.0.113.1".parse().ok()).unwrap();
        (out.from, out.to.to_string(), Binding::parse(&out.datagram))
    }

    #[test]
    fn rfc_5780_6_1_a_response_comes_from_where_it_is_asked_for() {
        let plain = Change::default();
        let response = |origin: &str, other: &str| {
            let mapped = "198.51.100.1:5000".parse().unwrap();
            let (origin, other) = (origin.parse().ok(), other.parse().ok());
            Some(Binding::Response { transaction: 7, mapped, origin, other })
        };
        let here = response("203.0.113.1:3478", "203.0.113.2:3479");
        assert_eq!(ask(0, plain, None), (0, "198.51.100.1:5000".into(), here));
        assert_eq!(ask(0, plain, Some(6000)), (0, "198.51.100.1:6000".into(), here), "7.5: to another port");
        let at_other_port = response("203.0.113.1:3479", "203.0.113.2:3478");
        let port = Change { port: true, ..plain };
        assert_eq!(ask(0, port, None), (1, "198.51.100.1:5000".into(), at_other_port));
        assert_eq!(ask(1, port, None), (0, "198.51.100.1:5000".into(), here));
        let both = Change { address: true, port: true };
        let relayed = Binding::Indication {
            transaction: 7,
            mapped: "198.51.100.1:5000".parse().ok(),
            change: Change { address: false, port: true },
        };
        assert_eq!(ask(0, both, None), (0, "203.0.113.2:3478".into(), Some(relayed)), "the partner sends it");
    }

    #[test]
    fn only_the_partner_has_others_answered() {
        let relayed =
            Binding::Indication { transaction: 7, mapped: "9.9.9.9:9".parse().ok(), change: Change::default() };
        let from = |source: &str| CONFIG.answer(0, source.parse().unwrap(), &relayed.encode(), None);
        assert_eq!(from("203.0.113.2:3478").unwrap().to.to_string(), "9.9.9.9:9");
        assert_eq!(from("203.0.113.3:3478"), None);
        let alone = ServerConfig { partner: None, ..CONFIG };
        assert_eq!(alone.answer(0, "203.0.113.2:3478".parse().unwrap(), &relayed.encode(), None), None);
    }
}
