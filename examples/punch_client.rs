//! Punches the service of `punch_server`, which tells how to run both, and asks it once it has punched back.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use grenache::link::{Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));
    // Punches and requests leave from the same port: what lets the ones in lets the others in.
    let endpoint = Endpoint::listen(&net, 0)?;
    let puncher = Puncher::new(&endpoint);
    let mut punched = puncher.punched();
    let client = PeerRpcClient::new(&endpoint, None, ClientConfig::default());

    // A punch may get lost, as any datagram: once more each second, until one comes back.
    let worker = loop {
        puncher.punch_name(&link, "fibonacci_worker").await?;
        match tokio::time::timeout(Duration::from_secs(1), punched.next()).await {
            Ok(Some(from)) => break from,
            Ok(None) => return Err("the socket is closed".into()),
            Err(_) => {}
        }
    };
    println!("{worker} punches back");
    let numbers: Vec<u64> = client.request_at_as(worker, "fibonacci_worker", &10).await?;
    println!("answer: {numbers:?}");
    client.stop().await;
    Ok(())
}
