//! The body of a completion: texts to be continued, or only to be scored.

use serde_json::{Map, Value};

use super::fields::{Asked, Defaults, FieldProblem, boolean, integer, read_all, strings, token_list, wrong};
use crate::request::Prompt;

/// Prompts of one body, at most.
const MAX_PROMPTS: usize = 2048;

/// What a body asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedTexts {
    /// What all prompts have in common; its own prompt stands for none of them.
    pub asked: Asked,
    /// The prompts, each with `n` answers.
    pub prompts: Vec<Prompt>,
    /// Whether the prompt is part of the answer, and its log-probabilities part of theirs.
    pub echo: bool,
}

/// Reads the body of a completion. `max_tokens` may be 0: with `echo` and `logprobs` the prompt alone is scored.
///
/// # Errors
/// The first field that cannot be followed.
pub fn read_completion(body: &Map<String, Value>, defaults: &Defaults) -> Result<AskedTexts, FieldProblem> {
    let (mut prompts, mut echo, mut best_of) = (None, false, None);
    let asked = read_all(body, defaults, &mut |asked, field, value| {
        match field {
            "prompt" => prompts = Some(read_prompts(value)?),
            "max_tokens" => asked.request.max_tokens = integer(value, 0..=usize::MAX)?,
            "echo" => echo = boolean(value)?,
            "logprobs" => {
                asked.request.top_logprobs = integer(value, 0..=20)?;
                asked.logprobs = true;
            }
            "best_of" => best_of = Some(integer(value, 1..=usize::MAX)?),
            "suffix" if value.as_str() == Some("") => {}
            "suffix" => return Err(": text between a prompt and a suffix is not written here; leave it out".to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let refused = |field: &str, problem: &str| FieldProblem { field: field.to_owned(), problem: problem.to_owned() };
    if best_of.is_some_and(|best_of| best_of != asked.n) {
        return Err(refused("best_of", ": answers are not chosen among here; ask for all of them with n"));
    }
    let prompts = prompts.ok_or_else(|| refused("prompt", ": is missing"))?;
    Ok(AskedTexts { asked, prompts, echo })
}

pub(super) fn read_prompts(value: &Value) -> Result<Vec<Prompt>, String> {
    const EXPECTED: &str = "a string, a list of strings, a list of token ids or a list of such lists";
    if let Some(text) = value.as_str() {
        return Ok(vec![Prompt::Text(text.to_owned())]);
    }
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| wrong(EXPECTED, value))?;
    if let Some(tokens) = token_list(value) {
        return Ok(vec![Prompt::Tokens(tokens)]);
    }
    if list.len() > MAX_PROMPTS {
        return Err(format!(
            ": has {} prompts, but at most {MAX_PROMPTS} are taken at once; send several requests",
            list.len()
        ));
    }
    if let Some(texts) = strings(value) {
        return Ok(texts.into_iter().map(Prompt::Text).collect());
    }
    let one = |(index, entry): (usize, &Value)| match token_list(entry) {
        Some(tokens) if !tokens.is_empty() => Ok(Prompt::Tokens(tokens)),
        Some(_) => Err(format!("[{index}]: is empty; give at least one token")),
        None => Err(wrong(EXPECTED, value)),
    };
    list.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overflow::Overflow;
    use serde_json::json;

    fn read_json(value: Value) -> Result<AskedTexts, String> {
        let defaults = Defaults { seed: 5, overflow: Overflow::Refuse, max_tokens: 16 };
        read_completion(value.as_object().expect("a map"), &defaults).map_err(|problem| problem.to_string())
    }

    #[test]
    fn prompts_come_in_four_forms() {
        let prompts = |value: Value| read_json(json!({"prompt": value})).expect("prompts").prompts;
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(prompts(json!("a")), [text("a")]);
        assert_eq!(prompts(json!(["a", ""])), [text("a"), text("")]);
        assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(prompts(json!([[1], [2, 3]])), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]);
    }

    #[test]
    fn what_a_harness_asks_for_is_understood() {
        let asked = read_json(json!({"model": "m", "prompt": [[1, 2, 3]], "max_tokens": 1, "temperature": 0,
            "logprobs": 1, "seed": 1234, "echo": true}))
        .expect("a request");
        assert!(asked.echo && asked.asked.logprobs);
        let request = &asked.asked.request;
        assert_eq!((request.max_tokens, request.top_logprobs, request.seed), (1, 1, 1234));
    }

    #[test]
    fn refusals_name_the_field() {
        let refused = |value| read_json(value).expect_err("a refusal");
        let words = [
            refused(json!({})),
            refused(json!({"prompt": []})),
            refused(json!({"prompt": 5})),
            refused(json!({"prompt": ["a", 5]})),
            refused(json!({"prompt": [[1], []]})),
            refused(json!({"prompt": [-1]})),
            refused(json!({"prompt": vec!["a"; 2049]})),
            refused(json!({"prompt": "a", "best_of": 3})),
            refused(json!({"prompt": "a", "suffix": "b"})),
            refused(json!({"prompt": "a", "logprobs": true})),
            refused(json!({"prompt": "a", "messages": []})),
        ];
        insta::assert_snapshot!(words.join("\n"));
    }
}
