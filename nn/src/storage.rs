//! Flat `f32` rows in and out of the tensors of burn's CPU backend.

use std::borrow::Cow;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

/// The values in row-major order, borrowed when the tensor already lies so.
pub(crate) fn values(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    match tensor.as_slice::<f32>() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(tensor.to_contiguous().as_slice::<f32>().unwrap_or_default().to_vec()),
    }
}

/// A tensor that owns `values`, row-major.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), DType::F32)
}

/// Rows of a two-dimensional tensor.
pub(crate) fn rows(tensor: &FlexTensor) -> usize {
    tensor.layout().shape()[0]
}
