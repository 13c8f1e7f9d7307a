//! Rewards that a program can verify: is this answer right?
//!
//! | reward | right is |
//! |---|---|
//! | `exact` | the truth itself, without the white space, quotes and full stop around it |
//! | `choice` | the truth's letter: `B`, `(B)`, `the answer is B` |
//! | `numeric` | the truth's number within a tolerance; thousands separators, fractions, percent, powers of ten and units are read |
//! | `symbolic` | a formula that is the truth's function, in plain writing or LaTeX |
//! | `regex` | what the expression matches somewhere |
//! | `json_schema` | JSON that conforms |
//! | `expression` | what makes a jinja expression true |
//! | `all_of`, `any_of` | all or one of several |
//!
//! `choice`, `numeric` and `symbolic` look at the final answer: the inside of the last `\boxed{}`, else what follows the last
//! `answer is`, `Answer:` or `####`, else all of it. Reasoning in `<think>` tags never counts. A truth is a jinja expression
//! over slots or columns. What is checked may be hostile: every reading is bounded.

mod algebra;
mod choice;
mod final_answer;
mod number;
mod rejection;

use std::collections::{BTreeMap, HashSet};

use jsonschema::Validator;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::expressions;
use algebra::Symbolic;
use choice::chosen_letter;
use number::{last_quantity, same_number};

pub(crate) use final_answer::final_answer;
pub use number::Tolerance;
pub use rejection::{Preference, select};

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

    fn of(check: &str, result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::passed(check),
            Err(detail) => Self::failed(WRONG, &detail),
        }
    }
}

/// The category of an answer that fails its check.
const WRONG: &str = "wrong answer";

/// A reward as it is written in a flow. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RewardConfig {
    /// The answer equals the truth.
    Exact {
        /// A jinja expression that gives the truth.
        truth: String,
        /// Whether upper and lower case are the same.
        #[serde(default)]
        ignore_case: bool,
    },
    /// The answer chooses the truth's letter.
    Choice {
        /// A jinja expression that gives the letter.
        truth: String,
    },
    /// The answer's last number is the truth's.
    Numeric {
        /// A jinja expression that gives the number, with its unit where it has one.
        truth: String,
        /// How far it may lie away.
        #[serde(default)]
        tolerance: Tolerance,
    },
    /// The answer is the truth's formula.
    Symbolic {
        /// A jinja expression that gives the formula as text.
        truth: String,
        /// Variables of several letters.
        #[serde(default)]
        variables: Vec<String>,
    },
    /// The answer matches a regular expression somewhere.
    Regex {
        /// In the syntax of the `regex` crate.
        pattern: String,
    },
    /// The answer is JSON that conforms to a schema.
    JsonSchema {
        /// A JSON Schema, draft 2020-12 unless it says another.
        schema: Value,
    },
    /// A jinja expression over all values and `answer` is true.
    Expression {
        /// Gives true or false.
        expression: String,
    },
    /// Every one of these.
    AllOf(Vec<RewardConfig>),
    /// One of these.
    AnyOf(Vec<RewardConfig>),
}

/// Where the truth comes from.
#[derive(Clone, Copy, Debug)]
pub enum Truth<'a> {
    /// The reward's own expression, over the values.
    Computed,
    /// This text.
    Given(&'a str),
}

/// What could not be computed: the expression, and why.
pub type Broken = (String, String);

/// A reward, compiled once.
#[derive(Debug)]
pub struct Reward(Check);

#[derive(Debug)]
enum Check {
    Exact { truth: String, ignore_case: bool },
    Choice { truth: String },
    Numeric { truth: String, tolerance: Tolerance },
    Symbolic { truth: String, variables: Vec<String> },
    Regex(Regex),
    JsonSchema(Box<Validator>),
    Expression(String),
    All(Vec<Check>),
    Any(Vec<Check>),
}

impl Reward {
    /// Compiles a reward.
    ///
    /// # Errors
    /// An expression, a pattern or a schema that cannot be used, in one sentence.
    pub fn new(config: &RewardConfig) -> Result<Self, String> {
        compile(config, 0).map(Self)
    }

    /// Names that its expressions need, `answer` apart.
    pub fn needs(&self) -> HashSet<String> {
        let mut names = HashSet::new();
        collect_needs(&self.0, &mut names);
        names.remove("answer");
        names
    }

    /// Whether an answer is right. `values` are what expressions may name.
    ///
    /// # Errors
    /// A truth that cannot be computed or read, an expression that is neither true nor false: the reward's fault, not the
    /// answer's.
    pub fn check(
        &self,
        truth: Truth<'_>,
        values: &BTreeMap<String, Value>,
        answer: &str,
    ) -> Result<CheckOutcome, Broken> {
        if answer.trim().is_empty() {
            return Ok(CheckOutcome::failed("empty answer", ""));
        }
        self.0.outcome(truth, values, answer)
    }
}

fn compile(config: &RewardConfig, depth: usize) -> Result<Check, String> {
    /// Deepest nesting of `all_of` and `any_of`.
    const DEEPEST: usize = 8;
    let expression = |text: &String| expressions::needs(text).map(|_| text.clone());
    let several = |parts: &[RewardConfig]| -> Result<Vec<Check>, String> {
        match parts {
            [] => Err("an empty list of checks; name one or more".to_owned()),
            _ if depth == DEEPEST => Err(format!("checks are nested deeper than {DEEPEST} levels")),
            parts => parts.iter().map(|part| compile(part, depth + 1)).collect(),
        }
    };
    Ok(match config {
        RewardConfig::Exact { truth, ignore_case } => {
            Check::Exact { truth: expression(truth)?, ignore_case: *ignore_case }
        }
        RewardConfig::Choice { truth } => Check::Choice { truth: expression(truth)? },
        RewardConfig::Numeric { truth, tolerance } => {
            tolerance.validate()?;
            Check::Numeric { truth: expression(truth)?, tolerance: *tolerance }
        }
        RewardConfig::Symbolic { truth, variables } => {
            Check::Symbolic { truth: expression(truth)?, variables: variables.clone() }
        }
        RewardConfig::Regex { pattern } => {
            Check::Regex(RegexBuilder::new(pattern).build().map_err(|error| error.to_string())?)
        }
        RewardConfig::JsonSchema { schema } => {
            Check::JsonSchema(Box::new(jsonschema::validator_for(schema).map_err(|error| error.to_string())?))
        }
        RewardConfig::Expression { expression: text } => Check::Expression(expression(text)?),
        RewardConfig::AllOf(parts) => Check::All(several(parts)?),
        RewardConfig::AnyOf(parts) => Check::Any(several(parts)?),
    })
}

fn collect_needs(check: &Check, names: &mut HashSet<String>) {
    match check {
        Check::Exact { truth, .. }
        | Check::Choice { truth }
        | Check::Numeric { truth, .. }
        | Check::Symbolic { truth, .. }
        | Check::Expression(truth) => names.extend(expressions::needs(truth).unwrap_or_default()),
        Check::Regex(_) | Check::JsonSchema(_) => {}
        Check::All(parts) | Check::Any(parts) => parts.iter().for_each(|part| collect_needs(part, names)),
    }
}

impl Check {
    fn outcome(
        &self,
        truth: Truth<'_>,
        values: &BTreeMap<String, Value>,
        answer: &str,
    ) -> Result<CheckOutcome, Broken> {
        let of = |expression: &str| match truth {
            Truth::Given(text) => Ok(text.to_owned()),
            Truth::Computed => {
                expressions::evaluate(expression, values).map_err(|reason| (expression.to_owned(), reason))
            }
        };
        Ok(match self {
            Self::Exact { truth, ignore_case } => equals(&of(truth)?, answer, *ignore_case),
            Self::Choice { truth } => {
                let wanted = of(truth)?;
                let letter = chosen_letter(&wanted)
                    .ok_or_else(|| (truth.clone(), format!("{} is no letter", excerpt(&wanted))))?;
                CheckOutcome::of(
                    "choice",
                    match chosen_letter(answer) {
                        Some(found) if found == letter => Ok(()),
                        Some(found) => Err(format!("{found} is not {letter}")),
                        None => Err(format!("{} chooses no letter", excerpt(answer.trim()))),
                    },
                )
            }
            Self::Numeric { truth, tolerance } => {
                let wanted = of(truth)?;
                let quantity = last_quantity(&wanted)
                    .ok_or_else(|| (truth.clone(), format!("{} is no number", excerpt(&wanted))))?;
                CheckOutcome::of("numeric", same_number(&quantity, answer, *tolerance))
            }
            Self::Symbolic { truth, variables } => {
                let wanted = of(truth)?;
                let formula = Symbolic::parse(&wanted, variables)
                    .map_err(|reason| (truth.clone(), format!("{} is no formula: {reason}", excerpt(&wanted))))?;
                CheckOutcome::of("symbolic", formula.equals(final_answer(answer)))
            }
            Self::Regex(pattern) => matches(pattern, answer),
            Self::JsonSchema(schema) => conforms(schema, answer),
            Self::Expression(expression) => holds(expression, values, answer)?,
            Self::All(parts) => {
                let mut outcome = CheckOutcome::passed("all_of");
                for part in parts {
                    let found = part.outcome(truth, values, answer)?;
                    if !found.passed {
                        return Ok(found);
                    }
                    outcome.canonical = outcome.canonical.or(found.canonical);
                }
                outcome
            }
            Self::Any(parts) => {
                let mut reasons = Vec::new();
                for part in parts {
                    let found = part.outcome(truth, values, answer)?;
                    if found.passed {
                        return Ok(found);
                    }
                    reasons.push(found.reason.strip_prefix("wrong answer: ").unwrap_or(&found.reason).to_owned());
                }
                CheckOutcome::failed(WRONG, &reasons.join("; "))
            }
        })
    }
}

/// An answer without white space and quotes around it and a full stop behind it; white space inside is one space.
pub(crate) fn normalized_answer(answer: &str) -> String {
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

/// Whether an answer is a truth after [`normalized_answer`].
pub(crate) fn equals(truth: &str, answer: &str, ignore_case: bool) -> CheckOutcome {
    let normalize = |text: &str| {
        let text = normalized_answer(text);
        if ignore_case { text.to_lowercase() } else { text }
    };
    let (wanted, found) = (normalize(truth), normalize(answer));
    if wanted == found {
        CheckOutcome { canonical: Some(truth.to_owned()), ..CheckOutcome::passed("exact") }
    } else {
        CheckOutcome::failed(WRONG, &format!("{} is not {}", excerpt(&found), excerpt(&wanted)))
    }
}

fn matches(pattern: &Regex, answer: &str) -> CheckOutcome {
    if pattern.is_match(answer.trim()) {
        CheckOutcome::passed("regex")
    } else {
        CheckOutcome::failed(WRONG, &format!("{} does not match {pattern}", excerpt(answer.trim())))
    }
}

fn conforms(schema: &Validator, answer: &str) -> CheckOutcome {
    let text = without_fence(answer.trim());
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return CheckOutcome::failed(WRONG, &format!("not JSON: {error}")),
    };
    match schema.iter_errors(&value).next() {
        None => CheckOutcome { canonical: Some(text.to_owned()), ..CheckOutcome::passed("json_schema") },
        Some(error) => CheckOutcome::failed(WRONG, &format!("against the schema: {error}")),
    }
}

/// What a model wrote can make an expression fail (`answer | to_number`): that answer is wrong, the reward is not.
fn holds(expression: &str, values: &BTreeMap<String, Value>, answer: &str) -> Result<CheckOutcome, Broken> {
    let mut values = values.clone();
    values.insert("answer".to_owned(), answer.trim().into());
    match expressions::evaluate_value(expression, &values) {
        Ok(Value::Bool(true)) => Ok(CheckOutcome::passed("expression")),
        Ok(Value::Bool(false)) => Ok(CheckOutcome::failed(WRONG, "the expression is false")),
        Ok(other) => Err((expression.to_owned(), format!("it is {other}, not true or false"))),
        Err(reason) => Ok(CheckOutcome::failed(WRONG, &reason)),
    }
}

/// The inside of a Markdown code fence, where there is one.
pub(crate) fn without_fence(text: &str) -> &str {
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
    use serde_json::json;

    use super::*;

    fn reward(config: Value) -> Reward {
        Reward::new(&serde_json::from_value(config).unwrap()).unwrap()
    }

    fn reason(config: Value, answer: &str) -> String {
        let values = [("n".to_owned(), json!(3)), ("key".to_owned(), json!("C"))].into();
        reward(config).check(Truth::Computed, &values, answer).unwrap().reason
    }

    #[test]
    fn each_reward_says_what_is_right_and_what_is_wrong() {
        let exact = || json!({"exact": {"truth": "'Day ' ~ n"}});
        assert_eq!(reason(exact(), " \"Day  3\".\n"), "exact");
        assert_eq!(reason(exact(), "day 3"), "wrong answer: \"day 3\" is not \"Day 3\"");
        assert_eq!(reason(json!({"exact": {"truth": "'Day ' ~ n", "ignore_case": true}}), "DAY 3"), "exact");
        assert_eq!(reason(exact(), " \n"), "empty answer");
        let choice = || json!({"choice": {"truth": "key"}});
        assert_eq!(reason(choice(), "The answer is (C)."), "choice");
        assert_eq!(reason(choice(), "B"), "wrong answer: B is not C");
        let numeric = || json!({"numeric": {"truth": "(n / 4) ~ ' km'", "tolerance": {"relative": 0.01}}});
        assert_eq!(reason(numeric(), "3/4"), "numeric");
        assert_eq!(reason(numeric(), "755 m"), "numeric");
        assert_eq!(reason(numeric(), "755 g"), "wrong answer: g is a unit of mass, km of length");
        let symbolic = || json!({"symbolic": {"truth": "'x + ' ~ n"}});
        assert_eq!(reason(symbolic(), r"So it is \boxed{3+x}."), "symbolic");
        assert_eq!(reason(symbolic(), "x"), "wrong answer: the formulas differ");
        let both = || json!({"all_of": [{"regex": {"pattern": "[0-9]"}}, {"expression": {"expression": "answer | length < 9"}}]});
        assert_eq!(reason(both(), "it is 3"), "all_of");
        assert_eq!(reason(both(), "it is certainly 3"), "wrong answer: the expression is false");
        let one = || json!({"any_of": [{"exact": {"truth": "n"}}, {"json_schema": {"schema": {"type": "array"}}}]});
        assert_eq!((reason(one(), "3"), reason(one(), "[3]")), ("exact".into(), "json_schema".into()));
        assert!(reason(one(), "4").contains("\"4\" is not \"3\"; against the schema"));
    }

    #[test]
    fn a_reward_that_cannot_be_used_is_said() {
        let new = |config: Value| Reward::new(&serde_json::from_value(config).unwrap()).unwrap_err();
        assert!(new(json!({"exact": {"truth": "1 +"}})).contains("syntax error"));
        assert!(new(json!({"any_of": []})).contains("empty list"));
        assert!(new(json!({"numeric": {"truth": "1", "tolerance": {"absolute": -1.0}}})).contains("0 or more"));
        assert!(serde_json::from_value::<RewardConfig>(json!({"regex": {"pattern": "a", "flags": "i"}})).is_err());
        let broken = |config: Value| reward(config).check(Truth::Computed, &BTreeMap::new(), "3").unwrap_err();
        assert_eq!(broken(json!({"exact": {"truth": "missing"}})).0, "missing");
        assert!(broken(json!({"numeric": {"truth": "'many'"}})).1.contains("no number"));
        assert!(broken(json!({"expression": {"expression": "1"}})).1.contains("not true or false"));
    }

    #[test]
    fn what_a_reward_needs_is_known_before() {
        let found =
            reward(json!({"all_of": [{"exact": {"truth": "a ~ b"}}, {"expression": {"expression": "answer == c"}}]}));
        let mut names: Vec<String> = found.needs().into_iter().collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn a_given_truth_takes_the_place_of_the_computed_one() {
        let found = reward(json!({"numeric": {"truth": "missing"}}));
        assert!(found.check(Truth::Given("1,000"), &BTreeMap::new(), "1000.0").unwrap().passed);
    }
}
