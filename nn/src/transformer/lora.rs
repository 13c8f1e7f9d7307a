//! A frozen model with low-rank updates: forward, loss and gradient.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use espalier_model::{LoraAdapter, LoraModule};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::batch::{Batch, BatchLoss};
use super::frozen::FrozenTransformer;
use super::targets::{PROJECTIONS, Projection, projections};
use crate::error::NnError;
use crate::ops::linear_cross_entropy::{RowLosses, linear_cross_entropy};
use crate::ops::lora_linear::LoraGroup;
use crate::ops::rms_norm::rms_norm;
use crate::ops::self_attention::Layout;
use crate::ops::transformer_blocks::{Adapted, Block, BlockProjection, Blocks, transformer_blocks};
use crate::pool::Pool;
use crate::profile::{Cost, Operation, timed};

/// The shape of the low-rank updates.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraOptions {
    /// Rank of every update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// Scale by `alpha / sqrt(rank)` in place of `alpha / rank`.
    pub rslora: bool,
    /// PEFT names of the projections; empty means all seven.
    pub targets: Vec<String>,
}

impl LoraOptions {
    fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

/// A frozen model with trainable low-rank updates.
///
/// The parameters are one flat vector; for each layer and each group of projections that share their input it holds the
/// stacked `A [modules rank, inputs]`, then the stacked `B [outputs of the modules, rank]`.
#[derive(Debug)]
pub struct LoraModel {
    frozen: Arc<FrozenTransformer>,
    options: LoraOptions,
    targets: Vec<Projection>,
    blocks: Arc<Blocks>,
    parameters: Vec<f32>,
}

impl LoraModel {
    /// Fresh updates: `A` uniform in `±1/sqrt(inputs)` (as PEFT), `B` zero, so that the model computes what the base does.
    pub fn new(frozen: Arc<FrozenTransformer>, options: LoraOptions, seed: u64) -> Result<Self, NnError> {
        let mut model = Self::zeros(frozen, options)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for block in &model.blocks.blocks {
            for adapted in block.projections.iter().filter_map(|projection| projection.adapted.as_ref()) {
                let bound = (adapted.group.frozen.inputs() as f32).sqrt().recip();
                for value in &mut model.parameters[block.parameters.clone()][adapted.a.clone()] {
                    *value = random.random_range(-bound..bound);
                }
            }
        }
        Ok(model)
    }

    fn zeros(frozen: Arc<FrozenTransformer>, options: LoraOptions) -> Result<Self, NnError> {
        let config = &frozen.config;
        let targets = projections(&options.targets)?;
        let narrowest = targets.iter().map(|target| target.size(config)).map(|(inputs, outputs)| inputs.min(outputs));
        let largest = narrowest.min().ok_or(NnError::NoTarget)?;
        if options.rank == 0 || options.rank > largest {
            return Err(NnError::Rank { rank: options.rank, largest });
        }
        let mut first = 0;
        let blocks = frozen.layers.iter().map(|layer| {
            let mut next = 0;
            let mut take = |count: usize| {
                next += count;
                next - count..next
            };
            let mut group = 0;
            let projections = [&layer.qkv, &layer.output, &layer.gate_up, &layer.down].map(|frozen| {
                let members = targets.iter().filter(|target| target.group == group);
                let ranges: Vec<_> = members.map(|target| target.range(config)).collect();
                group += 1;
                let frozen = Arc::clone(frozen);
                let adapted = (!ranges.is_empty()).then(|| {
                    let frozen = Arc::clone(&frozen);
                    let group = LoraGroup { frozen, ranges, rank: options.rank, scale: options.scale() };
                    let a = take(group.stacked_rank() * group.frozen.inputs());
                    let b = take(group.adapted_outputs() * options.rank);
                    Adapted { group: Arc::new(group), a, b }
                });
                BlockProjection { frozen, adapted }
            });
            first += next;
            Block {
                attention_norm: Arc::clone(&layer.attention_norm),
                feed_forward_norm: Arc::clone(&layer.feed_forward_norm),
                epsilon: config.rms_epsilon,
                projections,
                attention: Arc::clone(&frozen.attention),
                parameters: first - next..first,
            }
        });
        let blocks = Arc::new(Blocks { blocks: blocks.collect(), pool: Pool::default() });
        Ok(Self { parameters: vec![0.0; first], frozen, options, targets, blocks })
    }

    /// A model that goes on from `adapter`, which must have the same modules in every layer.
    pub fn from_adapter(frozen: Arc<FrozenTransformer>, adapter: &LoraAdapter) -> Result<Self, NnError> {
        let has = |target: &Projection| adapter.modules.contains_key(&format!("blk.0.{}", target.gguf));
        let targets: Vec<_> = PROJECTIONS.iter().filter(|target| has(target)).map(|t| t.name.to_owned()).collect();
        if targets.is_empty() {
            return Err(NnError::NoTarget);
        }
        let (rank, alpha) = adapter.usual_rank_and_alpha();
        if adapter.is_dora() || adapter.modules.values().any(|module| (module.rank, module.alpha) != (rank, alpha)) {
            return Err(NnError::Adapter("its modules are not all LoRA of one rank and alpha".to_owned()));
        }
        let options = LoraOptions { rank, alpha, rslora: adapter.rslora, targets };
        let mut model = Self::zeros(frozen, options)?;
        let expected = model.targets.len() * model.blocks.blocks.len();
        if adapter.modules.len() != expected {
            let found = adapter.modules.len();
            return Err(NnError::Adapter(format!("{found} modules where {expected} would adapt every layer alike")));
        }
        let config = model.frozen.config.clone();
        let mut parameters = std::mem::take(&mut model.parameters);
        for place in model.places() {
            let name = format!("blk.{}.{}", place.layer, place.target.gguf);
            let pair = adapter.modules.get(&name).ok_or_else(|| NnError::Adapter(format!("{name} is missing")))?;
            if (pair.inputs, pair.outputs) != place.target.size(&config)
                || pair.a.len() != place.a.len()
                || pair.b.len() != place.b.len()
            {
                return Err(NnError::Adapter(format!("{name} has another shape or rank than the model asks for")));
            }
            parameters[place.a].copy_from_slice(&pair.a);
            parameters[place.b].copy_from_slice(&pair.b);
        }
        model.parameters = parameters;
        Ok(model)
    }

    /// The updates as an adapter, rows of `B` in GGUF order.
    pub fn to_adapter(&self, base_model: &str) -> LoraAdapter {
        let modules = self.places().into_iter().map(|place| {
            let (inputs, outputs) = place.target.size(&self.frozen.config);
            let (a, b) = (self.parameters[place.a].to_vec(), self.parameters[place.b].to_vec());
            let (rank, alpha) = (self.options.rank, self.options.alpha);
            let module = LoraModule { a, b, inputs, outputs, rank, alpha, magnitude: None };
            (format!("blk.{}.{}", place.layer, place.target.gguf), module)
        });
        LoraAdapter {
            rslora: self.options.rslora,
            base_model: base_model.to_owned(),
            base_sha256: None,
            modules: modules.collect::<BTreeMap<_, _>>(),
        }
    }

    /// Where each module's `A` and `B` lie among the parameters.
    fn places(&self) -> Vec<Place> {
        let config = &self.frozen.config;
        let mut places = Vec::new();
        for (layer, block) in self.blocks.blocks.iter().enumerate() {
            for (index, projection) in block.projections.iter().enumerate() {
                let Some(adapted) = &projection.adapted else {
                    continue;
                };
                let (mut a, mut b) =
                    (block.parameters.start + adapted.a.start, block.parameters.start + adapted.b.start);
                for target in self.targets.iter().filter(|target| target.group == index) {
                    let (inputs, outputs) = target.size(config);
                    let (a_end, b_end) = (a + self.options.rank * inputs, b + self.options.rank * outputs);
                    places.push(Place { layer, target: *target, a: a..a_end, b: b..b_end });
                    (a, b) = (a_end, b_end);
                }
            }
        }
        places
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
        let row = |&token: &u32| &self.frozen.embedding[token as usize * width..(token as usize + 1) * width];
        let count = tokens.len() * width;
        let embedded = timed(Operation::Embedding, Cost::values(2 * count), || {
            let embedded: Vec<f32> = tokens.iter().flat_map(row).copied().collect();
            Tensor::<2>::from_data(TensorData::new(embedded, [tokens.len(), width]), device)
        });
        let stream = transformer_blocks(embedded, parameters, &self.blocks, layout);
        timed(Operation::Norms, Cost::values(2 * count), || {
            rms_norm(stream, &self.frozen.output_norm, self.frozen.config.rms_epsilon)
        })
    }

    fn cross_entropy(&self, hidden: Tensor<2>, batch: &Batch) -> (Tensor<1>, RowLosses) {
        let scored = batch.targets.weights.iter().filter(|&&weight| weight != 0.0).count();
        timed(Operation::CrossEntropy, Cost::values(3 * scored * self.frozen.config.vocabulary), || {
            linear_cross_entropy(hidden, &self.frozen.head, &batch.targets, &self.blocks.pool)
        })
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
        let positions = self.frozen.attention.rope.positions();
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
        let device = Device::flex();
        let hidden = self.hidden(self.tensor(&device), tokens, layout, &device);
        hidden.into_data().try_to_vec().map_err(|error| NnError::Batch(format!("{error:?}")))
    }

    /// `sum_t weight_t loss_t`, without gradient.
    pub fn loss(&self, batch: &Batch) -> Result<BatchLoss, NnError> {
        self.check(&batch.tokens, &batch.layout)?;
        let device = Device::flex();
        let hidden = self.hidden(self.tensor(&device), &batch.tokens, &batch.layout, &device);
        let (loss, rows) = self.cross_entropy(hidden, batch);
        Ok(BatchLoss::new(loss.into_scalar(), rows))
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
        Ok(BatchLoss::new(loss.into_scalar(), rows))
    }
}

/// The place of one module's update.
struct Place {
    layer: usize,
    target: Projection,
    a: Range<usize>,
    b: Range<usize>,
}
