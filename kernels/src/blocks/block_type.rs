//! The element types of GGUF tensors that Espalier reads.

use super::{
    BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs, BlockIq4Nl, BlockIq4Xs,
    BlockMxfp4, BlockNvfp4, BlockQ1_0, BlockQ2_0, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, BlockTq1_0, BlockTq2_0, K_BLOCK, LEGACY_BLOCK, NVFP4_BLOCK, Q1_0_BLOCK,
    Q2_0_BLOCK,
};

/// Element type of a GGUF tensor: every one of llama.cpp's weights.
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
    /// 4 bits on uneven levels, one scale for 32 elements.
    Iq4Nl,
    /// 4 bits on uneven levels, 6-bit scales for groups of 32 in a block of 256.
    Iq4Xs,
    /// 4-bit floats, one power of two for 32 elements.
    Mxfp4,
    /// 4-bit floats, 8-bit float scales for groups of 16 in a block of 64. Only read.
    Nvfp4,
    /// Three levels, five elements in a byte, one scale for 256.
    Tq1_0,
    /// Three levels in 2 bits, one scale for 256 elements.
    Tq2_0,
    /// Signs, one scale for 128 elements. Only read.
    Q1_0,
    /// 2 bits, one scale for 64 elements. Only read.
    Q2_0,
    /// Points of a table, 1.56 bits. Only read.
    Iq1S,
    /// Points of a table, 1.75 bits. Only read.
    Iq1M,
    /// Points of a table, 2.06 bits. Only read.
    Iq2Xxs,
    /// Points of a table, 2.31 bits. Only read.
    Iq2Xs,
    /// Points of a table, 2.56 bits. Only read.
    Iq2S,
    /// Points of a table, 3.06 bits. Only read.
    Iq3Xxs,
    /// Points of a table, 3.44 bits. Only read.
    Iq3S,
}

impl BlockType {
    /// Every type, in the order of the declaration.
    pub const ALL: [Self; 28] = [
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
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
        Self::Nvfp4,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::Q1_0,
        Self::Q2_0,
        Self::Iq1S,
        Self::Iq1M,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq2S,
        Self::Iq3Xxs,
        Self::Iq3S,
    ];

    /// Name, id that GGUF stores, elements and bytes of a block.
    const fn facts(self) -> (&'static str, u32, usize, usize) {
        match self {
            Self::F32 => ("F32", 0, 1, 4),
            Self::F16 => ("F16", 1, 1, 2),
            Self::Bf16 => ("BF16", 30, 1, 2),
            Self::Q4_0 => ("Q4_0", 2, LEGACY_BLOCK, size_of::<BlockQ4_0>()),
            Self::Q4_1 => ("Q4_1", 3, LEGACY_BLOCK, size_of::<BlockQ4_1>()),
            Self::Q5_0 => ("Q5_0", 6, LEGACY_BLOCK, size_of::<BlockQ5_0>()),
            Self::Q5_1 => ("Q5_1", 7, LEGACY_BLOCK, size_of::<BlockQ5_1>()),
            Self::Q8_0 => ("Q8_0", 8, LEGACY_BLOCK, size_of::<BlockQ8_0>()),
            Self::Q2K => ("Q2_K", 10, K_BLOCK, size_of::<BlockQ2K>()),
            Self::Q3K => ("Q3_K", 11, K_BLOCK, size_of::<BlockQ3K>()),
            Self::Q4K => ("Q4_K", 12, K_BLOCK, size_of::<BlockQ4K>()),
            Self::Q5K => ("Q5_K", 13, K_BLOCK, size_of::<BlockQ5K>()),
            Self::Q6K => ("Q6_K", 14, K_BLOCK, size_of::<BlockQ6K>()),
            Self::Iq4Nl => ("IQ4_NL", 20, LEGACY_BLOCK, size_of::<BlockIq4Nl>()),
            Self::Iq4Xs => ("IQ4_XS", 23, K_BLOCK, size_of::<BlockIq4Xs>()),
            Self::Mxfp4 => ("MXFP4", 39, LEGACY_BLOCK, size_of::<BlockMxfp4>()),
            Self::Nvfp4 => ("NVFP4", 40, NVFP4_BLOCK, size_of::<BlockNvfp4>()),
            Self::Tq1_0 => ("TQ1_0", 34, K_BLOCK, size_of::<BlockTq1_0>()),
            Self::Tq2_0 => ("TQ2_0", 35, K_BLOCK, size_of::<BlockTq2_0>()),
            Self::Q1_0 => ("Q1_0", 41, Q1_0_BLOCK, size_of::<BlockQ1_0>()),
            Self::Q2_0 => ("Q2_0", 42, Q2_0_BLOCK, size_of::<BlockQ2_0>()),
            Self::Iq1S => ("IQ1_S", 19, K_BLOCK, size_of::<BlockIq1S>()),
            Self::Iq1M => ("IQ1_M", 29, K_BLOCK, size_of::<BlockIq1M>()),
            Self::Iq2Xxs => ("IQ2_XXS", 16, K_BLOCK, size_of::<BlockIq2Xxs>()),
            Self::Iq2Xs => ("IQ2_XS", 17, K_BLOCK, size_of::<BlockIq2Xs>()),
            Self::Iq2S => ("IQ2_S", 22, K_BLOCK, size_of::<BlockIq2S>()),
            Self::Iq3Xxs => ("IQ3_XXS", 18, K_BLOCK, size_of::<BlockIq3Xxs>()),
            Self::Iq3S => ("IQ3_S", 21, K_BLOCK, size_of::<BlockIq3S>()),
        }
    }

    /// The type with the id that GGUF stores (`ggml_type`), if there is one.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|block_type| block_type.ggml_id() == id)
    }

    /// The id that GGUF stores (`ggml_type`).
    pub const fn ggml_id(self) -> u32 {
        self.facts().1
    }

    /// The usual name of the type, for example `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// Elements in one block.
    pub const fn block_size(self) -> usize {
        self.facts().2
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.facts().3
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
        // 4 and 5 were removed from the format; 9 and 15 are of activations, 24 to 28 of integers and doubles.
        for id in [4, 5, 9, 15, 24, 28, 31, 43, 1000] {
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
            (32, 18),
            (256, 136),
            (32, 17),
            (64, 36),
            (256, 54),
            (256, 66),
            (128, 18),
            (64, 18),
            (256, 50),
            (256, 56),
            (256, 66),
            (256, 74),
            (256, 82),
            (256, 98),
            (256, 110),
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
