//! What an answer must look like: a JSON schema, a regular expression, one of several strings.
//!
//! The native engine lets the model choose only among tokens that keep the answer within its constraint ([`guide`]). What a
//! server writes is checked here after the fact.

mod guide;
mod shelf;

use std::borrow::Cow;

use serde_json::Value;

use crate::error::EngineError;

pub(crate) use guide::{Guide, Guides};
pub(crate) use shelf::Shelf;

/// The form of an answer. It holds for answers that end by themselves: one cut off by `max_tokens` is reported as
/// [`crate::Finish::Length`] and may be the beginning of such a text, and a stop string or stop token ends any answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constraint {
    /// A JSON text that fits the schema (draft 2020-12 unless `$schema` says otherwise; `$ref` within the schema alone).
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text that the expression matches as a whole (syntax of the crate `regex`, without look-around and back-references).
    Regex(String),
    /// One of these strings.
    Choice(Vec<String>),
}

impl Constraint {
    /// How it is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) => "JSON schema",
            Self::JsonObject => "JSON object",
            Self::Regex(_) => "regular expression",
            Self::Choice(_) => "choice",
        }
    }

    /// The error of one that cannot be followed.
    pub(crate) fn broken(&self, problem: String) -> EngineError {
        EngineError::Constraint { kind: self.kind(), problem }
    }

    /// Looks for what is wrong with the constraint itself.
    ///
    /// # Errors
    /// A schema or an expression that is none, a choice of nothing.
    pub fn validate(&self) -> Result<(), String> {
        self.checker().map(|_| ())
    }

    /// Whether `text` has the form.
    ///
    /// # Errors
    /// What is wrong with the text, or with the constraint.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let parse = || serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"));
        match self.checker()? {
            Checker::Schema(validator) => {
                let value: Value = parse()?;
                validator.validate(&value).map_err(|error| match error.instance_path().to_string() {
                    path if path.is_empty() => error.to_string(),
                    path => format!("at {path}: {error}"),
                })
            }
            Checker::Object => match parse()? {
                Value::Object(_) => Ok(()),
                _ => Err("it is JSON, but not an object".to_owned()),
            },
            Checker::Regex(regex) if regex.is_match(text) => Ok(()),
            Checker::Regex(_) => Err("the expression does not match it".to_owned()),
            Checker::Choice(choices) if choices.iter().any(|choice| choice == text) => Ok(()),
            Checker::Choice(_) => Err("it is none of the choices".to_owned()),
        }
    }

    /// The text without what models like to put around an answer: space and the fence of a code block. Of the text that a
    /// regular expression describes nothing is taken away.
    pub(crate) fn unwrap<'a>(&self, text: &'a str) -> &'a str {
        if let Self::Regex(_) = self {
            return text;
        }
        let text = text.trim();
        let fenced = text.strip_prefix("```").and_then(|text| text.strip_suffix("```"));
        fenced.and_then(|fenced| fenced.split_once('\n')).map_or(text, |(_, inner)| inner.trim())
    }

    fn checker(&self) -> Result<Checker<'_>, String> {
        match self {
            Self::JsonSchema(schema) => jsonschema::validator_for(schema)
                .map(|validator| Checker::Schema(Box::new(validator)))
                .map_err(|error| error.to_string()),
            Self::JsonObject => Ok(Checker::Object),
            Self::Regex(expression) => {
                // Alone first: messages show the expression as it was written.
                let whole = |_| regex::Regex::new(&format!(r"\A(?:{expression})\z"));
                regex::Regex::new(expression).and_then(whole).map(Checker::Regex).map_err(|error| in_one_line(&error))
            }
            Self::Choice(choices) if choices.is_empty() => Err("there is nothing to choose from".to_owned()),
            Self::Choice(choices) if choices.iter().any(String::is_empty) => {
                Err("one of the strings is empty".to_owned())
            }
            Self::Choice(choices) => Ok(Checker::Choice(choices)),
        }
    }

    /// The regular expression of one that is no JSON.
    fn expression(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::JsonSchema(_) | Self::JsonObject => None,
            Self::Regex(expression) => Some(Cow::Borrowed(without_anchors(expression))),
            Self::Choice(choices) => {
                let escaped: Vec<String> = choices.iter().map(|choice| regex::escape(choice)).collect();
                Some(Cow::Owned(escaped.join("|")))
            }
        }
    }
}

/// What the library draws below the expression, in words: the problem and the expression.
fn in_one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    match text.split_once("error: ") {
        Some((_, problem)) => {
            let expression = text.lines().nth(1).unwrap_or_default().trim();
            format!("{} in {expression}", problem.trim())
        }
        None => text.lines().next().unwrap_or_default().to_owned(),
    }
}

enum Checker<'a> {
    Schema(Box<jsonschema::Validator>),
    Object,
    Regex(regex::Regex),
    Choice(&'a [String]),
}

/// The whole text must match anyway, so the anchors around an expression say nothing more.
fn without_anchors(expression: &str) -> &str {
    let start = expression.strip_prefix('^').unwrap_or(expression);
    let Some(inner) = start.strip_suffix('$') else { return start };
    let escapes = inner.bytes().rev().take_while(|&byte| byte == b'\\').count();
    if escapes % 2 == 0 { inner } else { start }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_checked_as_a_whole() {
        let schema = Constraint::JsonSchema(json!({"type": "object", "properties": {"a": {"type": "integer"}}}));
        assert_eq!(schema.check(r#"{"a": 1}"#), Ok(()));
        assert_eq!(schema.check(r#"{"a": "x"}"#).unwrap_err(), r#"at /a: "x" is not of type "integer""#);
        assert!(schema.check("{").unwrap_err().starts_with("it is not JSON: EOF"));
        assert_eq!(Constraint::JsonObject.check("{}"), Ok(()));
        assert!(Constraint::JsonObject.check("[]").unwrap_err().contains("not an object"));
        let regex = Constraint::Regex("a|b+".to_owned());
        assert_eq!((regex.check("bb"), regex.check("a").is_ok(), regex.check("ab").is_ok()), (Ok(()), true, false));
        let choice = Constraint::Choice(vec!["yes".to_owned(), "no".to_owned()]);
        assert_eq!((choice.check("no"), choice.check("No").is_ok()), (Ok(()), false));
    }

    #[test]
    fn what_is_no_constraint_is_refused() {
        assert!(Constraint::JsonSchema(json!({"type": "thing"})).validate().is_err());
        assert!(Constraint::JsonSchema(json!({"$ref": "http://example.org/x.json"})).validate().is_err());
        assert!(Constraint::Regex("(".to_owned()).validate().unwrap_err().contains("unclosed group"));
        assert!(Constraint::Choice(vec![]).validate().is_err());
        assert!(Constraint::Choice(vec![String::new()]).validate().is_err());
    }

    #[test]
    fn fences_and_space_are_taken_away() {
        assert_eq!(Constraint::JsonObject.unwrap("\n```json\n{\"a\": 1}\n```\n"), "{\"a\": 1}");
        assert_eq!(Constraint::JsonObject.unwrap(" {} "), "{}");
        assert_eq!(Constraint::Regex(" ?a".to_owned()).unwrap(" a"), " a");
    }

    #[test]
    fn anchors_around_an_expression_are_taken_away() {
        assert_eq!(without_anchors("^a$"), "a");
        assert_eq!(without_anchors(r"a\$"), r"a\$");
        assert_eq!(without_anchors(r"^a\\$"), r"a\\");
    }
}
