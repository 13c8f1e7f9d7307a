//! Numbers read from and written as text.

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

pub(crate) fn register(environment: &mut Environment<'static>) {
    environment.add_filter("to_number", |value: &Value| to_number(value));
    environment.add_filter("format_number", format_number);
    environment.add_filter("ordinal", ordinal);
}

fn refuse(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// A number where the value is whole, so that `3.0` is written `3`.
pub(crate) fn tidy(number: f64) -> Value {
    // Up to 2^53 every whole f64 is exact.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

/// `" 1,234.50 "` is 1234.5; numbers stay as they are.
pub(crate) fn to_number(value: &Value) -> Result<Value, Error> {
    if value.is_number() {
        return Ok(value.clone());
    }
    let text = value.to_string();
    let digits: String =
        text.trim().chars().filter(|c| !matches!(c, ',' | '_' | ' ' | '\u{a0}' | '\u{202f}')).collect();
    let number = digits.parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(tidy).ok_or_else(|| refuse(format!("{text:?} is not a number")))
}

/// With a fixed number of decimals (as many as needed without one) and a separator between thousands (none without one).
fn format_number(value: &Value, decimals: Option<u32>, separator: Option<&str>) -> Result<String, Error> {
    let number = f64::try_from(value.clone()).map_err(|_| refuse(format!("{value} is not a number")))?;
    let text = match decimals {
        Some(decimals) => format!("{number:.*}", decimals.min(30) as usize),
        None => format!("{number}"),
    };
    let Some(separator) = separator else { return Ok(text) };
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut result = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            result.push_str(separator);
        }
        result.push(digit);
    }
    if let Some(fraction) = fraction {
        result.push('.');
        result.push_str(fraction);
    }
    Ok(result)
}

/// 1st, 2nd, 3rd, 4th, 11th, 21st.
fn ordinal(number: i64) -> String {
    let suffix = match (number.unsigned_abs() % 10, number.unsigned_abs() % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}
