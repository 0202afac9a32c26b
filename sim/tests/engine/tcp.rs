//! TCP between hosts.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use grenache::net::{Net, TcpStream};
use grenache_sim::engine::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::lab::{Lab, address, drops, lines, ms};

const SERVER: &str = "203.0.113.1:80";

fn homes() -> Lab {
    Lab::new()
        .nat("east", "198.51.100.1")
        .nat("west", "198.51.100.2")
        .behind("east", "a", "192.168.1.2")
        .behind("west", "b", "192.168.1.2")
        .node("server", "203.0.113.1")
}

/// The same, with 160 ± 40 ms one way and 4 % loss between any two.
fn bad_homes(seed: u64) -> Lab {
    let bad = homes().link(&["a", "b", "server"], ms(80), |link| (link.jitter, link.loss) = (ms(20), 0.02));
    Lab { seed, ..bad }
}

/// Serves each connection with `serve` in a task of its own.
async fn server<F>(world: &World, serve: fn(Box<dyn TcpStream>, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let net: Net = world.network("server");
    let mut listener = net.listen_tcp(address("0.0.0.0:80")).await.unwrap();
    world.spawn("server", async move {
        while let Ok((stream, peer)) = listener.accept().await {
            net.spawn(Box::pin(serve(stream, peer))).detach();
        }
    });
}

async fn echo(mut stream: Box<dyn TcpStream>, _: SocketAddr) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

/// Writes `bytes`, shuts down, and reads to the end.
async fn exchange(stream: Box<dyn TcpStream>, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        writer.write_all(bytes).await?;
        writer.shutdown().await
    };
    let mut answer = Vec::new();
    let read = reader.read_to_end(&mut answer);
    let (written, read) = futures_util::future::join(write, read).await;
    written.and(read)?;
    Ok(answer)
}

#[test]
fn both_homes_reach_the_server_and_are_told_apart() {
    let (_, records) = homes().run(async |world: World| {
        server(&world, |mut stream, peer| async move {
            stream.write_all(peer.to_string().as_bytes()).await.unwrap();
        })
        .await;
        for (node, outside) in [("a", "198.51.100.1"), ("b", "198.51.100.2")] {
            let mut stream = world.network(node).connect_tcp(address(SERVER)).await.unwrap();
            let mut seen = String::new();
            stream.read_to_string(&mut seen).await.unwrap();
            assert_eq!(seen.rsplit_once(':').unwrap().0, outside);
        }
    });
    assert_eq!(drops(&records), [""; 0]);
    let story = lines(&records).into_iter().find(|line| line.contains("packet-sent")).unwrap();
    assert!(story.contains(r#""protocol":"tcp""#) && story.contains(r#""summary":"tcp SYN seq="#), "{story}");
}

#[test]
fn streams_live_through_loss_reordering_and_a_nat() {
    for seed in 0..20 {
        let (took, records) = bad_homes(seed).run(async |world: World| {
            server(&world, echo).await;
            let bytes: Vec<u8> = (0..30_000_u32).map(|n| (n % 251) as u8).collect();
            for node in ["a", "b"] {
                let stream = world.network(node).connect_tcp(address(SERVER)).await.unwrap();
                assert!(exchange(stream, &bytes).await.unwrap() == bytes, "seed {seed}");
            }
            world.now()
        });
        assert!(took < Duration::from_secs(60), "seed {seed} took {took:?}");
        assert!(!drops(&records).is_empty());
    }
}

/// Answers one POST with its body.
async fn http_echo(mut stream: Box<dyn TcpStream>, _: SocketAddr) {
    let mut request = Vec::new();
    let body = loop {
        let mut chunk = [0; 1024];
        let Ok(count @ 1..) = stream.read(&mut chunk).await else { return };
        request.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() == length.unwrap_or(0) {
            break body.to_owned();
        }
    };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[test]
fn http_works_over_a_bad_link() {
    let mut slowest = Duration::ZERO;
    for seed in 0..20 {
        let (took, _) = bad_homes(seed).run(async |world: World| {
            server(&world, http_echo).await;
            let http = world.network("a").http();
            let mut slowest = Duration::ZERO;
            for nth in 0..10 {
                let begin = world.now();
                let body = format!(r#"{{"rid":"{nth}","data":["name",{nth}]}}"#);
                let (status, answer) = http.post(address(SERVER), "/announce", body.clone().into()).await.unwrap();
                assert_eq!((status, &answer[..]), (200, body.as_bytes()));
                slowest = slowest.max(world.now() - begin);
            }
            slowest
        });
        slowest = slowest.max(took);
    }
    assert!(slowest < Duration::from_secs(15), "{slowest:?}");
}

#[test]
fn a_good_link_takes_its_round_trips() {
    let lab = homes().link(&["a"], Duration::from_micros(10_500), |_| {});
    let (took, _) = lab.run(async |world: World| {
        server(&world, http_echo).await;
        let answer = world.network("a").http().post(address(SERVER), "/", "{}".into()).await.unwrap();
        assert_eq!(answer.0, 200);
        world.now()
    });
    // Two round trips over 10.5 + 1 (the NAT's) + 1 (the server's) ms.
    assert_eq!(took, Duration::from_millis(50));
}

#[test]
fn a_closed_port_refuses_and_a_taken_one_too() {
    let (_, records) = homes().run(async |world: World| {
        let net = world.network("server");
        let listener = net.listen_tcp(address(SERVER)).await.unwrap();
        assert_eq!(listener.local_addr().unwrap(), address(SERVER));
        assert_eq!(net.listen_tcp(address("0.0.0.0:80")).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        net.listen_tcp(address("0.0.0.0:80")).await.unwrap();
        let kind = |result: std::io::Result<_>| result.map(|_: Box<dyn TcpStream>| ()).unwrap_err().kind();
        assert_eq!(kind(world.network("a").connect_tcp(address("203.0.113.1:81")).await), ErrorKind::ConnectionRefused);
        assert_eq!(kind(net.connect_tcp(address("127.0.0.1:81")).await), ErrorKind::ConnectionRefused);
        world.crash("server");
        assert_eq!(kind(world.network("a").connect_tcp(address(SERVER)).await), ErrorKind::TimedOut);
        assert_eq!(world.now().as_secs(), 63);
    });
    let no_socket = drops(&records).into_iter().filter(|drop| drop == "host server: no socket on port 81");
    assert_eq!(no_socket.count(), 2);
}

#[test]
fn a_dropped_connect_leaves_nothing_behind() {
    let (_, records) = homes().run(async |world: World| {
        world.crash("server");
        let connecting = world.network("a").connect_tcp(address(SERVER));
        assert!(timeout(ms(1_500), connecting).await.is_err());
        sleep(Duration::from_secs(100)).await;
    });
    assert_eq!(drops(&records), ["host server: host is down"; 2], "one SYN and one more");
}

#[test]
fn a_server_that_restarts_resets_old_connections() {
    homes().run(async |world: World| {
        server(&world, echo).await;
        let mut stream = world.network("a").connect_tcp(address(SERVER)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).await.unwrap();
        // Until everything is acknowledged: an acknowledgement would meet the new life, and a reset come of it.
        sleep(ms(1_000)).await;
        world.crash("server");
        world.start("server");
        server(&world, echo).await;
        assert!(timeout(ms(5_000), stream.read(&mut buffer)).await.is_err(), "nobody is told");
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let again = world.network("a").connect_tcp(address(SERVER)).await.unwrap();
        assert_eq!(exchange(again, b"hello").await.unwrap(), b"hello");
    });
}
