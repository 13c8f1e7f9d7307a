//! Checking answers by program.

use std::collections::BTreeMap;

use espalier_taxonomy::{Leaf, TestItem, Verify};
use jsonschema::Validator;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::error::SdgError;
use crate::expressions;
use crate::slots::{derive_known, suffices};

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// Whether the answer may be used.
    pub passed: bool,
    /// The check that it passed, or `category: detail` of what is wrong.
    pub reason: String,
    /// The answer as it should be written, where the check knows it (the truth, without the teacher's quotes and full stop).
    pub canonical: Option<String>,
}

impl CheckOutcome {
    pub(crate) fn passed(check: &str) -> Self {
        Self { passed: true, reason: check.to_owned(), canonical: None }
    }

    pub(crate) fn failed(category: &str, detail: &str) -> Self {
        let reason = if detail.is_empty() { category.to_owned() } else { format!("{category}: {detail}") };
        Self { passed: false, reason, canonical: None }
    }
}

#[derive(Debug)]
enum Check {
    Exact { expression: String, ignore_case: bool },
    Regex(Regex),
    JsonSchema(Box<Validator>),
    Expression(String),
}

/// The `verify` of a leaf, compiled once.
#[derive(Debug)]
pub struct Verifier {
    check: Option<Check>,
}

impl Verifier {
    /// Compiles the check of a leaf; a leaf without one gets a verifier that passes every answer that is not empty.
    ///
    /// # Errors
    /// [`SdgError::Verify`] for a pattern or a schema that cannot be used.
    pub fn new(leaf: &Leaf) -> Result<Self, SdgError> {
        let check = leaf.verify.as_ref().map(compile).transpose();
        check.map(|check| Self { check }).map_err(|reason| SdgError::Verify { leaf: leaf.id.clone(), reason })
    }

    /// Whether the leaf has a check.
    pub fn is_some(&self) -> bool {
        self.check.is_some()
    }

    /// Checks a teacher's answer.
    ///
    /// - exact: equals the truth after [`normalized_answer`](Self::normalized_answer);
    /// - regex: the pattern matches somewhere in the trimmed answer;
    /// - JSON schema: the answer, without a code fence around it, is JSON that conforms;
    /// - expression: true over slots, `question`, `answer` and `context`.
    ///
    /// # Errors
    /// [`SdgError::Expression`] when the truth cannot be computed.
    pub fn check(
        &self,
        leaf: &Leaf,
        slots: &BTreeMap<String, Value>,
        question: &str,
        answer: &str,
    ) -> Result<CheckOutcome, SdgError> {
        let fail = |part: &str, reason| SdgError::Expression { leaf: leaf.id.clone(), part: part.to_owned(), reason };
        if answer.trim().is_empty() {
            return Ok(CheckOutcome::failed("empty answer", ""));
        }
        Ok(match &self.check {
            None => CheckOutcome::passed("not empty"),
            Some(Check::Exact { expression, ignore_case }) => {
                let truth = expressions::evaluate(expression, slots).map_err(|reason| fail(expression, reason))?;
                equals(&truth, answer, *ignore_case)
            }
            Some(Check::Regex(pattern)) => matches(pattern, answer),
            Some(Check::JsonSchema(schema)) => conforms(schema, answer),
            Some(Check::Expression(expression)) => {
                let mut values = slots.clone();
                values.insert("question".into(), question.into());
                values.insert("answer".into(), answer.trim().into());
                values.entry("context".into()).or_insert_with(|| "".into());
                // What a model wrote can make an expression fail (`answer | to_number`): that answer is wrong, the leaf is not.
                match expressions::evaluate_value(expression, &values) {
                    Ok(Value::Bool(true)) => CheckOutcome::passed("expression"),
                    Ok(Value::Bool(false)) => CheckOutcome::failed("wrong answer", "the expression is false"),
                    Ok(other) => return Err(fail(expression, format!("it is {other}, not true or false"))),
                    Err(reason) => CheckOutcome::failed("wrong answer", &reason),
                }
            }
        })
    }

    /// Checks the answer to a held-out question: an exact check compares with the item's answer, the others are as in
    /// [`check`](Self::check), over the slots that the item names and what follows from them; a leaf without a check compares
    /// too.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_test(&self, leaf: &Leaf, item: &TestItem, answer: &str) -> Result<CheckOutcome, SdgError> {
        match &self.check {
            None => Ok(equals(&item.answer, answer, false)),
            Some(Check::Exact { ignore_case, .. }) => Ok(equals(&item.answer, answer, *ignore_case)),
            Some(_) => {
                let mut values = known(leaf, item);
                values.insert("context".into(), item.context.clone().unwrap_or_default().into());
                self.check(leaf, &values, &item.question, answer)
            }
        }
    }

    /// Checks the answer that stands in a test row itself. An exact check computes the truth where the row's slots suffice.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_key(&self, leaf: &Leaf, item: &TestItem) -> Result<CheckOutcome, SdgError> {
        if let Some(Check::Exact { expression, .. }) = &self.check {
            let values = known(leaf, item);
            if suffices(&values, expression) {
                return self.check(leaf, &values, &item.question, &item.answer);
            }
        }
        self.check_test(leaf, item, &item.answer)
    }

    /// An answer without white space and quotes around it and a full stop behind it; white space inside is one space.
    pub fn normalized_answer(answer: &str) -> String {
        let mut text = answer.split_whitespace().collect::<Vec<_>>().join(" ");
        loop {
            let before = text.len();
            for (open, close) in [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”')] {
                if let Some(inner) = text.strip_prefix(open).and_then(|text| text.strip_suffix(close)) {
                    text = inner.trim().to_owned();
                }
            }
            if text.len() > 1 && text.ends_with('.') && !text.ends_with("..") {
                text.pop();
            }
            if text.len() == before {
                return text;
            }
        }
    }
}

/// The slots that a test row names, and the derived values that follow from them.
fn known(leaf: &Leaf, item: &TestItem) -> BTreeMap<String, Value> {
    let mut values = item.slots.clone().unwrap_or_default();
    if let Some(template) = &leaf.questions {
        derive_known(&template.derive, &mut values);
    }
    values
}

fn compile(verify: &Verify) -> Result<Check, String> {
    Ok(match verify {
        Verify::Exact { expression, ignore_case } => {
            expressions::needs(expression)?;
            Check::Exact { expression: expression.clone(), ignore_case: *ignore_case }
        }
        Verify::Regex { pattern } => {
            Check::Regex(RegexBuilder::new(pattern).build().map_err(|error| error.to_string())?)
        }
        Verify::JsonSchema { schema } => {
            Check::JsonSchema(Box::new(jsonschema::validator_for(schema).map_err(|error| error.to_string())?))
        }
        Verify::Expression { expression } => {
            expressions::needs(expression)?;
            Check::Expression(expression.clone())
        }
    })
}

fn equals(truth: &str, answer: &str, ignore_case: bool) -> CheckOutcome {
    let normalize = |text: &str| {
        let text = Verifier::normalized_answer(text);
        if ignore_case { text.to_lowercase() } else { text }
    };
    let (wanted, found) = (normalize(truth), normalize(answer));
    if wanted == found {
        CheckOutcome { canonical: Some(truth.to_owned()), ..CheckOutcome::passed("exact") }
    } else {
        CheckOutcome::failed("wrong answer", &format!("{} is not {}", excerpt(&found), excerpt(&wanted)))
    }
}

fn matches(pattern: &Regex, answer: &str) -> CheckOutcome {
    if pattern.is_match(answer.trim()) {
        CheckOutcome::passed("regex")
    } else {
        CheckOutcome::failed("wrong answer", &format!("{} does not match {pattern}", excerpt(answer.trim())))
    }
}

fn conforms(schema: &Validator, answer: &str) -> CheckOutcome {
    let text = without_fence(answer.trim());
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return CheckOutcome::failed("wrong answer", &format!("not JSON: {error}")),
    };
    match schema.iter_errors(&value).next() {
        None => CheckOutcome { canonical: Some(text.to_owned()), ..CheckOutcome::passed("json_schema") },
        Some(error) => CheckOutcome::failed("wrong answer", &format!("against the schema: {error}")),
    }
}

/// The inside of a Markdown code fence, where there is one.
fn without_fence(text: &str) -> &str {
    text.strip_prefix("```json")
        .or_else(|| text.strip_prefix("```"))
        .and_then(|inner| inner.strip_suffix("```"))
        .map_or(text, str::trim)
}

/// The beginning of a text, in quotes, for messages.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use espalier_taxonomy::QuestionTemplate;
    use serde_json::json;

    use super::*;

    fn outcome(verify: Verify, answer: &str) -> CheckOutcome {
        let leaf = Leaf { id: "x".into(), verify: Some(verify), ..Leaf::default() };
        let slots = [("n".to_owned(), json!(3))].into();
        Verifier::new(&leaf).unwrap().check(&leaf, &slots, "What?", answer).unwrap()
    }

    #[test]
    fn exact_answers_are_normalised() {
        let verify = |ignore_case| Verify::Exact { expression: "'Day ' ~ n".into(), ignore_case };
        for good in ["Day 3", " Day  3.\n", "\"Day 3\".", "`Day 3`"] {
            let outcome = outcome(verify(false), good);
            assert!(outcome.passed, "{good}: {}", outcome.reason);
            assert_eq!(outcome.canonical.as_deref(), Some("Day 3"));
        }
        assert_eq!(outcome(verify(false), "day 4").reason, "wrong answer: \"day 4\" is not \"Day 3\"");
        assert!(outcome(verify(true), "DAY 3").passed);
        assert_eq!(outcome(verify(true), " \n").reason, "empty answer");
    }

    #[test]
    fn patterns_schemas_and_expressions() {
        let regex = || Verify::Regex { pattern: "^[0-9]+$".into() };
        assert!(outcome(regex(), " 12 ").passed);
        assert!(!outcome(regex(), "12 apples").passed);
        let schema = || Verify::JsonSchema { schema: json!({"type": "object", "required": ["a"]}) };
        assert!(outcome(schema(), "```json\n{\"a\": 1}\n```").passed);
        assert!(outcome(schema(), "{\"b\": 1}").reason.contains("required"));
        assert!(outcome(schema(), "{").reason.starts_with("wrong answer: not JSON"));
        let expression = || Verify::Expression { expression: "answer | to_number == n + 1".into() };
        assert!(outcome(expression(), "4").passed);
        assert!(!outcome(expression(), "5").passed);
        assert!(!outcome(expression(), "many").passed);
    }

    #[test]
    fn bad_checks_are_named() {
        let leaf = Leaf { id: "x".into(), verify: Some(Verify::Regex { pattern: "(".into() }), ..Leaf::default() };
        assert!(Verifier::new(&leaf).unwrap_err().to_string().starts_with("leaf x: its `verify` cannot be used"));
    }

    #[test]
    fn test_items_are_compared_with_their_answer() {
        let leaf =
            Leaf { verify: Some(Verify::Exact { expression: "nothing".into(), ignore_case: true }), ..Leaf::default() };
        let item = TestItem { question: "q".into(), answer: "Paris".into(), ..TestItem::default() };
        let verifier = Verifier::new(&leaf).unwrap();
        assert!(verifier.check_test(&leaf, &item, "paris.").unwrap().passed);
        assert!(!verifier.check_test(&leaf, &item, "Rome").unwrap().passed);
    }

    #[test]
    fn the_answer_of_a_test_row_is_computed_where_its_slots_suffice() {
        let mut leaf = Leaf {
            verify: Some(Verify::Exact { expression: "double".into(), ignore_case: false }),
            questions: Some(QuestionTemplate {
                derive: [("double".to_owned(), "n * 2".to_owned()), ("other".to_owned(), "m + 1".to_owned())].into(),
                ..QuestionTemplate::default()
            }),
            ..Leaf::default()
        };
        let item = |answer: &str| TestItem {
            answer: answer.into(),
            slots: Some([("n".to_owned(), json!(4))].into()),
            ..TestItem::default()
        };
        let verifier = Verifier::new(&leaf).unwrap();
        assert!(verifier.check_key(&leaf, &item("8")).unwrap().passed);
        assert_eq!(verifier.check_key(&leaf, &item("9")).unwrap().reason, "wrong answer: \"9\" is not \"8\"");
        leaf.verify = Some(Verify::Expression { expression: "answer | to_number == double".into() });
        let verifier = Verifier::new(&leaf).unwrap();
        assert!(verifier.check_test(&leaf, &item("8"), "8.0").unwrap().passed);
        assert!(!verifier.check_key(&leaf, &item("9")).unwrap().passed);
    }
}
