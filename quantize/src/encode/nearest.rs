//! Conversions between `f32` and small numbers, with the exact behaviour of the C code that defines the formats.

use half::f16;

/// The nearest integer, half to even, for magnitudes up to 2^22.
///
/// Adding 1.5 x 2^23 leaves no bits below the point, so that the addition itself rounds; the integer is then the low
/// 23 bits. Beyond 2^22 the result is meaningless but the same on every machine.
#[inline(always)]
pub(super) fn nearest_integer(value: f32) -> i32 {
    let shifted = value + 12_582_912.0;
    (shifted.to_bits() & 0x007F_FFFF) as i32 - 0x0040_0000
}

/// The nearest integer within `least..=greatest`, half to even; NaN gives `least`.
///
/// Bounding first leaves nothing that the addition could not round, and the number stays an `f32`, so that this takes
/// four instructions over all lanes. For finite magnitudes up to 2^22 it is [`nearest_integer`] bounded afterwards.
#[inline(always)]
pub(super) fn nearest_level(value: f32, least: f32, greatest: f32) -> f32 {
    let above = if value > least { value } else { least };
    let within = if above < greatest { above } else { greatest };
    within + 12_582_912.0 - 12_582_912.0
}

/// Truncation as the x86 conversion instruction does it: what does not fit an `i32` gives its smallest value.
#[inline(always)]
pub(super) fn truncate(value: f32) -> i32 {
    if value.abs() < 2_147_483_648.0 { value as i32 } else { i32::MIN }
}

/// Truncation to a signed byte, bounded to its range.
///
/// C leaves a conversion beyond the range undefined; clang's code for ggml bounds it, GCC's gives 0. It happens only in
/// blocks so near zero that the inverse of their scale is infinite, and the scale then decodes to 0.
#[inline(always)]
pub(super) fn truncate_to_byte(value: f32) -> i8 {
    truncate(value).clamp(-128, 127) as i8
}

/// Nearest even half-precision number, little endian.
#[inline(always)]
pub(super) fn to_half(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// The value of little-endian half precision.
#[inline(always)]
pub(super) fn from_half(raw: [u8; 2]) -> f32 {
    f16::from_le_bytes(raw).to_f32()
}

/// Whether little-endian half precision is neither infinite nor NaN.
#[inline(always)]
pub(super) fn half_is_finite(raw: [u8; 2]) -> bool {
    raw[1] & 0x7C != 0x7C
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_even_integer() {
        for (value, expected) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (3.49, 3), (-7.51, -8)] {
            assert_eq!(nearest_integer(value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_number_becomes_an_integer_all_the_same() {
        assert_eq!(nearest_integer(f32::NAN), 0);
        assert_eq!(nearest_integer(f32::INFINITY), -0x0040_0000);
        assert_eq!(truncate(f32::NAN), i32::MIN);
        assert_eq!(truncate(3e9), i32::MIN);
        assert_eq!(truncate(-3.9), -3);
    }

    #[test]
    fn bounded_levels_are_the_nearest_integers() {
        for thousandth in -40_000..40_000 {
            let value = thousandth as f32 / 1000.0;
            assert_eq!(nearest_level(value, 0.0, 15.0), nearest_integer(value).clamp(0, 15) as f32, "{value}");
            assert_eq!(nearest_level(value, -32.0, 31.0), nearest_integer(value).clamp(-32, 31) as f32, "{value}");
        }
        assert_eq!(nearest_level(f32::NAN, 0.0, 15.0), 0.0);
    }

    #[test]
    fn halves_know_infinity() {
        assert!(half_is_finite(to_half(65504.0)));
        assert!(!half_is_finite(to_half(70000.0)));
        assert!(!half_is_finite(to_half(f32::NAN)));
        assert_eq!(from_half(to_half(0.1)), 0.099_975_586);
    }
}
