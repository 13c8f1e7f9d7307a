//! A linear map whose weight is frozen.
//!
//! `y = x W^T + bias`; `dx = dy W`. The weight has no gradient, so `x` is not saved and `dW` is never formed. Both `W` and
//! `W^T` are packed once, or the weight stays in the blocks of its file and serves both directions from there, with the
//! same bits.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;
use espalier_kernels::{
    Accumulate, Element, LowRank, PackedMatrix, Precision, StoredMatrix, Values, ValuesMut, matmul_low_rank,
    matmul_stored, matmul_stored_transposed, matmul_values,
};
use rayon::prelude::*;

use crate::profile::{Cost, Operation, timed};
use crate::storage::{rows, tensor, values};

#[derive(Debug)]
enum Weight {
    /// For the product with `W^T`, and for that with `W`.
    Packed { forward: PackedMatrix, backward: PackedMatrix },
    /// In the blocks of its file.
    Stored(StoredMatrix),
}

/// A frozen weight `W [outputs, inputs]` for the product with `W^T` and with `W`, and its bias.
#[derive(Debug)]
pub struct FrozenLinear {
    weight: Weight,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

/// The factors of an update as the products want them, and how many parameters they hold.
#[derive(Debug)]
pub(crate) struct PackedUpdate {
    pub(crate) factors: LowRank,
    pub(crate) parameters: usize,
}

impl FrozenLinear {
    /// Packs the weight; `fill_row(r, buffer)` writes row `r` of `W` (`inputs` values).
    pub fn pack(
        precision: Precision,
        outputs: usize,
        inputs: usize,
        bias: Option<Vec<f32>>,
        fill_row: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let weight = Weight::Packed {
            forward: PackedMatrix::pack(precision, outputs, inputs, fill_row),
            backward: PackedMatrix::pack_transposed(precision, outputs, inputs, fill_row),
        };
        Self { weight, bias, inputs, outputs }
    }

    /// Leaves the weight in its blocks. Results have the bits of the packed form.
    pub fn stored(weight: StoredMatrix, bias: Option<Vec<f32>>) -> Self {
        let (inputs, outputs) = (weight.columns(), weight.rows());
        Self { weight: Weight::Stored(weight), bias, inputs, outputs }
    }

    /// Width of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Memory of the weight: of both packings, or of the blocks.
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Packed { forward, backward } => forward.bytes() + backward.bytes(),
            Weight::Stored(weight) => weight.bytes(),
        }
    }

    /// What [`FrozenLinear::bytes`] of such a weight is once it is packed.
    pub fn packed_bytes(precision: Precision, outputs: usize, inputs: usize) -> usize {
        PackedMatrix::bytes_of(precision, outputs, inputs) + PackedMatrix::bytes_of(precision, inputs, outputs)
    }

    /// `y (=|+=) x W^T + bias` for `x [t, inputs]`, `y [t, outputs]`.
    pub(crate) fn apply(&self, x: &[f32], t: usize, y: &mut [f32], accumulate: Accumulate) {
        self.product(Values::F32(x), t, ValuesMut::F32(y), accumulate);
        self.add_bias(ValuesMut::F32(y));
    }

    /// `y (=|+=) x W^T`.
    pub(crate) fn product(&self, x: Values<'_>, t: usize, mut y: ValuesMut<'_>, accumulate: Accumulate) {
        timed(Operation::WeightProducts, self.cost(t, 0), || match &self.weight {
            Weight::Packed { forward, .. } => matmul_values(x, t, forward, y.reborrow(), accumulate),
            Weight::Stored(weight) => y.reborrow().through_f32(|y| matmul_stored(x, t, weight, y, accumulate)),
        });
    }

    /// What the products compute in.
    pub(crate) fn precision(&self) -> Precision {
        match &self.weight {
            Weight::Packed { forward, .. } => forward.precision(),
            Weight::Stored(weight) => weight.precision(),
        }
    }

    /// `u = x A^T` and `y (=|+=) x W^T + u B^T`.
    pub(crate) fn product_with(
        &self,
        x: Values<'_>,
        t: usize,
        update: &PackedUpdate,
        u: &mut [f32],
        mut y: ValuesMut<'_>,
        accumulate: Accumulate,
    ) {
        let PackedUpdate { factors: update, parameters } = update;
        timed(Operation::WeightProducts, self.cost(t, *parameters), || match &self.weight {
            Weight::Packed { forward, .. } => matmul_low_rank(x, t, forward, update, u, y.reborrow(), accumulate),
            Weight::Stored(weight) => y.reborrow().through_f32(|y| {
                matmul_stored(x, t, weight, y, accumulate);
                update.add(x, t, u, y);
            }),
        });
    }

    /// `v = dy B` and `dx = dy W + v A`.
    pub(crate) fn apply_transposed_with(
        &self,
        dy: Values<'_>,
        t: usize,
        update: &PackedUpdate,
        v: &mut [f32],
        mut dx: ValuesMut<'_>,
    ) {
        let accumulate = Accumulate::Overwrite;
        let PackedUpdate { factors: update, parameters } = update;
        timed(Operation::WeightProducts, self.cost(t, *parameters), || match &self.weight {
            Weight::Packed { backward, .. } => matmul_low_rank(dy, t, backward, update, v, dx.reborrow(), accumulate),
            Weight::Stored(weight) => dx.reborrow().through_f32(|dx| {
                matmul_stored_transposed(dy, t, weight, dx, accumulate);
                update.add(dy, t, v, dx);
            }),
        });
    }

    /// What is added to each row of the product.
    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// `y += bias`.
    pub(crate) fn add_bias(&self, y: ValuesMut<'_>) {
        fn add<T: Element>(y: &mut [T], bias: &[f32]) {
            y.par_chunks_exact_mut(bias.len()).for_each(|row| {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value = T::round(value.widen() + bias);
                }
            });
        }
        let Some(bias) = &self.bias else { return };
        match y {
            ValuesMut::F32(y) => timed(Operation::Additions, Cost::values(2 * y.len()), || add(y, bias)),
            ValuesMut::Bf16(y) => timed(Operation::Additions, Cost::values(y.len()), || add(y, bias)),
        }
    }

    /// `dx = dy W` for `dy [t, outputs]`, `dx [t, inputs]`.
    pub(crate) fn apply_transposed(&self, dy: &[f32], t: usize, dx: &mut [f32]) {
        self.product_transposed(Values::F32(dy), t, ValuesMut::F32(dx));
    }

    /// [`FrozenLinear::apply_transposed`] from and into f32 or bf16.
    pub(crate) fn product_transposed(&self, dy: Values<'_>, t: usize, mut dx: ValuesMut<'_>) {
        timed(Operation::WeightProducts, self.cost(t, 0), || match &self.weight {
            Weight::Packed { backward, .. } => matmul_values(dy, t, backward, dx.reborrow(), Accumulate::Overwrite),
            Weight::Stored(weight) => {
                dx.reborrow().through_f32(|dx| matmul_stored_transposed(dy, t, weight, dx, Accumulate::Overwrite));
            }
        });
    }

    /// What a product costs that takes so many parameters of an update along.
    fn cost(&self, t: usize, parameters: usize) -> Cost {
        let weight = match &self.weight {
            // Either packing: they are of one size but for the padding.
            Weight::Packed { forward, .. } => forward.bytes(),
            Weight::Stored(weight) => weight.bytes(),
        };
        let moved = weight + size_of::<f32>() * t * (self.inputs + self.outputs);
        Cost::product(t, 1, self.outputs * self.inputs + parameters, moved)
    }
}

/// The operation for burn's backends; call [`frozen_linear`].
#[backend_extension(Autodiff, Flex)]
pub trait FrozenLinearOperation: Backend {
    /// `x [t, inputs]` to `[t, outputs]`.
    fn frozen_linear(x: FloatTensor<Self>, weight: Arc<FrozenLinear>) -> FloatTensor<Self>;
}

/// `y = x W^T + bias` for `x [t, inputs]`.
pub fn frozen_linear(x: Tensor<2>, weight: &Arc<FrozenLinear>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FrozenLinearOperation>::frozen_linear(x.into_dispatch(), Arc::clone(weight)))
}

/// The same in plain burn operations for a dense `weight [outputs, inputs]`, whose type the product is computed in: a
/// weight of bf16 takes `x`, and gives the result and the gradients, rounded to it, and adds up wider.
pub fn frozen_linear_plain(x: Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
    let y = x.cast(weight.dtype()).matmul(weight.clone().transpose()).cast(DType::F32);
    match bias {
        Some(bias) => y + bias.clone().unsqueeze(),
        None => y,
    }
}

fn forward(x: &FlexTensor, weight: &FrozenLinear) -> FlexTensor {
    let mut y = vec![0.0; rows(x) * weight.outputs];
    weight.apply(&values(x), rows(x), &mut y, Accumulate::Overwrite);
    tensor(y, [rows(x), weight.outputs])
}

impl FrozenLinearOperation for Flex {
    fn frozen_linear(x: FloatTensor<Self>, weight: Arc<FrozenLinear>) -> FloatTensor<Self> {
        forward(&x, &weight)
    }
}

#[derive(Debug)]
struct FrozenLinearBackward;

impl Backward<Flex, 1> for FrozenLinearBackward {
    type State = Arc<FrozenLinear>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let [Some(parent)] = ops.parents else { return };
        let weight = ops.state;
        let mut dx = vec![0.0; rows(&dy) * weight.inputs];
        weight.apply_transposed(&values(&dy), rows(&dy), &mut dx);
        gradients.register::<Flex>(parent.id, tensor(dx, [rows(&dy), weight.inputs]));
    }
}

impl<C: CheckpointStrategy> FrozenLinearOperation for Autodiff<Flex, C> {
    fn frozen_linear(x: FloatTensor<Self>, weight: Arc<FrozenLinear>) -> FloatTensor<Self> {
        let node = x.node();
        let out = forward(&x.into_primitive(), &weight);
        match FrozenLinearBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(weight, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, matrix, noise, vector};
    use espalier_kernels::{BlockRows, BlockType};

    /// A weight in blocks of `Q8_0` and the same one packed.
    fn both_forms(precision: Precision, parts: [usize; 2], inputs: usize, bias: Option<&[f32]>) -> [FrozenLinear; 2] {
        let scale = [0x00, 0x20];
        let block = |seed: usize| scale.into_iter().chain((0..32).map(move |j| ((seed * 37 + j * 101) % 251) as u8));
        let rows = |outputs: usize| {
            let bytes: Vec<u8> = (0..outputs * inputs / 32).flat_map(block).collect();
            let range = 0..bytes.len();
            BlockRows::new(BlockType::Q8_0, inputs, Arc::new(bytes), range).expect("whole rows")
        };
        let matrices = parts.map(rows);
        let fill = |row: usize, out: &mut [f32]| match row.checked_sub(parts[0]) {
            None => matrices[0].row(row, out),
            Some(row) => matrices[1].row(row, out),
        };
        let bias = || bias.map(<[f32]>::to_vec);
        let packed = FrozenLinear::pack(precision, parts[0] + parts[1], inputs, bias(), &fill);
        [FrozenLinear::stored(StoredMatrix::new(precision, matrices.to_vec()), bias()), packed]
    }

    #[test]
    fn blocks_give_the_bits_of_the_packed_form_both_ways() {
        let (t, inputs, outputs) = (7, 96, 40 + 13);
        let (x, dy, bias) = (noise(1, t * inputs), noise(2, t * outputs), noise(3, outputs));
        for precision in [Precision::F32, Precision::Bf16] {
            let forms = both_forms(precision, [40, 13], inputs, Some(&bias));
            assert_eq!((forms[0].inputs(), forms[0].outputs()), (inputs, outputs));
            assert!(forms[0].bytes() * 4 < forms[1].bytes());
            let [stored, packed] = forms.map(|form| {
                let (mut y, mut dx) = (noise(4, t * outputs), vec![0.0; t * inputs]);
                form.apply(&x, t, &mut y, Accumulate::Add);
                form.apply_transposed(&dy, t, &mut dx);
                (y, dx)
            });
            assert!(stored == packed, "{precision}");
        }
    }

    #[test]
    fn equals_the_plain_operations_and_finite_differences() {
        for bias in [None, Some(noise(4, 7))] {
            let weight = noise(5, 7 * 9);
            let packed = Arc::new(FrozenLinear::pack(Precision::F32, 7, 9, bias.clone(), &|row, out| {
                out.copy_from_slice(&weight[row * 9..(row + 1) * 9]);
            }));
            let dense = matrix(&weight, [7, 9]);
            let dense_bias = bias.as_deref().map(vector);
            check_against_plain(
                &[(noise(6, 4 * 9), [4, 9])],
                |inputs| frozen_linear(inputs[0].clone(), &packed),
                |inputs| frozen_linear_plain(inputs[0].clone(), &dense, dense_bias.as_ref()),
            );
        }
    }
}
