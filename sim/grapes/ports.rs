//! Free ports of this machine.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Ports that are free, UDP and TCP, on every address. Another process may take them before they are used.
///
/// # Errors
/// Where the operating system has none to give.
pub fn free<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    // Held until all are found, so that they differ.
    let mut held = Vec::new();
    for port in &mut ports {
        loop {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            *port = listener.local_addr()?.port();
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port));
            let both = socket.is_ok();
            held.push((listener, socket));
            if both {
                break;
            }
        }
    }
    Ok(ports)
}

/// Whether a DHT node can have this UDP port at this address.
pub fn udp_is_free(address: Ipv4Addr, port: u16) -> bool {
    UdpSocket::bind((address, port)).is_ok()
}

/// Whether an HTTP API can have this TCP port at this address.
pub fn tcp_is_free(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_bound() {
        let [a, b, c] = free().expect("there are free ports");
        assert!(a != b && b != c && a != c);
        let address = Ipv4Addr::LOCALHOST;
        let _udp = UdpSocket::bind((address, a)).expect("it is free");
        let _tcp = TcpListener::bind((address, b)).expect("it is free");
        assert_eq!((udp_is_free(address, a), tcp_is_free(address, a)), (false, true));
        assert_eq!((udp_is_free(address, b), tcp_is_free(address, b)), (true, false));
    }
}
