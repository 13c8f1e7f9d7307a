//! Blocks that keep some rows and drop the others.

use std::cmp::Ordering;
use std::collections::HashSet;

use espalier_dataset::normalized;
use serde_json::Value;

use crate::expressions::Compiled;
use crate::flow::sample::{Passed, Refused, Sample};

/// What a row must be like to be kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    /// A column compared with values.
    Value(ValueFilter),
    /// An expression over the columns is true.
    Expression(Requirement),
    /// No earlier row of the leaf has the same values in these columns.
    Unique { columns: Vec<String>, normalize: bool },
}

/// An expression over the columns of a row that must be true.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Requirement {
    pub(crate) expression: String,
    /// What is said of a row of which it is not; the expression itself where nothing is given.
    pub(crate) reason: Option<String>,
}

/// A column compared with values, any of which will do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValueFilter {
    pub(crate) column: String,
    pub(crate) values: Vec<Value>,
    pub(crate) operation: Operation,
    /// What the column's value is made into before; what cannot be becomes the second.
    pub(crate) convert: Option<(Type, Value)>,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Contains,
}

/// What a value is made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Integer,
    Float,
    Bool,
}

impl Operation {
    /// The names that `InstructLab` takes from Python's `operator`.
    pub(crate) const NAMES: [(&'static str, Self); 7] = [
        ("eq", Self::Equal),
        ("ne", Self::NotEqual),
        ("gt", Self::Greater),
        ("ge", Self::GreaterOrEqual),
        ("lt", Self::Less),
        ("le", Self::LessOrEqual),
        ("contains", Self::Contains),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, operation)| *operation == self).map_or("", |(name, _)| name)
    }

    fn holds(self, value: &Value, other: &Value) -> Result<bool, Refused> {
        let ordered = |wanted: fn(Ordering) -> bool| compare(value, other).map(|order| order.is_some_and(wanted));
        match self {
            Self::Equal => Ok(equal(value, other)),
            Self::NotEqual => Ok(!equal(value, other)),
            Self::Greater => ordered(Ordering::is_gt),
            Self::GreaterOrEqual => ordered(Ordering::is_ge),
            Self::Less => ordered(Ordering::is_lt),
            Self::LessOrEqual => ordered(Ordering::is_le),
            Self::Contains => match (value, other) {
                (Value::String(text), Value::String(part)) => Ok(text.contains(part.as_str())),
                (Value::Array(items), part) => Ok(items.iter().any(|item| equal(item, part))),
                _ => Err(incomparable(value, other)),
            },
        }
    }
}

/// Numbers and truth values by what they count, as in Python.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        other => other.as_f64(),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= 0.0,
        _ => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, Refused> {
    match (number(a), number(b), a.as_str(), b.as_str()) {
        (Some(a), Some(b), _, _) => Ok(a.partial_cmp(&b)),
        (_, _, Some(a), Some(b)) => Ok(Some(a.cmp(b))),
        _ => Err(incomparable(a, b)),
    }
}

fn incomparable(a: &Value, b: &Value) -> Refused {
    Refused::new("cannot be compared", format!("{a} with {b}"))
}

impl Type {
    pub(crate) const NAMES: [(&'static str, Self); 3] =
        [("int", Self::Integer), ("float", Self::Float), ("bool", Self::Bool)];

    /// What a value becomes, as Python's `int`, `float` and `bool` have it.
    pub(crate) fn convert(self, value: &Value) -> Option<Value> {
        match self {
            Self::Bool => Some(
                match value {
                    Value::Null => false,
                    Value::String(text) => !text.is_empty(),
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(entries) => !entries.is_empty(),
                    other => number(other).is_some_and(|number| number.abs() > 0.0),
                }
                .into(),
            ),
            Self::Float => match value {
                Value::String(text) => text.trim().parse::<f64>().ok(),
                other => number(other),
            }
            .filter(|number| number.is_finite())
            .map(Into::into),
            Self::Integer => match value {
                Value::String(text) => text.trim().parse::<i64>().ok(),
                other => number(other).map(|number| number.trunc() as i64),
            }
            .map(Into::into),
        }
    }

    /// What stands in for a value that cannot be converted, unless the block says otherwise.
    pub(crate) fn default_value(self) -> Value {
        match self {
            Self::Integer => 0.into(),
            Self::Float => 0.0.into(),
            Self::Bool => false.into(),
        }
    }
}

impl Filter {
    pub(crate) fn apply(&self, block: &str, samples: Vec<Sample>) -> Passed {
        match self {
            Self::Value(filter) => Passed::each(samples, block, |sample| filter.check(block, sample)),
            Self::Expression(requirement) => {
                let condition = Condition::of(requirement);
                Passed::each(samples, block, |sample| condition.check(sample))
            }
            Self::Unique { columns, normalize } => unique(block, samples, columns, *normalize),
        }
    }
}

/// A [`Requirement`] that rows are held against.
pub(super) struct Condition<'a> {
    expression: &'a str,
    reason: Option<&'a str>,
    compiled: Result<Compiled, String>,
}

impl<'a> Condition<'a> {
    pub(super) fn new(expression: &'a str) -> Self {
        Self { expression, reason: None, compiled: Compiled::new(expression) }
    }

    pub(super) fn of(requirement: &'a Requirement) -> Self {
        Self { reason: requirement.reason.as_deref(), ..Self::new(&requirement.expression) }
    }

    /// Refuses a row of which it is not true, with the reason or the expression itself.
    pub(super) fn check(&self, sample: &Sample) -> Result<(), Refused> {
        let value = self.compiled.as_ref().map_err(Clone::clone).and_then(|one| one.over(&sample.columns));
        let fails = |words: String| Refused::new("expression fails", format!("{} {words}", self.expression));
        match value {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(Value::Bool(false)) => {
                let reason = self.reason.map_or_else(|| format!("not {}", self.expression), str::to_owned);
                Err(Refused::new("filtered", reason))
            }
            Ok(other) => Err(fails(format!("is {other}, not true or false"))),
            Err(reason) => Err(fails(format!("has no value: {reason}"))),
        }
    }
}

impl ValueFilter {
    fn check(&self, block: &str, sample: &mut Sample) -> Result<(), Refused> {
        let found = sample.columns.get(&self.column).ok_or_else(|| Refused::missing(&self.column))?.clone();
        let value = match &self.convert {
            None => found.clone(),
            Some((kind, default)) => {
                let value = kind.convert(&found).unwrap_or_else(|| default.clone());
                sample.columns.insert(self.column.clone(), value.clone());
                value
            }
        };
        let score = value.as_f64();
        if let Some(score) = score {
            sample.scores.push((block.to_owned(), score));
        }
        for wanted in &self.values {
            if self.operation.holds(&value, wanted)? {
                return Ok(());
            }
        }
        let wanted: Vec<String> = self.values.iter().map(ToString::to_string).collect();
        let detail = format!("`{}` is {found}, not {} {}", self.column, self.operation.name(), wanted.join(" or "));
        Err(Refused { score, ..Refused::new("filtered", detail) })
    }
}

/// The first row of equal ones is kept.
pub(crate) fn unique(block: &str, samples: Vec<Sample>, columns: &[String], normalize: bool) -> Passed {
    let mut seen = HashSet::new();
    Passed::each(samples, block, |sample| {
        let key: Vec<String> = columns
            .iter()
            .map(|column| match sample.columns.get(column) {
                Some(Value::String(text)) if normalize => normalized(text),
                Some(value) => value.to_string(),
                None => String::new(),
            })
            .collect();
        if seen.insert(key) { Ok(()) } else { Err(Refused::new("duplicate", columns.join(", "))) }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_convert_as_in_python() {
        for (kind, value, expected) in [
            (Type::Float, json!(" 2 "), Some(json!(2.0))),
            (Type::Float, json!("1e3"), Some(json!(1000.0))),
            (Type::Float, json!("2/3"), None),
            (Type::Float, json!("Score: 2"), None),
            (Type::Float, json!(true), Some(json!(1.0))),
            (Type::Integer, json!("3.0"), None),
            (Type::Integer, json!(" -3\n"), Some(json!(-3))),
            (Type::Integer, json!(3.7), Some(json!(3))),
            (Type::Bool, json!("false"), Some(json!(true))),
            (Type::Bool, json!(""), Some(json!(false))),
        ] {
            assert_eq!(kind.convert(&value), expected, "{kind:?} of {value}");
        }
    }

    #[test]
    fn comparisons_are_those_of_python() {
        let holds =
            |operation: Operation, a: Value, b: Value| operation.holds(&a, &b).map_err(|refused| refused.detail);
        assert_eq!(holds(Operation::Equal, json!("1"), json!(1)), Ok(false));
        assert_eq!(holds(Operation::Equal, json!(1), json!(1.0)), Ok(true));
        assert_eq!(holds(Operation::Equal, json!(true), json!(1)), Ok(true));
        assert_eq!(holds(Operation::NotEqual, json!("YES"), json!("NO")), Ok(true));
        assert_eq!(holds(Operation::GreaterOrEqual, json!(2.0), json!(2)), Ok(true));
        assert_eq!(holds(Operation::Less, json!("b"), json!("a")), Ok(false));
        assert_eq!(holds(Operation::Contains, json!("YES, all"), json!("YES")), Ok(true));
        assert_eq!(holds(Operation::Contains, json!(["a", "b"]), json!("b")), Ok(true));
        assert_eq!(holds(Operation::Greater, json!("b"), json!(1)), Err("\"b\" with 1".to_owned()));
    }
}
