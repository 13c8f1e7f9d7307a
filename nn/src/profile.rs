//! Where the time of a training step goes, by operation.
//!
//! Always compiled and off by default: an operation then costs one load more. The counts belong to the process; whoever
//! wants those of one step takes the difference of two [`totals`].

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What a training step is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Products with frozen weights, forward and backward, the head included.
    WeightProducts,
    /// Products with the low-rank factors and their gradients.
    LowRankProducts,
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
    /// Residual sums and copies.
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
        Self::LowRankProducts,
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
            Self::LowRankProducts => "low-rank products",
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

/// The sums of one operation since it was switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Time of the thread that called it, without the operations inside it that are counted on their own.
    pub nanoseconds: u64,
    /// What it had to do.
    pub cost: Cost,
}

struct Counter {
    nanoseconds: AtomicU64,
    arithmetic: AtomicU64,
    bytes: AtomicU64,
}

static ENABLED: AtomicBool = AtomicBool::new(false);
static COUNTERS: [Counter; Operation::ALL.len()] =
    [const { Counter { nanoseconds: AtomicU64::new(0), arithmetic: AtomicU64::new(0), bytes: AtomicU64::new(0) } };
        Operation::ALL.len()];

thread_local! {
    /// Time of the counted operations that ended inside the one that runs on this thread.
    static INNER: Cell<u64> = const { Cell::new(0) };
}

/// Switches the counting on or off for the whole process.
pub fn enable(on: bool) {
    ENABLED.store(on, Ordering::Relaxed);
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

/// Runs `work` and counts its time and cost as `operation`.
pub fn timed<T>(operation: Operation, cost: Cost, work: impl FnOnce() -> T) -> T {
    if !ENABLED.load(Ordering::Relaxed) {
        return work();
    }
    let before = INNER.replace(0);
    let started = Instant::now();
    let result = work();
    let elapsed = started.elapsed().as_nanos() as u64;
    let inner = INNER.replace(before + elapsed);
    let counter = &COUNTERS[operation as usize];
    counter.nanoseconds.fetch_add(elapsed.saturating_sub(inner), Ordering::Relaxed);
    counter.arithmetic.fetch_add(cost.arithmetic, Ordering::Relaxed);
    counter.bytes.fetch_add(cost.bytes, Ordering::Relaxed);
    result
}
