//! Random numbers that belong to one thing: a frame of an epoch and what is decided about it.
//!
//! Draws never depend on other draws, on threads or on the order of frames, so any frame of any epoch can be made again alone.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::SampleId;

/// The sequence that decides `purpose` about a frame in an epoch.
pub fn of_sample(seed: u64, epoch: u64, id: &SampleId, purpose: &str) -> ChaCha8Rng {
    keyed(&[&seed.to_le_bytes(), &epoch.to_le_bytes(), id.drive.as_bytes(), &id.frame.to_le_bytes(), purpose.as_bytes()])
}

/// The sequence that decides `purpose` about a whole epoch.
pub fn of_epoch(seed: u64, epoch: u64, purpose: &str) -> ChaCha8Rng {
    keyed(&[&seed.to_le_bytes(), &epoch.to_le_bytes(), purpose.as_bytes()])
}

fn keyed(parts: &[&[u8]]) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update((parts.len() as u64).to_le_bytes());
    for part in parts {
        // Lengths keep ("ab", "c") apart from ("a", "bc").
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// A permutation of `0..n` that gives any of its values without listing the others.
///
/// A Feistel network over the least even number of bits that holds `n`, walked until the value is below `n`.
#[derive(Debug, Clone)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    round_keys: [u64; ROUNDS],
}

/// Four suffice for a permutation that cannot be told from a random one by a few draws; six cost nothing here.
const ROUNDS: usize = 6;

impl Permutation {
    /// Of `0..n`, with the luck of `random`.
    pub fn new(n: u64, random: &mut impl rand::RngCore) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), round_keys: std::array::from_fn(|_| random.next_u64()) }
    }

    /// The value at a place; both are below n.
    pub fn at(&self, place: u64) -> u64 {
        assert!(place < self.n, "place {place} of a permutation of {}", self.n);
        let mut value = self.shuffle(place);
        while value >= self.n {
            value = self.shuffle(value);
        }
        value
    }

    fn shuffle(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.round_keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::RngCore;

    use super::*;

    #[test]
    fn permutation_takes_every_value_once() {
        for n in [1, 2, 3, 4, 5, 16, 17, 100, 1023, 1025] {
            let permutation = Permutation::new(n, &mut of_epoch(7, n, "test"));
            let values: HashSet<u64> = (0..n).map(|place| permutation.at(place)).collect();
            assert_eq!(values, (0..n).collect(), "n = {n}");
        }
    }

    #[test]
    fn permutation_puts_every_value_everywhere() {
        let n = 8;
        let mut met = vec![[0u32; 8]; 8];
        for epoch in 0..4000 {
            let permutation = Permutation::new(n, &mut of_epoch(1, epoch, "test"));
            for place in 0..n {
                met[place as usize][permutation.at(place) as usize] += 1;
            }
        }
        // 500 expected, standard deviation 21.
        assert!(met.iter().flatten().all(|count| (400..600).contains(count)), "{met:?}");
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let id = |drive: &str, frame| SampleId { drive: drive.to_owned(), frame };
        let draws = [
            of_sample(1, 2, &id("a", 3), "flip").next_u64(),
            of_sample(2, 2, &id("a", 3), "flip").next_u64(),
            of_sample(1, 3, &id("a", 3), "flip").next_u64(),
            of_sample(1, 2, &id("b", 3), "flip").next_u64(),
            of_sample(1, 2, &id("a", 4), "flip").next_u64(),
            of_sample(1, 2, &id("a", 3), "turn").next_u64(),
            of_epoch(1, 2, "flip").next_u64(),
        ];
        assert_eq!(draws.iter().collect::<HashSet<_>>().len(), draws.len());
        assert_eq!(draws[0], of_sample(1, 2, &id("a", 3), "flip").next_u64());
    }
}
