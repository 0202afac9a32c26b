//! Who is out there: the broker's memory, without I/O.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How many entries a registry holds. At the limit the one unrenewed for longest goes.
pub const MAX_ENTRIES: NonZeroUsize = NonZeroUsize::new(500).expect("not zero");

/// How long an entry lives that is not renewed. Peers renew theirs every 2 s.
pub const ENTRY_LIFETIME: Duration = Duration::from_secs(15);

/// The longest service name, in bytes.
pub const MAX_SERVICE: usize = 256;

/// A peer that has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The service's name.
    pub service: String,
    /// Whether it offers the service; else it wants to use it.
    pub server: bool,
    /// The address that the broker sees it at.
    pub address: IpAddr,
    /// The port that the broker sees it at.
    pub port: u16,
}

impl Entry {
    /// Address and port: where to punch.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The key that it is told under: the MD5 of its JSON text, in hex.
    fn key(&self) -> String {
        let text = serde_json::to_vec(self).expect("strings, numbers and booleans can be written as JSON");
        hex::encode(Md5::digest(text))
    }
}

/// What a peer registers as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The service's name, 1 to [`MAX_SERVICE`] bytes.
    pub service: String,
    /// Whether it offers the service.
    pub server: bool,
}

/// A payload that is no registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ERR_BROKER_PAYLOAD: {0}")]
pub struct MalformedRegistration(String);

impl TryFrom<&Value> for Registration {
    type Error = MalformedRegistration;

    /// Reads `{"service": name, "server": bool}`; further keys are ignored.
    fn try_from(payload: &Value) -> Result<Self, Self::Error> {
        let malformed = |reason: &str| MalformedRegistration(reason.to_owned());
        let object = payload.as_object().ok_or_else(|| malformed("register with an object"))?;
        let service = object.get("service").and_then(Value::as_str).unwrap_or_default();
        if service.is_empty() || service.len() > MAX_SERVICE {
            return Err(malformed("service must be a name of 1 to 256 bytes"));
        }
        let server = object.get("server").and_then(Value::as_bool);
        let server = server.ok_or_else(|| malformed("server must be true or false"))?;
        Ok(Self { service: service.to_owned(), server })
    }
}

/// The peers that have registered lately.
#[derive(Debug)]
pub struct Registry {
    /// By key, with when each was last renewed: the least recently used is the oldest.
    entries: LruCache<String, (Instant, Entry)>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { entries: LruCache::new(MAX_ENTRIES) }
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a peer, or renews it, and gives the answer: `{service: {key: entry, …}}` with every entry of its service,
    /// its own included.
    pub fn register(&mut self, now: Instant, from: SocketAddr, registration: Registration) -> Value {
        let Registration { service, server } = registration;
        // A dual-stack socket sees IPv4 peers at mapped addresses, which they could not punch each other at.
        let entry = Entry { service, server, address: from.ip().to_canonical(), port: from.port() };
        let service = entry.service.clone();
        self.expire(now);
        self.entries.put(entry.key(), (now, entry));
        let entries: Map<String, Value> = self
            .entries
            .iter()
            .filter(|(_, (_, entry))| entry.service == service)
            .map(|(key, (_, entry))| (key.clone(), serde_json::to_value(entry).expect("it can be written as JSON")))
            .collect();
        Value::Object(Map::from_iter([(service, Value::Object(entries))]))
    }

    /// How many peers are registered.
    pub fn len(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.entries.len()
    }

    fn expire(&mut self, now: Instant) {
        while self.entries.peek_lru().is_some_and(|(_, (renewed, _))| now >= *renewed + ENTRY_LIFETIME) {
            self.entries.pop_lru();
        }
    }
}

/// Reads a broker's answer: the entries of `service`. What is no such entry is skipped, as is what speaks of another
/// service.
pub fn entries(answer: &Value, service: &str) -> Vec<Entry> {
    let Some(entries) = answer.get(service).and_then(Value::as_object) else { return Vec::new() };
    entries
        .values()
        .filter_map(|entry| Entry::deserialize(entry).ok())
        .filter(|entry| entry.service == service && entry.port != 0)
        .take(MAX_ENTRIES.get())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn registration(service: &str, server: bool) -> Registration {
        Registration { service: service.to_owned(), server }
    }

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 5], n))
    }

    #[test]
    fn the_answer_holds_both_roles_of_the_service_and_no_other() {
        let (mut registry, now) = (Registry::new(), start());
        registry.register(now, peer(9), registration("other", true));
        registry.register(now, peer(1), registration("fibo", false));
        let answer = registry.register(now, peer(2), registration("fibo", true));
        assert_eq!(
            answer,
            json!({"fibo": {
                // `md5sum` of {"service":"fibo","server":false,"address":"203.0.113.5","port":1}
                "47a018287de20fcbd1bed31dbb77f3be": {"service": "fibo", "server": false, "address": "203.0.113.5", "port": 1},
                "1e6e863bb00781f35f3708a579b2b5dc": {"service": "fibo", "server": true, "address": "203.0.113.5", "port": 2},
            }})
        );
        let ports: Vec<(bool, u16)> = entries(&answer, "fibo").iter().map(|e| (e.server, e.port)).collect();
        assert_eq!(ports.len(), 2);
        assert!(ports.contains(&(false, 1)) && ports.contains(&(true, 2)));
    }

    #[test]
    fn an_entry_lives_for_its_lifetime_and_no_longer() {
        let (mut registry, now) = (Registry::new(), start());
        registry.register(now, peer(1), registration("fibo", true));
        assert_eq!(registry.len(now + ENTRY_LIFETIME - Duration::from_nanos(1)), 1);
        assert_eq!(registry.len(now + ENTRY_LIFETIME), 0);
        let renewed = now + Duration::from_secs(20);
        registry.register(renewed, peer(1), registration("fibo", true));
        registry.register(renewed + Duration::from_secs(2), peer(1), registration("fibo", true));
        assert_eq!(registry.len(renewed + Duration::from_secs(16)), 1, "renewing lengthens its life");
    }

    #[test]
    fn at_the_limit_the_oldest_goes() {
        let (mut registry, now) = (Registry::new(), start());
        for n in 1..=501 {
            registry.register(now, peer(n), registration("fibo", true));
        }
        let answer = registry.register(now, peer(501), registration("fibo", true));
        let found = entries(&answer, "fibo");
        assert_eq!(found.len(), 500);
        assert!(!found.iter().any(|entry| entry.port == 1));
    }

    #[test]
    fn a_mapped_address_is_told_as_the_ipv4_address_it_is() {
        let answer =
            Registry::new().register(start(), "[::ffff:192.0.2.7]:5".parse().unwrap(), registration("fibo", true));
        assert_eq!(entries(&answer, "fibo")[0].socket_addr(), "192.0.2.7:5".parse().unwrap());
    }

    #[test]
    fn payloads_that_are_no_registration() {
        let longest = "x".repeat(MAX_SERVICE);
        assert!(Registration::try_from(&json!({"service": longest, "server": true, "more": 1})).is_ok());
        for payload in [
            json!(null),
            json!([]),
            json!("fibo"),
            json!({}),
            json!({"service": "fibo"}),
            json!({"service": "fibo", "server": 1}),
            json!({"service": 1, "server": true}),
            json!({"service": "", "server": true}),
            json!({"service": longest + "x", "server": true}),
        ] {
            assert!(Registration::try_from(&payload).is_err(), "{payload}");
        }
    }

    #[test]
    fn answers_that_make_no_sense_hold_no_entries() {
        for answer in [
            json!(null),
            json!([1]),
            json!({"fibo": []}),
            json!({"fibo": {"k": null}}),
            json!({"fibo": {"k": {"service": "fibo", "server": true, "address": "x", "port": 1}}}),
            json!({"fibo": {"k": {"service": "fibo", "server": true, "address": "1.2.3.4", "port": 65536}}}),
            json!({"fibo": {"k": {"service": "fibo", "server": true, "address": "1.2.3.4", "port": 0}}}),
            json!({"fibo": {"k": {"service": "else", "server": true, "address": "1.2.3.4", "port": 1}}}),
        ] {
            assert_eq!(entries(&answer, "fibo"), [], "{answer}");
        }
    }

    proptest! {
        // An answer of 500 entries for each of 1500 steps: few cases say enough.
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn never_more_than_the_limit_and_never_expired(
            steps in prop::collection::vec((0_u64..100, 1_u16..800, any::<bool>()), 1..1500),
        ) {
            let (mut registry, mut now) = (Registry::new(), start());
            let mut renewed = std::collections::BTreeMap::new();
            for (pause, port, server) in steps {
                now += Duration::from_millis(pause);
                renewed.insert((port, server), now);
                let answer = registry.register(now, peer(port), registration("fibo", server));
                let found = entries(&answer, "fibo");
                prop_assert!(found.len() <= MAX_ENTRIES.get());
                for entry in found {
                    prop_assert!(now < renewed[&(entry.port, entry.server)] + ENTRY_LIFETIME);
                }
            }
        }
    }
}
