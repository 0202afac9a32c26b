//! The client of a Grape: announces names, looks them up, puts and gets values.
//!
//! A call is a `POST` of `{"rid": uuid, "data": …}` to the Grape's HTTP API.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lru::LruCache;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::call::{Call, Caller};
use self::coalesce::Calls;
use crate::event::Event;
use crate::net::{Net, Task};

mod call;
mod coalesce;

pub use call::{LinkError, MAX_ADDRESSES};

/// How many names a link keeps the addresses of. At the limit the one unused for longest goes.
pub const MAX_CACHED: NonZeroUsize = NonZeroUsize::new(2500).expect("not zero");

/// How soon [`Link::start_announcing`] tries again after a failure.
pub const ANNOUNCE_RETRY: Duration = Duration::from_secs(1);

/// The interval of [`Link::start_announcing`] that others use.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(120);

/// The longest time between two announces and that an address is cached: far above what either is good for.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Settings of a [`Link`].
#[derive(Debug, Clone)]
pub struct LinkConfig {
    grape: SocketAddr,
    timeout: Duration,
    tries: u32,
    cache: Duration,
}

impl LinkConfig {
    /// The defaults, for the Grape whose HTTP API is at this address.
    pub fn new(grape: SocketAddr) -> Self {
        Self { grape, timeout: Duration::from_millis(2500), tries: 3, cache: Duration::from_secs(10) }
    }

    /// How long one try of a call may take (default 2500 ms).
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How often an announce or a lookup is tried where the Grape is not reached (default 3, at least 1). What the
    /// Grape refuses is not tried again.
    pub fn tries(self, tries: u32) -> Self {
        Self { tries: tries.max(1), ..self }
    }

    /// How long a lookup's addresses are used again (default 10 s, at most a day; zero turns the cache off).
    pub fn cache(self, cache: Duration) -> Self {
        Self { cache: cache.min(DAY), ..self }
    }
}

/// A client of one Grape. Cheap to clone; clones share the cache and the calls under way.
///
/// ```no_run
/// use grenache::link::{ANNOUNCE_INTERVAL, Link, LinkConfig, LinkError};
/// # async fn example(net: grenache::net::Net) -> Result<(), LinkError> {
/// let link = Link::new(&net, LinkConfig::new("127.0.0.1:30001".parse().unwrap()));
/// let _announcing = link.start_announcing("rpc_test", 1337, ANNOUNCE_INTERVAL);
/// let addresses = link.lookup("fibonacci_worker").await?;
/// # drop(addresses);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    caller: Arc<Caller>,
    cache_for: Duration,
    cache: Arc<Mutex<LruCache<String, Cached>>>,
    announces: Calls<Result<u64, LinkError>>,
    lookups: Calls<Result<Vec<SocketAddr>, LinkError>>,
    puts: Calls<Result<String, LinkError>>,
    gets: Calls<Result<Option<Value>, LinkError>>,
}

#[derive(Debug)]
struct Cached {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

impl Link {
    /// A client on this network.
    pub fn new(net: &Net, config: LinkConfig) -> Self {
        let caller = Caller {
            net: net.clone(),
            grape: config.grape,
            timeout: config.timeout,
            tries: config.tries,
            rng: Mutex::new(net.rng("link")),
        };
        Self(Arc::new(Inner {
            caller: Arc::new(caller),
            cache_for: config.cache,
            cache: Arc::new(Mutex::new(LruCache::new(MAX_CACHED))),
            announces: Calls::new(),
            lookups: Calls::new(),
            puts: Calls::new(),
            gets: Calls::new(),
        }))
    }

    /// Announces that a service of this host listens on a port; gives how many DHT nodes took it. The address is the
    /// one that the Grape is seen at.
    ///
    /// # Errors
    /// As [`LinkError`] says; a Grape without others refuses with `No nodes to query`.
    pub async fn announce(&self, name: &str, port: u16) -> Result<u64, LinkError> {
        let data = json!([name, port]);
        let what = data.to_string();
        let (caller, name) = (self.0.caller.clone(), name.to_owned());
        let call = self.0.announces.join(&what, || {
            Box::pin(async move {
                let nodes = caller.call(Call::Announce, data, call::read_announce).await?;
                caller.net.emit(Event::Announced { name, port, nodes });
                Ok(nodes)
            })
        });
        call.await
    }

    /// Announces at once and then again and again, each time after `interval` × (0.5 … 1.5), until the guard is
    /// dropped. After a failure it tries again in a second. The interval is a day at most.
    pub fn start_announcing(&self, name: &str, port: u16, interval: Duration) -> Announcing {
        let (link, name, interval) = (self.clone(), name.to_owned(), interval.min(DAY));
        Announcing(self.0.caller.net.spawn(Box::pin(async move {
            loop {
                let pause = match link.announce(&name, port).await {
                    Ok(_) => interval
                        .mul_f64(link.0.caller.rng.lock().expect("no panic while locked").random_range(0.5..1.5)),
                    // The failure has been reported as an event.
                    Err(_) => ANNOUNCE_RETRY,
                };
                sleep(pause).await;
            }
        })))
    }

    /// Where a name is: at least one address, in the Grape's order. What was found within the last 10 s is given
    /// without a call.
    ///
    /// # Errors
    /// [`LinkError::LookupEmpty`] where nobody has announced it, else as [`LinkError`] says.
    pub async fn lookup(&self, name: &str) -> Result<Vec<SocketAddr>, LinkError> {
        let cached = {
            let mut cache = self.0.cache.lock().expect("no panic while locked");
            cache.get(name).filter(|cached| Instant::now() < cached.until).map(|cached| cached.addresses.clone())
        };
        match cached {
            Some(addresses) => Ok(addresses),
            None => self.lookup_fresh(name).await,
        }
    }

    /// As [`lookup`](Self::lookup), but always asks the Grape.
    ///
    /// # Errors
    /// As those of [`lookup`](Self::lookup).
    pub async fn lookup_fresh(&self, name: &str) -> Result<Vec<SocketAddr>, LinkError> {
        let (caller, cache, cache_for) = (self.0.caller.clone(), self.0.cache.clone(), self.0.cache_for);
        let call = self.0.lookups.join(name, || {
            let name = name.to_owned();
            Box::pin(async move {
                let found = caller.call(Call::Lookup, json!(name), call::read_lookup).await;
                let mut cache = cache.lock().expect("no panic while locked");
                match &found {
                    Ok(addresses) => {
                        cache.put(
                            name.clone(),
                            Cached { addresses: addresses.clone(), until: Instant::now() + cache_for },
                        );
                        caller.net.emit(Event::LookedUp { name, addresses: addresses.clone() });
                    }
                    Err(LinkError::LookupEmpty) => drop(cache.pop(&name)),
                    Err(_) => {}
                }
                found
            })
        });
        call.await
    }

    /// Stores an immutable text (BEP 44) of less than 1000 bytes in the DHT; gives its hash, 40 hex digits.
    ///
    /// # Errors
    /// As [`LinkError`] says.
    pub async fn put(&self, text: &str) -> Result<String, LinkError> {
        let caller = self.0.caller.clone();
        let data = json!({ "v": text });
        let call =
            self.0.puts.join(text, || Box::pin(async move { caller.call(Call::Put, data, call::read_put).await }));
        call.await
    }

    /// The value that was stored under a hash: a string, where [`put`](Self::put) stored it; `None` where it is not
    /// found.
    ///
    /// # Errors
    /// As [`LinkError`] says.
    pub async fn get(&self, hash: &str) -> Result<Option<Value>, LinkError> {
        let caller = self.0.caller.clone();
        let data = json!(hash);
        let call =
            self.0.gets.join(hash, || Box::pin(async move { caller.call(Call::Get, data, call::read_get).await }));
        call.await
    }
}

/// Announces a name for as long as it lives: see [`Link::start_announcing`].
#[derive(Debug)]
#[must_use = "dropping it ends the announcing"]
pub struct Announcing(#[expect(dead_code, reason = "the task ends with it")] Task);
