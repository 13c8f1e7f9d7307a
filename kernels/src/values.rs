//! Values in memory: f32, or bf16 where the next product would round them anyway.

#![allow(clippy::inline_always, reason = "these end up in bodies that are compiled for an instruction set")]

use bytemuck::Pod;
use half::bf16;
use rayon::prelude::*;

use crate::buffer::SharedMut;
use crate::gemm::round_row;

/// Values that one thread rounds at a time.
const ROUND_CHUNK: usize = 1 << 14;

/// Values to read.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// As they were computed.
    F32(&'a [f32]),
    /// Rounded, nearest even.
    Bf16(&'a [bf16]),
}

/// Values to write.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// As they are computed.
    F32(&'a mut [f32]),
    /// Rounded, nearest even.
    Bf16(&'a mut [bf16]),
}

impl Values<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ValuesMut<'_> {
    /// Runs `work` on f32 and rounds what it wrote where these are bf16: for results that are overwritten.
    pub fn through_f32(self, work: impl FnOnce(&mut [f32])) {
        match self {
            Self::F32(values) => work(values),
            Self::Bf16(values) => {
                let mut wide = vec![0.0; values.len()];
                work(&mut wide);
                values.par_chunks_mut(ROUND_CHUNK).zip(wide.par_chunks(ROUND_CHUNK)).for_each(|(values, wide)| {
                    round_row(wide, bytemuck::cast_slice_mut(values));
                });
            }
        }
    }

    /// The same values for a shorter time.
    pub fn reborrow(&mut self) -> ValuesMut<'_> {
        match self {
            Self::F32(values) => ValuesMut::F32(values),
            Self::Bf16(values) => ValuesMut::Bf16(values),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// f32 or bf16: what an operation between two products reads and writes.
pub trait Element: Pod + Send + Sync + PartialEq + std::fmt::Debug + sealed::Sealed {
    /// The value as f32.
    fn widen(self) -> f32;

    /// The nearest value, ties to even.
    fn round(value: f32) -> Self;

    /// [`Element::round`] of each value.
    ///
    /// # Panics
    /// If the lengths differ.
    fn round_all(from: &[f32], to: &mut [Self]);

    /// [`Element::widen`] of each value.
    ///
    /// # Panics
    /// If the lengths differ.
    fn widen_all(from: &[Self], to: &mut [f32]) {
        assert_eq!(from.len(), to.len(), "widen_all: lengths differ");
        for (to, value) in to.iter_mut().zip(from) {
            *to = value.widen();
        }
    }

    /// How many f32 hold so many of these.
    fn words(count: usize) -> usize {
        (count * size_of::<Self>()).div_ceil(size_of::<f32>())
    }

    /// The first `count` of these in memory that was taken as f32.
    ///
    /// # Panics
    /// If the memory is shorter.
    fn view(memory: &[f32], count: usize) -> &[Self] {
        &bytemuck::cast_slice(memory)[..count]
    }

    /// [`Element::view`] to write to.
    ///
    /// # Panics
    /// If the memory is shorter.
    fn view_mut(memory: &mut [f32], count: usize) -> &mut [Self] {
        &mut bytemuck::cast_slice_mut(memory)[..count]
    }

    /// A slice as [`Values`].
    fn values(slice: &[Self]) -> Values<'_>;

    /// A slice as [`ValuesMut`].
    fn values_mut(slice: &mut [Self]) -> ValuesMut<'_>;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }

    fn round_all(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn values(slice: &[Self]) -> Values<'_> {
        Values::F32(slice)
    }

    fn values_mut(slice: &mut [Self]) -> ValuesMut<'_> {
        ValuesMut::F32(slice)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        Self::from_bits(crate::gemm::bf16_bits(value))
    }

    fn round_all(from: &[f32], to: &mut [Self]) {
        assert_eq!(from.len(), to.len(), "round_all: lengths differ");
        round_row(from, bytemuck::cast_slice_mut(to));
    }

    fn values(slice: &[Self]) -> Values<'_> {
        Values::Bf16(slice)
    }

    fn values_mut(slice: &mut [Self]) -> ValuesMut<'_> {
        ValuesMut::Bf16(slice)
    }
}

/// [`ValuesMut`] that tasks share in order to write disjoint elements.
#[derive(Clone, Copy)]
pub(crate) enum SharedValues {
    F32(SharedMut<f32>),
    Bf16(SharedMut<bf16>),
}

impl SharedValues {
    /// Shares the values from `first` on.
    pub(crate) fn new(values: ValuesMut<'_>, first: usize) -> Self {
        match values {
            ValuesMut::F32(values) => Self::F32(SharedMut::new(&mut values[first..])),
            ValuesMut::Bf16(values) => Self::Bf16(SharedMut::new(&mut values[first..])),
        }
    }
}
