//! Draws with replacement as instructlab-sdg makes them, for those who must have its very lines.
//!
//! It calls `DataFrame.sample(n, random_state=42, replace=True)`: numpy's legacy generator (MT19937, Matsumoto and Nishimura
//! 1998, seeded by one number) and its bounded integers by masks and rejection.

const SIZE: usize = 624;
const SHIFT: usize = 397;

/// The generator behind `numpy.random.RandomState`.
struct Mersenne {
    state: [u32; SIZE],
    at: usize,
}

impl Mersenne {
    fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for at in 1..SIZE {
            let before = state[at - 1];
            state[at] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(at as u32);
        }
        Self { state, at: SIZE }
    }

    fn twist(&mut self) {
        for at in 0..SIZE {
            let joined = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % SIZE] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + SHIFT) % SIZE] ^ (joined >> 1) ^ odd;
        }
        self.at = 0;
    }

    fn next(&mut self) -> u32 {
        if self.at == SIZE {
            self.twist();
        }
        let mut number = self.state[self.at];
        self.at += 1;
        number ^= number >> 11;
        number ^= (number << 7) & 0x9d2c_5680;
        number ^= (number << 15) & 0xefc6_0000;
        number ^ (number >> 18)
    }
}

/// The places of `wanted` lines out of `lines`, as `sample(n=wanted, random_state=42, replace=True)` draws them.
pub(super) fn with_replacement(lines: u32, wanted: u64) -> Vec<usize> {
    let Some(last) = lines.checked_sub(1) else { return Vec::new() };
    let mask = u32::MAX.checked_shr(last.leading_zeros()).unwrap_or_default();
    let mut numbers = Mersenne::new(42);
    if last == 0 {
        // One line needs no draw, and numpy makes none.
        return (0..wanted).map(|_| 0).collect();
    }
    let mut draw = || loop {
        let number = numbers.next() & mask;
        if number <= last {
            return number as usize;
        }
    };
    (0..wanted).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with pandas 3.1.1 and numpy 2: `pandas.DataFrame({"a": range(N)}).sample(n=8, random_state=42, replace=True)`.
    #[test]
    fn the_draws_are_those_of_pandas() {
        assert_eq!(with_replacement(10, 8), PANDAS_10);
        assert_eq!(with_replacement(1000, 8), PANDAS_1000);
        assert_eq!(with_replacement(1, 3), [0, 0, 0]);
        assert!(with_replacement(0, 3).is_empty());
    }

    const PANDAS_10: [usize; 8] = [6, 3, 7, 4, 6, 9, 2, 6];
    const PANDAS_1000: [usize; 8] = [102, 435, 860, 270, 106, 71, 700, 20];
}
