//! `MinHash` signatures, cut into bands.

use crate::quality::shingles::Shingles;
use crate::quality::words::mixed;

/// Hashes of a signature at most.
const MOST_HASHES: usize = 128;
/// The share of pairs at the threshold itself that must meet in a band.
const RECALL: f64 = 0.99;

/// How a signature is cut: two sets meet where all hashes of one band are equal, which happens to a share
/// `1 - (1 - s^hashes)^bands` of the pairs of similarity `s` (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bands {
    /// Bands of a signature.
    pub(super) bands: usize,
    /// Hashes of a band.
    pub(super) hashes: usize,
}

impl Bands {
    /// The most hashes a band (the fewest pairs in vain) with which 99 % of the pairs at `threshold` meet, of at most 128 hashes
    /// in all; 0.8 gives 16 bands of 6.
    pub(super) fn of_threshold(threshold: f64) -> Self {
        let needed = |hashes: usize| {
            let meet = threshold.powi(hashes as i32);
            let bands = if meet >= 1.0 { 1.0 } else { ((1.0 - RECALL).ln() / (-meet).ln_1p()).ceil() };
            Self { bands: bands.max(1.0) as usize, hashes }
        };
        let fits = |bands: &Self| bands.bands.saturating_mul(bands.hashes) <= MOST_HASHES;
        // A band of one hash is the most tolerant there is: what it still misses below its reach is missed.
        (1..=16).rev().map(needed).find(fits).unwrap_or(Self { bands: MOST_HASHES, hashes: 1 })
    }

    /// The key of each band; none for an empty set.
    pub(super) fn keys(self, shingles: &Shingles) -> Vec<u32> {
        if shingles.is_empty() {
            return Vec::new();
        }
        let shingles: Vec<u64> = shingles.hashes().iter().map(|&hash| mixed(u64::from(hash))).collect();
        (0..self.bands)
            .map(|band| {
                let key = (0..self.hashes)
                    .fold(0, |before, place| mixed(before ^ minimum(&shingles, (band * self.hashes + place) as u64)));
                (key >> 32) as u32
            })
            .collect()
    }
}

/// The least of the shingles under the hash function of this number: a multiplication by an odd number after a shift by
/// another, both of which the number gives. The chance that two sets have the same least is their Jaccard index.
fn minimum(shingles: &[u64], number: u64) -> u64 {
    let (factor, offset) = (mixed(2 * number + 1) | 1, mixed(2 * number + 2));
    shingles.iter().map(|&shingle| (shingle ^ offset).wrapping_mul(factor)).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_gives_bands_that_catch_it() {
        assert_eq!(Bands::of_threshold(0.8), Bands { bands: 16, hashes: 6 });
        for threshold in [0.3, 0.5, 0.7, 0.9, 0.95, 1.0] {
            let Bands { bands, hashes } = Bands::of_threshold(threshold);
            let met = 1.0 - (1.0 - threshold.powi(hashes as i32)).powi(bands as i32);
            assert!(met >= RECALL - 1e-9 && bands * hashes <= MOST_HASHES, "{threshold}: {bands} of {hashes}");
        }
        assert_eq!(Bands::of_threshold(0.001), Bands { bands: 128, hashes: 1 });
    }

    /// Of many pairs of a known similarity, the share with the same least is that similarity.
    #[test]
    fn minima_agree_as_often_as_sets_do() {
        let hashes = 2000;
        for shared in [20_u32, 50, 80] {
            let set = |from: u32| -> Vec<u64> { (from..from + 100).map(|i| mixed(u64::from(i))).collect() };
            let (a, b) = (set(0), set(100 - shared));
            let agreed = (0..hashes).filter(|&number| minimum(&a, number) == minimum(&b, number)).count();
            let (found, expected) = (agreed as f64 / hashes as f64, f64::from(shared) / f64::from(200 - shared));
            // Four standard deviations.
            assert!(
                (found - expected).abs() < 4.0 * (expected * (1.0 - expected) / hashes as f64).sqrt(),
                "{found} {expected}"
            );
        }
    }
}
