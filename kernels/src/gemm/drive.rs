//! Blocking and threads: how a whole product becomes tasks.
//!
//! Threads share out (rows x panels) as a grid of tasks. A task packs its rows of activations chunk by chunk along the
//! inputs, so that a chunk of its rows stays in the second-level cache and a chunk of a panel close to the first while
//! all rows meet it. A result in bf16 is rounded once: its rows are packed with all their inputs, and the sums of a panel
//! go through all chunks before the next panel. The chunks depend on the number of inputs alone: with the fixed order
//! inside a microkernel every output element has one order of additions, whatever the rows and the threads.

use std::ops::Range;

use half::bf16;

use super::batch::Sums;
use super::kernel::{Kernels, Order};
use super::pack::Part;
use super::row_blocks::Blocks;
use crate::buffer::{Line, Scratch, SharedMut, with_scratch};
use crate::values::{SharedValues, ValuesMut};
use crate::{PackedMatrix, parallel};

/// Packed activations of a task's rows and chunk: half of a second-level cache of 1 MiB.
const ACTIVATION_BYTES: usize = 512 * 1024;
/// Most rows that are packed together.
const MOST_BATCH_ROWS: usize = 384;
/// Least rows that are worth a pass over a chunk of the right side.
const LEAST_BATCH_ROWS: usize = 96;
/// Batches of rows for each thread that make up for one that is held up.
const ROW_TASKS_A_THREAD: usize = 4;
/// A chunk of the right side below this stays in the caches near the core.
const NEAR_BYTES: usize = 128 * 1024;
/// Estimated cycles below which another thread is not worth waking.
const TASK_CYCLES: usize = 20_000;
/// Tasks for each thread when there is work enough, so that a thread that is held up does not hold up the call.
const TASKS_A_THREAD: usize = 4;

/// One product `y[m, n] (=|+=) a b` over packed panels, or over some chunks of its inputs.
pub(super) struct Product<'a, P> {
    /// The microkernels.
    pub(super) kernels: &'static Kernels,
    /// Panels of the right side.
    pub(super) panels: Panels<'a>,
    /// Groups of inputs that the panels hold, padding included.
    pub(super) groups: Range<usize>,
    /// Groups in a chunk: [`chunk_depth`] of all groups of the product. `groups` begins where a chunk does.
    pub(super) depth: usize,
    /// Rows.
    pub(super) m: usize,
    /// Outputs.
    pub(super) n: usize,
    /// Packs `rows`, `groups` into lines for a block of so many rows (the padded count).
    pub(super) pack: P,
    /// A product of low rank beside it, from the same left side.
    pub(super) beside: Option<Beside<'a>>,
}

/// Panels of a right side.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    /// One after another.
    pub(super) lines: &'a [Line],
    /// For kernels of integers the factors of their chunks, `[panel][chunk]`, two lines each.
    pub(super) factors: &'a [Line],
}

impl<'a> Panels<'a> {
    /// Those that kernels of floats take.
    pub(super) fn of_floats(lines: &'a [Line]) -> Self {
        Self { lines, factors: &[] }
    }

    /// Those of a matrix.
    pub(super) fn of(matrix: &'a PackedMatrix) -> Self {
        Self { lines: matrix.lines(), factors: matrix.factors() }
    }
}

/// `u = a down`, and `y += u up` before a block of the result leaves the caches.
///
/// Both right sides are packed as that of the product; `down` has its inputs and no window of them.
#[derive(Clone, Copy)]
pub(super) struct Beside<'a> {
    /// Panels of `rank` outputs over all inputs of the product.
    pub(super) down: Panels<'a>,
    /// Columns of `u`.
    pub(super) rank: usize,
    /// Panels of the product's outputs over the columns of `u`, padded to `up_groups` groups.
    pub(super) up: &'a [Line],
    /// Groups of the columns of `u`.
    pub(super) up_groups: usize,
    /// For each panel of `up`, the columns of `u` that it does not multiply by zero.
    pub(super) touched: &'a [Range<usize>],
    /// `u [m, rank]`.
    pub(super) u: SharedMut<f32>,
}

/// Groups in a chunk: about the kernels' depth, equal shares of all groups of a product.
pub(super) fn chunk_depth(kernels: &Kernels, groups: usize) -> usize {
    equal_share(groups, kernels.depth)
}

/// The largest of as many equal shares of all groups as keep each to `most`.
pub(super) fn equal_share(groups: usize, most: usize) -> usize {
    groups.div_ceil(groups.div_ceil(most).max(1))
}

/// Where a product is written: some columns of a row-major matrix.
pub(super) struct Target<'a> {
    /// The whole matrix.
    pub(super) values: ValuesMut<'a>,
    /// Its columns.
    pub(super) stride: usize,
    /// The product's first column.
    pub(super) first: usize,
}

/// A [`Target`] that tasks share.
#[derive(Clone, Copy)]
struct Shared {
    values: SharedValues,
    stride: usize,
}

impl<P: Fn(Part, &mut [Line]) + Sync> Product<'_, P> {
    /// Computes the product into `y`, with `add` on top of what is there; nothing is added to a result in bf16.
    pub(super) fn run(&self, y: Target<'_>, add: bool) {
        let Target { values, stride, first } = y;
        if let ValuesMut::Bf16(_) = &values {
            assert!(!add, "bf16 results are made in one go");
        }
        assert_eq!(values.len(), self.m * stride, "the result has the wrong length for {} x {stride}", self.m);
        assert!(first + self.n <= stride, "the product reaches beyond the columns of the result");
        if self.m == 0 || self.n == 0 {
            return;
        }
        if self.groups.is_empty() {
            match values {
                _ if add => {}
                ValuesMut::F32(values) => {
                    values.chunks_exact_mut(stride).for_each(|row| row[first..first + self.n].fill(0.0));
                }
                ValuesMut::Bf16(values) => {
                    values.chunks_exact_mut(stride).for_each(|row| row[first..first + self.n].fill(bf16::ZERO));
                }
            }
            return;
        }
        let panels = self.n.div_ceil(self.kernels.width);
        let y = Shared { values: SharedValues::new(values, first), stride };
        let batch = self.batch_rows(panels, self.packed_groups(y));
        let wanted = self.wanted_tasks(panels);
        // Rows are shared out first, in whole batches: each batch is packed once then.
        let row_tasks = self.m.div_ceil(batch).min(wanted);
        let task_rows = self.m.div_ceil(row_tasks).next_multiple_of(self.kernels.most_rows());
        let row_tasks = self.m.div_ceil(task_rows);
        // Every part packs its rows anew: where rows alone keep the threads busy there is but one. `u` has one writer.
        let parts = if row_tasks >= ROW_TASKS_A_THREAD * rayon::current_num_threads() || self.beside.is_some() {
            1
        } else {
            wanted.div_ceil(row_tasks).min(panels)
        };
        let task = |index: usize| {
            let (row_task, part) = (index / parts, index % parts);
            let rows = row_task * task_rows..self.m.min((row_task + 1) * task_rows);
            self.task(rows, batch, part * panels / parts..(part + 1) * panels / parts, y, add);
        };
        if wanted == 1 {
            (0..row_tasks * parts).for_each(task);
        } else {
            parallel::for_each(row_tasks * parts, task);
        }
    }

    /// How many tasks are worth having: 1 for a product too small to share.
    fn wanted_tasks(&self, panels: usize) -> usize {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return 1;
        }
        // A panel's line takes at least 4 cycles from memory, and a cycle for each row that multiplies it.
        let cycles = panels * self.groups.len() * self.kernels.panel_group_lines() * self.m.max(4);
        (cycles / TASK_CYCLES).clamp(1, TASKS_A_THREAD * threads)
    }

    /// Rows that are packed together: enough to make good use of a chunk of the right side that comes from far away,
    /// one block when all of it stays near. `packed` groups of each row lie packed at one time.
    fn batch_rows(&self, panels: usize, packed: usize) -> usize {
        let most_rows = self.kernels.most_rows();
        let right_bytes = panels * packed * self.kernels.panel_group_lines() * size_of::<Line>();
        if right_bytes <= NEAR_BYTES && self.kernels.order == Order::Grouped {
            return most_rows;
        }
        let least = if packed > self.depth { LEAST_BATCH_ROWS } else { most_rows };
        let fit = (ACTIVATION_BYTES / (packed * size_of::<Line>())).clamp(least, MOST_BATCH_ROWS);
        let mut batches = self.m.div_ceil(fit / most_rows * most_rows);
        // An even share for each thread, as long as a chunk of the right side still meets rows enough.
        let threads = rayon::current_num_threads();
        let even = batches.next_multiple_of(threads).max(ROW_TASKS_A_THREAD * threads);
        if threads > 1 && self.m / even >= LEAST_BATCH_ROWS {
            batches = even;
        }
        self.m.div_ceil(batches).next_multiple_of(most_rows)
    }

    /// Groups in the first chunk, the largest one.
    pub(super) fn chunk(&self) -> usize {
        self.depth.min(self.groups.len())
    }

    /// The groups, chunk by chunk.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let (end, depth) = (self.groups.end, self.chunk());
        self.groups.clone().step_by(depth).map(move |first| first..end.min(first + depth))
    }

    /// Groups of a row that are packed at one time.
    fn packed_groups(&self, y: Shared) -> usize {
        match y.values {
            SharedValues::F32(_) if !self.reads_panels_whole() => self.chunk(),
            SharedValues::F32(_) | SharedValues::Bf16(_) => self.groups.len(),
        }
    }

    /// Computes some rows of some panels on this thread, `batch` rows at a time.
    fn task(&self, rows: Range<usize>, batch: usize, panels: Range<usize>, y: Shared, add: bool) {
        let (most_rows, row_step) = (self.kernels.most_rows(), self.kernels.row_step);
        let largest = Blocks::new(rows.start..rows.end.min(rows.start + batch), most_rows, row_step);
        let packed = self.packed_groups(y);
        let chunks = packed.div_ceil(self.chunk());
        let lines = largest.padded() * packed + chunks * largest.count * self.kernels.row_factor_lines();
        with_scratch(Scratch::Activations, lines, |scratch| {
            if let Some(session) = &self.kernels.session {
                // SAFETY: the instruction set was detected before its kernels were chosen.
                unsafe { (session.enter)() };
            }
            for first in rows.clone().step_by(batch) {
                let blocks = Blocks::new(first..rows.end.min(first + batch), most_rows, row_step);
                match y.values {
                    SharedValues::F32(values) => {
                        self.batch(&blocks, panels.clone(), scratch, Sums::Result(values, y.stride), add);
                    }
                    SharedValues::Bf16(values) => {
                        self.rounded_batch(&blocks, panels.clone(), scratch, values, y.stride);
                    }
                }
            }
            if let Some(session) = &self.kernels.session {
                // SAFETY: entered above.
                unsafe { (session.leave)() };
            }
        });
    }

    /// Whether the panels meet so few rows that they are read as they lie: the rows are packed whole, and all chunks of a
    /// panel follow each other.
    pub(super) fn reads_panels_whole(&self) -> bool {
        self.kernels.integers.as_ref().is_some_and(|integers| self.m <= integers.lone.len())
    }
}
