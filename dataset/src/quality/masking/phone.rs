//! Telephone numbers.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::{before, digits, pattern, stands_alone};

/// Digits with at most one sign, or a bracket and a blank, between two of them.
static NUMBER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:\+|\(\+?)?[0-9](?:(?:[ .\x{a0}/-]|\x20?\(|\)[\x20-]?|\x20-\x20)?[0-9]){6,30}\)?"));

/// Words that say that a number is one to call.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:tel|tél|tele?f[oó]n[oe]?|telephone|téléphone|phone|mobile?|cell(?:phone|ular)?|móvil|handy|call(?:ing)?|dial(?:ling)?|fax|ring|\
          whatsapp|sms|text (?:me|us)|hotline|helpline|appelez|numéro|rufnummer|ruf(?:en)?|durchwahl|llam[ae])\b[^0-9\n]{0,24}$",
    )
});

/// The North American plan: area and exchange begin with 2 to 9.
static AMERICAN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[ .-][0-9]{4}$"));
/// British numbers as they are written there.
static BRITISH: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:\(?02[0-9]\)? [0-9]{4} [0-9]{4}|\(?01[0-9]{2,3}\)? [0-9]{3} ?[0-9]{3,4}|07[0-9]{3} [0-9]{3} ?[0-9]{3})$",
    )
});

pub(super) fn numbers(text: &str) -> Vec<Range<usize>> {
    if text.bytes().filter(u8::is_ascii_digit).count() < 7 {
        return Vec::new();
    }
    NUMBER.find_iter(text).filter_map(|found| longest(text, found.range())).collect()
}

/// The number itself: a group behind it may belong to the sentence ("call 415-555-0132 2 times"), and so may a bracket without
/// its other half.
fn longest(text: &str, mut range: Range<usize>) -> Option<Range<usize>> {
    loop {
        let written = &text[range.clone()];
        if written.starts_with('(') && written.ends_with(')') {
            range = range.start + 1..range.end - 1;
        } else if written.starts_with('(') && !written.contains(')') {
            range.start += 1;
        } else if written.ends_with(')') && !written.contains('(') {
            range.end -= 1;
        } else if is_number(text, &range) {
            return Some(range);
        } else {
            let shorter = written.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == ')');
            let shorter = shorter.trim_end_matches(|letter: char| !letter.is_ascii_digit() && letter != ')');
            if shorter.is_empty() || !shorter.contains(|letter: char| letter.is_ascii_digit()) {
                return None;
            }
            range.end = range.start + shorter.len();
        }
    }
}

fn is_number(text: &str, range: &Range<usize>) -> bool {
    let written = &text[range.clone()];
    let digits = digits(written);
    if !stands_alone(text, range, "-./:,") || !(7..=15).contains(&digits.len()) || is_date(written) {
        return false;
    }
    let international = written.trim_start_matches('(').starts_with('+');
    if international {
        // E.164 with its country; a gain of "+20 000 000" has round groups.
        let american = digits[0] == 1;
        let fits = if american { digits.len() == 11 && digits[1] >= 2 && digits[4] >= 2 } else { digits.len() >= 8 };
        return digits[0] != 0 && fits && !written.ends_with("000 000");
    }
    if AMERICAN.is_match(written) || BRITISH.is_match(written) {
        return true;
    }
    // A prefix of international calls needs groups, everything else a word that names it.
    let abroad = digits.len() >= 11 && digits[..2] == [0, 0] && digits[2] != 0 && written.contains([' ', '-', '/']);
    abroad || NAMED.is_match(&before(text, range.start, 48))
}

/// `2019-03-05`, `05.03.2019`, `1990 - 1995`.
fn is_date(written: &str) -> bool {
    let groups: Vec<&str> =
        written.split(|letter: char| !letter.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let year = |group: &str| group.len() == 4 && (group.starts_with("19") || group.starts_with("20"));
    match lengths.as_slice() {
        [4, 1 | 2, 1 | 2] => year(groups[0]),
        [1 | 2, 1 | 2, 4] => year(groups[2]),
        [4, 4] => year(groups[0]) && year(groups[1]),
        _ => false,
    }
}
