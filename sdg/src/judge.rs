//! Whether what a teacher wrote may become a row.

use std::collections::BTreeMap;

use espalier_dataset::{Turn, normalized};
use espalier_taxonomy::{Leaf, Tree};

use crate::conversation::{said_by, turns};
use crate::error::SdgError;
use crate::expressions;
use crate::held_out::HeldOut;
use crate::plan::{Flow, Job};
use crate::reward::CheckOutcome;
use crate::verify::Verifier;

/// Everything that the rows of one leaf are checked against.
pub(crate) struct Judge<'a> {
    leaf: &'a Leaf,
    verifier: Verifier,
    held_out: HeldOut,
}

impl<'a> Judge<'a> {
    /// The judge of a leaf in its tree: the tests of all leaves are held out.
    pub(crate) fn new(tree: &Tree, leaf: &'a Leaf) -> Result<Self, SdgError> {
        Ok(Self { leaf, verifier: Verifier::new(leaf)?, held_out: HeldOut::of_leaf(tree, &leaf.id) })
    }

    /// Judges a question and its answer.
    pub(crate) fn check(&self, job: &Job, question: &str, answer: &str) -> Result<CheckOutcome, SdgError> {
        let turns = match turns(self.leaf, question, answer) {
            Ok(turns) => turns,
            Err(why) => return Ok(CheckOutcome::failed("no conversation", why)),
        };
        let context = job.context.as_deref();
        if self.held_out.conversation(context, &turns) {
            return Ok(CheckOutcome::failed("held-out question", ""));
        }
        let last = said_by(&turns, "user").next_back().unwrap_or_default();
        match job.flow {
            Flow::Template => self.verifier.check(self.leaf, &job.slots, last, answer),
            Flow::Seed | Flow::Passage => Ok(CheckOutcome::passed("given")),
            Flow::Invented | Flow::Grounded => match self.readable(question, &turns) {
                Some(refused) => Ok(refused),
                None => self.verifier.check(self.leaf, &BTreeMap::new(), last, answer),
            },
            Flow::Document => Ok(match self.readable(question, &turns) {
                Some(refused) => refused,
                None if !last.trim_end().ends_with('?') => CheckOutcome::failed("not a question", last),
                None => supported(&turns, context.unwrap_or_default()),
            }),
        }
    }

    /// What every written conversation must be: there, not endless, not a seed again, not a refusal.
    fn readable(&self, question: &str, turns: &[Turn]) -> Option<CheckOutcome> {
        const REFUSALS: [&str; 4] = ["as an ai", "i'm sorry", "i am sorry", "i cannot"];
        if question.trim().len() < 8 || said_by(turns, "assistant").any(|answer| answer.trim().is_empty()) {
            return Some(CheckOutcome::failed("no question and answer", ""));
        }
        if said_by(turns, "user").any(|question| question.len() > 600) {
            return Some(CheckOutcome::failed("question too long", ""));
        }
        let refuses = |answer: &str| {
            let lower = answer.to_lowercase();
            REFUSALS.iter().any(|refusal| lower.contains(refusal))
        };
        if said_by(turns, "assistant").any(refuses) {
            return Some(CheckOutcome::failed("refusal", ""));
        }
        let asked = normalized(question);
        let copied = self.leaf.seeds.iter().any(|seed| normalized(&seed.script()) == asked);
        copied.then(|| CheckOutcome::failed("copy of a seed", ""))
    }
}

/// The first `Question:` and `Answer:` of a text; empty where there is none.
pub(crate) fn read_pair(text: &str) -> (String, String) {
    let Some((_, rest)) = text.split_once("Question:") else { return (String::new(), String::new()) };
    let Some((question, answer)) = rest.split_once("Answer:") else { return (String::new(), String::new()) };
    let answer = answer.split("Question:").next().unwrap_or(answer);
    let answer = answer.split("\n\n").find(|part| !part.trim().is_empty()).unwrap_or_default();
    (question.trim().to_owned(), answer.trim().to_owned())
}

/// The share of an answer's content words that its text must hold.
const SUPPORT: f64 = 0.8;

/// Every answer of a conversation must rest on its text.
fn supported(turns: &[Turn], context: &str) -> CheckOutcome {
    let share = said_by(turns, "assistant").map(|answer| expressions::support(answer, context)).fold(1.0, f64::min);
    if share < SUPPORT {
        return CheckOutcome::failed("not supported by the text", &format!("{:.0} % of its words", 100.0 * share));
    }
    CheckOutcome::passed("supported by the text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_from_what_a_model_writes() {
        let text = "Question: How deep is it?\nAnswer: It is 40 centimetres deep.\n\nQuestion: x";
        assert_eq!(read_pair(text), ("How deep is it?".into(), "It is 40 centimetres deep.".into()));
        assert_eq!(read_pair("no form at all"), (String::new(), String::new()));
    }

    #[test]
    fn an_answer_must_rest_on_its_text() {
        let text = "The wires are 40 centimetres apart.";
        let said = |answers: &[&str]| {
            let turns: Vec<Turn> = answers.iter().map(|answer| Turn::new("assistant", *answer)).collect();
            supported(&turns, text).passed
        };
        let (right, wrong) = ("It is 40 centimetres apart.", "They are 50 metres apart.");
        assert!(said(&[right]) && said(&[right, right]));
        assert!(!said(&[wrong]) && !said(&[wrong, right]) && !said(&[""]));
    }
}
