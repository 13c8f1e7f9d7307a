//! What a run needs of memory, planned before its first step.
//!
//! All figures follow from the model, the data and the settings, never from what happens to be free: micro-batches of
//! another size add in another order. The largest micro-batch of a run comes in its first step, so that memory that does
//! not suffice shows there and not an hour later.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use espalier_model::Model;
use espalier_nn::DeviceName;
use espalier_nn::ops::teacher_tokens::TeacherTokens;
use espalier_nn::transformer::{BaseWeights, DeviceTransformer, FrozenTransformer, StepMemory};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::forgetting::Slice;
use crate::run_data::{Divided, RunData};
use crate::start::Start;
use crate::{TrainConfig, TrainError};

/// Rows that go through the network at one time where memory allows: more would only cost memory.
pub const MICRO_BATCH_ROWS: usize = 2048;
/// Fewer rows than this read the weights too often: blocks are rather computed twice.
const EFFICIENT_ROWS: usize = 512;
/// The program itself, with the scratch memory of its threads.
const PROGRAM_BYTES: usize = 36_000_000;
/// The tokenizer, by entry of its vocabulary.
const TOKENIZER_ENTRY_BYTES: usize = 400;
/// A token of the data: its id, its weight, and the text that it came from.
const DATA_TOKEN_BYTES: usize = 16;
/// The teacher's table as it was read lies behind what was taken from it: its many small pieces do not go back to the system.
const TABLE_COPIES: usize = 1;
/// A token and a logarithm of the teacher.
const TEACHER_ENTRY_BYTES: usize = 8;
/// Those of a micro-batch grow by doubling.
const TEACHER_COPIES: usize = 2;

/// A number of bytes, written as `4GB`, `512 MB` or `3GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

const UNITS: [(&str, f64); 7] = [
    ("kib", 1024.0),
    ("mib", 1024.0 * 1024.0),
    ("gib", 1024.0 * 1024.0 * 1024.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("b", 1.0),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = || format!("{text:?} is no amount of memory; write it as 4GB, 512MB or 3GiB");
        let lower = text.trim().to_lowercase();
        let (number, unit) =
            UNITS.iter().find_map(|(name, unit)| Some((lower.strip_suffix(name)?, unit))).ok_or_else(problem)?;
        let number: f64 = number.trim().parse().map_err(|_| problem())?;
        if !number.is_finite() || number <= 0.0 {
            return Err(problem());
        }
        Ok(Self((number * unit) as usize))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000_000 => write!(formatter, "{:.1} kB", self.0 as f64 / 1e3),
            1_000_000..1_000_000_000 => write!(formatter, "{:.1} MB", self.0 as f64 / 1e6),
            _ => write!(formatter, "{:.2} GB", self.0 as f64 / 1e9),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}B", self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_str(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPart {
    /// What it is for.
    pub name: &'static str,
    /// Bytes.
    pub bytes: usize,
}

/// What a run needs, and how it keeps to its limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Rows of the largest micro-batch.
    pub micro_batch_rows: usize,
    /// Blocks of the model.
    pub layers: usize,
    /// Blocks that run forward again in the backward pass.
    pub recomputed_layers: usize,
    /// Bytes that a block keeps for a row.
    pub kept_per_row: usize,
    /// Where the memory goes.
    pub parts: Vec<MemoryPart>,
    /// Bytes in all: the most that the process takes.
    pub total: usize,
    /// What it was allowed.
    pub limit: Option<usize>,
    /// The device whose memory this is an estimate of; none on the CPU, where the process takes no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_on: Option<DeviceName>,
}

/// What a plan is made from.
pub(crate) struct Needs {
    program: usize,
    file: usize,
    weights: usize,
    /// What a teacher thinks of all rows.
    teacher: usize,
    /// The same in a micro-batch, for each of its rows.
    teacher_row: usize,
    device: DeviceName,
    step: StepMemory,
    /// Places of general text of which the base's states are kept.
    places: usize,
    /// Rows of the longest sequence: no micro-batch is smaller.
    longest: usize,
    /// Rows of an epoch: no micro-batch is larger.
    epoch: usize,
}

impl Needs {
    /// Of a run on `data`, divided, with a look at a slice of general text, before its base is loaded.
    ///
    /// # Errors
    ///
    /// A model that lacks a tensor, or has one of another shape.
    pub(crate) fn new(
        model: &Model,
        config: &TrainConfig,
        start: &Start,
        data: &RunData,
        divided: &Divided<'_>,
        slice: Option<&Slice<'_>>,
    ) -> Result<Self, TrainError> {
        let tensor = |info: &espalier_model::TensorInfo| {
            info.rows * info.block_type.row_bytes(info.columns).unwrap_or(4 * info.columns)
        };
        let (precision, base_weights) = (config.precision, config.base_weights);
        let (modules, dora) = start.modules(config, model)?;
        let rows = || divided.rows.rows.iter().chain(&divided.held_out.rows);
        let longest = rows().map(|row| row.tokens.len()).chain(slice.map(Slice::longest)).max();
        let vocabulary = TOKENIZER_ENTRY_BYTES * model.config().vocabulary;
        // Rows are divided by copying them.
        let copies = if matches!(divided.rows, Cow::Owned(_)) { 2 } else { 1 };
        let taught = || rows().filter_map(|row| row.teacher.as_ref());
        let top = taught().flat_map(|teacher| teacher.iter().map(|(tokens, _)| tokens.len())).max();
        let often = |row| divided.rows.often(row).ceil() as usize;
        let epoch = divided.rows.rows.iter().map(|row| (row.tokens.len() - 1) * often(row));
        Ok(Self {
            program: PROGRAM_BYTES + vocabulary + copies * DATA_TOKEN_BYTES * data.tokens(),
            teacher: (copies + TABLE_COPIES) * taught().map(TeacherTokens::bytes).sum::<usize>(),
            teacher_row: top.map_or(0, |top| TEACHER_COPIES * TEACHER_ENTRY_BYTES * (top + 1)),
            // Stored weights are the mapped file.
            file: match base_weights {
                BaseWeights::Stored => 0,
                BaseWeights::Packed => model.tensors().map(tensor).sum(),
            },
            weights: match config.device {
                DeviceName::Cpu => FrozenTransformer::planned_bytes(model, precision, base_weights)?,
                _ => DeviceTransformer::planned_bytes(model.config(), precision),
            },
            device: config.device,
            step: match config.device {
                DeviceName::Cpu => StepMemory::of_updates(model, precision, base_weights, &modules, dora)?,
                _ => StepMemory::on_device(model.config(), &modules, dora)?,
            },
            places: slice.map_or(0, |slice| slice.tokens),
            epoch: epoch.sum(),
            longest: longest.map_or(1, |tokens| tokens - 1),
        })
    }

    fn plan(&self, micro_batch_rows: usize, recomputed_layers: usize, limit: Option<usize>) -> MemoryPlan {
        let step = self.step.of(micro_batch_rows, recomputed_layers);
        let part = |name, bytes| MemoryPart { name, bytes };
        // The memory of a device holds nothing but what it computes with.
        let on_device = self.device != DeviceName::Cpu;
        let mut parts = Vec::new();
        if !on_device {
            parts.push(part("program, tokenizer and rows", self.program));
            parts.push(part("model file, mapped while it is read", self.file));
        }
        parts.extend([
            part("frozen weights", self.weights),
            part("adapter, gradients and moments", step.adapter),
            part("activations kept for the backward pass", step.activations),
            part("the block at work", step.block),
            part("hidden states and a chunk of logits", step.head),
        ]);
        if self.places > 0 {
            let bytes = self.step.divergence(micro_batch_rows, self.places);
            parts.push(part("what the base thinks of general text", bytes));
        }
        if self.teacher > 0 && !on_device {
            parts.push(part("the teacher's probabilities", self.teacher + self.teacher_row * micro_batch_rows));
        }
        MemoryPlan {
            micro_batch_rows,
            layers: self.step.layers(),
            recomputed_layers,
            kept_per_row: self.step.kept_per_row(),
            total: parts.iter().map(|part| part.bytes).sum(),
            parts,
            limit,
            estimated_on: on_device.then_some(self.device),
        }
    }

    /// The plan under the limit of the settings: smaller micro-batches down to 512 rows first, then as many blocks
    /// computed twice as needed, then micro-batches down to the longest sequence.
    ///
    /// # Errors
    ///
    /// A limit that the smallest plan does not keep.
    pub(crate) fn choose(&self, config: &TrainConfig) -> Result<MemoryPlan, TrainError> {
        let largest = config.tokens_per_step.min(MICRO_BATCH_ROWS).min(self.epoch).max(self.longest);
        let Some(limit) = config.memory.map(|bytes| bytes.0) else {
            return Ok(self.plan(largest, 0, None));
        };
        let mut sizes: Vec<usize> = std::iter::successors(Some(largest), |rows| Some(rows / 2))
            .take_while(|&rows| rows > self.longest)
            .collect();
        sizes.push(self.longest);
        let efficient = sizes.iter().take_while(|&&rows| rows >= EFFICIENT_ROWS).count().max(1);
        let plain = sizes[..efficient].iter().map(|&rows| (rows, 0));
        let again = (1..=self.step.layers()).map(|layers| (sizes[efficient - 1], layers));
        let smaller = sizes[efficient..].iter().map(|&rows| (rows, self.step.layers()));
        let mut plans = plain.chain(again).chain(smaller).map(|(rows, layers)| self.plan(rows, layers, Some(limit)));
        plans.find(|plan| plan.total <= limit).ok_or_else(|| {
            let least = self.plan(self.longest, self.step.layers(), Some(limit));
            TrainError::Memory {
                limit: Bytes(limit),
                needed: Bytes(least.total),
                longest: self.longest,
                largest: least.largest(),
            }
        })
    }
}

impl MemoryPlan {
    /// The plan as lines of a table.
    pub fn table(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.parts.iter().map(|part| format!("{:>10}  {}", Bytes(part.bytes).to_string(), part.name)).collect();
        let limit = self.limit.map(|limit| format!(" of {} allowed", Bytes(limit))).unwrap_or_default();
        let bound = match self.estimated_on {
            Some(device) => format!("of {device}, about (an estimate)"),
            None => "at most".to_owned(),
        };
        let again = match self.recomputed_layers {
            0 => String::new(),
            again => format!(", {again} of {} blocks computed twice", self.layers),
        };
        lines.push(format!(
            "{:>10}  {bound}{limit}, in micro-batches of {} rows{again}",
            Bytes(self.total).to_string(),
            self.micro_batch_rows
        ));
        lines
    }

    /// The two largest parts, in words.
    fn largest(&self) -> String {
        let mut parts = self.parts.clone();
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        let words: Vec<String> =
            parts.iter().take(2).map(|part| format!("{} {}", part.name, Bytes(part.bytes))).collect();
        words.join(", ")
    }
}

/// The memory of this process: now, and the most so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// Bytes now.
    pub now: usize,
    /// Bytes at most.
    pub peak: usize,
}

impl Resident {
    /// As the system counts it (Linux); `None` elsewhere.
    pub fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| -> Option<usize> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(1024 * line.split_whitespace().nth(1)?.parse::<usize>().ok()?)
        };
        Some(Self { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        for (text, bytes) in [("4GB", 4_000_000_000), ("512 mb", 512_000_000), ("1.5GiB", 1_610_612_736), ("7B", 7)] {
            let read: Bytes = text.parse().unwrap();
            assert_eq!(read, Bytes(bytes), "{text}");
            let again: Bytes = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            assert_eq!(again, read);
        }
        for text in ["4", "GB", "-1GB", "many", "0MB"] {
            assert!(text.parse::<Bytes>().unwrap_err().contains("write it as 4GB"), "{text}");
        }
    }
}
