//! Memory of the attention tasks: outputs that threads share, and scratch that a thread keeps.

use std::cell::RefCell;
use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

/// An output of which tasks write disjoint ranges.
#[derive(Clone, Copy)]
pub(super) struct SharedOutput<'a, T = f32> {
    start: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow of plain numbers; those who write through it promise disjoint ranges.
unsafe impl<T: Send> Send for SharedOutput<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedOutput<'_, T> {}

impl<'a, T> SharedOutput<'a, T> {
    /// Takes the borrow.
    pub(super) fn new(output: &'a mut [T]) -> Self {
        Self { start: output.as_mut_ptr(), length: output.len(), borrow: PhantomData }
    }

    /// A range of the output.
    ///
    /// # Safety
    ///
    /// While the range is used, nobody else uses any part of it.
    #[inline(always)]
    pub(super) unsafe fn range(self, from: usize, length: usize) -> &'a mut [T] {
        assert!(from + length <= self.length);
        // SAFETY: the range lies in the borrow, and the caller promises that it is used once at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), length) }
    }
}

/// Numbers that start at a cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Scratch of a task, taken from its thread and given back at the end.
pub(super) struct Scratch(Vec<Line>);

impl Scratch {
    /// Takes the scratch of this thread.
    pub(super) fn take() -> Self {
        Self(SCRATCH.with(RefCell::take))
    }

    /// Buffers of these lengths, each at the start of a cache line. Their content is what an earlier task left.
    pub(super) fn buffers<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
        let lines: usize = lengths.iter().map(|length| length.div_ceil(16)).sum();
        if self.0.len() < lines {
            self.0.resize(lines, Line::zeroed());
        }
        let mut rest: &mut [Line] = &mut self.0;
        lengths.map(|length| {
            let (buffer, others) = std::mem::take(&mut rest).split_at_mut(length.div_ceil(16));
            rest = others;
            &mut bytemuck::cast_slice_mut(buffer)[..length]
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.0);
        // A thread that is ending has no place for it any more.
        let _ = SCRATCH.try_with(|scratch| scratch.replace(lines));
    }
}
