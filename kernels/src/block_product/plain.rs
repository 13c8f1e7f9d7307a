//! The product in plain Rust: what the other bodies are held to.

use super::rows::{LANES, QUAD, Quad};
use super::{Piece, Rows};
use crate::BlockType;
use crate::blocks::{
    BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, half_to_f32, scale_and_minimum,
};

const HALF: usize = QUAD / 2;

/// What the second factors of a type are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    /// There are none.
    None,
    /// Added to each element: `w = q scale + second`.
    Addend,
    /// The scale of the last sixteen elements of a block.
    Scale,
}

/// Four blocks of weights in the order of [`Quad`].
pub(crate) struct Weights {
    /// The first sixteen numbers of each block.
    pub(crate) first: [i8; HALF],
    /// The last sixteen numbers of each block.
    pub(crate) second: [i8; HALF],
    /// The scale of each lane's block.
    pub(crate) scales: [f32; LANES],
    /// The second factor of each lane's block.
    pub(crate) others: [f32; LANES],
}

/// What [`Format::unpack`] does.
pub(crate) type Unpack = fn(&[u8], usize) -> Weights;

/// How blocks of a type are unpacked, and what their second factors are; of types that have a product.
pub(crate) fn unpacker(block_type: BlockType) -> Option<(Second, Unpack)> {
    fn of<F: Format>() -> (Second, Unpack) {
        (F::SECOND, F::unpack)
    }
    Some(match block_type {
        BlockType::Q4_0 => of::<BlockQ4_0>(),
        BlockType::Q4_1 => of::<BlockQ4_1>(),
        BlockType::Q5_0 => of::<BlockQ5_0>(),
        BlockType::Q5_1 => of::<BlockQ5_1>(),
        BlockType::Q8_0 => of::<BlockQ8_0>(),
        BlockType::Q4K => of::<BlockQ4K>(),
        BlockType::Q5K => of::<BlockQ5K>(),
        BlockType::Q6K => of::<BlockQ6K>(),
        // All others are decoded first.
        _ => return None,
    })
}

/// A type of blocks.
pub(super) trait Format {
    /// What its second factors are.
    const SECOND: Second;

    /// The four blocks of 32 of number `quad`; those behind the end of the row are zero.
    fn unpack(row: &[u8], quad: usize) -> Weights;
}

/// Some rows of blocks times rows of activations.
#[inline(always)]
pub(super) fn product<F: Format>(rows: &Rows<'_>, piece: &Piece<'_>) {
    rows.each(piece, 0, |row, activations: [&[Quad]; 1]| {
        let mut sums = [[0.0_f32; LANES]; 2];
        for (index, x) in activations[0].iter().enumerate() {
            let weights = F::unpack(row, index);
            let [one, other] = &mut sums;
            for (lane, (one, other)) in one.iter_mut().zip(other).enumerate() {
                let of = |weights: &[i8; HALF], x: &[i8; HALF]| {
                    let own = 4 * lane..4 * lane + 4;
                    weights[own.clone()].iter().zip(&x[own]).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>()
                };
                let (first, second) = (of(&weights.first, &x.first), of(&weights.second, &x.second));
                let scales = [weights.scales[lane], weights.others[lane]];
                match F::SECOND {
                    Second::None => *one += (first + second) as f32 * (scales[0] * x.scales[lane]),
                    Second::Addend => {
                        *one += (first + second) as f32 * (scales[0] * x.scales[lane]);
                        *other += scales[1] * x.scaled_sums[lane];
                    }
                    Second::Scale => {
                        *one += first as f32 * (scales[0] * x.scales[lane]);
                        *other += second as f32 * (scales[1] * x.scales[lane]);
                    }
                }
            }
        }
        [total(std::array::from_fn(|lane| sums[0][lane] + sums[1][lane]))]
    });
}

/// The sum of the lanes, halves on halves.
#[inline(always)]
pub(super) fn total(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// The blocks of a quad of a type with 32 elements in a block.
#[inline(always)]
fn unpack<B: bytemuck::AnyBitPattern>(
    row: &[u8],
    quad: usize,
    one: impl Fn(&B, &mut [i8; 16], &mut [i8; 16]) -> (f32, f32),
) -> Weights {
    let mut weights = Weights { first: [0; HALF], second: [0; HALF], scales: [0.0; LANES], others: [0.0; LANES] };
    let blocks: &[B] = bytemuck::cast_slice(row);
    let places = weights.first.as_chunks_mut().0.iter_mut().zip(weights.second.as_chunks_mut().0);
    let factors = weights.scales.as_chunks_mut::<4>().0.iter_mut().zip(weights.others.as_chunks_mut::<4>().0);
    for ((block, (first, second)), (scale, other)) in blocks[4 * quad..].iter().zip(places).zip(factors) {
        let (own_scale, own_other) = one(block, first, second);
        scale.fill(own_scale);
        other.fill(own_other);
    }
    weights
}

#[inline(always)]
fn nibbles(qs: &[u8; 16], first: &mut [i8; 16], second: &mut [i8; 16], offset: i8) {
    for j in 0..16 {
        first[j] = (qs[j] & 0x0F) as i8 - offset;
        second[j] = (qs[j] >> 4) as i8 - offset;
    }
}

#[inline(always)]
fn fifth_bits(qh: [u8; 4], first: &mut [i8; 16], second: &mut [i8; 16]) {
    let qh = u32::from_le_bytes(qh);
    for j in 0..16 {
        first[j] += (((qh >> j) & 1) << 4) as i8;
        second[j] += (((qh >> (j + 16)) & 1) << 4) as i8;
    }
}

impl Format for BlockQ4_0 {
    const SECOND: Second = Second::None;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        unpack(row, quad, |block: &Self, first, second| {
            nibbles(&block.qs, first, second, 8);
            (half_to_f32(block.d), 0.0)
        })
    }
}

impl Format for BlockQ4_1 {
    const SECOND: Second = Second::Addend;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        unpack(row, quad, |block: &Self, first, second| {
            nibbles(&block.qs, first, second, 0);
            (half_to_f32(block.d), half_to_f32(block.m))
        })
    }
}

impl Format for BlockQ5_0 {
    const SECOND: Second = Second::None;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        unpack(row, quad, |block: &Self, first, second| {
            nibbles(&block.qs, first, second, 16);
            fifth_bits(block.qh, first, second);
            (half_to_f32(block.d), 0.0)
        })
    }
}

impl Format for BlockQ5_1 {
    const SECOND: Second = Second::Addend;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        unpack(row, quad, |block: &Self, first, second| {
            nibbles(&block.qs, first, second, 0);
            fifth_bits(block.qh, first, second);
            (half_to_f32(block.d), half_to_f32(block.m))
        })
    }
}

impl Format for BlockQ8_0 {
    const SECOND: Second = Second::None;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        unpack(row, quad, |block: &Self, first, second| {
            first.copy_from_slice(&block.qs[..16]);
            second.copy_from_slice(&block.qs[16..]);
            (half_to_f32(block.d), 0.0)
        })
    }
}

/// Half a block of 256 elements: four groups of 32, whose numbers and factors `one` gives.
#[inline(always)]
fn unpack_groups(one: impl Fn(usize, &mut [i8; 16], &mut [i8; 16]) -> (f32, f32)) -> Weights {
    let mut weights = Weights { first: [0; HALF], second: [0; HALF], scales: [0.0; LANES], others: [0.0; LANES] };
    let places = weights.first.as_chunks_mut().0.iter_mut().zip(weights.second.as_chunks_mut().0);
    let factors = weights.scales.as_chunks_mut::<4>().0.iter_mut().zip(weights.others.as_chunks_mut::<4>().0);
    for (group, ((first, second), (scale, other))) in places.zip(factors).enumerate() {
        let (own_scale, own_other) = one(group, first, second);
        scale.fill(own_scale);
        other.fill(own_other);
    }
    weights
}

impl Format for BlockQ4K {
    const SECOND: Second = Second::Addend;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        let block = &bytemuck::cast_slice::<u8, Self>(row)[quad / 2];
        let (d, dmin) = (half_to_f32(block.d), half_to_f32(block.dmin));
        unpack_groups(|group, first, second| {
            let group = quad % 2 * 4 + group;
            let (qs, shift) = (&block.qs[group / 2 * 32..][..32], group % 2 * 4);
            for j in 0..16 {
                first[j] = ((qs[j] >> shift) & 0x0F) as i8;
                second[j] = ((qs[j + 16] >> shift) & 0x0F) as i8;
            }
            let (scale, minimum) = scale_and_minimum(&block.scales, group);
            (d * f32::from(scale), -dmin * f32::from(minimum))
        })
    }
}

impl Format for BlockQ5K {
    const SECOND: Second = Second::Addend;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        let block = &bytemuck::cast_slice::<u8, Self>(row)[quad / 2];
        let (d, dmin) = (half_to_f32(block.d), half_to_f32(block.dmin));
        unpack_groups(|group, first, second| {
            let group = quad % 2 * 4 + group;
            let (qs, shift) = (&block.qs[group / 2 * 32..][..32], group % 2 * 4);
            for j in 0..16 {
                let number = |j: usize| ((qs[j] >> shift) & 0x0F) | (((block.qh[j] >> group) & 1) << 4);
                first[j] = number(j) as i8;
                second[j] = number(j + 16) as i8;
            }
            let (scale, minimum) = scale_and_minimum(&block.scales, group);
            (d * f32::from(scale), -dmin * f32::from(minimum))
        })
    }
}

impl Format for BlockQ6K {
    const SECOND: Second = Second::Scale;

    #[inline(always)]
    fn unpack(row: &[u8], quad: usize) -> Weights {
        let block = &bytemuck::cast_slice::<u8, Self>(row)[quad / 2];
        let half = quad % 2;
        let d = half_to_f32(block.d);
        unpack_groups(|group, first, second| {
            let ql = &block.ql[64 * half + group % 2 * 32..][..32];
            let qh = &block.qh[32 * half..][..32];
            let (low, high) = (group / 2 * 4, group * 2);
            let number = |j: usize| (((ql[j] >> low) & 0x0F) | (((qh[j] >> high) & 3) << 4)) as i8 - 32;
            for j in 0..16 {
                first[j] = number(j);
                second[j] = number(j + 16);
            }
            let scale = |side: usize| d * f32::from(block.scales[8 * half + 2 * group + side]);
            (scale(0), scale(1))
        })
    }
}
