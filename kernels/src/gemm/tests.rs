//! Every instruction set against f64, and the rule that a row's result depends on that row alone.

// Bit-equal is what is claimed.
#![allow(clippy::float_cmp)]

mod integers;
mod stored;

use proptest::prelude::*;

use super::dense::{Form, multiply};
use super::kernel::{Kernels, floats};
use super::*;
use crate::Precision;

/// The kernels of every instruction set here and those of integers.
fn kernel_sets(precision: Precision) -> Vec<(String, &'static Kernels)> {
    let mut sets = float_sets(precision);
    if precision == Precision::Bf16 {
        sets.extend(integers::sets().into_iter().map(|(name, kernels)| (name.to_owned(), kernels)));
    }
    sets
}

/// The kernels of floats of every instruction set here, those with `VDPBF16PS` also where they are slow, and the model of the
/// AMX tiles.
fn float_sets(precision: Precision) -> Vec<(String, &'static Kernels)> {
    let mut sets: Vec<_> =
        InstructionSet::available().into_iter().map(|isa| (isa.to_string(), floats(isa, precision))).collect();
    #[cfg(target_arch = "x86_64")]
    if precision == Precision::Bf16 {
        sets.push(("model of amx".to_owned(), &amx::model::MODEL));
        if InstructionSet::available().contains(&InstructionSet::Avx512Bf16) {
            sets.push(("VDPBF16PS".to_owned(), &avx512bf16::PAIRS));
        }
    }
    sets
}

/// Values in -1..1 that differ by seed.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect()
}

fn pack(precision: Precision, rows: usize, columns: usize, w: &[f32]) -> PackedMatrix {
    PackedMatrix::pack(precision, rows, columns, &|r, row| {
        row.copy_from_slice(&w[r * columns..][..columns]);
    })
}

/// What the factors are in this precision.
fn rounded(precision: Precision, x: f32) -> f64 {
    match precision {
        Precision::F32 => f64::from(x),
        Precision::Bf16 => half::bf16::from_f32(x).to_f64(),
    }
}

/// `x W^T` in f64.
fn reference(precision: Precision, x: &[f32], m: usize, w: &[f32], rows: usize, columns: usize) -> Vec<f64> {
    reference_of([precision; 2], x, m, w, rows, columns)
}

/// The references of kernels of floats and of integers, which do not round `x` to bf16 first.
fn references(precision: Precision, x: &[f32], m: usize, w: &[f32], rows: usize, columns: usize) -> [Vec<f64>; 2] {
    [precision, Precision::F32].map(|of_x| reference_of([of_x, precision], x, m, w, rows, columns))
}

/// `x W^T` in f64, with the precisions of both.
fn reference_of([of_x, of_w]: [Precision; 2], x: &[f32], m: usize, w: &[f32], rows: usize, columns: usize) -> Vec<f64> {
    let mut y = vec![0.0; m * rows];
    for i in 0..m {
        for r in 0..rows {
            y[i * rows + r] =
                (0..columns).map(|k| rounded(of_x, x[i * columns + k]) * rounded(of_w, w[r * columns + k])).sum();
        }
    }
    y
}

/// Sums of `k` products below 1 in f32, with a few roundings more at the end: random signs keep the partial sums near
/// sqrt(k), so that this bound is far above what happens and far below any mistake.
fn tolerance(k: usize) -> f64 {
    f64::from(f32::EPSILON) * k.max(16) as f64
}

/// [`tolerance`] of these kernels. A sum of integers errs by `4e-6` for each input of a piece, in the mean: half a factor of
/// both sides, times the norm of the other.
fn tolerance_of(kernels: &Kernels, k: usize) -> f64 {
    if kernels.integers.is_none() {
        return tolerance(k);
    }
    tolerance(k) + 3e-5 * k.min(576) as f64 * (k as f64 / 576.0).max(1.0).sqrt()
}

fn check(m: usize, rows: usize, columns: usize) {
    let (x, w) = (values(m * columns, 1), values(rows * columns, 2));
    let start = values(m * rows, 3);
    for precision in [Precision::F32, Precision::Bf16] {
        let matrix = pack(precision, rows, columns, &w);
        let expected = references(precision, &x, m, &w, rows, columns);
        for (name, kernels) in kernel_sets(precision) {
            let expected = &expected[usize::from(kernels.integers.is_some())];
            for accumulate in [Accumulate::Overwrite, Accumulate::Add] {
                let mut y = start.clone();
                multiply_with(kernels, &x, m, &matrix, &mut y, accumulate);
                for (i, &got) in y.iter().enumerate() {
                    let before = if accumulate == Accumulate::Add { f64::from(start[i]) } else { 0.0 };
                    let difference = (f64::from(got) - before - expected[i]).abs();
                    assert!(
                        difference <= tolerance_of(kernels, columns),
                        "{name}, {precision}, {accumulate:?}, {m} x {columns} x {rows}, element {i}: \
                         {got}, off by {difference}"
                    );
                }
            }
        }
    }
}

#[test]
fn products_equal_f64_in_odd_shapes() {
    for (m, rows, columns) in [(1, 1, 1), (1, 32, 32), (13, 33, 31), (24, 64, 96), (40, 100, 100), (31, 65, 2100)] {
        check(m, rows, columns);
    }
}

#[test]
fn a_product_of_several_row_tasks_equals_f64() {
    check(801, 40, 70);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn products_equal_f64_in_any_shape(m in 1_usize..40, rows in 1_usize..100, columns in 1_usize..100) {
        check(m, rows, columns);
    }

    #[test]
    fn dense_products_equal_f64_in_any_shape(
        m in 1_usize..70, n in 1_usize..70, k in 1_usize..90, alpha in prop_oneof![Just(1.0_f32), -2.0_f32..2.0],
    ) {
        check_dense(m, n, k, alpha);
    }
}

#[test]
fn a_row_alone_and_one_thread_give_the_same_bits() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("pool");
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("pool");
    let (m, rows, columns) = (77, 150, 1300);
    let (x, w) = (values(m * columns, 4), values(rows * columns, 5));
    let start = values(m * rows, 6);
    for precision in [Precision::F32, Precision::Bf16] {
        let matrix = pack(precision, rows, columns, &w);
        for (name, kernels) in kernel_sets(precision) {
            for accumulate in [Accumulate::Overwrite, Accumulate::Add] {
                let (mut y, mut z) = (start.clone(), start.clone());
                two.install(|| multiply_with(kernels, &x, m, &matrix, &mut y, accumulate));
                one.install(|| multiply_with(kernels, &x, m, &matrix, &mut z, accumulate));
                assert_eq!(y, z, "{name}, {precision}, {accumulate:?}: threads");
                for i in 0..m {
                    let mut row = start[i * rows..][..rows].to_vec();
                    two.install(|| {
                        multiply_with(kernels, &x[i * columns..][..columns], 1, &matrix, &mut row, accumulate);
                    });
                    assert_eq!(row, y[i * rows..][..rows], "{name}, {precision}, {accumulate:?}: row {i}");
                }
            }
        }
    }
}

#[test]
fn a_transposed_packing_multiplies_by_the_transposed_matrix() {
    let (m, rows, columns) = (9, 50, 75);
    let (dy, w) = (values(m * rows, 7), values(rows * columns, 8));
    let transposed: Vec<f32> = (0..rows * columns).map(|i| w[i % rows * columns + i / rows]).collect();
    for precision in [Precision::F32, Precision::Bf16] {
        let fill = |r: usize, row: &mut [f32]| row.copy_from_slice(&w[r * columns..][..columns]);
        let packed = PackedMatrix::pack_transposed(precision, rows, columns, &fill);
        let plain = pack(precision, columns, rows, &transposed);
        let (mut y, mut z) = (vec![0.0; m * columns], vec![0.0; m * columns]);
        matmul(&dy, m, &packed, &mut y, Accumulate::Overwrite);
        matmul(&dy, m, &plain, &mut z, Accumulate::Overwrite);
        assert_eq!(y, z);
    }
}

/// The element (r, c) of a matrix stored plain or transposed.
fn at(x: &[f32], transposed: bool, rows: usize, columns: usize, r: usize, c: usize) -> f64 {
    f64::from(if transposed { x[c * rows + r] } else { x[r * columns + c] })
}

fn check_dense(m: usize, n: usize, k: usize, alpha: f32) {
    let (a, b, start) = (values(m * k, 9), values(n * k, 10), values(m * n, 11));
    for form in [Form::Nt, Form::Nn, Form::Tn] {
        for isa in InstructionSet::available() {
            for accumulate in [Accumulate::Overwrite, Accumulate::Add] {
                let mut y = start.clone();
                multiply(isa, form, &a, &b, [m, n, k], alpha, &mut y, accumulate);
                for i in 0..m {
                    for j in 0..n {
                        let product: f64 = (0..k)
                            .map(|l| at(&a, form == Form::Tn, m, k, i, l) * at(&b, form == Form::Nt, k, n, l, j))
                            .sum();
                        let before = if accumulate == Accumulate::Add { f64::from(start[i * n + j]) } else { 0.0 };
                        let difference = (f64::from(y[i * n + j]) - before - f64::from(alpha) * product).abs();
                        assert!(
                            difference <= 2.0 * tolerance(k),
                            "{form:?}, {isa}, {accumulate:?}, {m} x {n} x {k}, element ({i}, {j}): off by {difference}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn dense_products_of_lora_shapes_equal_f64() {
    for (m, n, k) in [(1, 16, 576), (300, 16, 130), (70, 150, 16), (16, 200, 1100), (40, 48, 33), (1, 1, 1)] {
        check_dense(m, n, k, 0.5);
    }
}

#[test]
fn dense_rows_and_threads_give_the_same_bits() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("pool");
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("pool");
    for (m, n, k) in [(700, 16, 600), (530, 700, 16), (60, 300, 2000)] {
        let (a, b) = (values(m * k, 12), values(n * k, 13));
        for form in [Form::Nt, Form::Nn, Form::Tn] {
            for isa in InstructionSet::available() {
                let (mut y, mut z) = (vec![0.0; m * n], vec![0.0; m * n]);
                two.install(|| {
                    multiply(isa, form, &a, &b, [m, n, k], 2.0, &mut y, Accumulate::Overwrite);
                });
                one.install(|| {
                    multiply(isa, form, &a, &b, [m, n, k], 2.0, &mut z, Accumulate::Overwrite);
                });
                assert_eq!(y, z, "{form:?}, {isa}: threads");
                if form != Form::Tn {
                    let mut row = vec![0.0; n];
                    multiply(isa, form, &a[5 * k..][..k], &b, [1, n, k], 2.0, &mut row, Accumulate::Overwrite);
                    assert_eq!(row, y[5 * n..][..n], "{form:?}, {isa}: row 5");
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_self_check_accepts_the_model_and_refuses_a_wrong_kernel() {
    unsafe fn nothing(_: *const u32, _: kernel::Right, _: usize, _: *mut f32, _: usize, _: bool, _: kernel::Ahead) {}
    static WRONG: Kernels = Kernels {
        activation: kernel::Activation::Pairs,
        width: 32,
        row_step: 16,
        micro: &[nothing, nothing],
        depth: 16,
        order: kernel::Order::Grouped,
        session: None,
        integers: None,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("pool");
    pool.install(|| {
        crate::isa::tests::SEARCHING.set(true);
        assert!(self_check(&amx::model::MODEL));
        assert!(!self_check(&WRONG));
    });
}

#[test]
fn empty_dense_products_are_allowed() {
    for form in [Form::Nt, Form::Nn, Form::Tn] {
        for accumulate in [Accumulate::Overwrite, Accumulate::Add] {
            let isa = InstructionSet::detect();
            multiply(isa, form, &[], &[1.0; 6], [0, 3, 2], 2.0, &mut [], accumulate);
            multiply(isa, form, &[1.0; 6], &[], [3, 0, 2], 2.0, &mut [], accumulate);
            let mut y = [5.0; 6];
            multiply(isa, form, &[], &[], [2, 3, 0], 2.0, &mut y, accumulate);
            assert_eq!(y, [if accumulate == Accumulate::Add { 5.0 } else { 0.0 }; 6]);
        }
    }
}

#[test]
fn no_inputs_give_zeros_or_what_was_there() {
    let matrix = pack(Precision::Bf16, 3, 0, &[]);
    let mut y = [1.0; 6];
    matmul(&[], 2, &matrix, &mut y, Accumulate::Add);
    assert_eq!(y, [1.0; 6]);
    matmul(&[], 2, &matrix, &mut y, Accumulate::Overwrite);
    assert_eq!(y, [0.0; 6]);
}

/// `A` and a block-diagonal `B` of two updates of `rank / 2`, the outputs between them without any.
struct Update {
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    blocks: [(std::ops::Range<usize>, std::ops::Range<usize>); 2],
}

impl Update {
    fn new(rank: usize, inputs: usize, outputs: usize) -> Self {
        let (half, third) = (rank / 2, outputs / 3);
        let blocks = [(0..third, 0..half), (2 * third..outputs, half..rank)];
        let mut b = values(outputs * rank, 21);
        for (row, values) in b.chunks_exact_mut(rank).enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                if !blocks.iter().any(|(rows, columns)| rows.contains(&row) && columns.contains(&column)) {
                    *value = 0.0;
                }
            }
        }
        Self { rank, a: values(rank * inputs, 22), b, blocks }
    }

    fn pack(&self, precision: Precision, transposed: bool) -> LowRank {
        let row = |values: &[f32], index: usize, out: &mut [f32]| {
            out.copy_from_slice(&values[index * out.len()..][..out.len()]);
        };
        let factors = LowRankFactors {
            rank: self.rank,
            inputs: self.a.len() / self.rank,
            outputs: self.b.len() / self.rank,
            a: &|index, out| row(&self.a, index, out),
            b: &|index, out| row(&self.b, index, out),
            blocks: &self.blocks,
        };
        if transposed { LowRank::pack_transposed(precision, &factors) } else { LowRank::pack(precision, &factors) }
    }
}

/// Transposes `[rows, columns]`.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
}

#[test]
fn a_weight_and_its_update_equal_f64_on_both_ways() {
    for (m, rank, inputs, outputs) in [(1, 2, 5, 3), (37, 48, 70, 150), (301, 16, 1100, 75), (26, 80, 33, 200)] {
        let (w, update) = (values(outputs * inputs, 23), Update::new(rank, inputs, outputs));
        for (precision, way) in
            [(Precision::F32, false), (Precision::F32, true), (Precision::Bf16, false), (Precision::Bf16, true)]
        {
            // Backward, `W^T`, `B^T` and `A^T` take the places of `W`, `A` and `B`.
            let [k, n] = if way { [outputs, inputs] } else { [inputs, outputs] };
            let (w, down, up) = if way {
                (
                    transposed(&w, outputs, inputs),
                    transposed(&update.b, outputs, rank),
                    transposed(&update.a, rank, inputs),
                )
            } else {
                (w.clone(), update.a.clone(), update.b.clone())
            };
            let (x, start) = (values(m * k, 24), values(m * n, 25));
            let (matrix, low_rank) = (pack(precision, n, k, &w), update.pack(precision, way));
            let (wide, narrow) = (references(precision, &x, m, &w, n, k), references(precision, &x, m, &down, rank, k));
            for (name, kernels) in kernel_sets(precision) {
                let (wide, narrow) = match kernels.integers {
                    None => (&wide[0], &narrow[0]),
                    Some(_) => (&wide[1], &narrow[1]),
                };
                for accumulate in [Accumulate::Overwrite, Accumulate::Add] {
                    let (mut u, mut y) = (vec![f32::NAN; m * rank], start.clone());
                    low_rank::multiply(
                        kernels,
                        Values::F32(&x),
                        m,
                        &matrix,
                        &low_rank,
                        &mut u,
                        ValuesMut::F32(&mut y),
                        accumulate,
                    );
                    for (got, expected) in u.iter().zip(narrow) {
                        assert!(
                            (f64::from(*got) - expected).abs() <= tolerance_of(kernels, k),
                            "{name}, {precision}: u"
                        );
                    }
                    let beside = reference(precision, &u, m, &up, n, rank);
                    for (i, got) in y.iter().enumerate() {
                        let before = if accumulate == Accumulate::Add { f64::from(start[i]) } else { 0.0 };
                        let difference = (f64::from(*got) - before - wide[i] - beside[i]).abs();
                        // The values of u are of the size of the square root of k.
                        let most = 2.0 * tolerance(k.max(rank)) * (k as f64).sqrt().max(2.0) + tolerance_of(kernels, k);
                        assert!(difference <= most, "{name}, {precision}, {way}, {m} x {k} x {n}: off by {difference}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_of_an_update_depends_on_that_row_alone() {
    let [one, two] = [1, 2].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool"));
    let (m, rank, inputs, outputs) = (900, 24, 700, 90);
    let (x, w) = (values(m * inputs, 26), values(outputs * inputs, 27));
    let update = Update::new(rank, inputs, outputs);
    for precision in [Precision::F32, Precision::Bf16] {
        let (matrix, low_rank) = (pack(precision, outputs, inputs, &w), update.pack(precision, false));
        for (name, kernels) in kernel_sets(precision) {
            let run = |x: &[f32]| {
                let m = x.len() / inputs;
                let (mut u, mut y) = (vec![0.0; m * rank], vec![0.0; m * outputs]);
                let into = ValuesMut::F32(&mut y);
                low_rank::multiply(kernels, Values::F32(x), m, &matrix, &low_rank, &mut u, into, Accumulate::Overwrite);
                (u, y)
            };
            let (u, y) = two.install(|| run(&x));
            assert_eq!(
                (&u, &y),
                (&one.install(|| run(&x)).0, &one.install(|| run(&x)).1),
                "{name}, {precision}: threads"
            );
            for i in [0, 450, 899] {
                let row = run(&x[i * inputs..][..inputs]);
                assert_eq!(row.0, u[i * rank..][..rank], "{name}, {precision}: row {i} of u");
                assert_eq!(row.1, y[i * outputs..][..outputs], "{name}, {precision}: row {i}");
            }
        }
    }
}

#[test]
fn outer_products_equal_f64_whatever_the_threads() {
    let [one, two] = [1, 2].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool"));
    for (rows, n, m) in [(1, 1, 1), (130, 16, 100), (257, 33, 64), (600, 3, 300)] {
        // Columns in the middle of wider matrices.
        let (narrow, wide) = (values(rows * (n + 5), 31), values(rows * (m + 40), 32));
        let rounded_wide: Vec<half::bf16> = wide.iter().map(|&x| half::bf16::from_f32(x)).collect();
        let narrow = Columns { values: &*narrow, stride: n + 5, range: 2..2 + n };
        let plain = Columns { values: &*wide, stride: m + 40, range: 33..33 + m };
        let wide = Columns { values: Values::F32(&wide), stride: m + 40, range: 33..33 + m };
        let short = Columns { values: Values::Bf16(&rounded_wide), ..wide.clone() };
        for precision in [Precision::F32, Precision::Bf16] {
            let value = |side: &Columns<&[f32]>, row: usize, column: usize| {
                rounded(precision, side.values[row * side.stride + side.range.start + column])
            };
            for (name, kernels) in float_sets(precision) {
                for order in [ResultRows::Narrow, ResultRows::Wide] {
                    let (mut y, mut z) = (vec![f32::NAN; n * m], vec![f32::NAN; n * m]);
                    two.install(|| narrow::multiply(kernels, precision, &narrow, &wide, 0.5, &mut y, order));
                    one.install(|| narrow::multiply(kernels, precision, &narrow, &wide, 0.5, &mut z, order));
                    assert_eq!(y, z, "{name}, {precision}: threads");
                    if precision == Precision::Bf16 {
                        narrow::multiply(kernels, precision, &narrow, &short, 0.5, &mut z, order);
                        assert_eq!(y, z, "{name}: bf16 in memory");
                    }
                    for i in 0..n {
                        for j in 0..m {
                            let sum: f64 = (0..rows).map(|row| value(&narrow, row, i) * value(&plain, row, j)).sum();
                            let got = y[if order == ResultRows::Narrow { i * m + j } else { j * n + i }];
                            let difference = (f64::from(got) - 0.5 * sum).abs();
                            assert!(
                                difference <= tolerance(rows),
                                "{name}, {precision}, ({i}, {j}): off by {difference}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn bf16_activations_give_the_bits_of_their_f32_and_bf16_results_are_the_f32_ones_rounded() {
    for (m, rank, inputs, outputs) in [(1, 2, 31, 33), (41, 16, 70, 97), (400, 48, 1100, 64), (301, 20, 2200, 75)] {
        let (x, w, update) = (values(m * inputs, 41), values(outputs * inputs, 42), Update::new(rank, inputs, outputs));
        let short: Vec<half::bf16> = x.iter().map(|&x| half::bf16::from_f32(x)).collect();
        let wide: Vec<f32> = short.iter().map(|x| x.to_f32()).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let (matrix, low_rank) = (pack(precision, outputs, inputs, &w), update.pack(precision, false));
            for (name, kernels) in kernel_sets(precision) {
                let run = |x: Values<'_>, y: ValuesMut<'_>, u: &mut [f32]| {
                    low_rank::multiply(kernels, x, m, &matrix, &low_rank, u, y, Accumulate::Overwrite);
                };
                let (mut u, mut v) = (vec![0.0; m * rank], vec![0.0; m * rank]);
                let (mut y, mut z) = (vec![0.0; m * outputs], vec![0.0; m * outputs]);
                run(Values::F32(&wide), ValuesMut::F32(&mut y), &mut u);
                run(Values::Bf16(&short), ValuesMut::F32(&mut z), &mut v);
                assert_eq!((&y, &u), (&z, &v), "{name}, {precision}: activations");
                let mut out = vec![half::bf16::NAN; m * outputs];
                run(Values::Bf16(&short), ValuesMut::Bf16(&mut out), &mut v);
                assert_eq!(
                    out,
                    y.iter().map(|&y| half::bf16::from_f32(y)).collect::<Vec<_>>(),
                    "{name}, {precision}: result"
                );
                let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("pool");
                let mut again = vec![half::bf16::NAN; m * outputs];
                one.install(|| run(Values::Bf16(&short), ValuesMut::Bf16(&mut again), &mut v));
                assert_eq!(out, again, "{name}, {precision}: threads");
            }
        }
    }
}
