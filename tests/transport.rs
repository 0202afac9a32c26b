//! µTP streams and datagrams on one socket, over loopback.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use grenache::event::Event;
use grenache::limits::Limit;
use grenache::net::{BoxFuture, HostNetwork, HttpClient, Net, Network, Rng, Task, TcpListener, TcpStream, UdpSocket};
use grenache::transport::{Endpoint, EndpointConfig, UtpStream};
use grenache::utp::Config;
use grenache::utp::wire::{Kind, Repr};
use rand::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The host's network, with the events kept.
#[derive(Debug)]
struct Recorded {
    host: HostNetwork,
    events: Mutex<Vec<Event>>,
}

impl Recorded {
    fn new() -> Arc<Self> {
        Arc::new(Self { host: HostNetwork::new(), events: Mutex::default() })
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl Network for Recorded {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        self.host.bind_udp(local)
    }
    fn connect_tcp(&self, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        self.host.connect_tcp(remote)
    }
    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        self.host.listen_tcp(local)
    }
    fn http(&self) -> Arc<dyn HttpClient> {
        self.host.http()
    }
    fn rng(&self, _name: &str) -> Rng {
        Rng::seed_from_u64(1)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        self.host.spawn(task)
    }
    fn emit(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

fn network() -> Net {
    Arc::new(HostNetwork::new())
}

fn endpoint(net: &Net) -> Endpoint {
    Endpoint::bind(net, SocketAddr::from(([127, 0, 0, 1], 0)), EndpointConfig::default()).unwrap()
}

async fn pair(a: &Endpoint, b: &Endpoint) -> (UtpStream, UtpStream) {
    let (connected, accepted) = tokio::join!(a.connect(b.local_addr()), b.accept());
    (connected.unwrap(), accepted.unwrap())
}

fn pattern(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 13) as u8).collect()
}

#[tokio::test]
async fn ten_megabytes_each_way() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (near, far) = pair(&a, &b).await;
    assert_eq!(near.peer_addr(), b.local_addr());
    assert_eq!(far.peer_addr(), a.local_addr());
    let run = async |stream: UtpStream, send: Vec<u8>, expect: Vec<u8>| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let write = async {
            writer.write_all(&send).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let read = async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(write, read);
        assert!(received == expect, "received bytes differ from those sent");
    };
    let (up, down) = (pattern(10 << 20, 1), pattern(10 << 20, 2));
    tokio::join!(run(near, up.clone(), down.clone()), run(far, down, up));
}

#[tokio::test]
async fn a_hundred_connections_to_one_address() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let server = async {
        for _ in 0..100 {
            let mut stream = b.accept().await.unwrap();
            net.spawn(Box::pin(async move {
                let mut request = Vec::new();
                stream.read_to_end(&mut request).await.unwrap();
                request.reverse();
                stream.write_all(&request).await.unwrap();
                stream.shutdown().await.unwrap();
            }))
            .detach();
        }
    };
    let clients = futures_util::future::join_all((0..100).map(async |i| {
        let mut stream = a.connect(b.local_addr()).await.unwrap();
        let mut request = pattern(5000, i);
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        request.reverse();
        assert_eq!(reply, request);
    }));
    tokio::join!(server, clients);
}

#[tokio::test]
async fn both_ends_may_connect_to_each_other_and_to_themselves() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut to_b, mut from_a) = pair(&a, &b).await;
    let (mut to_a, mut from_b) = pair(&b, &a).await;
    let (mut loop_out, mut loop_in) = pair(&a, &a).await;
    for (out, into, byte) in
        [(&mut to_b, &mut from_a, 1u8), (&mut to_a, &mut from_b, 2), (&mut loop_out, &mut loop_in, 3)]
    {
        out.write_u8(byte).await.unwrap();
        assert_eq!(into.read_u8().await.unwrap(), byte);
    }
}

#[tokio::test]
async fn the_acceptor_may_speak_first() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    far.write_all(b"welcome").await.unwrap();
    let mut greeting = [0; 7];
    near.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"welcome");
}

#[tokio::test]
async fn malformed_packets_are_counted_and_the_endpoint_goes_on() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    assert_eq!(b.malformed(), 0);
    // A STATE whose selective ack is longer than the packet.
    let mut broken = vec![0x21, 1];
    broken.resize(20, 0);
    broken.extend([0, 200]);
    a.send_datagram(b.local_addr(), broken.into());
    let (mut near, mut far) = pair(&a, &b).await;
    near.write_all(b"still there").await.unwrap();
    far.read_exact(&mut [0; 11]).await.unwrap();
    assert_eq!(b.malformed(), 1);
}

#[tokio::test]
async fn settings_may_be_absurdly_long() {
    let net = network();
    let forever = Config::default()
        .connect_timeout(Duration::MAX)
        .give_up_after(Duration::MAX)
        .idle_timeout(Some(Duration::MAX))
        .keep_alive(Some(Duration::MAX))
        .linger(Duration::MAX);
    let bound = || Endpoint::bind(&net, "127.0.0.1:0".parse().unwrap(), EndpointConfig::default().utp(forever.clone()));
    let (a, b) = (bound().unwrap(), bound().unwrap());
    let (mut near, mut far) = pair(&a, &b).await;
    near.write_all(b"x").await.unwrap();
    far.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn one_side_may_finish_and_the_other_go_on() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
    let reply = pattern(100_000, 3);
    far.write_all(&reply).await.unwrap();
    far.shutdown().await.unwrap();
    let mut received = Vec::new();
    near.read_to_end(&mut received).await.unwrap();
    assert!(received == reply);
    let error = near.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_reset_fails_the_peer() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (near, mut far) = pair(&a, &b).await;
    near.reset();
    let error = far.read(&mut [0; 10]).await.unwrap_err();
    assert!(error.to_string().contains("UTP_ECONNRESET"), "{error}");
    let error = far.write_all(b"x").await.unwrap_err();
    assert!(error.to_string().contains("UTP_ECONNRESET"), "{error}");
}

#[tokio::test]
async fn connecting_to_a_dead_port_times_out() {
    let net = network();
    let config = EndpointConfig::default().connect_timeout(Duration::from_millis(600));
    let a = Endpoint::bind(&net, SocketAddr::from(([127, 0, 0, 1], 0)), config).unwrap();
    // Bound, but nobody answers.
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = a.connect(dead.local_addr().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("UTP_ETIMEDOUT"), "{error}");
}

#[tokio::test]
async fn datagrams_pass_beside_streams() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut first, mut second) = (b.datagrams(), b.datagrams());
    let (mut near, mut far) = pair(&a, &b).await;
    near.write_all(b"stream").await.unwrap();
    for payload in [&b"\xc3\xbf"[..], b"", b"[\"a message of more than twenty bytes\"]"] {
        a.send_datagram(b.local_addr(), Bytes::from_static(payload));
        for subscriber in [&mut first, &mut second] {
            let datagram = subscriber.recv().await.unwrap();
            assert_eq!((datagram.from, &datagram.payload[..]), (a.local_addr(), payload));
        }
    }
    let mut received = [0; 6];
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"stream");
    assert_eq!(a.dropped_datagrams(), 0);
}

#[tokio::test]
async fn dropping_a_stream_delivers_what_was_written() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    let sent = pattern(500_000, 4);
    near.write_all(&sent).await.unwrap();
    drop(near);
    drop(a);
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn closing_the_endpoint_delivers_and_then_refuses() {
    let net = network();
    let (a, b) = (endpoint(&net), endpoint(&net));
    let (mut near, mut far) = pair(&a, &b).await;
    let sent = pattern(500_000, 5);
    near.write_all(&sent).await.unwrap();
    let read = async {
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        far.shutdown().await.unwrap();
        received
    };
    let ((), received) = tokio::join!(a.close(), read);
    assert!(received == sent);
    assert!(a.accept().await.is_none());
    assert!(a.connect(b.local_addr()).await.is_err());
    // The port is free again.
    drop(near);
    Endpoint::bind(&net, a.local_addr(), EndpointConfig::default()).unwrap();
}

/// A plain socket beside the endpoint, to say what no endpoint says.
async fn raw(peer: &Endpoint) -> tokio::net::UdpSocket {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(peer.local_addr()).await.unwrap();
    socket
}

fn syn(id: u16) -> Vec<u8> {
    let mut bytes = hex::decode("410045673e9ae96b000000000010000023c60000").unwrap();
    bytes[2..4].copy_from_slice(&id.to_be_bytes());
    bytes
}

#[tokio::test]
async fn bep29_a_packet_of_an_unknown_connection_is_reset_once() {
    let net = network();
    let endpoint = endpoint(&net);
    let socket = raw(&endpoint).await;
    let offending = hex::decode("01001111000003e80000000000100000000500045b5d").unwrap();
    let mut answer = [0; 100];
    for _ in 0..2 {
        socket.send(&offending).await.unwrap();
    }
    // The SYN is answered after whatever the others are answered with.
    socket.send(&syn(5)).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let len = socket.recv(&mut answer).await.unwrap();
        let packet = Repr::parse(&answer[..len]).unwrap();
        if packet.kind == Kind::Reset {
            assert_eq!((packet.connection_id, packet.ack.0, packet.window), (0x1111, 5, 0));
        }
        kinds.push(packet.kind);
    }
    assert_eq!(kinds, [Kind::Reset, Kind::State]);
}

#[tokio::test]
async fn a_flood_of_syns_makes_the_oldest_be_forgotten_but_not_for_good() {
    let net = network();
    let config = EndpointConfig::default().max_half_open(3);
    let endpoint = Endpoint::bind(&net, SocketAddr::from(([127, 0, 0, 1], 0)), config).unwrap();
    let socket = raw(&endpoint).await;
    for id in 0..50 {
        socket.send(&syn(id * 2)).await.unwrap();
    }
    let mut answer = [0; 100];
    let mut syn_acks = Vec::new();
    for expected in 0..50 {
        let len = socket.recv(&mut answer).await.unwrap();
        let syn_ack = Repr::parse(&answer[..len]).unwrap();
        assert_eq!((syn_ack.kind, syn_ack.connection_id), (Kind::State, expected * 2));
        syn_acks.push((syn_ack.connection_id, syn_ack.seq, syn_ack.ack));
    }
    assert_eq!(endpoint.connections(), 3);
    assert_eq!(endpoint.limits().times(Limit::HalfOpen), 47);
    // The oldest of all was forgotten long since. Its peer goes on, and the number of our SYN-ACK brings it back.
    let (id, seq, ack) = syn_acks[0];
    let mut data = Repr::parse(&answer[..20]).unwrap();
    let payload = b"back";
    (data.kind, data.payload) = (Kind::Data, payload);
    (data.connection_id, data.seq, data.ack) = (id + 1, ack + 1, seq - 1);
    // A wrong number is a guess, and gets a RESET.
    let guess = Repr { connection_id: syn_acks[1].0 + 1, ack: syn_acks[1].1 + 5, ..data };
    for packet in [guess, data] {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        socket.send(&bytes).await.unwrap();
    }
    let mut stream = endpoint.accept().await.unwrap();
    let mut received = [0; 4];
    stream.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, payload);
    let len = socket.recv(&mut answer).await.unwrap();
    assert_eq!(Repr::parse(&answer[..len]).unwrap().kind, Kind::Reset);
    assert_eq!(endpoint.connections(), 3, "another half-open one went for it");
}

#[tokio::test]
async fn events_tell_of_connections_and_of_what_is_malformed() {
    let recorded = Recorded::new();
    let near: Net = recorded.clone();
    let far = network();
    let (a, b) = (endpoint(&near), endpoint(&far));
    let (mut connected, mut accepted) = pair(&a, &b).await;
    let socket = raw(&a).await;
    let mut malformed = syn(1);
    malformed[1] = 1;
    socket.send(&malformed).await.unwrap();
    // What comes after it has been handled too.
    let mut datagrams = a.datagrams();
    socket.send(b"after").await.unwrap();
    datagrams.recv().await.unwrap();
    accepted.shutdown().await.unwrap();
    connected.shutdown().await.unwrap();
    let (other, gone) = pair(&a, &b).await;
    gone.reset();
    let mut other = other;
    other.read(&mut [0; 1]).await.unwrap_err();
    let peer = b.local_addr();
    assert_eq!(
        recorded.events(),
        [
            Event::UtpConnected { peer, initiator: true },
            Event::Malformed {
                layer: "utp",
                from: socket.local_addr().unwrap(),
                reason: "the extension at byte 20 runs past the end; drop the datagram".to_owned()
            },
            Event::UtpClosed { peer, reason: "closed".to_owned() },
            Event::UtpConnected { peer, initiator: true },
            Event::UtpClosed { peer, reason: "UTP_ECONNRESET".to_owned() },
        ]
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let net = network();
    let config = EndpointConfig::default().max_connections(1);
    let a = Endpoint::bind(&net, SocketAddr::from(([127, 0, 0, 1], 0)), config).unwrap();
    let b = endpoint(&net);
    let _one = pair(&a, &b).await;
    assert_eq!(a.connect(b.local_addr()).await.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
}
