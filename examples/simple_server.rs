//! A service that answers "world". Run it, and then `simple_client`:
//!
//! ```console
//! $ cargo run --release -- grapes up -n 2          # two Grapes, with their HTTP APIs at 30001 and 40001
//! $ cargo run --example simple_server -- 127.0.0.1:30001
//! $ cargo run --example simple_client -- 127.0.0.1:40001
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use grenache::link::{ANNOUNCE_INTERVAL, Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::rpc::{PeerRpcServer, ServerConfig};
use grenache::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grape = std::env::args().nth(1).unwrap_or("127.0.0.1:30001".into()).parse()?;
    let net: Net = Arc::new(HostNetwork::new());
    let link = Link::new(&net, LinkConfig::new(grape));

    // One UDP port, any free one, for all that this process serves and asks.
    let endpoint = Endpoint::listen(&net, 0)?;
    let server = PeerRpcServer::serve(&endpoint, ServerConfig::default(), |request| async move {
        println!("{} asks {}", request.from, request.payload);
        Ok("world".into())
    });

    // The name stays in the DHT for as long as `announcing` lives.
    let announcing = link.start_announcing("rpc_test", endpoint.local_addr().port(), ANNOUNCE_INTERVAL);
    announcing.announced().await;
    println!("ready: rpc_test on port {}", endpoint.local_addr().port());

    tokio::signal::ctrl_c().await?;
    announcing.stop().await;
    server.stop().await;
    Ok(())
}
