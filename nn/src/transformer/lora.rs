//! A frozen model with low-rank updates: forward, loss and gradient.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use espalier_kernels::ops::RowLoss;
use espalier_model::ModelConfig;

use super::batch::{Batch, BatchLoss, check_rows};
use super::frozen::{FrozenLayer, FrozenTransformer};
use super::lora_options::{LoraOptions, ModulePlan};
use super::updates::Updates;
use crate::error::NnError;
use crate::ops::dora::RowLengths;
use crate::ops::linear_cross_entropy::linear_cross_entropy;
use crate::ops::lora_linear::LoraGroup;
use crate::ops::rms_norm::rms_norm;
use crate::ops::self_attention::{Layout, scale};
use crate::ops::transformer_blocks::{Adapted, Block, BlockProjection, Blocks, transformer_blocks};
use crate::pool::Pool;
use crate::profile::{Cost, Operation, timed};

/// A frozen model with trainable low-rank updates, on the kernels of the CPU.
#[derive(Debug)]
pub struct LoraModel {
    pub(super) frozen: Arc<FrozenTransformer>,
    pub(super) updates: Updates,
    pub(super) blocks: Arc<Blocks>,
}

impl LoraModel {
    /// Fresh updates: `A` uniform in `±1/sqrt(inputs)` (as PEFT), `B` zero, magnitudes the lengths of the frozen rows, so
    /// that the model computes what the base does.
    pub fn new(frozen: Arc<FrozenTransformer>, options: &LoraOptions, seed: u64) -> Result<Self, NnError> {
        let plans = options.modules(&frozen.config)?;
        let mut model = Self::of_plans(frozen, plans, options.rslora, options.dora);
        model.updates.draw(&model.frozen.config, seed);
        Ok(model)
    }

    /// Updates of zero for modules in the order of layers and [`PROJECTIONS`](super::PROJECTIONS), with the lengths of the
    /// frozen rows for `DoRA`.
    pub(super) fn of_plans(frozen: Arc<FrozenTransformer>, plans: Vec<ModulePlan>, rslora: bool, dora: bool) -> Self {
        let mut updates = Updates::new(rslora, dora);
        let layers = frozen.layers.iter().enumerate();
        let blocks = layers.map(|(number, layer)| {
            let members: Vec<ModulePlan> = plans.iter().filter(|plan| plan.layer == number).copied().collect();
            block(&frozen.config, layer, &members, &mut updates)
        });
        let blocks = Arc::new(Blocks { blocks: blocks.collect(), pool: Pool::default(), recompute: 0 });
        Self { frozen, updates, blocks }
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
        self.updates.is_dora()
    }

    /// The frozen base.
    pub fn frozen(&self) -> &FrozenTransformer {
        &self.frozen
    }

    /// All trainable values, in a fixed order.
    pub fn parameters(&self) -> &[f32] {
        self.updates.parameters()
    }

    /// All trainable values, to change in place.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        self.updates.parameters_mut()
    }

    fn tensor(&self, device: &Device) -> Tensor<1> {
        let parameters = self.updates.parameters();
        timed(Operation::Transfer, Cost::values(2 * parameters.len()), || {
            Tensor::from_data(TensorData::new(parameters.to_vec(), [parameters.len()]), device)
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
        check_rows(tokens, layout, self.frozen.config.vocabulary, self.frozen.positions)
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
        check_gradient(gradient, &self.updates)?;
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

/// A gradient as long as the parameters.
pub(super) fn check_gradient(gradient: &[f32], updates: &Updates) -> Result<(), NnError> {
    let (found, wanted) = (gradient.len(), updates.parameters().len());
    if found == wanted { Ok(()) } else { Err(NnError::Batch(format!("{found} gradients for {wanted} parameters"))) }
}

/// Members of a group.
pub(super) fn of_group(members: &[ModulePlan], group: usize) -> Vec<ModulePlan> {
    members.iter().filter(|plan| plan.projection.group == group).copied().collect()
}

/// A block with the updates of its modules, whose parameters go behind those that are there.
pub(super) fn block(config: &ModelConfig, layer: &FrozenLayer, members: &[ModulePlan], updates: &mut Updates) -> Block {
    let start = updates.parameters().len();
    let mut group = 0;
    let projections = [&layer.qkv, &layer.output, &layer.gate_up, &layer.down].map(|product| {
        let members = of_group(members, group);
        group += 1;
        let adapted = updates.group(config, &members).map(|plan| {
            let group = LoraGroup::new(Arc::clone(product), plan);
            let lengths: Vec<f32> = group.lengths.iter().flat_map(RowLengths::lengths).collect();
            let place = updates.push(&members, &group.plan, &lengths);
            Adapted { group: Arc::new(group), parameters: place.start - start..place.end - start }
        });
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
        parameters: start..updates.parameters().len(),
    }
}
