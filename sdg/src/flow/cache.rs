//! Answers by what was asked: what a run that was interrupted gets at once when it runs again.

use std::collections::HashMap;
use std::path::Path;

use espalier_dataset::{DatasetError, Journal};
use espalier_inference::{Answer, Finish, Request, TokenLogprob};
use serde::{Deserialize, Serialize};

use crate::identity::{digest, hexadecimal};

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    key: String,
    text: String,
    prompt_tokens: usize,
    pub(crate) answer_tokens: usize,
    /// Whether it was cut off at its longest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<KeptToken>,
}

/// Token, log-probability and alternatives.
type KeptToken = (u32, f32, Vec<(u32, f32)>);

impl Kept {
    fn new(key: String, answer: Answer) -> Self {
        // A server says nothing of tokens; four bytes are about one.
        let answer_tokens = if answer.tokens.is_empty() { answer.text.len().div_ceil(4) } else { answer.tokens.len() };
        // JSON has no infinity.
        let finite = |logprob: f32| logprob.max(f32::MIN);
        let token = |token: TokenLogprob| {
            let top = token.top.into_iter().map(|(token, logprob)| (token, finite(logprob))).collect();
            (token.token, finite(token.logprob), top)
        };
        let logprobs = answer.logprobs.into_iter().map(token).collect();
        let cut = answer.finish == Finish::Length;
        Self { key, text: answer.text, prompt_tokens: answer.prompt_tokens, answer_tokens, cut, logprobs }
    }

    /// The answer as its engine gave it; of its tokens those whose log-probabilities were asked for.
    pub(crate) fn answer(&self) -> Answer {
        let logprobs = self.logprobs();
        Answer {
            text: self.text.clone(),
            tokens: logprobs.iter().map(|token| token.token).collect(),
            finish: if self.cut { Finish::Length } else { Finish::Stop },
            logprobs,
            end: None,
            prompt_logprobs: Vec::new(),
            prompt_tokens: self.prompt_tokens,
            prompt_tokens_cut: 0,
        }
    }

    fn logprobs(&self) -> Vec<TokenLogprob> {
        let token =
            |(token, logprob, top): &KeptToken| TokenLogprob { token: *token, logprob: *logprob, top: top.clone() };
        self.logprobs.iter().map(token).collect()
    }
}

/// Answers by the digest of engine and request: in memory, and in a journal where a file is given.
#[derive(Debug)]
pub struct ResponseCache {
    answers: Answers,
    /// The place of each answer.
    places: HashMap<String, usize>,
}

#[derive(Debug)]
enum Answers {
    Memory(Vec<Kept>),
    File(Journal<Kept>),
}

impl ResponseCache {
    /// One that forgets.
    pub fn in_memory() -> Self {
        Self { answers: Answers::Memory(Vec::new()), places: HashMap::new() }
    }

    /// Opens or creates a file of answers. A torn last line is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written, or when a finished line is not an answer of ours.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let journal: Journal<Kept> = Journal::open(path)?;
        let places = journal.rows().iter().enumerate().map(|(place, kept)| (kept.key.clone(), place)).collect();
        Ok(Self { answers: Answers::File(journal), places })
    }

    fn all(&self) -> &[Kept] {
        match &self.answers {
            Answers::Memory(answers) => answers,
            Answers::File(journal) => journal.rows(),
        }
    }

    /// How many answers it has.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Names a request to an engine: sha256 over the engine's identity and every field of the request.
    pub(crate) fn key(engine: &str, request: &Request) -> String {
        hexadecimal(&digest(&[engine.as_bytes(), format!("{request:?}").as_bytes()]))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Kept> {
        self.places.get(key).and_then(|&place| self.all().get(place))
    }

    /// Keeps an answer; when this returns, a kill of the process cannot lose it.
    pub(crate) fn put(&mut self, key: &str, answer: Answer) -> Result<(), DatasetError> {
        let kept = Kept::new(key.to_owned(), answer);
        self.places.insert(key.to_owned(), self.all().len());
        match &mut self.answers {
            Answers::Memory(answers) => answers.push(kept),
            Answers::File(journal) => journal.append(&kept)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use espalier_inference::{Prompt, Sampling};

    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            text: text.into(),
            tokens: vec![1, 2],
            finish: Finish::Stop,
            logprobs: vec![TokenLogprob { token: 1, logprob: -0.1, top: vec![(1, -0.1), (7, -3.3)] }],
            end: None,
            prompt_logprobs: Vec::new(),
            prompt_tokens: 5,
            prompt_tokens_cut: 0,
        }
    }

    #[test]
    fn survives_a_cut_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/answers.jsonl");
        let mut cache = ResponseCache::open(&path).unwrap();
        cache.put("a", answer("line\nbreak")).unwrap();
        let first = std::fs::metadata(&path).unwrap().len() as usize;
        cache.put("b", answer("two")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in first..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut again = ResponseCache::open(&path).unwrap();
            assert_eq!((again.len(), again.get("a")), (1, cache.get("a")), "cut at {length}");
            again.put("b", answer("two")).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let kept = cache.get("a").unwrap();
        let expected = Answer { tokens: vec![1], ..answer("line\nbreak") };
        assert_eq!((kept.answer(), kept.answer_tokens), (expected, 2));
        std::fs::write(&path, "{}\n").unwrap();
        assert!(ResponseCache::open(&path).unwrap_err().to_string().contains("answers.jsonl:1: "));
    }

    #[test]
    fn every_part_of_a_request_is_in_its_key() {
        let request = Request::new(Prompt::Text("a".into()), 5);
        let others = [
            Request { prompt: Prompt::Text("b".into()), ..request.clone() },
            Request { max_tokens: 6, ..request.clone() },
            Request { seed: 1, ..request.clone() },
            Request { sampling: Sampling::at_temperature(0.5), ..request.clone() },
            Request {
                constraint: Some(std::sync::Arc::new(espalier_inference::Constraint::JsonObject)),
                ..request.clone()
            },
        ];
        let mut keys: Vec<String> = others.iter().map(|other| ResponseCache::key("x", other)).collect();
        keys.extend([ResponseCache::key("x", &request), ResponseCache::key("y", &request)]);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 7);
    }
}
