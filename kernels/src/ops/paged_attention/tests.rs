//! Paged attention against that over plain rows, and against itself however pages are shared.

#![allow(clippy::float_cmp, reason = "the values are exact")]

use half::bf16;

use super::*;
use crate::ops::attention::causal_attention_with;
use crate::ops::testing::{assert_close, noise, widen, with_threads};

/// Rounds a row as pages of integers keep it.
fn as_integers(row: &mut [f32], terms: usize) {
    let most = integers::largest_integer(terms) as f32;
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for value in row {
        *value = (*value * (most / largest)).round_ties_even() * (largest / most);
    }
}

/// Sequences that are to be attended to: `common` positions are those of the first one.
struct Case {
    shape: AttentionShape,
    /// Positions of each sequence.
    lengths: Vec<usize>,
    common: usize,
    element: PageElement,
}

impl Case {
    fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), window: None };
        Self { shape, lengths: vec![150, 131, 64, 1, 70], common: 0, element: PageElement::F32 }
    }

    /// The fused rows `[q | k | v]` of a sequence.
    fn rows(&self, sequence: usize) -> Vec<f32> {
        let width = self.shape.query_width() + 2 * self.shape.key_width();
        let length = self.lengths[sequence];
        let mut rows = noise(100 + sequence as u64, length * width);
        let common = self.common.min(length) * width;
        rows[..common].copy_from_slice(&noise(100, self.lengths[0] * width)[..common]);
        rows
    }

    fn stride(&self) -> usize {
        self.shape.query_width() + 2 * self.shape.key_width()
    }

    /// What attention over plain rows gives for the queries from `start` on, of keys and values as the pages keep them.
    fn plain(&self, isa: InstructionSet, sequence: usize, start: usize) -> Vec<f32> {
        let (rows, query, key) = (self.rows(sequence), self.shape.query_width(), self.shape.key_width());
        let part = |from: usize, to: usize, first: usize| -> Vec<f32> {
            rows.chunks_exact(self.stride()).skip(first).flat_map(|row| row[from..to].to_vec()).collect()
        };
        let q = part(0, query, start);
        let mut out = vec![f32::NAN; q.len()];
        let kept = |from: usize, to: usize, terms: usize| -> Vec<f32> {
            let mut values = part(from, to, 0);
            if self.element == PageElement::I16 {
                for row in values.chunks_exact_mut(self.shape.head_dim) {
                    as_integers(row, terms);
                }
            }
            values
        };
        let k = kept(query, query + key, self.shape.head_dim);
        let v = kept(query + key, query + 2 * key, PAGE_POSITIONS);
        causal_attention_with(isa, &self.shape, &q, start, &k, &v, &mut out, None);
        out
    }

    /// The same over pages, the sequences together: those after the first share its whole pages of common positions and
    /// fork where they part. The first `read` positions of each go through a call of their own before.
    fn paged(&self, isa: InstructionSet, read: usize, share: bool) -> Vec<Vec<f32>> {
        let (query, key) = (self.shape.query_width(), self.shape.key_width());
        let AttentionShape { kv_heads, head_dim, .. } = self.shape;
        let mut pages = KeyValuePages::new(PageShape { element: self.element, layers: 2, kv_heads, head_dim });
        let mut tables: Vec<Vec<u32>> = Vec::new();
        let mut forks = Vec::new();
        for (sequence, &length) in self.lengths.iter().enumerate() {
            let shared = if share && sequence > 0 { self.common.min(length - 1) } else { 0 };
            let mut table: Vec<u32> =
                if shared > 0 { tables[0][..shared / PAGE_POSITIONS].to_vec() } else { Vec::new() };
            while table.len() * PAGE_POSITIONS < length {
                table.push(pages.grow());
            }
            if !shared.is_multiple_of(PAGE_POSITIONS) {
                let page = shared / PAGE_POSITIONS;
                let positions = (shared % PAGE_POSITIONS) as u32;
                forks.push(PageFork { from: tables[0][page], to: table[page], positions });
            }
            tables.push(table);
        }
        let mut results = vec![Vec::new(); self.lengths.len()];
        for part in [0..read, read..usize::MAX] {
            let (mut rows, mut slots, mut spans) = (Vec::new(), Vec::new(), Vec::new());
            for (sequence, &length) in self.lengths.iter().enumerate() {
                let shared = if share && sequence > 0 { self.common.min(length - 1) } else { 0 };
                let positions =
                    part.start.max(shared).min(length)..part.end.clamp(shared, length).max(part.start.min(length));
                let (from, own) = (slots.len(), self.rows(sequence));
                for position in positions.clone() {
                    rows.extend_from_slice(&own[position * self.stride()..][..self.stride()]);
                    let page = tables[sequence][position / PAGE_POSITIONS];
                    slots.push(PageSlot { page, slot: (position % PAGE_POSITIONS) as u32 });
                }
                spans.push((sequence, positions.start, from..slots.len()));
            }
            let fused = FusedRows {
                values: &rows,
                stride: self.stride(),
                key: query..query + key,
                value: query + key..query + 2 * key,
            };
            pages.write(1, &slots, &forks, &fused);
            let queries: Vec<PagedQueries<'_>> = spans
                .iter()
                .filter(|(_, _, rows)| !rows.is_empty())
                .map(|(sequence, start, rows)| PagedQueries {
                    pages: &tables[*sequence],
                    first_page: 0,
                    start: *start,
                    rows: rows.clone(),
                })
                .collect();
            let mut out = vec![f32::NAN; slots.len() * query];
            let call = PagedAttention {
                shape: &self.shape,
                pages: &pages,
                layer: 1,
                rows: &rows,
                stride: self.stride(),
                sequences: &queries,
            };
            call.run_with(isa, ValuesMut::F32(&mut out));
            for (sequence, _, rows) in spans {
                results[sequence].extend_from_slice(&out[rows.start * query..rows.end * query]);
            }
        }
        results
    }
}

const SHAPES: [(usize, usize, usize); 6] = [(9, 3, 64), (4, 4, 8), (14, 2, 64), (2, 1, 20), (8, 1, 80), (1, 1, 13)];

#[test]
fn agrees_with_attention_over_plain_rows_on_every_instruction_set() {
    for (heads, kv_heads, head_dim) in SHAPES {
        for (window, element) in [(None, PageElement::F32), (Some(50), PageElement::F32), (Some(50), PageElement::I16)]
        {
            let mut case = Case::new(heads, kv_heads, head_dim);
            (case.shape.window, case.element) = (window, element);
            for isa in InstructionSet::available() {
                for (sequence, found) in case.paged(isa, 0, false).iter().enumerate() {
                    let truth = widen(&case.plain(isa, sequence, 0));
                    // Queries and probabilities are rounded to integers too.
                    let tolerance = if element == PageElement::I16 { 1e-3 } else { 3e-6 };
                    assert_close(
                        found,
                        &truth,
                        tolerance,
                        &format!("{isa} {heads} x {head_dim} {window:?} {element:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn sharing_calls_and_threads_change_no_bit() {
    for (common, element) in [(64, PageElement::F32), (100, PageElement::I16), (129, PageElement::F32)] {
        let mut case = Case::new(9, 3, 64);
        (case.lengths, case.common, case.element) = (vec![150, 140, 135, 200, 130], common, element);
        for isa in InstructionSet::available() {
            let apart = case.paged(isa, 0, false);
            // The second time the last position of the second sequence comes alone.
            for read in [70, 139] {
                assert_eq!(apart, case.paged(isa, read, false), "{isa} in two calls from {read} on");
            }
            let shared = with_threads(3, || case.paged(isa, 0, true));
            for (sequence, (shared, apart)) in shared.iter().zip(&apart).enumerate() {
                let computed = shared.len();
                assert_eq!(*shared, apart[apart.len() - computed..], "{isa} {common} {sequence}");
            }
        }
    }
}

/// A sequence of 64 in one page, from row to result.
fn one_page(case: &Case, position: usize, out: ValuesMut<'_>) {
    let &AttentionShape { kv_heads, head_dim, .. } = &case.shape;
    let mut pages = KeyValuePages::new(PageShape { element: case.element, layers: 1, kv_heads, head_dim });
    let page = pages.grow();
    let rows = case.rows(2);
    let slots: Vec<PageSlot> = (0..64).map(|slot| PageSlot { page, slot }).collect();
    let (query, key) = (case.shape.query_width(), case.shape.key_width());
    let fused = FusedRows {
        values: &rows,
        stride: case.stride(),
        key: query..query + key,
        value: query + key..query + 2 * key,
    };
    pages.write(0, &slots, &[], &fused);
    let sequences = [PagedQueries { pages: &[page], first_page: 0, start: position, rows: 0..64 }];
    let stride = case.stride();
    PagedAttention { shape: &case.shape, pages: &pages, layer: 0, rows: &rows, stride, sequences: &sequences }.run(out);
}

#[test]
fn a_result_in_bf16_is_the_rounded_one() {
    let case = Case::new(9, 3, 64);
    let (mut wide, mut narrow) = (vec![0.0; 64 * 576], vec![bf16::ZERO; 64 * 576]);
    one_page(&case, 0, ValuesMut::F32(&mut wide));
    one_page(&case, 0, ValuesMut::Bf16(&mut narrow));
    assert!(wide.iter().zip(&narrow).all(|(wide, narrow)| bf16::from_f32(*wide) == *narrow));
}

#[test]
#[should_panic(expected = "a page is missing")]
fn a_missing_page_is_refused() {
    one_page(&Case::new(4, 4, 8), 64, ValuesMut::F32(&mut vec![0.0; 64 * 32]));
}

#[test]
fn integers_are_the_nearest_and_what_is_not_finite_shows() {
    let shape = PageShape { element: PageElement::I16, layers: 1, kv_heads: 1, head_dim: 70 };
    let mut pages = KeyValuePages::new(shape);
    let page = pages.grow();
    let row: Vec<f32> = noise(7, 140).iter().map(|value| value * 100.0).collect();
    let mut endless = row.clone();
    (endless[3], endless[75]) = (f32::INFINITY, f32::NAN);
    let values = [&row[..], &[0.0; 140], &endless].concat();
    let rows = FusedRows { values: &values, stride: 140, key: 0..70, value: 70..140 };
    pages.write(0, &[5, 6, 7].map(|slot| PageSlot { page, slot }), &[], &rows);
    let (keys, values) = pages.head(page, 0, 0);
    let (keys, values) = (integers::Integers::of(keys), integers::Integers::of(values));
    let half = |word: u32, odd: bool| if odd { (word >> 16) as i16 } else { word as i16 };
    let found_keys = (0..70).map(|depth| (keys, half(keys.words[depth / 2 * PAGE_POSITIONS + 5], depth % 2 == 1), 70));
    let found_values = (0..70).map(|element| (values, half(values.words[2 * 80 + element], true), PAGE_POSITIONS));
    for ((head, integer, terms), value) in found_keys.chain(found_values).zip(&row) {
        let factor = head.factors[5];
        assert!((f32::from(integer) * factor - value).abs() <= factor * 0.501, "{integer} times {factor} for {value}");
        assert!(i32::from(integer).abs() <= integers::largest_integer(terms));
        assert_eq!(head.factors[6], 0.0);
        assert!(head.factors[7].is_nan());
    }
    assert!(keys.words[6..].iter().step_by(PAGE_POSITIONS).all(|pair| *pair == 0));
}

#[test]
fn what_a_page_held_before_is_never_seen() {
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 8, scale: 0.3, window: None };
    let (stride, count) = (32, 3);
    let rows = noise(5, count * stride);
    let attend = |element: PageElement, before: f32| {
        let mut pages = KeyValuePages::new(PageShape { element, layers: 1, kv_heads: 1, head_dim: 8 });
        let page = pages.grow();
        let slots: Vec<PageSlot> = (0..64).map(|slot| PageSlot { page, slot }).collect();
        for (values, slots) in [(&vec![before; 64 * stride], &slots[..]), (&rows, &slots[..count])] {
            pages.write(0, slots, &[], &FusedRows { values, stride, key: 16..24, value: 24..32 });
        }
        let sequences = [PagedQueries { pages: &[page], first_page: 0, start: 0, rows: 0..count }];
        let mut out = vec![0.0; count * 16];
        let call =
            PagedAttention { shape: &shape, pages: &pages, layer: 0, rows: &rows, stride, sequences: &sequences };
        call.run(ValuesMut::F32(&mut out));
        out
    };
    for element in [PageElement::F32, PageElement::I16] {
        let clean = attend(element, 0.0);
        assert!(clean.iter().all(|value| value.is_finite()));
        for before in [1e30, f32::INFINITY, f32::NAN] {
            assert_eq!(attend(element, before), clean, "{element:?} {before}");
        }
    }
}

#[test]
fn sums_of_integers_stay_in_32_bits() {
    for terms in [1, 2, 20, 64, 80, 128, 256, 512] {
        let most = i64::from(integers::largest_integer(terms));
        assert!(most * most * terms as i64 <= i64::from(i32::MAX) && most <= i64::from(i16::MAX) && most > 2_000);
    }
}

#[test]
fn a_fork_takes_no_more_than_its_positions() {
    let shape = PageShape { element: PageElement::I16, layers: 1, kv_heads: 1, head_dim: 8 };
    let stride = 16;
    let rows = noise(3, 3 * stride);
    let write = |pages: &mut KeyValuePages, slots: &[PageSlot], forks: &[PageFork], rows: &[f32]| {
        pages.write(0, slots, forks, &FusedRows { values: rows, stride, key: 0..8, value: 8..16 });
    };
    let mut pages = KeyValuePages::new(shape);
    let [from, to, whole] = [(); 3].map(|()| pages.grow());
    write(&mut pages, &[0, 1].map(|slot| PageSlot { page: from, slot }), &[], &rows[..2 * stride]);
    // The next position of the new page comes before the fork, and shares a pair with its last.
    let own = [&rows[2 * stride..]].concat();
    write(&mut pages, &[PageSlot { page: to, slot: 1 }], &[PageFork { from, to, positions: 1 }], &own);
    let expected = [&rows[..stride], &own].concat();
    write(&mut pages, &[0, 1].map(|slot| PageSlot { page: whole, slot }), &[], &expected);
    assert_eq!(pages.head(to, 0, 0), pages.head(whole, 0, 0));
}
