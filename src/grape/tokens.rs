//! Write tokens (BEP 5): who asks from an address gets one, who stores from it must give it back.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::net::Rng;

/// How often the secret changes. The one before still counts, so that a token is good for 5 to 10 minutes (BEP 5).
const ROTATION: Duration = Duration::from_secs(5 * 60);

/// What tokens are made from: who knows them can store under any address. Kept across a restart, the tokens that were
/// given out before it go on counting. Its `Debug` form does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSecrets {
    #[serde(with = "hex::serde")]
    current: [u8; 20],
    #[serde(with = "hex::serde")]
    previous: [u8; 20],
}

impl fmt::Debug for TokenSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSecrets").finish_non_exhaustive()
    }
}

/// sha1(address text ‖ secret), with two secrets.
#[derive(Debug)]
pub(super) struct Tokens {
    secrets: TokenSecrets,
    rotates_at: Instant,
}

impl Tokens {
    /// With the secrets of last time, or new ones.
    pub(super) fn new(now: Instant, rng: &mut Rng, secrets: Option<TokenSecrets>) -> Self {
        let secrets = secrets.unwrap_or_else(|| TokenSecrets { current: secret(rng), previous: secret(rng) });
        Self { secrets, rotates_at: now + ROTATION }
    }

    pub(super) fn secrets(&self) -> &TokenSecrets {
        &self.secrets
    }

    /// When [`rotate`](Self::rotate) is due.
    pub(super) fn rotates_at(&self) -> Instant {
        self.rotates_at
    }

    /// Changes the secret where it is due.
    pub(super) fn rotate(&mut self, now: Instant, rng: &mut Rng) {
        if now < self.rotates_at {
            return;
        }
        // After a sleep of more than one period both secrets are too old.
        let secrets = &mut self.secrets;
        secrets.previous = if now < self.rotates_at + ROTATION { secrets.current } else { secret(rng) };
        secrets.current = secret(rng);
        self.rotates_at = now + ROTATION;
    }

    /// The token for an address, whatever the port.
    pub(super) fn token(&self, address: Ipv4Addr) -> [u8; 20] {
        hash(address, &self.secrets.current)
    }

    /// Whether `token` was given to `address` of late.
    pub(super) fn accepts(&self, address: Ipv4Addr, token: &[u8]) -> bool {
        token == hash(address, &self.secrets.current) || token == hash(address, &self.secrets.previous)
    }
}

fn secret(rng: &mut Rng) -> [u8; 20] {
    let mut secret = [0; 20];
    rng.fill_bytes(&mut secret);
    secret
}

fn hash(address: Ipv4Addr, secret: &[u8; 20]) -> [u8; 20] {
    Sha1::new().chain_update(address.to_string()).chain_update(secret).finalize().into()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_token_outlives_one_rotation_but_not_two() {
        let (start, mut rng) = (Instant::now(), Rng::seed_from_u64(1));
        let mut tokens = Tokens::new(start, &mut rng, None);
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let token = tokens.token(address);
        assert!(tokens.accepts(address, &token));
        assert!(!tokens.accepts(Ipv4Addr::new(192, 0, 2, 2), &token));
        assert!(!tokens.accepts(address, &token[..19]));

        tokens.rotate(start + ROTATION - Duration::from_nanos(1), &mut rng);
        assert_eq!(tokens.token(address), token);
        tokens.rotate(start + ROTATION, &mut rng);
        assert_ne!(tokens.token(address), token);
        assert!(tokens.accepts(address, &token));
        tokens.rotate(start + 2 * ROTATION, &mut rng);
        assert!(!tokens.accepts(address, &token));
    }

    #[test]
    fn a_long_sleep_ends_both_secrets() {
        let (start, mut rng) = (Instant::now(), Rng::seed_from_u64(1));
        let mut tokens = Tokens::new(start, &mut rng, None);
        let token = tokens.token(Ipv4Addr::LOCALHOST);
        tokens.rotate(start + 3 * ROTATION, &mut rng);
        assert!(!tokens.accepts(Ipv4Addr::LOCALHOST, &token));
    }
}
