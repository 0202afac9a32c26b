//! µTP on loopback beside kernel TCP, in one run: bulk transfer and ping-pong.
//!
//! `cargo bench --bench transport`; compare the groups' rows with each other, not with another machine's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grenache::net::{HostNetwork, Net};
use grenache::transport::{Endpoint, EndpointConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Runtime;

/// What one iteration of the bulk group carries.
const BULK: usize = 64 << 20;

/// A write's size in the bulk group.
const CHUNK: usize = 64 << 10;

/// A ping's size.
const PING: usize = 64;

/// Two connected streams; the first was opened by this side.
async fn utp_pair() -> (impl AsyncRead + AsyncWrite + Unpin, impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let net: Net = Arc::new(HostNetwork::new());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Endpoint::bind(&net, any, EndpointConfig::default()).expect("a free port");
    let client = Endpoint::bind(&net, any, EndpointConfig::default()).expect("a free port");
    let near = client.connect(server.local_addr()).await.expect("a connection");
    let far = server.accept().await.expect("the same connection");
    (near, far)
}

async fn tcp_pair() -> (impl AsyncRead + AsyncWrite + Unpin, impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the port");
    let near = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let (far, _) = listener.accept().await.expect("the same connection");
    near.set_nodelay(true).expect("a TCP option");
    far.set_nodelay(true).expect("a TCP option");
    (near, far)
}

/// Writes `BULK` bytes to the other side and waits for a byte that says that all arrived.
async fn bulk(near: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let chunk = vec![7; CHUNK];
    for _ in 0..BULK / CHUNK {
        near.write_all(&chunk).await.expect("a write");
    }
    near.flush().await.expect("a flush");
    near.read_exact(&mut [0]).await.expect("the answer");
}

/// Reads `BULK` bytes and answers with one, until the other side closes.
async fn sink(mut far: impl AsyncRead + AsyncWrite + Unpin) {
    let mut chunk = vec![0; CHUNK];
    let mut left = BULK;
    while let Ok(read @ 1..) = far.read(&mut chunk).await {
        left -= read;
        if left == 0 {
            left = BULK;
            if far.write_all(&[1]).await.is_err() {
                return;
            }
        }
    }
}

/// Sends every ping back.
async fn echo(mut far: impl AsyncRead + AsyncWrite + Unpin) {
    let mut ping = [0; PING];
    while far.read_exact(&mut ping).await.is_ok() && far.write_all(&ping).await.is_ok() {}
}

fn transport(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");

    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(BULK as u64)).sample_size(10).measurement_time(Duration::from_secs(8));
    group.bench_function("utp", |bencher| {
        let (mut near, far) = runtime.block_on(utp_pair());
        let task = runtime.spawn(sink(far));
        bencher.iter(|| runtime.block_on(bulk(&mut near)));
        task.abort();
    });
    group.bench_function("tcp", |bencher| {
        let (mut near, far) = runtime.block_on(tcp_pair());
        let task = runtime.spawn(sink(far));
        bencher.iter(|| runtime.block_on(bulk(&mut near)));
        task.abort();
    });
    group.finish();

    let mut group = criterion.benchmark_group("ping-pong");
    group.throughput(Throughput::Elements(1));
    let ping = async |near: &mut dyn DuplexStream| {
        let mut pong = [0; PING];
        near.write_all(&[1; PING]).await.expect("a ping");
        near.read_exact(&mut pong).await.expect("a pong");
    };
    group.bench_function("utp", |bencher| {
        let (mut near, far) = runtime.block_on(utp_pair());
        let task = runtime.spawn(echo(far));
        bencher.iter(|| runtime.block_on(ping(&mut near)));
        task.abort();
    });
    group.bench_function("tcp", |bencher| {
        let (mut near, far) = runtime.block_on(tcp_pair());
        let task = runtime.spawn(echo(far));
        bencher.iter(|| runtime.block_on(ping(&mut near)));
        task.abort();
    });
    group.finish();
}

/// A stream in both directions.
trait DuplexStream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> DuplexStream for T {}

criterion_group!(benches, transport);
criterion_main!(benches);
