//! What the matrices of a model read, shown as a text runs through.

use espalier_kernels::Values;

use crate::cache::Cache;
use crate::error::EngineError;
use crate::forward::{Batch, Workspace, inputs};
use crate::native::NativeEngine;

/// An input that one matrix reads, or several side by side; layers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinearInput {
    /// Of the queries, keys and values.
    Attention(usize),
    /// Of the projection behind attention.
    AttentionOutput(usize),
    /// Of gate and up.
    FeedForward(usize),
    /// Of the projection back.
    FeedForwardDown(usize),
    /// Of the head.
    Head,
}

impl LinearInput {
    /// GGUF names of the tensors that read it; a head that is the token embedding goes by `output.weight` too.
    pub fn tensors(self) -> Vec<String> {
        let (layer, modules): (_, &[&str]) = match self {
            Self::Attention(layer) => (layer, &["attn_q", "attn_k", "attn_v"]),
            Self::AttentionOutput(layer) => (layer, &["attn_output"]),
            Self::FeedForward(layer) => (layer, &["ffn_gate", "ffn_up"]),
            Self::FeedForwardDown(layer) => (layer, &["ffn_down"]),
            Self::Head => return vec!["output.weight".to_owned()],
        };
        modules.iter().map(|module| format!("blk.{layer}.{module}.weight")).collect()
    }

    fn columns(self, engine: &NativeEngine) -> usize {
        let config = &engine.weights.config;
        match self {
            Self::Attention(_) | Self::FeedForward(_) | Self::Head => config.hidden,
            Self::AttentionOutput(_) => config.heads * config.head_dim,
            Self::FeedForwardDown(_) => config.feed_forward,
        }
    }

    /// What the engine multiplied the input by: it moves the scales of some architectures in front of the product.
    fn factor(self, engine: &NativeEngine) -> f32 {
        let scales = &engine.weights.config.scales;
        match self {
            Self::Attention(_) | Self::FeedForward(_) => 1.0,
            Self::AttentionOutput(_) | Self::FeedForwardDown(_) => scales.residual,
            Self::Head => 1.0 / scales.logits,
        }
    }
}

/// See [`NativeEngine::linear_inputs`].
pub(crate) fn linear_inputs(
    engine: &NativeEngine,
    tokens: &[u32],
    visit: &mut dyn FnMut(LinearInput, usize, &[f32]),
) -> Result<(), EngineError> {
    engine.weights.check_tokens(tokens)?;
    let context = engine.context();
    if tokens.len() > context {
        return Err(EngineError::TextTooLong { tokens: tokens.len(), context });
    }
    let mut cache = Cache::new(&engine.weights);
    let mut table = cache.table();
    let (mut batch, mut workspace) = (Batch::default(), Workspace::default());
    let mut values = Vec::new();
    for (part, piece) in tokens.chunks(engine.max_batch_tokens).enumerate() {
        let start = part * engine.max_batch_tokens;
        batch.clear();
        let rows = piece.iter().map(|&token| (token, true));
        batch.push(&mut cache, &mut table, engine.adapter, start, start, rows);
        inputs(&engine.weights, &batch, &mut cache, &mut workspace, &mut |input, read| {
            let (factor, columns) = (input.factor(engine), input.columns(engine));
            if let Values::F32(read) = read
                && factor.to_bits() == 1.0_f32.to_bits()
            {
                return visit(input, columns, read);
            }
            values.clear();
            match read {
                Values::F32(read) => values.extend(read.iter().map(|value| value / factor)),
                Values::Bf16(read) => values.extend(read.iter().map(|value| value.to_f32() / factor)),
            }
            visit(input, columns, &values);
        });
    }
    Ok(())
}
