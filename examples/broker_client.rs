//! A client behind a NAT that registers with `broker`, which tells how to run all three, and asks the first worker that
//! punches it.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use grenache::broker::BrokerClient;
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
    let endpoint = Endpoint::listen(&net, 0)?;
    let puncher = Puncher::new(&endpoint);
    let mut punched = puncher.punched();
    let client = PeerRpcClient::new(&endpoint, Some(link), ClientConfig::default());

    // Registers every 2 s and punches the workers, until this is dropped.
    let broker = BrokerClient::new(&client, &puncher, "fibo_broker", "fibonacci_worker", false);
    let registering = net.spawn(Box::pin(async move { broker.run().await }));

    let worker = punched.next().await.ok_or("the socket is closed")?;
    println!("{worker} punches");
    let numbers: Vec<u64> = client.request_at_as(worker, "fibonacci_worker", &10).await?;
    println!("answer: {numbers:?}");
    drop(registering);
    client.stop().await;
    Ok(())
}
