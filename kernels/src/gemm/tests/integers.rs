//! Products of integers: one result on all instruction sets, and what rounding costs.

use super::*;

/// All kernels of integers that this CPU can run.
pub(super) fn sets() -> Vec<(&'static str, &'static Kernels)> {
    #[allow(unused_mut, reason = "elsewhere there are no others")]
    let mut sets = vec![("integers, plain", &super::super::integers::plain::KERNELS)];
    #[cfg(target_arch = "x86_64")]
    {
        use super::super::integers::{avx2, avx512};
        use std::is_x86_feature_detected as has;
        if InstructionSet::Avx2.usable() == InstructionSet::Avx2 {
            sets.push(("integers, AVX2", &avx2::KERNELS));
            if has!("avxvnni") {
                sets.push(("integers, AVX-VNNI", &avx2::VNNI_KERNELS));
            }
        }
        if has!("avx512f") && has!("avx512vnni") {
            sets.push(("integers, AVX-512 VNNI", &avx512::KERNELS));
        }
    }
    sets
}

fn product(kernels: &'static Kernels, x: &[f32], w: &[f32], columns: usize) -> Vec<f32> {
    let (m, rows) = (x.len() / columns, w.len() / columns);
    let matrix = pack(Precision::Bf16, rows, columns, w);
    let mut y = values(m * rows, 31);
    multiply_with(kernels, x, m, &matrix, &mut y, Accumulate::Overwrite);
    multiply_with(kernels, x, m, &matrix, &mut y, Accumulate::Add);
    y
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_plain_one() {
    for (m, rows, columns) in [(1, 1, 1), (5, 33, 31), (13, 70, 256), (29, 64, 300), (50, 40, 2100)] {
        let (x, w) = (values(m * columns, 32), values(rows * columns, 33));
        let plain = product(&super::super::integers::plain::KERNELS, &x, &w, columns);
        for (name, kernels) in sets() {
            assert_eq!(product(kernels, &x, &w, columns), plain, "{name}, {m} x {columns} x {rows}");
        }
    }
}

/// The root of the mean square of the errors, beside the norms of both sides.
fn error(kernels: &'static Kernels, x: &[f32], w: &[f32], columns: usize) -> f64 {
    let (m, rows) = (x.len() / columns, w.len() / columns);
    let expected = reference_of([Precision::F32, Precision::Bf16], x, m, w, rows, columns);
    let norm = |values: &[f32]| values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let squares = product(kernels, x, w, columns)
        .iter()
        .zip(expected)
        .enumerate()
        .map(|(i, (got, expected))| {
            let own = [&x[i / rows * columns..][..columns], &w[i % rows * columns..][..columns]].map(norm);
            ((f64::from(*got) - 2.0 * expected) / (own[0] * own[1])).powi(2)
        })
        .sum::<f64>();
    (squares / (m * rows) as f64).sqrt()
}

/// Values as a model has them: a bell, and a few that are a hundred times as large, in the same places of every row.
fn with_outliers(count: usize, columns: usize, seed: u32) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = (0..6).map(|part| values(count, seed + part)).collect();
    (0..count)
        .map(|i| {
            let bell: f32 = parts.iter().map(|part| part[i]).sum();
            if i % columns % 97 == 5 { 100.0 * bell } else { bell }
        })
        .collect()
}

#[test]
fn integers_err_less_than_bf16() {
    let columns = 1536;
    for (what, x) in [
        ("even values", values(20 * columns, 34)),
        ("a bell with outliers", with_outliers(20 * columns, columns, 40)),
        ("one value of a row", (0..20 * columns).map(|i| if i % columns == i / columns { 3.7 } else { 0.0 }).collect()),
    ] {
        let w = values(64 * columns, 35);
        let bf16 = error(floats(InstructionSet::Portable, Precision::Bf16), &x, &w, columns);
        for (name, kernels) in sets() {
            let integers = error(kernels, &x, &w, columns);
            assert!(integers < 0.6 * bf16, "{name}, {what}: {integers:e} beside {bf16:e}");
        }
    }
}

/// Both sides point the same way, so that the sum is the largest that a piece can have.
#[test]
fn the_largest_sums_stay_in_their_range() {
    for columns in [1, 2, 255, 256, 512] {
        for x in [vec![1.0; columns], vec![-3.0e8; columns], vec![2.0e-12; columns]] {
            for (name, kernels) in sets() {
                let y = product(kernels, &x, &x, columns)[0];
                let rounded = half::bf16::from_f32(x[0]).to_f64();
                let expected = 2.0 * f64::from(x[0]) * rounded * columns as f64;
                assert!((f64::from(y) / expected - 1.0).abs() < 1e-3, "{name}, {columns} of {}: {y}", x[0]);
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row_and_what_is_tiny_counts_as_nothing() {
    let columns = 300;
    let w = values(40 * columns, 36);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = values(3 * columns, 37);
        x[columns + 299] = value;
        for (name, kernels) in sets() {
            let y = product(kernels, &x, &w, columns);
            assert!(y[40..80].iter().all(|y| y.is_nan()), "{name}");
            assert!(y[..40].iter().chain(&y[80..]).all(|y| y.is_finite()), "{name}");
        }
    }
    for (name, kernels) in sets() {
        assert!(product(kernels, &vec![1e-30; columns], &w, columns).iter().all(|y| *y == 0.0), "{name}");
    }
}
