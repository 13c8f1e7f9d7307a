//! Buffers that are used again: fresh memory costs more than most operations on it.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use espalier_kernels::Element;

/// Values of a cache line. Buffers begin at one: what kernels store a line at a time else goes into two.
const CACHE_LINE: usize = 16;

/// Buffers that are not in use. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Stock>>);

#[derive(Debug, Default)]
struct Stock {
    free: Vec<Vec<f32>>,
    /// Values in use.
    lent: usize,
    /// Rows of the batch at work.
    rows: usize,
    /// Rows that the buffers are long enough for.
    room: usize,
}

impl Pool {
    /// A batch of `rows` begins. One of half as many rows as the last, or of twice as many, would find no buffer of its
    /// size: those of the other size are given back first, so that never two sets lie in memory.
    pub(crate) fn begin(&self, rows: usize) {
        let mut stock = self.stock();
        if 2 * rows <= stock.room || rows >= 2 * stock.room {
            stock.free.clear();
            stock.room = rows;
        }
        stock.room = stock.room.max(rows);
        stock.rows = rows;
    }

    /// Bytes in use.
    pub(crate) fn lent_bytes(&self) -> usize {
        4 * self.stock().lent
    }

    /// Bytes in use or ready for it.
    pub(crate) fn bytes(&self) -> usize {
        let stock = self.stock();
        4 * (stock.lent + stock.free.iter().map(Vec::len).sum::<usize>())
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `length` values of unspecified content: whoever takes a buffer writes all of it before reading.
    pub(crate) fn take(&self, length: usize) -> Buffer {
        let mut stock = self.stock();
        // Batches of fewer rows take buffers of the size that the longest one needs, each of its own kind: taken by their own
        // lengths the kinds would change places, and the next long batch would find some of them gone.
        let (own, rows, longest) = (length, stock.rows, stock.room);
        let length = if rows > 0 { (length * longest).div_ceil(rows) } else { length };
        let room = length + CACHE_LINE;
        let free = &mut stock.free;
        let fits = |values: &Vec<f32>| values.len() >= room;
        let best = (0..free.len()).filter(|&at| fits(&free[at])).min_by_key(|&at| free[at].len());
        let values = match best {
            // One that is far too large is left for those who need its size.
            Some(at) if free[at].len() <= 2 * room + 1024 => free.swap_remove(at),
            _ => {
                // The new one takes the place of one of its kind that grew too small: with batches of many lengths the
                // pool would otherwise keep a set of buffers for each.
                let outgrown = |at: &usize| free[*at].len() < room && 2 * free[*at].len() + 1024 >= room;
                if let Some(at) = (0..free.len()).filter(outgrown).max_by_key(|&at| free[at].len()) {
                    free.swap_remove(at);
                }
                vec![0.0; roomy(room)]
            }
        };
        stock.lent += own;
        // No offset can be told to an interpreter of the program: it takes the memory as it lies.
        let start = values.as_ptr().align_offset(4 * CACHE_LINE);
        let start = if start < CACHE_LINE { start } else { 0 };
        Buffer { values, start, length: own, pool: self.clone() }
    }
}

impl Pool {
    /// [`Pool::take`] of f32 or bf16.
    pub(crate) fn rows<T: Element>(&self, length: usize) -> Rows<T> {
        Rows { buffer: self.take(T::words(length)), length, element: PhantomData }
    }
}

/// Up to a sixteenth more than asked for: batches of nearly one size then share their buffers, where a step that is a
/// few tokens longer than all before it would touch fresh memory throughout. What is never written occupies none.
fn roomy(length: usize) -> usize {
    length.next_multiple_of((length.next_power_of_two() / 32).max(1))
}

/// A [`Buffer`] of f32 or bf16.
pub(crate) struct Rows<T> {
    buffer: Buffer,
    length: usize,
    element: PhantomData<T>,
}

impl<T: Element> Rows<T> {
    /// The memory, to be read by [`Element::view`] later.
    pub(crate) fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

impl<T: Element> Deref for Rows<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        T::view(&self.buffer, self.length)
    }
}

impl<T: Element> DerefMut for Rows<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        T::view_mut(&mut self.buffer, self.length)
    }
}

/// Values borrowed from a [`Pool`]; they go back when this is dropped.
pub(crate) struct Buffer {
    values: Vec<f32>,
    /// Where the first full cache line begins.
    start: usize,
    length: usize,
    pool: Pool,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.length)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        let mut stock = self.pool.stock();
        stock.lent -= self.length;
        stock.free.push(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again() {
        let pool = Pool::default();
        let mut first = pool.take(100);
        first[3] = 7.0;
        let place = first.as_ptr();
        assert_eq!(place.align_offset(4 * CACHE_LINE), 0);
        drop(first);
        let second = pool.take(90);
        assert!(second.as_ptr() == place && second.len() == 90);
        assert!(pool.take(90).as_ptr() != place);
    }

    #[test]
    fn a_shorter_batch_takes_no_buffer_of_another_kind() {
        let pool = Pool::default();
        let batch = |rows: usize| {
            pool.begin(rows);
            drop([96, 64].map(|width| pool.take(width * rows)));
            pool.bytes()
        };
        let bytes = batch(2000);
        assert!([1300, 1999, 1100, 2000].into_iter().all(|rows| batch(rows) == bytes));
    }

    #[test]
    fn nearly_equal_lengths_share_a_buffer() {
        let pool = Pool::default();
        let place = pool.take(2002 * 576).as_ptr();
        assert!([2001, 2003, 2004].iter().all(|rows| pool.take(rows * 576).as_ptr() == place));
        for length in [0, 1, 31, 1000, 1 << 20, (1 << 20) + 1] {
            let roomy = roomy(length);
            assert!(roomy >= length && 16 * roomy <= 17 * length + 16, "{length}: {roomy}");
        }
    }

    #[test]
    fn growing_lengths_do_not_pile_up() {
        let pool = Pool::default();
        for length in 10_000..10_100 {
            drop((pool.take(length), pool.take(length)));
        }
        assert_eq!(pool.stock().free.len(), 2);
    }

    #[test]
    fn a_batch_of_another_size_finds_an_empty_pool() {
        let pool = Pool::default();
        for (rows, kept) in [(100, 0), (60, 4096), (50, 0), (99, 4096), (100, 4096), (200, 0)] {
            pool.begin(rows);
            assert_eq!(pool.bytes(), kept, "{rows} rows");
            let buffer = pool.take(1024 - CACHE_LINE);
            assert_eq!((pool.lent_bytes(), buffer.len()), (4096 - 4 * CACHE_LINE, 1024 - CACHE_LINE));
        }
    }
}
