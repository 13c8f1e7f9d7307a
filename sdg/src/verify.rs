//! The `verify` of a leaf: its reward, over slots and held-out items.

use std::collections::BTreeMap;

use espalier_taxonomy::{Leaf, TestItem, Verify};
use serde_json::Value;

use crate::error::SdgError;
use crate::reward::{CheckOutcome, Reward, RewardConfig, Tolerance, Truth, equals, normalized_answer};
use crate::slots::{derive_known, suffices};

/// The `verify` of a leaf, compiled once.
#[derive(Debug)]
pub struct Verifier {
    reward: Option<Reward>,
}

impl Verifier {
    /// Compiles the check of a leaf; a leaf without one gets a verifier that passes every answer that is not empty.
    ///
    /// # Errors
    /// [`SdgError::Verify`] for a pattern or a schema that cannot be used.
    pub fn new(leaf: &Leaf) -> Result<Self, SdgError> {
        let reward = leaf.verify.as_ref().map(|verify| Reward::new(&reward_of(verify))).transpose();
        reward.map(|reward| Self { reward }).map_err(|reason| SdgError::Verify { leaf: leaf.id.clone(), reason })
    }

    /// Whether the leaf has a check.
    pub fn is_some(&self) -> bool {
        self.reward.is_some()
    }

    /// Checks a teacher's answer over slots, `question` and `context`.
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
        self.checked(Truth::Computed, leaf, slots, question, answer)
    }

    fn checked(
        &self,
        truth: Truth<'_>,
        leaf: &Leaf,
        slots: &BTreeMap<String, Value>,
        question: &str,
        answer: &str,
    ) -> Result<CheckOutcome, SdgError> {
        let Some(reward) = &self.reward else {
            let empty = answer.trim().is_empty();
            return Ok(if empty {
                CheckOutcome::failed("empty answer", "")
            } else {
                CheckOutcome::passed("not empty")
            });
        };
        let mut values = slots.clone();
        values.insert("question".into(), question.into());
        values.entry("context".into()).or_insert_with(|| "".into());
        let fail = |(part, reason)| SdgError::Expression { leaf: leaf.id.clone(), part, reason };
        reward.check(truth, &values, answer).map_err(fail)
    }

    /// Checks the answer to a held-out question: an exact check compares with the item's answer, the others are as in
    /// [`check`](Self::check), over the slots that the item names and what follows from them; a leaf without a check compares
    /// too.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_test(&self, leaf: &Leaf, item: &TestItem, answer: &str) -> Result<CheckOutcome, SdgError> {
        if self.reward.is_none() {
            return Ok(equals(&item.answer, answer, false));
        }
        let mut values = known(leaf, item);
        values.insert("context".into(), item.context.clone().unwrap_or_default().into());
        self.checked(Truth::Given(&item.answer), leaf, &values, &item.question, answer)
    }

    /// Checks the answer that stands in a test row itself. An exact check computes the truth where the row's slots suffice.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_key(&self, leaf: &Leaf, item: &TestItem) -> Result<CheckOutcome, SdgError> {
        if let Some(expression) = leaf.verify.as_ref().and_then(Verify::truth) {
            let values = known(leaf, item);
            if suffices(&values, expression) {
                return self.check(leaf, &values, &item.question, &item.answer);
            }
        }
        self.check_test(leaf, item, &item.answer)
    }

    /// An answer without white space and quotes around it and a full stop behind it; white space inside is one space.
    pub fn normalized_answer(answer: &str) -> String {
        normalized_answer(answer)
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

/// A leaf's check as a reward.
fn reward_of(verify: &Verify) -> RewardConfig {
    match verify {
        Verify::Exact { expression, ignore_case } => {
            RewardConfig::Exact { truth: expression.clone(), ignore_case: *ignore_case }
        }
        Verify::Regex { pattern } => RewardConfig::Regex { pattern: pattern.clone() },
        Verify::JsonSchema { schema } => RewardConfig::JsonSchema { schema: schema.clone() },
        Verify::Expression { expression } => RewardConfig::Expression { expression: expression.clone() },
        Verify::Numeric { expression, tolerance } => RewardConfig::Numeric {
            truth: expression.clone(),
            tolerance: Tolerance { absolute: *tolerance, ..Tolerance::default() },
        },
        Verify::AnyOf(parts) => RewardConfig::AnyOf(parts.iter().map(reward_of).collect()),
        Verify::AllOf(parts) => RewardConfig::AllOf(parts.iter().map(reward_of).collect()),
    }
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
        let numeric = |tolerance| Verify::Numeric { expression: "n / 2".into(), tolerance };
        assert!(outcome(numeric(0.0), "It is 1.5.").passed);
        assert!(!outcome(numeric(0.01), "1.6").passed && outcome(numeric(0.2), "1.6").passed);
        let both = || Verify::AllOf(vec![numeric(0.0), regex()]);
        assert!(!outcome(both(), "1.5").passed && outcome(Verify::AnyOf(vec![both(), regex()]), "7").passed);
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
