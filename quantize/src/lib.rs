//! Quantization: from a model, and the adapter trained for it, to a GGUF file that llama.cpp and our own engine load.
//!
//! One pass ([`quantize`]): each row is read from the source, the adapter is added in `f32`, the row is encoded into the
//! blocks of its type ([`encode`]) and written. Which type a tensor gets is the file type's business ([`FileType`],
//! [`plan`]): the fixed mixes such as `Q4_K_M` follow llama-quantize rule by rule, and from the same `f32` weights the
//! bytes are the same. The written file is opened again and compared with its source ([`verify`]); what quantization
//! costs in accuracy is measured against the unquantized model ([`divergence`]).
//!
//! ```no_run
//! use espalier_model::Model;
//! use espalier_quantize::{FileType, QuantizeOptions, quantize};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::open("base.gguf".as_ref())?;
//! let report = quantize(&model, None, FileType::Q4_K_M, "small.gguf".as_ref(), &QuantizeOptions::default(), &mut |_| {})?;
//! println!("{:.2} bits per weight", report.bits_per_weight());
//! # Ok(())
//! # }
//! ```

mod allocation;
mod divergence;
pub mod encode;
mod error;
mod file_type;
mod folder;
mod imatrix;
mod importance_source;
mod merge;
mod mix;
mod provenance;
mod report;
mod text;
mod verify;
mod write;

pub use allocation::{Allocation, AllocationEvent, AllocationInputs, Target, TokenTime, allocate};
pub use divergence::{Divergence, Estimate, ReferenceLogits, divergence};
pub use encode::EncodeError;
pub use error::QuantizeError;
pub use file_type::{FileType, encodable_type};
pub use folder::{FolderReport, write_folder};
pub use imatrix::{CHUNK_TOKENS, Importance, ImportanceMatrix, TensorStatistics, importance};
pub use importance_source::ImportanceSource;
pub use merge::{MergedModule, check_adapter};
pub use mix::{
    Fallback, MixOptions, ModelDimensions, TensorPlan, TensorShape, TypeOverride, Weighing, plan, tensor_order,
};
pub use provenance::{Origin, Provenance};
pub use report::{FallbackGroup, QuantizeReport, TensorReport};
pub use text::MeasuredText;
pub use verify::{Verification, error_bound, relative_error, verify};
pub use write::{QuantizeEvent, QuantizeOptions, dry_run, quantize};
