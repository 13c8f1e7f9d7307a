//! All transformer blocks as one operation: the same as their single operations, with buffers that are used again.
//!
//! ```text
//! a  = x + O(attention(QKV(norm(x))))
//! y  = a + D(activation(GU(norm(a))))
//! ```
//!
//! or with a norm behind O and D before the sum (Gemma 3),
//!
//! where QKV, O, GU and D are frozen products with low-rank updates (a
//! [`LoraGroup`](super::lora_linear::LoraGroup) each). Saved are `x`, the rotated q and k, v, the attention's output and
//! log-sum-exp, `a`, gate and up, and the small `u` of each update. The norms' outputs and the activation are computed again
//! in the backward pass: they cost less than their memory. On the tape of single operations a third of a step went into
//! fresh memory pages.

mod block;

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use self::block::{Activations, copy};
pub use self::block::{Adapted, Block, BlockProjection};
use super::frozen_linear::frozen_linear;
use super::gated_activation::gated_activation;
use super::lora_linear::lora_linear;
use super::rms_norm::rms_norm;
use super::self_attention::{Layout, self_attention};
use crate::pool::{Buffer, Pool};
use crate::storage::{rows, tensor, values};

/// The blocks of a model, from the input on.
#[derive(Debug)]
pub struct Blocks {
    /// At least one.
    pub blocks: Vec<Block>,
    /// Where their buffers come from.
    pub pool: Pool,
    /// The first so many of those that the backward pass goes through keep only their input and run forward again in the backward pass: less memory, the same bits. The
    /// first, as their backward pass comes last, when what the others kept is free again.
    pub recompute: usize,
}

/// What the backward pass gets of a block.
#[derive(Debug)]
enum Kept {
    Activations(Box<Activations>),
    Input(Buffer),
}

/// The operation for burn's backends; call [`transformer_blocks`].
#[backend_extension(Autodiff, Flex)]
pub trait TransformerBlocksOperation: Backend {
    /// `x [t, hidden]` and the parameters of all blocks `[p]` to `[t, hidden]`.
    fn transformer_blocks(
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        blocks: Arc<Blocks>,
        layout: Layout,
    ) -> FloatTensor<Self>;
}

/// All blocks over packed rows `x [t, hidden]`, with their updates in `parameters [p]`.
pub fn transformer_blocks(x: Tensor<2>, parameters: Tensor<1>, blocks: &Arc<Blocks>, layout: &Layout) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as TransformerBlocksOperation>::transformer_blocks(
        x.into_dispatch(),
        parameters.into_dispatch(),
        Arc::clone(blocks),
        layout.clone(),
    ))
}

/// The same as a sequence of single operations: what the blocks are held against.
pub fn transformer_blocks_of_operations(
    x: Tensor<2>,
    parameters: &Tensor<1>,
    blocks: &Blocks,
    layout: &Layout,
) -> Tensor<2> {
    blocks.blocks.iter().fold(x, |x, block| {
        let parameters = parameters.clone().slice(std::array::from_ref(&block.parameters).clone());
        block_of_operations(x, &parameters, block, layout)
    })
}

fn block_of_operations(x: Tensor<2>, parameters: &Tensor<1>, block: &Block, layout: &Layout) -> Tensor<2> {
    let project = |x: Tensor<2>, at: usize| {
        let projection = &block.projections[at];
        match &projection.adapted {
            Some(Adapted { group, parameters: place }) => {
                let own = parameters.clone().slice(std::array::from_ref(place).clone());
                lora_linear(x, own.reshape([1, place.len()]), group)
            }
            None => frozen_linear(x, &projection.frozen),
        }
    };
    let normed = rms_norm(x.clone(), &block.attention_norm, block.epsilon);
    let behind = |x: Tensor<2>, part: usize| match &block.norms_behind {
        Some(norms) => rms_norm(x, &norms[part], block.epsilon),
        None => x,
    };
    let a = x + behind(project(self_attention(project(normed, 0), layout, &block.attention), 1), 0);
    let normed = rms_norm(a.clone(), &block.feed_forward_norm, block.epsilon);
    let activated = gated_activation(project(normed, 2), block.activation) * block.residual_scale;
    a + behind(project(activated, 3), 1)
}

impl Blocks {
    /// The first block with updates: where only these have a gradient, nothing below it is kept, nor gone back through.
    fn first_adapted(&self) -> usize {
        let frozen = |block: &Block| block.projections.iter().all(|projection| projection.adapted.is_none());
        self.blocks.iter().take_while(|block| frozen(block)).count()
    }

    /// The output, and what the backward pass needs of each block from the one numbered `keep_from` on.
    fn forward(
        &self,
        x: &FlexTensor,
        parameters: &FlexTensor,
        layout: &Layout,
        keep_from: usize,
    ) -> (FlexTensor, Vec<Kept>) {
        let parameters = values(parameters);
        let mut stream = copy(&values(x), &self.pool);
        let mut saved = Vec::with_capacity(self.blocks.len().saturating_sub(keep_from));
        for (index, block) in self.blocks.iter().enumerate() {
            let again = index >= keep_from && index < keep_from + self.recompute;
            let input = again.then(|| copy(&stream, &self.pool));
            let (y, activations) = block.forward(stream, &parameters[block.parameters.clone()], layout, &self.pool);
            stream = y;
            if index >= keep_from {
                saved.push(input.map_or_else(|| Kept::Activations(Box::new(activations)), Kept::Input));
            }
        }
        let width = stream.len() / layout.positions.len();
        (tensor(stream.to_vec(), [rows(x), width]), saved)
    }

    /// The gradient of the parameters, and that of `x` when it is wanted.
    fn backward(
        &self,
        dy: &[f32],
        mut saved: Vec<Kept>,
        parameters: &[f32],
        layout: &Layout,
        want_dx: bool,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let mut gradient = vec![0.0; parameters.len()];
        let lowest = self.blocks.len() - saved.len();
        let mut stream = copy(dy, &self.pool);
        for (index, block) in self.blocks.iter().enumerate().rev() {
            // Each block's buffers go back to the pool as soon as its gradient is known.
            let Some(kept) = saved.pop() else {
                break;
            };
            let place = block.parameters.clone();
            let activations = match kept {
                Kept::Activations(activations) => activations,
                Kept::Input(x) => Box::new(block.forward(x, &parameters[place.clone()], layout, &self.pool).1),
            };
            let both = (&parameters[place.clone()], &mut gradient[place]);
            match block.backward(&stream, &activations, both, layout, want_dx || index > lowest, &self.pool) {
                Some(dx) => stream = dx,
                None => return (gradient, None),
            }
        }
        (gradient, Some(stream.to_vec()))
    }
}

/// Memory of one block for a batch of some rows, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockBytes {
    /// Kept for the backward pass.
    pub(crate) kept: usize,
    /// Everything that its forward and backward pass take, what is kept among it.
    pub(crate) all: usize,
}

impl Block {
    /// Runs the block over `rows` rows of zeros, and looks at what it took.
    pub(crate) fn measure(&self, rows: usize) -> BlockBytes {
        let (parameters, mut gradient) = (vec![0.0; self.parameters.len()], vec![0.0; self.parameters.len()]);
        let layout = Layout::of_segments(vec![1; rows]);
        let pool = Pool::default();
        let mut x = pool.take(rows * self.attention_norm.len());
        x.fill(0.0);
        let dy = copy(&x, &pool);
        let (y, activations) = self.forward(x, &parameters, &layout, &pool);
        drop(y);
        let kept = pool.lent_bytes() - 4 * dy.len();
        let both = (&*parameters, &mut *gradient);
        let dx = self.backward(&dy, &activations, both, &layout, true, &pool);
        drop((dx, activations));
        BlockBytes { kept, all: pool.bytes() }
    }
}

impl TransformerBlocksOperation for Flex {
    fn transformer_blocks(
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        blocks: Arc<Blocks>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        blocks.forward(&x, &parameters, &layout, usize::MAX).0
    }
}

#[derive(Clone, Debug)]
struct Saved {
    parameters: FlexTensor,
    /// Taken out by the backward pass.
    activations: Arc<Mutex<Vec<Kept>>>,
    blocks: Arc<Blocks>,
    layout: Layout,
}

#[derive(Debug)]
struct TransformerBlocksBackward;

impl Backward<Flex, 2> for TransformerBlocksBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let [parent_x, parent_parameters] = ops.parents;
        let Saved { parameters, activations, blocks, layout } = ops.state;
        let saved = std::mem::take(&mut *activations.lock().unwrap_or_else(PoisonError::into_inner));
        let shape = [rows(&dy), dy.layout().shape()[1]];
        let (gradient, dx) = blocks.backward(&values(&dy), saved, &values(&parameters), &layout, parent_x.is_some());
        if let Some(parent) = parent_parameters {
            let count = gradient.len();
            gradients.register::<Flex>(parent.id, tensor(gradient, [count]));
        }
        if let (Some(parent), Some(dx)) = (parent_x, dx) {
            gradients.register::<Flex>(parent.id, tensor(dx, shape));
        }
    }
}

impl<C: CheckpointStrategy> TransformerBlocksOperation for Autodiff<Flex, C> {
    fn transformer_blocks(
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        blocks: Arc<Blocks>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), parameters.node()];
        let keep_from = if x.is_tracked() { 0 } else { blocks.first_adapted() };
        let (x, parameters) = (x.into_primitive(), parameters.into_primitive());
        match TransformerBlocksBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, activations) = blocks.forward(&x, &parameters, &layout, keep_from);
                let activations = Arc::new(Mutex::new(activations));
                prepared.finish(Saved { parameters, activations, blocks, layout }, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(blocks.forward(&x, &parameters, &layout, usize::MAX).0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::single_range_in_vec_init)] // one module, all outputs
mod tests {
    use super::super::frozen_linear::FrozenLinear;
    use super::super::lora_linear::{GroupModule, GroupPlan, LoraGroup};
    use super::super::self_attention::{AttentionPlan, HeadNorms};
    use super::*;
    use crate::testing::{assert_close, check_against_plain, noise};
    use burn::tensor::{Device, TensorData};
    use espalier_kernels::Precision;
    use espalier_kernels::ops::{AttentionShape, GatedActivation, RopeStyle, RopeTable};

    fn block(adapted: [bool; 4], dora: bool, first: usize, mut seed: u64) -> Block {
        let (hidden, feed_forward, rank) = (16, 12, 2);
        let sizes = [
            (hidden, 32, vec![0..16, 16..24, 24..32]),
            (16, hidden, vec![0..hidden]),
            (hidden, 24, vec![0..12, 12..24]),
            (feed_forward, hidden, vec![0..hidden]),
        ];
        let mut next = 0;
        let start = seed;
        let projections = sizes.map(|(inputs, outputs, ranges)| {
            seed += 1;
            let (weight, bias) = (noise(seed, inputs * outputs), noise(seed + 50, outputs));
            let frozen = Arc::new(FrozenLinear::pack(Precision::F32, outputs, inputs, Some(bias), &|row, out| {
                for (out, value) in out.iter_mut().zip(&weight[row * inputs..]) {
                    *out = value * 0.4;
                }
            }));
            let adapted = adapted[(seed - start) as usize - 1].then(|| {
                let modules = ranges.into_iter().map(|outputs| GroupModule { outputs, rank, scale: 0.5 }).collect();
                let group = LoraGroup::new(Arc::clone(&frozen), GroupPlan { inputs, modules, dora });
                let parameters = next..next + group.plan.parameter_count();
                next = parameters.end;
                Adapted { group: Arc::new(group), parameters }
            });
            BlockProjection { frozen, adapted }
        });
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 4, scale: 0.5, window: None };
        let rope = Some(Arc::new(RopeTable::new(4, 4, 1e4, None, 8)));
        let weight = |seed| Arc::new(noise(seed, hidden).iter().map(|x| 1.0 + 0.2 * x).collect::<Vec<_>>());
        Block {
            attention_norm: weight(31),
            feed_forward_norm: weight(32),
            norms_behind: None,
            epsilon: 1e-5,
            activation: GatedActivation::SwiGlu,
            residual_scale: 1.0,
            projections,
            attention: Arc::new(AttentionPlan {
                shape,
                head_norms: None,
                rope,
                style: RopeStyle::Halves,
                value_scale: 1.0,
            }),
            parameters: first..first + next,
        }
    }

    fn blocks(adapted: [[bool; 4]; 2], dora: bool) -> (Arc<Blocks>, Layout, Vec<f32>) {
        let first = block(adapted[0], dora, 0, 20);
        let second = block(adapted[1], dora, first.parameters.end, 120);
        let count = second.parameters.end;
        let blocks = Arc::new(Blocks { blocks: vec![first, second], pool: Pool::default(), recompute: 1 });
        let parameters: Vec<f32> = noise(33, count).iter().map(|x| x * 0.5).collect();
        (blocks, Layout::of_segments(vec![3, 2]), parameters)
    }

    #[test]
    fn equals_its_single_operations_and_finite_differences() {
        for adapted in [[true; 4], [true, false, false, true], [false, true, true, false]] {
            let (blocks, layout, parameters) = blocks([adapted, [true; 4]], false);
            let count = parameters.len();
            check_against_plain(
                &[(noise(34, 5 * 16), [5, 16]), (parameters, [1, count])],
                |i| transformer_blocks(i[0].clone(), i[1].clone().reshape([count]), &blocks, &layout),
                |i| transformer_blocks_of_operations(i[0].clone(), &i[1].clone().reshape([count]), &blocks, &layout),
            );
        }
    }

    /// Output and gradient of the parameters alone.
    fn run(
        body: impl Fn(Tensor<2>, Tensor<1>) -> Tensor<2>,
        parameters: &[f32],
        track_x: bool,
    ) -> (Vec<f32>, Vec<f32>) {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_data(TensorData::new(noise(34, 5 * 16), [5, 16]), &device);
        let x = if track_x { x.require_grad() } else { x };
        let parameters = Tensor::<1>::from_floats(parameters, &device).require_grad();
        let out = body(x, parameters.clone());
        let c = Tensor::<2>::from_data(TensorData::new(noise(99, 5 * 16), [5, 16]), &device);
        let gradients = (out.clone() * c).sum().backward();
        let gradient = parameters.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        (out.into_data().try_to_vec().unwrap(), gradient)
    }

    #[test]
    fn magnitudes_go_through_the_blocks_too() {
        let (blocks, layout, parameters) = blocks([[true, false, true, true], [true; 4]], true);
        let fused = run(|x, p| transformer_blocks(x, p, &blocks, &layout), &parameters, false);
        let single = run(|x, p| transformer_blocks_of_operations(x, &p, &blocks, &layout), &parameters, false);
        assert_close(&fused.0, &single.0, 1e-5, "output");
        assert_close(&fused.1, &single.1, 2e-5, "gradient");
    }

    #[test]
    fn the_way_back_ends_at_the_lowest_block_with_updates() {
        let (blocks, layout, parameters) = blocks([[false; 4], [true, false, true, true]], false);
        let fused = |x, p| transformer_blocks(x, p, &blocks, &layout);
        let (whole, short) = (run(fused, &parameters, true), run(fused, &parameters, false));
        assert!(whole.0.iter().zip(&short.0).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(whole.1.iter().zip(&short.1).all(|(a, b)| a.to_bits() == b.to_bits()));
        let x = tensor(noise(34, 5 * 16), [5, 16]);
        let parameters = tensor(parameters.clone(), [parameters.len()]);
        assert_eq!(blocks.forward(&x, &parameters, &layout, blocks.first_adapted()).1.len(), 1);
    }

    #[test]
    fn norms_behind_and_factors_equal_the_single_operations_too() {
        let weight = |seed, count| noise(seed, count).iter().map(|x| 1.0 + 0.2 * x).collect::<Vec<_>>();
        let mut block = block([true; 4], false, 0, 20);
        block.norms_behind = Some([Arc::new(weight(41, 16)), Arc::new(weight(42, 16))]);
        block.activation = GatedActivation::GeGlu;
        block.residual_scale = 0.3;
        block.attention = Arc::new(AttentionPlan {
            shape: AttentionShape { heads: 4, kv_heads: 2, head_dim: 4, scale: 0.5, window: Some(2) },
            head_norms: Some(HeadNorms { query: weight(43, 4), key: weight(44, 4), epsilon: 1e-5 }),
            rope: None,
            style: RopeStyle::Halves,
            value_scale: 0.3,
        });
        let count = block.parameters.end;
        let blocks = Arc::new(Blocks { blocks: vec![block], pool: Pool::default(), recompute: 1 });
        let layout = Layout::of_segments(vec![3, 2]);
        let parameters: Vec<f32> = noise(33, count).iter().map(|x| x * 0.5).collect();
        check_against_plain(
            &[(noise(34, 5 * 16), [5, 16]), (parameters, [1, count])],
            |i| transformer_blocks(i[0].clone(), i[1].clone().reshape([count]), &blocks, &layout),
            |i| transformer_blocks_of_operations(i[0].clone(), &i[1].clone().reshape([count]), &blocks, &layout),
        );
    }
}
