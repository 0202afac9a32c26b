//! Relaying between two peers that no hole can be punched for: the limits and the rules, without I/O.
//!
//! A session has a UDP port of the broker's for itself, so that its two sides speak µTP through it as if it were the
//! other side; what they send is forwarded as it is. Before that each side claims its place with a token, which the broker
//! gave it over a connection, and is answered with less than it sent: nobody else can have anything forwarded or sent.
//!
//! ```text
//! → {"grenache":"claim","token":"5f3a…","pad":"000…"}
//! ← {"grenache":"claimed","ready":true,"token":"5f3a…"}
//! ```
//!
//! When a session ends, both sides are told: `{"grenache":"ended","token":"5f3a…"}`. What does not bear the side's own
//! token is not the broker's, whatever address it seems to come from. A side that needs it no more says so, with its
//! token, and ends it: `{"grenache":"leave","token":"5f3a…","pad":"000…"}`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::net::LONGEST_WAIT;
use crate::places::{Full, Place, Places};

const NS_PER_S: u128 = 1_000_000_000;

/// How much of a rate may be used at once: what it allows in this time.
const BURST: Duration = Duration::from_secs(1);

/// Settings of a broker's relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayConfig {
    pub(super) sessions: usize,
    pub(super) sessions_per_source: usize,
    bytes_per_second: u64,
    datagrams_per_second: u64,
    total_bytes: u64,
    idle_timeout: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            sessions: 64,
            sessions_per_source: 8,
            bytes_per_second: 1 << 20,
            datagrams_per_second: 2000,
            total_bytes: 256 << 20,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl RelayConfig {
    /// How many sessions there may be at once (default 64). Beyond it a peer that asks for one gets an error.
    pub fn sessions(self, sessions: usize) -> Self {
        Self { sessions, ..self }
    }

    /// How many of them may have been asked for from one source ([`limits`](crate::limits), default 8). Beyond it that source gets an error.
    pub fn sessions_per_source(self, sessions: usize) -> Self {
        Self { sessions_per_source: sessions, ..self }
    }

    /// How many bytes of payload a session forwards in a second, both directions together (default 1 MiB, at least 1); a
    /// second's worth may come at once. What comes beyond it is dropped, and µTP slows down.
    pub fn bytes_per_second(self, bytes: u64) -> Self {
        Self { bytes_per_second: bytes.max(1), ..self }
    }

    /// How many datagrams a session forwards in a second (default 2000, at least 1), as with the bytes.
    pub fn datagrams_per_second(self, datagrams: u64) -> Self {
        Self { datagrams_per_second: datagrams.max(1), ..self }
    }

    /// How many bytes of payload a session forwards in all (default 256 MiB). Then it ends.
    pub fn total_bytes(self, bytes: u64) -> Self {
        Self { total_bytes: bytes, ..self }
    }

    /// After how long without anything to forward a session ends (default 60 s, at most a year); claims do not count.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        Self { idle_timeout: timeout.min(LONGEST_WAIT), ..self }
    }
}

/// Why a session was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RelayRefused {
    #[error("ERR_BROKER_NO_RELAY: this broker does not relay")]
    NotOffered,
    #[error("ERR_BROKER_RELAY_FULL: this broker relays for as many as it may")]
    Full,
    #[error("ERR_BROKER_RELAY_SOURCE: this broker relays for as many from your address as it may")]
    SourceFull,
}

impl From<Full> for RelayRefused {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Self::Full,
            Full::Source => Self::SourceFull,
        }
    }
}

impl RelayConfig {
    /// A place for a session that who is at `address` opens.
    pub(super) fn place(&self, places: &Arc<Places>, address: IpAddr) -> Result<Place, RelayRefused> {
        Ok(places.take(address, self.sessions, self.sessions_per_source)?)
    }
}

/// What becomes of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on, as it is.
    Forward(SocketAddr),
    /// Its sender gets this.
    Answer(Bytes),
    /// It is dropped: from a stranger, over a rate, or the other side is not there yet.
    Drop,
    /// It is dropped, and the session ends.
    End(SessionEnd),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// Nothing was forwarded for the idle timeout.
    Idle,
    /// It has forwarded as much as it may.
    TotalBytes,
    /// A side needs it no more.
    Left,
}

impl SessionEnd {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::TotalBytes => "total bytes",
            Self::Left => "left",
        }
    }
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    config: RelayConfig,
    tokens: [String; 2],
    sides: [Option<SocketAddr>; 2],
    bytes: Rate,
    datagrams: Rate,
    pub(super) forwarded: u64,
    busy: Instant,
}

impl Session {
    pub(super) fn new(now: Instant, config: RelayConfig, tokens: [String; 2]) -> Self {
        Self {
            config,
            tokens,
            sides: [None; 2],
            bytes: Rate::new(now, config.bytes_per_second),
            datagrams: Rate::new(now, config.datagrams_per_second),
            forwarded: 0,
            busy: now,
        }
    }

    pub(super) fn on_datagram(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) -> Verdict {
        match Claim::parse(payload) {
            Some(Claim { grenache: ClaimTag::Claim, token, .. }) => return self.on_claim(from, &token),
            Some(Claim { grenache: ClaimTag::Leave, token, .. }) => return self.on_leave(from, &token),
            None => {}
        }
        let to = match self.sides {
            [Some(a), Some(b)] if from == a => b,
            [Some(a), Some(b)] if from == b => a,
            _ => return Verdict::Drop,
        };
        let len = payload.len() as u64;
        if self.forwarded + len > self.config.total_bytes {
            return Verdict::End(SessionEnd::TotalBytes);
        }
        if !(self.bytes.has(now, len) && self.datagrams.has(now, 1)) {
            return Verdict::Drop;
        }
        self.bytes.take(now, len);
        self.datagrams.take(now, 1);
        self.forwarded += len;
        self.busy = now;
        Verdict::Forward(to)
    }

    /// A side may claim its place anew from another address: its NAT may have changed it.
    fn on_claim(&mut self, from: SocketAddr, token: &str) -> Verdict {
        let Some(side) = self.tokens.iter().position(|own| own == token) else { return Verdict::Drop };
        if self.sides[1 - side] == Some(from) {
            return Verdict::Drop;
        }
        self.sides[side] = Some(from);
        let ready = self.sides.iter().all(Option::is_some);
        let claimed = Claimed { grenache: ClaimedTag::Claimed, ready, token: token.to_owned() };
        Verdict::Answer(to_json(&claimed))
    }

    /// Only from where the side is.
    fn on_leave(&self, from: SocketAddr, token: &str) -> Verdict {
        let side = self.tokens.iter().position(|own| own == token);
        match side {
            Some(side) if self.sides[side] == Some(from) => Verdict::End(SessionEnd::Left),
            _ => Verdict::Drop,
        }
    }

    /// Who is to be told that it has ended, and by what.
    pub(super) fn farewells(&self) -> impl Iterator<Item = (SocketAddr, Bytes)> {
        let ended = |token: &String| to_json(&Ended { grenache: EndedTag::Ended, token: token.clone() });
        self.sides.iter().zip(&self.tokens).filter_map(move |(side, token)| Some(((*side)?, ended(token))))
    }

    /// When it ends if nothing comes until then.
    pub(super) fn idle_at(&self) -> Instant {
        self.busy + self.config.idle_timeout
    }
}

/// So much a second, and a second's worth at once (the generic cell rate algorithm).
#[derive(Debug)]
struct Rate {
    per_second: u64,
    /// When all that was taken so far would have been due.
    due: Instant,
}

impl Rate {
    fn new(now: Instant, per_second: u64) -> Self {
        Self { per_second, due: now }
    }

    fn has(&self, now: Instant, amount: u64) -> bool {
        self.after(now, amount) <= now + BURST
    }

    fn take(&mut self, now: Instant, amount: u64) {
        self.due = self.after(now, amount);
    }

    fn after(&self, now: Instant, amount: u64) -> Instant {
        let ns = (u128::from(amount) * NS_PER_S).div_ceil(u128::from(self.per_second));
        let ns = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)).min(LONGEST_WAIT);
        self.due.max(now) + ns
    }
}

/// How long a claim or a leave is, in bytes: as long as its answer and the session's farewell together, which may go to an address
/// that was forged. A shorter one is dropped.
pub(crate) const CLAIM_BYTES: usize = 160;

/// What a side proves itself with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    grenache: ClaimTag,
    token: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pad: String,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
struct Claimed {
    grenache: ClaimedTag,
    ready: bool,
    token: String,
}

/// What it is told at last.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    grenache: EndedTag,
    token: String,
}

/// What a side hears of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It has its place; whether the other side is there too.
    Claimed { ready: bool },
    /// The session has ended.
    Ended,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ClaimTag {
    Claim,
    Leave,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ClaimedTag {
    Claimed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EndedTag {
    Ended,
}

impl Claim {
    /// A claim's datagram.
    pub(crate) fn encode(token: &str) -> Bytes {
        Self::padded(ClaimTag::Claim, token)
    }

    /// What a side says that needs the session no more.
    pub(crate) fn encode_leave(token: &str) -> Bytes {
        Self::padded(ClaimTag::Leave, token)
    }

    fn padded(grenache: ClaimTag, token: &str) -> Bytes {
        let mut claim = Self { grenache, token: token.to_owned(), pad: "0".to_owned() };
        claim.pad = "0".repeat((CLAIM_BYTES + 1).saturating_sub(to_json(&claim).len()).max(1));
        to_json(&claim)
    }

    /// A claim that may be answered, or a side's leave.
    fn parse(payload: &[u8]) -> Option<Self> {
        // What is forwarded is mostly µTP, which never begins like this.
        let tags: [&[u8]; 2] = [b"{\"grenache\":\"claim\"", b"{\"grenache\":\"leave\""];
        let may_be_answered = payload.len() >= CLAIM_BYTES && tags.iter().any(|tag| payload.starts_with(tag));
        may_be_answered.then(|| serde_json::from_slice(payload).ok()).flatten()
    }
}

impl Heard {
    /// Reads what came from the session's address. `None` where it is something else, or does not bear this side's token:
    /// then anybody may have sent it.
    pub(crate) fn parse(payload: &[u8], own_token: &str) -> Option<Self> {
        let (heard, token) = if payload.starts_with(b"{\"grenache\":\"claimed\"") {
            let Claimed { ready, token, .. } = serde_json::from_slice(payload).ok()?;
            (Self::Claimed { ready }, token)
        } else if payload.starts_with(b"{\"grenache\":\"ended\"") {
            let Ended { token, .. } = serde_json::from_slice(payload).ok()?;
            (Self::Ended, token)
        } else {
            return None;
        };
        (token == own_token).then_some(heard)
    }
}

fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("texts and booleans can be written as JSON").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "198.51.100.1:1000";
    const B: &str = "198.51.100.2:2000";
    const STRANGER: &str = "203.0.113.9:3000";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn tokens() -> [String; 2] {
        ["a".repeat(32), "b".repeat(32)]
    }

    /// A session that both sides have claimed.
    fn ready(now: Instant, config: RelayConfig) -> Session {
        let mut session = Session::new(now, config, tokens());
        for (from, token) in [A, B].into_iter().zip(tokens()) {
            assert!(matches!(session.on_datagram(now, at(from), &Claim::encode(&token)), Verdict::Answer(_)));
        }
        session
    }

    #[test]
    fn nothing_is_forwarded_before_both_sides_have_proven_themselves() {
        let now = start();
        let mut session = Session::new(now, RelayConfig::default(), tokens());
        let [a, b] = tokens();
        assert_eq!(session.on_datagram(now, at(A), b"hello"), Verdict::Drop);
        assert_eq!(session.on_datagram(now, at(STRANGER), &Claim::encode(&"c".repeat(32))), Verdict::Drop);
        let claimed = |verdict| match verdict {
            Verdict::Answer(answer) => {
                let own = tokens().into_iter().find_map(|token| Heard::parse(&answer, &token));
                own.unwrap_or_else(|| panic!("{answer:?}")) == Heard::Claimed { ready: true }
            }
            other => panic!("{other:?}"),
        };
        assert!(!claimed(session.on_datagram(now, at(A), &Claim::encode(&a))));
        assert_eq!(session.on_datagram(now, at(A), b"hello"), Verdict::Drop, "there is no other side yet");
        assert_eq!(session.on_datagram(now, at(A), &Claim::encode(&b)), Verdict::Drop, "one cannot be both sides");
        assert!(claimed(session.on_datagram(now, at(B), &Claim::encode(&b))));
        assert_eq!(session.on_datagram(now, at(A), b"hello"), Verdict::Forward(at(B)));
        assert_eq!(session.on_datagram(now, at(B), b"hello"), Verdict::Forward(at(A)));
        assert_eq!(session.on_datagram(now, at(STRANGER), b"hello"), Verdict::Drop);
    }

    #[test]
    fn each_side_is_told_the_end_with_its_own_token_which_nobody_else_has() {
        let session = ready(start(), RelayConfig::default());
        let [(to_a, a), (to_b, b)] = session.farewells().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!([to_a, to_b], [at(A), at(B)]);
        let [own, others] = tokens();
        assert_eq!([Heard::parse(&a, &own), Heard::parse(&b, &others)], [Some(Heard::Ended); 2]);
        let forged = [&b[..], br#"{"grenache":"ended"}"#, br#"{"grenache":"ended","token":""}"#, b"{}", b""];
        assert_eq!(forged.map(|payload| Heard::parse(payload, &own)), [None; 5]);
    }

    #[test]
    fn a_claim_is_as_long_as_all_that_may_be_sent_for_it() {
        let now = start();
        let [own, _] = tokens();
        let claim = Claim::encode(&own);
        assert_eq!(claim.len(), CLAIM_BYTES);
        let mut session = Session::new(now, RelayConfig::default(), tokens());
        let short = format!(r#"{{"grenache":"claim","token":"{own}"}}"#);
        assert_eq!(session.on_datagram(now, at(A), short.as_bytes()), Verdict::Drop);
        assert_eq!(session.farewells().count(), 0);
        let Verdict::Answer(answer) = session.on_datagram(now, at(A), &claim) else { panic!("it is answered") };
        let farewell = session.farewells().next().unwrap().1;
        assert!(answer.len() + farewell.len() <= claim.len(), "{} and {}", answer.len(), farewell.len());
    }

    #[test]
    fn a_side_whose_address_changes_claims_its_place_again() {
        let now = start();
        let mut session = ready(now, RelayConfig::default());
        let moved = at("198.51.100.1:1001");
        assert!(matches!(session.on_datagram(now, moved, &Claim::encode(&tokens()[0])), Verdict::Answer(_)));
        assert_eq!(session.on_datagram(now, at(B), b"x"), Verdict::Forward(moved));
        assert_eq!(session.on_datagram(now, at(A), b"x"), Verdict::Drop);
    }

    #[test]
    fn a_side_that_leaves_ends_the_session_and_nobody_else_does() {
        let now = start();
        let mut session = ready(now, RelayConfig::default());
        let [a, b] = tokens();
        for (from, token) in [(STRANGER, &a), (A, &b), (A, &"c".repeat(32))] {
            assert_eq!(session.on_datagram(now, at(from), &Claim::encode_leave(token)), Verdict::Drop);
        }
        let leave = Claim::encode_leave(&b);
        let told: usize = session.farewells().map(|(_, farewell)| farewell.len()).sum();
        assert!(leave.len() >= told, "both sides are told with no more than was received");
        assert_eq!(session.on_datagram(now, at(B), &leave), Verdict::End(SessionEnd::Left));
        let mut unclaimed = Session::new(now, RelayConfig::default(), tokens());
        assert_eq!(unclaimed.on_datagram(now, at(B), &leave), Verdict::Drop);
    }

    #[test]
    fn sessions_in_total_and_per_source_are_limited() {
        let config = RelayConfig::default().sessions(3).sessions_per_source(2);
        let places = Arc::default();
        let [one, two, three]: [IpAddr; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|ip| ip.parse().unwrap());
        let first = config.place(&places, one).unwrap();
        let mut taken = vec![config.place(&places, one).unwrap()];
        assert_eq!(config.place(&places, one).unwrap_err(), RelayRefused::SourceFull);
        taken.push(config.place(&places, two).unwrap());
        assert_eq!(config.place(&places, three).unwrap_err(), RelayRefused::Full);
        drop(first);
        taken.push(config.place(&places, three).unwrap());
        drop(taken);
        assert!(places.is_empty());
    }

    #[test]
    fn bytes_per_second_are_limited_and_a_second_makes_room() {
        let now = start();
        let mut session = ready(now, RelayConfig::default().bytes_per_second(1000));
        let forwards =
            |session: &mut Session, now, len| session.on_datagram(now, at(A), &vec![7; len]) != Verdict::Drop;
        assert!(forwards(&mut session, now, 600) && forwards(&mut session, now, 400));
        assert!(!forwards(&mut session, now, 1), "over the limit");
        let later = now + Duration::from_millis(500);
        assert!(!forwards(&mut session, later, 501) && forwards(&mut session, later, 500));
    }

    #[test]
    fn datagrams_per_second_are_limited_in_both_directions_together() {
        let now = start();
        let mut session = ready(now, RelayConfig::default().datagrams_per_second(10));
        for n in 0..10 {
            let from = if n % 2 == 0 { A } else { B };
            assert!(matches!(session.on_datagram(now, at(from), b""), Verdict::Forward(_)));
        }
        assert_eq!(session.on_datagram(now, at(A), b""), Verdict::Drop);
        assert!(matches!(session.on_datagram(now + BURST / 10, at(A), b""), Verdict::Forward(_)));
    }

    #[test]
    fn after_its_total_of_bytes_a_session_ends() {
        let now = start();
        let mut session = ready(now, RelayConfig::default().total_bytes(10));
        assert_eq!(session.on_datagram(now, at(A), &[0; 10]), Verdict::Forward(at(B)));
        assert_eq!(session.on_datagram(now, at(B), &[0; 1]), Verdict::End(SessionEnd::TotalBytes));
    }

    #[test]
    fn claims_do_not_keep_an_idle_session_alive() {
        let now = start();
        let mut session = ready(now, RelayConfig::default().idle_timeout(Duration::from_secs(5)));
        let later = now + Duration::from_secs(3);
        session.on_datagram(later, at(A), &Claim::encode(&tokens()[0]));
        assert_eq!(session.idle_at(), now + Duration::from_secs(5));
        session.on_datagram(later, at(A), b"x");
        assert_eq!(session.idle_at(), later + Duration::from_secs(5));
    }

    proptest! {
        /// Amplification: an answer is shorter than what asked for it, and nothing else is sent before both sides have
        /// proven themselves.
        #[test]
        fn no_more_goes_out_than_comes_in(
            datagrams in prop::collection::vec((0_u16..4, prop::collection::vec(any::<u8>(), 0..64), 0_usize..4), 1..50),
        ) {
            let now = start();
            let mut session = Session::new(now, RelayConfig::default(), tokens());
            for (from, bytes, kind) in datagrams {
                let payload = match kind {
                    0 => Claim::encode(&tokens()[0]),
                    1 => Claim::encode(&tokens()[1]),
                    2 => Claim::encode("wrong"),
                    _ => bytes.into(),
                };
                let from = SocketAddr::from(([192, 0, 2, 1], 1000 + from));
                match session.on_datagram(now, from, &payload) {
                    Verdict::Answer(answer) => prop_assert!(answer.len() < payload.len()),
                    Verdict::Forward(to) => prop_assert!(session.sides.contains(&Some(to)) && session.sides.contains(&Some(from))),
                    Verdict::Drop | Verdict::End(_) => {}
                }
            }
        }
    }
}
