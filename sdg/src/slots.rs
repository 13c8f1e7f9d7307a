//! Questions drawn from templates.
//!
//! A draw is a pure function of template, seed, leaf and index: a `ChaCha8` stream seeded by their sha256 draws each slot in
//! the order of the names, then derived values, question and truth follow.

use std::collections::{BTreeMap, HashSet};

use espalier_dataset::normalized;
use espalier_taxonomy::{Leaf, QuestionTemplate, Slot, Verify};
use jiff::civil::Date;
use jiff::{Span, Unit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use crate::error::SdgError;
use crate::expressions;
use crate::held_out::HeldOut;
use crate::identity::digest;

/// One question from a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Values of slots and derived values by name.
    pub slots: BTreeMap<String, Value>,
    /// The template filled in.
    pub question: String,
    /// The answer, where the leaf can compute it (`verify: {exact: ...}`).
    pub truth: Option<String>,
}

/// Draws from a leaf's template; of the leaf, its id and its `verify` count. The same arguments always give the same.
///
/// # Errors
/// [`SdgError::Expression`] names leaf, expression and reason.
pub fn draw(leaf: &Leaf, template: &QuestionTemplate, seed: u64, index: u64) -> Result<Drawn, SdgError> {
    let fail =
        |part: &str, reason: String| SdgError::Expression { leaf: leaf.id.clone(), part: part.to_owned(), reason };
    let mut random =
        ChaCha8Rng::from_seed(digest(&[b"slots", &seed.to_le_bytes(), leaf.id.as_bytes(), &index.to_le_bytes()]));
    let mut slots = BTreeMap::new();
    for (name, slot) in &template.slots {
        slots.insert(name.clone(), draw_slot(slot, &mut random).map_err(|reason| fail(name, reason))?);
    }
    derive(&template.derive, &mut slots).map_err(|(part, reason)| fail(&part, reason))?;
    let question =
        expressions::render(&template.template, &slots).map_err(|reason| fail("questions.template", reason))?;
    let question = question.trim().to_owned();
    if question.is_empty() {
        return Err(fail("questions.template", "the question is empty".to_owned()));
    }
    let truth = match leaf.verify.as_ref().and_then(Verify::truth) {
        Some(expression) => Some(expressions::evaluate(expression, &slots).map_err(|reason| fail(expression, reason))?),
        None => None,
    };
    Ok(Drawn { slots, question, truth })
}

/// Draws until `wanted` questions are found that differ from each other and that no test holds out, or until the template
/// seems exhausted: then fewer are returned. The first n of a longer list are the list for n.
///
/// # Errors
/// As [`draw`].
pub fn draw_distinct(
    leaf: &Leaf,
    template: &QuestionTemplate,
    seed: u64,
    wanted: usize,
    held_out: &HeldOut,
) -> Result<Vec<Drawn>, SdgError> {
    /// Draws in vain, one after another, after which a template counts as exhausted.
    const PATIENCE: u64 = 2000;
    let mut found = Vec::with_capacity(wanted.min(100_000));
    let mut seen = HashSet::new();
    let mut in_vain = 0;
    let mut index = 0;
    while found.len() < wanted && in_vain < PATIENCE {
        let drawn = draw(leaf, template, seed, index)?;
        index += 1;
        let refused = held_out.question(None, &drawn.question) || held_out.slots(&drawn.slots);
        if refused || !seen.insert(normalized(&drawn.question)) {
            in_vain += 1;
        } else {
            in_vain = 0;
            found.push(drawn);
        }
    }
    Ok(found)
}

/// How many combinations of slot values there are; saturates.
pub fn capacity(template: &QuestionTemplate) -> u64 {
    template.slots.values().map(|slot| slot_size(slot).unwrap_or(0)).fold(1, u64::saturating_mul)
}

fn slot_size(slot: &Slot) -> Result<u64, String> {
    match slot {
        Slot::List(values) => Ok(values.len() as u64),
        Slot::IntegerRange { from, to, step } => {
            let width = i128::from(*to) - i128::from(*from);
            if width < 0 || *step < 1 {
                return Err(format!("the range from {from} to {to} by {step} is empty"));
            }
            Ok(u64::try_from(width / i128::from(*step) + 1).unwrap_or(u64::MAX))
        }
        Slot::DateRange { from, to } => {
            let (from, to) = (day(from)?, day(to)?);
            let days = from.until((Unit::Day, to)).map_err(|error| error.to_string())?.get_days();
            u64::try_from(i64::from(days) + 1).map_err(|_| format!("the range from {from} to {to} is empty"))
        }
        Slot::DecimalRange { from, to, decimals } => {
            let scale = 10_f64.powi(*decimals as i32);
            let (low, high) = ((from * scale).ceil(), (to * scale).floor());
            if low.is_finite() && high.is_finite() && low <= high {
                Ok((high - low) as u64 + 1)
            } else {
                Err(format!("the range from {from} to {to} is empty at {decimals} decimals"))
            }
        }
    }
}

fn draw_slot(slot: &Slot, random: &mut ChaCha8Rng) -> Result<Value, String> {
    let size = slot_size(slot)?;
    if size == 0 {
        return Err("the slot has no values".to_owned());
    }
    let choice = below(size, random);
    Ok(match slot {
        Slot::List(values) => values.get(choice as usize).cloned().unwrap_or_default().into(),
        // In range: choice < size, so the sum is at most `to`.
        Slot::IntegerRange { from, step, .. } => {
            ((i128::from(*from) + i128::from(choice) * i128::from(*step)) as i64).into()
        }
        Slot::DateRange { from, .. } => {
            let span = Span::new().try_days(choice as i64).map_err(|error| error.to_string())?;
            day(from)?.checked_add(span).map_err(|error| error.to_string())?.to_string().into()
        }
        Slot::DecimalRange { from, decimals, .. } => {
            let scale = 10_f64.powi(*decimals as i32);
            (((from * scale).ceil() + choice as f64) / scale).into()
        }
    })
}

fn day(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| format!("{text:?} is not a day written YYYY-MM-DD"))
}

/// A number below `size`, each equally likely: draws above the largest multiple of `size` are thrown away.
pub(crate) fn below(size: u64, random: &mut ChaCha8Rng) -> u64 {
    let limit = u64::MAX - u64::MAX % size;
    loop {
        let number = random.next_u64();
        if number < limit {
            return number % size;
        }
    }
}

/// Adds derived values in the order that they need each other in.
pub(crate) fn derive(
    expressions: &BTreeMap<String, String>,
    values: &mut BTreeMap<String, Value>,
) -> Result<(), (String, String)> {
    let mut left: Vec<(&String, &String)> = expressions.iter().collect();
    while !left.is_empty() {
        let before = left.len();
        let mut waiting = Vec::new();
        for (name, expression) in left {
            let needs = expressions::needs(expression).map_err(|reason| (name.clone(), reason))?;
            if needs.iter().any(|need| expressions.contains_key(need) && !values.contains_key(need)) {
                waiting.push((name, expression));
                continue;
            }
            let value = expressions::evaluate_value(expression, values).map_err(|reason| (name.clone(), reason))?;
            values.insert(name.clone(), value);
        }
        if waiting.len() == before {
            let names: Vec<&str> = waiting.iter().map(|(name, _)| name.as_str()).collect();
            return Err((names.join(", "), "derived values need each other in a circle".to_owned()));
        }
        left = waiting;
    }
    Ok(())
}

/// Adds those derived values that the known ones suffice for: a test row may name some slots only.
pub(crate) fn derive_known(expressions: &BTreeMap<String, String>, values: &mut BTreeMap<String, Value>) {
    loop {
        let before = values.len();
        for (name, expression) in expressions {
            if !values.contains_key(name)
                && suffices(values, expression)
                && let Ok(value) = expressions::evaluate_value(expression, values)
            {
                values.insert(name.clone(), value);
            }
        }
        if values.len() == before {
            return;
        }
    }
}

/// Whether every name that an expression needs is known.
pub(crate) fn suffices(values: &BTreeMap<String, Value>, expression: &str) -> bool {
    expressions::needs(expression).is_ok_and(|needs| needs.iter().all(|name| values.contains_key(name)))
}

#[cfg(test)]
mod tests {
    use espalier_taxonomy::TestItem;
    use serde_json::json;

    use super::*;

    fn leaf(verify: Option<Verify>) -> Leaf {
        Leaf { id: "x".into(), verify, ..Leaf::default() }
    }

    fn template() -> QuestionTemplate {
        let slots = [
            ("a".to_owned(), Slot::IntegerRange { from: 1, to: 9, step: 2 }),
            ("style".to_owned(), Slot::List(vec!["%Y".into(), "%-d %B %Y".into()])),
            ("date".to_owned(), Slot::DateRange { from: "2019-12-30".into(), to: "2020-01-02".into() }),
            ("price".to_owned(), Slot::DecimalRange { from: 0.5, to: 0.75, decimals: 2 }),
        ];
        let derive = [("shown", "date | format_date(style)"), ("c", "b * 2"), ("b", "a + 1")];
        QuestionTemplate {
            template: "{{ shown }} {{ c }} {{ price }}?".into(),
            slots: slots.into(),
            derive: derive.map(|(name, expression)| (name.into(), expression.into())).into(),
        }
    }

    #[test]
    fn draws_are_pure_and_in_range() {
        let template = template();
        let leaf = leaf(Some(Verify::Exact { expression: "a + 1".into(), ignore_case: false }));
        for index in 0..200 {
            let drawn = draw(&leaf, &template, 7, index).unwrap();
            assert_eq!(drawn, draw(&leaf, &template, 7, index).unwrap());
            let a = drawn.slots["a"].as_i64().unwrap();
            assert!([1, 3, 5, 7, 9].contains(&a));
            assert_eq!(drawn.slots["c"], json!(2 * a + 2));
            assert_eq!(drawn.truth, Some((a + 1).to_string()));
            let date = drawn.slots["date"].as_str().unwrap();
            assert!(("2019-12-30"..="2020-01-02").contains(&date));
            let price = drawn.slots["price"].as_f64().unwrap();
            assert!((0.5..=0.75).contains(&price), "{price}");
        }
        let other = draw(&leaf, &template, 8, 0).unwrap();
        assert_ne!(other, draw(&leaf, &template, 7, 0).unwrap());
    }

    #[test]
    fn distinct_draws_end_and_are_prefix_stable_and_held_out() {
        let template = QuestionTemplate {
            template: "What is {{ n }} + 1?".into(),
            slots: [("n".to_owned(), Slot::IntegerRange { from: 1, to: 20, step: 1 })].into(),
            derive: BTreeMap::new(),
        };
        assert_eq!(capacity(&template), 20);
        let test = [
            TestItem { question: "what is 3 + 1".into(), ..TestItem::default() },
            TestItem {
                question: "other".into(),
                slots: Some([("n".to_owned(), json!("7"))].into()),
                ..TestItem::default()
            },
        ];
        let held_out = HeldOut::new(&test);
        let all = draw_distinct(&leaf(None), &template, 1, 100, &held_out).unwrap();
        assert_eq!(all.len(), 18);
        assert!(all.iter().all(|drawn| drawn.slots["n"] != json!(3) && drawn.slots["n"] != json!(7)));
        assert_eq!(draw_distinct(&leaf(None), &template, 1, 5, &held_out).unwrap(), all[..5]);
    }

    #[test]
    fn circles_and_unknown_names_are_errors() {
        let mut template = template();
        template.derive.insert("b".into(), "c".into());
        let error = draw(&leaf(None), &template, 0, 0).unwrap_err().to_string();
        assert!(error.contains("in a circle"), "{error}");
        template.derive = [("b".to_owned(), "nobody".to_owned())].into();
        let error = draw(&leaf(None), &template, 0, 0).unwrap_err().to_string();
        assert!(error.contains("leaf x: `b` fails"), "{error}");
    }
}
