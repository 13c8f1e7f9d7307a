//! Unicode classes of single characters, as the patterns of pre-tokenizers name them.

use std::sync::LazyLock;

use fancy_regex::Regex;

/// Assigned letters and punctuation lie below this code: above are variation selectors, tags and private use.
const END: u32 = 0x4_0000;

/// What a pattern asks of a character; `\p{L}`, `\p{N}`, `\s` and the rest exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    /// None of them.
    Other,
}

/// The class of `character`.
pub(crate) fn class(character: char) -> Class {
    if character.is_ascii() {
        return match character {
            'a'..='z' | 'A'..='Z' => Class::Letter,
            '0'..='9' => Class::Number,
            // The vertical tab (U+000B) is white space in Unicode.
            ' ' | '\t'..='\r' => Class::Space,
            _ => Class::Other,
        };
    }
    if LETTERS.contains(character) {
        Class::Letter
    } else if character.is_numeric() {
        // `char::is_numeric` is the union of Nd, Nl and No, which is \p{N}.
        Class::Number
    } else if character.is_whitespace() {
        Class::Space
    } else {
        Class::Other
    }
}

/// `\p{P}`
pub(crate) fn is_punctuation(character: char) -> bool {
    PUNCTUATION.contains(character)
}

/// `\p{Mn}`: a mark that stands on the letter before it.
pub(crate) fn is_mark(character: char) -> bool {
    MARKS.contains(character) || matches!(character, '\u{e0100}'..='\u{e01ef}')
}

/// `\p{C}`: control, format, private use, unassigned.
pub(crate) fn is_other(character: char) -> bool {
    OTHERS.contains(character) || u32::from(character) >= END && !is_mark(character)
}

/// One bit a character below `END`.
struct CharacterSet(Vec<u64>);

static LETTERS: LazyLock<CharacterSet> = LazyLock::new(|| CharacterSet::new(r"\p{L}+", char::is_alphabetic));
static PUNCTUATION: LazyLock<CharacterSet> = LazyLock::new(|| CharacterSet::new(r"\p{P}+", |c| !c.is_alphanumeric()));

static MARKS: LazyLock<CharacterSet> = LazyLock::new(|| CharacterSet::new(r"\p{Mn}+", |c| !c.is_ascii()));
static OTHERS: LazyLock<CharacterSet> = LazyLock::new(|| CharacterSet::new(r"\p{C}+", |_| true));

impl CharacterSet {
    /// The characters that the regex engine's own Unicode tables put in `runs_of_class`; only those that
    /// `may_belong` lets through are asked for, all others are known not to belong.
    fn new(runs_of_class: &str, may_belong: impl Fn(char) -> bool) -> Self {
        let mut bits = vec![0; END as usize / 64];
        let candidates: String = (0..END).filter_map(char::from_u32).filter(|&c| may_belong(c)).collect();
        // The patterns are constants of this file; the tests below would see an empty set.
        if let Ok(regex) = Regex::new(runs_of_class) {
            for run in regex.find_iter(&candidates).map_while(Result::ok) {
                for character in run.as_str().chars() {
                    bits[character as usize / 64] |= 1 << (character as usize % 64);
                }
            }
        }
        Self(bits)
    }

    fn contains(&self, character: char) -> bool {
        let code = character as usize;
        self.0.get(code / 64).is_some_and(|word| word >> (code % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_regex_engine() {
        let letter = Regex::new(r"^\p{L}$").unwrap();
        let number = Regex::new(r"^\p{N}$").unwrap();
        let space = Regex::new(r"^\s$").unwrap();
        let punctuation = Regex::new(r"^\p{P}$").unwrap();
        let (mark, other) = (Regex::new(r"^\p{Mn}$").unwrap(), Regex::new(r"^\p{C}$").unwrap());
        let blocks = (0..0x3400).chain(0xa000..0xac10).chain(0xd7a0..0x1_1800).chain(0x1_d000..0x1_fb00);
        for character in blocks.filter_map(char::from_u32) {
            let text = character.to_string();
            let expected = if letter.is_match(&text).unwrap() {
                Class::Letter
            } else if number.is_match(&text).unwrap() {
                Class::Number
            } else if space.is_match(&text).unwrap() {
                Class::Space
            } else {
                Class::Other
            };
            assert_eq!(class(character), expected, "{character:?}");
            assert_eq!(is_punctuation(character), punctuation.is_match(&text).unwrap(), "{character:?}");
            assert_eq!(is_mark(character), mark.is_match(&text).unwrap(), "{character:?}");
            assert_eq!(is_other(character), other.is_match(&text).unwrap(), "{character:?}");
        }
    }
}
