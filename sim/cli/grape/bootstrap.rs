//! The Grapes to start from: `host:port`, where a host may be a name that cannot be resolved yet.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use grenache::grape::Grape;
use tokio::time::{sleep, timeout};

/// How long names may take to be resolved before the Grape starts without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait before names are resolved again, at first; it doubles up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// `--bn`: any number of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bootstrap(pub(super) Vec<HostPort>);

/// A host by address or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostName(String);

/// A port of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) host: HostName,
    pub(super) port: u16,
}

impl FromStr for Bootstrap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|node| !node.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Letters, digits, `-`, `_` and `.` are all that names and IPv4 addresses have.
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            Ok(Self(text.to_owned()))
        } else if text.contains(':') {
            Err("the DHT is over IPv4: write an IPv4 address or a name".to_owned())
        } else {
            Err("write an IPv4 address or a name".to_owned())
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("`{text}` has no port: write host:port, such as 127.0.0.1:20002"))?;
        let host = host.parse().map_err(|problem| format!("`{host}` is no host: {problem}"))?;
        match port.parse() {
            Ok(0) | Err(_) => Err(format!("`{port}` is no port: a port is from 1 to 65535")),
            Ok(port) => Ok(Self { host, port }),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl HostName {
    /// This machine.
    pub(super) fn loopback() -> Self {
        Self(Ipv4Addr::LOCALHOST.to_string())
    }

    fn is_name(&self) -> bool {
        self.0.parse::<Ipv4Addr>().is_err()
    }

    /// Its IPv4 address, as the operating system resolves it.
    pub(super) async fn resolve(&self) -> io::Result<Ipv4Addr> {
        if let Ok(address) = self.0.parse() {
            return Ok(address);
        }
        let found = tokio::net::lookup_host((self.0.as_str(), 0)).await?;
        let first = found.map(|address| address.ip()).find_map(|ip| match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no IPv4 address"))
    }
}

impl HostPort {
    pub(super) async fn resolve(&self) -> io::Result<SocketAddrV4> {
        Ok(SocketAddrV4::new(self.host.resolve().await?, self.port))
    }
}

impl Bootstrap {
    /// The addresses that are known now, and the names that are not resolved yet.
    pub(super) async fn resolve(&self) -> (Vec<SocketAddrV4>, Vec<HostPort>) {
        let lookups = self.0.iter().map(|node| async move {
            match timeout(PATIENCE, node.resolve()).await {
                Ok(Ok(address)) => Ok(address),
                Ok(Err(error)) => {
                    tracing::warn!(%node, %error, "cannot resolve the name of a Grape to start from, trying again");
                    Err(node.clone())
                }
                Err(_) => {
                    tracing::warn!(%node, "the name of a Grape to start from takes long to resolve");
                    Err(node.clone())
                }
            }
        });
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for result in futures_util::future::join_all(lookups).await {
            match result {
                Ok(address) => known.push(address),
                Err(node) => unknown.push(node),
            }
        }
        (known, unknown)
    }

    /// Resolves names again and again, and tells the Grape: those in `unknown` until they are known, and all of them
    /// while it knows no other node, for a container that starts anew has another address.
    pub(super) async fn follow(self, mut unknown: Vec<HostPort>, grape: Arc<Grape>) {
        let mut names = self.0;
        names.retain(|node| node.host.is_name());
        let (mut pause, longest) = PAUSES;
        while !names.is_empty() {
            sleep(pause).await;
            pause = (pause * 2).min(longest);
            let alone = grape.stats().nodes == 0;
            for node in &names {
                let new = unknown.iter().position(|other| other == node);
                if !alone && new.is_none() {
                    continue;
                }
                if let Ok(address) = node.resolve().await {
                    if let Some(new) = new {
                        unknown.swap_remove(new);
                        tracing::info!(%node, %address, "the name of a Grape to start from is resolved");
                    }
                    grape.add_bootstrap(address).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_hosts_with_ports_and_commas_between() {
        let nodes = |text: &str| -> Vec<String> {
            text.parse::<Bootstrap>().expect(text).0.iter().map(HostPort::to_string).collect()
        };
        assert_eq!(nodes("127.0.0.1:20002,grape-2:20003"), ["127.0.0.1:20002", "grape-2:20003"]);
        assert_eq!(nodes(" a:1 , ,b.example:65535,"), ["a:1", "b.example:65535"]);
        assert_eq!(nodes(""), Vec::<String>::new());
        for (text, problem) in [
            ("grape", "`grape` has no port: write host:port, such as 127.0.0.1:20002"),
            ("a:1,b:0", "`0` is no port: a port is from 1 to 65535"),
            ("a:65536", "`65536` is no port: a port is from 1 to 65535"),
            (":20001", "`` is no host: write an IPv4 address or a name"),
            ("a b:1", "`a b` is no host: write an IPv4 address or a name"),
            ("[::1]:20001", "`[::1]` is no host: the DHT is over IPv4: write an IPv4 address or a name"),
        ] {
            assert_eq!(text.parse::<Bootstrap>(), Err(problem.to_owned()), "{text:?}");
        }
    }
}
