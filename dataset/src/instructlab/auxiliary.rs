//! Tasks beside the questions: to write from a chunk what a flow made of it, a summary for instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Instructions by the kind of text that they ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuxiliaryInstructions(pub BTreeMap<String, Vec<String>>);

/// Instructions of a pipeline of instructlab-sdg, of which only these are read.
#[derive(Deserialize)]
struct Pipeline {
    datamixing: Datamixing,
}

#[derive(Deserialize)]
struct Datamixing {
    auxiliary_instructions: AuxiliaryInstructions,
}

impl Default for AuxiliaryInstructions {
    /// Instructions for the kinds of text that `InstructLab`'s pipelines and ours make.
    fn default() -> Self {
        let kinds: [(&[&str], &[&str]); 4] = [
            (
                &["spellcheck"],
                &["Write this text again without its spelling mistakes.", "Mend the spelling of the text above."],
            ),
            (
                &["summary", "summary_detailed"],
                &[
                    "Summarise the text in detail.",
                    "Write a summary of the text above that leaves out nothing important.",
                    "What does this text say? Give a full summary.",
                ],
            ),
            (
                &["extract", "summary_extractive"],
                &[
                    "Summarise the text by its own most important sentences.",
                    "Pick the sentences that carry the text above and write them down.",
                ],
            ),
            (
                &["facts", "summary_atomic_facts"],
                &[
                    "List the facts that the text states, each for itself.",
                    "Break the text above into single facts, one a line.",
                ],
            ),
        ];
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let by_kind =
            kinds.into_iter().flat_map(|(names, list)| names.iter().map(move |&name| (name.to_owned(), texts(list))));
        Self(by_kind.collect())
    }
}

impl AuxiliaryInstructions {
    /// Reads instructions: a pipeline with `datamixing.auxiliary_instructions`, or a mapping from kinds to lists.
    ///
    /// # Errors
    /// What is wrong with the file, with its line.
    pub fn read(text: &str) -> Result<Self, String> {
        let pipeline =
            serde_yaml::from_str::<Pipeline>(text).map(|pipeline| pipeline.datamixing.auxiliary_instructions);
        let read = pipeline.or_else(|_| serde_yaml::from_str::<Self>(text)).map_err(|error| {
            format!("{error}; instructions are a mapping from a kind of text to a list of phrasings")
        })?;
        match read.0.iter().find(|(_, list)| list.is_empty()) {
            Some((kind, _)) => Err(format!("`{kind}` has no instruction; write one or remove it")),
            None => Ok(read),
        }
    }
}
