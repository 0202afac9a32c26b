//! A broker, which introduces peers that are both behind NATs. Run it, then `broker_worker`, then `broker_client`:
//!
//! ```console
//! $ cargo run --example broker -- 127.0.0.1:30001
//! $ cargo run --example broker_worker -- 127.0.0.1:40001
//! $ cargo run --example broker_client -- 127.0.0.1:30001
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use grenache::broker::{Broker, BrokerConfig};
use grenache::link::{Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));
    let endpoint = Endpoint::listen(&net, 0)?;

    // Answers registrations, and keeps its name announced.
    let broker = Broker::start(&endpoint, Some(&link), BrokerConfig::new("fibo_broker"));
    broker.announced().await;
    println!("ready: fibo_broker on port {}", endpoint.local_addr().port());
    tokio::signal::ctrl_c().await?;
    broker.stop().await;
    Ok(())
}
