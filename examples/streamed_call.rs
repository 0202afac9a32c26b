//! Sends a body that is larger than the memory used to a service over loopback, which hashes it and sends it back.
//!
//! `cargo run --release --example streamed_call -- 1024` sends as many MiB (256 where nothing is said).
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use grenache::net::{HostNetwork, Net};
use grenache::rpc::streaming::{StreamConfig, StreamRequest};
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(256), |mib| mib.parse())?;
    let net: Net = Arc::new(HostNetwork::new());
    let endpoint = || Endpoint::bind(&net, ([127, 0, 0, 1], 0).into(), EndpointConfig::default());

    let serving = endpoint()?;
    let (server, _plain_requests) = PeerRpcServer::new(&serving, ServerConfig::default());
    server.serve_streams(StreamConfig::default(), async |request| {
        if let Err(error) = echo(request).await {
            println!("the call failed: {error}");
        }
    });

    let client = PeerRpcClient::new(&endpoint()?, None, ClientConfig::default());
    let begun = Instant::now();
    let call = client.request_stream_at(serving.local_addr(), "echo", &mib.into()).await?;
    let (head, mut body) = call.send(tokio::io::repeat(7).take(mib << 20)).head().await?;
    let mut hash = Sha1::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let len = body.read(&mut chunk).await?;
        if len == 0 {
            break;
        }
        hash.update(&chunk[..len]);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("the service answered {head}, and sent back {}", hex::encode(hash.finalize()));
    println!("{mib} MiB there and back in {seconds:.2} s");
    // Linux tells the most memory that this process has used.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    }
    Ok(())
}

/// Sends the body back while it comes in.
async fn echo(request: StreamRequest) -> std::io::Result<()> {
    let StreamRequest { mut body, replier, .. } = request;
    let mut reply = replier.reply("here it comes".into());
    let mut hash = Sha1::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let len = body.read(&mut chunk).await?;
        if len == 0 {
            break;
        }
        hash.update(&chunk[..len]);
        reply.write_all(&chunk[..len]).await?;
    }
    println!("the service received {}", hex::encode(hash.finalize()));
    reply.shutdown().await
}
