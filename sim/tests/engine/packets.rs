//! Packet times and fates.

use std::future::poll_fn;
use std::time::Duration;

use grenache::net::Transmit;
use tokio::time::{Instant, sleep};

use crate::lab::{Lab, address, bind, deliveries, drops, lines, ms, receive, receives, send, udp};

const A: &str = "203.0.113.1:1000";
const B: &str = "203.0.113.2:2000";

fn two(latency: Duration) -> Lab {
    Lab::new().node("a", "203.0.113.1").node("b", "203.0.113.2").link(&["a", "b"], latency, |_| {})
}

#[test]
fn a_ping_takes_exactly_its_latency() {
    for (latency, one_way) in [
        (ms(10), ms(20)),
        (Duration::from_micros(123), Duration::from_micros(246)),
        (Duration::from_nanos(1_234_567), Duration::from_nanos(2_469_134)),
        // A hop takes a microsecond at least.
        (Duration::ZERO, Duration::from_micros(2)),
    ] {
        let (times, _) = two(latency).run(async |world| {
            let (a, b) = (udp(&world, "a", 1000), udp(&world, "b", 2000));
            let echo = b.clone();
            let seen = world.clone();
            world.spawn("b", async move {
                loop {
                    let (payload, from) = receive(&echo).await;
                    assert_eq!(from, address(A));
                    send(&echo, from, &payload).await;
                    let _ = seen.now();
                }
            });
            let mut times = Vec::new();
            for _ in 0..3 {
                let (sent, by_tokio) = (world.now(), Instant::now());
                send(&a, B, b"ping").await;
                assert_eq!(receive(&a).await, (b"ping".to_vec(), address(B)));
                assert_eq!(by_tokio.elapsed(), world.now() - sent);
                times.push(world.now() - sent);
                // Off the millisecond, for the next one.
                tokio::task::yield_now().await;
            }
            times
        });
        assert_eq!(times, [one_way * 2; 3], "over {latency:?}");
    }
}

#[test]
fn the_rate_spaces_packets() {
    // 1,000 bytes with headers at 8 Mbit/s take a millisecond on each of the two links; 500 bytes half of it.
    let lab = Lab::new().node("a", "203.0.113.1").node("b", "203.0.113.2");
    let lab = lab.link(&["a", "b"], ms(10), |link| link.rate = Some(8_000_000));
    let (_, records) = lab.run(async |world| {
        let (a, b) = (udp(&world, "a", 1000), udp(&world, "b", 2000));
        for size in [1000, 1000, 500] {
            send(&a, B, &vec![0; size - 28]).await;
        }
        for _ in 0..3 {
            receive(&b).await;
        }
    });
    assert_eq!(deliveries(&records), [22_000_000, 23_000_000, 23_500_000]);
}

#[test]
fn timers_and_packets_keep_their_order() {
    let (order, _) = two(Duration::from_micros(2_750)).run(async |world| {
        let (a, b) = (udp(&world, "a", 1000), udp(&world, "b", 2000));
        let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        send(&a, B, b"at 5.5").await;
        let packets = async {
            receive(&b).await;
            order.borrow_mut().push(("packet", world.now()));
            send(&b, A, b"at 11").await;
            receive(&a).await;
            order.borrow_mut().push(("packet", world.now()));
        };
        let timers = async {
            for at in [5, 6, 11, 12] {
                tokio::time::sleep_until(Instant::now() + ms(at) - world.now()).await;
                order.borrow_mut().push(("timer", world.now()));
            }
        };
        futures_util::future::join(packets, timers).await;
        order.take()
    });
    let micros = |(what, at): &(&'static str, Duration)| (*what, at.as_micros());
    let expected = [
        ("timer", 5_000),
        ("packet", 5_500),
        ("timer", 6_000),
        ("timer", 11_000),
        ("packet", 11_000),
        ("timer", 12_000),
    ];
    assert_eq!(order.iter().map(micros).collect::<Vec<_>>(), expected);
}

#[test]
fn a_batch_is_sent_as_datagrams() {
    let (sizes, _) = two(ms(1)).run(async |world| {
        let (a, b) = (udp(&world, "a", 1000), udp(&world, "b", 2000));
        let contents: Vec<u8> = (0..2_500).map(|n| n as u8).collect();
        let batch = Transmit { destination: address(B), contents: &contents, segment_size: Some(1_000) };
        poll_fn(|cx| a.socket.poll_send(cx, &batch)).await.unwrap();
        sleep(ms(10)).await;
        // Three wait: received as one buffer of three, as receive offload does.
        let mut buffers = [vec![0; 8 * 2048], vec![0; 8 * 2048]];
        let mut meta = [grenache::net::RecvMeta::default(); 2];
        let count = poll_fn(|cx| {
            let [first, second] = &mut buffers;
            let mut slices = [std::io::IoSliceMut::new(first), std::io::IoSliceMut::new(second)];
            b.socket.poll_recv(cx, &mut slices, &mut meta)
        });
        assert_eq!(count.await.unwrap(), 1);
        assert_eq!(buffers[0][..2_500], contents);
        (meta[0].len, meta[0].stride)
    });
    assert_eq!(sizes, (2_500, 1_000));
}

#[test]
fn every_drop_names_its_hop_and_rule() {
    let lab = two(ms(10)).node("c", "203.0.113.3").link(&["c"], ms(1), |link| {
        link.rate = Some(1_000_000);
        link.queue = 3 << 10;
    });
    let (_, records) = lab.run(async |world| {
        let (a, c) = (udp(&world, "a", 1000), udp(&world, "c", 3000));
        send(&a, "203.0.113.9:9", b"nobody has this address").await;
        send(&a, "203.0.113.2:9", b"nobody has this port").await;
        send(&a, B, &[0; 1_473]).await;
        sleep(ms(100)).await;
        world.crash("b");
        send(&a, B, b"nobody is up").await;
        sleep(ms(100)).await;
        for _ in 0..3 {
            send(&c, A, &[0; 1_000]).await;
        }
        sleep(ms(100)).await;
    });
    assert_eq!(
        drops(&records),
        [
            "host a: larger than the MTU of 1500",
            "internet: no host at 203.0.113.9",
            "host b: no socket on port 9",
            "host b: host is down",
            "link kind1 of c, up: queue full (3 KiB)",
        ]
    );
}

#[test]
fn loss_is_random_and_lost_packets_are_gone() {
    let mut lab = two(ms(10)).link(&["a"], ms(10), |link| link.loss = 0.1);
    lab.seed = 42;
    let (received, records) = lab.run(async |world| {
        let (a, b) = (udp(&world, "a", 1000), udp(&world, "b", 2000));
        for nth in 0..1_000_u32 {
            send(&a, B, &nth.to_be_bytes()).await;
            sleep(ms(1)).await;
        }
        let mut received = 0;
        while receives(&b).await {
            received += 1;
        }
        received
    });
    let dropped = drops(&records);
    assert!(dropped.iter().all(|line| line == "link kind1 of a, up: random loss of 10%"), "{dropped:?}");
    assert_eq!(received + dropped.len(), 1_000);
    assert!((70..130).contains(&dropped.len()), "{} lost", dropped.len());
}

#[test]
fn another_host_changes_nobodys_luck() {
    let lossy = |lab: Lab| lab.link(&["a", "b"], ms(10), |link| (link.loss, link.jitter) = (0.2, ms(5)));
    let fates = |lab: Lab, noisy: bool| {
        let (_, records) = lossy(lab).run(async |world| {
            let (a, _b) = (udp(&world, "a", 1000), udp(&world, "b", 2000));
            if noisy {
                let noise = udp(&world, "0-noise", 1);
                world.spawn("0-noise", async move {
                    loop {
                        send(&noise, B, b"noise").await;
                        sleep(ms(3)).await;
                    }
                });
            }
            for _ in 0..200 {
                send(&a, "203.0.113.4:9", b"x").await;
                sleep(ms(7)).await;
            }
        });
        let of_a = |line: &String| line.contains("of a, up");
        lines(&records)
            .into_iter()
            .filter(of_a)
            .map(|line| line[..line.find(',').unwrap()].to_owned())
            .collect::<Vec<_>>()
    };
    let alone = fates(two(ms(1)).node("d", "203.0.113.4"), false);
    let beside = fates(two(ms(1)).node("d", "203.0.113.4").node("0-noise", "203.0.113.5"), true);
    assert!(!alone.is_empty());
    assert_eq!(alone, beside);
}

#[test]
fn a_host_reaches_itself() {
    let (from, _) = two(ms(10)).run(async |world| {
        let net = world.network("a");
        let local = bind(&net, "127.0.0.1:7000");
        let own = bind(&net, "203.0.113.1:7000");
        let sender = udp(&world, "a", 0);
        assert!(sender.socket.local_addr().unwrap().port() >= 49_152);
        let mut from = Vec::new();
        for (to, socket) in [("127.0.0.1:7000", &local), ("203.0.113.1:7000", &own)] {
            send(&sender, to, b"x").await;
            let (_, source) = receive(socket).await;
            assert_eq!(source.port(), sender.socket.local_addr().unwrap().port());
            from.push(source.ip().to_string());
        }
        let taken = |at: &str| net.bind_udp(address(at)).unwrap_err().kind();
        assert_eq!(taken("0.0.0.0:7000"), std::io::ErrorKind::AddrInUse);
        assert_eq!(taken("203.0.113.2:7000"), std::io::ErrorKind::AddrNotAvailable);
        assert_eq!(taken("[2001:db8::1]:7000"), std::io::ErrorKind::AddrNotAvailable);
        from
    });
    assert_eq!(from, ["127.0.0.1", "203.0.113.1"]);
}

#[test]
fn the_stream_tells_a_packets_story() {
    let lab = two(ms(10)).nat("home", "198.51.100.1").behind("home", "laptop", "192.168.1.2");
    let (_, records) = lab.run(async |world| {
        let (laptop, b) = (udp(&world, "laptop", 4000), udp(&world, "b", 2000));
        send(&laptop, B, &[0xc3, 0xbf]).await;
        receive(&b).await;
    });
    assert_eq!(
        lines(&records),
        [
            r#"{"at_ns":0,"at":"a","event":"node-started"}"#,
            r#"{"at_ns":0,"at":"b","event":"node-started"}"#,
            r#"{"at_ns":0,"at":"laptop","event":"node-started"}"#,
            r#"{"at_ns":0,"at":"laptop","event":"packet-sent","packet":1,"protocol":"udp","source":"192.168.1.2:4000","destination":"203.0.113.2:2000","size":30,"summary":"punch"}"#,
            r#"{"at_ns":1000000,"at":"home","event":"mapping-created","protocol":"udp","internal":"192.168.1.2:4000","external":"198.51.100.1:4000"}"#,
            r#"{"at_ns":1000000,"at":"home","event":"packet-translated","packet":1,"source":"198.51.100.1:4000","destination":"203.0.113.2:2000"}"#,
            r#"{"at_ns":12000000,"at":"b","event":"packet-delivered","packet":1}"#,
        ]
    );
}
