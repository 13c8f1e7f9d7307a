//! The fixed mixes of block types by which GGUF files are known.

use std::fmt;
use std::str::FromStr;

use espalier_kernels::BlockType;

use crate::QuantizeError;
use crate::encode::ENCODABLE;

/// A mix of block types, named as llama-quantize names it.
#[allow(non_camel_case_types, reason = "the names of the mixes carry underscores")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileType {
    /// 32-bit floats.
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8.5 bits a weight.
    Q8_0,
    /// 4.5 bits a weight.
    Q4_0,
    /// 5 bits a weight.
    Q4_1,
    /// 5.5 bits a weight.
    Q5_0,
    /// 6 bits a weight.
    Q5_1,
    /// 4.5 bits a weight on uneven levels, with more for the first down projections where there is no importance matrix.
    IQ4_NL,
    /// 4.25 bits a weight on uneven levels, otherwise as `IQ4_NL`.
    IQ4_XS,
    /// `MXFP4` for experts, `Q8_0` for all else.
    MXFP4_MOE,
    /// Three levels, 1.69 bits a weight.
    TQ1_0,
    /// Three levels, 2.06 bits a weight.
    TQ2_0,
    /// `Q2_K` with more for values, outputs and down projections.
    Q2_K,
    /// `Q2_K` almost throughout; takes an importance matrix.
    Q2_K_S,
    /// `Q3_K` throughout.
    Q3_K_S,
    /// `Q3_K` with `Q4_K` and `Q5_K` where it matters.
    Q3_K_M,
    /// `Q3_K` with `Q5_K` where it matters.
    Q3_K_L,
    /// `Q4_K` with `Q5_K` in the first layers.
    Q4_K_S,
    /// `Q4_K` with `Q6_K` where it matters.
    Q4_K_M,
    /// `Q5_K` throughout.
    Q5_K_S,
    /// `Q5_K` with `Q6_K` where it matters.
    Q5_K_M,
    /// `Q6_K` throughout.
    Q6_K,
}

impl FileType {
    /// Every mix, in the order of the declaration.
    pub const ALL: [Self; 23] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::MXFP4_MOE,
        Self::TQ1_0,
        Self::TQ2_0,
        Self::Q2_K,
        Self::Q2_K_S,
        Self::Q3_K_S,
        Self::Q3_K_M,
        Self::Q3_K_L,
        Self::Q4_K_S,
        Self::Q4_K_M,
        Self::Q5_K_S,
        Self::Q5_K_M,
        Self::Q6_K,
    ];

    /// Name, id of `general.file_type`, type of a tensor that no rule singles out.
    const fn facts(self) -> (&'static str, u32, BlockType) {
        match self {
            Self::F32 => ("F32", 0, BlockType::F32),
            Self::F16 => ("F16", 1, BlockType::F16),
            Self::Bf16 => ("BF16", 32, BlockType::Bf16),
            Self::Q8_0 => ("Q8_0", 7, BlockType::Q8_0),
            Self::Q4_0 => ("Q4_0", 2, BlockType::Q4_0),
            Self::Q4_1 => ("Q4_1", 3, BlockType::Q4_1),
            Self::Q5_0 => ("Q5_0", 8, BlockType::Q5_0),
            Self::Q5_1 => ("Q5_1", 9, BlockType::Q5_1),
            Self::IQ4_NL => ("IQ4_NL", 25, BlockType::Iq4Nl),
            Self::IQ4_XS => ("IQ4_XS", 30, BlockType::Iq4Xs),
            Self::MXFP4_MOE => ("MXFP4_MOE", 38, BlockType::Mxfp4),
            Self::TQ1_0 => ("TQ1_0", 36, BlockType::Tq1_0),
            Self::TQ2_0 => ("TQ2_0", 37, BlockType::Tq2_0),
            Self::Q2_K => ("Q2_K", 10, BlockType::Q2K),
            Self::Q2_K_S => ("Q2_K_S", 21, BlockType::Q2K),
            Self::Q3_K_S => ("Q3_K_S", 11, BlockType::Q3K),
            Self::Q3_K_M => ("Q3_K_M", 12, BlockType::Q3K),
            Self::Q3_K_L => ("Q3_K_L", 13, BlockType::Q3K),
            Self::Q4_K_S => ("Q4_K_S", 14, BlockType::Q4K),
            Self::Q4_K_M => ("Q4_K_M", 15, BlockType::Q4K),
            Self::Q5_K_S => ("Q5_K_S", 16, BlockType::Q5K),
            Self::Q5_K_M => ("Q5_K_M", 17, BlockType::Q5K),
            Self::Q6_K => ("Q6_K", 18, BlockType::Q6K),
        }
    }

    /// The name, as in a file name and on the command line.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The number that GGUF stores under `general.file_type`.
    pub const fn ggml_id(self) -> u32 {
        self.facts().1
    }

    /// The type of a tensor that no rule singles out.
    pub const fn default_block_type(self) -> BlockType {
        self.facts().2
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FileType {
    type Err = QuantizeError;

    /// Reads a name in any case; `Q3_K`, `Q4_K` and `Q5_K` are their `_M` mixes, as in llama-quantize.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let upper = name.to_ascii_uppercase();
        let full = match upper.as_str() {
            "Q3_K" | "Q4_K" | "Q5_K" => format!("{upper}_M"),
            _ => upper,
        };
        Self::ALL.into_iter().find(|file_type| file_type.name() == full).ok_or_else(|| QuantizeError::UnknownFileType {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

impl serde::Serialize for FileType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for FileType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// The block type with this name (`Q4_K`, in any case), if it can be written.
///
/// # Errors
///
/// In words, with the names of those that can.
pub fn encodable_type(name: &str) -> Result<BlockType, String> {
    let known = || ENCODABLE.map(BlockType::name).join(", ");
    let found = BlockType::ALL.into_iter().find(|block_type| block_type.name().eq_ignore_ascii_case(name));
    match found {
        None => Err(format!("unknown type {name:?}, known are {}", known())),
        Some(block_type) if ENCODABLE.contains(&block_type) => Ok(block_type),
        Some(block_type) => Err(format!("{block_type} is only read, not written; choose one of {}", known())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for file_type in FileType::ALL {
            assert_eq!(file_type.name().to_lowercase().parse::<FileType>().unwrap(), file_type);
        }
        assert_eq!("q4_k".parse::<FileType>().unwrap(), FileType::Q4_K_M);
        let error = "Q9".parse::<FileType>().unwrap_err().to_string();
        assert!(error.contains("Q4_K_M"), "{error}");
    }

    #[test]
    fn types_that_are_only_read_cannot_be_asked_for() {
        for block_type in BlockType::ALL {
            let written = ENCODABLE.contains(&block_type);
            assert_eq!(encodable_type(&block_type.name().to_lowercase()).is_ok(), written, "{block_type}");
            let mut out = Vec::new();
            assert_eq!(crate::encode::encode(block_type, &[0.5; 256], None, &mut out).is_ok(), written, "{block_type}");
        }
        let error = encodable_type("iq3_s").unwrap_err();
        assert!(error.contains("only read") && error.contains("IQ4_XS"), "{error}");
        assert!(encodable_type("Q9").unwrap_err().contains("unknown type"));
    }
}
