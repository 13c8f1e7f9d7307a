//! Memory in whole cache lines, and the scratch memory of a thread.

use std::cell::Cell;

use bytemuck::{Pod, Zeroable};

/// One cache line: buffers made of it start on 64 bytes, what the widest loads want.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; 16]);

/// `count` zeroed lines.
pub(crate) fn zeroed_lines(count: usize) -> Vec<Line> {
    bytemuck::allocation::zeroed_vec(count)
}

thread_local! {
    static SMALL: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static LARGE: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static NARROW: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static SUMS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static INTEGERS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Which of the thread's scratch buffers to use: they are independent, so one call can hold all of them.
#[derive(Clone, Copy)]
pub(crate) enum Scratch {
    /// Packed activations of one task.
    Activations,
    /// A whole packed right-hand side of one call.
    RightSide,
    /// Packed columns of a product of low rank.
    Narrow,
    /// Sums that are to be rounded.
    Sums,
    /// A piece of a panel as integers.
    Integers,
}

/// Runs `work` with at least `count` lines of scratch memory, contents unspecified.
///
/// The buffer is taken out of the thread's slot meanwhile: when `work` waits for other threads, this thread may run
/// another task that asks for scratch memory too, and that one simply gets a fresh buffer.
pub(crate) fn with_scratch<T>(which: Scratch, count: usize, work: impl FnOnce(&mut [Line]) -> T) -> T {
    let slot = match which {
        Scratch::Activations => &SMALL,
        Scratch::RightSide => &LARGE,
        Scratch::Narrow => &NARROW,
        Scratch::Sums => &SUMS,
        Scratch::Integers => &INTEGERS,
    };
    let mut lines = slot.take();
    if lines.len() < count {
        lines = zeroed_lines(count);
    }
    let result = work(&mut lines[..count]);
    slot.set(lines);
    result
}

/// A pointer that tasks share in order to write disjoint elements of one slice.
pub(crate) struct SharedMut<T>(*mut T);

impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: every use writes elements that no other task touches; the users say why.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// Shares a slice that stays mutably borrowed as long as the tasks run.
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// The pointer to element `index`.
    ///
    /// # Safety
    /// `index` is inside the slice (or one past its end).
    pub(crate) unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: the caller keeps to the slice.
        unsafe { self.0.add(index) }
    }
}
