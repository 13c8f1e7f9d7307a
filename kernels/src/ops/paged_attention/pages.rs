//! Pages of keys and values: their layout, and how rows get into them.

use std::ops::Range;

use super::{floats, integers};
use crate::buffer::{Line, SharedMut};
use crate::ops::AttentionShape;
use crate::ops::simd::{MAX_WIDTH, dispatch};
use crate::{InstructionSet, parallel};

/// Positions of a page.
pub const PAGE_POSITIONS: usize = 64;

/// Rows below which a call writes on its thread.
const FEW_ROWS: usize = 16;

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageElement {
    /// As they come.
    F32,
    /// Integers of 16 bits with a factor for each position and head: 12 bits and a sign of the largest value of a head of
    /// 128. Half the memory, and half the multiplications.
    I16,
}

/// What a page holds for each of its positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageShape {
    /// What keys and values are kept as.
    pub element: PageElement,
    /// Layers.
    pub layers: usize,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl PageShape {
    /// Words between the values of two positions, or pairs of them, so that whole vectors make up a head.
    pub(super) fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(MAX_WIDTH)
    }

    /// Words of a head's keys: for each depth, or pair of depths, one of each position; then the factors.
    fn key_words(&self) -> usize {
        match self.element {
            PageElement::F32 => self.head_dim * PAGE_POSITIONS,
            PageElement::I16 => (self.head_dim.div_ceil(2) + 1) * PAGE_POSITIONS,
        }
    }

    /// Words of a head's values: for each position, or pair of positions, those of the head; then the factors.
    fn value_words(&self) -> usize {
        match self.element {
            PageElement::F32 => PAGE_POSITIONS * self.value_stride(),
            PageElement::I16 => PAGE_POSITIONS / 2 * self.value_stride() + PAGE_POSITIONS,
        }
    }

    /// Words of a head's keys and values.
    fn head_words(&self) -> usize {
        self.key_words() + self.value_words()
    }

    /// Memory of a page.
    pub fn page_bytes(&self) -> usize {
        self.layers * self.kv_heads * self.head_words() * size_of::<u32>()
    }

    /// First word of a head.
    fn head(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.kv_heads + kv_head) * self.head_words()
    }
}

/// The place of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSlot {
    /// The page.
    pub page: u32,
    /// The position in it.
    pub slot: u32,
}

/// The beginning of a page that continues in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFork {
    /// The page that has the positions.
    pub from: u32,
    /// The page that gets them.
    pub to: u32,
    /// How many, from the first.
    pub positions: u32,
}

/// Rows in which keys and values stand beside other things.
#[derive(Clone, Debug)]
pub struct FusedRows<'a> {
    /// All values.
    pub values: &'a [f32],
    /// Values of a row.
    pub stride: usize,
    /// Where the keys of all heads stand in a row.
    pub key: Range<usize>,
    /// Where the values of all heads stand.
    pub value: Range<usize>,
}

/// Pages of keys and values of some layers. A page is `[layer][head]` of keys `[depth][position]` and values
/// `[position][element]`, in f32 or in pairs of integers.
pub struct KeyValuePages {
    shape: PageShape,
    pages: Vec<PageMemory>,
}

/// The words of a page, from the start of a cache line on.
///
/// Their memory comes zeroed from the system, so that those who write a page touch it first, side by side; a vector of
/// aligned lines would be filled by the thread that asks for it.
struct PageMemory {
    words: Vec<u32>,
    first: usize,
}

impl PageMemory {
    fn zeroed(bytes: usize) -> Self {
        const LINE: usize = size_of::<Line>() / size_of::<u32>();
        let words = vec![0_u32; bytes.div_ceil(size_of::<u32>()) + LINE - 1];
        let first = words.as_ptr().align_offset(align_of::<Line>()).min(LINE - 1);
        Self { words, first }
    }

    #[inline(always)]
    fn words(&self) -> &[u32] {
        &self.words[self.first..]
    }

    fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words[self.first..]
    }
}

impl std::fmt::Debug for KeyValuePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyValuePages").field("shape", &self.shape).field("pages", &self.pages.len()).finish()
    }
}

impl KeyValuePages {
    /// No pages yet.
    pub fn new(shape: PageShape) -> Self {
        Self { shape, pages: Vec::new() }
    }

    /// What they hold.
    pub fn shape(&self) -> &PageShape {
        &self.shape
    }

    /// Adds a page and tells its number.
    ///
    /// What a page holds beyond the positions that were written since it changed hands is never read.
    pub fn grow(&mut self) -> u32 {
        self.pages.push(PageMemory::zeroed(self.shape.page_bytes()));
        self.pages.len() as u32 - 1
    }

    pub(super) fn has(&self, page: u32) -> bool {
        (page as usize) < self.pages.len()
    }

    #[track_caller]
    pub(super) fn check(&self, attention: &AttentionShape, layer: usize) {
        let PageShape { layers, kv_heads, head_dim, .. } = self.shape;
        assert!(layer < layers, "layer {layer} of {layers} layers of pages");
        assert_eq!((attention.kv_heads, attention.head_dim), (kv_heads, head_dim), "pages of other heads");
    }

    /// Keys and values of a head, as the two products read them.
    #[inline(always)]
    pub(super) fn head(&self, page: u32, layer: usize, kv_head: usize) -> (&[u32], &[u32]) {
        let words = self.pages[page as usize].words();
        words[self.shape.head(layer, kv_head)..][..self.shape.head_words()].split_at(self.shape.key_words())
    }

    /// Writes keys and values of one layer, row `i` to `slots[i]`; then the forks get theirs, in order.
    ///
    /// # Panics
    /// If the rows are not one for each slot, or a page or slot does not exist.
    pub fn write(&mut self, layer: usize, slots: &[PageSlot], forks: &[PageFork], rows: &FusedRows<'_>) {
        let shape = self.shape;
        let width = shape.kv_heads * shape.head_dim;
        assert!(layer < shape.layers, "layer {layer} of {} layers of pages", shape.layers);
        assert_eq!(rows.values.len(), slots.len() * rows.stride, "not a row for each slot");
        assert!(rows.key.len() == width && rows.value.len() == width, "keys and values of other heads");
        assert!(rows.key.end <= rows.stride && rows.value.end <= rows.stride, "keys and values beyond their row");
        let exists = |page: u32, slots: u32| self.has(page) && slots as usize <= PAGE_POSITIONS;
        assert!(slots.iter().all(|slot| exists(slot.page, slot.slot + 1)), "a slot that does not exist");
        assert!(
            forks.iter().all(|fork| exists(fork.from, fork.positions) && exists(fork.to, 0) && fork.from != fork.to),
            "a fork of pages that do not exist"
        );
        let pages: Vec<SharedMut<u32>> = self.pages.iter_mut().map(|page| SharedMut::new(page.words_mut())).collect();
        let isa = InstructionSet::detect();
        let part = |index: usize| {
            let (kv_head, is_value) = (index / 2, index % 2 == 1);
            let (first, count) = if is_value {
                (shape.head(layer, kv_head) + shape.key_words(), shape.value_words())
            } else {
                (shape.head(layer, kv_head), shape.key_words())
            };
            // SAFETY: this head's keys or values lie inside the page, which exists by the assertions above; every part has
            // its own words, and a part uses those of one page at a time.
            let place = |page: u32| unsafe { std::slice::from_raw_parts_mut(pages[page as usize].at(first), count) };
            let columns = if is_value { &rows.value } else { &rows.key };
            let columns = columns.start + kv_head * shape.head_dim..columns.start + (kv_head + 1) * shape.head_dim;
            let rows = rows.values.chunks_exact(rows.stride).map(|row| &row[columns.clone()]);
            let rows = slots.iter().zip(rows).map(|(slot, row)| (place(slot.page), slot.slot as usize, row));
            match shape.element {
                PageElement::F32 => floats::put_rows(rows, is_value),
                PageElement::I16 => {
                    let integers = &mut vec![0; shape.value_stride()];
                    dispatch(isa, integers::PutRows { rows, are_values: is_value, integers });
                }
            }
            let copy = match (shape.element, is_value) {
                (PageElement::F32, false) => floats::copy_keys,
                (PageElement::F32, true) => floats::copy_values,
                (PageElement::I16, false) => integers::copy_keys,
                (PageElement::I16, true) => integers::copy_values,
            };
            for fork in forks {
                // The two are different pages.
                copy(&*place(fork.from), place(fork.to), fork.positions as usize);
            }
        };
        if slots.len() < FEW_ROWS && forks.is_empty() {
            (0..2 * shape.kv_heads).for_each(part);
        } else {
            parallel::for_each(2 * shape.kv_heads, part);
        }
    }
}
