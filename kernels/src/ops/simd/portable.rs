//! The plain path: four-element arrays, which compilers turn into the vectors that all 64-bit processors have.

use super::{Operation, Simd};

/// Plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const WIDTH: usize = 4;

/// Adding and subtracting 1.5 * 2^23 rounds to an integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

macro_rules! lane_by_lane {
    ($($argument:ident),+ => $result:expr) => {{
        let mut lanes = [0.0; WIDTH];
        for (lane, ($($argument,)+)) in lanes.iter_mut().zip(zipped!($($argument),+)) {
            *lane = $result;
        }
        lanes
    }};
}

macro_rules! zipped {
    ($a:ident) => {
        $a.into_iter().map(|a| (a,))
    };
    ($a:ident, $b:ident) => {
        $a.into_iter().zip($b)
    };
    ($a:ident, $b:ident, $c:ident) => {
        $a.into_iter().zip($b).zip($c).map(|((a, b), c)| (a, b, c))
    };
}

impl Simd for Portable {
    type Vector = [f32; WIDTH];
    type Integers = [i32; WIDTH];

    const WIDTH: usize = WIDTH;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        [value; WIDTH]
    }

    #[inline(always)]
    unsafe fn load_at(self, source: *const f32) -> Self::Vector {
        // SAFETY: the caller promises WIDTH readable elements.
        unsafe { source.cast::<Self::Vector>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_at(self, target: *mut f32, vector: Self::Vector) {
        // SAFETY: the caller promises WIDTH writable elements.
        unsafe { target.cast::<Self::Vector>().write_unaligned(vector) }
    }

    #[inline(always)]
    fn splat_integer(self, value: u32) -> Self::Integers {
        [value.cast_signed(); WIDTH]
    }

    #[inline(always)]
    unsafe fn load_integers_at(self, source: *const u32) -> Self::Integers {
        // SAFETY: the caller promises WIDTH readable elements.
        unsafe { source.cast::<Self::Integers>().read_unaligned() }
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Integers, b: Self::Integers, sum: Self::Integers) -> Self::Integers {
        let mut sums = sum;
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            let (low, high) = (i32::from(a as i16) * i32::from(b as i16), (a >> 16) * (b >> 16));
            *sum = sum.wrapping_add(low.wrapping_add(high));
        }
        sums
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Integers) -> Self::Vector {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    unsafe fn store_i16_at(self, target: *mut i16, vector: Self::Vector) {
        // SAFETY: the caller promises WIDTH writable elements.
        unsafe { target.cast::<[i16; WIDTH]>().write_unaligned(self.round(vector).map(|value| value as i16)) }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lane_by_lane!(a, b => a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lane_by_lane!(a, b => a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lane_by_lane!(a, b => a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lane_by_lane!(a, b => a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        lane_by_lane!(a, b, c => a * b + c)
    }

    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lane_by_lane!(a, b => if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lane_by_lane!(a, b => if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, a: Self::Vector) -> Self::Vector {
        lane_by_lane!(a => (a + ROUNDER) - ROUNDER)
    }

    #[inline(always)]
    fn scale_by_power(self, a: Self::Vector, n: Self::Vector) -> Self::Vector {
        // Two factors, because 2^-150 and 2^128 have no bit pattern of their own.
        lane_by_lane!(a, n => {
            let n = n as i32;
            let half = n >> 1;
            a * f32::from_bits(((half + 127) << 23) as u32) * f32::from_bits(((n - half + 127) << 23) as u32)
        })
    }

    #[inline(always)]
    fn select_first(self, count: usize, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let mut lanes = b;
        for (index, lane) in lanes.iter_mut().enumerate() {
            if index < count {
                *lane = a[index];
            }
        }
        lanes
    }

    #[inline(always)]
    fn sum(self, a: Self::Vector) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }

    #[inline(always)]
    fn maximum(self, a: Self::Vector) -> f32 {
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        larger(larger(a[0], a[2]), larger(a[1], a[3]))
    }

    #[inline(always)]
    unsafe fn transpose_at(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        for row in 0..WIDTH {
            for column in 0..WIDTH {
                // SAFETY: the caller promises both squares.
                unsafe {
                    *target.add(column * target_stride + row) = *source.add(row * source_stride + column);
                }
            }
        }
    }

    fn call<O: Operation>(self, operation: O) -> O::Output {
        operation.run(self)
    }
}
