//! Texts as words, the way in which texts are compared.

use unicode_normalization::UnicodeNormalization;

/// The words of a text for comparisons: compatibility forms unfolded, accents of Latin, Greek and Cyrillic letters dropped,
/// lower case, everything but letters and digits a border. Digits stay: in questions that a template made they are the
/// difference.
pub fn words(text: &str) -> Vec<String> {
    if text.is_ascii() { words_of_ascii(text) } else { words_of_any(text) }
}

/// The same where nothing can be taken apart.
fn words_of_ascii(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect()
}

fn words_of_any(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    // The accents are marks of their own once a letter is taken apart. Marks of other scripts are vowels: they stay.
    for letter in text.nfkd().filter(|letter| !('\u{300}'..='\u{36f}').contains(letter)) {
        if letter.is_alphanumeric() {
            word.extend(letter.to_lowercase());
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Words as they are counted: of scripts that are written without blanks each letter is one.
pub(crate) fn units(text: &str) -> Vec<String> {
    let mut units = Vec::new();
    for word in words(text) {
        if word.chars().any(stands_alone) {
            units.extend(word.chars().map(String::from));
        } else {
            units.push(word);
        }
    }
    units
}

/// Letters of Chinese, Japanese, Thai, Lao, Khmer and Burmese.
fn stands_alone(letter: char) -> bool {
    matches!(u32::from(letter), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x9fff
        | 0xf900..=0xfaff | 0x20000..=0x3ffff)
}

/// A hash of bytes that is the same on every machine and in every version: FNV-1a, then [`mixed`].
pub(crate) fn hash_of(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let hash = bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mixed(hash)
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood, 2014): every bit of the result depends on every bit of `x`.
pub(crate) fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ascii_is_read_as_any_text_is(text in "[\\x00-\\x7f]{0,60}") {
            prop_assert_eq!(words_of_ascii(&text), words_of_any(&text));
        }
    }

    #[test]
    fn words_are_what_a_reader_compares() {
        assert_eq!(words("  Crème\tBRÛLÉE, 3½ (€) — don't!"), ["creme", "brulee", "31", "2", "don", "t"]);
        assert_eq!(words("हिन्दी"), ["हिन", "दी"]);
        assert_eq!(units("ein Hund 犬が"), ["ein", "hund", "犬", "か"]);
        assert!(words(" ?! ").is_empty());
        // The values of FNV-1a are published; only the finalizer is added.
        assert_eq!(hash_of(*b"a"), mixed(0xaf63_dc4c_8601_ec8c));
    }
}
