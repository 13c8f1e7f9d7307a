//! Writes the held-out test of the quickstart's dates:
//!
//! ```text
//! cargo run -p espalier-sdg --example make_date_test > taxonomy/examples/quickstart/skills/dates_to_iso/test.jsonl
//! ```
//!
//! 300 different days of the years 2020 to 2049, which the leaf's own `questions` leave out, each in one of its five forms. The
//! file was first drawn with Python's `random.Random(20190305)`, so the same generator stands here.

use jiff::civil::{Date, date};
use jiff::{Error, ToSpan, Unit};
use std::collections::HashSet;
use std::fmt::Write as _;

const SEED: u32 = 20_190_305;
const ITEMS: usize = 300;
const FORMS: [&str; 5] = ["%B %-d, %Y", "%b %-d, %Y", "%-d %B %Y", "%-d %b %Y", "the ORD of %B %Y"];

fn main() -> Result<(), Error> {
    print!("{}", test_file()?);
    Ok(())
}

/// The whole file.
fn test_file() -> Result<String, Error> {
    let (first, last) = (date(2020, 1, 1), date(2049, 12, 31));
    let days = first.until((Unit::Day, last))?.get_days().unsigned_abs() + 1;
    let mut random = MersenneTwister::new(SEED);
    let mut seen = HashSet::new();
    let mut lines = String::new();
    while seen.len() < ITEMS {
        let day = first.checked_add(i64::from(random.below(days)).days())?;
        let form = FORMS[random.below(5) as usize];
        if seen.insert(day) {
            let shown = day.strftime(form).to_string().replace("ORD", &ordinal(day));
            // Writing to a string cannot fail.
            let _ = writeln!(
                lines,
                r#"{{"question": "Write this date in ISO 8601: {shown}", "answer": "{day}", "slots": {{"day": "{day}"}}}}"#
            );
        }
    }
    Ok(lines)
}

fn ordinal(day: Date) -> String {
    let number = day.day();
    let ending = match (number % 10, number) {
        (_, 10..=20) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// MT19937, seeded and bounded as in Python.
struct MersenneTwister {
    state: [u32; Self::SIZE],
    next: usize,
}

impl MersenneTwister {
    const SIZE: usize = 624;

    /// The generator's `init_by_array` with a key of one number.
    fn new(seed: u32) -> Self {
        let mut state = [19_650_218; Self::SIZE];
        for at in 1..Self::SIZE {
            state[at] = Self::mixed(state[at - 1], 1_812_433_253).wrapping_add(at as u32);
        }
        let mut at = 1;
        for _ in 0..Self::SIZE {
            state[at] = (state[at] ^ Self::mixed(state[at - 1], 1_664_525)).wrapping_add(seed);
            at = Self::after(at, &mut state);
        }
        for _ in 1..Self::SIZE {
            state[at] = (state[at] ^ Self::mixed(state[at - 1], 1_566_083_941)).wrapping_sub(at as u32);
            at = Self::after(at, &mut state);
        }
        state[0] = 1 << 31;
        Self { state, next: Self::SIZE }
    }

    fn mixed(word: u32, factor: u32) -> u32 {
        (word ^ (word >> 30)).wrapping_mul(factor)
    }

    fn after(at: usize, state: &mut [u32; Self::SIZE]) -> usize {
        if at + 1 < Self::SIZE {
            return at + 1;
        }
        state[0] = state[Self::SIZE - 1];
        1
    }

    fn word(&mut self) -> u32 {
        if self.next == Self::SIZE {
            for at in 0..Self::SIZE {
                let joined = (self.state[at] & (1 << 31)) | (self.state[(at + 1) % Self::SIZE] & ((1 << 31) - 1));
                let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[at] = self.state[(at + 397) % Self::SIZE] ^ (joined >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number below `limit`: as many high bits as it has, drawn until they are below it.
    fn below(&mut self, limit: u32) -> u32 {
        loop {
            let number = self.word() >> limit.leading_zeros();
            if number < limit {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_test_in_the_tree_is_what_this_writes() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../taxonomy/examples/quickstart/skills/dates_to_iso/test.jsonl");
        assert_eq!(
            super::test_file().expect("all days exist"),
            std::fs::read_to_string(path).expect("the file is there")
        );
    }
}
