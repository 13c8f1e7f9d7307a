//! Words in capitals, counted as the Penn Treebank parts words.

use super::rules::in_capitals;
use super::sentences::sentences;

/// How many words of the text stand in capitals.
///
/// Hyphens and slashes hold a word together; quotation marks, brackets, dashes and symbols part it; a comma or colon does where no
/// digit follows. `DON'T` is `DO` and `N'T`, `IT'S` is `IT` and `'S`, `CANNOT` is `CAN` and `NOT`.
pub(super) fn words_in_capitals(text: &str) -> usize {
    sentences(text).iter().map(|sentence| of_sentence(sentence)).sum()
}

fn of_sentence(sentence: &str) -> usize {
    let mut count = 0;
    let mut word = String::new();
    let mut characters = sentence.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        let parts = character.is_whitespace()
            || is_separator(character)
            || matches!(character, ',' | ':') && !next.is_some_and(char::is_numeric)
            || matches!(character, '.' | '-' | '\'' | '`') && next == Some(character);
        if parts {
            count += of_word(&word);
            word.clear();
        } else {
            word.push(character);
        }
    }
    count + of_word(word.trim_end_matches('.'))
}

fn is_separator(character: char) -> bool {
    matches!(character, '"' | '`' | ';' | '@' | '#' | '$' | '%' | '&' | '?' | '!' | '*')
        || matches!(character, '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>')
        || matches!(character, '«' | '»' | '“' | '”' | '„' | '‘' | '’' | '\u{2012}'..='\u{2015}')
}

fn of_word(word: &str) -> usize {
    const ENDINGS: [&str; 14] =
        ["n't", "N'T", "'ll", "'LL", "'re", "'RE", "'ve", "'VE", "'s", "'S", "'m", "'M", "'d", "'D"];
    const JOINED: [&str; 6] = ["CANNOT", "GIMME", "GONNA", "GOTTA", "LEMME", "WANNA"];
    let word = word.trim_start_matches('\'');
    for ending in ENDINGS {
        if let Some(rest) = word.strip_suffix(ending)
            && !rest.is_empty()
            && !rest.ends_with('\'')
        {
            return usize::from(in_capitals(rest)) + usize::from(in_capitals(ending));
        }
    }
    if JOINED.contains(&word) { 2 } else { usize::from(in_capitals(word)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_as_in_the_treebank() {
        for (text, expected) in [
            ("NASA and the U.S. went.", 2),
            ("I DON'T. IT'S mine.", 5),
            ("the WHO's plan", 1),
            ("WELL-KNOWN AND/OR", 2),
            ("1,000 A,B (C) \"D\" E:F", 6),
            ("YOU CANNOT GO", 4),
            ("DON’T", 2),
            ("no, 12 % _ -", 0),
            ("STOP...NOW--OK", 3),
            ("A1 b2", 1),
        ] {
            assert_eq!(words_in_capitals(text), expected, "{text}");
        }
    }
}
