//! From a model, and an adapter, to a Hugging Face folder in one pass.

use std::path::{Path, PathBuf};

use espalier_model::huggingface::{FolderTensor, HuggingFaceOptions, HuggingFaceWriter};
use espalier_model::{LoraAdapter, Model, ModelError, Tensor, TensorInfo};
use rayon::prelude::*;
use serde::Serialize;

use crate::encode::encode_into;
use crate::merge::{MergedModule, check_adapter};
use crate::mix::TensorShape;
use crate::report::TensorReport;
use crate::verify::{Verification, verify_folder};
use crate::write::{SLAB_ELEMENTS, disk_full, in_tensor, read_rows};
use crate::{QuantizeError, QuantizeEvent};

/// What became of a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FolderReport {
    /// The folder.
    pub path: PathBuf,
    /// Bytes of tensor data.
    pub bytes: u64,
    /// Tensors of which some are merged.
    pub tensors: Vec<TensorReport>,
    /// What the check of the files found.
    pub verification: Verification,
}

/// Writes `model`, with `adapter` folded in, as a folder that transformers, vLLM and [`Model::open`] read.
///
/// Each row goes from the source through `f32` into the folder once: merged in `f32`, rounded to the nearest. The folder is
/// opened again and compared with the source (sampled rows, token ids of `texts` and a few of our own, the chat template)
/// before it has its name.
///
/// # Errors
///
/// When the adapter does not fit, transformers has no class for the model, a weight is NaN, infinite or too large for the
/// type, a folder of this name is there, the disk is full (the partial folder is removed), or the check finds a difference.
pub fn write_folder(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    out: &Path,
    options: HuggingFaceOptions,
    texts: &[String],
    on_progress: &mut dyn FnMut(QuantizeEvent),
) -> Result<FolderReport, QuantizeError> {
    let infos: Vec<&TensorInfo> = model.tensors().collect();
    let shapes: Vec<TensorShape<'_>> = infos
        .iter()
        .map(|info| TensorShape { name: &info.name, dimensions: &info.dimensions, block_type: info.block_type })
        .collect();
    if let Some(adapter) = adapter {
        check_adapter(adapter, &shapes)?;
    }
    let block_type = options.float_type.block_type();
    let bytes = |info: &TensorInfo| (info.rows * info.columns * block_type.block_bytes()) as u64;
    // A little more than will be written: the rotary factors become settings.
    let needed = infos.iter().map(|info| bytes(info)).sum();
    let full = |error: ModelError| disk_full(error, out, needed);
    let mut writer = HuggingFaceWriter::create(model, out, options).map_err(full)?;
    if let Some(template) = adapter.and_then(|adapter| adapter.chat_template.as_ref()) {
        writer.write_chat_template(template).map_err(full)?;
    }
    let folder_tensors = writer.tensors().to_vec();
    let report = |tensor: &FolderTensor| {
        let info = model.tensor(&tensor.gguf_name)?.info();
        Ok(TensorReport {
            name: info.name.clone(),
            dimensions: info.dimensions.clone(),
            from: info.block_type,
            to: block_type,
            bytes: bytes(info),
            merged: adapter.is_some_and(|adapter| MergedModule::of(adapter, &info.name).is_some()),
            weighed: false,
            refined: false,
            fallback: None,
        })
    };
    let tensors = folder_tensors.iter().map(report).collect::<Result<Vec<TensorReport>, ModelError>>()?;
    let total = tensors.iter().map(|tensor| tensor.bytes).sum();
    on_progress(QuantizeEvent::Planned { tensors: tensors.len(), bytes: total });

    let (mut values, mut encoded, mut written) = (Vec::new(), Vec::new(), 0);
    for (index, (tensor, report)) in folder_tensors.iter().zip(&tensors).enumerate() {
        let source = model.tensor(&tensor.gguf_name)?;
        let module = adapter.and_then(|adapter| MergedModule::of(adapter, &tensor.gguf_name));
        let rows_per_slab = (SLAB_ELEMENTS / tensor.columns.max(1)).max(1);
        for first in (0..tensor.rows).step_by(rows_per_slab) {
            let count = rows_per_slab.min(tensor.rows - first) * tensor.columns;
            values.resize(count, 0.0);
            encoded.resize(count * block_type.block_bytes(), 0);
            read_folder_rows(&source, module, tensor, first, &mut values)?;
            encode_into(block_type, &values, None, &mut encoded)
                .map_err(|error| in_tensor(&tensor.gguf_name, first, tensor.columns, error))?;
            writer.write_tensor_data(&encoded).map_err(full)?;
            written += encoded.len() as u64;
            on_progress(QuantizeEvent::Progress { tensor: tensor.gguf_name.clone(), bytes: written });
        }
        on_progress(QuantizeEvent::Tensor { index, report: report.clone() });
    }
    let folder = writer.finish().map_err(full)?;
    on_progress(QuantizeEvent::Verifying);
    let verification = verify_folder(folder.path(), model, adapter, &tensors, texts)?;
    folder.finish().map_err(full)?;
    Ok(FolderReport { path: out.to_owned(), bytes: total, tensors, verification })
}

/// Reads rows in the order of the folder from `first` on, merged where there is a module.
fn read_folder_rows(
    source: &Tensor<'_>,
    module: Option<MergedModule<'_>>,
    tensor: &FolderTensor,
    first: usize,
    values: &mut [f32],
) -> Result<(), ModelError> {
    values.par_chunks_exact_mut(tensor.columns).enumerate().try_for_each(|(offset, row)| {
        read_rows(source, module, tensor.gguf_row(first + offset), row)?;
        tensor.shift(row);
        Ok(())
    })
}
