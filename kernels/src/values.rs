//! Values in memory: f32, or bf16 where the next product would round them anyway.

use bytemuck::Pod;
use half::bf16;

use crate::buffer::SharedMut;

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

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a mut [f32]> for ValuesMut<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Self::F32(values)
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
