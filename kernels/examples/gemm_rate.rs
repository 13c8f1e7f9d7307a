//! Rates of the matrix products, by shape, precision and instruction set, beside the peak of the multiply-add
//! instructions themselves: `cargo run --release -p espalier-kernels --example gemm_rate [name-part ...]`.
//!
//! Each figure is the best of repeated calls within a third of a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use espalier_kernels::{
    Accumulate, BlockRows, BlockType, InstructionSet, Int8Matrix, Int8Rows, PackedMatrix, Precision, StoredMatrix,
    Values, has_block_product, matmul, matmul_int8, matmul_nn, matmul_nt, matmul_stored, matmul_stored_transposed,
    matmul_tn, matmul_with,
};

/// `M x K x N`: rows, inputs, outputs.
const SHAPES: [[usize; 3]; 8] = [
    [1, 576, 1536],
    [1, 576, 49152],
    [32, 576, 1536],
    [512, 576, 1536],
    [2048, 576, 1536],
    [2048, 1536, 576],
    [1024, 2048, 8192],
    [32, 576, 49152],
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    // Calls from a pool's own thread, as the engine and the trainer make them.
    let threads = rayon::current_num_threads();
    println!("{threads} threads, {} is the best instruction set", InstructionSet::detect());
    #[cfg(target_arch = "x86_64")]
    peak::print();
    rayon::scope(|_| {
        for [m, k, n] in [[32, 1536, 576], [512, 1536, 576], [2048, 1536, 576], [2048, 4864, 896]] {
            for (block_type, scales) in [
                (BlockType::Q4_0, &[0][..]),
                (BlockType::Q4_1, &[0, 2]),
                (BlockType::Q5_0, &[0]),
                (BlockType::Q8_0, &[0]),
                (BlockType::Q4K, &[0, 2]),
                (BlockType::Q5K, &[0, 2]),
                (BlockType::Q6K, &[208]),
                (BlockType::Bf16, &[]),
            ] {
                stored(block_type, scales, [m, k, n], &is_wanted);
            }
        }
        for precision in [Precision::Bf16, Precision::F32] {
            for [m, k, n] in SHAPES {
                packed(precision, m, k, n, &is_wanted);
            }
        }
        for [m, k, n] in [[1, 576, 3072], [1, 1536, 576], [4, 576, 3072], [16, 576, 3072]] {
            layers([m, k, n], &is_wanted);
        }
        for [m, n, k] in [[2048, 16, 1536], [2048, 16, 576], [1, 16, 1536], [32, 16, 1536]] {
            let (a, b) = (values(m * k), values(n * k));
            let mut y = vec![0.0; m * n];
            rate(&format!("nt {m}x{k}x{n}"), [m, n, k], 0, &is_wanted, || {
                matmul_nt(&a, &b, m, n, k, 1.0, &mut y, Accumulate::Overwrite);
            });
        }
        for [m, n, k] in [[2048, 1536, 16], [2048, 576, 16], [32, 1536, 16]] {
            let (a, b) = (values(m * k), values(n * k));
            let mut y = vec![0.0; m * n];
            rate(&format!("nn {m}x{k}x{n}"), [m, n, k], 0, &is_wanted, || {
                matmul_nn(&a, &b, m, n, k, 2.0, &mut y, Accumulate::Overwrite);
            });
            rate(&format!("nt {m}x{k}x{n}"), [m, n, k], 0, &is_wanted, || {
                matmul_nt(&a, &b, m, n, k, 2.0, &mut y, Accumulate::Overwrite);
            });
            rate(&format!("nt+ {m}x{k}x{n}"), [m, n, k], 0, &is_wanted, || {
                matmul_nt(&a, &b, m, n, k, 2.0, &mut y, Accumulate::Add);
            });
        }
        for [m, n, k] in [[16, 1536, 2048], [1536, 16, 2048], [576, 16, 2048]] {
            let (a, b) = (values(m * k), values(n * k));
            let mut y = vec![0.0; m * n];
            rate(&format!("tn {m}x{k}x{n}"), [m, n, k], 0, &is_wanted, || {
                matmul_tn(&a, &b, m, n, k, 1.0, &mut y, Accumulate::Overwrite);
            });
        }
    });
}

fn packed(precision: Precision, m: usize, k: usize, n: usize, is_wanted: &dyn Fn(&str) -> bool) {
    let names: Vec<_> = InstructionSet::available()
        .into_iter()
        .filter(|isa| *isa != InstructionSet::Portable || m * k * n < 1 << 30)
        .filter(|isa| precision == Precision::Bf16 || *isa <= InstructionSet::Avx512)
        .map(|isa| (isa, format!("{precision} {isa} {m}x{k}x{n}")))
        .filter(|(_, name)| is_wanted(name))
        .collect();
    if names.is_empty() {
        return;
    }
    let (x, w) = (values(m * k), values(k));
    let matrix = PackedMatrix::pack(precision, n, k, &|_, row| row.copy_from_slice(&w));
    let mut y = vec![0.0; m * n];
    for (isa, name) in names {
        rate(&name, [m, n, k], matrix.bytes(), &|_| true, || {
            matmul_with(isa, &x, m, &matrix, &mut y, Accumulate::Overwrite);
        });
    }
}

/// As decoding reads them: matrices in turn, which no cache holds together.
fn layers([m, k, n]: [usize; 3], is_wanted: &dyn Fn(&str) -> bool) {
    const MATRICES: usize = 200;
    let name = format!("bf16 layers {m}x{k}x{n}");
    if !is_wanted(&name) {
        return;
    }
    let (x, w) = (values(m * k), values(k));
    let fill = |_: usize, row: &mut [f32]| row.copy_from_slice(&w);
    let matrices: Vec<_> = (0..MATRICES).map(|_| PackedMatrix::pack(Precision::Bf16, n, k, &fill)).collect();
    let mut y = vec![0.0; m * n];
    let bytes = matrices.iter().map(PackedMatrix::bytes).sum();
    rate(&name, [m, n, k * MATRICES], bytes, is_wanted, || {
        for matrix in &matrices {
            matmul(&x, m, matrix, &mut y, Accumulate::Overwrite);
        }
    });
}

/// Blocks beside the packed product of their values, forward and backward.
fn stored(block_type: BlockType, scales: &[usize], [m, k, n]: [usize; 3], is_wanted: &dyn Fn(&str) -> bool) {
    let name = |what: &str| format!("{block_type} {what} {m}x{k}x{n}");
    if !["stored", "packed", "int8"].iter().any(|what| is_wanted(&name(what))) {
        return;
    }
    let blocks = n * k / block_type.block_size();
    let mut bytes: Vec<u8> =
        (0..blocks * block_type.block_bytes()).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
    for block in bytes.chunks_exact_mut(block_type.block_bytes()) {
        for &place in scales {
            block[place..place + 2].copy_from_slice(&[0, 0x20]);
        }
    }
    let range = 0..bytes.len();
    let rows = BlockRows::new(block_type, k, Arc::new(bytes), range).expect("whole rows");
    let matrix = StoredMatrix::new(Precision::Bf16, vec![rows]);
    let (x, dy, mut y, mut dx) = (values(m * k), values(m * n), vec![0.0; m * n], vec![0.0; m * k]);
    let (packed, transposed) = (matrix.pack(), matrix.pack_transposed());
    rate(&name("packed"), [m, n, k], packed.bytes(), is_wanted, || {
        matmul(&x, m, &packed, &mut y, Accumulate::Overwrite);
    });
    rate(&name("stored"), [m, n, k], matrix.bytes(), is_wanted, || {
        matmul_stored(Values::F32(&x), m, &matrix, &mut y, Accumulate::Overwrite);
    });
    if has_block_product(block_type) {
        let (bytes, mut rounded) = (Int8Matrix::pack(&matrix), Int8Rows::default());
        rate(&name("int8"), [m, n, k], bytes.bytes(), is_wanted, || {
            rounded.quantize(Values::F32(&x), m, k);
            matmul_int8(&rounded, &bytes, &mut y, Accumulate::Overwrite);
        });
    }
    rate(&name("packed dx"), [m, n, k], transposed.bytes(), is_wanted, || {
        matmul(&dy, m, &transposed, &mut dx, Accumulate::Overwrite);
    });
    rate(&name("stored dx"), [m, n, k], matrix.bytes(), is_wanted, || {
        matmul_stored_transposed(Values::F32(&dy), m, &matrix, &mut dx, Accumulate::Overwrite);
    });
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 2_654_435_761) >> 8 & 0xffff) as f32 / 32768.0 - 1.0).collect()
}

fn rate(name: &str, [m, n, k]: [usize; 3], bytes: usize, is_wanted: &dyn Fn(&str) -> bool, mut call: impl FnMut()) {
    if !is_wanted(name) {
        return;
    }
    call();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < Duration::from_millis(330) {
        let one = Instant::now();
        call();
        best = best.min(one.elapsed().as_secs_f64());
    }
    let gflops = 2.0 * (m * n * k) as f64 / best / 1e9;
    let gigabytes = bytes as f64 / best / 1e9;
    println!("{name:36} {gflops:9.1} GFLOP/s {:10.1} us {gigabytes:8.1} GB/s of weights", best * 1e6);
}

/// What the multiply-add instructions give without any memory.
#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::asm;
    use std::arch::x86_64::_mm512_setzero_ps;
    use std::time::Instant;

    const ROUNDS: usize = 100_000;
    const SUMS: usize = 20;

    pub(super) fn print() {
        let flops = (ROUNDS * SUMS * 16 * 2) as f64 / 1e9;
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has the feature.
            together("VFMADD", flops, || unsafe { fma() });
        }
        if is_x86_feature_detected!("avx512bf16") {
            // SAFETY: the CPU has the features.
            together("VDPBF16PS", 2.0 * flops, || unsafe { dot() });
        }
        if is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the CPU has the features.
            together("VPDPWSSD", 2.0 * flops, || unsafe { pairs() });
            // SAFETY: the CPU has the features.
            together("VPDPBUSD", 4.0 * flops, || unsafe { bytes() });
        }
    }

    /// The rate of all threads at once: they may share an arithmetic unit.
    fn together(name: &str, flops: f64, work: impl Fn() + Sync) {
        let alone = best(&work, flops);
        let all: f64 = rayon::broadcast(|_| best(&work, flops)).iter().sum();
        println!("peak {name:12} {alone:8.1} GFLOP/s on one thread, {all:8.1} on all together");
    }

    fn best(work: impl Fn(), flops: f64) -> f64 {
        (0..200)
            .map(|_| {
                let start = Instant::now();
                work();
                flops / start.elapsed().as_secs_f64()
            })
            .fold(0.0, f64::max)
    }

    /// The instruction on 20 registers in turn, 100,000 times.
    macro_rules! loop_of {
        ($instruction:literal, $zero:expr) => {
            asm!(
                "2:",
                concat!($instruction, " zmm0, zmm24, zmm25"), concat!($instruction, " zmm1, zmm24, zmm25"),
                concat!($instruction, " zmm2, zmm24, zmm25"), concat!($instruction, " zmm3, zmm24, zmm25"),
                concat!($instruction, " zmm4, zmm24, zmm25"), concat!($instruction, " zmm5, zmm24, zmm25"),
                concat!($instruction, " zmm6, zmm24, zmm25"), concat!($instruction, " zmm7, zmm24, zmm25"),
                concat!($instruction, " zmm8, zmm24, zmm25"), concat!($instruction, " zmm9, zmm24, zmm25"),
                concat!($instruction, " zmm10, zmm24, zmm25"), concat!($instruction, " zmm11, zmm24, zmm25"),
                concat!($instruction, " zmm12, zmm24, zmm25"), concat!($instruction, " zmm13, zmm24, zmm25"),
                concat!($instruction, " zmm14, zmm24, zmm25"), concat!($instruction, " zmm15, zmm24, zmm25"),
                concat!($instruction, " zmm16, zmm24, zmm25"), concat!($instruction, " zmm17, zmm24, zmm25"),
                concat!($instruction, " zmm18, zmm24, zmm25"), concat!($instruction, " zmm19, zmm24, zmm25"),
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) ROUNDS => _,
                in("zmm24") $zero, in("zmm25") $zero,
                inout("zmm0") $zero => _, inout("zmm1") $zero => _, inout("zmm2") $zero => _, inout("zmm3") $zero => _,
                inout("zmm4") $zero => _, inout("zmm5") $zero => _, inout("zmm6") $zero => _, inout("zmm7") $zero => _,
                inout("zmm8") $zero => _, inout("zmm9") $zero => _, inout("zmm10") $zero => _, inout("zmm11") $zero => _,
                inout("zmm12") $zero => _, inout("zmm13") $zero => _, inout("zmm14") $zero => _, inout("zmm15") $zero => _,
                inout("zmm16") $zero => _, inout("zmm17") $zero => _, inout("zmm18") $zero => _, inout("zmm19") $zero => _,
                options(nomem, nostack)
            )
        };
    }

    #[target_feature(enable = "avx512f")]
    fn fma() {
        let zero = _mm512_setzero_ps();
        // SAFETY: the CPU has the instruction; only registers change.
        unsafe { loop_of!("vfmadd231ps", zero) };
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn dot() {
        let zero = _mm512_setzero_ps();
        // SAFETY: the CPU has the instruction; only registers change.
        unsafe { loop_of!("vdpbf16ps", zero) };
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn pairs() {
        let zero = _mm512_setzero_ps();
        // SAFETY: the CPU has the instruction; only registers change.
        unsafe { loop_of!("vpdpwssd", zero) };
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn bytes() {
        let zero = _mm512_setzero_ps();
        // SAFETY: the CPU has the instruction; only registers change.
        unsafe { loop_of!("vpdpbusd", zero) };
    }
}
