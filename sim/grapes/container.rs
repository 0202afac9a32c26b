//! A Grape as an image for [testcontainers], for tests that need one beside them.
//!
//! The feature `containers` brings this module. The images are not in any registry: `docker/build` in a clone of this
//! repository makes both.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use grenache::link::{Link, LinkConfig};
//! use grenache::net::{HostNetwork, Net};
//! use grenache_sim::grapes::GrapeKind;
//! use grenache_sim::grapes::container::testcontainers::{ImageExt, runners::AsyncRunner};
//! use grenache_sim::grapes::container::{GrapeContainer, RunningGrape};
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let ours = GrapeContainer::default().with_network("my-test").start().await?;
//! let theirs = GrapeContainer::new(GrapeKind::Node)
//!     .bootstrap([ours.dht_addr_inside().await?])
//!     .with_network("my-test")
//!     .start()
//!     .await?;
//!
//! let net: Net = Arc::new(HostNetwork::new());
//! let link = Link::new(&net, LinkConfig::new(theirs.api_addr().await?));
//! link.announce("my_service", 1337).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What is announced at a Grape is found at the Grape's own address: here at that of its container, which a service
//! on this machine does not have.

use std::borrow::Cow;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

pub use testcontainers;
use testcontainers::core::wait::HttpWaitStrategy;
use testcontainers::core::{ContainerPort, WaitFor};
use testcontainers::{ContainerAsync, Image, TestcontainersError};

use super::docker::image;
use super::{GrapeKind, node_defaults};

/// A Grape in a container that testcontainers starts and removes.
///
/// Its ports are those inside of the container, where it is alone; testcontainers maps them to free ones of this
/// machine. It counts as started once its bootstrap is over and its HTTP API answers.
#[derive(Debug, Clone)]
#[must_use]
pub struct GrapeContainer {
    kind: GrapeKind,
    name: String,
    tag: String,
    /// The DHT node's, then the HTTP API's.
    ports: [ContainerPort; 2],
    bootstrap: Vec<String>,
    options: Vec<String>,
}

impl Default for GrapeContainer {
    /// Ours.
    fn default() -> Self {
        Self::new(GrapeKind::Rust)
    }
}

impl GrapeContainer {
    /// A Grape without others to start from, with its DHT node on UDP port 20001 and its API on TCP port 30001.
    pub fn new(kind: GrapeKind) -> Self {
        let (name, tag) = image(kind).split_once(':').expect("each image's name has a tag");
        Self {
            kind,
            name: name.to_owned(),
            tag: tag.to_owned(),
            ports: [ContainerPort::Udp(20001), ContainerPort::Tcp(30001)],
            bootstrap: Vec::new(),
            options: Vec::new(),
        }
    }

    /// The DHT node's UDP port inside of the container. A peer that is announced with the port 0 gets it.
    pub fn dht_port(mut self, port: u16) -> Self {
        self.ports[0] = ContainerPort::Udp(port);
        self
    }

    /// The HTTP API's TCP port inside of the container.
    pub fn api_port(mut self, port: u16) -> Self {
        self.ports[1] = ContainerPort::Tcp(port);
        self
    }

    /// Grapes to start from, in place of those before: `host:port`, where containers of one network know each other
    /// by name.
    pub fn bootstrap(mut self, nodes: impl IntoIterator<Item = impl ToString>) -> Self {
        self.bootstrap = nodes.into_iter().map(|node| node.to_string()).collect();
        self
    }

    /// One more option of the Grape's command line, such as `--dpa` and `1000`; each at most once.
    pub fn option(mut self, flag: &str, value: impl ToString) -> Self {
        self.options.extend([flag.to_owned(), value.to_string()]);
        self
    }

    /// Another image that takes the same arguments, such as one from a registry of your own.
    pub fn image(mut self, name: &str, tag: &str) -> Self {
        self.name = name.to_owned();
        self.tag = tag.to_owned();
        self
    }

    /// Whose Grape it is.
    pub fn kind(&self) -> GrapeKind {
        self.kind
    }
}

impl Image for GrapeContainer {
    fn name(&self) -> &str {
        &self.name
    }

    fn tag(&self) -> &str {
        &self.tag
    }

    fn ready_conditions(&self) -> Vec<WaitFor> {
        let [dht, api] = self.ports;
        let answers = HttpWaitStrategy::new("/").with_port(api).with_response_matcher(|_| true);
        vec![WaitFor::message_on_stderr(format!("{} ready", dht.as_u16())), WaitFor::http(answers)]
    }

    fn env_vars(&self) -> impl IntoIterator<Item = (impl Into<Cow<'_, str>>, impl Into<Cow<'_, str>>)> {
        [("DEBUG", "grenache:grape")]
    }

    fn cmd(&self) -> impl IntoIterator<Item = impl Into<Cow<'_, str>>> {
        let [dht, api] = self.ports.map(|port| port.as_u16().to_string());
        let mut arguments = vec!["--dp".to_owned(), dht, "--aph".to_owned(), api];
        arguments.extend(["--bn".to_owned(), self.bootstrap.join(",")]);
        if self.kind == GrapeKind::Node {
            arguments.extend(node_defaults(|flag| self.options.iter().any(|given| given == flag)));
        }
        arguments.extend_from_slice(&self.options);
        arguments
    }

    fn expose_ports(&self) -> &[ContainerPort] {
        &self.ports
    }
}

/// Where a Grape in a container is.
///
/// # Errors
/// All of them, where the engine cannot be asked or the container does not run any more.
pub trait RunningGrape {
    /// Its HTTP API, as this machine reaches it.
    fn api_addr(&self) -> impl Future<Output = Result<SocketAddr, TestcontainersError>> + Send;

    /// Its DHT node, as this machine reaches it.
    fn dht_addr(&self) -> impl Future<Output = Result<SocketAddrV4, TestcontainersError>> + Send;

    /// Its DHT node, as other containers of its network reach it. What is announced at this Grape is found at this
    /// host.
    fn dht_addr_inside(&self) -> impl Future<Output = Result<SocketAddrV4, TestcontainersError>> + Send;

    /// The URL of its HTTP API, as this machine reaches it.
    fn api_url(&self) -> impl Future<Output = Result<String, TestcontainersError>> + Send
    where
        Self: Sync,
    {
        async { Ok(format!("http://{}", self.api_addr().await?)) }
    }
}

impl RunningGrape for ContainerAsync<GrapeContainer> {
    async fn api_addr(&self) -> Result<SocketAddr, TestcontainersError> {
        Ok(mapped(self, self.image().ports[1]).await?.into())
    }

    async fn dht_addr(&self) -> Result<SocketAddrV4, TestcontainersError> {
        mapped(self, self.image().ports[0]).await
    }

    async fn dht_addr_inside(&self) -> Result<SocketAddrV4, TestcontainersError> {
        match self.get_bridge_ip_address().await? {
            IpAddr::V4(host) => Ok(SocketAddrV4::new(host, self.image().ports[0].as_u16())),
            IpAddr::V6(host) => Err(TestcontainersError::other(format!("the DHT is over IPv4, not for {host}"))),
        }
    }
}

/// Where this machine reaches a port of a container.
async fn mapped(
    container: &ContainerAsync<GrapeContainer>,
    port: ContainerPort,
) -> Result<SocketAddrV4, TestcontainersError> {
    let host = container.get_host().await?.to_string();
    let port = container.get_host_port_ipv4(port).await?;
    let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(TestcontainersError::other)?;
    let first = found.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    let first = first.into_iter().next();
    first.ok_or_else(|| TestcontainersError::other(format!("the engine's host {host} has no IPv4 address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(grape: &GrapeContainer) -> String {
        let arguments: Vec<String> = grape.cmd().into_iter().map(|argument| argument.into().into_owned()).collect();
        arguments.join(" ")
    }

    #[test]
    fn each_kind_has_its_image_and_the_same_behaviour() {
        let ours = GrapeContainer::default();
        assert_eq!((ours.name(), ours.tag()), ("grenache-grape", env!("CARGO_PKG_VERSION")));
        assert_eq!(arguments(&ours), "--dp 20001 --aph 30001 --bn ");
        let theirs = GrapeContainer::new(GrapeKind::Node).bootstrap(["a:1", "b:2"]).dht_port(5).option("--dpa", 1000);
        assert_eq!((theirs.name(), theirs.tag()), ("grenache-grape-node", "1.0.0"));
        assert_eq!(
            arguments(&theirs),
            "--dp 5 --aph 30001 --bn a:1,b:2 --dht_maxTables 5000 --dht_maxValues 5000 --dnl 300000 \
             --check_maxPayloadSize 8192 --dpa 1000"
        );
        assert_eq!(theirs.expose_ports(), [ContainerPort::Udp(5), ContainerPort::Tcp(30001)]);
    }
}
