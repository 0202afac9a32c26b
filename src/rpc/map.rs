//! Asking every service of a name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::client::{PeerRpcClient, RequestOptions};
use super::error::RpcError;
use crate::net::BoxFuture;

/// One destination's outcome.
type Outcome = (SocketAddr, Result<Value, RpcError>);

/// The replies to one [`PeerRpcClient::map_each`], as they come. Dropping it cancels the requests still in flight.
///
/// At most [`MAX_ADDRESSES`](crate::link::MAX_ADDRESSES) requests are in flight. They are driven by
/// [`next`](Self::next) only.
#[derive(Debug)]
#[must_use = "the requests are made while `next` is awaited"]
pub struct Replies(FuturesUnordered<BoxFuture<'static, Outcome>>);

impl Replies {
    /// The next destination's address and outcome; `None` once every one was given. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(SocketAddr, Result<Value, RpcError>)> {
        self.0.next().await
    }

    /// How many outcomes are still to come.
    pub fn left(&self) -> usize {
        self.0.len()
    }
}

impl PeerRpcClient {
    /// Looks `key` up and asks every service found, or `limit` of them at random; gives each one's address and outcome,
    /// in the order of the addresses, when all are there. The timeout is for lookup and requests together.
    ///
    /// # Errors
    /// Where the lookup fails.
    pub async fn map(
        &self,
        key: &str,
        payload: &Value,
        limit: Option<usize>,
        options: RequestOptions,
    ) -> Result<Vec<(SocketAddr, Result<Value, RpcError>)>, RpcError> {
        let mut replies = self.map_each(key, payload, limit, options).await?;
        let mut outcomes = BTreeMap::new();
        while let Some((from, outcome)) = replies.next().await {
            outcomes.insert(from, outcome);
        }
        Ok(outcomes.into_iter().collect())
    }

    /// As [`map`](Self::map), but gives each outcome as it comes.
    ///
    /// ```no_run
    /// # async fn example(client: grenache::rpc::PeerRpcClient) -> Result<(), grenache::rpc::RpcError> {
    /// let mut replies = client.map_each("rpc_test", &"hello".into(), None, Default::default()).await?;
    /// while let Some((from, outcome)) = replies.next().await {
    ///     println!("{from}: {outcome:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As those of [`map`](Self::map).
    pub async fn map_each(
        &self,
        key: &str,
        payload: &Value,
        limit: Option<usize>,
        options: RequestOptions,
    ) -> Result<Replies, RpcError> {
        let link = self.link().ok_or(RpcError::NoLink)?;
        let deadline = Instant::now() + options.timeout;
        let found = timeout_at(deadline, link.lookup(key)).await.map_err(|_| RpcError::Timeout)??;
        let (key, payload): (Arc<str>, _) = (key.into(), Arc::new(payload.clone()));
        let asking = self.sample(found, limit).into_iter().map(|to| {
            let (client, key, payload) = (self.clone(), key.clone(), payload.clone());
            Box::pin(async move {
                let options = options.timeout(deadline.saturating_duration_since(Instant::now()));
                (to, client.request_at_with(to, &key, &payload, options).await)
            }) as BoxFuture<'static, Outcome>
        });
        Ok(Replies(asking.collect()))
    }

    /// Each address once, or `limit` of them at random, in order.
    fn sample(&self, mut addresses: Vec<SocketAddr>, limit: Option<usize>) -> Vec<SocketAddr> {
        addresses.sort_unstable();
        addresses.dedup();
        if let Some(limit) = limit.filter(|limit| *limit < addresses.len()) {
            for chosen in 0..limit {
                let other = self.rng().random_range(chosen..addresses.len());
                addresses.swap(chosen, other);
            }
            addresses.truncate(limit);
            addresses.sort_unstable();
        }
        addresses
    }
}
