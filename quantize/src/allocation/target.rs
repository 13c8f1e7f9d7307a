//! How large a file may be, or how long a token may take.

use std::fmt;
use std::str::FromStr;

use crate::QuantizeError;

/// The size that a file may have, or its speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Mean bits a weight, over all tensors.
    BitsPerWeight(f64),
    /// Bytes of all tensors.
    Bytes(u64),
    /// The time of a token on this machine, as a multiple of what it takes with the fastest types.
    Speed(f64),
}

/// What `speed` is: a tenth from the fastest. The measurement is hardly finer, and it leaves room for better types.
const NEAR_FASTEST: f64 = 1.1;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BitsPerWeight(bits) => write!(f, "{bits}bpw"),
            Self::Bytes(bytes) => write!(f, "{:.3}GB", *bytes as f64 / 1e9),
            Self::Speed(factor) if *factor <= NEAR_FASTEST => f.write_str("speed"),
            Self::Speed(factor) => write!(f, "speed{factor:.2}"),
        }
    }
}

impl FromStr for Target {
    type Err = QuantizeError;

    /// Reads `4.6bpw`, `3.2GB`, `900MB` (powers of ten), `3GiB`, `900MiB` (powers of two) or `speed`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || QuantizeError::TargetWords { text: text.to_owned() };
        if text == "speed" {
            return Ok(Self::Speed(NEAR_FASTEST));
        }
        let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(fail)?;
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| fail())?;
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "bpw" if number > 0.0 && number <= 32.0 => return Ok(Self::BitsPerWeight(number)),
            "gb" => 1e9,
            "mb" => 1e6,
            "gib" => f64::from(1 << 30),
            "mib" => f64::from(1 << 20),
            _ => return Err(fail()),
        };
        if number > 0.0 { Ok(Self::Bytes((number * factor) as u64)) } else { Err(fail()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_said() {
        assert_eq!("4.6bpw".parse::<Target>().unwrap(), Target::BitsPerWeight(4.6));
        assert_eq!("3.2GB".parse::<Target>().unwrap(), Target::Bytes(3_200_000_000));
        assert_eq!("90 MiB".parse::<Target>().unwrap(), Target::Bytes(90 << 20));
        assert_eq!(Target::Bytes(91_000_000).to_string(), "0.091GB");
        assert_eq!("speed".parse::<Target>().unwrap(), Target::Speed(1.1));
        assert_eq!(
            (Target::Speed(1.1).to_string(), Target::Speed(1.21).to_string()),
            ("speed".into(), "speed1.21".into())
        );
        for bad in ["", "fast", "4.6", "bpw", "-1GB", "0bpw", "40bpw", "3TB", "1.2.3GB", "0MB"] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("4.6bpw"), "{error}");
        }
    }
}
