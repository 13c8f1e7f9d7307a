//! Instruction sets of the matrix kernels and their detection.
//!
//! Detection asks CPUID for the instructions and the operating system (XGETBV) for the registers behind them. AMX also
//! needs a permission from Linux and has to pass a small product against the plain path before it is used.

use std::sync::OnceLock;

/// The instruction sets that the matrix kernels are written for, in rising order of speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstructionSet {
    /// Plain Rust, any CPU.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with `VDPBF16PS`.
    Avx512Bf16,
    /// AMX tiles with `TDPBF16PS`.
    Amx,
}

/// The environment variable that lowers the instruction set.
const VARIABLE: &str = "ESPALIER_ISA";

impl InstructionSet {
    /// All of them, in rising order.
    const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The best instruction set of this CPU, found once; the environment variable `ESPALIER_ISA`
    /// (`portable|avx2|avx512|avx512bf16|amx`) lowers it. An unknown name in the variable is ignored, and one that
    /// this CPU lacks gives the best that it has.
    pub fn detect() -> Self {
        #[cfg(test)]
        tests::refuse_in_the_search();
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| {
            let wish = std::env::var(VARIABLE).ok().and_then(|name| Self::from_name(&name));
            lowered(best(), wish)
        })
    }

    /// Every instruction set that this CPU can run, in rising order, whatever `ESPALIER_ISA` says.
    pub fn available() -> Vec<Self> {
        let best = best();
        Self::ALL.into_iter().filter(|isa| *isa <= best).collect()
    }

    /// The same, or the best of this CPU where it lacks it.
    pub(crate) fn usable(self) -> Self {
        self.min(best())
    }

    /// The name as `ESPALIER_ISA` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// The instruction set of a name, upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name().eq_ignore_ascii_case(name.trim()))
    }
}

impl std::fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The lower of what the CPU has and what is wished for.
fn lowered(best: InstructionSet, wish: Option<InstructionSet>) -> InstructionSet {
    wish.map_or(best, |wish| wish.min(best))
}

/// The best instruction set of this CPU and operating system, found once in the process.
fn best() -> InstructionSet {
    static BEST: OnceLock<InstructionSet> = OnceLock::new();
    *BEST.get_or_init(best_uncached)
}

#[cfg(target_arch = "x86_64")]
fn best_uncached() -> InstructionSet {
    use std::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma") && has!("f16c")) {
        return InstructionSet::Portable;
    }
    if !(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")) {
        return InstructionSet::Avx2;
    }
    if !has!("avx512bf16") {
        return InstructionSet::Avx512;
    }
    if crate::gemm::amx_works() { InstructionSet::Amx } else { InstructionSet::Avx512Bf16 }
}

#[cfg(not(target_arch = "x86_64"))]
fn best_uncached() -> InstructionSet {
    InstructionSet::Portable
}

/// Whether `VDPBF16PS` loses to f32 multiplications of widened values. Emerald Rapids begins one in two cycles, and two f32
/// multiplications and additions in each (docs/benchmarks.md); it is taken for all of Intel's cores with AVX-512 FP16. They have
/// AMX for bf16, but many a virtual machine hides that.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_slow_bf16_pairs() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    static SLOW: OnceLock<bool> = OnceLock::new();
    *SLOW.get_or_init(|| {
        let first = __cpuid(0);
        let is_intel = [first.ebx, first.edx, first.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel";
        let has_fp16 = first.eax >= 7 && __cpuid_count(7, 0).edx & 1 << 23 != 0;
        is_intel && has_fp16
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Set on a thread that does what the search does, which must not ask for its outcome.
        pub(crate) static SEARCHING: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn refuse_in_the_search() {
        assert!(!SEARCHING.get(), "the search for the best instruction set waits for itself");
    }

    #[test]
    fn names_round_trip() {
        for isa in InstructionSet::ALL {
            assert_eq!(InstructionSet::from_name(isa.name()), Some(isa));
        }
        assert_eq!(InstructionSet::from_name(" AVX2 "), Some(InstructionSet::Avx2));
        assert_eq!(InstructionSet::from_name("sse9"), None);
    }

    #[test]
    fn the_variable_only_lowers() {
        assert_eq!(lowered(InstructionSet::Avx512, Some(InstructionSet::Avx2)), InstructionSet::Avx2);
        assert_eq!(lowered(InstructionSet::Avx2, Some(InstructionSet::Amx)), InstructionSet::Avx2);
        assert_eq!(lowered(InstructionSet::Avx2, None), InstructionSet::Avx2);
    }

    #[test]
    fn available_rises_from_portable_and_holds_the_detected_one() {
        let available = InstructionSet::available();
        assert_eq!(available[0], InstructionSet::Portable);
        assert!(available.is_sorted());
        assert!(available.contains(&InstructionSet::detect()));
    }
}
