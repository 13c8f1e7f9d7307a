//! The numbers that expressions are compared in: whole numbers modulo a prime.
//!
//! Every rational number has its image there (division is exact, nothing overflows), and two different rational functions agree
//! at a point drawn at random with a probability of their degree over the prime, which is above 3.8 * 10^18.

/// 73 * 8 * (3 * 5 * 7 * ... * 43) + 1, a prime. As it is 1 modulo 8 and modulo each prime up to 43, all of these have square
/// roots in the field (quadratic reciprocity), so that surds can be computed with.
pub(super) const MODULUS: u64 = 3_820_166_308_847_648_761;

/// An element of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Element(u64);

impl Element {
    pub(super) const ZERO: Self = Self(0);
    pub(super) const ONE: Self = Self(1);

    /// The image of a number.
    pub(super) fn new(number: u64) -> Self {
        Self(number % MODULUS)
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }

    pub(super) fn plus(self, other: Self) -> Self {
        // Both are below 2^62: the sum fits.
        Self((self.0 + other.0) % MODULUS)
    }

    pub(super) fn negated(self) -> Self {
        Self((MODULUS - self.0) % MODULUS)
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self((u128::from(self.0) * u128::from(other.0) % u128::from(MODULUS)) as u64)
    }

    /// To the power of a whole number.
    pub(super) fn power(self, exponent: u64) -> Self {
        let (mut result, mut square, mut left) = (Self::ONE, self, exponent);
        while left > 0 {
            if left & 1 == 1 {
                result = result.times(square);
            }
            square = square.times(square);
            left >>= 1;
        }
        result
    }

    /// One over it, by Fermat's little theorem; `None` for zero.
    pub(super) fn inverse(self) -> Option<Self> {
        (self.0 != 0).then(|| self.power(MODULUS - 2))
    }

    /// A square root, always the same of the two; `None` where there is none. The algorithm of Tonelli and Shanks.
    pub(super) fn root(self) -> Option<Self> {
        if self.0 == 0 {
            return Some(self);
        }
        let is_square = |element: Self| element.power((MODULUS - 1) / 2) == Self::ONE;
        if !is_square(self) {
            return None;
        }
        let twos = (MODULUS - 1).trailing_zeros();
        let odd = (MODULUS - 1) >> twos;
        let no_square = (2..MODULUS).map(Self).find(|element| !is_square(*element))?;
        let (mut size, mut step) = (twos, no_square.power(odd));
        let (mut rest, mut root) = (self.power(odd), self.power(odd.div_ceil(2)));
        while rest != Self::ONE {
            let mut order = 0;
            let mut square = rest;
            while square != Self::ONE {
                square = square.times(square);
                order += 1;
            }
            let factor = step.power(1 << (size - order - 1));
            size = order;
            step = factor.times(factor);
            rest = rest.times(step);
            root = root.times(factor);
        }
        Some(if root.0 <= MODULUS / 2 { root } else { root.negated() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modulus_is_prime_and_has_the_roots_it_promises() {
        // Miller and Rabin with these bases decides below 3.3 * 10^24.
        for base in [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41] {
            let twos = (MODULUS - 1).trailing_zeros();
            let mut power = Element(base).power((MODULUS - 1) >> twos);
            let mut passes = power == Element::ONE || power.value() == MODULUS - 1;
            for _ in 1..twos {
                power = power.times(power);
                passes |= power.value() == MODULUS - 1;
            }
            assert!(passes, "{base}");
        }
        for prime in [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43] {
            let root = Element(prime).root().unwrap();
            assert_eq!(root.times(root), Element(prime));
        }
    }

    #[test]
    fn the_laws_of_a_field() {
        for index in 0..500_u64 {
            let [a, b, c] = [1_u64, 2, 3].map(|salt| {
                Element::new(crate::identity::number(&[b"field", &index.to_le_bytes(), &salt.to_le_bytes()]))
            });
            assert_eq!(a.plus(b).times(c), a.times(c).plus(b.times(c)));
            assert_eq!(a.plus(a.negated()), Element::ZERO);
            assert_eq!(a.times(a.inverse().unwrap()), Element::ONE);
            let square = a.times(a);
            let root = square.root().unwrap();
            assert!(root == a || root == a.negated());
            assert_eq!(a.power(5), a.times(a).times(a).times(a).times(a));
        }
    }
}
