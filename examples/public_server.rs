//! A public peer that a service behind a NAT comes to. It announces itself, is punched, punches back, and asks the
//! service. Run it, and then `nat_server` behind a NAT:
//!
//! ```console
//! $ cargo run --example public_server -- 127.0.0.1:30001
//! $ cargo run --example nat_server -- 127.0.0.1:40001
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use grenache::link::{ANNOUNCE_INTERVAL, Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));
    let endpoint = Endpoint::listen(&net, 0)?;
    let puncher = Puncher::new(&endpoint);
    let mut punched = puncher.punched();
    let client = PeerRpcClient::new(&endpoint, None, ClientConfig::default());

    let announcing = link.start_announcing("fibonacci_consumer", endpoint.local_addr().port(), ANNOUNCE_INTERVAL);
    announcing.announced().await;
    println!("ready: fibonacci_consumer on port {}", endpoint.local_addr().port());

    let worker = punched.next().await.ok_or("the socket is closed")?;
    println!("{worker} punches");
    puncher.punch(worker);
    let numbers: Vec<u64> = client.request_at_as(worker, "fibonacci_worker", &10).await?;
    println!("answer: {numbers:?}");
    announcing.stop().await;
    client.stop().await;
    Ok(())
}
