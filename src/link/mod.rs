//! The client of Grapes: announces names, looks them up, puts and gets values.
//!
//! A call is a `POST` of `{"rid": uuid, "data": …}` to a Grape's HTTP API.
//!
//! What bounds it: the cache ([`MAX_CACHED`]), the addresses of one lookup ([`MAX_ADDRESSES`]), an answer's size
//! ([`MAX_HTTP_ANSWER`](crate::net::MAX_HTTP_ANSWER)). Calls under way are as many as callers wait: a caller is held
//! until its call has ended, and dropping its future ends the call, unless another waits for the same.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lru::LruCache;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::call::{Call, Caller};
use self::coalesce::Calls;
use self::grapes::Grapes;
use self::value::Found;
use crate::event::Event;
use crate::net::Net;

mod announcing;
mod call;
mod coalesce;
mod config;
mod error;
mod grapes;
mod value;

pub use self::announcing::{ANNOUNCE_INTERVAL, ANNOUNCE_RETRY, Announcing};
pub use self::call::MAX_ADDRESSES;
pub use self::config::{CallOptions, LinkConfig};
pub use self::error::LinkError;
pub use self::grapes::GRAPE_REST;
pub use self::value::{KeyPair, SignedValue, immutable_hash, mutable_hash};
pub use crate::grape::krpc::ValueError;

/// How many names a link keeps the addresses of. At the limit the one unused for longest goes.
pub const MAX_CACHED: NonZeroUsize = NonZeroUsize::new(2500).expect("not zero");

/// The longest time between two announces and that an address is cached: far above what either is good for.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A client of one Grape, or of several of which the first that is reached is asked. Cheap to clone; clones share the
/// cache and the calls under way: identical ones at the same time are one.
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
pub struct Link(Arc<Inner>, CallOptions);

#[derive(Debug)]
struct Inner {
    caller: Arc<Caller>,
    cache_for: Duration,
    cache: Arc<Mutex<LruCache<String, Cached>>>,
    announces: Calls<Result<u64, LinkError>>,
    lookups: Calls<Result<Vec<SocketAddr>, LinkError>>,
    puts: Calls<Result<String, LinkError>>,
    gets: Calls<Result<Option<Found>, LinkError>>,
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
            grapes: Mutex::new(Grapes::new(config.grapes)),
            rng: Mutex::new(net.rng("link")),
        };
        let inner = Inner {
            caller: Arc::new(caller),
            cache_for: config.cache,
            cache: Arc::new(Mutex::new(LruCache::new(MAX_CACHED))),
            announces: Calls::new(),
            lookups: Calls::new(),
            puts: Calls::new(),
            gets: Calls::new(),
        };
        Self(Arc::new(inner), config.calls)
    }

    /// A handle on the same link whose calls are made in this way.
    pub fn with(&self, calls: CallOptions) -> Self {
        Self(self.0.clone(), calls)
    }

    /// Announces that a service of this host listens on a port; gives how many DHT nodes took it. The address is the
    /// one that the Grape is seen at.
    ///
    /// # Errors
    /// As [`LinkError`] says; a Grape without others refuses with `No nodes to query`.
    pub async fn announce(&self, name: &str, port: u16) -> Result<u64, LinkError> {
        let data = json!([name, port]);
        let what = self.what(&data);
        let (caller, options, name) = (self.0.caller.clone(), self.1, name.to_owned());
        let call = self.0.announces.join(&what, || {
            Box::pin(async move {
                let nodes = caller.call(Call::Announce, data, options, call::read_announce).await?;
                caller.net.emit(Event::Announced { name, port, nodes });
                Ok(nodes)
            })
        });
        call.await
    }

    /// Announces at once and then again and again, each time after `interval` × (0.5 … 1.5), until the guard is
    /// [stopped](Announcing::stop) or dropped. After a failure it tries again in a second. The interval is a day at most.
    pub fn start_announcing(&self, name: &str, port: u16, interval: Duration) -> Announcing {
        Announcing::start(self, name, port, interval)
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
        let (caller, options) = (self.0.caller.clone(), self.1);
        let (cache, cache_for) = (self.0.cache.clone(), self.0.cache_for);
        let call = self.0.lookups.join(&self.what(&json!(name)), || {
            let name = name.to_owned();
            Box::pin(async move {
                let found = caller.call(Call::Lookup, json!(name), options, call::read_lookup).await;
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

    /// Stores an immutable value (BEP 44) of less than 1000 bytes in the DHT: a text, or other JSON of whole numbers;
    /// gives its hash, 40 hex digits, which is checked.
    ///
    /// # Errors
    /// As [`LinkError`] says.
    pub async fn put(&self, value: impl Into<Value>) -> Result<String, LinkError> {
        let value = value.into();
        let hash = immutable_hash(&value)?;
        self.put_data(json!({ "v": value }), hash).await
    }

    /// Stores a mutable value (BEP 44) of less than 1000 bytes in the DHT: see [`KeyPair::sign`]. Gives the hash that it
    /// is found under, 40 hex digits, which follows from key and salt. With `cas` it is stored only where that is the
    /// sequence number of what is there.
    ///
    /// ```no_run
    /// use grenache::link::{KeyPair, Link, LinkError};
    /// # async fn example(link: Link, keys: KeyPair) -> Result<(), LinkError> {
    /// let hash = link.put_mutable(&keys.sign(None, 1, "first")?, None).await?;
    /// let found = link.get_mutable(&hash, None).await?.expect("it was just put");
    /// let second = keys.sign(None, found.sequence + 1, "second")?;
    /// match link.put_mutable(&second, Some(found.sequence)).await {
    ///     Err(LinkError::CasMismatch | LinkError::Stale) => println!("another writer was faster"),
    ///     put => drop(put?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LinkError::CasMismatch`], [`LinkError::Stale`], else as [`LinkError`] says.
    pub async fn put_mutable(&self, signed: &SignedValue, cas: Option<i64>) -> Result<String, LinkError> {
        self.put_data(signed.to_put(cas), signed.hash()).await
    }

    async fn put_data(&self, data: Value, hash: String) -> Result<String, LinkError> {
        let (caller, options) = (self.0.caller.clone(), self.1);
        let call = self.0.puts.join(&self.what(&data), || {
            Box::pin(async move {
                let read = |status, body: &[u8]| call::read_put(status, body, &hash);
                caller.call(Call::Put, data, options, read).await
            })
        });
        call.await
    }

    /// The value that was stored under a hash, as [`put`](Self::put) was given it; `None` where it is not found. It is
    /// checked: an immutable value against the hash, a mutable one without a salt against its signature too.
    ///
    /// # Errors
    /// As [`LinkError`] says.
    pub async fn get(&self, hash: &str) -> Result<Option<Value>, LinkError> {
        Ok(self.get_data(json!(hash), hash, None).await?.map(|found| match found {
            Found::Immutable(value) => value,
            Found::Mutable(signed) => signed.value,
        }))
    }

    /// The mutable value that was stored under a hash with this salt; `None` where it is not found. Hash and signature
    /// are checked. [`mutable_hash`] gives the hash from a public key.
    ///
    /// # Errors
    /// [`LinkError::Forged`] where it is an immutable one; else as [`LinkError`] says.
    pub async fn get_mutable(&self, hash: &str, salt: Option<&str>) -> Result<Option<SignedValue>, LinkError> {
        let salt = salt.filter(|salt| !salt.is_empty());
        let data = salt.map_or_else(|| json!(hash), |salt| json!({ "hash": hash, "salt": salt }));
        match self.get_data(data, hash, salt).await? {
            Some(Found::Mutable(signed)) => Ok(Some(signed)),
            Some(Found::Immutable(_)) => Err(LinkError::Forged),
            None => Ok(None),
        }
    }

    async fn get_data(&self, data: Value, hash: &str, salt: Option<&str>) -> Result<Option<Found>, LinkError> {
        let (caller, options) = (self.0.caller.clone(), self.1);
        let call = self.0.gets.join(&self.what(&data), || {
            let (hash, salt) = (hash.to_owned(), salt.map(str::to_owned));
            Box::pin(async move {
                let read = |status, body: &[u8]| call::read_get(status, body, &hash, salt.as_deref());
                caller.call(Call::Get, data, options, read).await
            })
        });
        call.await
    }

    /// What makes a call identical to another one.
    fn what(&self, data: &Value) -> String {
        format!("{:?} {data}", self.1)
    }
}
