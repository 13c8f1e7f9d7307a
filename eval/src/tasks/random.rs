//! Python's `random.Random`: the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998) with Python's seeding and drawing, so that
//! few-shot examples and bootstrap draws are those of lm-eval.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// A generator in the state that `random.Random(seed)` starts in.
#[derive(Clone)]
pub(crate) struct Random {
    state: [u32; SIZE],
    next: usize,
    /// The second of two normal numbers that are drawn together.
    normal: Option<f64>,
}

impl Random {
    /// Seeded as `random.Random(seed)` with a whole number.
    pub(crate) fn new(seed: u64) -> Self {
        let mut key = vec![seed as u32];
        if seed > u64::from(u32::MAX) {
            key.push((seed >> 32) as u32);
        }
        let mut state = [0_u32; SIZE];
        state[0] = 19_650_218;
        for i in 1..SIZE {
            state[i] = 1_812_433_253_u32.wrapping_mul(state[i - 1] ^ (state[i - 1] >> 30)).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..SIZE.max(key.len()) {
            let mixed = (state[i - 1] ^ (state[i - 1] >> 30)).wrapping_mul(1_664_525);
            state[i] = (state[i] ^ mixed).wrapping_add(key[j]).wrapping_add(j as u32);
            (i, j) = (i + 1, (j + 1) % key.len());
            if i == SIZE {
                (state[0], i) = (state[SIZE - 1], 1);
            }
        }
        for _ in 1..SIZE {
            let mixed = (state[i - 1] ^ (state[i - 1] >> 30)).wrapping_mul(1_566_083_941);
            state[i] = (state[i] ^ mixed).wrapping_sub(i as u32);
            i += 1;
            if i == SIZE {
                (state[0], i) = (state[SIZE - 1], 1);
            }
        }
        state[0] = 0x8000_0000;
        Self { state, next: SIZE, normal: None }
    }

    fn word(&mut self) -> u32 {
        if self.next == SIZE {
            for i in 0..SIZE {
                let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
                let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + MIDDLE) % SIZE] ^ (mixed >> 1) ^ twist;
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

    /// `random()`: a number from 0 to below 1 with 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `gauss(0, 1)`.
    pub(crate) fn gauss(&mut self) -> f64 {
        self.normal.take().unwrap_or_else(|| {
            let angle = self.unit() * std::f64::consts::TAU;
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
            self.normal = Some(angle.sin() * radius);
            angle.cos() * radius
        })
    }

    /// The place that `choice` takes among `bound`, by rejection; `bound` is at least 1 and fits 32 bits.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bits = usize::BITS - bound.leading_zeros();
        loop {
            let drawn = (self.word() >> (32 - bits)) as usize;
            if drawn < bound {
                return drawn;
            }
        }
    }

    /// `sample(range(count), most)`: distinct places in the order drawn; `most` is at most `count`.
    pub(crate) fn sample(&mut self, count: usize, most: usize) -> Vec<usize> {
        // Python takes the form that needs less memory; the draws differ.
        let mut table = 21;
        if most > 5 {
            table += 4_usize.pow(((3 * most) as f64).log(4.0).ceil() as u32);
        }
        if count <= table {
            let mut pool: Vec<usize> = (0..count).collect();
            (0..most)
                .map(|drawn| {
                    let place = self.below(count - drawn);
                    let chosen = pool[place];
                    pool[place] = pool[count - drawn - 1];
                    chosen
                })
                .collect()
        } else {
            let mut chosen = Vec::with_capacity(most);
            while chosen.len() < most {
                let place = self.below(count);
                if !chosen.contains(&place) {
                    chosen.push(place);
                }
            }
            chosen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_pythons() {
        // random.Random(1234).random(), twice; random.Random(0).random()
        let mut random = Random::new(1234);
        assert_eq!(
            [random.unit(), random.unit()].map(f64::to_bits),
            [0.9664535356921388_f64, 0.4407325991753527].map(f64::to_bits)
        );
        assert_eq!(Random::new(0).unit().to_bits(), 0.8444218515250481_f64.to_bits());
        // r = random.Random(1234); r.sample(range(10), 5), r.sample(range(100), 5), r.sample(range(7473), 6)
        let mut random = Random::new(1234);
        assert_eq!(random.sample(10, 5), [7, 1, 0, 9, 4]);
        assert_eq!(random.sample(100, 5), [4, 85, 88, 10, 12]);
        assert_eq!(random.sample(7473, 6), [6279, 2905, 1939, 142, 252, 6461]);
        // random.Random(2**40 + 3).sample(range(60), 20)
        assert_eq!(
            Random::new((1 << 40) + 3).sample(60, 20),
            [14, 3, 35, 53, 6, 36, 19, 44, 49, 27, 59, 30, 57, 47, 21, 16, 42, 37, 56, 52]
        );
        // r = random.Random(3); r.gauss(0, 1), r.choice(range(1000)), r.gauss(0, 1), r.gauss(0, 1)
        let mut random = Random::new(3);
        let drawn = (random.gauss(), random.below(1000), random.gauss(), random.gauss());
        assert_eq!(drawn, (0.09470803828730423, 378, 1.2500243810835503, 0.9791694637389738));
    }
}
