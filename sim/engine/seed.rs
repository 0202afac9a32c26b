//! Random streams that follow from the seed and a name, and from nothing else.
//!
//! Every link, NAT and host draws from a stream of its own, so that adding one changes nobody else's numbers. The
//! hash is spelled out here because the standard library's may change with a release.

use grenache::net::Rng;
use rand::{Rng as _, SeedableRng};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The stream of the thing that `path` names, outermost part first.
pub(crate) fn stream(seed: u64, path: &[&str]) -> Rng {
    let mut hash = FNV_OFFSET;
    let mut feed = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    };
    feed(&seed.to_le_bytes());
    for part in path {
        // The length first: ("ab", "c") and ("a", "bc") are different things.
        feed(&(part.len() as u64).to_le_bytes());
        feed(part.as_bytes());
    }
    let mut key = [0; 32];
    for chunk in key.chunks_exact_mut(8) {
        chunk.copy_from_slice(&split_mix(&mut hash).to_le_bytes());
    }
    Rng::from_seed(key)
}

/// Spreads 64 bits of hash over a key: neighbouring hashes give unrelated keys.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A whole number below `bound`, evenly but for a bias of at most `bound` / 2⁶⁴; 0 where `bound` is 0.
pub(crate) fn below(rng: &mut Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Whether something of this probability happens. Exact in every build: one product of a power of two.
pub(crate) fn chance(rng: &mut Rng, probability: f64) -> bool {
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    ((rng.next_u64() >> 11) as f64 * UNIT) < probability
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_stream_for_ever() {
        assert_eq!(stream(1, &["link", "dsl"]).next_u64(), stream(1, &["link", "dsl"]).next_u64());
        // Written down, so that a change of the hash does not go unnoticed: it would change every recorded run.
        assert_eq!(stream(0, &[]).next_u64(), 11_222_581_027_763_189_124);
    }

    #[test]
    fn other_names_and_seeds_give_other_streams() {
        let first = |seed, path: &[&str]| stream(seed, path).next_u64();
        assert_ne!(first(1, &["ab", "c"]), first(1, &["a", "bc"]));
        assert_ne!(first(1, &["a"]), first(2, &["a"]));
    }

    #[test]
    fn chances_come_out_as_asked() {
        let mut rng = stream(3, &["chance"]);
        let hits = (0..100_000).filter(|_| chance(&mut rng, 0.02)).count();
        assert!((1_850..2_150).contains(&hits), "{hits} of 100,000");
        assert!(!chance(&mut rng, 0.0));
        assert!(chance(&mut rng, 1.0));
    }
}
