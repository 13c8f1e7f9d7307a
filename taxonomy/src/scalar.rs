//! What a word without quotes means: YAML 1.2's core schema, and YAML 1.1 as `PyYAML` has it.
//!
//! The two disagree on `yes`, `on`, days, `1e3`, `0o17` and numbers with `_` or `:` in them.

use crate::node::{Dialect, Value};

/// The value of a word without quotes.
pub(crate) fn resolve(text: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::Yaml12 => yaml12(text),
        Dialect::Yaml11 => yaml11(text),
        Dialect::Lenient => match yaml11(text) {
            Value::Text(text) => Value::Text(text),
            value => match yaml12(text) {
                Value::Text(text) => Value::Text(text),
                _ => value,
            },
        },
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn yaml12(text: &str) -> Value {
    if is_null(text) {
        return Value::Null;
    }
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let (sign, digits) = split_sign(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Value::Float(f64::INFINITY.copysign(if sign < 0 { -1.0 } else { 1.0 }));
    }
    let based = [("0o", 8), ("0x", 16)].iter().find_map(|(prefix, base)| Some((text.strip_prefix(prefix)?, *base)));
    if let Some((digits, base)) = based {
        return whole(1, digits, base).unwrap_or_else(|| Value::Text(text.to_owned()));
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return whole(sign, digits, 10).unwrap_or_else(|| Value::Text(text.to_owned()));
    }
    match is_decimal(digits).then(|| text.parse()) {
        Some(Ok(number)) => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

/// `12.5`, `.5`, `1e3`, `12.`: digits with at most one point, and an exponent.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    digits(before)
        && digits(after)
        && !(before.is_empty() && after.is_empty())
        && exponent.is_none_or(|exponent| {
            let digits_of = split_sign(exponent).1;
            !digits_of.is_empty() && digits(digits_of)
        })
}

fn yaml11(text: &str) -> Value {
    if is_null(text) {
        return Value::Null;
    }
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if is_date(text) {
        return Value::Date(text.to_owned());
    }
    let (sign, digits) = split_sign(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Value::Float(f64::INFINITY.copysign(if sign < 0 { -1.0 } else { 1.0 }));
    }
    integer11(sign, digits).or_else(|| float11(text)).unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Whole numbers to the bases 2 (`0b`), 8 (`0`), 10, 16 (`0x`) and 60 (`1:30`), with `_` anywhere between digits.
fn integer11(sign: i64, digits: &str) -> Option<Value> {
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if let Some((first, rest)) = digits.split_once(':') {
        if first.starts_with('0') || !only(first, |byte| byte.is_ascii_digit() || byte == b'_') {
            return None;
        }
        let mut total: i64 = first.replace('_', "").parse().ok()?;
        for part in rest.split(':') {
            total = total.checked_mul(60)?.checked_add(sixtieth(part)?)?;
        }
        return Some(Value::Integer(sign * total));
    }
    let (rest, base) = if let Some(rest) = digits.strip_prefix("0b") {
        (rest, 2)
    } else if let Some(rest) = digits.strip_prefix("0x") {
        (rest, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (digits, 10)
    };
    only(rest, |byte| byte == b'_' || char::from(byte).is_digit(base))
        .then(|| whole(sign, &rest.replace('_', ""), base))?
}

/// `12.5`, `.5`, `1_0.5e+3` (an exponent needs its sign) and `1:30.5`.
fn float11(text: &str) -> Option<Value> {
    let (sign, digits) = split_sign(text);
    let digits_or_lines = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    if digits.contains(':') {
        let (whole, fraction) = digits.split_once('.')?;
        let (first, rest) = whole.split_once(':')?;
        let good = first.starts_with(|c: char| c.is_ascii_digit())
            && digits_or_lines(first)
            && digits_or_lines(fraction)
            && rest.split(':').all(|part| sixtieth(part).is_some());
        return good.then_some(Value::Float(f64::NAN));
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (before, after) = mantissa.split_once('.')?;
    let starts = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    let good = digits_or_lines(before)
        && digits_or_lines(after)
        && (starts(before) || (before.is_empty() && starts(after) && digits == text))
        && exponent.is_none_or(|exponent| {
            exponent.strip_prefix(['+', '-']).is_some_and(|part| only(part, |byte| byte.is_ascii_digit()))
        });
    let number: f64 = good.then(|| digits.replace('_', "").parse().ok())??;
    Some(Value::Float(number.copysign(if sign < 0 { -1.0 } else { 1.0 })))
}

/// `2001-01-31`, or with a time behind `T` or blanks.
fn is_date(text: &str) -> bool {
    let digits = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let (day, time) = match text.find(['T', 't', ' ', '\t']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let parts: Vec<&str> = day.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let shortest = if time.is_some() { 1 } else { 2 };
    if !(digits(year, 4..=4) && digits(month, shortest..=2) && digits(day, shortest..=2)) {
        return false;
    }
    let Some(time) = time else { return true };
    let time = time.trim_start_matches([' ', '\t']);
    let zone = time.find(['Z', '+', '-', ' ', '\t']).map_or("", |at| &time[at..]);
    let clock = &time[..time.len() - zone.len()];
    let zone = zone.trim_start_matches([' ', '\t']);
    let good_zone = zone.is_empty()
        || zone == "Z"
        || zone.strip_prefix(['+', '-']).is_some_and(|offset| {
            let (hours, minutes) = offset.split_once(':').unwrap_or((offset, "00"));
            digits(hours, 1..=2) && digits(minutes, 2..=2)
        });
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts[..] else { return false };
    good_zone
        && digits(fraction, 0..=usize::MAX)
        && digits(hour, 1..=2)
        && digits(minute, 2..=2)
        && digits(second, 2..=2)
}

fn split_sign(text: &str) -> (i64, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    }
}

fn only(text: &str, good: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(good)
}

fn sixtieth(part: &str) -> Option<i64> {
    ((1..=2).contains(&part.len()) && only(part, |byte| byte.is_ascii_digit()))
        .then(|| part.parse().ok())?
        .filter(|value| *value < 60)
}

/// A whole number; one that `i64` does not hold is a float. `None` when a digit is not of the base.
fn whole(sign: i64, digits: &str, base: u32) -> Option<Value> {
    if !only(digits, |byte| char::from(byte).is_digit(base)) {
        return None;
    }
    Some(match i64::from_str_radix(digits, base) {
        Ok(value) => Value::Integer(sign * value),
        // Nobody counts that far: the next power of the base is near enough.
        Err(_) if base != 10 => Value::Float(f64::from(base).powi(digits.len() as i32).copysign(sign as f64)),
        Err(_) => Value::Float(digits.parse::<f64>().ok()?.copysign(sign as f64)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialects_where_they_differ() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (written, new, old) in [
            ("yes", text("yes"), Value::Bool(true)),
            ("off", text("off"), Value::Bool(false)),
            ("y", text("y"), text("y")),
            ("True", Value::Bool(true), Value::Bool(true)),
            ("2001-02-03", text("2001-02-03"), Value::Date("2001-02-03".into())),
            ("2001-2-3", text("2001-2-3"), text("2001-2-3")),
            ("2001-2-3 1:02:03 +1:30", text("2001-2-3 1:02:03 +1:30"), Value::Date("2001-2-3 1:02:03 +1:30".into())),
            ("1e3", Value::Float(1000.0), text("1e3")),
            ("1.0e+3", Value::Float(1000.0), Value::Float(1000.0)),
            ("-.5", Value::Float(-0.5), text("-.5")),
            ("017", Value::Integer(17), Value::Integer(15)),
            ("08", Value::Integer(8), text("08")),
            ("0o17", Value::Integer(15), text("0o17")),
            ("0b11", text("0b11"), Value::Integer(3)),
            ("0xff", Value::Integer(255), Value::Integer(255)),
            ("1_000", text("1_000"), Value::Integer(1000)),
            ("1:30", text("1:30"), Value::Integer(90)),
            ("-3", Value::Integer(-3), Value::Integer(-3)),
            ("~", Value::Null, Value::Null),
            ("12.", Value::Float(12.0), Value::Float(12.0)),
            (".", text("."), text(".")),
            ("-", text("-"), text("-")),
            ("99999999999999999999", Value::Float(1e20), Value::Float(1e20)),
        ] {
            assert_eq!(resolve(written, Dialect::Yaml12), new, "{written}");
            assert_eq!(resolve(written, Dialect::Yaml11), old, "{written}");
            let lenient = resolve(written, Dialect::Lenient);
            assert_eq!(
                matches!(lenient, Value::Text(_)),
                matches!(new, Value::Text(_)) || matches!(old, Value::Text(_))
            );
        }
    }
}
