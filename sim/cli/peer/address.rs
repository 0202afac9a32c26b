//! Hosts with ports: peers, brokers and Grapes, by address or by name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::failure::Failure;

/// A port of a host, which may be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Without brackets.
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT, such as 127.0.0.1:1337")?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let host = match bare {
            Some(host) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => host,
            None if !host.is_empty() && host.chars().all(letters) => host,
            _ => return Err(format!("`{host}` is no host: write a name, an IPv4 address, or an IPv6 address in []")),
        };
        match port.parse() {
            Ok(0) | Err(_) => Err(format!("`{port}` is no port: a port is from 1 to 65535")),
            Ok(port) => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Address {
    /// Its address, as the operating system resolves it; IPv4 where there is one, as Grapes are reached over it.
    pub(super) async fn resolve(&self) -> Result<SocketAddr, Failure> {
        let unknown = |why: String| {
            Failure::unreached(format!("the name {} cannot be resolved: {why}", self.host))
                .advise("write an address, or put the name into the DNS or the hosts file")
        };
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|error| unknown(error.to_string()))?;
        found.min_by_key(SocketAddr::is_ipv6).ok_or_else(|| unknown("it has no address".to_owned()))
    }
}

/// Reads where a Grape's API is: `host:port`, or its URL.
pub(super) fn grape(text: &str) -> Result<Address, String> {
    let rest = text.strip_prefix("http://").unwrap_or(text);
    rest.strip_suffix('/').unwrap_or(rest).parse()
}

/// Whom to speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A service, which is looked up.
    Name(String),
    /// A peer.
    At(Address),
}

impl FromStr for Target {
    type Err = String;

    /// What has one colon, and a number behind it, is an address, as is an IPv6 address in brackets. Services' names have
    /// none, or several (`rest:util:net`), or words between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.rsplit_once(':').map(|(_, port)| port);
        let is_number = port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        if is_number && (text.matches(':').count() == 1 || text.starts_with('[')) {
            return text.parse().map(Self::At);
        }
        name(text).map(Self::Name)
    }
}

/// Reads a service's name.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a name has at least one letter".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colon_and_a_number_is_an_address_and_all_else_a_name() {
        let at = |text: &str| Target::At(text.parse().expect(text));
        for text in ["127.0.0.1:1337", "localhost:1", "grape-1.example:65535", "[::1]:1337"] {
            assert_eq!(text.parse(), Ok(at(text)), "{text}");
            assert_eq!(at(text), Target::At(text.parse().expect(text)));
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in ["rpc_test", "rest:util:net", "rest:net", "rest:net:8080", "a:", "::1"] {
            assert_eq!(text.parse(), Ok(Target::Name(text.to_owned())), "{text}");
        }
        for text in ["", "a:0", "a:65536", ":1337", "a b:1337", "[::1:1337", "[1.2.3.4]:1337"] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_grape_can_be_named_by_its_url() {
        for text in ["http://127.0.0.1:30001", "http://127.0.0.1:30001/", "127.0.0.1:30001"] {
            assert_eq!(grape(text).expect(text).to_string(), "127.0.0.1:30001");
        }
        for text in ["", "127.0.0.1", "https://127.0.0.1:1", "http://127.0.0.1:1/lookup"] {
            assert!(grape(text).is_err(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn names_are_resolved_to_ipv4_where_there_is_one() {
        let resolved = "localhost:1337".parse::<Address>().expect("an address").resolve().await;
        assert_eq!(resolved.expect("every host knows it"), "127.0.0.1:1337".parse().expect("an address"));
        let nobody = "nobody.invalid:1".parse::<Address>().expect("an address").resolve().await;
        let failure = nobody.expect_err("RFC 6761 keeps it free");
        assert!(failure.to_string().contains("the name nobody.invalid cannot be resolved: "), "{failure}");
    }
}
