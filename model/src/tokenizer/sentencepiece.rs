//! The merges of `SentencePiece`: neighbouring symbols join as long as their text is a token, the best score first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::vocabulary::{SPACE, Vocabulary};

const NONE: u32 = u32::MAX;

/// Appends the ids of `text`, in which spaces become `▁`; `space_in_front` puts one before the first word. Characters without a
/// token fall back to the tokens of their bytes, and to `unknown` where there are none.
pub(crate) fn encode(
    vocabulary: &Vocabulary,
    text: &str,
    space_in_front: bool,
    unknown: Option<u32>,
    ids: &mut Vec<u32>,
) {
    let mut escaped = String::with_capacity(text.len() + text.len() / 2);
    if space_in_front {
        escaped.push(SPACE);
    }
    escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
    let mut symbols: Vec<Symbol> = Vec::with_capacity(escaped.len());
    for (start, character) in escaped.char_indices() {
        let index = symbols.len() as u32;
        symbols.push(Symbol {
            start,
            length: character.len_utf8(),
            previous: index.checked_sub(1).unwrap_or(NONE),
            next: index + 1,
        });
    }
    let Some(last) = symbols.last_mut() else {
        return;
    };
    last.next = NONE;
    let mut heap = BinaryHeap::new();
    let push = |heap: &mut BinaryHeap<Pair>, symbols: &[Symbol], left: u32, right: u32| {
        if left == NONE || right == NONE {
            return;
        }
        let first = &symbols[left as usize];
        let length = first.length + symbols[right as usize].length;
        if let Some(id) = vocabulary.id(&escaped[first.start..first.start + length]) {
            // Adding zero makes -0 equal to 0.
            heap.push(Pair { score: vocabulary.score(id) + 0.0, left, right, length });
        }
    };
    for left in 1..symbols.len() as u32 {
        push(&mut heap, &symbols, left - 1, left);
    }
    while let Some(Pair { left, right, length, .. }) = heap.pop() {
        let (first, second) = (symbols[left as usize], symbols[right as usize]);
        // A merged-away symbol has no length, a grown one another length than when the pair was pushed.
        if first.length == 0 || second.length == 0 || first.length + second.length != length {
            continue;
        }
        symbols[left as usize].length = length;
        symbols[left as usize].next = second.next;
        symbols[right as usize].length = 0;
        if second.next != NONE {
            symbols[second.next as usize].previous = left;
        }
        push(&mut heap, &symbols, first.previous, left);
        push(&mut heap, &symbols, left, second.next);
    }
    for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
        let piece = &escaped[symbol.start..symbol.start + symbol.length];
        match vocabulary.id(piece) {
            Some(id) => ids.push(id),
            None => ids.extend(piece.bytes().filter_map(|byte| vocabulary.byte_token(byte).or(unknown))),
        }
    }
}

#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    length: usize,
    previous: u32,
    next: u32,
}

struct Pair {
    score: f32,
    left: u32,
    right: u32,
    length: usize,
}

impl Ord for Pair {
    /// The greatest is the best: the higher score, then the one further left.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::vocabulary::TokenKind;

    #[test]
    fn the_best_score_merges_first_and_unknown_bytes_fall_back() {
        let texts = ["<unk>", "▁", "a", "b", "ab", "▁a", "<0xC3>"].map(String::from).to_vec();
        let mut kinds = vec![TokenKind::Normal; 6];
        kinds.push(TokenKind::Byte);
        let vocabulary = Vocabulary::new(texts, kinds, vec![0.0, -5.0, -6.0, -7.0, -2.0, -1.0, 0.0], false);
        let mut ids = Vec::new();
        encode(&vocabulary, "ab é", true, Some(0), &mut ids);
        assert_eq!(ids, [5, 3, 1, 6, 0]);
    }
}
