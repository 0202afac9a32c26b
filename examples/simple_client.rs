//! Asks the service of `simple_server`, which tells how to run both.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use grenache::link::{Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::rpc::{ClientConfig, PeerRpcClient};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));
    let client = PeerRpcClient::new(&Endpoint::listen(&net, 0)?, Some(link), ClientConfig::default());

    // Looks the name up, and asks one of the services found.
    let answer = client.request("rpc_test", &"hello".into()).await?;
    println!("answer: {answer}");
    client.stop().await;
    Ok(())
}
