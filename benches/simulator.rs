//! The simulator beside `turmoil-net`'s own harness, in one run: pairs of hosts that play ping-pong over UDP.
//!
//! `cargo bench --bench simulator`. An element is a packet that was delivered; each crosses a way of 2 ms.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grenache::net::{RecvMeta, Transmit, UdpSocket};
use grenache_sim::engine::Sim;
use grenache_sim::scenario::model::{Link, Node};
use tokio::sync::mpsc;

/// Pings that each pair sends; as many pongs come back.
const ROUNDS: u32 = 200;

const PORT: u16 = 7000;

const HOSTS: [u32; 3] = [10, 100, 1000];

/// A hundred hosts a network, so that none is a broadcast address.
fn address(host: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + (host / 100) * 256 + host % 100)
}

/// The address of the other host of a pair.
fn partner(host: u32) -> SocketAddr {
    SocketAddr::from((address(host ^ 1), PORT))
}

async fn send(socket: &dyn UdpSocket, to: SocketAddr) {
    let ping = Transmit { destination: to, contents: b"ping", segment_size: None };
    poll_fn(|cx| socket.poll_send(cx, &ping)).await.expect("it is sent");
}

async fn receive(socket: &dyn UdpSocket) {
    let mut buffer = [0; 2048];
    let mut meta = [RecvMeta::default()];
    poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await.expect("it arrives");
}

/// Ours: events on an exact clock.
fn engine(hosts: u32, playing: u32) {
    let link = Link { latency: Duration::from_millis(1), ..Link::default() };
    let links = BTreeMap::from([("wire".into(), link)]);
    let nodes = (0..hosts)
        .map(|host| {
            (host.to_string().into(), Node { address: address(host), link: Some("wire".into()), ..Node::default() })
        })
        .collect();
    let sim = Sim::new(1, &BTreeMap::new(), &links, &nodes).expect("it holds together");
    let done = sim.run(Duration::from_secs(3600), async |world| {
        let (done, mut all_done) = mpsc::channel(1);
        for host in 0..playing {
            let net = world.network(&host.to_string());
            let done = done.clone();
            world.spawn(&host.to_string(), async move {
                let socket = net.bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).expect("a free port");
                for _ in 0..ROUNDS {
                    if host % 2 == 0 {
                        send(&*socket, partner(host)).await;
                        receive(&*socket).await;
                    } else {
                        receive(&*socket).await;
                        send(&*socket, partner(host)).await;
                    }
                }
                drop(done);
            });
        }
        drop(done);
        all_done.recv().await
    });
    assert_eq!(done, Some(None::<()>));
}

/// Theirs: every host is looked at each millisecond.
fn turmoil_net(hosts: u32, playing: u32) {
    use turmoil_net::fixture::ClientServer;
    use turmoil_net::shim::tokio::net::UdpSocket;
    use turmoil_net::{Latency, rule};

    let (done, mut all_done) = mpsc::channel::<()>(1);
    let mut fixture = ClientServer::new();
    for host in 0..hosts {
        let done = (host < playing).then(|| done.clone());
        fixture = fixture.server(address(host).to_string(), async move {
            if done.is_none() {
                std::future::pending::<()>().await;
            }
            let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).await.expect("a free port");
            let mut buffer = [0; 2048];
            for _ in 0..ROUNDS {
                if host % 2 == 0 {
                    socket.send_to(b"ping", partner(host)).await.expect("it is sent");
                    socket.recv_from(&mut buffer).await.expect("it arrives");
                } else {
                    socket.recv_from(&mut buffer).await.expect("it arrives");
                    socket.send_to(b"ping", partner(host)).await.expect("it is sent");
                }
            }
            drop(done);
            std::future::pending::<()>().await;
        });
    }
    drop(done);
    fixture.run("198.19.0.1", async move {
        let _latency = rule(Latency::fixed(Duration::from_millis(2)));
        assert_eq!(all_done.recv().await, None);
    });
}

/// With every host playing, and with one pair of them while the others are idle.
fn simulator(criterion: &mut Criterion) {
    for (name, all_play) in [("all-hosts-play", true), ("one-pair-plays", false)] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for hosts in HOSTS {
            let playing = if all_play { hosts } else { 2 };
            group.throughput(Throughput::Elements(u64::from(playing * ROUNDS)));
            group.bench_function(BenchmarkId::new("engine", hosts), |bencher| bencher.iter(|| engine(hosts, playing)));
            group.bench_function(BenchmarkId::new("turmoil-net", hosts), |bencher| {
                bencher.iter(|| turmoil_net(hosts, playing));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, simulator);
criterion_main!(benches);
