//! Pre-tokenizers: how text is cut into pieces that no merge may cross.
//!
//! Each is a scanner written by hand from the pattern in its doc comment; the tests hold it to that pattern.

use super::characters::{Class, class, is_punctuation};

/// A family of pre-tokenizers; many values of `tokenizer.ggml.pre` share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreTokenizer {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`, what stays unmatched is a piece
    Gpt2,
    /// each `\p{N}` alone, the text between them by `Gpt2`
    DigitsThenGpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    /// with n = `digits`
    Words {
        /// How many digits a piece may hold: 1 in Qwen 2, 3 in Llama 3.
        digits: usize,
    },
    /// runs of `[\p{P}$+<=>^~|]`, the text between them by `Gpt2`, then digits in groups of three
    Punctuation,
}

impl PreTokenizer {
    /// The family of a `tokenizer.ggml.pre`, `None` when it is not known.
    pub(crate) fn from_name(pre: &str) -> Option<Self> {
        Some(match pre {
            "default" => Self::Punctuation,
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" => Self::Gpt2,
            "starcoder" | "smollm" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
                Self::DigitsThenGpt2
            }
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" => Self::Words { digits: 1 },
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "dbrx" | "smaug-bpe" => {
                Self::Words { digits: 3 }
            }
            _ => return None,
        })
    }

    /// Hands the pieces of `text` to `emit` in order; put together they are `text`.
    pub(crate) fn split<'t>(self, text: &'t str, emit: &mut impl FnMut(&'t str)) {
        match self {
            Self::Gpt2 => split_gpt2(text, emit),
            Self::DigitsThenGpt2 => {
                split_runs(text, |c| class(c) == Class::Number, &mut |run, numbers| {
                    if numbers {
                        for (start, digit) in run.char_indices() {
                            emit(&run[start..start + digit.len_utf8()]);
                        }
                    } else {
                        split_gpt2(run, emit);
                    }
                });
            }
            Self::Words { digits } => split_words(text, digits, emit),
            Self::Punctuation => {
                split_runs(text, is_default_punctuation, &mut |run, _| {
                    split_gpt2(run, &mut |piece| {
                        split_runs(piece, |c| class(c) == Class::Number, &mut |part, numbers| {
                            if numbers {
                                split_triples(part, emit);
                            } else {
                                emit(part);
                            }
                        });
                    });
                });
            }
        }
    }
}

/// Whether sequences of vocabularies with this `tokenizer.ggml.pre` start with BOS when the file does not say.
pub(crate) fn starts_with_bos(pre: &str) -> bool {
    merges_whole_pieces(pre)
}

/// Whether a piece that is a token as a whole skips the merges: so it is in the vocabularies that came from tiktoken.
pub(crate) fn merges_whole_pieces(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral")
}

fn is_default_punctuation(character: char) -> bool {
    matches!(character, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|') || is_punctuation(character)
}

/// The longest runs inside and outside of a class, with whether they are inside.
fn split_runs<'t>(text: &'t str, inside: impl Fn(char) -> bool, emit: &mut impl FnMut(&'t str, bool)) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let kind = inside(first);
        let end = rest.find(|c| inside(c) != kind).unwrap_or(rest.len());
        emit(&rest[..end], kind);
        rest = &rest[end..];
    }
}

/// `[0-9][0-9][0-9]` and what lies between.
fn split_triples<'t>(numbers: &'t str, emit: &mut impl FnMut(&'t str)) {
    let (mut start, mut at) = (0, 0);
    while at < numbers.len() {
        if numbers.as_bytes()[at..].iter().take(3).filter(|byte| byte.is_ascii_digit()).count() == 3 {
            if start < at {
                emit(&numbers[start..at]);
            }
            emit(&numbers[at..at + 3]);
            at += 3;
            start = at;
        } else {
            at += numbers[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    if start < numbers.len() {
        emit(&numbers[start..]);
    }
}

/// Where the run of `wanted` that starts at `start` ends.
fn run_end(text: &str, start: usize, wanted: Class) -> usize {
    text[start..].char_indices().find(|&(_, c)| class(c) != wanted).map_or(text.len(), |(offset, _)| start + offset)
}

/// The length of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at the start of `rest`, which starts with an apostrophe.
fn contraction(rest: &str, ignore_case: bool) -> Option<usize> {
    let letter = |index: usize| {
        rest.as_bytes().get(index).map(|byte| if ignore_case { byte.to_ascii_lowercase() } else { *byte })
    };
    match (letter(1)?, letter(2)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ => None,
    }
}

/// `\s+(?!\S)`: all white space at the end of the text, all but its last character elsewhere, one character when it is alone.
fn space_end(text: &str, start: usize) -> usize {
    let end = run_end(text, start, Class::Space);
    if end == text.len() {
        return end;
    }
    let last = text[start..end].char_indices().next_back().map_or(0, |(offset, _)| offset);
    if last == 0 { end } else { start + last }
}

fn split_gpt2<'t>(text: &'t str, emit: &mut impl FnMut(&'t str)) {
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let end = gpt2_piece_end(text, start, first);
        emit(&text[start..end]);
        start = end;
    }
}

fn gpt2_piece_end(text: &str, start: usize, first: char) -> usize {
    if first == '\''
        && let Some(length) = contraction(&text[start..], false)
    {
        return start + length;
    }
    let after = start + first.len_utf8();
    let first_class = class(first);
    if first_class != Class::Space {
        return run_end(text, after, first_class);
    }
    if first == ' '
        && let Some(next) = text[after..].chars().next()
        && class(next) != Class::Space
    {
        return run_end(text, after, class(next));
    }
    space_end(text, start)
}

fn split_words<'t>(text: &'t str, digits: usize, emit: &mut impl FnMut(&'t str)) {
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let end = words_piece_end(text, start, first, digits);
        emit(&text[start..end]);
        start = end;
    }
}

fn words_piece_end(text: &str, start: usize, first: char, digits: usize) -> usize {
    if first == '\''
        && let Some(length) = contraction(&text[start..], true)
    {
        return start + length;
    }
    let after = start + first.len_utf8();
    let first_class = class(first);
    let next_class = text[after..].chars().next().map(class);
    match first_class {
        Class::Letter => return run_end(text, after, Class::Letter),
        Class::Number => {
            let run = &text[start..run_end(text, after, Class::Number)];
            return start + run.char_indices().nth(digits).map_or(run.len(), |(offset, _)| offset);
        }
        Class::Space | Class::Other => {}
    }
    if next_class == Some(Class::Letter) && !matches!(first, '\r' | '\n') {
        return run_end(text, after, Class::Letter);
    }
    if first_class == Class::Other || (first == ' ' && next_class == Some(Class::Other)) {
        let end = run_end(text, after, Class::Other);
        return end + text.as_bytes()[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    }
    let run = &text[start..run_end(text, start, Class::Space)];
    run.rfind(['\r', '\n']).map_or_else(|| space_end(text, start), |newline| start + newline + 1)
}

#[cfg(test)]
mod tests {
    use fancy_regex::Regex;
    use proptest::prelude::*;

    use super::*;

    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
    const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// What the patterns say, one after another, each on the pieces of the one before.
    fn by_patterns(patterns: &[&str], text: &str) -> Vec<String> {
        let mut pieces = vec![text.to_owned()];
        for pattern in patterns {
            let regex = Regex::new(pattern).unwrap();
            let mut next = Vec::new();
            for piece in pieces {
                let mut at = 0;
                for found in regex.find_iter(&piece).map(Result::unwrap) {
                    if at < found.start() {
                        next.push(piece[at..found.start()].to_owned());
                    }
                    next.push(found.as_str().to_owned());
                    at = found.end();
                }
                if at < piece.len() {
                    next.push(piece[at..].to_owned());
                }
            }
            pieces = next;
        }
        pieces
    }

    fn by_scanner(pre: PreTokenizer, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        pre.split(text, &mut |piece| pieces.push(piece.to_owned()));
        pieces
    }

    fn check(text: &str) {
        for (pre, patterns) in [
            (PreTokenizer::Gpt2, &[GPT2][..]),
            (PreTokenizer::DigitsThenGpt2, &[r"\p{N}", GPT2]),
            (PreTokenizer::Words { digits: 1 }, &[QWEN2]),
            (PreTokenizer::Words { digits: 3 }, &[LLAMA3]),
            (PreTokenizer::Punctuation, &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        ] {
            assert_eq!(by_scanner(pre, text), by_patterns(patterns, text), "{pre:?} on {text:?}");
        }
    }

    #[test]
    fn scanners_equal_their_patterns_on_chosen_texts() {
        for text in [
            "",
            "Hello world",
            "  two  spaces \n\n  and lines\r\n\tthen 12345 x²³¹ tabs\u{a0}\u{3000}end  ",
            "I'll we've IT'S 'tis don'T 'RE ''s '",
            "  \n",
            " \n x",
            "\n\n\n",
            "a\n \n b",
            "$1,234.56 <=> ~|~ 1²34567 ½Ⅷ五",
            "héllo ǅ 日本語 ि́ नमस्ते ﷺ 🦙🚀 \u{200d}x",
            "...!!!\n\r\n(x)\n",
            "\u{b}\u{c}\u{85}x",
        ] {
            check(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn scanners_equal_their_patterns(text in "([ \\n\\r\\t']|[sStTrReElLvVmMdD]|[0-9½²]|[a-zé語]|[.,!$+^|~]|\\PC){0,40}") {
            check(&text);
        }
    }
}
