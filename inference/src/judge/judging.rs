//! The requests of a judge, and what their answers say.

use std::sync::Arc;

use espalier_model::Message;

use super::config::{JudgeConfig, Reading, Swap};
use super::form::Form;
use crate::constraint::Constraint;
use crate::request::{Answer, Prompt, Request, Sampling};

/// Alternatives asked for with the rating's token: as many as common servers tell.
const ALTERNATIVES: usize = 20;

/// As much of an answer as a rating is read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// The text.
    pub text: String,
    /// The first token and its alternatives with their log-probabilities; empty where the engine tells none.
    pub first: Vec<(u32, f32)>,
}

impl From<Answer> for Said {
    fn from(answer: Answer) -> Self {
        let first = answer.logprobs.into_iter().next().map_or_else(Vec::new, |token| {
            let others = token.top.into_iter().filter(|(id, _)| *id != token.token);
            std::iter::once((token.token, token.logprob)).chain(others).collect()
        });
        Self { text: answer.text, first }
    }
}

/// What an engine said, or why it said nothing.
pub type Heard = Result<Said, String>;

/// What a judge says about one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Mean rating, from 0 (the worst) to 1; `None` where no answer had a rating.
    pub score: Option<f64>,
    /// Standard deviation of the ratings over the judge's own doubt, the votes and the orders, on the same scale.
    pub spread: f64,
    /// The score of each answer that had a rating, order by order and vote by vote.
    pub votes: Vec<f64>,
    /// Distance between the scores of the two orders, where both were shown and read.
    pub disagreement: Option<f64>,
    /// Reading `expected`: the least share of its probability that the judge gave to ratings at all. Near 0, it would have
    /// said something else.
    pub coverage: Option<f64>,
    /// What was written, with a blank line between answers.
    pub text: String,
    /// Answers without a rating, errors of the engine included.
    pub parse_failures: usize,
    /// Whether the score reaches the threshold; false without a score.
    pub passed: bool,
}

/// A judge that knows how its engine answers.
#[derive(Clone, Debug)]
pub struct Judge {
    config: JudgeConfig,
    reading: Reading,
    form: Form,
    /// Reading `expected`: the token that begins each label.
    tokens: Vec<u32>,
    threshold: f64,
    notes: Vec<String>,
}

impl Judge {
    /// Small requests whose answers say how the engine can be read: one for each rating's first token, and one for JSON.
    ///
    /// # Errors
    /// As [`JudgeConfig::validate`].
    pub fn probes(config: &JudgeConfig) -> Result<Vec<Request>, String> {
        config.validate()?;
        let mut requests = Vec::new();
        let question = [Message::new("user", "Is water wet?")];
        if config.reading == Reading::Expected {
            let form = Form::new(config, Reading::Expected)?;
            let prompt = form.instructed(&question, Reading::Expected);
            for label in &form.labels {
                let constraint = Constraint::Choice(vec![label.clone()]);
                requests.push(Request {
                    constraint: Some(Arc::new(constraint)),
                    top_logprobs: ALTERNATIVES,
                    ..Request::new(Prompt::Chat(prompt.clone()), 8)
                });
            }
        }
        if config.reading != Reading::Text {
            let form = Form::new(config, Reading::Json)?;
            requests.push(Request {
                constraint: form.constraint(Reading::Json),
                ..Request::new(Prompt::Chat(form.instructed(&question, Reading::Json)), config.max_tokens)
            });
        }
        Ok(requests)
    }

    /// The judge of an engine that gave these answers to [`Self::probes`]. It reads as the configuration says where the engine
    /// can be read so, and by the next plainer way where not.
    ///
    /// # Errors
    /// As [`JudgeConfig::validate`].
    pub fn new(config: &JudgeConfig, probed: &[Heard]) -> Result<Self, String> {
        config.validate()?;
        let mut notes = Vec::new();
        let mut reading = config.reading;
        let mut tokens = Vec::new();
        if reading == Reading::Expected {
            match first_tokens(&probed[..config.scale.len().min(probed.len())], config.scale.len()) {
                Ok(found) => tokens = found,
                Err(reason) => {
                    notes.push(format!("ratings are read from JSON, not from log-probabilities: {reason}"));
                    reading = Reading::Json;
                }
            }
        }
        if reading == Reading::Json {
            match probed.last() {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    notes.push(format!("ratings are read from free text, not from JSON: {error}"));
                    reading = Reading::Text;
                }
                None => return Err("the judge was not probed; ask the engine its probes first".to_owned()),
            }
        }
        let threshold = config.keep.unwrap_or(0.5);
        Ok(Self { config: config.clone(), reading, form: Form::new(config, reading)?, tokens, threshold, notes })
    }

    /// The same judge with the threshold of a calibration, unless the configuration names one.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = self.config.keep.unwrap_or(threshold);
        self
    }

    /// How the rating is read.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Lowest score that passes.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// What differs from the configuration, and why.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How many renderings of a row [`Self::requests`] wants.
    pub fn orders(&self) -> usize {
        if self.config.swap == Swap::None { 1 } else { 2 }
    }

    fn votes(&self) -> usize {
        if self.reading == Reading::Expected { 1 } else { self.config.votes }
    }

    /// The requests of one row: for each rendering its votes. The last turn of a rendering is the question to the judge.
    pub fn requests(&self, renderings: &[Vec<Message>], seed: u64) -> Vec<Request> {
        let mut requests = Vec::with_capacity(renderings.len() * self.votes());
        for rendering in renderings {
            let request = Request {
                constraint: self.form.constraint(self.reading),
                top_logprobs: if self.reading == Reading::Expected { ALTERNATIVES } else { 0 },
                seed,
                ..Request::new(Prompt::Chat(self.form.instructed(rendering, self.reading)), self.longest())
            };
            requests.extend(request.alternatives(self.votes()).enumerate().map(|(vote, request)| {
                let temperature = if vote == 0 { 0.0 } else { self.config.temperature };
                Request { sampling: Sampling::at_temperature(temperature), ..request }
            }));
        }
        requests
    }

    /// The first token says it all when the distribution is read.
    fn longest(&self) -> usize {
        if self.reading == Reading::Expected { 1 } else { self.config.max_tokens }
    }

    /// What the answers to [`Self::requests`] say, in their order.
    pub fn read(&self, answers: &[Heard]) -> Judgement {
        let read: Vec<Option<Distribution>> =
            answers.iter().map(|answer| answer.as_ref().ok().and_then(|answer| self.distribution(answer))).collect();
        let mut orders: Vec<Vec<Distribution>> = Vec::new();
        for (order, votes) in read.chunks(self.votes()).enumerate() {
            let turned = self.config.swap == Swap::Mirrored && order == 1;
            let votes = votes.iter().flatten().map(|found| if turned { found.mirrored() } else { found.clone() });
            orders.push(votes.collect());
        }
        let all: Vec<&Distribution> = orders.iter().flatten().collect();
        let text: Vec<&str> =
            answers.iter().filter_map(|answer| answer.as_ref().ok()).map(|answer| answer.text.trim()).collect();
        let score = mean(all.iter().map(|found| found.mean()));
        let second = mean(all.iter().map(|found| found.second_moment()));
        let spread = match (score, second) {
            (Some(score), Some(second)) => (second - score * score).max(0.0).sqrt(),
            _ => 0.0,
        };
        let by_order: Vec<f64> = orders.iter().filter_map(|votes| mean(votes.iter().map(Distribution::mean))).collect();
        Judgement {
            score,
            spread,
            votes: all.iter().map(|found| found.mean()).collect(),
            disagreement: (by_order.len() == 2).then(|| (by_order[0] - by_order[1]).abs()),
            coverage: all.iter().filter_map(|found| found.coverage).reduce(f64::min),
            text: text.join("\n\n"),
            parse_failures: read.iter().filter(|found| found.is_none()).count(),
            passed: score.is_some_and(|score| score >= self.threshold),
        }
    }

    fn distribution(&self, said: &Said) -> Option<Distribution> {
        let count = self.form.labels.len();
        if self.reading == Reading::Expected {
            let probability = |token: u32| {
                let known = said.first.iter().find(|(id, _)| *id == token);
                known.map_or(0.0, |(_, logprob)| f64::from(*logprob).exp())
            };
            let found: Vec<f64> = self.tokens.iter().map(|token| probability(*token)).collect();
            let coverage: f64 = found.iter().sum();
            if coverage > 0.0 {
                let probabilities = found.iter().map(|probability| probability / coverage).collect();
                return Some(Distribution { probabilities, coverage: Some(coverage.min(1.0)) });
            }
        }
        let rating = self.form.rating(&said.text, self.reading)?;
        let probabilities = (0..count).map(|index| f64::from(u8::from(index == rating))).collect();
        Some(Distribution { probabilities, coverage: None })
    }
}

/// The token that each label begins with.
fn first_tokens(probed: &[Heard], labels: usize) -> Result<Vec<u32>, String> {
    let mut tokens: Vec<u32> = Vec::with_capacity(labels);
    for answer in probed {
        let said = answer.as_ref().map_err(Clone::clone)?;
        let (token, _) = said.first.first().ok_or("the engine tells no log-probabilities")?;
        if tokens.contains(token) {
            return Err("two ratings begin with the same token".to_owned());
        }
        tokens.push(*token);
    }
    if tokens.len() == labels { Ok(tokens) } else { Err("the engine was not asked for the ratings' tokens".to_owned()) }
}

/// Probabilities of the ratings, worst first.
#[derive(Clone, Debug)]
struct Distribution {
    probabilities: Vec<f64>,
    coverage: Option<f64>,
}

impl Distribution {
    fn moment(&self, power: i32) -> f64 {
        let best = (self.probabilities.len() - 1).max(1) as f64;
        let terms = self.probabilities.iter().enumerate();
        terms.map(|(rating, probability)| probability * (rating as f64 / best).powi(power)).sum()
    }

    fn mean(&self) -> f64 {
        self.moment(1)
    }

    fn second_moment(&self) -> f64 {
        self.moment(2)
    }

    fn mirrored(&self) -> Self {
        Self { probabilities: self.probabilities.iter().rev().copied().collect(), coverage: self.coverage }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_usize, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Finish, TokenLogprob};

    fn answer(text: &str, logprobs: Vec<TokenLogprob>) -> Heard {
        Ok(Said::from(Answer { text: text.into(), logprobs, finish: Finish::Stop, ..Answer::empty(0, 0) }))
    }

    fn token(token: u32, probabilities: &[(u32, f32)]) -> Vec<TokenLogprob> {
        let top: Vec<(u32, f32)> = probabilities.iter().map(|(id, probability)| (*id, probability.ln())).collect();
        let logprob = top.iter().find(|(id, _)| *id == token).map_or(-9.0, |(_, logprob)| *logprob);
        vec![TokenLogprob { token, logprob, top }]
    }

    fn config(scale: &[&str], reading: Reading) -> JudgeConfig {
        let scale = scale.iter().map(ToString::to_string).collect();
        JudgeConfig { scale, reading, ..JudgeConfig::default() }
    }

    /// A judge whose ratings begin with the tokens 100, 101, ...
    fn judge(config: &JudgeConfig) -> Judge {
        let count = Judge::probes(config).unwrap().len();
        let probed: Vec<_> = (0..count as u32).map(|index| answer("x", token(100 + index, &[]))).collect();
        Judge::new(config, &probed).unwrap()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn log_probabilities_are_renormalised_over_the_ratings() {
        let judge = judge(&config(&["1", "2", "3"], Reading::Expected));
        let request = &judge.requests(&[vec![Message::new("user", "Good?")]], 7)[0];
        assert_eq!((request.max_tokens, request.top_logprobs, request.seed), (1, 20, 7));
        // 0.1, 0.1 and 0.2 of the probability: the mean rating is (0.1 * 0 + 0.1 * 0.5 + 0.2 * 1) / 0.4.
        let judgement =
            judge.read(&[answer("3", token(102, &[(5, 0.5), (102, 0.2), (100, 0.1), (101, 0.1), (6, 0.1)]))]);
        close(judgement.score.unwrap(), 0.625);
        // Second moment (0.1 * 0.25 + 0.2) / 0.4 = 0.5625; 0.5625 - 0.390625 = 0.171875.
        close(judgement.spread, 0.171875_f64.sqrt());
        close(judgement.coverage.unwrap(), 0.4);
        assert!(judgement.passed && judgement.parse_failures == 0);
        let unseen = judge.read(&[answer("2", token(9, &[(5, 0.9)]))]);
        assert_eq!((unseen.score, unseen.coverage), (Some(0.5), None), "what was written counts then");
    }

    #[test]
    fn votes_and_orders_are_averaged() {
        let both = JudgeConfig {
            votes: 3,
            swap: Swap::Mirrored,
            ..config(&["first is better", "equal", "second is better"], Reading::Json)
        };
        let judge = judge(&both);
        assert_eq!((judge.orders(), judge.reading()), (2, Reading::Json));
        let rendering = vec![Message::new("user", "Which?")];
        let requests = judge.requests(&[rendering.clone(), rendering], 1);
        assert_eq!(requests.len(), 6);
        assert_eq!(
            requests.iter().map(|request| request.sampling.temperature).collect::<Vec<_>>(),
            [0.0, 0.7, 0.7, 0.0, 0.7, 0.7]
        );
        let says = |label: &str| answer(&format!(r#"{{"reason": "so", "score": "{label}"}}"#), vec![]);
        let judgement = judge.read(&[
            says("second is better"),
            says("second is better"),
            says("equal"),
            says("first is better"),
            answer("{", vec![]),
            Err("no".to_owned()),
        ]);
        assert_eq!(judgement.votes, [1.0, 1.0, 0.5, 1.0]);
        close(judgement.score.unwrap(), 0.875);
        close(judgement.disagreement.unwrap(), 1.0 - 2.5 / 3.0);
        close(judgement.spread, (3.25 / 4.0 - 0.875_f64.powi(2)).sqrt());
        assert_eq!(judgement.parse_failures, 2);
    }

    #[test]
    fn a_row_without_a_rating_does_not_pass() {
        let judge = judge(&JudgeConfig { keep: Some(0.0), ..config(&["No", "Yes"], Reading::Text) });
        let judgement = judge.read(&[answer("I like it", vec![])]);
        assert_eq!((judgement.score, judgement.passed, judgement.parse_failures), (None, false, 1));
        assert!(judge.read(&[answer("So.\nScore: no", vec![])]).passed);
    }

    #[test]
    fn an_engine_that_tells_less_is_read_by_plainer_ways() {
        let config = config(&["No", "Yes"], Reading::Expected);
        let silent = [answer("No", vec![]), answer("Yes", vec![]), answer("{}", vec![])];
        let judge = Judge::new(&config, &silent).unwrap();
        assert_eq!(judge.reading(), Reading::Json);
        assert!(judge.notes()[0].contains("tells no log-probabilities"), "{:?}", judge.notes());
        let refusing = [Err("no".to_owned()), Err("no".to_owned()), Err("no".to_owned())];
        let judge = Judge::new(&config, &refusing).unwrap();
        assert_eq!((judge.reading(), judge.notes().len()), (Reading::Text, 2));
        let same = [answer("No", token(5, &[])), answer("Yes", token(5, &[])), answer("{}", vec![])];
        assert_eq!(Judge::new(&config, &same).unwrap().reading(), Reading::Json);
        assert!(Judge::new(&config, &[]).is_err());
    }

    #[test]
    fn the_threshold_of_the_calibration_gives_way_to_the_configured_one() {
        let free = config(&["No", "Yes"], Reading::Text);
        assert!((judge(&free).with_threshold(0.8).threshold() - 0.8).abs() < 1e-9);
        let named = JudgeConfig { keep: Some(0.3), ..free };
        assert!((judge(&named).with_threshold(0.8).threshold() - 0.3).abs() < 1e-9);
    }
}
