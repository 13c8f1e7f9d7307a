//! Byte-level byte-pair encoding: merges of neighbouring symbols, the best rank first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::byte_characters::{byte_characters, byte_of};
use super::split::PreTokenizer;
use super::vocabulary::Vocabulary;
use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;

/// Pieces up to this many symbols look for their best pair in a plain loop, longer ones in a heap.
const SHORT_PIECE: usize = 24;
/// Pieces of at most this many bytes are remembered within one call.
const REMEMBERED_BYTES: usize = 48;
const NONE: u32 = u32::MAX;

/// The merge rules of a vocabulary over symbols: ids of the vocabulary, then numbers for texts that only occur in merges.
pub(crate) struct BytePairEncoder {
    pre_tokenizer: PreTokenizer,
    /// The symbol of each byte.
    bytes: [u32; 256],
    /// (left, right) -> (rank, symbol of both together)
    merges: HashMap<u64, (u32, u32), BuildHasherDefault<PairHasher>>,
    /// A piece that is a token as a whole is that token, whatever the merges say.
    whole_pieces: Option<HashMap<Box<[u8]>, u32>>,
    /// What a symbol that is no token becomes: the tokens of its bytes.
    without_token: Vec<Vec<u32>>,
    vocabulary: u32,
}

impl BytePairEncoder {
    /// Rules from `merges` in order of rank.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        merges: &[String],
        pre_tokenizer: PreTokenizer,
        ignore_merges: bool,
    ) -> Result<Self, ModelError> {
        let size = vocabulary.len() as u32;
        let mut extra: HashMap<Box<str>, u32> = HashMap::new();
        let mut extra_texts: Vec<Box<str>> = Vec::new();
        let mut symbol = |text: &str| -> u32 {
            vocabulary.id(text).unwrap_or_else(|| {
                *extra.entry(text.into()).or_insert_with(|| {
                    extra_texts.push(text.into());
                    size + extra_texts.len() as u32 - 1
                })
            })
        };
        let mut buffer = [0; 4];
        let bytes = byte_characters().map(|character| symbol(character.encode_utf8(&mut buffer)));
        let mut table = HashMap::with_capacity_and_hasher(merges.len(), BuildHasherDefault::default());
        for (index, merge) in merges.iter().enumerate() {
            // A part may start with a space in vocabularies that are not byte-level; the separator is the first space after it.
            let parts =
                merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(at, _)| (&merge[..at], &merge[at + 1..]));
            let Some((left, right)) = parts.filter(|(_, right)| !right.is_empty()) else {
                return Err(ModelError::invalid(
                    format!("merge rule {index} of the tokenizer"),
                    format!("{merge:?} is not two parts with one space between them"),
                    DOWNLOAD_AGAIN,
                ));
            };
            let pair = pair_key(symbol(left), symbol(right));
            let merged = symbol(&format!("{left}{right}"));
            table.entry(pair).or_insert((index as u32, merged));
        }
        let byte_tokens = |text: &str| -> Vec<u32> {
            text.chars().filter_map(|c| vocabulary.id(c.encode_utf8(&mut [0; 4]))).collect()
        };
        let without_token = extra_texts.iter().map(|text| byte_tokens(text)).collect();
        let whole_pieces = ignore_merges.then(|| {
            (0..size)
                .filter_map(|id| {
                    let bytes: Option<Vec<u8>> = vocabulary.text(id).chars().map(byte_of).collect();
                    Some((bytes?.into_boxed_slice(), id))
                })
                .collect()
        });
        Ok(Self { pre_tokenizer, bytes, merges: table, whole_pieces, without_token, vocabulary: size })
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut remembered: HashMap<&[u8], (u32, u32), BuildHasherDefault<PairHasher>> = HashMap::default();
        let mut work = Work::default();
        self.pre_tokenizer.split(text, &mut |piece| {
            let piece = piece.as_bytes();
            if piece.len() > REMEMBERED_BYTES {
                self.encode_piece(piece, &mut work, ids);
            } else if let Some(&(start, end)) = remembered.get(piece) {
                ids.extend_from_within(start as usize..end as usize);
            } else {
                let start = ids.len();
                self.encode_piece(piece, &mut work, ids);
                if let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(ids.len())) {
                    remembered.insert(piece, (start, end));
                }
            }
        });
    }

    fn encode_piece(&self, piece: &[u8], work: &mut Work, ids: &mut Vec<u32>) {
        if let Some(whole) = &self.whole_pieces
            && let Some(&id) = whole.get(piece)
        {
            ids.push(id);
            return;
        }
        work.symbols.clear();
        work.symbols.extend(piece.iter().map(|&byte| self.bytes[usize::from(byte)]));
        if piece.len() <= SHORT_PIECE {
            self.merge_short(&mut work.symbols);
        } else {
            self.merge_long(work);
        }
        for &symbol in &work.symbols {
            match symbol.checked_sub(self.vocabulary) {
                None => ids.push(symbol),
                Some(extra) => ids.extend_from_slice(&self.without_token[extra as usize]),
            }
        }
    }

    fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        self.merges.get(&pair_key(left, right)).copied()
    }

    /// Merges the leftmost pair of the best rank until there is none.
    fn merge_short(&self, symbols: &mut Vec<u32>) {
        let mut ranks = [(NONE, NONE); SHORT_PIECE];
        for (slot, pair) in ranks.iter_mut().zip(symbols.windows(2)) {
            *slot = self.merge(pair[0], pair[1]).unwrap_or((NONE, NONE));
        }
        while symbols.len() > 1 {
            let pairs = symbols.len() - 1;
            let mut best = 0;
            for index in 1..pairs {
                if ranks[index].0 < ranks[best].0 {
                    best = index;
                }
            }
            let (rank, merged) = ranks[best];
            if rank == NONE {
                return;
            }
            symbols[best] = merged;
            symbols.remove(best + 1);
            ranks.copy_within(best + 1..pairs, best);
            if best + 1 < symbols.len() {
                ranks[best] = self.merge(merged, symbols[best + 1]).unwrap_or((NONE, NONE));
            }
            if best > 0 {
                ranks[best - 1] = self.merge(symbols[best - 1], merged).unwrap_or((NONE, NONE));
            }
        }
    }

    /// The same with a heap of pairs over a linked list: n log n for runs without spaces.
    fn merge_long(&self, work: &mut Work) {
        let Work { symbols, next, previous, heap } = work;
        let length = symbols.len() as u32;
        heap.clear();
        next.clear();
        next.extend((1..length).chain([NONE]));
        previous.clear();
        previous.extend([NONE].into_iter().chain(0..length - 1));
        let push = |heap: &mut BinaryHeap<_>, symbols: &[u32], left: u32, right: u32| {
            if left != NONE && right != NONE {
                let pair = (symbols[left as usize], symbols[right as usize]);
                if let Some((rank, merged)) = self.merge(pair.0, pair.1) {
                    heap.push(Reverse((rank, left, right, pair, merged)));
                }
            }
        };
        for left in 0..length - 1 {
            push(heap, symbols, left, left + 1);
        }
        while let Some(Reverse((_, left, right, pair, merged))) = heap.pop() {
            // An entry is stale when one of its symbols has been merged since.
            if (symbols[left as usize], symbols[right as usize]) != pair || next[left as usize] != right {
                continue;
            }
            symbols[left as usize] = merged;
            symbols[right as usize] = NONE;
            let after = next[right as usize];
            next[left as usize] = after;
            if after != NONE {
                previous[after as usize] = left;
            }
            push(heap, symbols, previous[left as usize], left);
            push(heap, symbols, left, after);
        }
        symbols.retain(|&symbol| symbol != NONE);
    }
}

/// Buffers reused from piece to piece.
#[derive(Default)]
struct Work {
    symbols: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
    #[allow(clippy::type_complexity)] // (rank, left, right, symbols when pushed, symbol of both)
    heap: BinaryHeap<Reverse<(u32, u32, u32, (u32, u32), u32)>>,
}

fn pair_key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// A multiplicative hash: keys are our own symbols and pieces of one text, so that a hash hardened against attackers would
/// only cost time. (A hostile text can at worst make its own encoding slow.)
#[derive(Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::vocabulary::{TokenKind, Vocabulary};

    fn encoder() -> BytePairEncoder {
        let merges = ["a b", "b c", "ab c", "a a", "aa aa", "aaaa b", "c ab"].map(str::to_owned);
        let mut texts: Vec<String> = byte_characters().iter().map(char::to_string).collect();
        texts.extend(merges.iter().map(|merge| merge.replace(' ', "")).filter(|text| text != "bc"));
        let kinds = vec![TokenKind::Normal; texts.len()];
        let vocabulary = Vocabulary::new(texts, kinds, Vec::new(), true);
        BytePairEncoder::new(&vocabulary, &merges, PreTokenizer::Gpt2, false).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_heap_merges_like_the_loop(text in "[abc]{2,24}") {
            let encoder = encoder();
            let symbols: Vec<u32> = text.bytes().map(|byte| encoder.bytes[usize::from(byte)]).collect();
            let mut short = symbols.clone();
            encoder.merge_short(&mut short);
            let mut work = Work { symbols, ..Work::default() };
            encoder.merge_long(&mut work);
            prop_assert_eq!(short, work.symbols);
        }
    }

    #[test]
    fn a_merged_text_without_a_token_becomes_its_bytes() {
        let encoder = encoder();
        let mut ids = Vec::new();
        encoder.encode("bc", &mut ids);
        assert_eq!(ids, [encoder.bytes[usize::from(b'b')], encoder.bytes[usize::from(b'c')]]);
    }

    #[test]
    fn a_merge_without_a_space_is_refused() {
        let vocabulary = Vocabulary::new(vec!["a".into()], vec![TokenKind::Normal], Vec::new(), true);
        let refused = BytePairEncoder::new(&vocabulary, &["ab".into()], PreTokenizer::Gpt2, false);
        assert!(refused.is_err_and(|error| { error.to_string().contains("merge rule 0 of the tokenizer: \"ab\"") }));
    }
}
