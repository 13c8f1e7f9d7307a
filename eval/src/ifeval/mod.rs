//! `IFEval` (Zhou et al. 2023, arXiv 2311.07911): instructions that a program can check, with lm-eval's verdicts.
//!
//! A prompt carries one to three [`Instruction`]s, each an id (`length_constraints:number_words`) with its own arguments.
//! [`check`] decides one of them, [`verdicts`] all of a document, strictly and loosely. Four numbers are made of these:
//! the share of prompts of which every instruction is followed and the share of instructions that are followed, each strictly
//! and loosely ([`Scores`]).
//!
//! # Where lm-eval draws at random, and where it leans on other libraries
//! lm-eval draws a missing argument at random; here it is refused with its name. A letter that is none of a to z (two prompts of
//! the published set ask for `!` and `#`) is replaced there by a random one; here it is counted as written.
//! lm-eval takes the language from langdetect, which draws n-grams at random and answers differently from run to run, sentences
//! from the English Punkt model, words in capitals from the Treebank tokenizer. Here stand rules of our own (`language`,
//! `sentences`, `capitals`); the tests state how often they agree with lm-eval on stored responses.

mod capitals;
mod instruction;
mod language;
mod profiles;
mod rules;
mod sentences;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use instruction::{Instruction, Relation};

use crate::error::EvalError;

/// Whether `response` follows one instruction: strictly, as it stands. An empty response follows none.
///
/// # Errors
/// [`EvalError::Task`] for an unknown id and for arguments that are missing or of the wrong kind.
pub fn check(instruction_id: &str, arguments: &Map<String, Value>, response: &str) -> Result<bool, EvalError> {
    Ok(follows(&Instruction::new(instruction_id, arguments).map_err(refusal)?, response))
}

/// What a document's instructions come to, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// The response as it stands.
    pub strict: Vec<bool>,
    /// Any of eight forms of it: with and without the first line, the last line and all asterisks.
    pub loose: Vec<bool>,
}

impl Verdicts {
    /// Whether every instruction is followed strictly: `prompt_level_strict_acc` of one document.
    pub fn all_strict(&self) -> bool {
        self.strict.iter().all(|&followed| followed)
    }

    /// Whether every instruction is followed loosely: `prompt_level_loose_acc` of one document.
    pub fn all_loose(&self) -> bool {
        self.loose.iter().all(|&followed| followed)
    }
}

/// The verdicts on a response to a document of the published form: `instruction_id_list`, and `kwargs` with one object for each.
///
/// # Errors
/// [`EvalError::Task`] where the document has another form.
pub fn verdicts(doc: &Value, response: &str) -> Result<Verdicts, EvalError> {
    #[derive(Deserialize)]
    struct Document {
        instruction_id_list: Vec<String>,
        kwargs: Vec<Option<Map<String, Value>>>,
    }
    let document = Document::deserialize(doc).map_err(|error| {
        refusal(format!("{error}; an item needs `instruction_id_list` (texts) and `kwargs` (one object for each)"))
    })?;
    let (ids, arguments) = (document.instruction_id_list, document.kwargs);
    if ids.len() != arguments.len() {
        return Err(refusal(format!("{} instructions, but {} entries in `kwargs`", ids.len(), arguments.len())));
    }
    let relaxed = relaxed(response);
    let mut verdicts = Verdicts::default();
    for (id, arguments) in ids.iter().zip(arguments) {
        let instruction = Instruction::new(id, &arguments.unwrap_or_default()).map_err(refusal)?;
        let strict = follows(&instruction, response);
        verdicts.strict.push(strict);
        verdicts.loose.push(strict || relaxed.iter().any(|form| follows(&instruction, form)));
    }
    Ok(verdicts)
}

fn follows(instruction: &Instruction, response: &str) -> bool {
    !response.trim().is_empty() && instruction.is_followed(response)
}

/// The seven other forms in which a response may follow an instruction.
fn relaxed(response: &str) -> Vec<String> {
    let lines: Vec<&str> = response.split('\n').collect();
    let part = |from: usize, to: usize| lines.get(from..to).unwrap_or_default().join("\n").trim().to_owned();
    let (first, last) = (1, lines.len() - 1);
    let mut forms = vec![part(first, lines.len()), part(0, last), part(first, last)];
    for index in 0..forms.len() {
        forms.push(forms[index].replace('*', ""));
    }
    forms.push(response.replace('*', ""));
    forms
}

/// The four numbers of `IFEval`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of prompts of which every instruction is followed.
    pub prompt_level_strict_acc: f64,
    /// Share of instructions that are followed.
    pub inst_level_strict_acc: f64,
    /// Share of prompts of which every instruction is followed in one of the forms.
    pub prompt_level_loose_acc: f64,
    /// Share of instructions that are followed in one of the forms.
    pub inst_level_loose_acc: f64,
}

impl Scores {
    /// The scores of a list of documents; `None` for an empty one.
    pub fn new(documents: &[Verdicts]) -> Option<Self> {
        let share = |followed: usize, all: usize| (all > 0).then(|| followed as f64 / all as f64);
        let instructions = documents.iter().map(|document| document.strict.len()).sum();
        let followed = |of: fn(&Verdicts) -> &[bool]| {
            documents.iter().map(|document| of(document).iter().filter(|&&followed| followed).count()).sum()
        };
        let prompts = |all: fn(&Verdicts) -> bool| documents.iter().filter(|document| all(document)).count();
        Some(Self {
            prompt_level_strict_acc: share(prompts(Verdicts::all_strict), documents.len())?,
            inst_level_strict_acc: share(followed(|document| &document.strict), instructions)?,
            prompt_level_loose_acc: share(prompts(Verdicts::all_loose), documents.len())?,
            inst_level_loose_acc: share(followed(|document| &document.loose), instructions)?,
        })
    }
}

fn refusal(problem: String) -> EvalError {
    EvalError::Task { task: "ifeval".to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_judged_strictly_and_loosely() {
        let doc = json!({
            "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
            "kwargs": [{}, null],
        });
        let found = verdicts(&doc, "Sure, here it is:\n\"Words without any\"").unwrap();
        assert_eq!(found, Verdicts { strict: vec![false, false], loose: vec![true, true] });
        let other = verdicts(&doc, "\"a\" b").unwrap();
        assert_eq!(other, Verdicts { strict: vec![true, false], loose: vec![true, false] });
        let scores = Scores::new(&[found, other]).unwrap();
        let found = [scores.prompt_level_strict_acc, scores.inst_level_strict_acc, scores.prompt_level_loose_acc];
        assert_eq!(found.map(|share| (4.0 * share) as usize), [0, 1, 2]);
        assert_eq!((4.0 * scores.inst_level_loose_acc) as usize, 3);
        assert_eq!(Scores::new(&[]), None);
        assert_eq!(verdicts(&doc, " \n").unwrap(), Verdicts { strict: vec![false; 2], loose: vec![false; 2] });
    }

    #[test]
    fn documents_of_another_form_are_refused() {
        let message = |doc: Value| verdicts(&doc, "x").unwrap_err().to_string();
        assert!(message(json!({"prompt": "p"})).contains("instruction_id_list"));
        let error = message(json!({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}));
        assert!(error.contains("1 instructions, but 0"), "{error}");
        let error = message(json!({"instruction_id_list": ["a:b"], "kwargs": [{}]}));
        assert!(error.contains("\"a:b\""), "{error}");
    }
}
