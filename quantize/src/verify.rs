//! The check of a written file: opened again as any reader would, and compared with its source.

use std::path::Path;

use espalier_kernels::BlockType;
use espalier_model::gguf::Metadata;
use espalier_model::{LoraAdapter, Model, SpecialTokens, Tensor};
use serde::Serialize;

use crate::QuantizeError;
use crate::importance_source::ImportanceSource;
use crate::merge::MergedModule;
use crate::provenance::Provenance;
use crate::report::{QuantizeReport, TensorReport};
use crate::write::{read_rows, with_template_of};

/// Rows of each tensor that are decoded and compared.
const SAMPLED_ROWS: usize = 8;

/// Texts whose tokens are compared whatever the caller adds: words, numbers, code, several scripts, special tokens.
const TEXTS: [&str; 5] = [
    "The quick brown fox jumps over the lazy dog.",
    "  On 2024-02-29 we paid $1,234.56 (12.5 % more);\n\tthen\u{a0}nothing.\n\n",
    "fn main() { println!(\"{:?}\", vec![1, 2, 3]); } // don't",
    "Größe, naïve, Привет, 你好世界, こんにちは, 🙂👩‍🔬",
    "<|im_start|>user\nHello<|im_end|>\n<s></s>",
];

/// What the check found; all of it held, or [`verify`] would have given an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Tensors whose name, shape and type were compared.
    pub tensors: usize,
    /// Rows decoded and compared with the source.
    pub rows: usize,
    /// The largest difference met, as a part of the largest magnitude in its block, and the tensor.
    pub largest_error: Option<(String, f32)>,
    /// Metadata keys equal to the source's.
    pub metadata_keys: usize,
    /// Texts whose token ids are equal.
    pub texts: usize,
}

/// The same where the sum of the errors counts: a column that hardly matters, or one outlier among many, may lie anywhere in
/// the range of its block.
const WEIGHED_BOUND: f32 = 2.0;

/// How far a decoded value may lie from the source, as a part of the largest magnitude among the 256 around it (32 for
/// the types with blocks of 32).
///
/// For the types with one scale a bound that always holds: half a step, or a whole one where the grid has one level
/// fewer on one side, plus the rounding of the scale to half precision. For the k-quants, which trade a large error in
/// one value for less in many, a bound that holds with a wide margin on weights; a wrong block misses all of them.
pub fn error_bound(block_type: BlockType) -> f32 {
    match block_type {
        BlockType::F16 => 1.0 / 2048.0,
        BlockType::Bf16 => 1.0 / 256.0,
        BlockType::Q8_0 => 0.5 / 127.0 + 1.0 / 1024.0,
        BlockType::Q5_1 => 1.0 / 31.0 + 1.0 / 512.0,
        BlockType::Q5_0 => 1.0 / 16.0 + 1.0 / 1024.0,
        BlockType::Q4_1 => 1.0 / 15.0 + 1.0 / 512.0,
        BlockType::Q4_0 => 1.0 / 8.0 + 1.0 / 1024.0,
        // The step from 4 to 6, or a value of 7.99 in units of the scale.
        BlockType::Mxfp4 => 1.0 / 4.0 + 1.0 / 1024.0,
        BlockType::Tq1_0 | BlockType::Tq2_0 => 1.0 / 2.0 + 1.0 / 1024.0,
        BlockType::Q6K => 0.08,
        BlockType::Q5K => 0.12,
        BlockType::Q4K | BlockType::Iq4Nl | BlockType::Iq4Xs => 0.25,
        BlockType::Q3K => 0.5,
        BlockType::Q2K => 1.0,
        // Exact, or not written.
        _ => 0.0,
    }
}

/// Opens the file of a report and compares it with what it was made from.
///
/// Tensors: names, order, shapes, types, and that sampled rows decode close to the source ([`error_bound`]). Metadata:
/// every key of the source, tokenizer and chat template included, except those that quantization sets. Tokens: equal
/// ids for `texts` and a few of our own.
///
/// # Errors
///
/// [`QuantizeError::Verify`] with the first difference.
pub fn verify(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    report: &QuantizeReport,
    texts: &[String],
) -> Result<Verification, QuantizeError> {
    let path = &report.path;
    let written = Model::open(path)?;
    compare_headers(path, &written, &report.tensors)?;
    let metadata_keys = compare_metadata(path, &with_template_of(model, adapter), written.metadata())?;
    let (rows, largest_error) = compare_rows(path, model, adapter, &written, &report.tensors)?;
    let texts = compare_tokens(path, (model, adapter), &written, texts)?;
    Ok(Verification { tensors: report.tensors.len(), rows, largest_error, metadata_keys, texts })
}

fn failed(path: &Path, problem: String) -> QuantizeError {
    QuantizeError::Verify { path: path.to_owned(), problem }
}

/// Opens a folder that is complete but for its name and compares it with what it was made from: names, shapes and types of
/// all tensors, sampled rows, token ids and the chat template.
pub(crate) fn verify_folder(
    folder: &Path,
    model: &Model,
    adapter: Option<&LoraAdapter>,
    tensors: &[TensorReport],
    texts: &[String],
) -> Result<Verification, QuantizeError> {
    let written = Model::open(folder)?;
    for expected in tensors {
        let found = written.tensor(&expected.name)?.info();
        // A vector may be read as another type than it has in the file: norms of Gemma 3 are stored without their 1.
        let same_type = found.block_type == expected.to || found.rows == 1;
        if found.dimensions != expected.dimensions || !same_type {
            let problem = format!("tensor {:?} is {:?} {}", expected.name, found.dimensions, found.block_type.name());
            return Err(failed(folder, problem));
        }
    }
    let (rows, largest_error) = compare_rows(folder, model, adapter, &written, tensors)?;
    let texts = compare_tokens(folder, (model, adapter), &written, texts)?;
    Ok(Verification { tensors: tensors.len(), rows, largest_error, metadata_keys: 0, texts })
}

fn compare_headers(path: &Path, written: &Model, expected: &[TensorReport]) -> Result<(), QuantizeError> {
    let count = written.tensors().count();
    if count != expected.len() {
        return Err(failed(path, format!("it holds {count} tensors, not {}", expected.len())));
    }
    for (info, expected) in written.tensors().zip(expected) {
        if info.name != expected.name || info.dimensions != expected.dimensions || info.block_type != expected.to {
            return Err(failed(
                path,
                format!(
                    "tensor {:?} {:?} {} stands where {:?} {:?} {} should",
                    info.name,
                    info.dimensions,
                    info.block_type.name(),
                    expected.name,
                    expected.dimensions,
                    expected.to.name()
                ),
            ));
        }
    }
    Ok(())
}

/// Number of keys compared.
fn compare_metadata(path: &Path, source: &Metadata, written: &Metadata) -> Result<usize, QuantizeError> {
    let mut compared = 0;
    for (key, value) in source.iter() {
        let set_here = ["general.file_type", "general.quantization_version", "general.alignment"].contains(&key)
            || key.starts_with("split.")
            || Provenance::owns(key)
            || ImportanceSource::owns(key);
        if set_here {
            continue;
        }
        match written.get(key) {
            Some(other) if other == value => compared += 1,
            Some(_) => {
                return Err(failed(path, format!("metadata key {key:?} has another value than the source")));
            }
            None => {
                return Err(failed(path, format!("metadata key {key:?} of the source is missing")));
            }
        }
    }
    Ok(compared)
}

/// Number of rows compared, and the largest error as a part of its block.
fn compare_rows(
    path: &Path,
    model: &Model,
    adapter: Option<&LoraAdapter>,
    written: &Model,
    tensors: &[TensorReport],
) -> Result<(usize, Option<(String, f32)>), QuantizeError> {
    let mut rows = 0;
    let mut largest: Option<(String, f32)> = None;
    for tensor in tensors {
        let source = model.tensor(&tensor.name)?;
        let copy = written.tensor(&tensor.name)?;
        if let (Some(source), Some(copy)) = (source.raw(), copy.raw())
            && tensor.from == tensor.to
            && !tensor.merged
        {
            if source != copy {
                return Err(failed(path, format!("tensor {:?} is not the copy that it should be", tensor.name)));
            }
            continue;
        }
        let module = adapter.and_then(|adapter| MergedModule::of(adapter, &tensor.name));
        for row in sampled_rows(source.info().rows) {
            let error = row_error(&source, module, &copy, tensor.to, row)?;
            rows += 1;
            let bound = if tensor.weighed || tensor.refined { WEIGHED_BOUND } else { error_bound(tensor.to) };
            if error > bound {
                return Err(failed(
                    path,
                    format!(
                        "row {row} of tensor {:?} ({}) is off by {error:.3} of its largest weight, more than {bound:.3}",
                        tensor.name,
                        tensor.to.name(),
                    ),
                ));
            }
            if largest.as_ref().is_none_or(|(_, largest)| error > *largest) {
                largest = Some((tensor.name.clone(), error));
            }
        }
    }
    Ok((rows, largest))
}

/// First, last, and evenly spread between them.
fn sampled_rows(rows: usize) -> impl Iterator<Item = usize> {
    let count = SAMPLED_ROWS.min(rows);
    (0..count).map(move |sample| if count < 2 { 0 } else { sample * (rows - 1) / (count - 1) })
}

/// The largest difference in a row, each as a part of the largest magnitude in its block.
fn row_error(
    source: &Tensor<'_>,
    module: Option<MergedModule<'_>>,
    copy: &Tensor<'_>,
    block_type: BlockType,
    row: usize,
) -> Result<f32, QuantizeError> {
    let columns = source.info().columns;
    let mut expected = vec![0.0; columns];
    read_rows(source, module, row, &mut expected)?;
    let mut decoded = vec![0.0; columns];
    copy.row(row, &mut decoded)?;
    Ok(relative_error(block_type, &expected, &decoded))
}

/// The largest difference, as a part of the largest magnitude in its block; infinite for what is no number.
///
/// A difference that comes from the scale's own spacing near zero does not count: half precision steps by 2^-24 there,
/// and no format can do better with weights that small.
pub fn relative_error(block_type: BlockType, expected: &[f32], decoded: &[f32]) -> f32 {
    let block = block_type.block_size();
    let slack = greatest_factor(block_type) / (1 << 25) as f32;
    let mut largest: f32 = 0.0;
    for (expected, decoded) in expected.chunks(block).zip(decoded.chunks(block)) {
        let magnitude = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        for (expected, decoded) in expected.iter().zip(decoded) {
            let difference = (expected - decoded).abs();
            if !difference.is_finite() {
                return f32::INFINITY;
            }
            if difference > slack {
                largest = largest.max((difference - slack) / magnitude);
            }
        }
    }
    largest
}

/// The greatest number by which a format multiplies its half-precision scales, over all of them.
fn greatest_factor(block_type: BlockType) -> f32 {
    match block_type {
        BlockType::F16 | BlockType::Tq1_0 | BlockType::Tq2_0 => 1.0,
        BlockType::Q4_0 => 8.0,
        BlockType::Q4_1 | BlockType::Q5_0 => 16.0,
        BlockType::Q5_1 => 32.0,
        BlockType::Q8_0 | BlockType::Iq4Nl => 127.0,
        BlockType::Q2K => 15.0 * 3.0 + 15.0,
        BlockType::Q3K => 32.0 * 4.0,
        BlockType::Q4K => 63.0 * 15.0 + 63.0,
        BlockType::Q5K => 63.0 * 31.0 + 63.0,
        BlockType::Q6K => 128.0 * 32.0,
        BlockType::Iq4Xs => 32.0 * 127.0,
        // No half-precision scale, or not written.
        _ => 0.0,
    }
}

/// Number of texts compared.
fn compare_tokens(
    path: &Path,
    (model, adapter): (&Model, Option<&LoraAdapter>),
    written: &Model,
    texts: &[String],
) -> Result<usize, QuantizeError> {
    let mut compared = 0;
    for text in TEXTS.into_iter().chain(texts.iter().map(String::as_str)) {
        for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
            if model.tokenizer().encode(text, special) != written.tokenizer().encode(text, special) {
                let start: String = text.chars().take(40).collect();
                return Err(failed(
                    path,
                    format!("the text that starts {start:?} has other token ids than in the source"),
                ));
            }
        }
        compared += 1;
    }
    let wanted = model.chat_template_source(adapter).unwrap_or(model.chat_template().source());
    if wanted != written.chat_template().source() {
        return Err(failed(path, "its chat template is not that of the source or the adapter".to_owned()));
    }
    Ok(compared)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;
    use crate::encode::ENCODABLE;

    #[test]
    fn rows_are_spread_over_the_tensor() {
        assert_eq!(sampled_rows(1).collect::<Vec<_>>(), [0]);
        assert_eq!(sampled_rows(3).collect::<Vec<_>>(), [0, 1, 2]);
        let rows: Vec<_> = sampled_rows(1000).collect();
        assert_eq!((rows[0], rows[7], rows.len()), (0, 999, 8));
        assert_eq!(sampled_rows(0).count(), 0);
    }

    #[test]
    fn every_type_that_loses_something_has_a_bound() {
        for block_type in BlockType::ALL {
            let loses = ENCODABLE.contains(&block_type) && block_type != BlockType::F32;
            assert_eq!(error_bound(block_type) > 0.0, loses, "{block_type:?}");
        }
    }

    #[test]
    fn errors_are_measured_within_their_block() {
        let mut expected = [0.001_f32; 64];
        expected[40] = 10.0;
        let mut decoded = expected;
        decoded[3] += 0.0005;
        decoded[41] += 0.5;
        assert!((relative_error(BlockType::Q8_0, &expected, &decoded) - 0.5).abs() < 1e-2);
        decoded[50] = f32::NAN;
        assert_eq!(relative_error(BlockType::Q8_0, &expected, &decoded), f32::INFINITY);
    }
}
