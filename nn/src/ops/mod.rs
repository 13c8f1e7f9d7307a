//! Operations with a backward pass of their own, for burn's autodiff on the CPU.
//!
//! Each has a body over `espalier-kernels`, and a plain body (`*_plain`) of ordinary burn operations that defines what it
//! computes: the reference in tests and the way on devices without our kernels. Frozen weights are arguments, not
//! tensors: nothing computes or keeps a gradient for them.

pub mod dora;
pub mod frozen_linear;
pub mod gated_activation;
pub mod linear_cross_entropy;
pub mod lora_linear;
pub mod rms_norm;
pub mod self_attention;
pub mod teacher_tokens;
pub mod transformer_blocks;
