//! Whether Grapes know each other: what is announced at each is found at every other.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use grenache::link::{Link, LinkConfig};
use grenache::net::Net;
use tokio::time::{sleep, timeout};

use super::{GrapeSpec, GrapesError};

/// How long to wait before an announce or a lookup is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How many Grapes are asked for: a Grape gives at most 100 addresses of a name.
const MOST: usize = 100;

/// Waits until every Grape finds what is announced at each other. `name` is announced for it, and expires by itself;
/// nobody else should use it. A lone Grape has nobody to know.
///
/// # Errors
/// Where one does not within `patience`.
pub async fn acquainted(net: &Net, grapes: &[&GrapeSpec], name: &str, patience: Duration) -> Result<(), GrapesError> {
    let grapes = &grapes[..grapes.len().min(MOST)];
    if grapes.len() < 2 {
        return Ok(());
    }
    let links: Vec<Link> = grapes.iter().map(|grape| Link::new(net, LinkConfig::new(grape.api()).tries(1))).collect();
    // The port that a Grape announces is its own DHT port: by it the others know it.
    let announced = join_all(links.iter().zip(grapes).map(|(link, grape)| async move {
        while link.announce(name, grape.dht_port).await.is_err() {
            sleep(PAUSE).await;
        }
    }));
    let all: BTreeSet<u16> = grapes.iter().map(|grape| grape.dht_port).collect();
    let mut missing: Vec<BTreeSet<u16>> = vec![all; grapes.len()];
    let met = async {
        announced.await;
        join_all(links.iter().zip(&mut missing).map(|(link, missing)| async move {
            while !missing.is_empty() {
                for address in link.lookup_fresh(name).await.unwrap_or_default() {
                    missing.remove(&address.port());
                }
                if !missing.is_empty() {
                    sleep(PAUSE).await;
                }
            }
        }))
        .await;
    };
    if timeout(patience, met).await.is_ok() {
        return Ok(());
    }
    let name_of = |port: u16| grapes.iter().find(|grape| grape.dht_port == port).map(|grape| grape.name.clone());
    let stranger = grapes.iter().zip(&missing).find_map(|(grape, missing)| Some((grape, name_of(*missing.first()?)?)));
    match stranger {
        Some((grape, missing)) => Err(GrapesError::Strangers { name: grape.name.clone(), missing, waited: patience }),
        None => Ok(()),
    }
}
