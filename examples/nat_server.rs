//! A service behind a NAT. It looks `public_server` up, which tells how to run both, and punches it again and again: that
//! opens the NAT for the other's requests.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use grenache::link::{Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::rpc::{PeerRpcServer, RequestParts, ServerConfig};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));
    // The socket that serves is the one that punches.
    let endpoint = Endpoint::listen(&net, 0)?;
    let puncher = Puncher::new(&endpoint);
    let _server = PeerRpcServer::serve_as(&endpoint, ServerConfig::default(), |request: RequestParts<u8>| async move {
        println!("{} asks {}", request.from, request.payload);
        let pairs = std::iter::successors(Some((1, 1)), |(a, b)| Some((*b, u64::checked_add(*a, *b)?)));
        Ok(pairs.take(request.payload.into()).map(|(number, _)| number).collect::<Vec<_>>())
    });

    let mut again = tokio::time::interval(Duration::from_secs(1));
    loop {
        again.tick().await;
        match puncher.punch_name(&link, "fibonacci_consumer").await {
            Ok(found) => println!("punching {found:?}"),
            Err(error) => println!("nobody to punch yet: {error}"),
        }
    }
}
