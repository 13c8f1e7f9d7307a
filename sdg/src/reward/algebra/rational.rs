//! Exact fractions of moderate size: the numbers that formulas are written with, and their constant parts.

/// A fraction in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rational {
    over: i128,
    under: i128,
}

impl Rational {
    pub(super) fn whole(number: i64) -> Self {
        Self { over: number.into(), under: 1 }
    }

    /// `None` for a denominator of zero.
    pub(super) fn new(over: i128, under: i128) -> Option<Self> {
        let divisor = greatest_divisor(over.checked_abs()?, under.checked_abs()?);
        if under == 0 {
            return None;
        }
        let sign = under.signum();
        Some(Self { over: over / divisor * sign, under: under / divisor * sign })
    }

    /// `1,234.5`; `None` beyond 30 digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits: String = whole.chars().chain(decimals.chars()).filter(char::is_ascii_digit).collect();
        if digits.is_empty() || digits.len() > 30 {
            return None;
        }
        Self::new(digits.parse().ok()?, 10_i128.checked_pow(decimals.len() as u32)?)
    }

    pub(super) fn is_whole(self) -> bool {
        self.under == 1
    }

    pub(super) fn over(self) -> i128 {
        self.over
    }

    pub(super) fn under(self) -> i128 {
        self.under
    }

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let over = self.over.checked_mul(other.under)?.checked_add(other.over.checked_mul(self.under)?)?;
        Self::new(over, self.under.checked_mul(other.under)?)
    }

    pub(super) fn negated(self) -> Self {
        Self { over: -self.over, under: self.under }
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        Self::new(self.over.checked_mul(other.over)?, self.under.checked_mul(other.under)?)
    }

    pub(super) fn inverse(self) -> Option<Self> {
        Self::new(self.under, self.over)
    }

    pub(super) fn power(self, exponent: i128) -> Option<Self> {
        let size = u32::try_from(exponent.checked_abs()?).ok()?;
        let power = Self::new(self.over.checked_pow(size)?, self.under.checked_pow(size)?)?;
        if exponent < 0 { power.inverse() } else { Some(power) }
    }
}

fn greatest_divisor(mut one: i128, mut other: i128) -> i128 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_exact_and_bounded() {
        let half = Rational::new(-2, -4).unwrap();
        assert_eq!((half.over(), half.under()), (1, 2));
        assert_eq!(Rational::parse("1,250.50"), Rational::new(2501, 2));
        assert_eq!(half.plus(half), Some(Rational::whole(1)));
        assert_eq!(Rational::whole(2).power(-3), Rational::new(1, 8));
        assert_eq!(Rational::whole(10).power(60), None);
        assert_eq!(Rational::whole(0).inverse(), None);
        assert_eq!(Rational::parse(&"9".repeat(31)), None);
    }
}
