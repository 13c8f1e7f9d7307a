//! Safetensors files, mapped and checked.

use std::ops::Range;
use std::path::Path;

use espalier_kernels::{BlockType, blocks};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;
use crate::mapped_file::map_file;

/// One tensor of a safetensors file.
#[derive(Debug)]
pub(crate) struct SafeTensor {
    pub(crate) name: String,
    /// As torch has it: the row length last.
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: Dtype,
    /// Its bytes in the file.
    pub(crate) bytes: Range<usize>,
}

impl SafeTensor {
    /// The type of its elements where it is one of those that weights are read from.
    pub(crate) fn block_type(&self) -> Result<BlockType, ModelError> {
        match self.dtype {
            Dtype::F32 => Ok(BlockType::F32),
            Dtype::F16 => Ok(BlockType::F16),
            Dtype::BF16 => Ok(BlockType::Bf16),
            other => Err(ModelError::invalid(
                format!("tensor {:?}", self.name),
                format!("its type is {other:?}; F32, F16 and BF16 are read"),
                "use the unquantized weights of the model",
            )),
        }
    }
}

/// Opens a file; its tensors come in the order of their data.
pub(crate) fn open(path: &Path) -> Result<(Mmap, Vec<SafeTensor>), ModelError> {
    let map = map_file(path)?;
    let tensors = parse(&map).map_err(|error| error.in_file(path))?;
    Ok((map, tensors))
}

/// Reads and checks the header: the library refuses overlaps, holes and offsets beyond the end.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<SafeTensor>, ModelError> {
    let damaged = |error: safetensors::SafeTensorError| ModelError::Format {
        offset: 0,
        expected: "a safetensors header with the places of all tensors".to_owned(),
        found: format!("a file that contradicts it ({error})"),
        remedy: DOWNLOAD_AGAIN.to_owned(),
    };
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    // Eight bytes of length stand before the header.
    let data = header + 8;
    let mut tensors: Vec<SafeTensor> = Vec::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        // The library adds offsets up without looking for an overflow, so they are checked here once more.
        let place = data.checked_add(start).zip(data.checked_add(end));
        let Some((start, end)) = place.filter(|&(start, end)| start <= end && end <= bytes.len()) else {
            return Err(ModelError::format(
                0,
                format!("the data of tensor {name:?} within the {} bytes of the file", bytes.len()),
                format!("offsets {start} to {end}"),
            ));
        };
        let (shape, dtype) = (info.shape.clone(), info.dtype);
        tensors.push(SafeTensor { name, shape, dtype, bytes: start..end });
    }
    tensors.sort_by(|a, b| (a.bytes.start, &a.name).cmp(&(b.bytes.start, &b.name)));
    Ok(tensors)
}

/// Decodes a whole tensor.
pub(crate) fn decode(tensor: &SafeTensor, file: &[u8]) -> Result<Vec<f32>, ModelError> {
    let block_type = tensor.block_type()?;
    let bytes = file.get(tensor.bytes.clone()).unwrap_or_default();
    // The shape was checked against the bytes, so this is no larger than twice the file.
    let mut values = vec![0.0; bytes.len() / block_type.block_bytes()];
    blocks::decode(block_type, bytes, &mut values).map_err(|error| {
        ModelError::invalid(format!("tensor {:?}", tensor.name), error.to_string(), DOWNLOAD_AGAIN.to_owned())
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn random_headers_never_panic(
            start in any::<u64>(), end in any::<u64>(), rows in any::<u64>(), columns in any::<u64>(),
            near in 0_u64..40, swap in any::<bool>(),
        ) {
            let (start, end) = if swap { (near, near * 2) } else { (start, end) };
            let header = format!(
                r#"{{"a":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[{start},{end}]}}}}"#
            );
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(header.as_bytes());
            bytes.resize(bytes.len() + 64, 0);
            if let Ok(tensors) = parse(&bytes) {
                for tensor in tensors {
                    let _ = decode(&tensor, &bytes);
                }
            }
        }
    }
}
