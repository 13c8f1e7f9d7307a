//! Marks of chat templates and prompts that a teacher wrote out.

use std::sync::LazyLock;

use regex::Regex;

use super::prose::prose as without_code;
use super::{excerpt, pattern};
use crate::quality::sample::Sample;
use crate::quality::words::units;

/// Special tokens of the known chat templates: right in no turn.
static TOKENS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x) <\|[a-zA-Z_]{2,40}\|> | \[/?INST\] | <</?SYS>> | </s> | <s>\s*\[ | <(?:start|end)_of_turn> | <(?:bos|eos|pad|unk)>
        | </?think>\s*</?think> | \[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\] ",
    )
});

/// What belongs to a prompt and not to an answer: labels at the start of a line, places to be filled in, the speaker's kind.
static IN_ANSWER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?xmi)
        ^[\x20\t\#*]*(?:question|instruction|response|human|assistant|user|system|q|input|output|ai)(?:\x20\d+)?[\x20\t*]*:
        | ^\#\#\#?\x20*(?:instruction|response|input|end)\b
        | ^\[/?(?:question|answer|end|start|context|document|response)\]
        | \{\{-?\x20?[a-z_.]+\x20?-?\}\} | \{%-?\x20 | \[insert\x20[^\]\n]{1,60}\] | \[your\x20[a-z\x20]{1,40}\x20here\]
        | \bas\x20(?:an?\x20)?(?:ai|artificial\x20intelligence)(?:\x20(?:language\x20)?(?:model|assistant))?[,.]
        | \bas\x20an?\x20(?:large\x20)?language\x20model\b | \bi(?:'m|\x20am)\x20(?:just\x20)?an\x20ai\b | \bmy\x20training\x20data\b
        | \bmy\x20knowledge\x20cutoff\b | \b(?:openai|anthropic)'s\x20(?:policy|policies|guidelines)\b ",
    )
});

/// Words of the instructions in a row that an answer must not repeat.
const COPIED: usize = 12;

/// Which mark stands in the row. A mark in the answer that the question has too is what is talked about, and code is free.
pub(super) fn leak(sample: &Sample<'_>, instructions: Option<&str>) -> Option<String> {
    let question = sample.question();
    let answer = sample.answer();
    let prose = without_code(&answer);
    if let Some(found) = TOKENS.find_iter(&prose).find(|found| !question.contains(found.as_str())) {
        return Some(format!("`{}` in the answer", found.as_str()));
    }
    // In a question such a token is nothing that a person would write, unless between backticks or asking what it is.
    let asked = without_code(&question);
    if let Some(found) = TOKENS.find(&asked).filter(|found| !answer.contains(found.as_str())) {
        return Some(format!("`{}` in the question", found.as_str()));
    }
    let asked = question.to_lowercase();
    if let Some(found) =
        IN_ANSWER.find_iter(&prose).find(|found| !asked.contains(found.as_str().trim().to_lowercase().as_str()))
    {
        return Some(format!("`{}` in the answer", excerpt(found.as_str())));
    }
    let system = sample.turns.iter().filter(|(role, _)| *role == "system").map(|(_, text)| *text);
    system.chain(instructions).find_map(|prompt| copied(prompt, &question, &answer))
}

/// A run of words of a prompt that the answer repeats and the question does not hold.
fn copied(prompt: &str, question: &str, answer: &str) -> Option<String> {
    let runs = |text: &str| -> std::collections::HashSet<Vec<String>> {
        units(text).windows(COPIED).map(<[String]>::to_vec).collect()
    };
    let (mine, asked) = (runs(prompt), runs(question));
    let said = units(answer);
    let run = said.windows(COPIED).find(|run| mine.contains(*run) && !asked.contains(*run))?;
    Some(format!("the answer repeats the prompt: `{}`", excerpt(&run.join(" "))))
}
