//! One pass over the weights for a batch of rows from many sequences.

use std::ops::Range;

use espalier_kernels::ops::{
    Direction, FusedRows, PageSlot, PagedAttention, PagedQueries, gated_activation, rms_norm, rope,
};
use espalier_kernels::{Accumulate, Element, Precision, Values, ValuesMut, bf16, parallel};
use espalier_model::ModelConfig;

use crate::cache::{Cache, LayerGroup, PageSpan, PageTable};
use crate::inputs::LinearInput;
use crate::matrix::ProductMemory;
use crate::weights::{Layer, Projection, Weights, scale};

/// Logits of at most this many rows exist at once: 64 rows of 49,152 are 12 MB.
pub(crate) const HEAD_ROWS: usize = 64;

/// Rows that one task of a row-wise stage takes.
const ROWS_PER_TASK: usize = 4;

/// Consecutive positions of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Position of the first token.
    start: usize,
    /// Rows of the batch.
    rows: Range<usize>,
    /// The sequence's pages in each group of layers.
    spans: Vec<PageSpan>,
}

/// The rows of one step.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Neighbours with a common beginning stand side by side. A sequence may have several: each has the pages of its own.
    segments: Vec<Segment>,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    /// For each group of layers, where the keys and values of the rows go.
    slots: Vec<Vec<PageSlot>>,
    /// The adapter of each row.
    adapters: Vec<Option<usize>>,
    /// Rows whose logits are asked for, rising.
    wanted: Vec<usize>,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.tokens.clear();
        self.positions.clear();
        self.slots.iter_mut().for_each(Vec::clear);
        self.adapters.clear();
        self.wanted.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds rows of one sequence, tokens and whether their logits are wanted, from position `start` on, as `adapter` changes
    /// them. What the sequence held from there on is forgotten; it will step back to `lowest` at most.
    pub(crate) fn push(
        &mut self,
        cache: &mut Cache,
        table: &mut PageTable,
        adapter: Option<usize>,
        start: usize,
        lowest: usize,
        tokens: impl ExactSizeIterator<Item = (u32, bool)>,
    ) {
        self.slots.resize(cache.groups.len(), Vec::new());
        let first = self.tokens.len();
        cache.prepare(table, start, tokens.len(), lowest, &mut self.slots);
        for (offset, (token, wanted)) in tokens.enumerate() {
            if wanted {
                self.wanted.push(first + offset);
            }
            self.tokens.push(token);
            self.positions.push((start + offset) as u32);
        }
        self.adapters.resize(self.tokens.len(), adapter);
        let spans = (0..cache.groups.len()).map(|group| table.span(group).clone()).collect();
        self.segments.push(Segment { start, rows: first..self.tokens.len(), spans });
    }
}

/// The buffers of a pass, kept from step to step.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The residual stream.
    hidden: Vec<f32>,
    qkv: Vec<f32>,
    /// What the products read and write between two sums, f32 or bf16 as they compute.
    normed: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    /// What a projection adds to the stream, where a norm stands behind it, and that norm.
    added: Vec<f32>,
    added_normed: Vec<f32>,
    products: ProductMemory,
    logits: Vec<f32>,
}

impl Workspace {
    /// The memory that a pass over so many rows takes at most, with everything as f32.
    pub(crate) fn bytes(config: &ModelConfig, rows: usize) -> usize {
        let heads = (2 * config.heads + 2 * config.kv_heads) * config.head_dim;
        // What products read, rounded to 8 bits: less than two bytes a value with its factors.
        let rounded = config.hidden.max(config.feed_forward) / 2;
        let row = 4 * config.hidden + heads + 3 * config.feed_forward + rounded;
        (rows * row + HEAD_ROWS.min(rows) * config.vocabulary) * size_of::<f32>()
    }
}

/// The first `length` values of a buffer that grows when it must; what they hold is left from before.
fn take<T: Element>(buffer: &mut Vec<f32>, length: usize) -> &mut [T] {
    let words = T::words(length);
    if buffer.len() < words {
        buffer.resize(words, 0.0);
    }
    T::view_mut(buffer, length)
}

/// Runs a batch: writes keys and values to the cache and shows the logits of the wanted rows, in chunks of [`HEAD_ROWS`]:
/// `visit(first, logits)` gets the index of the chunk's first row among the wanted ones and rows of `vocabulary` values, which
/// it may overwrite.
pub(crate) fn forward(
    weights: &Weights,
    batch: &Batch,
    cache: &mut Cache,
    workspace: &mut Workspace,
    visit: &mut dyn FnMut(usize, &mut [f32]),
) {
    run(weights, batch, cache, workspace, Outputs::Logits(visit));
}

/// As [`forward`], but shows what the head would read: the stream behind the last norm, rows of `hidden` values.
pub(crate) fn hidden_states(
    weights: &Weights,
    batch: &Batch,
    cache: &mut Cache,
    workspace: &mut Workspace,
    visit: &mut dyn FnMut(usize, &mut [f32]),
) {
    run(weights, batch, cache, workspace, Outputs::HiddenStates(visit));
}

/// As [`forward`], but shows what every matrix reads, of all rows where all are wanted, and computes no logits.
pub(crate) fn inputs(
    weights: &Weights,
    batch: &Batch,
    cache: &mut Cache,
    workspace: &mut Workspace,
    visit: &mut dyn FnMut(LinearInput, Values<'_>),
) {
    run(weights, batch, cache, workspace, Outputs::Inputs(visit));
}

/// What is shown of a pass.
enum Outputs<'a> {
    /// Logits of the wanted rows.
    Logits(&'a mut dyn FnMut(usize, &mut [f32])),
    /// What the head would read, of the wanted rows.
    HiddenStates(&'a mut dyn FnMut(usize, &mut [f32])),
    /// What each matrix reads.
    Inputs(&'a mut dyn FnMut(LinearInput, Values<'_>)),
}

impl Outputs<'_> {
    fn input(&mut self, input: LinearInput, values: Values<'_>) {
        if let Self::Inputs(visit) = self {
            visit(input, values);
        }
    }
}

fn run(weights: &Weights, batch: &Batch, cache: &mut Cache, workspace: &mut Workspace, mut outputs: Outputs<'_>) {
    if batch.is_empty() {
        return;
    }
    parallel::awake(|| match weights.activations {
        Precision::F32 => run_in::<f32>(weights, batch, cache, workspace, &mut outputs),
        // The products would round these values anyway.
        Precision::Bf16 => run_in::<bf16>(weights, batch, cache, workspace, &mut outputs),
    });
    cache.settle();
}

/// [`run`] with activations of one kind.
fn run_in<T: Element>(
    weights: &Weights,
    batch: &Batch,
    cache: &mut Cache,
    workspace: &mut Workspace,
    outputs: &mut Outputs<'_>,
) {
    let config = &weights.config;
    let width = config.hidden;
    let mut rows = batch.len();
    let Workspace { hidden, qkv, normed, attended, gate_up, activated, added, added_normed, products, logits } =
        workspace;
    products.adapted.set(batch.adapters.iter().copied());
    let hidden: &mut [f32] = take(hidden, rows * width);
    parallel::for_each_chunk(hidden, ROWS_PER_TASK * width, |task, rows| {
        for (row, &token) in rows.chunks_exact_mut(width).zip(&batch.tokens[task * ROWS_PER_TASK..]) {
            weights.embed(token, row);
        }
    });

    let fused = (config.heads + 2 * config.kv_heads) * config.head_dim;
    let query_width = config.heads * config.head_dim;
    let last = weights.layers.len() - 1;
    let normed: &mut [T] = take(normed, rows * width);
    let attended: &mut [T] = take(attended, rows * query_width);
    for (index, layer) in weights.layers.iter().enumerate() {
        rms_norm(hidden, &layer.attention_norm, config.rms_epsilon, normed);
        let qkv: &mut [f32] = take(qkv, rows * fused);
        outputs.input(LinearInput::Attention(index), T::values(normed));
        layer.qkv.apply(T::values(normed), rows, qkv, products, Accumulate::Overwrite);
        rotate(weights, layer, &batch.positions, qkv);
        attend(weights, index, batch, cache, qkv, T::values_mut(attended));

        if index == last && batch.wanted.len() < rows {
            // Nobody reads the other rows any more.
            for (to, &from) in batch.wanted.iter().enumerate() {
                hidden.copy_within(from * width..(from + 1) * width, to * width);
                attended.copy_within(from * query_width..(from + 1) * query_width, to * query_width);
            }
            rows = batch.wanted.len();
            products.adapted.set(batch.wanted.iter().map(|&row| batch.adapters[row]));
            if rows == 0 {
                return;
            }
        }
        let hidden = &mut hidden[..rows * width];
        let normed = &mut normed[..rows * width];
        let attended = &attended[..rows * query_width];
        outputs.input(LinearInput::AttentionOutput(index), T::values(attended));
        let mut stream = Stream { hidden: &mut *hidden, added, added_normed, products, epsilon: config.rms_epsilon };
        stream.add(&layer.output, layer.output_norm.as_deref(), T::values(attended), rows);

        rms_norm(hidden, &layer.mlp_norm, config.rms_epsilon, normed);
        // Rounded before the activation, they would cost the parity of bf16 with llama.cpp.
        let both: &mut [f32] = take(gate_up, rows * 2 * config.feed_forward);
        outputs.input(LinearInput::FeedForward(index), T::values(normed));
        layer.gate_up.apply(T::values(normed), rows, both, products, Accumulate::Overwrite);
        let activated: &mut [f32] = take(activated, rows * config.feed_forward);
        let both = &*both;
        parallel::for_each_chunk(activated, ROWS_PER_TASK * config.feed_forward, |task, rows| {
            let both = both.chunks_exact(2 * config.feed_forward).skip(task * ROWS_PER_TASK);
            for (out, both) in rows.chunks_exact_mut(config.feed_forward).zip(both) {
                let (gate, up) = both.split_at(config.feed_forward);
                gated_activation(config.activation, gate, up, out);
                scale(out, config.scales.residual);
            }
        });
        outputs.input(LinearInput::FeedForwardDown(index), Values::F32(activated));
        let mut stream = Stream { hidden, added, added_normed, products, epsilon: config.rms_epsilon };
        stream.add(&layer.down, layer.down_norm.as_deref(), Values::F32(activated), rows);
    }

    let vocabulary = config.vocabulary;
    for (chunk, hidden) in hidden[..rows * width].chunks(HEAD_ROWS * width).enumerate() {
        if let Outputs::HiddenStates(visit) = outputs {
            let states: &mut [f32] = take(logits, hidden.len());
            rms_norm(hidden, &weights.final_norm, config.rms_epsilon, states);
            // The norm that is kept has the divisor of the logits in it.
            scale(states, config.scales.logits);
            visit(chunk * HEAD_ROWS, states);
            continue;
        }
        let chunk_rows = hidden.len() / width;
        let normed = &mut normed[..hidden.len()];
        rms_norm(hidden, &weights.final_norm, config.rms_epsilon, normed);
        let Outputs::Logits(visit) = outputs else {
            outputs.input(LinearInput::Head, T::values(normed));
            continue;
        };
        let logits = take(logits, chunk_rows * vocabulary);
        let y = ValuesMut::F32(&mut *logits);
        weights.head.apply(T::values(normed), chunk_rows, y, &mut products.rounded, Accumulate::Overwrite);
        visit(chunk * HEAD_ROWS, logits);
    }
}

/// The residual stream, and room for what is added to it.
struct Stream<'a> {
    hidden: &'a mut [f32],
    added: &'a mut Vec<f32>,
    added_normed: &'a mut Vec<f32>,
    products: &'a mut ProductMemory,
    epsilon: f32,
}

impl Stream<'_> {
    /// Adds a projection of `x`, normalised where there is a norm behind it.
    fn add(&mut self, projection: &Projection, norm: Option<&[f32]>, x: Values<'_>, rows: usize) {
        let Some(norm) = norm else {
            projection.apply(x, rows, self.hidden, self.products, Accumulate::Add);
            return;
        };
        let added: &mut [f32] = take(self.added, self.hidden.len());
        projection.apply(x, rows, added, self.products, Accumulate::Overwrite);
        let normed: &mut [f32] = take(self.added_normed, self.hidden.len());
        rms_norm(added, norm, self.epsilon, normed);
        for (value, added) in self.hidden.iter_mut().zip(normed.iter()) {
            *value += added;
        }
    }
}

/// Adds the biases, normalises the heads, and turns queries and keys to their positions; the values take the factor of the
/// residual stream, so that the projection behind attention has it.
fn rotate(weights: &Weights, layer: &Layer, positions: &[u32], qkv: &mut [f32]) {
    let config = &weights.config;
    let turned_heads = config.heads + config.kv_heads;
    let turned = turned_heads * config.head_dim;
    let fused = turned + config.kv_heads * config.head_dim;
    let query_width = config.heads * config.head_dim;
    parallel::for_each_chunk(qkv, ROWS_PER_TASK * fused, |task, rows| {
        let mut normed = Vec::new();
        for (row, position) in rows.chunks_exact_mut(fused).zip(&positions[task * ROWS_PER_TASK..]) {
            if let Some(bias) = &layer.qkv_bias {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
            if let Some([query_norm, key_norm]) = &layer.head_norms {
                for (heads, norm) in [(0..query_width, query_norm), (query_width..turned, key_norm)] {
                    let normed: &mut [f32] = take(&mut normed, heads.len());
                    rms_norm(&row[heads.clone()], norm, config.rms_epsilon, normed);
                    row[heads].copy_from_slice(normed);
                }
            }
            if let Some(table) = &layer.rope {
                let (heads, position) = (&mut row[..turned], std::slice::from_ref(position));
                rope(heads, turned_heads, config.head_dim, position, table, weights.rope_style, Direction::Forward);
            }
            scale(&mut row[turned..], config.scales.residual);
        }
    });
}

/// Writes keys and values of all rows into their pages, and attends.
fn attend(weights: &Weights, layer: usize, batch: &Batch, cache: &mut Cache, qkv: &[f32], attended: ValuesMut<'_>) {
    let config = &weights.config;
    let query = config.heads * config.head_dim;
    let key = config.kv_heads * config.head_dim;
    let stride = query + 2 * key;
    let (group, place) = cache.place(layer);
    let LayerGroup { pages, forks, .. } = &mut cache.groups[group];
    let rows = FusedRows { values: qkv, stride, key: query..query + key, value: query + key..stride };
    pages.write(place, &batch.slots[group], forks, &rows);
    let sequences: Vec<PagedQueries<'_>> = batch
        .segments
        .iter()
        .map(|segment| PagedQueries {
            pages: &segment.spans[group].pages,
            first_page: segment.spans[group].first,
            start: segment.start,
            rows: segment.rows.clone(),
        })
        .collect();
    let shape = &weights.layers[layer].attention;
    PagedAttention { shape, pages, layer: place, rows: qkv, stride, sequences: &sequences }.run(attended);
}
