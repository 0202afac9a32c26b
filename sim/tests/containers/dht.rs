//! Grapes in containers make one DHT, whoever's they are.

use std::net::SocketAddr;

use grenache_sim::grapes::GrapeKind::{self, Node, Rust};
use grenache_sim::grapes::container::testcontainers::{ContainerAsync, ImageExt, runners::AsyncRunner};
use grenache_sim::grapes::container::{GrapeContainer, RunningGrape};
use serde_json::json;

use crate::lab::{announce, eventually, link_to, lookup, unique};

/// Grapes on a network of their own, each of which starts from those before it.
async fn grapes(network: &str, kinds: &[GrapeKind]) -> Vec<ContainerAsync<GrapeContainer>> {
    let network = unique(network);
    let mut started: Vec<ContainerAsync<GrapeContainer>> = Vec::new();
    for kind in kinds {
        let mut known = Vec::new();
        for grape in &started {
            known.push(grape.dht_addr_inside().await.expect("it has an address"));
        }
        let grape = GrapeContainer::new(*kind).bootstrap(known).with_network(&network).start().await;
        started.push(grape.expect("the Grape starts"));
    }
    started
}

/// Announces at each and looks up at each; puts at each and gets at each.
async fn assert_one_dht(grapes: &[ContainerAsync<GrapeContainer>]) {
    let mut links = Vec::new();
    let mut announced = Vec::new();
    for (index, grape) in (0_u16..).zip(grapes) {
        let link = link_to(grape).await;
        announce(&link, "my_service", 1000 + index).await;
        let host = grape.dht_addr_inside().await.expect("it has an address");
        announced.push(SocketAddr::new((*host.ip()).into(), 1000 + index));
        links.push(link);
    }
    announced.sort_unstable();
    for link in &links {
        // A Grape does not store what is announced at itself, but it finds it at the others.
        assert_eq!(lookup(link, "my_service", announced.len()).await, announced);
    }
    for (index, link) in links.iter().enumerate() {
        let text = format!("from {index}");
        let hash = link.put(text.as_str()).await.expect("it is stored");
        for other in &links {
            let got = eventually("the value is found", || async { other.get(&hash).await.ok().flatten() }).await;
            assert_eq!(got, json!(text));
        }
    }
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn two_of_ours() {
    assert_one_dht(&grapes("two-of-ours", &[Rust, Rust]).await).await;
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn three_of_both_kinds() {
    assert_one_dht(&grapes("three-mixed", &[Node, Rust, Node]).await).await;
    assert_one_dht(&grapes("three-mixed-too", &[Rust, Node, Rust]).await).await;
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn containers_find_each_other_by_name() {
    let (network, first, second) = (unique("by-name"), unique("first"), unique("second"));
    // Its name cannot be resolved before it is there: the first has to try again.
    let one = GrapeContainer::default().bootstrap([format!("{second}:20002")]);
    let one = one.with_network(&network).with_container_name(&first).start().await.expect("it starts");
    let two = GrapeContainer::default().dht_port(20002).with_network(&network).with_container_name(&second);
    let two = two.start().await.expect("it starts");

    let link = link_to(&two).await;
    announce(&link, "my_service", 1337).await;
    let host = two.dht_addr_inside().await.expect("it has an address");
    let expected = SocketAddr::new((*host.ip()).into(), 1337);
    assert_eq!(lookup(&link_to(&one).await, "my_service", 1).await, [expected]);
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn this_machine_joins_by_the_mapped_port() {
    use grenache::grape::{Grape, GrapeConfig};
    use grenache::net::{HostNetwork, Net};

    let theirs = grapes("joined", &[Node]).await.remove(0);
    let net: Net = std::sync::Arc::new(HostNetwork::new());
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let config = GrapeConfig::default().dht_address(any).api_address(any);
    let config = config.bootstrap(vec![theirs.dht_addr().await.expect("mapped")]);
    let ours = Grape::start(&net, config).await.expect("it starts");
    ours.ready().await;
    let api = SocketAddr::from(([127, 0, 0, 1], ours.api_addr().port()));
    announce(&crate::lab::link(api), "my_service", 1337).await;
    let found = lookup(&link_to(&theirs).await, "my_service", 1).await;
    assert_eq!(found[0].port(), 1337);
}
