//! From a model, and an adapter, to a quantized GGUF file in one pass.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use espalier_kernels::BlockType;
use espalier_model::gguf::{GgufWriter, Metadata, TensorHeader};
use espalier_model::{LoraAdapter, Model, ModelError, Tensor, TensorInfo};
use rayon::prelude::*;

use crate::QuantizeError;
use crate::encode::{EncodeError, round_into, weighs_importance};
use crate::file_type::FileType;
use crate::importance_source::ImportanceSource;
use crate::merge::{MergedModule, check_adapter};
use crate::mix::{MixOptions, ModelDimensions, TensorPlan, TensorShape, Weighing, plan};
use crate::provenance::Provenance;
use crate::report::{QuantizeReport, TensorReport};
use crate::verify::verify;

/// Elements that are held in `f32` at a time: 16 MiB, which stays near the caches.
pub(crate) const SLAB_ELEMENTS: usize = 4 << 20;

/// Version of the block formats (`general.quantization_version`).
const QUANTIZATION_VERSION: u32 = 2;

/// How to quantize.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// Changes to the mix.
    pub mix: MixOptions,
    /// What weighs the errors of rounding; without it all columns of a matrix count alike.
    pub importance: Option<ImportanceSource>,
    /// Move the scales of encoded blocks while that lowers their weighed error ([`refine`](crate::encode::refine)): other
    /// bytes than llama-quantize's in the same formats, and several times its time.
    pub refine: bool,
    /// Where the weights come from, for the metadata.
    pub provenance: Provenance,
    /// Reopen the file and compare it with the source.
    pub verify: bool,
    /// Texts whose token ids are compared in that check, besides a few of our own.
    pub verify_texts: Vec<String>,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self {
            mix: MixOptions::default(),
            importance: None,
            refine: false,
            provenance: Provenance::default(),
            verify: true,
            verify_texts: Vec::new(),
        }
    }
}

/// What happens while a file is written.
#[derive(Debug, Clone, PartialEq)]
pub enum QuantizeEvent {
    /// The plan stands; nothing is written yet.
    Planned {
        /// Number of tensors.
        tensors: usize,
        /// Bytes of tensor data to be written.
        bytes: u64,
    },
    /// Some rows are written.
    Progress {
        /// GGUF name.
        tensor: String,
        /// Bytes of tensor data written so far.
        bytes: u64,
    },
    /// A tensor is complete.
    Tensor {
        /// Its position, from 0.
        index: usize,
        /// What became of it.
        report: TensorReport,
    },
    /// The file is complete and being compared with the source.
    Verifying,
}

/// Writes `model`, with `adapter` folded in, as a GGUF of the mix `file_type` to `out`.
///
/// Every row goes from the source through `f32` into its block once; nothing but the result touches the disk. Tensors
/// that keep their type are copied as they are. The order of tensors and metadata, the types and the bytes are those of
/// llama-quantize. The file appears under its name when it is complete.
///
/// # Errors
///
/// When the adapter or the importance matrix does not fit, or the mix takes one and there is none; when a type asked for by
/// name does not fit, a weight is NaN or infinite, the disk is full (the partial file is removed), or the written file
/// fails its check.
pub fn quantize(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    file_type: FileType,
    out: &Path,
    options: &QuantizeOptions,
    on_progress: &mut dyn FnMut(QuantizeEvent),
) -> Result<QuantizeReport, QuantizeError> {
    let importance = options.importance.as_ref();
    let tensors = planned_tensors(model, adapter, file_type, options)?;
    let headers: Vec<TensorHeader> = tensors
        .iter()
        .map(|tensor| TensorHeader {
            name: tensor.name.clone(),
            dimensions: tensor.dimensions.clone(),
            block_type: tensor.to,
        })
        .collect();
    let total = tensors.iter().map(|tensor| tensor.bytes).sum();
    on_progress(QuantizeEvent::Planned { tensors: tensors.len(), bytes: total });

    let source_metadata = with_template_of(model, adapter);
    let metadata = output_metadata(&source_metadata, file_type, options);
    let full = |error: ModelError| disk_full(error, out, total);
    let mut writer = GgufWriter::create(out, &metadata, &headers).map_err(full)?;
    let mut buffers = Buffers::default();
    let mut written = 0;
    for (index, tensor) in tensors.iter().enumerate() {
        let source = model.tensor(&tensor.name)?;
        let module = adapter.and_then(|adapter| MergedModule::of(adapter, &tensor.name));
        let mut emit = |bytes: &[u8]| -> Result<(), QuantizeError> {
            writer.write_tensor_data(bytes).map_err(full)?;
            written += bytes.len() as u64;
            on_progress(QuantizeEvent::Progress { tensor: tensor.name.clone(), bytes: written });
            Ok(())
        };
        match source.raw() {
            Some(raw) if tensor.from == tensor.to && module.is_none() => {
                for chunk in raw.chunks(SLAB_ELEMENTS) {
                    emit(chunk)?;
                }
            }
            _ => {
                let means = match importance {
                    Some(importance) if tensor.weighed => importance.means(&tensor.name, &tensor.dimensions)?,
                    _ => None,
                };
                let encoding = Encoding { block_type: tensor.to, importance: means.as_deref(), refine: tensor.refined };
                buffers.encode_tensor(&source, module, &encoding, &mut emit)?;
            }
        }
        on_progress(QuantizeEvent::Tensor { index, report: tensor.clone() });
    }
    writer.finish().map_err(full)?;

    let file_bytes = std::fs::metadata(out)
        .map_err(|source| ModelError::File { path: out.to_owned(), action: "read its size", source })?
        .len();
    let mut report = QuantizeReport { path: out.to_owned(), file_type, file_bytes, tensors, verification: None };
    if options.verify {
        on_progress(QuantizeEvent::Verifying);
        report.verification = Some(verify(model, adapter, &report, &options.verify_texts)?);
    }
    Ok(report)
}

/// What [`quantize`] would write: the same report, without a file and its check.
///
/// # Errors
///
/// As [`quantize`] before it writes.
pub fn dry_run(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    file_type: FileType,
    options: &QuantizeOptions,
) -> Result<QuantizeReport, QuantizeError> {
    let tensors = planned_tensors(model, adapter, file_type, options)?;
    let file_bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
    Ok(QuantizeReport { path: PathBuf::new(), file_type, file_bytes, tensors, verification: None })
}

/// What becomes of each tensor, in the order of the file.
fn planned_tensors(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    file_type: FileType,
    options: &QuantizeOptions,
) -> Result<Vec<TensorReport>, QuantizeError> {
    let infos: Vec<&TensorInfo> = model.tensors().collect();
    let shapes: Vec<TensorShape<'_>> = infos
        .iter()
        .map(|info| TensorShape { name: &info.name, dimensions: &info.dimensions, block_type: info.block_type })
        .collect();
    if let Some(adapter) = adapter {
        check_adapter(adapter, &shapes)?;
    }
    let weighing = if options.importance.is_some() { Weighing::Importance } else { Weighing::Even };
    let plans = plan(file_type, ModelDimensions::from(model.config()), &shapes, &options.mix, weighing)?;
    plans.iter().map(|plan| planned(infos[plan.index], plan, adapter, options)).collect()
}

/// The metadata of `model`, with the chat template that `adapter` was trained with.
pub(crate) fn with_template_of<'a>(model: &'a Model, adapter: Option<&LoraAdapter>) -> Cow<'a, Metadata> {
    let mut metadata = Cow::Borrowed(model.metadata());
    if let Some(template) = adapter.and_then(|adapter| adapter.chat_template.as_deref()) {
        metadata.to_mut().insert("tokenizer.chat_template", template);
    }
    metadata
}

/// The report on a tensor, before it is written.
fn planned(
    info: &TensorInfo,
    plan: &TensorPlan,
    adapter: Option<&LoraAdapter>,
    options: &QuantizeOptions,
) -> Result<TensorReport, QuantizeError> {
    let row_bytes = plan.block_type.row_bytes(info.columns).ok_or_else(|| QuantizeError::RowLength {
        option: "the mix",
        tensor: info.name.clone(),
        columns: info.columns,
        block_type: plan.block_type,
    })?;
    let merged = adapter.is_some_and(|adapter| MergedModule::of(adapter, &info.name).is_some());
    let chosen = (merged || info.block_type != plan.block_type) && weighs_importance(plan.block_type);
    let weighed = match &options.importance {
        Some(importance) if chosen => importance.means(&info.name, &info.dimensions)?.is_some(),
        _ => false,
    };
    Ok(TensorReport {
        name: info.name.clone(),
        dimensions: info.dimensions.clone(),
        from: info.block_type,
        to: plan.block_type,
        bytes: info.rows as u64 * row_bytes as u64,
        merged,
        weighed,
        refined: chosen && options.refine,
        fallback: plan.fallback,
    })
}

/// The metadata of the new file: all of the source's, without the marks of a split file, then the type, and at last the
/// importance matrix.
fn output_metadata(source: &Metadata, file_type: FileType, options: &QuantizeOptions) -> Metadata {
    let mut metadata = source.clone();
    for key in ["split.no", "split.count", "split.tensors.count"] {
        metadata.remove(key);
    }
    options.provenance.write_to(&mut metadata);
    for (key, value) in
        [("general.quantization_version", QUANTIZATION_VERSION), ("general.file_type", file_type.ggml_id())]
    {
        metadata.remove(key);
        metadata.insert(key, value);
    }
    if let Some(importance) = &options.importance {
        importance.write_to(&mut metadata);
    }
    if options.refine {
        metadata.insert("espalier.rounding", "refined");
    }
    metadata
}

/// Names a full disk; other errors stay.
pub(crate) fn disk_full(error: ModelError, path: &Path, needed: u64) -> QuantizeError {
    fn is_full(error: &ModelError) -> bool {
        match error {
            ModelError::File { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                )
            }
            ModelError::In { source, .. } => is_full(source),
            _ => false,
        }
    }
    if is_full(&error) {
        QuantizeError::DiskFull { path: PathBuf::from(path), needed }
    } else {
        QuantizeError::Model(error)
    }
}

/// How a tensor is encoded.
pub(crate) struct Encoding<'a> {
    pub(crate) block_type: BlockType,
    /// The columns of each matrix, matrix after matrix.
    pub(crate) importance: Option<&'a [f32]>,
    pub(crate) refine: bool,
}

/// Memory that is used again from slab to slab.
#[derive(Default)]
pub(crate) struct Buffers {
    values: Vec<f32>,
    blocks: Vec<u8>,
}

impl Buffers {
    /// Reads, merges and encodes the rows of a tensor slab by slab.
    pub(crate) fn encode_tensor(
        &mut self,
        source: &Tensor<'_>,
        module: Option<MergedModule<'_>>,
        encoding: &Encoding<'_>,
        emit: &mut dyn FnMut(&[u8]) -> Result<(), QuantizeError>,
    ) -> Result<(), QuantizeError> {
        let info = source.info();
        let &Encoding { block_type, importance, refine: refining } = encoding;
        let (rows, columns) = (info.rows, info.columns);
        let rows_per_slab = (SLAB_ELEMENTS / columns.max(1)).max(1);
        // Each matrix of a tensor of experts has an importance of its own: a slab ends with its matrix.
        let rows_per_matrix =
            if importance.is_some() { info.dimensions.get(1).copied().unwrap_or(1).max(1) } else { rows };
        let mut first = 0;
        while first < rows {
            let count = rows_per_slab.min(rows - first).min(rows_per_matrix - first % rows_per_matrix);
            let importance = importance.map(|all| &all[first / rows_per_matrix * columns..][..columns]);
            self.values.resize(count * columns, 0.0);
            read_rows(source, module, first, &mut self.values)?;
            let bytes = count * columns / block_type.block_size() * block_type.block_bytes();
            self.blocks.resize(bytes, 0);
            round_into(block_type, &self.values, importance, refining, &mut self.blocks)
                .map_err(|error| in_tensor(&info.name, first, columns, error))?;
            emit(&self.blocks)?;
            first += count;
        }
        Ok(())
    }
}

/// Reads consecutive rows from `first` on, merged where there is a module.
pub(crate) fn read_rows(
    source: &Tensor<'_>,
    module: Option<MergedModule<'_>>,
    first: usize,
    values: &mut [f32],
) -> Result<(), ModelError> {
    let columns = source.info().columns;
    // Several rows a task: a row of a small model is too little work.
    let rows_per_task = (16 * 1024 / columns.max(1)).max(1);
    values.par_chunks_mut(rows_per_task * columns).enumerate().try_for_each(|(task, values)| {
        let mut scratch = if module.is_some() { vec![0.0; columns] } else { Vec::new() };
        for (offset, row) in values.chunks_exact_mut(columns).enumerate() {
            let index = first + task * rows_per_task + offset;
            source.row(index, row)?;
            if let Some(module) = &module {
                module.merge_into_row(index, row, &mut scratch);
            }
        }
        Ok(())
    })
}

/// Names tensor and row of an element of a slab.
pub(crate) fn in_tensor(name: &str, first_row: usize, columns: usize, error: EncodeError) -> QuantizeError {
    let (row, source) = match error {
        EncodeError::NotFinite { index, value } => {
            (index / columns, EncodeError::NotFinite { index: index % columns, value })
        }
        EncodeError::Overflow { block_type, index } => {
            (index / columns, EncodeError::Overflow { block_type, index: index % columns })
        }
        other => (0, other),
    };
    QuantizeError::Encode { tensor: name.to_owned(), row: first_row + row, source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    fn file_error(kind: io::ErrorKind) -> ModelError {
        ModelError::File { path: "x.gguf".into(), action: "write to it", source: kind.into() }
    }

    #[test]
    fn a_full_disk_is_named_with_the_size_that_is_needed() {
        let inside = ModelError::In { path: "x".into(), source: Box::new(file_error(io::ErrorKind::StorageFull)) };
        for error in [file_error(io::ErrorKind::StorageFull), file_error(io::ErrorKind::QuotaExceeded), inside] {
            let message = disk_full(error, Path::new("out.gguf"), 145_000_000).to_string();
            assert!(message.contains("no space left") && message.contains("145 MB"), "{message}");
        }
        let other = disk_full(file_error(io::ErrorKind::PermissionDenied), Path::new("out.gguf"), 1);
        assert!(matches!(other, QuantizeError::Model(_)));
    }

    #[test]
    fn places_in_a_slab_become_rows() {
        let error = in_tensor("t", 100, 64, EncodeError::NotFinite { index: 130, value: f32::INFINITY });
        let message = error.to_string();
        assert!(message.starts_with("tensor \"t\", row 102: element 2 is inf"), "{message}");
    }

    #[test]
    fn the_type_stands_last_and_a_split_is_forgotten() {
        let mut source = Metadata::new();
        for (key, value) in [("general.file_type", 3_u32), ("split.count", 2), ("llama.block_count", 5)] {
            source.insert(key, value);
        }
        let metadata = output_metadata(&source, FileType::Q4_K_M, &QuantizeOptions::default());
        let keys: Vec<_> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["llama.block_count", "general.quantization_version", "general.file_type"]);
        assert_eq!(metadata.get_u32("general.file_type").unwrap(), Some(15));
    }
}
