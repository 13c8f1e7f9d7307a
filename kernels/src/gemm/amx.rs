//! bf16 kernels with AMX tiles (Intel SDM, `TDPBF16PS`): 32 rows x 32 outputs in a square of 2 x 2 tiles.
//!
//! Geometry. Palette 1, all eight tiles of 16 rows x 64 bytes:
//! - tmm0..tmm3: sums, 16 rows x 16 outputs in f32; tmm(2 * i + j) has row tile i and output tile j;
//! - tmm4, tmm5: activations, 16 rows x 16 pairs of inputs, row tile i; a packed block is `[group][row][64 bytes]`, so
//!   a tile is 1,024 bytes in one piece, read with a stride of 64;
//! - tmm6, tmm7: weights, 16 pairs of inputs x 16 outputs, output tile j; read from a packed panel of 32 outputs with a
//!   stride of 128, the second one 64 bytes into each row.
//!
//! A step of 32 inputs is 4 loads and 4 products. A block of 16 rows takes the first row tile only; missing rows are
//! packed as zeros, and the driver copies the rows that exist.
//!
//! Numerics. In one step a sum over the even inputs and one over the odd inputs are made by fused multiply-adds, added,
//! and the result is added to the tile, nearest even, subnormals flushed. A row's values depend on that row alone.
//!
//! Permission. Linux grants tile data to a process that asks once (`arch_prctl(ARCH_REQ_XCOMP_PERM, 18)`). Each task
//! loads the configuration in its thread and releases the tiles at its end.

// A call between two tile instructions would cost more than the instruction: all of it has to end up in one loop.
#![allow(clippy::inline_always)]

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

use super::kernel::{Activation, Ahead, GROUP, Kernels, Micro, Order, Right, Session};
use crate::panels::PANEL;

/// Blocks of 16 and 32 rows by 32 outputs.
pub(super) static TILES: Kernels = Kernels {
    activation: Activation::Pairs,
    width: PANEL,
    row_step: TILE_ROWS,
    micro: &MICRO,
    // 640 inputs of a panel are 40 KiB: they stay in a first-level cache of 48 KiB while the rows pass.
    depth: 20,
    order: Order::Grouped,
    session: Some(Session { enter: configure, leave: release }),
    integers: None,
};

static MICRO: [Micro; 2] = [multiply_hardware::<1>, multiply_hardware::<2>];

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Words of a tile's row.
const TILE_WORDS: usize = 16;

/// Whether CPU and system have AMX tiles of the size above with bf16, and the system permits this process to use them.
#[cfg(target_os = "linux")]
pub(super) fn permitted() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if __cpuid(0).eax < 0x1d {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let (amx_bf16, amx_tile) = (1 << 22, 1 << 24);
    if features & amx_bf16 == 0 || features & amx_tile == 0 {
        return false;
    }
    // The system saves tile configuration (bit 17) and tile data (bit 18). XGETBV exists where AVX-512 was found.
    let low: u32;
    // SAFETY: the caller found AVX-512, which implies XGETBV; it only reads a control register.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    if low >> 17 & 3 != 3 {
        return false;
    }
    // Palette 1: 8 tiles, rows of 64 bytes, 16 rows.
    let palette = __cpuid_count(0x1d, 1);
    if palette.ebx >> 16 < 8 || palette.ebx & 0xffff < 64 || palette.ecx & 0xffff < 16 {
        return false;
    }
    request_permission()
}

/// Without Linux's permission call there is no AMX here.
#[cfg(not(target_os = "linux"))]
pub(super) fn permitted() -> bool {
    false
}

/// Asks Linux for tile data, for all threads of the process.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: u64;
    // SAFETY: the call only changes what the process may use; a system call overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// The memory form of the tile configuration (Intel SDM, `LDTILECFG`).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Runs tile instructions; the compiler knows the tiles only as registers that they change.
macro_rules! tile_asm {
    ($($part:tt)*) => {
        asm!(
            $($part)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags)
        )
    };
}

/// See [`Session::enter`].
unsafe fn configure() {
    // SAFETY: the caller has AMX and its permission; the configuration has the 64 bytes that palette 1 wants.
    unsafe { tile_asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION,) };
}

/// See [`Session::leave`].
unsafe fn release() {
    // SAFETY: the caller has AMX and its permission.
    unsafe { tile_asm!("tilerelease",) };
}

/// Eight tiles of 16 rows x 64 bytes and what can be done with them: the CPU's, or a model of them in tests.
///
/// # Safety
/// All methods: tile numbers are below 8; pointers are good for 16 rows of 64 bytes at their stride (in bytes).
trait TileUnit {
    unsafe fn zero<const TILE: usize>(&mut self);
    unsafe fn load<const TILE: usize>(&mut self, source: *const u32, stride: usize);
    unsafe fn store<const TILE: usize>(&mut self, target: *mut u32, stride: usize);
    /// `sums += left * right` on pairs of bf16.
    unsafe fn multiply<const SUMS: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
}

/// The tiles of this thread, configured.
struct Hardware;

impl TileUnit for Hardware {
    #[inline(always)]
    unsafe fn zero<const TILE: usize>(&mut self) {
        // SAFETY: the tiles are configured.
        unsafe { tile_asm!("tilezero tmm{}", const TILE,) };
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(&mut self, source: *const u32, stride: usize) {
        // SAFETY: the tiles are configured, the caller grants the memory.
        unsafe {
            tile_asm!("tileloadd tmm{}, [{} + {}*1]", const TILE, in(reg) source, in(reg) stride,);
        };
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(&mut self, target: *mut u32, stride: usize) {
        // SAFETY: the tiles are configured, the caller grants the memory.
        unsafe {
            tile_asm!("tilestored [{} + {}*1], tmm{}", in(reg) target, in(reg) stride, const TILE,);
        };
    }

    #[inline(always)]
    unsafe fn multiply<const SUMS: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: the tiles are configured.
        unsafe { tile_asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const SUMS, const LEFT, const RIGHT,) };
    }
}

/// See [`Micro`]; the session is entered.
unsafe fn multiply_hardware<const ROW_TILES: usize>(
    a: *const u32,
    Right { panel: b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ahead: Ahead,
) {
    // SAFETY: as the caller says.
    unsafe {
        multiply::<Hardware, ROW_TILES>(&mut Hardware, a, b, groups, c, c_stride, add, ahead);
    };
}

/// A block of one or two row tiles by 32 outputs; see the geometry above.
///
/// # Safety
/// As [`Micro`].
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn multiply<U: TileUnit, const ROW_TILES: usize>(
    unit: &mut U,
    mut a: *const u32,
    mut b: *const u32,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ahead: Ahead,
) {
    const A_STRIDE: usize = TILE_WORDS * size_of::<u32>();
    const B_STRIDE: usize = PANEL * size_of::<u32>();
    let sums_stride = c_stride * size_of::<f32>();
    let two = ROW_TILES == 2;
    let mut next = ahead.next;
    // SAFETY: `a` and `b` are read inside the packed buffers, `c` inside the block, as the caller describes them.
    unsafe {
        let upper = c.cast::<u32>();
        let lower = upper.wrapping_add(TILE_ROWS * c_stride);
        if add {
            unit.load::<0>(upper, sums_stride);
            unit.load::<1>(upper.add(TILE_WORDS), sums_stride);
            if two {
                unit.load::<2>(lower, sums_stride);
                unit.load::<3>(lower.add(TILE_WORDS), sums_stride);
            }
        } else {
            unit.zero::<0>();
            unit.zero::<1>();
            if two {
                unit.zero::<2>();
                unit.zero::<3>();
            }
        }
        for _ in 0..groups {
            if ahead.step > 0 {
                for _ in 0..GROUP {
                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(ahead.step / 2).cast());
                    next = next.wrapping_add(ahead.step);
                }
            }
            unit.load::<4>(a, A_STRIDE);
            unit.load::<6>(b, B_STRIDE);
            unit.multiply::<0, 4, 6>();
            unit.load::<7>(b.add(TILE_WORDS), B_STRIDE);
            unit.multiply::<1, 4, 7>();
            if two {
                unit.load::<5>(a.add(TILE_ROWS * TILE_WORDS), A_STRIDE);
                unit.multiply::<2, 5, 6>();
                unit.multiply::<3, 5, 7>();
            }
            a = a.add(ROW_TILES * TILE_ROWS * TILE_WORDS);
            b = b.add(GROUP * PANEL);
        }
        unit.store::<0>(upper, sums_stride);
        unit.store::<1>(upper.add(TILE_WORDS), sums_stride);
        if two {
            unit.store::<2>(lower, sums_stride);
            unit.store::<3>(lower.add(TILE_WORDS), sums_stride);
        }
    }
}

/// A model of the tile unit after the SDM's pseudocode: holds the geometry to account on any machine.
#[cfg(test)]
pub(super) mod model {
    use super::*;

    /// [`TILES`] on the model.
    pub(in crate::gemm) static MODEL: Kernels = Kernels {
        activation: Activation::Pairs,
        width: PANEL,
        row_step: TILE_ROWS,
        micro: &[multiply_model::<1>, multiply_model::<2>],
        depth: 20,
        order: Order::Grouped,
        session: None,
        integers: None,
    };

    struct Model([[[u32; 16]; 16]; 8]);

    impl TileUnit for Model {
        unsafe fn zero<const TILE: usize>(&mut self) {
            self.0[TILE] = [[0; 16]; 16];
        }

        unsafe fn load<const TILE: usize>(&mut self, source: *const u32, stride: usize) {
            for (r, row) in self.0[TILE].iter_mut().enumerate() {
                // SAFETY: the caller grants the memory; strides are whole words.
                *row = unsafe { source.byte_add(r * stride).cast::<[u32; 16]>().read_unaligned() };
            }
        }

        unsafe fn store<const TILE: usize>(&mut self, target: *mut u32, stride: usize) {
            for (r, row) in self.0[TILE].iter().enumerate() {
                // SAFETY: the caller grants the memory; strides are whole words.
                unsafe {
                    target.byte_add(r * stride).cast::<[u32; 16]>().write_unaligned(*row);
                };
            }
        }

        unsafe fn multiply<const SUMS: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
            let halves = |word: u32| [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)];
            for m in 0..16 {
                for n in 0..16 {
                    let mut parts = [0.0_f32; 2];
                    for k in 0..16 {
                        let (left, right) = (halves(self.0[LEFT][m][k]), halves(self.0[RIGHT][k][n]));
                        for (part, (left, right)) in parts.iter_mut().zip(left.into_iter().zip(right)) {
                            *part = left.mul_add(right, *part);
                        }
                    }
                    let sum = &mut self.0[SUMS][m][n];
                    *sum = (f32::from_bits(*sum) + (parts[0] + parts[1])).to_bits();
                }
            }
        }
    }

    unsafe fn multiply_model<const ROW_TILES: usize>(
        a: *const u32,
        Right { panel: b, .. }: Right,
        groups: usize,
        c: *mut f32,
        c_stride: usize,
        add: bool,
        ahead: Ahead,
    ) {
        let mut unit = Model([[[u32::MAX; 16]; 16]; 8]);
        // SAFETY: as the caller says.
        unsafe { multiply::<Model, ROW_TILES>(&mut unit, a, b, groups, c, c_stride, add, ahead) };
    }

    #[test]
    fn the_configuration_is_64_bytes_in_the_manual_s_order() {
        assert_eq!(size_of::<Configuration>(), 64);
        assert_eq!(std::mem::offset_of!(Configuration, row_bytes), 16);
        assert_eq!(std::mem::offset_of!(Configuration, rows), 48);
    }
}
