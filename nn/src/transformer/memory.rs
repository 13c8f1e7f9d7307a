//! What a training step takes of memory besides the base.

use espalier_model::ModelConfig;

use super::divergence::pair_rows;
use crate::ops::linear_cross_entropy::chunk_rows;
use crate::ops::transformer_blocks::{BlockBytes, Blocks};

/// Rows of the two small batches from which the memory of any batch follows: it is linear in the rows.
const PROBES: [usize; 2] = [64, 128];
/// Parameters, both moments, the gradient of the step and of the batch, the copy on the tape, the copy in a checkpoint.
const COPIES_OF_PARAMETERS: usize = 8;
/// Hidden states outside of the blocks at one time: behind the last one and behind the norm, their gradient and its copy.
const HIDDEN_STATES: usize = 4;

/// The memory of a step as a function of its rows.
#[derive(Clone, Copy, Debug)]
pub struct StepMemory {
    probes: [BlockBytes; 2],
    layers: usize,
    hidden: usize,
    vocabulary: usize,
    widest: usize,
    parameters: usize,
}

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryParts {
    /// Parameters, gradients and moments.
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
    /// Runs one block over two small batches and looks at what it took.
    pub(super) fn measure(blocks: &Blocks, config: &ModelConfig, parameters: usize) -> Self {
        let none = BlockBytes { kept: 0, all: 0 };
        Self {
            probes: PROBES.map(|rows| blocks.measure(rows).unwrap_or(none)),
            layers: blocks.kept_layers(),
            hidden: config.hidden,
            vocabulary: config.vocabulary,
            widest: config.hidden.max(2 * config.feed_forward),
            parameters,
        }
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
        let logits = chunk_rows(self.vocabulary).min(rows) * (self.vocabulary + 2 * self.hidden);
        MemoryParts {
            adapter: 4 * COPIES_OF_PARAMETERS * self.parameters,
            activations: (self.layers - recomputed) * kept + recomputed * input,
            // A product may pack its whole widest operand.
            block: all - kept + again + 4 * rows * self.widest,
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
