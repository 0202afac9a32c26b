//! A service behind a NAT that registers with `broker`, which tells how to run all three, and punches every client that
//! waits for it.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use grenache::broker::BrokerClient;
use grenache::link::{Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestParts, ServerConfig};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));
    // All from one port: the broker tells others the address that it sees.
    let endpoint = Endpoint::listen(&net, 0)?;
    let puncher = Puncher::new(&endpoint);
    let client = PeerRpcClient::new(&endpoint, Some(link), ClientConfig::default());
    let _server = PeerRpcServer::serve_as(&endpoint, ServerConfig::default(), |request: RequestParts<u8>| async move {
        println!("{} asks {}", request.from, request.payload);
        let pairs = std::iter::successors(Some((1, 1)), |(a, b)| Some((*b, u64::checked_add(*a, *b)?)));
        Ok(pairs.take(request.payload.into()).map(|(number, _)| number).collect::<Vec<_>>())
    });

    // Registers every 2 s, and punches whom the broker tells of.
    println!("ready: registering with fibo_broker");
    BrokerClient::new(&client, &puncher, "fibo_broker", "fibonacci_worker", true).run().await;
    Ok(())
}
