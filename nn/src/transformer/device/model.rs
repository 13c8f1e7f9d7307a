//! A frozen model on a device with low-rank updates: forward, loss and gradient.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};
use espalier_kernels::ops::RowLoss;
use espalier_model::LoraAdapter;

use super::super::batch::{Batch, BatchLoss, check_rows};
use super::super::divergence::{chosen, pair_rows};
use super::super::lora::{check_gradient, of_group};
use super::super::lora_options::{LoraOptions, ModulePlan};
use super::super::updates::Updates;
use super::DeviceTransformer;
use super::block::{BlockPass, GroupParameters, Products, Rows, Tape};
use crate::error::NnError;
use crate::ops::frozen_linear::frozen_linear_plain;
use crate::ops::linear_cross_entropy::{Targets, chunk_rows, linear_cross_entropy_plain};
use crate::ops::lora_linear::GroupPlan;
use crate::ops::rms_norm::rms_norm_plain;
use crate::ops::self_attention::{Layout, scale};

/// Rows that go through the head together are a multiple of so many, as long as a chunk has them.
const HEAD_ROWS: usize = 64;

/// A frozen model on a device with trainable low-rank updates, whose values stay on the host.
#[derive(Debug)]
pub struct DeviceModel {
    base: Arc<DeviceTransformer>,
    updates: Updates,
    layers: Vec<LayerUpdates>,
    recompute: usize,
}

/// The shapes of the updates of a layer's groups, and the places of their parameters.
#[derive(Debug, Default)]
struct LayerUpdates {
    groups: [Option<GroupPlan>; 4],
    places: [Option<Range<usize>>; 4],
}

/// What the backward pass gets of a block.
enum Kept {
    Tape(Box<Tape>),
    Input(Box<Tensor<2>>),
}

/// A batch on its way through the model.
pub(super) struct Pass<'a> {
    model: &'a DeviceModel,
    parameters: Vec<GroupParameters>,
    rows: Rows,
    products: Products,
}

impl DeviceModel {
    /// Fresh updates, the very values that [`LoraModel::new`](super::super::LoraModel::new) draws; the magnitudes of `DoRA`
    /// are the lengths of the rows on the device.
    pub fn new(base: Arc<DeviceTransformer>, options: &LoraOptions, seed: u64) -> Result<Self, NnError> {
        let plans = options.modules(&base.config)?;
        let mut model = Self::of_plans(base, &plans, Updates::new(options.rslora, options.dora))?;
        model.updates.draw(&model.base.config, seed);
        Ok(model)
    }

    /// A model that goes on from `adapter`, with its modules, ranks and scales.
    ///
    /// # Errors
    ///
    /// A module that the model does not have in this shape, a rank above its width.
    pub fn from_adapter(base: Arc<DeviceTransformer>, adapter: &LoraAdapter) -> Result<Self, NnError> {
        let plans = ModulePlan::of_adapter(&base.config, adapter)?;
        let mut model = Self::of_plans(base, &plans, Updates::new(adapter.rslora, adapter.is_dora()))?;
        model.updates.take_from(adapter);
        Ok(model)
    }

    fn of_plans(base: Arc<DeviceTransformer>, plans: &[ModulePlan], mut updates: Updates) -> Result<Self, NnError> {
        let mut layers = Vec::with_capacity(base.layers.len());
        for (number, layer) in base.layers.iter().enumerate() {
            let members: Vec<ModulePlan> = plans.iter().filter(|plan| plan.layer == number).copied().collect();
            let mut own = LayerUpdates::default();
            for (group, product) in layer.products.iter().enumerate() {
                let members = of_group(&members, group);
                let Some(plan) = updates.group(&base.config, &members) else { continue };
                let lengths = if plan.dora { row_lengths(&product.weight)? } else { Vec::new() };
                own.places[group] = Some(updates.push(&members, &plan, &lengths));
                own.groups[group] = Some(plan);
            }
            layers.push(own);
        }
        Ok(Self { base, updates, layers, recompute: 0 })
    }

    /// The updates as an adapter, rows of `B` in GGUF order.
    pub fn to_adapter(&self, base_model: &str) -> LoraAdapter {
        self.updates.to_adapter(&self.base.config, base_model)
    }

    /// The same with the first `layers` of the blocks that the backward pass goes through run forward again in it, in place
    /// of keeping what it needs: less memory, more time, the same bits.
    #[must_use]
    pub fn with_recompute(mut self, layers: usize) -> Self {
        self.recompute = layers;
        self
    }

    /// The frozen base.
    pub fn base(&self) -> &DeviceTransformer {
        &self.base
    }

    /// The trainable values.
    pub fn updates(&self) -> &Updates {
        &self.updates
    }

    /// The trainable values, to change.
    pub fn updates_mut(&mut self) -> &mut Updates {
        &mut self.updates
    }

    /// The same model with its updates switched off: the base, whose weights it shares.
    #[must_use]
    pub fn without_updates(&self) -> Self {
        let layers = self.layers.iter().map(|_| LayerUpdates::default()).collect();
        Self { base: Arc::clone(&self.base), updates: Updates::new(false, false), layers, recompute: 0 }
    }

    /// The first layer with updates: nothing below it is kept, nor gone back through.
    fn first_adapted(&self) -> usize {
        self.layers.iter().take_while(|layer| layer.groups.iter().all(Option::is_none)).count()
    }

    /// `sum_t weight_t loss_t`, without gradient.
    pub fn loss(&self, batch: &Batch) -> Result<BatchLoss, NnError> {
        let pass = self.pass(&batch.tokens, &batch.layout)?;
        let stream = pass.forward(&batch.tokens);
        Ok(self.head_loss(stream, &batch.targets, false)?.0)
    }

    /// The same, adding its gradient by the parameters to `gradient` (as long as they are).
    pub fn loss_and_gradient(&self, batch: &Batch, gradient: &mut [f32]) -> Result<BatchLoss, NnError> {
        check_gradient(gradient, &self.updates)?;
        let pass = self.pass(&batch.tokens, &batch.layout)?;
        let first = self.first_adapted();
        let mut stream = pass.embed(&batch.tokens);
        let mut kept = Vec::with_capacity(self.layers.len() - first);
        for layer in 0..self.layers.len() {
            let block = pass.block(layer);
            let parameters = &pass.parameters[layer];
            if (first..first + self.recompute).contains(&layer) {
                kept.push(Kept::Input(Box::new(stream.clone())));
                stream = block.forward(stream, parameters);
            } else if layer >= first {
                let (y, tape) = block.tape(stream, parameters, layer > first);
                kept.push(Kept::Tape(Box::new(tape)));
                stream = y;
            } else {
                stream = block.forward(stream, parameters);
            }
        }
        let (loss, mut dy) = self.head_loss(stream, &batch.targets, true)?;
        let mut found = Vec::with_capacity(kept.len());
        for layer in (first..self.layers.len()).rev() {
            let (Some(kept), Some(gradient)) = (kept.pop(), dy.take()) else { break };
            let block = pass.block(layer);
            let tape = match kept {
                Kept::Tape(tape) => *tape,
                Kept::Input(x) => block.tape(*x, &pass.parameters[layer], layer > first).1,
            };
            let (dx, gradients) = block.backward(tape, gradient);
            found.push(gradients);
            dy = dx;
        }
        found.reverse();
        self.add(&found, first, gradient)?;
        Ok(loss)
    }

    /// Adds the gradients of the layers from `first` on; one transfer brings all of them.
    fn add(&self, found: &[GroupParameters], first: usize, gradient: &mut [f32]) -> Result<(), NnError> {
        let mut parts = Vec::new();
        for (layer, found) in self.layers[first..].iter().zip(found) {
            for (place, found) in layer.places.iter().zip(found) {
                if let (Some(place), Some(found)) = (place, found) {
                    parts.push((place.clone(), found.clone()));
                }
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        let values = download(Tensor::cat(parts.iter().map(|(_, found)| found.clone()).collect(), 1))?;
        let mut values = values.as_slice();
        for (place, _) in parts {
            let (own, rest) = values.split_at(place.len());
            for (sum, value) in gradient[place].iter_mut().zip(own) {
                *sum += value;
            }
            values = rest;
        }
        Ok(())
    }

    pub(super) fn pass(&self, tokens: &[u32], layout: &Layout) -> Result<Pass<'_>, NnError> {
        check_rows(tokens, layout, self.base.config.vocabulary, self.base.positions)?;
        let missing = tokens.len().next_multiple_of(self.base.row_multiple) - tokens.len();
        let segments = layout.segments.iter().copied().chain(std::iter::repeat_n(1, missing)).collect();
        let rows = Rows::of(&self.base, &Layout::of_segments(segments));
        Ok(Pass { model: self, parameters: self.upload(), rows, products: Products::Rounded })
    }

    /// The parameters on the device, of each group by itself; one transfer takes all of them.
    fn upload(&self) -> Vec<GroupParameters> {
        let values = self.updates.parameters();
        if values.is_empty() {
            return self.layers.iter().map(|_| GroupParameters::default()).collect();
        }
        let all = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, values.len()]), &self.base.device);
        let group = |place: &Option<Range<usize>>| place.clone().map(|place| all.clone().slice([0..1, place]));
        self.layers.iter().map(|layer| layer.places.each_ref().map(group)).collect()
    }

    /// The loss over those rows of `stream` that have a weight, and the gradient of all of them when it is asked for.
    fn head_loss(
        &self,
        stream: Tensor<2>,
        targets: &Targets,
        gradient: bool,
    ) -> Result<(BatchLoss, Option<Tensor<2>>), NnError> {
        let base = &self.base;
        let rows: Vec<usize> = (0..targets.weights.len()).filter(|&row| targets.weights[row] != 0.0).collect();
        let chunk = chunk_rows(base.config.vocabulary);
        let (mut costs, mut parts) = (Vec::new(), Vec::new());
        for own in rows.chunks(chunk) {
            let filled = own.len().next_multiple_of(HEAD_ROWS.min(chunk)).min(chunk);
            let filled: Vec<usize> =
                own.iter().copied().chain(std::iter::repeat_n(own[0], filled - own.len())).collect();
            let weights = filled.iter().enumerate();
            let weights = weights.map(|(index, &row)| if index < own.len() { targets.weights[row] } else { 0.0 });
            let picked = Targets {
                tokens: Arc::new(filled.iter().map(|&row| targets.tokens[row]).collect()),
                weights: Arc::new(weights.collect()),
                teacher: targets.teacher.as_ref().map(|(all, share)| (Arc::new(all.select(&filled)), *share)),
            };
            let x = stream.clone().select(0, self.indices(&filled));
            let x = if gradient { x.autodiff().require_grad() } else { x };
            let (loss, costs_of_rows) = linear_cross_entropy_plain(self.normed(x.clone()), &base.head, &picked);
            if gradient && let Some(dx) = x.grad(&loss.backward()) {
                parts.push(dx.slice([0..own.len(), 0..base.config.hidden]));
            }
            let divergence = costs_of_rows.divergence.unwrap_or_else(|| costs_of_rows.nll.zeros_like());
            let columns = [costs_of_rows.nll, divergence, costs_of_rows.likeliest].map(Tensor::without_autodiff);
            costs.push(Tensor::cat(columns.to_vec(), 1).slice([0..own.len(), 0..3]));
        }
        let mut dx = gradient.then(|| stream.zeros_like());
        if !parts.is_empty() {
            let (indices, all) = (self.indices(&rows), Tensor::cat(parts, 0));
            dx = dx.map(|dx| dx.select_assign(0, indices, all, IndexingUpdateOp::Add));
        }
        let costs = if costs.is_empty() { Vec::new() } else { download(Tensor::cat(costs, 0))? };
        Ok((batch_loss(&rows, &costs, targets), dx))
    }

    pub(super) fn indices(&self, rows: &[usize]) -> Tensor<1, Int> {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let count = rows.len();
        Tensor::from_data(TensorData::new(rows, [count]), &self.base.device)
    }

    pub(super) fn normed(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm_plain(x, &self.base.output_norm, self.base.config.rms_epsilon)
    }

    /// Hidden states `[chosen, hidden]` before the head of those rows of `batch` that have a weight.
    pub fn chosen_states(&self, batch: &Batch) -> Result<Vec<f32>, NnError> {
        let rows: Vec<usize> = chosen(batch).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let stream = self.pass(&batch.tokens, &batch.layout)?.forward(&batch.tokens);
        download(self.normed(stream.select(0, self.indices(&rows))))
    }

    /// `KL(p || q)` in nats of each row of `batch` that has a weight, as
    /// [`LoraModel::divergence_from`](super::super::LoraModel::divergence_from) gives it; in f32.
    ///
    /// # Errors
    ///
    /// Another number of states than the batch has chosen rows.
    pub fn divergence_from(&self, reference: &[f32], batch: &Batch) -> Result<Vec<f64>, NnError> {
        let (config, device) = (&self.base.config, &self.base.device);
        let states = self.chosen_states(batch)?;
        if states.len() != reference.len() {
            let (own, other) = (states.len(), reference.len());
            return Err(NnError::Batch(format!("{own} values of chosen rows beside {other} of the reference")));
        }
        let chunk = pair_rows(config.vocabulary) * config.hidden;
        let mut divergences = Vec::with_capacity(states.len() / config.hidden);
        for (reference, states) in reference.chunks(chunk).zip(states.chunks(chunk)) {
            let log_probabilities = |states: &[f32]| {
                let shape = [states.len() / config.hidden, config.hidden];
                let states = Tensor::from_data(TensorData::new(states.to_vec(), shape), device);
                log_softmax(frozen_linear_plain(states, &self.base.head, None), 1)
            };
            let (p, q) = (log_probabilities(reference), log_probabilities(states));
            let rows = download((p.clone().exp() * (p - q)).sum_dim(1))?;
            divergences.extend(rows.into_iter().map(f64::from));
        }
        Ok(divergences)
    }
}

impl Pass<'_> {
    fn block(&self, layer: usize) -> BlockPass<'_> {
        let DeviceModel { base, layers, .. } = self.model;
        let (layer, groups) = (&base.layers[layer], &layers[layer].groups);
        BlockPass { base, layer, groups, rows: &self.rows, products: self.products }
    }

    /// The same with products in f32.
    pub(super) fn wide(self) -> Self {
        Self { products: Products::Wide, ..self }
    }

    /// Token vectors, with rows of zeros behind them that fill the batch up.
    fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        let base = &self.model.base;
        let (width, rows) = (base.config.hidden, tokens.len().next_multiple_of(base.row_multiple));
        let mut vectors = base.embedding.gather(tokens);
        scale(&mut vectors, base.config.scales.embedding);
        vectors.resize(rows * width, 0.0);
        Tensor::from_data(TensorData::new(vectors, [rows, width]), &base.device)
    }

    /// The stream behind the last block, with nothing kept.
    pub(super) fn forward(&self, tokens: &[u32]) -> Tensor<2> {
        let layers = self.parameters.iter().enumerate();
        layers.fold(self.embed(tokens), |stream, (layer, parameters)| self.block(layer).forward(stream, parameters))
    }
}

/// The loss in row order in double precision, and what each row cost, from `[rows, 3]`.
fn batch_loss(rows: &[usize], costs: &[f32], targets: &Targets) -> BatchLoss {
    let mut found = vec![RowLoss::default(); targets.weights.len()];
    let mut loss = 0.0;
    for (&row, costs) in rows.iter().zip(costs.chunks_exact(3)) {
        let share = match &targets.teacher {
            Some((teacher, share)) if !teacher.row(row).0.is_empty() => f64::from(*share),
            _ => 0.0,
        };
        found[row] = RowLoss { nll: costs[0], divergence: costs[1], is_likeliest: costs[2] != 0.0 };
        let mixed = (1.0 - share) * f64::from(costs[0]) + share * f64::from(costs[1]);
        loss += f64::from(targets.weights[row]) * mixed;
    }
    BatchLoss { loss, rows: found }
}

/// `|W_o|` of each row, by the very sums that [`lora_linear_plain`](crate::ops::lora_linear::lora_linear_plain) divides by.
fn row_lengths(weight: &Tensor<2>) -> Result<Vec<f32>, NnError> {
    let weight = weight.clone().cast(DType::F32);
    download((weight.clone() * weight).sum_dim(1).sqrt())
}

pub(super) fn download<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, NnError> {
    let data = tensor.try_into_data().map_err(|error| NnError::OnDevice(format!("{error:?}")))?;
    data.try_to_vec().map_err(|error| NnError::OnDevice(format!("{error:?}")))
}
