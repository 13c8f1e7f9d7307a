//! Numbers as people and models write them, compared within a tolerance.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

use super::final_answer::final_answer;
use crate::expressions::converted;

/// How far a number may lie from the truth: it is right when either bound holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// As a share of the truth.
    pub relative: f64,
    /// In the truth's own unit.
    pub absolute: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { relative: 1e-9, absolute: 0.0 }
    }
}

impl Tolerance {
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn validate(self) -> Result<(), String> {
        for (name, value) in [("relative", self.relative), ("absolute", self.absolute)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(format!("`{name}` is {value}; choose 0 or more"));
            }
        }
        Ok(())
    }

    fn holds(self, found: f64, truth: f64) -> bool {
        let distance = (found - truth).abs();
        distance <= self.absolute || distance <= self.relative * truth.abs()
    }
}

/// A number with what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantity {
    /// The number as written; of `50 %`, 50.
    pub(crate) value: f64,
    /// Whether a percent sign follows.
    pub(crate) percent: bool,
    /// The word or sign that follows, or a currency's sign that stands before.
    pub(crate) unit: Option<String>,
}

/// A fraction, a mixed number, or a decimal number with thousands separators and a power of ten; then percent or a unit.
static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    const PLAIN: &str = r"(?:\d{1,3}(?:[,_\u{a0}\u{202f}]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)";
    let pattern = [
        r"(?P<sign>[-−+])?\s?(?P<currency>\\?[$€£¥])?\s?",
        r"(?:\\[dt]?frac\{(?P<over>\d+)\}\{(?P<under>\d+)\}",
        r"|(?:(?P<whole>\d+)\s+)?(?P<numerator>\d+)\s?/\s?(?P<denominator>\d+)",
        &format!(
            r"|(?P<number>{PLAIN})(?:\s?(?:[×*x]|\\times|\\cdot)\s?10\s?\^\s?\{{?(?P<power>[-−+]?\d+)\}}?|[eE](?P<exponent>[-+]?\d+))?)"
        ),
        r"(?:\s?(?P<percent>\\?%|percent\b)|\s?(?P<unit>°?[\p{L}]+(?:\d\b)?))?",
    ];
    Regex::new(&pattern.concat()).ok()
});

/// The last number of a text, with its sign, fraction, percent and unit.
pub(crate) fn last_quantity(text: &str) -> Option<Quantity> {
    let pattern = NUMBER.as_ref()?;
    pattern
        .captures_iter(text)
        .filter(|found| stands_alone(text, found))
        .filter_map(|found| quantity(text, &found))
        .last()
}

/// Where a number with its sign begins.
fn beginning(found: &Captures<'_>) -> usize {
    found.get(0).map_or(0, |whole| whole.end() - whole.as_str().trim_start().len())
}

/// `x2` holds no number of its own: a name stands before.
fn stands_alone(text: &str, found: &Captures<'_>) -> bool {
    let before = text[..beginning(found)].chars().next_back();
    let signed = found.name("sign").is_some();
    !before.is_some_and(|sign| sign.is_alphanumeric() && !signed || sign == '.' || sign == '_')
}

fn quantity(text: &str, found: &Captures<'_>) -> Option<Quantity> {
    let part = |name: &str| found.name(name).map(|part| part.as_str());
    let number = |name: &str| part(name).and_then(|digits| digits.parse::<f64>().ok());
    let mut value = if let (Some(over), Some(under)) = (number("over"), number("under")) {
        over / under
    } else if let (Some(over), Some(under)) = (number("numerator"), number("denominator")) {
        number("whole").unwrap_or(0.0) + over / under
    } else {
        let digits: String = part("number")?.chars().filter(|sign| sign.is_ascii_digit() || *sign == '.').collect();
        let power = part("power").or(part("exponent")).unwrap_or("0").replace('−', "-");
        // Rust reads powers of ten itself, correctly rounded; a power beyond its range is an infinite number.
        format!("{digits}e{power}").parse::<f64>().ok()?
    };
    let before = &text[..beginning(found)];
    let operand = before.trim_end().ends_with(|sign: char| sign.is_alphanumeric() || sign == ')');
    let apart =
        found.get(0).is_some_and(|whole| whole.as_str().trim_start().chars().nth(1).is_some_and(char::is_whitespace));
    // `5 - 3` and `5-3` subtract, `costs -3` and `= -3` do not.
    let subtracts = operand && (apart || !before.ends_with(char::is_whitespace));
    if matches!(part("sign"), Some("-" | "−")) && !subtracts {
        value = -value;
    }
    let currency = part("currency").map(|sign| sign.trim_start_matches('\\').to_owned());
    let unit = part("unit").map(str::to_owned).or(currency);
    value.is_finite().then_some(Quantity { value, percent: part("percent").is_some(), unit })
}

/// Whether an answer's last number is the truth's. Where both name units of one quantity, the answer is converted; where both
/// name units of different quantities, it is wrong; a missing or unknown unit is not missed. A percent sign on one side only
/// may mean a hundredth or be left out: `50 %` is 0.5, and 50.
///
/// # Errors
/// What differs, for the row's reason.
pub(crate) fn same_number(truth: &Quantity, answer: &str, tolerance: Tolerance) -> Result<(), String> {
    let Some(found) = last_quantity(final_answer(answer)).or_else(|| last_quantity(answer)) else {
        return Err("it has no number".to_owned());
    };
    let mut value = found.value;
    if let (Some(from), Some(to)) = (&found.unit, &truth.unit)
        && from != to
    {
        match converted(value, from, to) {
            Some(Ok(other)) => value = other,
            Some(Err(reason)) => return Err(reason),
            None => {}
        }
    }
    let readings = match (found.percent, truth.percent) {
        (true, false) => vec![value, value / 100.0],
        (false, true) => vec![value, value * 100.0],
        _ => vec![value],
    };
    if readings.iter().any(|value| tolerance.holds(*value, truth.value)) {
        Ok(())
    } else {
        Err(format!("{value} is not {}", truth.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        last_quantity(text).map(|found| found.value)
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for (text, expected) in [
            ("1,234,567.5", Some(1_234_567.5)),
            ("1_000", Some(1000.0)),
            ("3, 4, 5", Some(5.0)),
            ("It costs -$3.50.", Some(-3.5)),
            (r"\$18", Some(18.0)),
            ("3/4", Some(0.75)),
            ("1 1/2 cups", Some(1.5)),
            (r"-\frac{3}{4}", Some(-0.75)),
            ("1.5e3", Some(1500.0)),
            ("2.5 × 10^-3", Some(0.0025)),
            (r"6.02 \times 10^{23}", Some(6.02e23)),
            ("−7", Some(-7.0)),
            ("5 - 3", Some(3.0)),
            ("5-3", Some(3.0)),
            ("x = -3", Some(-3.0)),
            ("x2", None),
            ("1/0", None),
            ("1e999999", None),
            (".5", Some(0.5)),
            ("12:30", Some(30.0)),
            ("none", None),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    fn same(truth: &str, answer: &str) -> bool {
        same_number(&last_quantity(truth).unwrap(), answer, Tolerance::default()).is_ok()
    }

    #[test]
    fn units_and_percent() {
        assert!(same("5 km", "It is 5000 m long") && same("5 km", "5") && same("5", "5 km"));
        assert!(!same("5 km", "5 kg") && !same("5 km", "5 m"));
        assert!(same("32 F", "0 C") && same("7 apples", "7 pears"));
        assert!(same("50%", "0.5") && same("0.5", "50 percent") && same("50", r"50\%") && same("50%", "50 %"));
        assert!(!same("50%", "5%") && !same("1%", "100%"));
        assert!(same("7", "First 3 + 4.\nThe answer is 7, not 8... \\boxed{7}"));
    }

    #[test]
    fn tolerances_are_shares_or_distances() {
        let truth = last_quantity("100").unwrap();
        let near =
            |answer: &str, relative, absolute| same_number(&truth, answer, Tolerance { relative, absolute }).is_ok();
        assert!(near("101", 0.01, 0.0) && !near("101.5", 0.01, 0.0));
        assert!(near("102", 0.0, 2.0) && !near("102.1", 0.0, 2.0));
        assert!(!near("100.0000001", 0.0, 0.0) && near("100.00", 0.0, 0.0));
        assert!(Tolerance { relative: f64::NAN, absolute: 0.0 }.validate().is_err());
    }

    #[test]
    fn a_number_written_and_read_is_the_same() {
        for index in 0..2000_u64 {
            let bits = crate::identity::number(&[b"number", &index.to_le_bytes()]);
            let number = f64::from(bits as i32) / f64::from(1 + (bits >> 40) as u32 % 1000);
            assert_eq!(value(&format!("so {number} it is")), Some(number));
            let whole = (number.abs() as i64).to_string();
            let mut grouped = String::new();
            for (place, digit) in whole.chars().enumerate() {
                if place > 0 && (whole.len() - place).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            assert_eq!(value(&grouped), whole.parse().ok());
        }
    }
}
