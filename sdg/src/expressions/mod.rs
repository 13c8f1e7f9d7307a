//! Jinja with the filters that questions and truths need.
//!
//! | filter | example |
//! |---|---|
//! | `parse_date(format)` | `"5 March 2019" \| parse_date("%d %B %Y")` is `2019-03-05` |
//! | `format_date(format)` | `"2019-03-05" \| format_date("%B %-d, %Y")` is `March 5, 2019` |
//! | `add_days(n)`, `add_months(n)`, `add_years(n)` | `"2019-01-31" \| add_months(1)` is `2019-02-28` |
//! | `weekday`, `days_between(other)` | `"2019-03-05" \| weekday` is `Tuesday` |
//! | `to_number`, `format_number(decimals, separator)` | `1234.5 \| format_number(2, ",")` is `1,234.50` |
//! | `ordinal` | `3 \| ordinal` is `3rd` |
//! | `convert(from, to)` | `5 \| convert("km", "m")` is `5000` |
//! | `regex_matches`, `regex_search(pattern, group)`, `regex_replace(pattern, with)` | `"a1" \| regex_search("[0-9]")` is `1` |
//! | `beyond(text)` | of an answer's words of four letters and more, and its numbers, those that do not stand in a text |
//! | `support(text)` | the share of an answer's words of four letters and more, and of its numbers, that stand in a text |
//! | `final_answer` | the inside of the last `\boxed{}`, else what follows the last `answer is`, `Answer:` or `####`, else all of it |
//! | `spread(n)` | a whole number below `n` that follows from a text, evenly over many texts |
//!
//! Beside them stand jinja's own (`round`, `sum`, `upper`, `replace`, ...), the function `date(year, month, day)` and the usual
//! methods of Python's strings. Dates are texts `YYYY-MM-DD`, so that they can be compared.

mod dates;
mod methods;
mod numbers;
mod patterns;
mod texts;
mod units;
mod values;

pub(crate) use values::from_json;

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use minijinja::{Environment, Error, UndefinedBehavior};

pub(crate) use texts::support;
pub(crate) use units::converted;

/// Slots and derived values by name.
pub(crate) type Values = BTreeMap<String, serde_json::Value>;

/// One environment serves all: it holds no templates.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    dates::register(&mut environment);
    numbers::register(&mut environment);
    units::register(&mut environment);
    patterns::register(&mut environment);
    texts::register(&mut environment);
    environment.set_unknown_method_callback(methods::call);
    environment
});

/// The value of an expression as text.
///
/// # Errors
/// Why it cannot be evaluated, in one sentence.
pub fn evaluate(expression: &str, values: &BTreeMap<String, serde_json::Value>) -> Result<String, String> {
    let value = evaluate_value(expression, values)?;
    Ok(match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => return Err("the expression has no value".to_owned()),
        other => other.to_string(),
    })
}

/// The value of an expression.
pub(crate) fn evaluate_value(expression: &str, values: &Values) -> Result<serde_json::Value, String> {
    evaluate_in(expression, values::context(values))
}

fn evaluate_in(expression: &str, context: minijinja::Value) -> Result<serde_json::Value, String> {
    Compiled::new(expression)?.value(context)
}

/// An expression that is evaluated over many rows.
#[derive(Debug)]
pub(crate) struct Compiled(minijinja::Expression<'static, 'static>);

impl Compiled {
    /// Compiles an expression.
    ///
    /// # Errors
    /// Why it is none, in one sentence.
    pub(crate) fn new(expression: &str) -> Result<Self, String> {
        ENVIRONMENT.compile_expression_owned(expression.to_owned()).map(Self).map_err(|error| sentence(&error))
    }

    /// Its value over the columns of a row.
    ///
    /// # Errors
    /// Why it has none, in one sentence.
    pub(crate) fn over(
        &self,
        columns: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<serde_json::Value, String> {
        self.value(values::context(columns))
    }

    fn value(&self, context: minijinja::Value) -> Result<serde_json::Value, String> {
        let value = self.0.eval(context).map_err(|error| sentence(&error))?;
        if value.is_undefined() {
            return Err("the expression has no value".to_owned());
        }
        values::to_json(&value)
    }
}

/// Names that an expression needs.
pub(crate) fn needs(expression: &str) -> Result<HashSet<String>, String> {
    let compiled = ENVIRONMENT.compile_expression(expression).map_err(|error| sentence(&error))?;
    let mut names = compiled.undeclared_variables(false);
    names.retain(|name| !ENVIRONMENT.globals().any(|(global, _)| global == name));
    Ok(names)
}

/// A template filled in.
///
/// # Errors
/// Why it cannot be, in one sentence.
pub fn render(template: &str, values: &BTreeMap<String, serde_json::Value>) -> Result<String, String> {
    ENVIRONMENT.render_str(template, values::context(values)).map_err(|error| sentence(&error))
}

/// What is wrong, in one sentence.
pub(crate) fn sentence(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(expression: &str) -> String {
        let values = [("n".to_owned(), json!(1_234.5)), ("day".to_owned(), json!("2019-03-05"))].into();
        evaluate(expression, &values).unwrap_or_else(|reason| format!("error: {reason}"))
    }

    #[test]
    fn worked_examples() {
        for (expression, expected) in [
            ("'5 March 2019' | parse_date('%d %B %Y')", "2019-03-05"),
            ("'3/5/19' | parse_date('%m/%d/%y')", "2019-03-05"),
            ("day | format_date('%B %-d, %Y')", "March 5, 2019"),
            ("day | format_date('%d.%m.%y')", "05.03.19"),
            ("day | add_days(30)", "2019-04-04"),
            ("'2019-01-31' | add_months(1)", "2019-02-28"),
            ("'2020-02-29' | add_years(1)", "2021-02-28"),
            ("day | weekday", "Tuesday"),
            ("day | days_between('2020-03-05')", "366"),
            ("date(2019, 3, 5)", "2019-03-05"),
            ("date(2019, 2, 30)", "error: invalid operation: 2019-2-30 is not a day of the calendar"),
            ("n | format_number(2, ',')", "1,234.50"),
            ("1234567 | format_number(0, ' ')", "1 234 567"),
            ("-1234567.891 | format_number", "-1234567.891"),
            ("3.0 | format_number", "3"),
            ("' 1,234.50 ' | to_number", "1234.5"),
            ("'12' | to_number + 1", "13"),
            ("[1, 2, 3.5] | sum", "6.5"),
            ("n | round(0) | int", "1234"),
            ("3 | ordinal ~ 11 | ordinal ~ 22 | ordinal ~ 101 | ordinal", "3rd11th22nd101st"),
            ("5 | convert('km', 'm')", "5000"),
            ("32 | convert('F', 'C')", "0"),
            ("1 | convert('mi', 'km') | round(3)", "1.609"),
            ("2 | convert('h', 's')", "7200"),
            ("1 | convert('kg', 'm')", "error: invalid operation: kg is a unit of mass, m of length"),
            ("'ab12' | regex_search('([a-z]+)([0-9]+)', 2)", "12"),
            ("'ab12' | regex_matches('^[a-z]+$')", "false"),
            ("'ab12' | regex_replace('[0-9]', '#')", "ab##"),
            ("'a,b'.split(',')[1].upper()", "B"),
            ("' x '.strip().startswith('x')", "true"),
            ("'7'.zfill(3)", "007"),
            ("nothing", "error: the expression has no value"),
            ("1 +", "error: syntax error: unexpected end of input, expected expression"),
        ] {
            assert_eq!(value(expression), expected, "{expression}");
        }
    }

    #[test]
    fn templates_are_strict() {
        let values = [("who".to_owned(), json!("a & b"))].into();
        assert_eq!(render("Hello {{ who }}!", &values).unwrap(), "Hello a & b!");
        assert!(render("{{ other }}", &values).is_err());
    }
}
