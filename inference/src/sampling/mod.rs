//! From logits to the next token.
//!
//! Nothing here depends on the instruction set or the number of threads: sums run in a fixed number of lanes, exponentials are
//! our own polynomial, and the only randomness is one draw from `ChaCha8` keyed by (request seed, token index).

mod occurrences;
mod scan;

use espalier_kernels::ops::log_sum_exp;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::request::{Sampling, TokenLogprob};

pub(crate) use occurrences::{Occurrence, Occurrences};
pub(crate) use scan::argmax;
use scan::{Candidate, forbid, highest, weigh};

/// The uniform number in `[0, 1)` of one token: 53 bits of `ChaCha8` keyed by the seed and the token's index in its answer.
fn uniform(seed: u64, token_index: usize) -> f64 {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(token_index as u64).to_le_bytes());
    (ChaCha8Rng::from_seed(key).next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// Buffers that choices use one after another.
#[derive(Debug, Default)]
pub(crate) struct Working {
    /// Softmax weights of the vocabulary.
    weights: Vec<f32>,
    /// Tokens whose logits were changed, with the model's own logits: the first entry of a token counts.
    raw: Vec<(u32, f32)>,
}

impl Working {
    /// Changes one logit and keeps what it was.
    fn change(&mut self, logits: &mut [f32], token: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(logit) = logits.get_mut(token as usize) {
            self.raw.push((token, *logit));
            *logit = change(*logit);
        }
    }

    /// Bias and penalties, in the order that [`Sampling`] names.
    fn adjust(&mut self, logits: &mut [f32], sampling: &Sampling, seen: &[Occurrence]) {
        self.raw.clear();
        for &(token, bias) in &sampling.logit_bias {
            self.change(logits, token, |logit| logit + bias);
        }
        if sampling.penalizes() {
            for &occurrence in seen {
                self.change(logits, occurrence.token, |logit| penalized(logit, occurrence.in_answer, sampling));
            }
        }
    }
}

/// The logit of a token that was seen before: divided (positive) or multiplied (negative) by the repetition penalty (Keskar
/// et al. 2019, section 4.1), then less by the two penalties of `OpenAI`.
fn penalized(logit: f32, in_answer: u32, sampling: &Sampling) -> f32 {
    let repeated = if logit > 0.0 { logit / sampling.repetition_penalty } else { logit * sampling.repetition_penalty };
    if in_answer == 0 {
        return repeated;
    }
    repeated - in_answer as f32 * sampling.frequency_penalty - sampling.presence_penalty
}

/// What one choice depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw<'a> {
    pub(crate) sampling: &'a Sampling,
    pub(crate) seed: u64,
    /// Index of the token in its answer.
    pub(crate) token_index: usize,
    /// Different tokens of prompt and answer so far; read only where there is a penalty.
    pub(crate) seen: &'a [Occurrence],
    /// The tokens that the constraint allows, as [`scan::forbid`] reads them.
    pub(crate) allowed: Option<&'a [u32]>,
    pub(crate) top_logprobs: usize,
}

/// The logarithm of the sum of all exponentials, and the `count` most probable of the first `among` tokens with their
/// log-probabilities, best first.
pub(crate) fn most_probable(logits: &[f32], count: usize, among: usize) -> (f32, Vec<(u32, f32)>) {
    let normalizer = log_sum_exp(logits);
    (normalizer, highest(&logits[..among], count).iter().map(|best| (best.token, best.value - normalizer)).collect())
}

/// Chooses the next token and reports its log-probability. The logits are left as constraint, bias and penalties made them.
pub(crate) fn choose(logits: &mut [f32], draw: &Draw<'_>, working: &mut Working) -> TokenLogprob {
    let sampling = draw.sampling;
    let (normalizer, top) = most_probable(logits, draw.top_logprobs, logits.len());
    if let Some(allowed) = draw.allowed {
        forbid(logits, allowed);
    }
    working.adjust(logits, sampling, draw.seen);
    let token = if sampling.temperature > 0.0 {
        sample(logits, sampling, uniform(draw.seed, draw.token_index), &mut working.weights)
    } else {
        argmax(logits) as u32
    };
    let changed = working.raw.iter().find(|(changed, _)| *changed == token);
    let raw = changed.map_or(logits[token as usize], |&(_, raw)| raw);
    TokenLogprob { token, logprob: raw - normalizer, top }
}

/// Draws from the filtered distribution with the uniform number `u`.
fn sample(logits: &[f32], sampling: &Sampling, u: f64, weights: &mut Vec<f32>) -> u32 {
    let total = weigh(logits, sampling.temperature, weights);
    let weights = weights.as_slice();
    let top_p = f64::from(sampling.top_p);
    let mut kept = if sampling.top_k > 0 && sampling.top_k < weights.len() {
        highest(weights, sampling.top_k)
    } else if top_p < 1.0 || sampling.min_p > 0.0 {
        // The smallest nucleus holds no token below this bar: all of them together weigh less than 1 - top_p.
        let bar = (((1.0 - top_p).max(0.0) * total / weights.len() as f64) as f32).max(sampling.min_p);
        // The heaviest weight is 1, so the bar never excludes it.
        let bar = bar.min(1.0);
        let mut kept: Vec<Candidate> = weights
            .iter()
            .enumerate()
            .filter(|(_, weight)| **weight >= bar)
            .map(|(token, &value)| Candidate { token: token as u32, value })
            .collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        kept
    } else {
        return draw_from(weights.iter().copied().enumerate(), u * total).unwrap_or_else(|| argmax(weights)) as u32;
    };
    if top_p < 1.0 {
        let total = if sampling.top_k > 0 { kept.iter().map(|kept| f64::from(kept.value)).sum() } else { total };
        let mut mass = 0.0;
        let nucleus = kept
            .iter()
            .position(|kept| {
                mass += f64::from(kept.value);
                mass >= top_p * total
            })
            .map_or(kept.len(), |at| at + 1);
        kept.truncate(nucleus);
    }
    if sampling.min_p > 0.0 {
        let bar = kept.first().map_or(0.0, |best| best.value * sampling.min_p.min(1.0));
        kept.retain(|kept| kept.value >= bar);
    }
    let total: f64 = kept.iter().map(|kept| f64::from(kept.value)).sum();
    let drawn = draw_from(kept.iter().map(|kept| (kept.token as usize, kept.value)), u * total);
    drawn.or_else(|| kept.last().map(|kept| kept.token as usize)).unwrap_or_else(|| argmax(weights)) as u32
}

/// The token at which the running sum of weights passes `threshold`; the last one of positive weight if rounding kept the sum
/// below.
fn draw_from(weights: impl Iterator<Item = (usize, f32)>, threshold: f64) -> Option<usize> {
    let mut sum = 0.0;
    let mut last = None;
    for (token, weight) in weights {
        if weight > 0.0 {
            sum += f64::from(weight);
            last = Some(token);
            if sum > threshold {
                return last;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: &Sampling) -> Draw<'_> {
        Draw { sampling, seed: 1, token_index: 0, seen: &[], allowed: None, top_logprobs: 0 }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits: Vec<f32> = [0.1_f32, 0.2, 0.3, 0.4].iter().map(|p| p.ln()).collect();
        let mut counts = [0_u32; 4];
        for index in 0..20_000 {
            counts[sample(&logits, &Sampling::at_temperature(1.0), uniform(3, index), &mut Vec::new()) as usize] += 1;
        }
        for (token, expected) in [2000.0, 4000.0, 6000.0, 8000.0].into_iter().enumerate() {
            assert!((f64::from(counts[token]) - expected).abs() < 250.0, "{counts:?}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits: Vec<f32> = [0.1_f32, 0.2, 0.3, 0.4].iter().map(|p| p.ln()).collect();
        let drawn = |sampling: Sampling| {
            let mut seen = [false; 4];
            for index in 0..500 {
                seen[sample(&logits, &sampling, uniform(9, index), &mut Vec::new()) as usize] = true;
            }
            seen
        };
        let plain = Sampling::at_temperature(1.0);
        assert_eq!(drawn(Sampling { top_k: 2, ..plain.clone() }), [false, false, true, true]);
        assert_eq!(drawn(Sampling { top_p: 0.65, ..plain.clone() }), [false, false, true, true]);
        assert_eq!(drawn(Sampling { top_p: 0.75, ..plain.clone() }), [false, true, true, true]);
        assert_eq!(drawn(Sampling { top_p: 0.0, ..plain.clone() }), [false, false, false, true]);
        assert_eq!(drawn(Sampling { min_p: 0.4, ..plain.clone() }), [false, true, true, true]);
        assert_eq!(drawn(Sampling { min_p: 2.0, ..plain.clone() }), [false, false, false, true]);
        // Among the best three, renormalised, 0.4 + 0.3 of 0.9 reach 0.7.
        assert_eq!(drawn(Sampling { top_k: 3, top_p: 0.7, ..plain.clone() }), [false, false, true, true]);
        assert_eq!(drawn(Sampling { temperature: 1e-6, ..plain }), [false, false, false, true]);
    }

    #[test]
    fn a_penalty_changes_the_choice_but_not_the_logprob() {
        let logits = [1.0_f32, 2.0, 1.9];
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::GREEDY };
        let choose_after = |sampling: &Sampling, prompt: &[u32], answer: &[u32]| {
            let mut seen = Occurrences::of_prompt(prompt);
            for &token in answer {
                seen.push(token);
            }
            let draw = Draw { seen: seen.as_slice(), ..draw(sampling) };
            choose(&mut logits.to_vec(), &draw, &mut Working::default())
        };
        let plain = choose_after(&Sampling::GREEDY, &[], &[]);
        assert_eq!(plain.token, 1);
        let other = choose_after(&sampling, &[1], &[]);
        assert_eq!(other.token, 2);
        assert!((other.logprob - (plain.logprob - 0.1)).abs() < 1e-6);
        let all = choose_after(&sampling, &[0, 1, 2], &[]);
        assert_eq!((all.token, all.logprob.to_bits()), (1, plain.logprob.to_bits()));

        let presence = Sampling { presence_penalty: 0.2, ..Sampling::GREEDY };
        assert_eq!(choose_after(&presence, &[1], &[]).token, 1, "the prompt does not count");
        assert_eq!(choose_after(&presence, &[], &[1]).token, 2);
        assert_eq!(choose_after(&presence, &[], &[1, 2, 2, 2]).token, 1, "once is as often as three times");
        let frequency = Sampling { frequency_penalty: 0.06, ..Sampling::GREEDY };
        assert_eq!(choose_after(&frequency, &[], &[1]).token, 1);
        assert_eq!(choose_after(&frequency, &[], &[1, 1]).token, 2);
        let encouraged = Sampling { frequency_penalty: -1.1, ..Sampling::GREEDY };
        assert_eq!(choose_after(&encouraged, &[], &[0]).token, 0);
    }

    #[test]
    fn a_bias_changes_the_choice_but_not_the_logprob() {
        let logits = [1.0_f32, 2.0, 1.9];
        let choose_with = |logit_bias: &[(u32, f32)], presence_penalty| {
            let mut seen = Occurrences::default();
            seen.push(0);
            let sampling = Sampling { logit_bias: logit_bias.to_vec(), presence_penalty, ..Sampling::GREEDY };
            let draw = Draw { seen: seen.as_slice(), ..draw(&sampling) };
            choose(&mut logits.to_vec(), &draw, &mut Working::default())
        };
        let plain = choose_with(&[], 0.0);
        assert_eq!(choose_with(&[(1, -100.0)], 0.0).token, 2);
        let forced = choose_with(&[(0, 100.0), (9, 100.0)], 0.5);
        assert_eq!(forced.token, 0);
        assert!((forced.logprob - (plain.logprob - 1.0)).abs() < 1e-6, "as the model says, not as bias and penalty do");
    }

    #[test]
    fn only_allowed_tokens_are_chosen() {
        let logits: Vec<f32> = (0..70_u32).map(|i| (i * 37 % 11) as f32).collect();
        let allowed = [1 << 4 | 1 << 9, 0, 1 << 2];
        for sampling in [
            Sampling::GREEDY,
            Sampling::at_temperature(1.5),
            Sampling { top_k: 5, ..Sampling::at_temperature(1.0) },
            Sampling { top_p: 0.9, min_p: 0.01, ..Sampling::at_temperature(1.0) },
            Sampling { logit_bias: vec![(3, 100.0)], ..Sampling::GREEDY },
        ] {
            for token_index in 0..200 {
                let draw = Draw { allowed: Some(&allowed), token_index, ..draw(&sampling) };
                let chosen = choose(&mut logits.clone(), &draw, &mut Working::default());
                assert!([4, 9, 66].contains(&chosen.token), "{sampling:?} chose {}", chosen.token);
                let expected = logits[chosen.token as usize] - log_sum_exp(&logits);
                assert_eq!(chosen.logprob.to_bits(), expected.to_bits(), "as the model says it");
            }
        }
    }

    #[test]
    fn logprobs_sum_to_one() {
        let mut logits: Vec<f32> = (0..50_u32).map(|i| (i * 37 % 11) as f32 * 0.3).collect();
        let report = choose(
            &mut logits,
            &Draw { top_logprobs: 50, ..draw(&Sampling::at_temperature(2.0)) },
            &mut Working::default(),
        );
        let sum: f64 = report.top.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
        let same =
            |&(token, logprob): &(u32, f32)| token == report.token && logprob.to_bits() == report.logprob.to_bits();
        assert!(report.top.iter().any(same));
    }

    #[test]
    fn the_draw_depends_on_seed_and_index_alone() {
        assert_eq!(uniform(5, 7).to_bits(), uniform(5, 7).to_bits());
        assert_ne!(uniform(5, 7).to_bits(), uniform(5, 8).to_bits());
        assert_ne!(uniform(5, 7).to_bits(), uniform(6, 7).to_bits());
    }
}
