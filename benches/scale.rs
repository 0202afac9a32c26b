//! How large simulations may be, and how fast they are: `cargo bench --bench scale`.
//!
//! | group | an element is |
//! |---|---|
//! | `packet-events` | a packet that comes out of one of the links on its way: four of them, with a queue each, and two NATs |
//! | `idle-hosts` | a simulated hour of 1,000 hosts that wait |
//! | `ten-thousand-hosts` | a host: the file is read, the network made, and each host asks a server and is answered |
//! | `broker-both-nat` | a simulated second of that scenario: elements a second are how many times as fast as real time it is |
//! | `seeds` | a run of that scenario with a seed of its own, on one thread |

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grenache::net::{RecvMeta, Transmit, UdpSocket};
use grenache_sim::backend::{self, On, RunOptions};
use grenache_sim::engine::Sim;
use grenache_sim::report::Verdict;
use grenache_sim::scenario::model::{Dependence, Link, Nat, Node};
use grenache_sim::scenario::{self, Scenario};
use tokio::sync::mpsc;

const PORT: u16 = 7000;

/// Hosts that play ping-pong in pairs, each behind a NAT of its own.
const HOSTS: u32 = 100;

/// Pings that each pair sends; as many pongs come back.
const ROUNDS: u32 = 200;

/// Links on a packet's way: from a host to its NAT, to the internet, to the other NAT, to the other host.
const LINKS: u32 = 4;

const MANY: u32 = 10_000;

async fn send(socket: &dyn UdpSocket, to: SocketAddr, contents: &[u8]) {
    let datagram = Transmit { destination: to, contents, segment_size: None };
    poll_fn(|cx| socket.poll_send(cx, &datagram)).await.expect("it is sent");
}

/// The next datagram's length and sender.
async fn receive(socket: &dyn UdpSocket) -> (usize, SocketAddr) {
    let mut buffer = [0; 2048];
    let mut meta = [RecvMeta::default()];
    poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await.expect("it arrives");
    (meta[0].len, meta[0].source)
}

fn public(host: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + host)
}

/// Pairs behind NATs, over lines with a rate.
fn packet_events() {
    let line = Link { latency: Duration::from_millis(5), rate: Some(10_000_000), ..Link::default() };
    let links = BTreeMap::from([("line".into(), line)]);
    let nats = (0..HOSTS).map(|host| {
        let filtering = Dependence::EndpointIndependent;
        let nat = Nat { address: public(host), filtering, link: Some("line".into()), ..Nat::default() };
        (format!("nat-{host}").into(), nat)
    });
    let nodes = (0..HOSTS).map(|host| {
        let behind = Some(format!("nat-{host}").into());
        let address = Ipv4Addr::new(192, 168, 1, 2);
        (host.to_string().into(), Node { address, behind, link: Some("line".into()), ..Node::default() })
    });
    let sim = Sim::new(1, &nats.collect(), &links, &nodes.collect()).expect("it holds together");
    let done = sim.run(Duration::from_secs(3600), async |world| {
        let (done, mut all_done) = mpsc::channel(1);
        for host in 0..HOSTS {
            let net = world.network(&host.to_string());
            let done = done.clone();
            world.spawn(&host.to_string(), async move {
                let socket = net.bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).expect("a free port");
                let partner = SocketAddr::from((public(host ^ 1), PORT));
                // Opens its NAT; a punch is shorter than a ping, and told from it by that.
                send(&*socket, partner, b"p").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                if host % 2 == 0 {
                    send(&*socket, partner, b"ping").await;
                }
                for round in 1..=ROUNDS {
                    while receive(&*socket).await.0 == 1 {}
                    if host % 2 == 1 || round < ROUNDS {
                        send(&*socket, partner, b"ping").await;
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

/// Hosts that wait for something that never comes.
fn idle_hosts() {
    let nodes = (0..1_000).map(|host| (host.to_string().into(), Node { address: public(host), ..Node::default() }));
    let sim = Sim::new(1, &BTreeMap::new(), &BTreeMap::new(), &nodes.collect()).expect("it holds together");
    let hour = Duration::from_secs(3600);
    let now = sim.run(2 * hour, async |world| {
        for host in 0..1_000 {
            let net = world.network(&host.to_string());
            world.spawn(&host.to_string(), async move {
                let socket = net.bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).expect("a free port");
                receive(&*socket).await;
            });
        }
        tokio::time::sleep(hour).await;
        world.now()
    });
    assert_eq!(now, Some(hour));
}

/// From a file's text to the last answer.
fn ten_thousand_hosts() {
    let text = format!(
        "[link.line]\nlatency = \"5ms\"\n[node.server]\naddress = \"203.0.113.1\"\n[node.peer]\ncount = {MANY}\nlink = \"line\"\n\
         [[program]]\nnode = \"server\"\nrun = \"grape\"\ndht-port = 20001\napi-port = 30001\n"
    );
    let scenario = scenario::parse("ten-thousand.toml", &text).expect("it is a scenario");
    let sim = Sim::new(1, &scenario.nats, &scenario.links, &scenario.nodes).expect("it holds together");
    let server = SocketAddr::from(([203, 0, 113, 1], PORT));
    let done = sim.run(Duration::from_secs(3600), async |world| {
        let net = world.network("server");
        world.spawn("server", async move {
            let socket = net.bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).expect("a free port");
            loop {
                let (_, from) = receive(&*socket).await;
                send(&*socket, from, b"pong").await;
            }
        });
        let (done, mut all_done) = mpsc::channel(1);
        for peer in (1..=MANY).map(|number| format!("peer-{number}")) {
            let (net, done) = (world.network(&peer), done.clone());
            world.spawn(&peer, async move {
                let socket = net.bind_udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).expect("a free port");
                send(&*socket, server, b"ping").await;
                receive(&*socket).await;
                drop(done);
            });
        }
        drop(done);
        all_done.recv().await
    });
    assert_eq!(done, Some(None::<()>));
}

fn broker_both_nat() -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/broker-both-nat.toml");
    scenario::load(&path).expect("the shipped scenarios are right")
}

/// How much simulated time a run took.
fn play(scenario: &Scenario, seed: u64) -> Duration {
    let outcome = backend::run(scenario, &RunOptions { seed, on: On::Sim }, |_| {}).expect("the simulator runs it");
    assert_eq!(outcome.verdict, Verdict::Passed);
    outcome.simulated
}

fn scale(criterion: &mut Criterion) {
    let mut bench = |name: &str, elements: u64, work: &dyn Fn()| {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Elements(elements));
        group.bench_function("engine", |bencher| bencher.iter(work));
        group.finish();
    };
    bench("packet-events", u64::from(HOSTS * ROUNDS * LINKS), &packet_events);
    bench("idle-hosts", 1, &idle_hosts);
    bench("ten-thousand-hosts", u64::from(MANY), &ten_thousand_hosts);
    let scenario = broker_both_nat();
    let seeds = 0..100;
    let simulated: Duration = seeds.clone().map(|seed| play(&scenario, seed)).sum();
    let all = || {
        seeds.clone().map(|seed| play(&scenario, seed)).sum::<Duration>();
    };
    bench("broker-both-nat", simulated.as_secs(), &all);
    bench("seeds", 100, &all);
}

criterion_group!(benches, scale);
criterion_main!(benches);
