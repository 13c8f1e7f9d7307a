//! How large a file may be.

use std::fmt;
use std::str::FromStr;

use crate::QuantizeError;

/// The size that a file may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Mean bits a weight, over all tensors.
    BitsPerWeight(f64),
    /// Bytes of all tensors.
    Bytes(u64),
}

impl Target {
    /// Bytes that the tensors may take in a model of so many weights.
    pub(super) fn bytes(self, weights: u64) -> u64 {
        match self {
            Self::BitsPerWeight(bits) => (bits * weights as f64 / 8.0) as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BitsPerWeight(bits) => write!(f, "{bits}bpw"),
            Self::Bytes(bytes) => write!(f, "{:.3}GB", *bytes as f64 / 1e9),
        }
    }
}

impl FromStr for Target {
    type Err = QuantizeError;

    /// Reads `4.6bpw`, `3.2GB`, `900MB` (powers of ten) or `3GiB`, `900MiB` (powers of two).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || QuantizeError::TargetWords { text: text.to_owned() };
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
        assert_eq!(Target::BitsPerWeight(4.0).bytes(1000), 500);
        for bad in ["", "4.6", "bpw", "-1GB", "0bpw", "40bpw", "3TB", "1.2.3GB", "0MB"] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("4.6bpw"), "{error}");
        }
    }
}
