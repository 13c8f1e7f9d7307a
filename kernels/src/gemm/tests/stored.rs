//! Products with blocks give the bits of the packed product of their values.

use std::sync::Arc;

use super::super::stored::{multiply, multiply_transposed};
use super::*;
use crate::{BlockRows, BlockType, LowRank, LowRankFactors, PackedMatrix, Precision, StoredMatrix, Values, ValuesMut};

/// Where the half-precision scales of a block begin.
fn scales(block_type: BlockType) -> &'static [usize] {
    match block_type {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 | BlockType::Mxfp4 | BlockType::Nvfp4 | BlockType::Iq1M => {
            &[]
        }
        BlockType::Tq1_0 => &[52],
        BlockType::Tq2_0 => &[64],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        _ => &[0],
    }
}

/// Blocks of random numbers under scales of a reasonable size.
fn blocks(block_type: BlockType, rows: usize, columns: usize, seed: u32) -> BlockRows {
    let count = rows * columns / block_type.block_size();
    let small = values(2 * count, seed);
    let mut bytes: Vec<u8> = match block_type {
        BlockType::F32 => small[..count].iter().flat_map(|x| x.to_le_bytes()).collect(),
        BlockType::F16 => small[..count].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
        BlockType::Bf16 => small[..count].iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
        _ => values(count * block_type.block_bytes(), seed + 1).iter().map(|x| (x * 1e7) as i32 as u8).collect(),
    };
    for (block, small) in bytes.chunks_exact_mut(block_type.block_bytes()).zip(small.as_chunks::<2>().0) {
        for (&place, scale) in scales(block_type).iter().zip(small) {
            block[place..place + 2].copy_from_slice(&half::f16::from_f32(scale * 0.01).to_le_bytes());
        }
        match block_type {
            // An exponent alone, and a half of which the highest bits lie in the last byte.
            BlockType::Mxfp4 => block[0] = 120 + block[0] % 8,
            BlockType::Iq1M => block[55] = 0x20 | (block[55] % 16),
            _ => {}
        }
    }
    let range = 7..7 + bytes.len();
    let bytes = [vec![0; 7], bytes].concat();
    BlockRows::new(block_type, columns, Arc::new(bytes), range).expect("whole rows")
}

/// Both products by every kernel against the packed ones. `window_lines` cuts the matrix into windows.
fn check(parts: &[BlockRows], m: usize, window_lines: usize) {
    for precision in [Precision::F32, Precision::Bf16] {
        let stored = StoredMatrix::new(precision, parts.to_vec());
        let (rows, columns) = (stored.rows(), stored.columns());
        let (packed, transposed) = (stored.pack(), stored.pack_transposed());
        let (x, dy) = (values(m * columns, 21), values(m * rows, 22));
        for (name, kernels) in kernel_sets(precision) {
            for accumulate in [Accumulate::Overwrite, Accumulate::Add] {
                let words = format!("{name}, {precision}, {accumulate:?}, {m} x {rows} x {columns}, {parts:?}");
                let (mut y, mut expected) = (values(m * rows, 23), values(m * rows, 23));
                multiply(kernels, window_lines, Values::F32(&x), m, &stored, &mut y, accumulate);
                multiply_with(kernels, &x, m, &packed, &mut expected, accumulate);
                assert!(expected.iter().all(|value| value.is_finite()));
                assert!(y == expected, "x W^T: {words}");
                let (mut dx, mut expected) = (values(m * columns, 24), values(m * columns, 24));
                multiply_transposed(kernels, window_lines, Values::F32(&dy), m, &stored, &mut dx, accumulate);
                multiply_with(kernels, &dy, m, &transposed, &mut expected, accumulate);
                assert!(dx == expected, "dy W: {words}");
                check_low_rank(kernels, &stored, window_lines, [&packed, &transposed], [&x, &dy], accumulate);
            }
        }
    }
}

/// Both products with an update beside them, against the packed ones that do all in one pass.
fn check_low_rank(
    kernels: &'static Kernels,
    stored: &StoredMatrix,
    window_lines: usize,
    [packed, transposed]: [&PackedMatrix; 2],
    [x, dy]: [&[f32]; 2],
    accumulate: Accumulate,
) {
    let (rows, columns, m) = (stored.rows(), stored.columns(), x.len() / stored.columns());
    let (halves, rank) = (rows / 2, 20);
    let (a, b) = (values(rank * columns, 51), values(rows * rank, 52));
    let factors = LowRankFactors {
        rank,
        inputs: columns,
        outputs: rows,
        a: &|r, row| row.copy_from_slice(&a[r * columns..][..columns]),
        // Two updates of rank 10: the second half of the outputs has the second half of the columns.
        b: &|r, row| {
            row.fill(0.0);
            let first = if r < halves { 0 } else { 10 };
            row[first..first + 10].copy_from_slice(&b[r * rank..][..10]);
        },
        blocks: &[(0..halves, 0..10), (halves..rows, 10..20)],
    };
    let precision = stored.precision();
    let update = LowRank::pack(precision, &factors);
    let (mut u, mut y) = (vec![1.0; m * rank], values(m * rows, 53));
    multiply(kernels, window_lines, Values::F32(x), m, stored, &mut y, accumulate);
    update.add_with(kernels, Values::F32(x), m, &mut u, &mut y);
    let (mut expected_u, mut expected) = (vec![2.0; m * rank], values(m * rows, 53));
    let into = ValuesMut::F32(&mut expected);
    low_rank::multiply(kernels, Values::F32(x), m, packed, &update, &mut expected_u, into, accumulate);
    assert!(u == expected_u && y == expected, "x W^T + u B^T, {m} x {rows} x {columns}");
    let update = LowRank::pack_transposed(precision, &factors);
    let (mut v, mut dx) = (vec![1.0; m * rank], values(m * columns, 54));
    multiply_transposed(kernels, window_lines, Values::F32(dy), m, stored, &mut dx, accumulate);
    update.add_with(kernels, Values::F32(dy), m, &mut v, &mut dx);
    let (mut expected_v, mut expected) = (vec![2.0; m * rank], values(m * columns, 54));
    let into = ValuesMut::F32(&mut expected);
    low_rank::multiply(kernels, Values::F32(dy), m, transposed, &update, &mut expected_v, into, accumulate);
    assert!(v == expected_v && dx == expected, "dy W + v A, {m} x {rows} x {columns}");
}

#[test]
fn every_type_gives_the_bits_of_its_packed_values() {
    for block_type in BlockType::ALL {
        let columns = if block_type.block_size() == 1 { 75 } else { 3 * block_type.block_size() };
        for (m, rows) in [(1, 1), (5, 77), (33, 32)] {
            check(&[blocks(block_type, rows, columns, 5)], m, 1 << 16);
        }
    }
}

#[test]
fn tensors_side_by_side_and_windows_of_any_size_change_no_bit() {
    let parts = [
        blocks(BlockType::Q4K, 1100, 768, 31),
        blocks(BlockType::Q8_0, 33, 768, 32),
        blocks(BlockType::Q6K, 1002, 768, 33),
    ];
    // From a panel at a time to several chunks of inputs in a window.
    for window_lines in [1, 5000, 40_000] {
        check(&parts, 3, window_lines);
    }
}

#[test]
fn threads_and_neighbouring_rows_change_no_bit() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("pool");
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("pool");
    let (m, rows, columns) = (70, 1300, 512);
    let (x, dy) = (values(m * columns, 41), values(m * rows, 42));
    for precision in [Precision::F32, Precision::Bf16] {
        let w = StoredMatrix::new(precision, vec![blocks(BlockType::Q5K, rows, columns, 43)]);
        let products = |from: usize, to: usize| {
            let (mut y, mut dx) = (vec![0.0; (to - from) * rows], vec![0.0; (to - from) * columns]);
            matmul_stored(Values::F32(&x[from * columns..to * columns]), to - from, &w, &mut y, Accumulate::Overwrite);
            matmul_stored_transposed(
                Values::F32(&dy[from * rows..to * rows]),
                to - from,
                &w,
                &mut dx,
                Accumulate::Overwrite,
            );
            (y, dx)
        };
        let (y, dx) = two.install(|| products(0, m));
        assert!((y.clone(), dx.clone()) == one.install(|| products(0, m)), "{precision}: threads");
        let row = two.install(|| products(9, 10));
        assert!(row.0 == y[9 * rows..10 * rows] && row.1 == dx[9 * columns..10 * columns], "{precision}: row 9");
    }
}

#[test]
fn empty_products_are_allowed() {
    let w = StoredMatrix::new(Precision::Bf16, Vec::new());
    matmul_stored(Values::F32(&[]), 3, &w, &mut [], Accumulate::Overwrite);
    let w = StoredMatrix::new(Precision::Bf16, vec![blocks(BlockType::Q4_0, 0, 64, 1)]);
    let mut dx = [1.0; 128];
    matmul_stored_transposed(Values::F32(&[]), 2, &w, &mut dx, Accumulate::Add);
    assert_eq!(dx, [1.0; 128]);
    matmul_stored_transposed(Values::F32(&[]), 2, &w, &mut dx, Accumulate::Overwrite);
    assert_eq!(dx, [0.0; 128]);
}

#[test]
fn bytes_that_are_no_rows_are_refused() {
    let rows = |columns, range| BlockRows::new(BlockType::Q4K, columns, Arc::new(vec![0_u8; 300]), range);
    assert!(rows(256, 0..288).is_ok_and(|rows| rows.rows() == 2 && rows.bytes() == 288));
    for (columns, range) in [(100, 0..144), (256, 0..100), (512, 0..144), (256, 200..344), (0, 0..0)] {
        assert!(rows(columns, range).is_err());
    }
}
