//! A frozen model with low-rank updates: forward, loss and gradient.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use espalier_kernels::ops::RowLoss;
use espalier_model::ModelConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::batch::{Batch, BatchLoss};
use super::frozen::{FrozenLayer, FrozenTransformer};
use super::lora_options::{LoraOptions, ModulePlan};
use crate::error::NnError;
use crate::ops::dora::RowLengths;
use crate::ops::frozen_linear::FrozenLinear;
use crate::ops::linear_cross_entropy::linear_cross_entropy;
use crate::ops::lora_linear::{GroupModule, LoraGroup};
use crate::ops::rms_norm::rms_norm;
use crate::ops::self_attention::{Layout, scale};
use crate::ops::transformer_blocks::{Adapted, Block, BlockProjection, Blocks, transformer_blocks};
use crate::pool::Pool;
use crate::profile::{Cost, Operation, timed};

/// A frozen model with trainable low-rank updates.
///
/// The parameters are one flat vector; for each layer and each group of projections that share their input it holds the
/// stacked `A [sum of ranks, inputs]`, then the `B [outputs, rank]` of its modules, then for `DoRA` their magnitudes
/// `[outputs]`.
#[derive(Debug)]
pub struct LoraModel {
    pub(super) frozen: Arc<FrozenTransformer>,
    pub(super) rslora: bool,
    pub(super) places: Vec<Place>,
    pub(super) blocks: Arc<Blocks>,
    pub(super) parameters: Vec<f32>,
}

/// The place of one module's update.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) plan: ModulePlan,
    pub(super) a: Range<usize>,
    pub(super) b: Range<usize>,
    /// `DoRA` alone.
    pub(super) magnitudes: Option<Range<usize>>,
}

impl LoraModel {
    /// Fresh updates: `A` uniform in `±1/sqrt(inputs)` (as PEFT), `B` zero, magnitudes the lengths of the frozen rows, so
    /// that the model computes what the base does.
    pub fn new(frozen: Arc<FrozenTransformer>, options: &LoraOptions, seed: u64) -> Result<Self, NnError> {
        let plans = options.modules(&frozen.config)?;
        let mut model = Self::of_plans(frozen, plans, options.rslora, options.dora);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for Place { plan, a, .. } in &model.places {
            let (inputs, _) = plan.projection.size(&model.frozen.config);
            let bound = (inputs as f32).sqrt().recip();
            for value in &mut model.parameters[a.clone()] {
                *value = random.random_range(-bound..bound);
            }
        }
        Ok(model)
    }

    /// Updates of zero for modules in the order of layers and [`PROJECTIONS`](super::PROJECTIONS), with the lengths of the
    /// frozen rows for `DoRA`.
    pub(super) fn of_plans(frozen: Arc<FrozenTransformer>, plans: Vec<ModulePlan>, rslora: bool, dora: bool) -> Self {
        let mut blocks = Vec::with_capacity(frozen.layers.len());
        let (mut places, mut parameters) = (Vec::new(), Vec::new());
        for (number, layer) in frozen.layers.iter().enumerate() {
            let members: Vec<ModulePlan> = plans.iter().filter(|plan| plan.layer == number).copied().collect();
            blocks.push(block(&frozen.config, layer, &members, [rslora, dora], &mut parameters, &mut places));
        }
        let blocks = Arc::new(Blocks { blocks, pool: Pool::default(), recompute: 0 });
        Self { frozen, rslora, places, blocks, parameters }
    }

    /// The same with the first `layers` blocks run forward again in the backward pass, in place of keeping what it needs:
    /// less memory, more time, the same bits.
    #[must_use]
    pub fn with_recompute(mut self, layers: usize) -> Self {
        // Nothing else holds the blocks between two steps.
        if let Some(blocks) = Arc::get_mut(&mut self.blocks) {
            blocks.recompute = layers;
        }
        self
    }

    /// Whether there are magnitudes among the parameters.
    pub fn is_dora(&self) -> bool {
        self.places.iter().any(|place| place.magnitudes.is_some())
    }

    /// The frozen base.
    pub fn frozen(&self) -> &FrozenTransformer {
        &self.frozen
    }

    /// All trainable values, in a fixed order.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// All trainable values, to change in place.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        &mut self.parameters
    }

    fn tensor(&self, device: &Device) -> Tensor<1> {
        timed(Operation::Transfer, Cost::values(2 * self.parameters.len()), || {
            Tensor::from_data(TensorData::new(self.parameters.clone(), [self.parameters.len()]), device)
        })
    }

    /// Hidden states `[t, hidden]` behind the last norm.
    fn hidden(&self, parameters: Tensor<1>, tokens: &[u32], layout: &Layout, device: &Device) -> Tensor<2> {
        let width = self.frozen.config.hidden;
        let count = tokens.len() * width;
        let embedded = timed(Operation::Embedding, Cost::values(2 * count), || {
            let mut embedded = self.frozen.embedding.gather(tokens);
            scale(&mut embedded, self.frozen.config.scales.embedding);
            Tensor::<2>::from_data(TensorData::new(embedded, [tokens.len(), width]), device)
        });
        let stream = transformer_blocks(embedded, parameters, &self.blocks, layout);
        rms_norm(stream, &self.frozen.output_norm, self.frozen.config.rms_epsilon)
    }

    fn cross_entropy(&self, hidden: Tensor<2>, batch: &Batch) -> (Tensor<1>, Vec<RowLoss>) {
        linear_cross_entropy(hidden, &self.frozen.head, &batch.targets, &self.blocks.pool)
    }

    fn check(&self, tokens: &[u32], layout: &Layout) -> Result<(), NnError> {
        let vocabulary = self.frozen.config.vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(NnError::Batch(format!("token {token} lies outside the vocabulary of {vocabulary}")));
        }
        if tokens.is_empty()
            || layout.positions.len() != tokens.len()
            || layout.segments.iter().sum::<usize>() != tokens.len()
        {
            return Err(NnError::Batch(
                "tokens, positions and sequences differ in length, or there are none".to_owned(),
            ));
        }
        let positions = self.frozen.positions;
        if let Some(position) = layout.positions.iter().find(|&&position| position as usize >= positions) {
            return Err(NnError::Batch(format!(
                "position {position} lies beyond the {positions} positions that the model was loaded for"
            )));
        }
        Ok(())
    }

    /// Hidden states `[t, hidden]` of packed tokens behind the last norm, without gradient.
    pub fn forward(&self, tokens: &[u32], layout: &Layout) -> Result<Vec<f32>, NnError> {
        self.check(tokens, layout)?;
        self.blocks.pool.begin(tokens.len());
        let device = Device::flex();
        let hidden = self.hidden(self.tensor(&device), tokens, layout, &device);
        hidden.into_data().try_to_vec().map_err(|error| NnError::Batch(format!("{error:?}")))
    }

    /// `sum_t weight_t loss_t`, without gradient.
    pub fn loss(&self, batch: &Batch) -> Result<BatchLoss, NnError> {
        self.check(&batch.tokens, &batch.layout)?;
        self.blocks.pool.begin(batch.tokens.len());
        let device = Device::flex();
        let hidden = self.hidden(self.tensor(&device), &batch.tokens, &batch.layout, &device);
        let (loss, rows) = self.cross_entropy(hidden, batch);
        Ok(BatchLoss { loss: loss.into_scalar::<f32>().into(), rows })
    }

    /// The same, adding its gradient by the parameters to `gradient` (as long as [`LoraModel::parameters`]).
    pub fn loss_and_gradient(&self, batch: &Batch, gradient: &mut [f32]) -> Result<BatchLoss, NnError> {
        self.check(&batch.tokens, &batch.layout)?;
        if gradient.len() != self.parameters.len() {
            return Err(NnError::Batch(format!(
                "{} gradients for {} parameters",
                gradient.len(),
                self.parameters.len()
            )));
        }
        self.blocks.pool.begin(batch.tokens.len());
        let device = Device::flex().autodiff();
        let parameters = self.tensor(&device).require_grad();
        let hidden = self.hidden(parameters.clone(), &batch.tokens, &batch.layout, &device);
        let (loss, rows) = self.cross_entropy(hidden, batch);
        if let Some(found) = parameters.grad(&loss.backward()) {
            let found = found.into_data();
            let found = found.as_slice::<f32>().map_err(|error| NnError::Batch(format!("{error:?}")))?;
            timed(Operation::Transfer, Cost::values(3 * gradient.len()), || {
                for (sum, value) in gradient.iter_mut().zip(found) {
                    *sum += value;
                }
            });
        }
        Ok(BatchLoss { loss: loss.into_scalar::<f32>().into(), rows })
    }
}

/// A block with the updates of its modules, whose parameters and places go behind those that are there.
pub(super) fn block(
    config: &ModelConfig,
    layer: &FrozenLayer,
    members: &[ModulePlan],
    kind: [bool; 2],
    parameters: &mut Vec<f32>,
    places: &mut Vec<Place>,
) -> Block {
    let start = parameters.len();
    let mut group = 0;
    let projections = [&layer.qkv, &layer.output, &layer.gate_up, &layer.down].map(|product| {
        let members: Vec<ModulePlan> = members.iter().filter(|plan| plan.projection.group == group).copied().collect();
        group += 1;
        let adapted = (!members.is_empty()).then(|| adapt(config, product, &members, kind, start, parameters, places));
        BlockProjection { frozen: Arc::clone(product), adapted }
    });
    Block {
        attention_norm: Arc::clone(&layer.attention_norm),
        feed_forward_norm: Arc::clone(&layer.feed_forward_norm),
        norms_behind: layer.norms_behind.clone(),
        epsilon: config.rms_epsilon,
        activation: config.activation,
        residual_scale: config.scales.residual,
        projections,
        attention: Arc::clone(&layer.attention),
        parameters: start..parameters.len(),
    }
}

/// The updates of one group, with their parameters behind those that are there; `start` is the first of the block.
fn adapt(
    config: &ModelConfig,
    product: &Arc<FrozenLinear>,
    members: &[ModulePlan],
    [rslora, dora]: [bool; 2],
    start: usize,
    parameters: &mut Vec<f32>,
    places: &mut Vec<Place>,
) -> Adapted {
    let modules = members.iter().map(|plan| {
        let rank = plan.rank as f32;
        let scale = plan.alpha / if rslora { rank.sqrt() } else { rank };
        GroupModule { outputs: plan.projection.range(config), rank: plan.rank, scale }
    });
    let group = LoraGroup {
        frozen: Arc::clone(product),
        modules: modules.collect(),
        dora: dora.then(|| RowLengths::of(product)),
    };
    let first = parameters.len();
    let [a, b, _] = group.parameter_lengths();
    let (mut next_a, mut next_b, mut next_magnitude) = (first, first + a, first + a + b);
    parameters.resize(first + a + b, 0.0);
    let lengths: Vec<f32> = group.dora.iter().flat_map(RowLengths::lengths).collect();
    for plan in members {
        let (inputs, outputs) = plan.projection.size(config);
        let a = next_a..next_a + plan.rank * inputs;
        let b = next_b..next_b + plan.rank * outputs;
        (next_a, next_b) = (a.end, b.end);
        let magnitudes = dora.then(|| {
            parameters.extend_from_slice(&lengths[plan.projection.range(config)]);
            let own = next_magnitude..next_magnitude + outputs;
            next_magnitude = own.end;
            own
        });
        places.push(Place { plan: *plan, a, b, magnitudes });
    }
    Adapted { group: Arc::new(group), parameters: first - start..parameters.len() - start }
}
