//! What a peer can have a service send, and others with it.

use std::net::SocketAddr;
use std::time::Duration;

use grenache::broker::{BrokerClient, EXTENSION, PREDICTED_PORTS};
use grenache::event::Event as Stack;
use grenache::nat::Behaviour;
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient};
use grenache_sim::engine::World;
use grenache_sim::event::{Event, Record};
use grenache_sim::scenario::model::Dependence::{AddressAndPortDependent, EndpointIndependent};
use grenache_sim::scenario::model::PortAssignment::Preserving;
use serde_json::json;
use tokio::time::sleep;

use crate::lab::{address, ms};
use crate::peers::{Kind, ONE, SERVICE, broker, config, connector, endpoint, homes, worker};

const OPEN: Kind = (EndpointIndependent, EndpointIndependent);

/// How many punches a node has sent to an address.
fn punches(records: &[Record], node: &str, at: SocketAddr) -> usize {
    let to = |record: &&Record| matches!(record.event, Event::Stack(Stack::PunchSent { to }) if to == at);
    records.iter().filter(|record| record.at.as_deref() == Some(node)).filter(to).count()
}

#[test]
fn two_services_that_answer_each_others_punches_come_to_an_end() {
    let (phone, laptop) = (address("198.51.100.20:5000"), address("198.51.100.10:5000"));
    let ((), records) = homes(OPEN, OPEN, [Preserving; 2], 1).run(async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let workers = ["phone", "laptop"].map(|node| worker(&world, node));
        sleep(Duration::from_secs(4)).await;
        workers[0].puncher.punch(laptop);
        sleep(Duration::from_secs(60)).await;
    });
    let sent = [punches(&records, "phone", laptop), punches(&records, "laptop", phone)];
    assert!(sent.iter().all(|sent| (1..=5).contains(sent)), "{sent:?} in a minute");
}

#[test]
fn a_host_that_registers_many_times_does_not_hide_another_one() {
    let cone = (EndpointIndependent, AddressAndPortDependent);
    for seed in 0..8 {
        let lab = homes(cone, cone, [Preserving; 2], seed).node("hostile", "203.0.113.66");
        let (report, _) = lab.run(async |world: World| {
            let _broker = broker(&world, "one", None);
            let _worker = worker(&world, "laptop");
            sleep(Duration::from_secs(4)).await;
            let net = world.network("hostile");
            let clients = (7000..7040).map(|port| {
                PeerRpcClient::new(&endpoint(&net, &format!("0.0.0.0:{port}")), None, ClientConfig::default())
            });
            // They say that they can be reached, and take no connection.
            let payload = json!({"service": SERVICE, "server": true, "nat": Behaviour::OPEN, "wait": 0});
            for client in clients {
                client.request_at(address(ONE), EXTENSION, &payload).await.unwrap();
            }
            let connection = connector(&world, "phone", config()).connect(SERVICE).await;
            connection.unwrap_or_else(|e| panic!("seed {seed}: {e}")).report().clone()
        });
        assert_eq!(report.to, Some(address("198.51.100.10:5000")), "{report}");
        assert!(report.elapsed_ms < 8000, "{report}");
    }
}

#[test]
fn signals_do_not_have_a_service_punch_others_again_and_again() {
    let plain = address("203.0.113.7:7000");
    let lab = homes(OPEN, OPEN, [Preserving; 2], 1).node("plain", "203.0.113.7");
    let ((), records) = lab.run(async |world: World| {
        let _broker = broker(&world, "one", None);
        let _worker = worker(&world, "laptop");
        let peer = |node, at| {
            let endpoint = endpoint(&world.network(node), at);
            (PeerRpcClient::new(&endpoint, None, ClientConfig::default()), Puncher::new(&endpoint))
        };
        // A client of the original's, and one that knows the extension and means no good.
        let (rpc, puncher) = peer("plain", "0.0.0.0:7000");
        let registering = BrokerClient::new(&rpc, &puncher, address(ONE), SERVICE, false);
        world.spawn("plain", async move { registering.run().await });
        sleep(Duration::from_secs(4)).await;
        let (hostile, _puncher) = peer("phone", "0.0.0.0:6000");
        let ask = async |more: serde_json::Value| {
            let mut payload = json!({"service": SERVICE, "server": false, "nat": null});
            payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            hostile.request_at(address(ONE), EXTENSION, &payload).await.unwrap()
        };
        let known = ask(json!({"wait": 0})).await;
        let service = known[SERVICE].as_object().unwrap().iter().find(|(_, entry)| entry["server"] == true).unwrap();
        let until = world.now() + Duration::from_secs(10);
        while world.now() < until {
            ask(json!({"do": "signal", "to": service.0, "data": "anything"})).await;
            sleep(ms(5)).await;
        }
    });
    let sent = punches(&records, "laptop", plain);
    // One each second at most; and answers to its own.
    assert!((1..=16 + 2 * usize::from(PREDICTED_PORTS)).contains(&sent), "{sent} punches of one client's port in 14 s");
}
