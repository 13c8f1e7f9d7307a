//! The element types of GGUF tensors that Espalier reads.

use super::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, K_BLOCK,
    LEGACY_BLOCK,
};

/// Element type of a GGUF tensor.
#[allow(non_camel_case_types, reason = "the names of the formats carry the underscore")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockType {
    /// 32-bit floats.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper 16 bits of an `f32`.
    Bf16,
    /// 4 bits, one scale for 32 elements.
    Q4_0,
    /// 4 bits, one scale and one minimum for 32 elements.
    Q4_1,
    /// 5 bits, one scale for 32 elements.
    Q5_0,
    /// 5 bits, one scale and one minimum for 32 elements.
    Q5_1,
    /// 8 bits, one scale for 32 elements.
    Q8_0,
    /// 2 bits, 4-bit scales and minima for groups of 16 in a block of 256.
    Q2K,
    /// 3 bits, 6-bit scales for groups of 16 in a block of 256.
    Q3K,
    /// 4 bits, 6-bit scales and minima for groups of 32 in a block of 256.
    Q4K,
    /// 5 bits, 6-bit scales and minima for groups of 32 in a block of 256.
    Q5K,
    /// 6 bits, 8-bit scales for groups of 16 in a block of 256.
    Q6K,
}

impl BlockType {
    /// Every type, in the order of the declaration.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The type with the id that GGUF stores (`ggml_type`), if Espalier reads it.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|block_type| block_type.ggml_id() == id)
    }

    /// The id that GGUF stores (`ggml_type`).
    pub fn ggml_id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// The usual name of the type, for example `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements in one block.
    pub fn block_size(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => LEGACY_BLOCK,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => K_BLOCK,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => size_of::<BlockQ4_0>(),
            Self::Q4_1 => size_of::<BlockQ4_1>(),
            Self::Q5_0 => size_of::<BlockQ5_0>(),
            Self::Q5_1 => size_of::<BlockQ5_1>(),
            Self::Q8_0 => size_of::<BlockQ8_0>(),
            Self::Q2K => size_of::<BlockQ2K>(),
            Self::Q3K => size_of::<BlockQ3K>(),
            Self::Q4K => size_of::<BlockQ4K>(),
            Self::Q5K => size_of::<BlockQ5K>(),
            Self::Q6K => size_of::<BlockQ6K>(),
        }
    }

    /// Bytes of a row of `columns` elements; `None` when the row is not a whole number of blocks, or too long for
    /// the address space.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_size()) {
            return None;
        }
        (columns / self.block_size()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_unknown_ids_are_none() {
        for block_type in BlockType::ALL {
            assert_eq!(BlockType::from_ggml(block_type.ggml_id()), Some(block_type));
        }
        // 4 and 5 were removed from the format; 16 is IQ2_XXS, which is not read.
        for id in [4, 5, 16, 1000] {
            assert_eq!(BlockType::from_ggml(id), None);
        }
    }

    #[test]
    fn sizes_are_those_of_the_format() {
        let sizes: Vec<(usize, usize)> =
            BlockType::ALL.iter().map(|block_type| (block_type.block_size(), block_type.block_bytes())).collect();
        let expected = [
            (1, 4),
            (1, 2),
            (1, 2),
            (32, 18),
            (32, 20),
            (32, 22),
            (32, 24),
            (32, 34),
            (256, 84),
            (256, 110),
            (256, 144),
            (256, 176),
            (256, 210),
        ];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(BlockType::Q4K.row_bytes(576), None);
        assert_eq!(BlockType::Q4K.row_bytes(512), Some(288));
        assert_eq!(BlockType::Q8_0.row_bytes(576), Some(612));
        assert_eq!(BlockType::F16.row_bytes(3), Some(6));
        assert_eq!(BlockType::F32.row_bytes(usize::MAX), None);
    }
}
