//! Answers by what was asked: what a run that was interrupted gets at once when it runs again.

use espalier_dataset::KeyedJournal;
use espalier_inference::{Answer, Finish, TokenLogprob};
use serde::{Deserialize, Serialize};

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
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

impl From<Answer> for Kept {
    fn from(answer: Answer) -> Self {
        let answer_tokens = answer.new_tokens();
        // JSON has no infinity.
        let finite = |logprob: f32| logprob.max(f32::MIN);
        let token = |token: TokenLogprob| {
            let top = token.top.into_iter().map(|(token, logprob)| (token, finite(logprob))).collect();
            (token.token, finite(token.logprob), top)
        };
        let logprobs = answer.logprobs.into_iter().map(token).collect();
        let cut = answer.finish == Finish::Length;
        Self { text: answer.text, prompt_tokens: answer.prompt_tokens, answer_tokens, cut, logprobs }
    }
}

impl Kept {
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
            echo: Vec::new(),
            prompt_tokens: self.prompt_tokens,
            prompt_tokens_cut: 0,
            server_usage: None,
        }
    }

    fn logprobs(&self) -> Vec<TokenLogprob> {
        let token =
            |(token, logprob, top): &KeptToken| TokenLogprob { token: *token, logprob: *logprob, top: top.clone() };
        self.logprobs.iter().map(token).collect()
    }
}

/// Answers by what was asked ([`espalier_inference::Request::digest`]): in memory, or in a file that a kill cannot tear.
pub type ResponseCache = KeyedJournal<Kept>;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            text: text.into(),
            tokens: vec![1, 2],
            finish: Finish::Stop,
            logprobs: vec![TokenLogprob { token: 1, logprob: -0.1, top: vec![(1, -0.1), (7, -3.3)] }],
            end: None,
            prompt_logprobs: Vec::new(),
            echo: Vec::new(),
            prompt_tokens: 5,
            prompt_tokens_cut: 0,
            server_usage: None,
        }
    }

    #[test]
    fn an_answer_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        ResponseCache::open(&path).unwrap().put("a", answer("line\nbreak").into()).unwrap();
        let cache = ResponseCache::open(&path).unwrap();
        let kept = cache.get("a").unwrap();
        let expected = Answer { tokens: vec![1], ..answer("line\nbreak") };
        assert_eq!((kept.answer(), kept.answer_tokens), (expected, 2));
    }
}
