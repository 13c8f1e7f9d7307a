//! Draws that repeat: the same numbers for the same seed and place, on every machine and in every version.

use sha2::{Digest, Sha256};

/// A stream of numbers (`SplitMix64`, Steele, Lea and Flood 2014), begun from a hash of what is drawn for.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    /// The stream of this seed and place.
    pub(crate) fn new(seed: u64, place: &[&[u8]]) -> Self {
        Self(draw_key(seed, place))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is above zero; its bias is below `end` in 2^64.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// True for a share of all draws.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        // The upper 53 bits are a float in [0, 1) without rounding.
        ((self.next() >> 11) as f64) < share * 2_f64.powi(53)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// 64 bits of the hash of a seed and a place: what draws are sorted by or begin from.
pub fn draw_key(seed: u64, place: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for part in place {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut start = [0; 8];
    start.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_repeat() {
        let mut draw = Draw::new(7, &[b"a", b"b"]);
        let mut counts = [0_u32; 5];
        (0..50_000).for_each(|_| counts[draw.below(5)] += 1);
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        let kept = (0..50_000).filter(|_| draw.chance(0.4)).count();
        assert!((19_400..20_600).contains(&kept), "{kept}");
        assert!(!draw.chance(0.0) && draw.chance(1.0));
        let mut items = [1, 2, 3, 4, 5, 6];
        Draw::new(1, &[b"x"]).shuffle(&mut items);
        assert_eq!(items, {
            let mut again = [1, 2, 3, 4, 5, 6];
            Draw::new(1, &[b"x"]).shuffle(&mut again);
            again
        });
        // The parts of a place do not run into each other.
        assert_ne!(draw_key(1, &[b"ab", b"c"]), draw_key(1, &[b"a", b"bc"]));
    }
}
