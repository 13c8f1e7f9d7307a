//! Products of integers in plain Rust: what those with vectors are held to.

use super::super::kernel::{Activation, Ahead, GROUP, Integers, Kernels, Order, Right};
use super::super::portable;
use super::PIECE_GROUPS;
use crate::panels::PANEL;

/// 1 to 4 rows by 32 outputs.
pub(in crate::gemm) static KERNELS: Kernels = Kernels {
    activation: Activation::Pairs,
    width: PANEL,
    row_step: 1,
    micro: &[multiply::<1>, multiply::<2>, multiply::<3>, multiply::<4>],
    depth: PIECE_GROUPS,
    order: Order::Grouped,
    session: None,
    integers: Some(Integers { floats: &portable::FAMILY.widened, lone: &[] }),
};

/// See [`Micro`](super::super::kernel::Micro).
unsafe fn multiply<const R: usize>(
    a: *const u32,
    b: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    let pairs = groups * GROUP;
    // SAFETY: the packed buffers hold the pairs and their factors, as the caller says.
    let (a, row_factors, b, factors) = unsafe {
        (
            std::slice::from_raw_parts(a, pairs * R),
            std::slice::from_raw_parts(a.add(pairs * R).cast::<f32>(), R),
            std::slice::from_raw_parts(b.panel, pairs * PANEL),
            std::slice::from_raw_parts(b.factors, PANEL),
        )
    };
    let halves = |word: u32| [i32::from(word as u16 as i16), i32::from((word >> 16) as u16 as i16)];
    for r in 0..R {
        let mut sums = [0_i32; PANEL];
        for (pair, b) in b.chunks_exact(PANEL).enumerate() {
            let x = halves(a[pair / GROUP * GROUP * R + r * GROUP + pair % GROUP]);
            for (sum, &word) in sums.iter_mut().zip(b) {
                let w = halves(word);
                *sum += x[0] * w[0] + x[1] * w[1];
            }
        }
        for (output, (sum, factor)) in sums.into_iter().zip(factors).enumerate() {
            let value = sum as f32 * factor;
            // SAFETY: inside the block that the caller grants.
            unsafe {
                let place = c.add(r * c_stride + output);
                *place = if add { value.mul_add(row_factors[r], *place) } else { value * row_factors[r] };
            }
        }
    }
}
