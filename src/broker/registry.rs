//! Who is out there: the broker's memory, without I/O.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::extension::{EXTENSION, Offers, Signal};
use crate::fair::FairMap;
use crate::nat::Behaviour;
use crate::source::{Source, source};

/// How many entries a registry holds. At the limit the one unrenewed for longest goes; but a source
/// ([`limits`](crate::limits)) that has half of them loses its own.
pub const MAX_ENTRIES: NonZeroUsize = NonZeroUsize::new(500).expect("not zero");

/// How long an entry lives that is not renewed. Peers renew theirs every 2 s.
pub const ENTRY_LIFETIME: Duration = Duration::from_secs(15);

/// The longest service name, in bytes.
pub const MAX_SERVICE: usize = 256;

/// How many signals wait for a peer to fetch them. At the limit the oldest is lost.
pub const MAX_SIGNALS: usize = 16;

/// How many of them from one source ([`limits`](crate::limits)); beyond it that source's own oldest is lost.
pub const MAX_SIGNALS_PER_SOURCE: usize = MAX_SIGNALS / 2;

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
    /// What the NAT in front of it does, where it said so: an extension of ours, told only to those who know it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "readable")]
    pub nat: Option<Behaviour>,
}

impl Entry {
    /// Address and port: where to punch.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// As peers of the original are told of it.
    fn plain(&self) -> Self {
        Self { nat: None, ..self.clone() }
    }

    /// The key that it is told under: the MD5 of its JSON text, in hex.
    pub(crate) fn key(&self) -> String {
        let text = serde_json::to_vec(&self.plain()).expect("strings, numbers and booleans can be written as JSON");
        hex::encode(Md5::digest(text))
    }
}

/// What cannot be read is as if it had not been said.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Behaviour>, D::Error> {
    Ok(Behaviour::deserialize(Value::deserialize(deserializer)?).ok())
}

/// What a peer registers as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The service's name, 1 to [`MAX_SERVICE`] bytes.
    pub service: String,
    /// Whether it offers the service.
    pub server: bool,
    /// What the NAT in front of it does, where it says so (an extension).
    pub nat: Option<Behaviour>,
}

/// A payload that is no registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ERR_BROKER_PAYLOAD: {0}")]
pub struct MalformedRegistration(pub(super) String);

impl TryFrom<&Value> for Registration {
    type Error = MalformedRegistration;

    /// Reads `{"service": name, "server": bool}` and the extension's `"nat"`; further keys are ignored.
    fn try_from(payload: &Value) -> Result<Self, Self::Error> {
        let malformed = |reason: &str| MalformedRegistration(reason.to_owned());
        let object = payload.as_object().ok_or_else(|| malformed("register with an object"))?;
        let service = object.get("service").and_then(Value::as_str).unwrap_or_default();
        if service.is_empty() || service.len() > MAX_SERVICE {
            return Err(malformed("service must be a name of 1 to 256 bytes"));
        }
        let server = object.get("server").and_then(Value::as_bool);
        let server = server.ok_or_else(|| malformed("server must be true or false"))?;
        let nat = object.get("nat").and_then(|nat| Behaviour::deserialize(nat).ok());
        Ok(Self { service: service.to_owned(), server, nat })
    }
}

/// The peers that have registered lately.
#[derive(Debug)]
pub struct Registry {
    entries: FairMap<String, Held>,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    renewed: Instant,
    /// What other peers have for it, and from which source.
    signals: VecDeque<(Source, Value)>,
    /// Whether somebody of the other role has come since it was last answered.
    company: bool,
    /// Numbers its waits: an answer that is held back is let go when the next one is asked for.
    wait: u64,
    waiting: bool,
}

impl Default for Registry {
    fn default() -> Self {
        Self { entries: FairMap::new(MAX_ENTRIES) }
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
        let service = registration.service.clone();
        self.note(now, from, registration);
        let told = self.of_service(&service, Entry::plain);
        Value::Object(Map::from_iter([(service, told)]))
    }

    /// How many peers are registered.
    pub fn len(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.entries.len()
    }

    /// Notes a peer, or renews it; gives its key, and whether it is new.
    pub(super) fn note(&mut self, now: Instant, from: SocketAddr, registration: Registration) -> (String, bool) {
        let Registration { service, server, nat } = registration;
        // A dual-stack socket sees IPv4 peers at mapped addresses, which they could not punch each other at.
        let entry = Entry { service, server, address: from.ip().to_canonical(), port: from.port(), nat };
        let (key, source) = (entry.key(), source(entry.address));
        self.expire(now);
        let new = self.entries.get(&key).is_none();
        let made = Held {
            entry: entry.clone(),
            renewed: now,
            signals: VecDeque::new(),
            company: false,
            wait: 0,
            waiting: false,
        };
        let (held, _) = self.entries.entry(&key, source, || made);
        held.renewed = now;
        held.entry.nat = nat;
        if new {
            let others = self.entries.values_mut().map(|held| (held.entry.clone(), held));
            for (other, held) in others {
                held.company |= other.service == entry.service && other.server != entry.server;
            }
        }
        (key, new)
    }

    /// A peer is about to wait for news. Gives the wait's number, and whether an earlier one is to be let go.
    pub(super) fn begin_wait(&mut self, key: &str) -> (u64, bool) {
        let Some(held) = self.entries.get_mut(&key.to_owned()) else { return (0, false) };
        held.wait += 1;
        (held.wait, std::mem::replace(&mut held.waiting, true))
    }

    /// Whether there is something to tell a peer before its time is over. What is no longer there need not wait, nor who
    /// waits anew.
    pub(super) fn has_news(&self, key: &str, wait: u64) -> bool {
        let of = |held: &Held| held.company || !held.signals.is_empty() || held.wait != wait;
        self.entries.get(&key.to_owned()).is_none_or(of)
    }

    /// The answer to a peer that knows the extension: who is there, what they said of their NATs, and what waits for it.
    pub(super) fn extended_answer(&mut self, key: &str, service: &str, wait: u64, offers: &Offers) -> Value {
        let told = self.of_service(service, Entry::clone);
        let held = self.entries.get_mut(&key.to_owned());
        let you = held.as_ref().map(|held| held.entry.socket_addr());
        let mut signals = Vec::new();
        // Who has asked anew may not hear this answer any more.
        if let Some(held) = held.filter(|held| held.wait == wait) {
            (held.company, held.waiting) = (false, false);
            signals = std::mem::take(&mut held.signals).into_iter().map(|(_, signal)| signal).collect();
        }
        let extension = offers.told(key, you, signals);
        Value::Object(Map::from_iter([(EXTENSION.to_owned(), extension), (service.to_owned(), told)]))
    }

    pub(super) fn is_registered(&mut self, now: Instant, key: &str) -> bool {
        self.expire(now);
        self.entries.get(&key.to_owned()).is_some()
    }

    /// Keeps a signal for a peer until it asks. Only who is registered may send, and only to who is.
    pub(super) fn signal(&mut self, now: Instant, from: &str, to: &str, data: Value) -> Result<(), NotRegistered> {
        self.expire(now);
        let sender = self.entries.get(&from.to_owned()).ok_or(NotRegistered::Sender)?;
        let signal = Signal { from: from.to_owned(), address: sender.entry.socket_addr(), data };
        let source = source(signal.address.ip());
        let receiver = self.entries.get_mut(&to.to_owned()).ok_or(NotRegistered::Receiver)?;
        let signals = &mut receiver.signals;
        if signals.iter().filter(|(other, _)| *other == source).count() >= MAX_SIGNALS_PER_SOURCE {
            let own_oldest = signals.iter().position(|(other, _)| *other == source);
            own_oldest.and_then(|nth| signals.remove(nth));
        } else if signals.len() >= MAX_SIGNALS {
            signals.pop_front();
        }
        signals.push_back((source, signal.to_json()));
        Ok(())
    }

    fn of_service(&self, service: &str, told: impl Fn(&Entry) -> Entry) -> Value {
        let of_service = self.entries.iter().filter(|(_, held)| held.entry.service == service);
        let told = |held: &Held| serde_json::to_value(told(&held.entry)).expect("it can be written as JSON");
        Value::Object(of_service.map(|(key, held)| (key.clone(), told(held))).collect())
    }

    fn expire(&mut self, now: Instant) {
        self.entries.retain(|_, held| now < held.renewed + ENTRY_LIFETIME);
    }
}

/// How the error begins of who wants something of a peer that is not registered (any more).
pub(crate) const ERR_NO_PEER: &str = "ERR_BROKER_NO_PEER";

/// Why a signal is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRegistered {
    /// The peer that sends it.
    #[error("ERR_BROKER_UNREGISTERED: register before you signal")]
    Sender,
    /// The peer that is to get it.
    #[error("{ERR_NO_PEER}: there is no such peer (any more)")]
    Receiver,
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
        Registration { service: service.to_owned(), server, nat: None }
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
    fn one_source_cannot_push_out_the_others() {
        let (mut registry, now) = (Registry::new(), start());
        let home = |n: u16| SocketAddr::from(([198, 51, 100, 1], n));
        for n in 1..=200 {
            registry.register(now, home(n), registration("fibo", true));
        }
        for n in 1..=2000 {
            registry.register(now + Duration::from_millis(1), peer(n), registration("fibo", false));
        }
        let answer = registry.register(now, home(1), registration("fibo", true));
        let found = entries(&answer, "fibo");
        assert_eq!(found.len(), MAX_ENTRIES.get());
        assert_eq!(found.iter().filter(|entry| entry.server).count(), 200, "all of them are there still");
    }

    #[test]
    fn one_ipv6_network_cannot_push_out_the_others_nor_their_signals() {
        let (mut registry, now) = (Registry::new(), start());
        let home = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 1, 0, 0, 0, n], 1000));
        let flooder = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 2, 0, 0, 0, n], 1000));
        for n in 1..=200 {
            registry.note(now, home(n), registration("fibo", true));
        }
        let (to, _) = registry.note(now, home(1), registration("fibo", true));
        let (friend, _) = registry.note(now, home(2), registration("fibo", true));
        registry.signal(now, &friend, &to, json!("of a friend")).unwrap();
        for n in 1..=2000 {
            let (from, _) = registry.note(now + Duration::from_millis(1), flooder(n), registration("fibo", false));
            registry.signal(now + Duration::from_millis(1), &from, &to, json!(n)).unwrap();
        }
        let found = registry.entries.iter().filter(|(_, held)| held.entry.server).count();
        assert_eq!((found, registry.entries.len()), (200, MAX_ENTRIES.get()), "all of them are there still");
        let signals = &registry.entries.get(&to).unwrap().signals;
        assert_eq!(signals.len(), 1 + MAX_SIGNALS_PER_SOURCE);
        assert_eq!(signals[0].1["data"], "of a friend");
    }

    fn open_nat(service: &str, server: bool) -> Registration {
        Registration { nat: Some(Behaviour::OPEN), ..registration(service, server) }
    }

    #[test]
    fn what_a_peer_says_of_its_nat_is_told_only_to_those_who_know_the_extension() {
        let (mut registry, now) = (Registry::new(), start());
        let (key, _) = registry.note(now, peer(1), open_nat("fibo", true));
        let plain = registry.register(now, peer(2), registration("fibo", false));
        assert!(!plain.to_string().contains("nat"), "{plain}");
        let extended = registry.extended_answer(&key, "fibo", 0, &Offers::default());
        let told = entries(&extended, "fibo");
        assert_eq!(told.iter().find(|entry| entry.server).unwrap().nat, Some(Behaviour::OPEN));
        assert_eq!(told[0].key().len(), 32);
        let odd =
            json!({"fibo": {"k": {"service": "fibo", "server": true, "address": "1.2.3.4", "port": 1, "nat": 7}}});
        assert_eq!(entries(&odd, "fibo")[0].nat, None, "nonsense is as if nothing was said");
    }

    #[test]
    fn a_peer_has_news_when_somebody_of_the_other_role_comes_or_signals() {
        let (mut registry, now) = (Registry::new(), start());
        let (worker, _) = registry.note(now, peer(1), open_nat("fibo", true));
        registry.note(now, peer(2), open_nat("fibo", true));
        registry.note(now, peer(3), open_nat("other", false));
        assert!(!registry.has_news(&worker, 0), "nobody that matters to it has come");
        let (client, new) = registry.note(now, peer(4), open_nat("fibo", false));
        assert!(new && registry.has_news(&worker, 0));
        registry.extended_answer(&worker, "fibo", 0, &Offers::default());
        assert!(!registry.has_news(&worker, 0) && !registry.note(now, peer(4), open_nat("fibo", false)).1);
        assert!(!registry.has_news(&worker, 0), "renewing is no news");
        registry.signal(now, &client, &worker, json!({"n": 1})).unwrap();
        assert!(registry.has_news(&worker, 0) && !registry.has_news(&client, 0));
        let answer = registry.extended_answer(&worker, "fibo", 0, &Offers::default());
        let signals = &answer[EXTENSION]["signals"];
        assert_eq!(signals[0]["data"], json!({"n": 1}));
        assert_eq!(signals[0]["from"], json!(client));
        assert!(!registry.has_news(&worker, 0), "a signal is fetched once");
        assert!(registry.has_news("who has gone", 0), "they need not wait");
    }

    #[test]
    fn a_peer_waits_once_and_an_answer_that_it_may_not_hear_takes_nothing_with_it() {
        let (mut registry, now) = (Registry::new(), start());
        let (worker, _) = registry.note(now, peer(1), open_nat("fibo", true));
        let (first, replaced) = registry.begin_wait(&worker);
        assert!(!replaced && !registry.has_news(&worker, first));
        let (second, replaced) = registry.begin_wait(&worker);
        assert!(replaced && registry.has_news(&worker, first) && !registry.has_news(&worker, second));
        registry.signal(now, &worker, &worker, json!(1)).unwrap();
        let signals = |answer: Value| answer[EXTENSION]["signals"].as_array().unwrap().len();
        assert_eq!(signals(registry.extended_answer(&worker, "fibo", first, &Offers::default())), 0);
        assert_eq!(signals(registry.extended_answer(&worker, "fibo", second, &Offers::default())), 1);
        assert!(!registry.begin_wait(&worker).1, "nobody waits");
        assert_eq!(registry.begin_wait("who has gone"), (0, false));
    }

    #[test]
    fn signals_are_between_peers_that_are_there_and_bounded() {
        let (mut registry, now) = (Registry::new(), start());
        let (worker, _) = registry.note(now, peer(1), open_nat("fibo", true));
        assert_eq!(registry.signal(now, "nobody", &worker, json!(1)), Err(NotRegistered::Sender));
        assert_eq!(registry.signal(now, &worker, "nobody", json!(1)), Err(NotRegistered::Receiver));
        let callers = [1, 2, 3].map(|n: u8| {
            let from = SocketAddr::from(([198, 51, 100, n], 1));
            registry.note(now, from, open_nat("fibo", false)).0
        });
        registry.signal(now, &callers[0], &worker, json!("lost")).unwrap();
        registry.signal(now, &callers[1], &worker, json!("kept")).unwrap();
        // One that floods loses its own, and nobody else's.
        for n in 0..100 {
            registry.signal(now, &callers[2], &worker, json!(n)).unwrap();
        }
        for n in 100..107 {
            registry.signal(now, &callers[1], &worker, json!(n)).unwrap();
        }
        let answer = registry.extended_answer(&worker, "fibo", 0, &Offers::default());
        let kept: Vec<_> = answer[EXTENSION]["signals"].as_array().unwrap().iter().map(|s| s["data"].clone()).collect();
        let expected: Vec<_> = std::iter::once(json!("kept")).chain((92..107).map(|n| json!(n))).collect();
        assert_eq!(kept, expected, "at the limit the oldest is lost");
        assert_eq!(registry.signal(now + ENTRY_LIFETIME, &worker, &worker, json!(1)), Err(NotRegistered::Sender));
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
