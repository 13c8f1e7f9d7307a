//! One pass over the weights for a batch of rows from many sequences.

use std::ops::Range;

use espalier_kernels::ops::{Direction, causal_attention, gated_activation, rms_norm, rope};
use espalier_kernels::{Accumulate, matmul};
use rayon::prelude::*;

use crate::cache::{LayerCache, SequenceCache};
use crate::weights::{Layer, Projection, Weights, scale};

/// Logits of at most this many rows exist at once: 64 rows of 49,152 are 12 MB.
pub(crate) const HEAD_ROWS: usize = 64;

/// Rows that one task of a row-wise stage takes at least, so that small batches do not pay for waking threads.
const ROWS_PER_TASK: usize = 4;

/// Consecutive positions of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index of the sequence's cache.
    pub(crate) sequence: usize,
    /// Position of the first token. Whatever the cache holds from here on is replaced.
    pub(crate) start: usize,
    /// Rows of the batch.
    pub(crate) rows: Range<usize>,
}

/// The rows of one step.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Segments in rising order of their sequence. A sequence may have several, one after another: the later ones see what
    /// the earlier ones left in the cache, up to their own start.
    segments: Vec<Segment>,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    /// Rows whose logits are asked for, rising.
    wanted: Vec<usize>,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.tokens.clear();
        self.positions.clear();
        self.wanted.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds one row; it prolongs the last segment where it continues it.
    pub(crate) fn push(&mut self, sequence: usize, position: usize, token: u32, wanted: bool) {
        let row = self.tokens.len();
        self.tokens.push(token);
        self.positions.push(position as u32);
        if wanted {
            self.wanted.push(row);
        }
        match self.segments.last_mut() {
            Some(last) if last.sequence == sequence && last.start + last.rows.len() == position => {
                last.rows.end += 1;
            }
            last => {
                debug_assert!(last.is_none_or(|last| last.sequence <= sequence), "sequences in rising order");
                self.segments.push(Segment { sequence, start: position, rows: row..row + 1 });
            }
        }
    }
}

/// The buffers of a pass, kept from step to step.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    hidden: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    query: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    /// What a projection adds to the stream, where a norm stands behind it.
    added: Vec<f32>,
    low: Vec<f32>,
    logits: Vec<f32>,
}

/// The first `length` values of a buffer that grows when it must; what they hold is left from before.
fn take(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// Runs a batch: appends keys and values to `caches` and shows the logits of the wanted rows, in chunks of [`HEAD_ROWS`]:
/// `visit(first, logits)` gets the index of the chunk's first row among the wanted ones and rows of `vocabulary` values, which
/// it may overwrite.
pub(crate) fn forward(
    weights: &Weights,
    batch: &Batch,
    caches: &mut [SequenceCache],
    workspace: &mut Workspace,
    visit: &mut dyn FnMut(usize, &mut [f32]),
) {
    let config = &weights.config;
    let width = config.hidden;
    let mut rows = batch.len();
    if rows == 0 {
        return;
    }
    let Workspace { hidden, normed, qkv, query, attended, gate_up, activated, added, low, logits } = workspace;
    let hidden = take(hidden, rows * width);
    hidden
        .par_chunks_mut(width)
        .with_min_len(ROWS_PER_TASK)
        .zip(&batch.tokens)
        .for_each(|(row, &token)| weights.embed(token, row));

    let fused = (config.heads + 2 * config.kv_heads) * config.head_dim;
    let query_width = config.heads * config.head_dim;
    let last = weights.layers.len() - 1;
    for (index, layer) in weights.layers.iter().enumerate() {
        let normed = take(normed, rows * width);
        rms_norm(&hidden[..rows * width], &layer.attention_norm, config.rms_epsilon, normed);
        let qkv = take(qkv, rows * fused);
        layer.qkv.apply(normed, rows, qkv, low, Accumulate::Overwrite);
        let query = take(query, rows * query_width);
        rotate(weights, layer, &batch.positions, qkv, query);
        let attended = take(attended, rows * query_width);
        attend(weights, index, &batch.segments, caches, qkv, query, attended);

        if index == last && batch.wanted.len() < rows {
            // Nobody reads the other rows any more.
            for (to, &from) in batch.wanted.iter().enumerate() {
                hidden.copy_within(from * width..(from + 1) * width, to * width);
                attended.copy_within(from * query_width..(from + 1) * query_width, to * query_width);
            }
            rows = batch.wanted.len();
            if rows == 0 {
                return;
            }
        }
        let hidden = &mut hidden[..rows * width];
        let normed = &mut normed[..rows * width];
        let attended = &attended[..rows * query_width];
        add_to_stream(
            &layer.output,
            layer.output_norm.as_deref(),
            config.rms_epsilon,
            attended,
            hidden,
            (normed, added, low),
        );

        rms_norm(hidden, &layer.mlp_norm, config.rms_epsilon, normed);
        let both = take(gate_up, rows * 2 * config.feed_forward);
        layer.gate_up.apply(normed, rows, both, low, Accumulate::Overwrite);
        let activated = take(activated, rows * config.feed_forward);
        activated
            .par_chunks_mut(config.feed_forward)
            .with_min_len(ROWS_PER_TASK)
            .zip(both.par_chunks(2 * config.feed_forward))
            .for_each(|(out, both)| {
                let (gate, up) = both.split_at(config.feed_forward);
                gated_activation(config.activation, gate, up, out);
                scale(out, config.scales.residual);
            });
        add_to_stream(
            &layer.down,
            layer.down_norm.as_deref(),
            config.rms_epsilon,
            activated,
            hidden,
            (normed, added, low),
        );
    }

    let vocabulary = config.vocabulary;
    for (chunk, hidden) in hidden[..rows * width].chunks(HEAD_ROWS * width).enumerate() {
        let chunk_rows = hidden.len() / width;
        let normed = take(normed, hidden.len());
        rms_norm(hidden, &weights.final_norm, config.rms_epsilon, normed);
        let logits = take(logits, chunk_rows * vocabulary);
        matmul(normed, chunk_rows, &weights.head, logits, Accumulate::Overwrite);
        visit(chunk * HEAD_ROWS, logits);
    }
}

/// Adds a projection of `x` to the residual stream, normalised where there is a norm behind it.
fn add_to_stream(
    projection: &Projection,
    norm: Option<&[f32]>,
    epsilon: f32,
    x: &[f32],
    hidden: &mut [f32],
    (normed, added, low): (&mut [f32], &mut Vec<f32>, &mut Vec<f32>),
) {
    let rows = x.len() / projection.inputs();
    let Some(norm) = norm else {
        projection.apply(x, rows, hidden, low, Accumulate::Add);
        return;
    };
    let added = take(added, hidden.len());
    projection.apply(x, rows, added, low, Accumulate::Overwrite);
    rms_norm(added, norm, epsilon, normed);
    for (value, added) in hidden.iter_mut().zip(normed.iter()) {
        *value += added;
    }
}

/// Adds the biases, normalises the heads, turns queries and keys to their positions, and lifts the queries out of the fused
/// rows; the values take the factor of the residual stream, so that the projection behind attention has it.
fn rotate(weights: &Weights, layer: &Layer, positions: &[u32], qkv: &mut [f32], query: &mut [f32]) {
    let config = &weights.config;
    let turned_heads = config.heads + config.kv_heads;
    let turned = turned_heads * config.head_dim;
    let fused = turned + config.kv_heads * config.head_dim;
    let query_width = config.heads * config.head_dim;
    qkv.par_chunks_mut(fused)
        .with_min_len(ROWS_PER_TASK)
        .zip(query.par_chunks_mut(query_width))
        .zip(positions)
        .for_each(|((row, query), position)| {
            if let Some(bias) = &layer.qkv_bias {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
            if let Some([query_norm, key_norm]) = &layer.head_norms {
                // The queries' place serves as room for both.
                for (heads, norm) in [(0..query_width, query_norm), (query_width..turned, key_norm)] {
                    let normed = &mut query[..heads.len()];
                    rms_norm(&row[heads.clone()], norm, config.rms_epsilon, normed);
                    row[heads].copy_from_slice(normed);
                }
            }
            if let Some(table) = &layer.rope {
                let (heads, position) = (&mut row[..turned], std::slice::from_ref(position));
                rope(heads, turned_heads, config.head_dim, position, table, weights.rope_style, Direction::Forward);
            }
            scale(&mut row[turned..], config.scales.residual);
            query.copy_from_slice(&row[..query_width]);
        });
}

/// The attention of one sequence in one layer.
struct Attention<'a> {
    cache: &'a mut LayerCache,
    segments: &'a [Segment],
    first_row: usize,
    qkv: &'a [f32],
    query: &'a [f32],
    attended: &'a mut [f32],
}

/// Appends keys and values and attends, each sequence for itself.
fn attend(
    weights: &Weights,
    layer: usize,
    segments: &[Segment],
    caches: &mut [SequenceCache],
    mut qkv: &[f32],
    mut query: &[f32],
    mut attended: &mut [f32],
) {
    let config = &weights.config;
    let query_width = config.heads * config.head_dim;
    let key_width = config.kv_heads * config.head_dim;
    let fused = query_width + 2 * key_width;
    let mut tasks = Vec::with_capacity(segments.len());
    let mut caches = caches.iter_mut().enumerate();
    for segments in segments.chunk_by(|a, b| a.sequence == b.sequence) {
        let first = &segments[0];
        let rows: usize = segments.iter().map(|segment| segment.rows.len()).sum();
        let Some((_, cache)) = caches.find(|(index, _)| *index == first.sequence) else {
            continue;
        };
        let (own_attended, other_attended) = attended.split_at_mut(rows * query_width);
        let (own_qkv, other_qkv) = qkv.split_at(rows * fused);
        let (own_query, other_query) = query.split_at(rows * query_width);
        (attended, qkv, query) = (other_attended, other_qkv, other_query);
        tasks.push(Attention {
            cache: &mut cache.layers[layer],
            segments,
            first_row: first.rows.start,
            qkv: own_qkv,
            query: own_query,
            attended: own_attended,
        });
    }
    tasks.into_par_iter().for_each(|task| {
        for segment in task.segments {
            let rows = segment.rows.start - task.first_row..segment.rows.end - task.first_row;
            task.cache.truncate(segment.start, key_width);
            task.cache.append(
                &task.qkv[rows.start * fused..rows.end * fused],
                fused,
                query_width..query_width + key_width,
                query_width + key_width..fused,
            );
            let queries = rows.start * query_width..rows.end * query_width;
            causal_attention(
                &weights.layers[layer].attention,
                &task.query[queries.clone()],
                segment.start,
                task.cache.keys(),
                task.cache.values(),
                &mut task.attended[queries],
                None,
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_continue_each_other_are_one_segment() {
        let mut batch = Batch::default();
        batch.push(0, 4, 10, false);
        batch.push(0, 5, 11, true);
        batch.push(0, 5, 12, true);
        batch.push(2, 6, 13, false);
        assert_eq!(
            batch.segments,
            [
                Segment { sequence: 0, start: 4, rows: 0..2 },
                Segment { sequence: 0, start: 5, rows: 2..3 },
                Segment { sequence: 2, start: 6, rows: 3..4 },
            ]
        );
        assert_eq!(batch.wanted, [1, 2]);
    }
}
