//! Plain Rust that is compiled once for each instruction set, so that its loops use the registers that are there.
//!
//! The compiler never fuses a product and a sum by itself: the bits are the same on all of them.

// The work has to be compiled anew inside each function below, which needs its body there.
#![allow(clippy::inline_always)]

use crate::InstructionSet;

/// Work in plain Rust whose loops become vectors.
pub trait PlainWork {
    /// What it gives.
    type Output;

    /// Does the work. Mark it, and everything that its loops call, `#[inline(always)]`: other functions keep the registers
    /// that every CPU has.
    fn run(self) -> Self::Output;
}

/// Runs `work` as it was compiled for `isa`, or for the best instruction set of this CPU where it lacks that one.
pub fn run_with<W: PlainWork>(isa: InstructionSet, work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    match isa.usable() {
        InstructionSet::Portable => {}
        // SAFETY: the CPU has the features of the instruction set.
        InstructionSet::Avx2 => return unsafe { run_avx2(work) },
        // SAFETY: as above; those beyond AVX-512 include it.
        InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => {
            return unsafe { run_avx512(work) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    work.run()
}

/// Runs `work` with the widest registers of this CPU (see [`InstructionSet::detect`]).
pub fn run_widest<W: PlainWork>(work: W) -> W::Output {
    run_with(InstructionSet::detect(), work)
}

/// The work compiled for registers of 256 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<W: PlainWork>(work: W) -> W::Output {
    work.run()
}

/// The work compiled for registers of 512 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
fn run_avx512<W: PlainWork>(work: W) -> W::Output {
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sums<'a>(&'a [[f32; 16]]);

    impl PlainWork for Sums<'_> {
        type Output = [f32; 16];

        #[inline(always)]
        fn run(self) -> [f32; 16] {
            let mut sums = [0.0; 16];
            for row in self.0 {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += value * value;
                }
            }
            sums
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let rows: Vec<[f32; 16]> =
            (0..97).map(|row| std::array::from_fn(|lane| ((row * 16 + lane) as f32 * 0.37).sin())).collect();
        let plain = Sums(&rows).run().map(f32::to_bits);
        for isa in InstructionSet::available() {
            assert_eq!(run_with(isa, Sums(&rows)).map(f32::to_bits), plain, "{isa}");
        }
    }
}
