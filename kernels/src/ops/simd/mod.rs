//! One body for all instruction sets: operations are written against [`Simd`] and compiled for each of them.
//!
//! A value of a type that implements [`Simd`] is the proof that the CPU has the instructions: only [`dispatch`] makes
//! one, after the detection. Bodies are inlined into a function that is compiled for the instruction set, so
//! everything from [`Operation::run`] down to the intrinsics is `inline(always)`, and no closure stands in between.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod exponential;
mod portable;

pub(super) use exponential::{exp, exp2};

use half::bf16;

use crate::InstructionSet;
use crate::gemm::bf16_bits;
use crate::values::{Element, Values, ValuesMut};

/// Largest width of a vector in elements.
pub(super) const MAX_WIDTH: usize = 16;

/// Vector instructions of one instruction set.
pub(super) trait Simd: Copy {
    /// A vector of [`Self::WIDTH`] floats.
    type Vector: Copy;

    /// A vector of [`Self::WIDTH`] integers of 32 bits.
    type Integers: Copy;

    /// Elements of a vector.
    const WIDTH: usize;

    /// All elements equal to `value`.
    fn splat(self, value: f32) -> Self::Vector;

    /// Reads a vector.
    ///
    /// # Safety
    ///
    /// `source` points to [`Self::WIDTH`] readable elements; no alignment is needed.
    unsafe fn load_at(self, source: *const f32) -> Self::Vector;

    /// Writes a vector.
    ///
    /// # Safety
    ///
    /// `target` points to [`Self::WIDTH`] writable elements; no alignment is needed.
    unsafe fn store_at(self, target: *mut f32, vector: Self::Vector);

    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a * b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a / b`.
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a * b + c`, fused where the instruction set can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The nearest integer, ties to even, for `|a| < 2^22`.
    fn round(self, a: Self::Vector) -> Self::Vector;

    /// `a * 2^n` for integers `n` in -150..=128 and `a` in 0.5..2, with subnormals and infinity.
    fn scale_by_power(self, a: Self::Vector, n: Self::Vector) -> Self::Vector;

    /// The first `count` elements of `a`, the others of `b`.
    fn select_first(self, count: usize, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The sum of the elements, always as the same tree.
    fn sum(self, a: Self::Vector) -> f32;

    /// The largest element.
    fn maximum(self, a: Self::Vector) -> f32;

    /// Transposes a square of [`Self::WIDTH`] rows and columns.
    ///
    /// # Safety
    ///
    /// Both squares lie in readable respectively writable memory, rows `source_stride` and `target_stride` elements
    /// apart; they do not overlap.
    unsafe fn transpose_at(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize);

    /// Reads a vector of bf16.
    ///
    /// # Safety
    ///
    /// `source` points to [`Self::WIDTH`] readable elements; no alignment is needed.
    #[inline(always)]
    unsafe fn load_bf16_at(self, source: *const bf16) -> Self::Vector {
        let mut buffer = [0.0; MAX_WIDTH];
        for (i, value) in buffer.iter_mut().enumerate().take(Self::WIDTH) {
            // SAFETY: the caller grants the elements.
            *value = unsafe { source.add(i).read() }.widen();
        }
        self.load(&buffer)
    }

    /// All elements equal to `value`.
    fn splat_integer(self, value: u32) -> Self::Integers;

    /// Reads a vector of integers.
    ///
    /// # Safety
    ///
    /// `source` points to [`Self::WIDTH`] readable elements; no alignment is needed.
    unsafe fn load_integers_at(self, source: *const u32) -> Self::Integers;

    /// Takes each element as two signed integers of 16 bits and adds the products of the lower and of the upper ones to
    /// `sum`; the sums stay in 32 bits.
    fn dot_pairs(self, a: Self::Integers, b: Self::Integers, sum: Self::Integers) -> Self::Integers;

    /// The nearest floats.
    fn to_floats(self, a: Self::Integers) -> Self::Vector;

    /// Writes the nearest integers of 16 bits, ties to even, for `|a| < 2^15`; of NaN any.
    ///
    /// # Safety
    ///
    /// `target` points to [`Self::WIDTH`] writable elements; no alignment is needed.
    unsafe fn store_i16_at(self, target: *mut i16, vector: Self::Vector);

    /// Rounds a vector to bf16, nearest even, as the packing of activations does, and writes it.
    ///
    /// # Safety
    ///
    /// `target` points to [`Self::WIDTH`] writable elements; no alignment is needed.
    #[inline(always)]
    unsafe fn store_bf16_at(self, target: *mut bf16, vector: Self::Vector) {
        let mut buffer = [0.0; MAX_WIDTH];
        self.store(&mut buffer, vector);
        for (i, value) in buffer.into_iter().enumerate().take(Self::WIDTH) {
            // SAFETY: the caller grants the elements.
            unsafe { target.add(i).write(bf16::round(value)) };
        }
    }

    /// Rounds two vectors to bf16 and writes them as pairs, element by element: `even` in the low halves of the words.
    ///
    /// # Safety
    ///
    /// `target` points to [`Self::WIDTH`] writable words; no alignment is needed.
    #[inline(always)]
    unsafe fn store_pairs_at(self, target: *mut u32, even: Self::Vector, odd: Self::Vector) {
        let mut buffers = [[0.0; MAX_WIDTH]; 2];
        self.store(&mut buffers[0], even);
        self.store(&mut buffers[1], odd);
        let [even, odd] = buffers;
        for (i, (even, odd)) in even.into_iter().zip(odd).enumerate().take(Self::WIDTH) {
            let pair = u32::from(bf16_bits(even)) | u32::from(bf16_bits(odd)) << 16;
            // SAFETY: the caller grants the words.
            unsafe { target.add(i).write_unaligned(pair) };
        }
    }

    /// Reads the first [`Self::WIDTH`] elements of a slice of f32 or bf16.
    #[inline(always)]
    fn read<T: Element>(self, source: &[T]) -> Self::Vector {
        assert!(source.len() >= Self::WIDTH);
        // SAFETY: the slice is long enough.
        match T::values(source) {
            Values::F32(source) => unsafe { self.load_at(source.as_ptr()) },
            Values::Bf16(source) => unsafe { self.load_bf16_at(source.as_ptr()) },
        }
    }

    /// Writes the first [`Self::WIDTH`] elements of a slice of f32 or bf16.
    #[inline(always)]
    fn write<T: Element>(self, target: &mut [T], vector: Self::Vector) {
        assert!(target.len() >= Self::WIDTH);
        // SAFETY: the slice is long enough.
        match T::values_mut(target) {
            ValuesMut::F32(target) => unsafe { self.store_at(target.as_mut_ptr(), vector) },
            ValuesMut::Bf16(target) => unsafe { self.store_bf16_at(target.as_mut_ptr(), vector) },
        }
    }

    /// Reads a slice shorter than a vector, filled up with zeros.
    #[inline(always)]
    fn read_short<T: Element>(self, source: &[T]) -> Self::Vector {
        let mut buffer = [0.0; MAX_WIDTH];
        for (to, value) in buffer.iter_mut().zip(source) {
            *to = value.widen();
        }
        self.load(&buffer)
    }

    /// Fills a slice shorter than a vector with its first elements.
    #[inline(always)]
    fn write_short<T: Element>(self, target: &mut [T], vector: Self::Vector) {
        let mut buffer = [0.0; MAX_WIDTH];
        self.store(&mut buffer, vector);
        for (to, value) in target.iter_mut().zip(buffer) {
            *to = T::round(value);
        }
    }

    /// Reads the first [`Self::WIDTH`] elements of a slice.
    #[inline(always)]
    fn load(self, source: &[f32]) -> Self::Vector {
        assert!(source.len() >= Self::WIDTH);
        // SAFETY: the slice is long enough.
        unsafe { self.load_at(source.as_ptr()) }
    }

    /// Writes the first [`Self::WIDTH`] elements of a slice.
    #[inline(always)]
    fn store(self, target: &mut [f32], vector: Self::Vector) {
        assert!(target.len() >= Self::WIDTH);
        // SAFETY: the slice is long enough.
        unsafe { self.store_at(target.as_mut_ptr(), vector) }
    }

    /// Reads a slice shorter than a vector, filled up with `fill`.
    #[inline(always)]
    fn load_short(self, source: &[f32], fill: f32) -> Self::Vector {
        let mut buffer = [fill; MAX_WIDTH];
        buffer[..source.len()].copy_from_slice(source);
        self.load(&buffer)
    }

    /// Fills a slice shorter than a vector with its first elements.
    #[inline(always)]
    fn store_short(self, target: &mut [f32], vector: Self::Vector) {
        let mut buffer = [0.0; MAX_WIDTH];
        self.store(&mut buffer, vector);
        target.copy_from_slice(&buffer[..target.len()]);
    }

    /// Runs an operation in a function of its own that is compiled for this instruction set.
    fn call<O: Operation>(self, operation: O) -> O::Output;
}

/// A body that is written once for every instruction set.
pub(super) trait Operation {
    /// Its result.
    type Output;

    /// The body; implementations are `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs an operation on an instruction set, lowered to what this CPU has.
pub(super) fn dispatch<O: Operation>(isa: InstructionSet, operation: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if isa >= InstructionSet::Avx512Bf16
            && let Some(simd) = avx512::Avx512::<true>::new()
        {
            return simd.call(operation);
        }
        if isa >= InstructionSet::Avx512
            && let Some(simd) = avx512::Avx512::<false>::new()
        {
            return simd.call(operation);
        }
        if isa >= InstructionSet::Avx2
            && let Some(simd) = avx2::Avx2::new()
        {
            return simd.call(operation);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    portable::Portable.call(operation)
}

#[cfg(test)]
mod tests;
