//! `questions` (template, slots, derived values) and `verify` of our own form.

use std::collections::BTreeMap;

use super::Report;
use super::fields::{Fields, list, text};
use super::seeds::scalar_text;
use crate::leaf::{Places, QuestionTemplate, Slot, Verify};
use crate::node::{Node, Value};

/// Reads `questions`.
pub(crate) fn template(node: Node, places: &mut Places, report: &mut Report<'_>) -> Option<QuestionTemplate> {
    let mut fields = Fields::of(node, "`questions`", report)?;
    let template = fields.required_text("template", report);
    let slots_node = fields.require("slots", report);
    let derive_node = fields.take("derive");
    fields.refuse_the_rest(report);
    let mut slots = BTreeMap::new();
    if let Some(node) = slots_node {
        let place = node.place;
        for (key, node) in Fields::of(node, "`slots`", report)?.take_all() {
            refuse_bad_name(&key, report);
            places.slots.insert(key.name.clone(), node.place);
            if let Some(slot) = slot(node, &key.name, report) {
                slots.insert(key.name, slot);
            }
        }
        if slots.is_empty() && !report.failed {
            report.error(place, "`slots` is empty", "add a slot: `number: {from: 1, to: 100}`");
        }
    }
    let mut derive = BTreeMap::new();
    if let Some((_, node)) = derive_node {
        for (key, node) in Fields::of(node, "`derive`", report)?.take_all() {
            refuse_bad_name(&key, report);
            if slots.contains_key(&key.name) {
                report.error(key.place, format!("`{}` is a slot already", key.name), "give it another name");
            }
            places.derive.insert(key.name.clone(), node.place);
            if let Some((expression, _)) = text(node, &key.name, report) {
                derive.insert(key.name, expression);
            }
        }
    }
    let (template, place) = template?;
    places.template = place;
    Some(QuestionTemplate { template: template.trim_end().to_owned(), slots, derive })
}

fn refuse_bad_name(key: &crate::node::Key, report: &mut Report<'_>) {
    let mut chars = key.name.chars();
    let well_formed = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !well_formed {
        report.error(
            key.place,
            format!("`{}` cannot be the name of a value in a template", key.name),
            "use letters, digits and `_`, with a letter first",
        );
    }
    if matches!(key.name.as_str(), "question" | "answer" | "context") {
        report.error(key.place, format!("the name `{}` is taken", key.name), "give it another name");
    }
}

const SLOT_HINT: &str =
    "write a list [a, b], or {from: 1, to: 9}, {from: 0.5, to: 9.5, decimals: 1} or {from: 2001-01-31, to: 2009-12-31}";

fn slot(node: Node, name: &str, report: &mut Report<'_>) -> Option<Slot> {
    let place = node.place;
    if matches!(node.value, Value::Sequence(_)) {
        let items = list(node, name, report)?;
        if items.is_empty() {
            report.error(place, format!("the slot `{name}` has no values"), "add some: [a, b]");
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            match scalar_text(&item) {
                Some(value) if values.contains(&value) => {
                    report.error(item.place, format!("the slot `{name}` has {value:?} twice"), "remove one of the two");
                }
                Some(value) => values.push(value),
                None => {
                    report.error(
                        item.place,
                        format!("a value of a slot is a text, this is {}", item.value.kind()),
                        SLOT_HINT,
                    );
                }
            }
        }
        return Some(Slot::List(values));
    }
    if !matches!(node.value, Value::Mapping(_)) {
        report.error(place, format!("the slot `{name}` is neither a list nor a range"), SLOT_HINT);
        return None;
    }
    let mut fields = Fields::of(node, "a slot", report)?;
    let from = fields.require("from", report);
    let to = fields.require("to", report);
    let step = fields.take("step");
    let decimals = fields.take("decimals");
    fields.refuse_the_rest(report);
    let slot = match (from?.value, to?.value, step.map(|(_, node)| node.value), decimals.map(|(_, node)| node.value)) {
        (Value::Integer(from), Value::Integer(to), None, None) if from <= to => {
            Slot::IntegerRange { from, to, step: 1 }
        }
        (Value::Integer(from), Value::Integer(to), Some(Value::Integer(step)), None) if from <= to && step >= 1 => {
            Slot::IntegerRange { from, to, step }
        }
        (from, to, None, Some(Value::Integer(decimals @ 0..=9))) => match (number(&from), number(&to)) {
            (Some(from), Some(to)) if from <= to && from.abs() < 1e9 && to.abs() < 1e9 => {
                Slot::DecimalRange { from, to, decimals: decimals as u32 }
            }
            _ => return refuse_range(name, place, report),
        },
        (Value::Text(from), Value::Text(to), None, None) if is_date(&from) && is_date(&to) && from <= to => {
            Slot::DateRange { from, to }
        }
        _ => return refuse_range(name, place, report),
    };
    Some(slot)
}

fn refuse_range(name: &str, place: crate::leaf::Place, report: &mut Report<'_>) -> Option<Slot> {
    report.error(place, format!("the slot `{name}` is not a range that can be drawn from"), SLOT_HINT);
    None
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Float(value) if value.is_finite() => Some(*value),
        _ => None,
    }
}

/// Whether a text is a day of the Gregorian calendar, written YYYY-MM-DD.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let part = |range: std::ops::Range<usize>| {
        text.get(range)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u32>().ok())
    };
    let (Some(year), Some(month), Some(day)) = (part(0..4), part(5..7), part(8..10)) else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return false,
    };
    year >= 1 && (1..=days).contains(&day)
}

const VERIFY_HINT: &str = "write one of {exact: EXPRESSION}, {regex: PATTERN}, {json_schema: SCHEMA}, {expression: EXPRESSION}, {numeric: EXPRESSION}, {any_of: [CHECK, ...]}, {all_of: [CHECK, ...]}";

/// Deepest nesting of `any_of` and `all_of`.
const MAX_DEPTH: usize = 8;

/// Reads `verify`.
pub(crate) fn verify(node: Node, report: &mut Report<'_>) -> Option<Verify> {
    check(node, 0, report)
}

fn check(node: Node, depth: usize, report: &mut Report<'_>) -> Option<Verify> {
    let place = node.place;
    if depth > MAX_DEPTH {
        report.error(place, "checks stand too deep in each other", "write them in one `all_of` or `any_of`");
        return None;
    }
    let mut fields = Fields::of(node, "`verify`", report)?;
    let names = ["exact", "regex", "json_schema", "expression", "numeric", "any_of", "all_of"];
    let mut found: Vec<(&str, Node)> =
        names.into_iter().filter_map(|name| fields.take(name).map(|(_, node)| (name, node))).collect();
    fields.refuse_the_rest(report);
    let (Some((name, node)), true) = (found.pop(), found.is_empty()) else {
        report.error(place, "`verify` has exactly one check", VERIFY_HINT);
        return None;
    };
    match name {
        "exact" => exact_check(node, report),
        "regex" => text(node, name, report).map(|(pattern, _)| Verify::Regex { pattern }),
        "expression" => text(node, name, report).map(|(expression, _)| Verify::Expression { expression }),
        "numeric" => numeric_check(node, report),
        "json_schema" => match node.value {
            Value::Mapping(_) | Value::Bool(_) => Some(Verify::JsonSchema { schema: node.to_json() }),
            _ => {
                report.error(node.place, "a JSON schema is a mapping", "write it as YAML: {type: object, ...}");
                None
            }
        },
        _ => {
            let place = node.place;
            let parts = list(node, name, report)?;
            if parts.is_empty() {
                report.error(place, format!("`{name}` is empty"), "add checks: `- regex: PATTERN`");
            }
            let parts: Vec<Verify> =
                parts.into_iter().map(|part| check(part, depth + 1, report)).collect::<Option<_>>()?;
            Some(if name == "any_of" { Verify::AnyOf(parts) } else { Verify::AllOf(parts) })
        }
    }
}

/// `numeric: EXPRESSION`, or a mapping of `expression` or `value`, and `tolerance`.
fn numeric_check(node: Node, report: &mut Report<'_>) -> Option<Verify> {
    if matches!(node.value, Value::Text(_)) {
        return text(node, "numeric", report).map(|(expression, _)| Verify::Numeric { expression, tolerance: 0.0 });
    }
    let place = node.place;
    let mut fields = Fields::of(node, "`numeric`", report)?;
    let expression = fields.take("expression");
    let value = fields.take("value");
    let tolerance = fields.take("tolerance").map_or(Some(0.0), |(_, node)| number(&node.value));
    fields.refuse_the_rest(report);
    let Some(tolerance) = tolerance.filter(|tolerance| *tolerance >= 0.0) else {
        report.error(place, "`tolerance` is a number, 0 or more", "write `tolerance: 0.01`");
        return None;
    };
    let expression = match (expression, value) {
        (Some((_, node)), None) => text(node, "expression", report)?.0,
        (None, Some((_, node))) if number(&node.value).is_some() => number(&node.value)?.to_string(),
        _ => {
            report.error(
                place,
                "`numeric` has `expression` or `value`",
                "write `numeric: {expression: a + b, tolerance: 0.01}`",
            );
            return None;
        }
    };
    Some(Verify::Numeric { expression, tolerance })
}

/// `exact: EXPRESSION` or `exact: {expression: EXPRESSION, ignore_case: true}`.
fn exact_check(node: Node, report: &mut Report<'_>) -> Option<Verify> {
    if !matches!(node.value, Value::Mapping(_)) {
        return text(node, "exact", report).map(|(expression, _)| Verify::Exact { expression, ignore_case: false });
    }
    let mut fields = Fields::of(node, "`exact`", report)?;
    let expression = fields.required_text("expression", report);
    let ignore_case = match fields.take("ignore_case").map(|(_, node)| node) {
        None => false,
        Some(node) => match node.value {
            Value::Bool(value) => value,
            other => {
                report.error(
                    node.place,
                    format!("`ignore_case` is true or false, this is {}", other.kind()),
                    "write `true`",
                );
                false
            }
        },
    };
    fields.refuse_the_rest(report);
    expression.map(|(expression, _)| Verify::Exact { expression, ignore_case })
}

#[cfg(test)]
mod tests {
    use super::is_date;

    #[test]
    fn days_of_the_calendar() {
        for good in ["2000-02-29", "1999-12-31", "0001-01-01"] {
            assert!(is_date(good), "{good}");
        }
        for bad in ["1900-02-29", "2001-13-01", "2001-04-31", "2001-1-01", "20010-1-1", "+200-01-01", "日本語a"] {
            assert!(!is_date(bad), "{bad}");
        }
    }
}
