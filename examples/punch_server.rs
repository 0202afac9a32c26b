//! A public service that punches back whoever punches it. Run it, and then `punch_client` behind a NAT:
//!
//! ```console
//! $ cargo run --example punch_server -- 127.0.0.1:30001
//! $ cargo run --example punch_client -- 127.0.0.1:40001
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use grenache::link::{ANNOUNCE_INTERVAL, Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::rpc::{PeerRpcServer, RequestParts, ServerConfig};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));
    let endpoint = Endpoint::listen(&net, 0)?;
    let puncher = Puncher::new(&endpoint);
    let mut punched = puncher.punched();

    // The payload is a number, and the handler sees nothing else.
    let _server = PeerRpcServer::serve_as(&endpoint, ServerConfig::default(), |request: RequestParts<u8>| async move {
        let pairs = std::iter::successors(Some((1, 1)), |(a, b)| Some((*b, u64::checked_add(*a, *b)?)));
        Ok(pairs.take(request.payload.into()).map(|(number, _)| number).collect::<Vec<_>>())
    });
    let announcing = link.start_announcing("fibonacci_worker", endpoint.local_addr().port(), ANNOUNCE_INTERVAL);
    announcing.announced().await;
    println!("ready: fibonacci_worker on port {}", endpoint.local_addr().port());

    while let Some(from) = punched.next().await {
        println!("{from} punches");
        puncher.punch(from);
    }
    Ok(())
}
