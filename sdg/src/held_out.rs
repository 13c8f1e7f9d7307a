//! What training data must not hold.

use std::collections::{BTreeMap, HashMap, HashSet};

use espalier_dataset::{Turn, normalized};
use espalier_taxonomy::{Seed, TestItem, Tree};
use serde_json::Value;

use crate::conversation::said_by;

/// Held-out test questions (of a whole tree) and combinations of slot values (of one leaf).
#[derive(Clone, Debug, Default)]
pub struct HeldOut {
    questions: HashSet<String>,
    /// For each set of slot names that test rows name: their combinations of values.
    slots: HashMap<Vec<String>, HashSet<Vec<String>>>,
}

impl HeldOut {
    /// Everything that the test rows of one leaf hold out.
    pub fn new(test: &[TestItem]) -> Self {
        let mut held_out = Self::default();
        for item in test {
            held_out.add_question(item);
            if let Some(slots) = item.slots.as_ref().filter(|slots| !slots.is_empty()) {
                let names = slots.keys().cloned().collect();
                held_out.slots.entry(names).or_default().insert(slots.values().map(text).collect());
            }
        }
        held_out
    }

    /// What a leaf must avoid: the test questions of all leaves, and the slot values of its own test.
    pub fn of_leaf(tree: &Tree, leaf: &str) -> Self {
        let own: &[TestItem] = tree.leaf(leaf).map_or(&[], |leaf| &leaf.test);
        let mut held_out = Self::new(own);
        for item in tree.leaves.iter().flat_map(|leaf| &leaf.test) {
            held_out.add_question(item);
        }
        held_out
    }

    fn add_question(&mut self, item: &TestItem) {
        self.questions.insert(key(item.context.as_deref(), &item.question));
        if let Some(context) = &item.context {
            // Rows hold the text and its question in one turn.
            self.questions.insert(normalized(&format!("{context}\n\n{}", item.question)));
        }
    }

    /// Whether a test asks this question about this context.
    pub fn question(&self, context: Option<&str>, question: &str) -> bool {
        self.questions.contains(&key(context, question))
    }

    /// Whether a test asks what the user asks in a conversation, about this context or none.
    pub(crate) fn conversation(&self, context: Option<&str>, turns: &[Turn]) -> bool {
        said_by(turns, "user").any(|asked| self.question(None, asked) || self.question(context, asked))
    }

    /// Whether a test asks what is asked in a seed.
    pub fn seed(&self, seed: &Seed) -> bool {
        seed.asked().any(|asked| self.question(seed.context.as_deref(), asked))
    }

    /// Whether a test row holds out this combination of values. A row that names some slots holds out every draw that agrees
    /// on those.
    pub fn slots(&self, drawn: &BTreeMap<String, Value>) -> bool {
        self.slots.iter().any(|(names, combinations)| {
            let values: Option<Vec<String>> = names.iter().map(|name| drawn.get(name).map(text)).collect();
            values.is_some_and(|values| combinations.contains(&values))
        })
    }
}

fn key(context: Option<&str>, question: &str) -> String {
    match context {
        Some(context) => format!("{}\n{}", normalized(context), normalized(question)),
        None => normalized(question),
    }
}

/// `5` and `"5"` are the same value of a slot.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_with_its_text_is_held_out_in_one_piece_too() {
        let test = [TestItem { context: Some("Zoe ran.".into()), question: "Who ran?".into(), ..TestItem::default() }];
        let held_out = HeldOut::new(&test);
        assert!(held_out.question(Some("Zoe ran."), "Who ran?"));
        assert!(held_out.question(None, "Zoe ran.\nWho ran?"));
        assert!(!held_out.question(None, "Who ran?"));
    }

    #[test]
    fn no_turn_of_a_seed_or_of_a_row_may_be_held_out() {
        let held_out = HeldOut::new(&[TestItem { question: "Who ran?".into(), ..TestItem::default() }]);
        let said = |user: &str| espalier_taxonomy::Exchange { user: user.into(), assistant: "Zoe.".into() };
        let seed = |history: &str, question: &str| Seed {
            history: vec![said(history)],
            question: question.into(),
            ..Seed::default()
        };
        assert!(held_out.seed(&seed("who ran", "Why?")) && held_out.seed(&seed("Hello.", "Who ran?")));
        assert!(!held_out.seed(&seed("Hello.", "Why?")));
        let turns = [Turn::new("user", "Who ran?"), Turn::new("assistant", "Zoe."), Turn::new("user", "Why?")];
        assert!(held_out.conversation(Some("x"), &turns) && !held_out.conversation(None, &turns[1..]));
    }

    #[test]
    fn questions_are_normalised_and_slots_compared_by_name() {
        let slots: BTreeMap<String, Value> = [("year".to_owned(), 2019.into()), ("day".to_owned(), "5".into())].into();
        let test = [TestItem { question: "What is  it?".into(), slots: Some(slots), ..TestItem::default() }];
        let held_out = HeldOut::new(&test);
        assert!(held_out.question(None, "what is it"));
        assert!(!held_out.question(Some("x"), "what is it"));
        let draw = |year: i64, day: i64| {
            [("year".to_owned(), year.into()), ("day".to_owned(), day.into()), ("style".to_owned(), "long".into())]
                .into()
        };
        assert!(held_out.slots(&draw(2019, 5)));
        assert!(!held_out.slots(&draw(2019, 6)));
    }
}
