//! What a training step takes of memory besides the base.

use espalier_kernels::Precision;
use espalier_model::{Model, ModelConfig};

use super::divergence::pair_rows;
use super::frozen::{BaseWeights, FrozenTransformer};
use super::lora::block;
use super::lora_options::ModulePlan;
use super::updates::Updates;
use crate::error::NnError;
use crate::ops::linear_cross_entropy::chunk_rows;
use crate::ops::self_attention::QUERIES;
use crate::ops::transformer_blocks::{Block, BlockBytes};

/// Rows of the two small batches from which the memory of any batch follows: it is linear in the rows.
const PROBES: [usize; 2] = [64, 128];
/// Parameters, both moments, the gradient of the step and of the batch, the copy on the tape, the copy in a checkpoint.
const COPIES_OF_PARAMETERS: usize = 8;
/// Hidden states outside of the blocks at one time: behind the last one and behind the norm, their gradient and its copy.
const HIDDEN_STATES: usize = 4;

/// Tables of the scores of a block of queries on a device: scores, probabilities, and the gradients of both.
const SCORE_TABLES: usize = 5;
/// Tables of a chunk of logits on a device: logits, their logarithms of probabilities, and the gradients of both.
const LOGIT_TABLES: usize = 6;

/// The memory of a step as a function of its rows.
#[derive(Clone, Copy, Debug)]
pub struct StepMemory {
    probes: [BlockBytes; 2],
    layers: usize,
    hidden: usize,
    vocabulary: usize,
    widest: usize,
    parameters: usize,
    /// Bytes of `DoRA` that do not depend on the rows.
    row_lengths: usize,
    /// Tables as large as a chunk of logits at one time.
    logits: usize,
}

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryParts {
    /// Parameters, gradients and moments; for `DoRA` the lengths of the frozen rows and what their norms are made of.
    pub adapter: usize,
    /// What all blocks keep for the backward pass.
    pub activations: usize,
    /// The block at work.
    pub block: usize,
    /// Hidden states outside of the blocks, and a chunk of logits.
    pub head: usize,
}

impl MemoryParts {
    /// All together.
    pub fn total(&self) -> usize {
        self.adapter + self.activations + self.block + self.head
    }
}

impl StepMemory {
    /// Of a model with the given updates, before its base is loaded: the layer with the most of them is, alone, and runs over
    /// two small batches.
    ///
    /// # Errors
    /// No updates at all, tensors that are missing, damaged or of another shape than the configuration says.
    pub fn of_updates(
        model: &Model,
        precision: Precision,
        base_weights: BaseWeights,
        plans: &[ModulePlan],
        dora: bool,
    ) -> Result<Self, NnError> {
        let config = model.config();
        let lowest = plans.iter().map(|plan| plan.layer).min().ok_or(NnError::NoTarget)?;
        let of_layer =
            |layer: usize| -> Vec<ModulePlan> { plans.iter().filter(|plan| plan.layer == layer).copied().collect() };
        let count = |plans: &[ModulePlan]| plans.iter().map(|plan| plan.parameters(config, dora)).sum::<usize>();
        let most = (lowest..config.layers).max_by_key(|&layer| count(&of_layer(layer))).unwrap_or(lowest);
        let layer = FrozenTransformer::layer(model, precision, base_weights, 1, most)?;
        let block = block(config, &layer, &of_layer(most), &mut Updates::new(false, dora));
        let layers = config.layers - lowest;
        let query_key_value = (config.heads + 2 * config.kv_heads) * config.head_dim;
        Ok(Self {
            probes: PROBES.map(|rows| block.measure(rows)),
            layers,
            hidden: config.hidden,
            vocabulary: config.vocabulary,
            widest: config.hidden.max(2 * config.feed_forward).max(query_key_value),
            parameters: count(plans),
            row_lengths: row_lengths(&block, layers),
            logits: 1,
        })
    }

    /// The same for a device of burn: an estimate from the shapes of what the tapes of a block hold.
    ///
    /// # Errors
    /// No updates at all.
    pub fn on_device(config: &ModelConfig, plans: &[ModulePlan], dora: bool) -> Result<Self, NnError> {
        let lowest = plans.iter().map(|plan| plan.layer).min().ok_or(NnError::NoTarget)?;
        let query_key_value = config.query_width() + 2 * config.key_value_width();
        let probe = |rows: usize| {
            // x twice, three norms, the two sums; q, k and v before and behind the rotation; what attention gives and its
            // cast; gate, its sigmoid, their product, up, the activation and its cast, and the row that gate and up lie in.
            let kept = 7 * config.hidden + 2 * query_key_value + 2 * config.query_width() + 8 * config.feed_forward;
            let kept = size_of::<f32>() * rows * kept;
            let scores = SCORE_TABLES * size_of::<f32>() * config.heads * QUERIES * rows;
            BlockBytes { kept, all: 2 * kept + scores }
        };
        // The lengths of the rows come from the whole weight of a module with its update.
        let merged =
            plans.iter().map(|plan| plan.projection.size(config)).map(|(inputs, outputs)| inputs * outputs).max();
        Ok(Self {
            probes: PROBES.map(probe),
            layers: config.layers - lowest,
            hidden: config.hidden,
            vocabulary: config.vocabulary,
            widest: config.hidden.max(2 * config.feed_forward).max(query_key_value),
            parameters: plans.iter().map(|plan| plan.parameters(config, dora)).sum(),
            row_lengths: if dora { 3 * size_of::<f32>() * merged.unwrap_or(0) } else { 0 },
            logits: LOGIT_TABLES,
        })
    }

    /// Number of blocks that the backward pass goes through.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Bytes that a block keeps for each row.
    pub fn kept_per_row(&self) -> usize {
        self.linear(1, |bytes| bytes.kept) - self.linear(0, |bytes| bytes.kept)
    }

    /// A step whose largest micro-batch has `rows` rows, with the first `recomputed` blocks run again.
    pub fn of(&self, rows: usize, recomputed: usize) -> MemoryParts {
        let (kept, all) = (self.linear(rows, |bytes| bytes.kept), self.linear(rows, |bytes| bytes.all));
        let recomputed = recomputed.min(self.layers);
        let input = 4 * rows * self.hidden;
        // At the backward pass of the last block everything is there; one that is run again needs what it keeps as well.
        let again = if recomputed > 0 { kept } else { 0 };
        let logits = self.logits * chunk_rows(self.vocabulary).min(rows) * (self.vocabulary + 2 * self.hidden);
        MemoryParts {
            adapter: 4 * COPIES_OF_PARAMETERS * self.parameters + self.row_lengths,
            activations: (self.layers - recomputed) * kept + recomputed * input,
            // A product that adds up in several chunks keeps its whole result in f32 before it is rounded to bf16; what DoRA
            // keeps in f32 beside it takes a buffer of another kind now and then.
            block: all - kept + again + 4 * rows * self.widest * if self.row_lengths > 0 { 2 } else { 1 },
            head: 4 * (HIDDEN_STATES * rows * self.hidden + logits),
        }
    }

    /// What a look at the divergence from the base takes beside a step of `rows` rows: the base's states at `positions`
    /// places, and what the logits of both models take above those of the step.
    pub fn divergence(&self, rows: usize, positions: usize) -> usize {
        let step = chunk_rows(self.vocabulary).min(rows);
        let both = 2 * pair_rows(self.vocabulary).min(rows);
        4 * (positions * self.hidden + both.saturating_sub(step) * self.vocabulary)
    }

    fn linear(&self, rows: usize, part: impl Fn(&BlockBytes) -> usize) -> usize {
        let [small, large] = self.probes.each_ref().map(part);
        let slope = large.saturating_sub(small) / (PROBES[1] - PROBES[0]);
        slope * rows + small.saturating_sub(slope * PROBES[0])
    }
}

/// What `DoRA` keeps of the rows of all layers, and the products that the norms of one group are made of at a time.
fn row_lengths(block: &Block, layers: usize) -> usize {
    let adapted = block.projections.iter().filter_map(|projection| projection.adapted.as_ref());
    let groups: Vec<_> = adapted.map(|adapted| &adapted.group).filter(|group| group.plan.dora).collect();
    let lengths: usize = groups.iter().map(|group| group.frozen.outputs()).sum();
    // `W A^T`, norms and factors.
    let at_work = groups.iter().map(|group| (group.plan.stacked_rank() + 2) * group.frozen.outputs()).max();
    size_of::<f32>() * (layers * lengths + at_work.unwrap_or(0))
}
