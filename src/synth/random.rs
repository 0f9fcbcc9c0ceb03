//! Chance, in two kinds: a sequence per drive for laying out the world, and a hash per laser shot for what happens to it.
//!
//! The shots of one frame are cast by several threads. A hash of (drive, frame, laser, shot, purpose) gives each of them
//! the same luck whatever the order, which a shared sequence could not.

use std::f32::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The sequence that lays out one drive.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Its own sequence for every (seed, drive).
    pub fn new(seed: u64, drive: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(Key::new(seed).with(drive).0))
    }

    /// Evenly in `[low, high)`; `low` when the interval is empty.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low).max(0.0) * self.0.random::<f64>()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.random::<f64>() < probability
    }

    /// 0, 1, … `n - 1`; 0 for `n` = 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n.max(1))
    }

    /// Bell-shaped with this mean and standard deviation, cut at two deviations so that no size becomes absurd.
    pub fn around(&mut self, mean: f64, deviation: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.0.random::<f64>()).sum();
        mean + deviation * (sum - 6.0).clamp(-2.0, 2.0)
    }

    /// -1 or 1.
    pub fn sign(&mut self) -> f64 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// Index into `weights`, each as likely as its share of their sum.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.between(0.0, weights.iter().sum());
        for (idx, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return idx;
            }
        }
        weights.len().saturating_sub(1)
    }
}

/// Names one thing that chance decides about; draws from it never depend on other draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The root of a tree of keys.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The key of a part: of a drive, a frame, a laser, a shot, a purpose.
    pub fn with(self, part: u64) -> Self {
        Self(mix(self.0 ^ part.wrapping_mul(0xD6E8_FEB8_6659_FD93)))
    }

    /// In `(0, 1)`: its logarithm is always finite.
    pub fn uniform(self) -> f32 {
        ((self.0 >> 41) as f32 + 0.5) * (1.0 / (1u32 << 23) as f32)
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(self) -> f32 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.with(1).uniform()).cos()
    }

    /// The raw 64 bits, as a seed for another drive.
    pub fn bits(self) -> u64 {
        self.0
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
    use super::*;

    #[test]
    fn key_normal_has_unit_variance() {
        let draws: Vec<f64> = (0..20_000).map(|i| f64::from(Key::new(3).with(i).normal())).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
    }

    #[test]
    fn dice_weighted_follows_the_weights() {
        let mut dice = Dice::new(1, 2);
        let mut counts = [0usize; 3];
        for _ in 0..6000 {
            counts[dice.weighted(&[1.0, 0.0, 2.0])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((1800..2200).contains(&counts[0]), "{counts:?}");
    }
}
