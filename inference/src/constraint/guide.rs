//! Which tokens may come next: masks over the vocabulary, from the parsers of the crate `llguidance`.

use std::sync::Arc;

use espalier_model::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};

use super::Constraint;
use crate::error::EngineError;

/// Space between the signs of JSON: one blank, or a new line and its indentation. Were it unbounded, a small model could write
/// nothing else for ever.
const JSON_SPACE: &str = r"\x20|\x0A\x20{0,32}";

/// Makes guides for one tokenizer.
pub(crate) struct Guides {
    factory: ParserFactory,
}

impl Guides {
    /// Sorts the vocabulary into a prefix tree by the bytes that a token adds to the text of an answer.
    ///
    /// # Errors
    /// What the parser's library says.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, String> {
        let ids = 0..tokenizer.vocabulary() as u32;
        let words: Vec<Vec<u8>> = ids.clone().map(|id| word(tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, INVALID_TOKEN), &words);
        let ends: Vec<u32> = ids.filter(|&id| tokenizer.is_end_of_generation(id)).collect();
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) };
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| first_line(&error))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// Translates a constraint into a parser that stands at the beginning of an answer.
    ///
    /// # Errors
    /// Why no text, or no text of this vocabulary, can have the form; a key word of JSON schema that cannot be followed.
    pub(crate) fn compile(&self, constraint: &Constraint) -> Result<Guide, String> {
        constraint.validate()?;
        let grammar = match (constraint.expression(), constraint) {
            (Some(expression), _) => TopLevelGrammar::from_regex(&expression),
            (None, Constraint::JsonSchema(schema)) => TopLevelGrammar::from_json_schema(with_spacing(schema.clone())?),
            (None, _) => TopLevelGrammar::from_json_schema(with_spacing(json!({"type": "object"}))?),
        };
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        if let Some(problem) = matcher.get_error() {
            return Err(plain(&first_line(&problem)));
        }
        let first = matcher.compute_mask().map_err(|_| "no text can satisfy it".to_owned())?;
        Ok(Guide { matcher, first: Some(Arc::new(first)), kind: constraint.kind() })
    }
}

/// The bytes that a token adds to an answer; none for those that may not stand in it.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    // 0xff stands in no UTF-8 text; the prefix tree takes it for the mark of a special token.
    let absent = tokenizer.is_special(id) || tokenizer.is_end_of_generation(id) || bytes.contains(&0xff);
    if absent { Vec::new() } else { bytes.to_vec() }
}

fn with_spacing(mut schema: Value) -> Result<Value, String> {
    match &mut schema {
        Value::Bool(true) => schema = json!({}),
        Value::Object(_) => {}
        _ => return Err("no value satisfies it".to_owned()),
    }
    let options = JsonCompileOptions { whitespace_pattern: Some(JSON_SPACE.to_owned()), ..Default::default() };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// The library's words for what users write, in ours.
fn plain(problem: &str) -> String {
    if let Some(keys) = problem.strip_prefix("Unimplemented keys: ") {
        format!(
            "these key words cannot be held to while writing: {keys}; leave them out and check the answers for them"
        )
    } else if let Some(reason) = problem.strip_prefix("Unsatisfiable schema: ") {
        format!("no value satisfies it: {reason}")
    } else if problem.starts_with("oneOf") {
        "a value may fit two schemas of a \"oneOf\"; write \"anyOf\", or schemas that differ in a constant".to_owned()
    } else {
        problem.to_owned()
    }
}

fn first_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The constraint of one answer, as far as it has been written.
///
/// What it allows depends on the constraint and the answer alone: no guide shares state with another.
pub(crate) struct Guide {
    matcher: Matcher,
    /// The mask of the first token, which is the dearest, for all answers of a constraint.
    first: Option<Arc<SimpleVob>>,
    kind: &'static str,
}

impl Guide {
    /// A guide at the beginning of another answer.
    pub(crate) fn restart(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), first: self.first.clone(), kind: self.kind }
    }

    /// The tokens that may come next, end-of-generation tokens among them where the answer may end: bit `i % 32` of word
    /// `i / 32` is token `i`; ids beyond the last word may not.
    ///
    /// # Errors
    /// The constraint cannot be followed from here.
    pub(crate) fn mask(&mut self) -> Result<Arc<SimpleVob>, EngineError> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => self.matcher.compute_mask().map(Arc::new).map_err(|error| self.broken(&error)),
        }
    }

    /// Takes the chosen token; says whether the answer is complete and nothing can follow.
    ///
    /// # Errors
    /// The token was not allowed.
    pub(crate) fn consume(&mut self, token: u32) -> Result<bool, EngineError> {
        self.first = None;
        match self.matcher.consume_token(token) {
            Ok(()) => Ok(self.matcher.is_stopped()),
            Err(error) => Err(self.broken(&error)),
        }
    }
    /// The library's words, but those for an empty mask.
    fn broken(&self, error: &dyn std::fmt::Display) -> EngineError {
        let problem = match first_line(error) {
            line if line.contains("NoExtensionBias") => "no token of the vocabulary continues the answer".to_owned(),
            line => line,
        };
        EngineError::Constraint { kind: self.kind, problem }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::path::Path;

    use espalier_model::gguf::GgufFile;

    use super::*;

    /// The tokenizer of a vocabulary file: byte-level, or `SentencePiece` with bytes to fall back on.
    fn tokenizer(name: &str) -> Tokenizer {
        let path = format!("{}/../tests/assets/vocab/ggml-vocab-{name}.gguf", env!("CARGO_MANIFEST_DIR"));
        Tokenizer::from_gguf_metadata(GgufFile::open(Path::new(&path)).unwrap().metadata()).unwrap()
    }

    /// The next of some numbers without order.
    fn next(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize
    }

    /// Writes with any of the allowed tokens until the answer ends; `None` where it grows too long.
    fn wander(tokenizer: &Tokenizer, mut guide: Guide, state: &mut u64) -> Option<String> {
        let mut bytes = Vec::new();
        for _ in 0..400 {
            let allowed: Vec<u32> = guide.mask().unwrap().to_list();
            let token = allowed[next(state) % allowed.len()];
            if tokenizer.is_end_of_generation(token) {
                return Some(String::from_utf8(bytes).unwrap());
            }
            bytes.extend_from_slice(tokenizer.token_bytes(token));
            if guide.consume(token).unwrap() {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        None
    }

    #[test]
    fn any_way_through_the_masks_has_the_form() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 9},
            "b": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}}, "required": ["a", "b"],
            "additionalProperties": false});
        for name in ["qwen2", "llama-spm"] {
            let tokenizer = tokenizer(name);
            let guides = Guides::new(&tokenizer).unwrap();
            for constraint in [
                Constraint::JsonSchema(schema.clone()),
                Constraint::Regex(r"(\p{Han}|[é😀]){1,6}".to_owned()),
                Constraint::Choice(vec!["ab".to_owned(), "abc".to_owned(), " x".to_owned(), "日本".to_owned()]),
            ] {
                let guide = guides.compile(&constraint).unwrap();
                let mut state = 7;
                let texts: Vec<String> =
                    (0..12).filter_map(|_| wander(&tokenizer, guide.restart(), &mut state)).collect();
                assert!(texts.len() >= 6, "{name}: {constraint:?} ended {} times", texts.len());
                for text in texts {
                    assert_eq!(constraint.check(&text), Ok(()), "{name}: {text:?}");
                }
            }
        }
    }

    #[test]
    fn every_spelling_of_a_text_is_allowed() {
        for name in ["qwen2", "llama-spm"] {
            let tokenizer = tokenizer(name);
            let guides = Guides::new(&tokenizer).unwrap();
            let text = " the déjà 日本";
            let constraint = Constraint::Choice(vec![text.to_owned()]);
            let follow = |tokens: &[u32]| {
                let mut guide = guides.compile(&constraint).unwrap();
                for &token in tokens {
                    assert!(guide.mask().unwrap().is_allowed(token), "{name}: {:?}", tokenizer.token_text(token));
                    guide.consume(token).unwrap();
                }
            };
            let byte_token = |byte: u8| {
                let of_byte = |id: &u32| !tokenizer.is_special(*id) && tokenizer.token_bytes(*id) == [byte];
                (0..tokenizer.vocabulary() as u32).find(of_byte).unwrap()
            };
            follow(&text.bytes().map(byte_token).collect::<Vec<_>>());
            let whole: Vec<u32> = tokenizer.encode("x the déjà 日本", espalier_model::SpecialTokens::AsText);
            let start = whole.iter().position(|&token| tokenizer.token_bytes(token) == b" the").unwrap();
            follow(&whole[start..]);
        }
    }
}
