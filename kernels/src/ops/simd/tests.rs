//! Every instruction set against plain arithmetic.

#![allow(clippy::float_cmp, reason = "the values are exact")]

use super::{MAX_WIDTH, Operation, Simd, dispatch, exp, exp2};
use crate::InstructionSet;

#[derive(Clone, Copy)]
enum Function {
    Exp,
    Exp2,
}

struct Map<'a>(Function, &'a [f32], &'a mut [f32]);

impl Operation for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (x, y) in self.1.chunks(S::WIDTH).zip(self.2.chunks_mut(S::WIDTH)) {
            let vector = simd.load_short(x, 0.0);
            let result = match self.0 {
                Function::Exp => exp(simd, vector),
                Function::Exp2 => exp2(simd, vector),
            };
            simd.store_short(y, result);
        }
    }
}

fn ulps(value: f32, truth: f64) -> f64 {
    let magnitude = truth.abs().max(f64::from(f32::MIN_POSITIVE));
    let unit = 2.0_f64.powi(magnitude.log2().floor() as i32 - 23);
    (f64::from(value) - truth).abs() / unit
}

#[test]
fn exponentials_are_within_two_units_in_the_last_place() {
    let x: Vec<f32> = (0..200_001).map(|i| (i as f32 - 100_000.0) / 100_000.0 * 86.0).collect();
    let mut y = vec![0.0; x.len()];
    for isa in InstructionSet::available() {
        dispatch(isa, Map(Function::Exp, &x, &mut y));
        let worst = x.iter().zip(&y).map(|(x, y)| ulps(*y, f64::from(*x).exp())).fold(0.0, f64::max);
        assert!(worst < 2.0, "{}: exp is off by {worst} units", isa.name());
        dispatch(isa, Map(Function::Exp2, &x, &mut y));
        let worst = x.iter().zip(&y).map(|(x, y)| ulps(*y, f64::from(*x).exp2())).fold(0.0, f64::max);
        assert!(worst < 2.0, "{}: exp2 is off by {worst} units", isa.name());
    }
}

#[test]
fn exponentials_of_special_values() {
    let x = [f32::NEG_INFINITY, -1000.0, -0.0, 0.0, 1000.0, f32::INFINITY, f32::NAN, 1.0];
    for isa in InstructionSet::available() {
        for function in [Function::Exp, Function::Exp2] {
            let mut y = [7.0; 8];
            dispatch(isa, Map(function, &x, &mut y));
            assert_eq!(y[..6], [0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY], "{}", isa.name());
            assert!(y[6].is_nan());
        }
        // Subnormal results keep what precision they have.
        let mut y = [0.0];
        dispatch(isa, Map(Function::Exp2, &[-140.0], &mut y));
        assert_eq!(y[0].to_bits(), 1 << 9, "{}", isa.name());
    }
}

struct Lanes;

impl Operation for Lanes {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let values: Vec<f32> = (0..MAX_WIDTH).map(|i| i as f32 - 3.0).collect();
        let vector = simd.load(&values);
        assert_eq!(simd.sum(vector), values[..S::WIDTH].iter().sum::<f32>());
        assert_eq!(simd.maximum(vector), values[S::WIDTH - 1]);
        for count in 0..=S::WIDTH {
            let mut selected = [0.0; MAX_WIDTH];
            simd.store(&mut selected, simd.select_first(count, vector, simd.splat(9.5)));
            for (i, value) in selected[..S::WIDTH].iter().enumerate() {
                assert_eq!(*value, if i < count { values[i] } else { 9.5 });
            }
        }
        let (from, to) = (MAX_WIDTH + 3, MAX_WIDTH + 1);
        let source: Vec<f32> = (0..MAX_WIDTH * from).map(|i| i as f32).collect();
        let mut target = vec![0.0; MAX_WIDTH * to];
        // SAFETY: both buffers hold MAX_WIDTH >= WIDTH rows.
        unsafe { simd.transpose_at(source.as_ptr(), from, target.as_mut_ptr(), to) };
        for row in 0..S::WIDTH {
            for column in 0..S::WIDTH {
                assert_eq!(target[column * to + row], source[row * from + column]);
            }
        }
    }
}

#[test]
fn lanes_do_what_they_say() {
    for isa in InstructionSet::available() {
        dispatch(isa, Lanes);
    }
}

struct Pairs<'a>(&'a [f32], &'a [f32], &'a mut [u32]);

impl Operation for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let values = self.0.chunks_exact(S::WIDTH).zip(self.1.chunks_exact(S::WIDTH));
        for ((even, odd), target) in values.zip(self.2.chunks_exact_mut(S::WIDTH)) {
            // SAFETY: the chunk is as long as a vector.
            unsafe { simd.store_pairs_at(target.as_mut_ptr(), simd.load(even), simd.load(odd)) };
        }
    }
}

#[test]
fn pairs_are_rounded_as_single_values_are() {
    let bits = |seed: u32, i: u32| f32::from_bits((seed + i).wrapping_mul(2_654_435_761));
    let special = [0, 1, 0x7f_ffff, 0x80_0000, 0x7f80_0000, 0x7f80_0001, 0xffc0_1234, 0x3f80_8000].map(f32::from_bits);
    let even: Vec<f32> = special.into_iter().chain((0..1016).map(|i| bits(1, i))).collect();
    let odd: Vec<f32> = (0..1016).map(|i| bits(99, i)).chain(special).collect();
    for isa in InstructionSet::available() {
        let mut words = vec![7; even.len()];
        dispatch(isa, Pairs(&even, &odd, &mut words));
        for ((word, even), odd) in words.into_iter().zip(&even).zip(&odd) {
            let expected = u32::from(super::bf16_bits(*even)) | u32::from(super::bf16_bits(*odd)) << 16;
            assert_eq!(word, expected, "{} {even} {odd}", isa.name());
        }
    }
}
