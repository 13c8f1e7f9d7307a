//! Where the time of a training step goes, by operation.
//!
//! Always compiled and off by default: an operation then costs one load more. The counts belong to the process; whoever
//! wants those of one step takes the difference of two [`totals`]. No operation is part of another one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What a training step is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Products with frozen weights, forward and backward, the head included, and with the low-rank factors beside them.
    WeightProducts,
    /// Packing of the low-rank factors, their gradients, and the scaling of rows for `DoRA`.
    LowRankUpdates,
    /// Attention without its projections.
    AttentionForward,
    /// Its gradient.
    AttentionBackward,
    /// Norms and their gradients.
    Norms,
    /// Rotation to the positions, parting q, k and v, and the way back.
    Rotation,
    /// The gated activation and its gradient.
    GatedActivation,
    /// Residual sums, biases and copies.
    Additions,
    /// The loss behind the head's products, and its gradient.
    CrossEntropy,
    /// Rows of token vectors.
    Embedding,
    /// Parameters and gradients on their way between the loop and the tape.
    Transfer,
    /// Clipping and the update.
    Optimizer,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::WeightProducts,
        Self::LowRankUpdates,
        Self::AttentionForward,
        Self::AttentionBackward,
        Self::Norms,
        Self::Rotation,
        Self::GatedActivation,
        Self::Additions,
        Self::CrossEntropy,
        Self::Embedding,
        Self::Transfer,
        Self::Optimizer,
    ];

    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::WeightProducts => "weight products",
            Self::LowRankUpdates => "low-rank updates",
            Self::AttentionForward => "attention forward",
            Self::AttentionBackward => "attention backward",
            Self::Norms => "norms",
            Self::Rotation => "rotation, q k v apart",
            Self::GatedActivation => "gated activation",
            Self::Additions => "additions and copies",
            Self::CrossEntropy => "cross-entropy",
            Self::Embedding => "embedding",
            Self::Transfer => "parameters and gradients",
            Self::Optimizer => "optimizer",
        }
    }
}

/// What an operation has to do at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiplications and additions of its products.
    pub arithmetic: u64,
    /// Bytes that it reads and writes, each once.
    pub bytes: u64,
}

impl Cost {
    /// A product `[m, k] x [k, n]` whose operands and result have so many bytes.
    pub fn product(m: usize, n: usize, k: usize, bytes: usize) -> Self {
        Self { arithmetic: 2 * (m * n * k) as u64, bytes: bytes as u64 }
    }

    /// An operation that moves `count` f32 values.
    pub fn values(count: usize) -> Self {
        Self { arithmetic: 0, bytes: (size_of::<f32>() * count) as u64 }
    }
}

/// The sums of one operation since it was counted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Time of the thread that called it.
    pub nanoseconds: u64,
    /// What it had to do.
    pub cost: Cost,
}

/// How operations are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// Not at all.
    #[default]
    Off,
    /// Each call as it comes.
    InStep,
    /// Each call by the median of so many more runs of it, one right behind the other: the operation alone, on the shapes of
    /// the step and with what it reads close at hand. For measurements only: an operation that adds to what is there does
    /// so in each run.
    Alone {
        /// At least 1.
        runs: usize,
    },
}

struct Counter {
    nanoseconds: AtomicU64,
    arithmetic: AtomicU64,
    bytes: AtomicU64,
}

/// 0 where nothing is counted, otherwise one more than the runs of each call behind its first.
static COUNTING: AtomicUsize = AtomicUsize::new(0);
static COUNTERS: [Counter; Operation::ALL.len()] =
    [const { Counter { nanoseconds: AtomicU64::new(0), arithmetic: AtomicU64::new(0), bytes: AtomicU64::new(0) } };
        Operation::ALL.len()];

/// Sets the counting of the whole process.
pub fn count(counting: Counting) {
    let value = match counting {
        Counting::Off => 0,
        Counting::InStep => 1,
        Counting::Alone { runs } => 1 + runs.max(1),
    };
    COUNTING.store(value, Ordering::Relaxed);
}

/// The sums by operation, in the order of [`Operation::ALL`].
pub fn totals() -> [Total; Operation::ALL.len()] {
    Operation::ALL.map(|operation| {
        let counter = &COUNTERS[operation as usize];
        let cost = Cost {
            arithmetic: counter.arithmetic.load(Ordering::Relaxed),
            bytes: counter.bytes.load(Ordering::Relaxed),
        };
        Total { nanoseconds: counter.nanoseconds.load(Ordering::Relaxed), cost }
    })
}

/// Runs `work` and counts its time and cost as `operation`; only where operations are measured [alone](Counting::Alone) it
/// runs more than once.
pub fn timed<T>(operation: Operation, cost: Cost, mut work: impl FnMut() -> T) -> T {
    let Some(again) = COUNTING.load(Ordering::Relaxed).checked_sub(1) else { return work() };
    let mut clocked = || {
        let started = Instant::now();
        let result = work();
        (started.elapsed().as_nanos() as u64, result)
    };
    let (mut nanoseconds, mut result) = clocked();
    if again > 0 {
        let mut times = vec![0; again];
        for time in &mut times {
            (*time, result) = clocked();
        }
        times.sort_unstable();
        nanoseconds = times[again / 2];
    }
    let counter = &COUNTERS[operation as usize];
    counter.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    counter.arithmetic.fetch_add(cost.arithmetic, Ordering::Relaxed);
    counter.bytes.fetch_add(cost.bytes, Ordering::Relaxed);
    result
}
