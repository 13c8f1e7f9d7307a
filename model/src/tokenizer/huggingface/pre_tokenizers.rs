//! The `pre_tokenizer` of `tokenizer.json` for each family of `tokenizer.ggml.pre`, and the family of a `pre_tokenizer`.

use serde_json::{Value, json};

use super::kind;
use crate::ModelError;
use crate::tokenizer::split::PreTokenizer;
use crate::tokenizer::unsupported_pre_tokenizer;

/// How `tokenizer.json` writes the pattern of Qwen 2.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// That of Llama 3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// That of GPT-2, which is also what `ByteLevel` does by itself.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// What llama.cpp does by default, one pattern after another.
const PUNCTUATION: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

/// The `pre_tokenizer` that cuts as `pre` does; `None` for a name that no family has.
pub(super) fn json(pre: &str) -> Option<Value> {
    let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Some(match PreTokenizer::from_name(pre)? {
        PreTokenizer::Gpt2 => gpt2,
        PreTokenizer::DigitsThenGpt2 => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, gpt2]})
        }
        PreTokenizer::Words { digits: 1 } => splits(&[QWEN2]),
        PreTokenizer::Words { .. } => splits(&[LLAMA3]),
        PreTokenizer::Punctuation => splits(&PUNCTUATION),
    })
}

/// Patterns one after another, then bytes.
fn splits(patterns: &[&str]) -> Value {
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut steps: Vec<Value> = patterns.iter().map(split).collect();
    steps.push(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}));
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// The `tokenizer.ggml.pre` that cuts as this `pre_tokenizer` does.
pub(super) fn recognise(pre_tokenizer: &Value) -> Result<&'static str, ModelError> {
    let steps = match pre_tokenizer.get("pretokenizers").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(pre_tokenizer),
    };
    let found = match steps {
        [last] if is_byte_level(last, true) => Some("gpt-2"),
        [digits, last]
            if kind(digits) == "Digits" && flag(digits, "individual_digits", false) && is_byte_level(last, true) =>
        {
            Some("smollm")
        }
        [splits @ .., last] if splits.iter().all(is_isolated_split) && is_byte_level(last, false) => {
            let patterns: Option<Vec<&str>> = splits.iter().map(pattern).collect();
            match patterns.as_deref() {
                Some([QWEN2]) => Some("qwen2"),
                Some([LLAMA3]) => Some("llama-bpe"),
                Some([GPT2]) => Some("gpt-2"),
                Some(patterns) if patterns == PUNCTUATION => Some("default"),
                _ => None,
            }
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = steps.iter().map(|step| pattern(step).unwrap_or_else(|| kind(step))).collect();
        unsupported_pre_tokenizer(&names.join(" then "))
    })
}

fn flag(step: &Value, name: &str, default: bool) -> bool {
    step.get(name).and_then(Value::as_bool).unwrap_or(default)
}

fn pattern(step: &Value) -> Option<&str> {
    step.get("pattern")?.get("Regex")?.as_str()
}

fn is_byte_level(step: &Value, with_pattern: bool) -> bool {
    kind(step) == "ByteLevel" && !flag(step, "add_prefix_space", true) && flag(step, "use_regex", true) == with_pattern
}

fn is_isolated_split(step: &Value) -> bool {
    kind(step) == "Split"
        && step.get("behavior").and_then(Value::as_str) == Some("Isolated")
        && !flag(step, "invert", false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_recognised() {
        for name in ["gpt-2", "smollm", "qwen2", "llama-bpe", "default"] {
            assert_eq!(recognise(&json(name).unwrap()).unwrap(), name);
        }
        assert_eq!(json("tekken"), None);
    }

    #[test]
    fn known_patterns_are_recognised_and_others_named() {
        assert_eq!(recognise(&splits(&[GPT2])).unwrap(), "gpt-2");
        assert!(recognise(&splits(&["[a-z]+"])).unwrap_err().to_string().contains("[a-z]+"));
        let mut inverted = splits(&[QWEN2]);
        inverted["pretokenizers"][0]["invert"] = true.into();
        assert!(recognise(&inverted).is_err());
        assert!(recognise(&Value::Null).is_err());
    }
}
