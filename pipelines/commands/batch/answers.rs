//! The file of answers: what it holds already, and the line of one response.

use crate::content;
use crate::outcome::Failure;
use anyhow::{Context, Result};
use espalier_inference::openai::{Form, error_code};
use espalier_inference::{Answer, EngineError};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;

/// The `custom_id`s that the file answers. Requests that failed are not among them: their lines, and one that was not written
/// to its end, are taken out of the file.
///
/// `expected` has the id of the response to each `custom_id`: one that differs comes from another request or model.
pub fn kept(output: &Path, expected: &HashMap<&str, String>) -> Result<HashSet<String>> {
    let bytes = match std::fs::read(output) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
        bytes => bytes.with_context(|| format!("cannot read {}", output.display()))?,
    };
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut good = Vec::with_capacity(whole);
    let mut ids = HashSet::new();
    for (index, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let refused = |problem: String| {
            Failure::usage(format!("{}:{}: {problem}", output.display(), index + 1))
                .hint("choose another --output, or move this file away to ask everything again")
        };
        let line_of = serde_json::from_slice::<Value>(line).ok();
        let custom_id = line_of.as_ref().and_then(|line| line.get("custom_id")).and_then(Value::as_str);
        let (Some(answered), Some(custom_id)) = (&line_of, custom_id) else {
            return Err(refused("this is not an answer of `pipeline batch`".to_owned()).into());
        };
        if answered.get("response").is_none_or(Value::is_null) {
            continue;
        }
        match expected.get(custom_id) {
            None => return Err(refused(format!("answers {custom_id:?}, which the input does not ask")).into()),
            Some(id) if answered.get("id").and_then(Value::as_str) != Some(id) => {
                let problem = format!("answers another request {custom_id:?}, or comes from another model");
                return Err(refused(problem).into());
            }
            Some(_) => {}
        }
        if ids.insert(custom_id.to_owned()) {
            good.extend_from_slice(line);
        }
    }
    if good.len() < bytes.len() {
        content::write_atomically(output, &good)?;
    }
    Ok(ids)
}

/// The line of a request that was answered.
pub fn response(form: Form<'_>, id: &str, custom_id: &str, answers: &[Answer], logprobs: bool) -> Value {
    let body = form.chat_completion(id, answers, logprobs);
    json!({"id": id, "custom_id": custom_id, "response": {"status_code": 200, "request_id": id, "body": body},
        "error": null})
}

/// The line of a request that failed.
pub fn failure(id: &str, custom_id: &str, error: &EngineError) -> Value {
    let code = error_code(error);
    json!({"id": id, "custom_id": custom_id, "response": null, "error": {"code": code, "message": error.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(custom_id: &str, id: &str, failed: bool) -> String {
        let response = if failed { Value::Null } else { json!({"status_code": 200}) };
        format!("{}\n", json!({"id": id, "custom_id": custom_id, "response": response}))
    }

    #[test]
    fn answers_stay_and_failures_are_asked_again() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("answers.jsonl");
        let expected = HashMap::from([("a", "1".to_owned()), ("b", "2".to_owned()), ("c", "3".to_owned())]);
        assert_eq!(kept(&output, &expected)?.len(), 0);
        let torn = &line("c", "3", false)[..9];
        std::fs::write(&output, [&line("a", "1", false), &line("b", "2", true), torn].concat())?;
        assert_eq!(kept(&output, &expected)?, HashSet::from(["a".to_owned()]));
        assert_eq!(std::fs::read_to_string(&output)?, line("a", "1", false));
        Ok(())
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("answers.jsonl");
        let expected = HashMap::from([("a", "1".to_owned())]);
        for (text, problem) in [
            ("a,b\n".to_owned(), ":1: this is not an answer"),
            (
                [line("a", "1", false), line("x", "9", false)].concat(),
                ":2: answers \"x\", which the input does not ask",
            ),
            (line("a", "7", false), ":1: answers another request \"a\", or comes from another model"),
        ] {
            std::fs::write(&output, &text)?;
            let error = kept(&output, &expected).expect_err("a refusal").to_string();
            assert!(error.contains(problem), "{error}");
            assert_eq!(std::fs::read_to_string(&output)?, text);
        }
        Ok(())
    }
}
