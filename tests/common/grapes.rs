//! Two embedded Grapes on loopback, the fewest that announces and puts work with.

use std::net::SocketAddr;

use grenache::grape::{Grape, GrapeConfig};
use grenache::net::Net;

use super::any_port;

/// Both know each other.
pub(crate) async fn two_grapes(net: &Net) -> (Grape, Grape) {
    let config = || GrapeConfig::default().dht_address(any_port()).api_address(any_port());
    let first = Grape::start(net, config()).await.unwrap();
    let SocketAddr::V4(known) = first.dht_addr() else { unreachable!("loopback is IPv4 here") };
    let second = Grape::start(net, config().bootstrap(vec![known])).await.unwrap();
    second.ready().await;
    first.until(|stats| stats.nodes == 1).await;
    (first, second)
}
