//! Numbers of accounts and of persons that have a check.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::{before, digits, pattern, stands_alone};

/// 13 to 19 digits as they are printed on cards: in one piece, in fours, or as American Express and Diners group them.
static CARD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[0-9]{13,19}|[0-9]{4}(?:[ -][0-9]{4}){3}(?:[ -][0-9]{1,3})?|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5}|[0-9]{4}(?:[ -][0-9]{4}){2}[ -][0-9]{1,3}",
    )
});

pub(super) fn cards(text: &str) -> Vec<Range<usize>> {
    let card = |range: &Range<usize>| {
        let digits = digits(&text[range.clone()]);
        is_issued(&digits) && luhn(&digits) && stands_alone(text, range, "-.")
    };
    CARD.find_iter(text).map(|found| found.range()).filter(card).collect()
}

/// Whether a number of this length begins as those of a known network do.
fn is_issued(digits: &[u32]) -> bool {
    let start = digits.iter().take(4).fold(0, |value, digit| value * 10 + digit);
    match (digits.len(), start) {
        (13 | 16 | 19, 4000..=4999)
        | (16, 5100..=5599 | 2221..=2720)
        | (15, 3400..=3499 | 3700..=3799)
        | (14, 3000..=3059 | 3600..=3699 | 3800..=3999)
        | (16..=19, 6011 | 6440..=6599 | 6200..=6299 | 3528..=3589) => true,
        // Maestro.
        (12..=19, first) => matches!(first, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763),
        _ => false,
    }
}

/// The check of ISO/IEC 7812: every second digit from the right doubled, the sum of all digits ends in 0. The same digit all
/// through is a sample.
fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, 2 * digit) {
            (0, _) => digit,
            (_, double) => double / 10 + double % 10,
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

/// Characters of an IBAN by country (the registry of ISO 13616).
const IBAN_LENGTHS: [(&str, usize); 79] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NL", 18),
    ("NO", 15),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
];

/// Country and check digits.
static IBAN: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[A-Z]{2}[0-9]{2}"));

pub(super) fn ibans(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for start in IBAN.find_iter(text) {
        let country = &text[start.start()..start.start() + 2];
        let Some((_, length)) = IBAN_LENGTHS.iter().find(|(known, _)| *known == country) else { continue };
        let free = found.last().is_none_or(|last| last.end <= start.start());
        if let Some(range) = iban(text, start.start(), *length).filter(|range| free && stands_alone(text, range, "-")) {
            found.push(range);
        }
    }
    found
}

/// As many letters and digits as the country has, with single blanks between groups, whose remainder by 97 is 1.
fn iban(text: &str, start: usize, length: usize) -> Option<Range<usize>> {
    let (mut account, mut end, mut blank) = (String::new(), start, false);
    for (place, letter) in text[start..].char_indices() {
        match letter {
            'A'..='Z' | '0'..='9' => {
                account.push(letter);
                end = start + place + 1;
                blank = false;
            }
            ' ' if !blank && account.len().is_multiple_of(4) => blank = true,
            _ => break,
        }
        if account.len() == length {
            break;
        }
    }
    if account.len() != length {
        return None;
    }
    let remainder = account[4..].chars().chain(account[..4].chars()).fold(0, |remainder, letter| {
        let value = letter.to_digit(36).unwrap_or_default();
        (remainder * if value < 10 { 10 } else { 100 } + value) % 97
    });
    (remainder == 1).then_some(start..end)
}

static SOCIAL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3} [0-9]{2} [0-9]{4}|[0-9]{9}"));
static SOCIAL_NAMED: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:\bssn|social security)\b[^0-9]*$"));

/// With hyphens the shape tells; in other forms the words before it must.
pub(super) fn social_security_numbers(text: &str) -> Vec<Range<usize>> {
    let number = |range: &Range<usize>| {
        let written = &text[range.clone()];
        let value = |digits: &[u32]| digits.iter().fold(0, |value, digit| value * 10 + digit);
        let digits = digits(written);
        let (area, group, serial) = (value(&digits[..3]), value(&digits[3..5]), value(&digits[5..]));
        // Areas 000, 666 and from 900 on, group 00 and serial 0000 are not given out.
        let given = area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
        given
            && (written.contains('-') || SOCIAL_NAMED.is_match(&before(text, range.start, 40)))
            && stands_alone(text, range, "-.")
    };
    SOCIAL.find_iter(text).map(|found| found.range()).filter(number).collect()
}
