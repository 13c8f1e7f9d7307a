//! Fused operations of a transformer, forward and backward side by side.
//!
//! All buffers are row-major `f32`, or bf16 where the products around an operation round anyway. Each operation has a
//! plain body and bodies for AVX2 with FMA and AVX-512, chosen when it runs. Threads split rows or (sequence, head) pairs,
//! never a sum, so that results do not depend on their number; and one row or query is computed in the same order whatever
//! shares the call with it.

#![allow(
    clippy::inline_always,
    reason = "bodies have to be inlined into the function that is compiled for an instruction set"
)]

mod attention;
mod cross_entropy;
mod divergence;
mod full_attention;
mod gated_activation;
mod layer_norm;
mod paged_attention;
mod rms_norm;
mod rope;
mod simd;
mod softmax;
#[cfg(test)]
mod testing;

pub use attention::{AttentionShape, causal_attention, segmented_attention, segmented_attention_backward};
pub use cross_entropy::{RowLoss, TeacherRows, cross_entropy_rows, distillation_rows};
pub use divergence::divergence_rows;
pub use full_attention::full_attention;
pub use gated_activation::{GatedActivation, gated_activation, gated_activation_backward};
pub use layer_norm::{biased_gelu, layer_norm};
pub use paged_attention::{
    FusedRows, KeyValuePages, PAGE_POSITIONS, PageElement, PageFork, PageShape, PageSlot, PagedAttention, PagedQueries,
};
pub use rms_norm::{rms_norm, rms_norm_backward, rms_norm_backward_beside};
pub use rope::{Direction, RopeStyle, RopeTable, rope};
pub use softmax::{log_softmax_row, log_sum_exp};

/// Elements of a row-wise operation that one thread takes at a time; smaller calls stay on the calling thread.
const TASK_ELEMENTS: usize = 1 << 14;
