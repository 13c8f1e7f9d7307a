//! What the rest of a generation will cost, told from its first portion.
//!
//! Sources of one leaf are alike, so each leaf's first sources foretell its further ones. What one source costs differs from
//! the next; how much, a portion of a few cannot say. It is taken to have a standard deviation as large as its mean, which is
//! that of an exponential distribution and more than flows were seen to have.

use std::time::Duration;

use crate::flow::Usage;

/// What a leaf's first sources cost, and how many are still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Probed {
    /// Sources used.
    pub sources: usize,
    /// What was asked for them.
    pub usage: Usage,
    /// Rows that were kept.
    pub kept: usize,
    /// Bytes of all their rows as JSON, rejected ones included.
    pub bytes: usize,
    /// Sources that the leaf will still use, by its yield so far.
    pub further: usize,
}

/// A number with the interval that it lies in with 95 % confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    /// Lower end.
    pub low: f64,
    /// The best guess.
    pub likely: f64,
    /// Upper end.
    pub high: f64,
}

/// What is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Sources that will be used.
    pub sources: usize,
    /// Requests to engines.
    pub calls: Range,
    /// Tokens of prompts.
    pub prompt_tokens: Range,
    /// Tokens of answers.
    pub answer_tokens: Range,
    /// Rows that are kept.
    pub kept: Range,
    /// Bytes of rows.
    pub bytes: Range,
    /// Seconds; `None` where the first portion was known from an earlier run and took none.
    pub seconds: Option<Range>,
}

/// The rest of a generation whose first portion took `time`.
///
/// With mean m of the n sources that a leaf used and N further ones, the total of all leaves is the sum of N m, and its standard
/// error by the prediction of a sum the root of the sum of (N m)^2 (1/n + 1/N). The ends of the interval lie so many standard
/// errors away as a factor: a cost cannot be negative. Larger portions keep an engine busier: the time may shrink by up to the
/// growth of the portions, of which the guess takes the root.
pub fn estimate(probed: &[Probed], time: Duration) -> Estimate {
    let total = |of: fn(&Probed) -> usize| predicted(probed.iter().map(|leaf| (leaf, of(leaf) as f64)));
    let sum = |of: fn(&Probed) -> usize| probed.iter().map(of).sum::<usize>() as f64;
    let tokens = total(|leaf| leaf.usage.prompt_tokens + leaf.usage.answer_tokens);
    let asked = sum(|leaf| leaf.usage.prompt_tokens + leaf.usage.answer_tokens);
    let fresh = sum(|leaf| leaf.usage.answers) > sum(|leaf| leaf.usage.cached);
    let per_token = time.as_secs_f64() / asked.max(1.0);
    let growth = (sum(|leaf| leaf.further) / sum(|leaf| leaf.sources).max(1.0)).max(1.0);
    let seconds = Range {
        low: tokens.low * per_token / growth,
        likely: tokens.likely * per_token / growth.sqrt(),
        high: tokens.high * per_token,
    };
    Estimate {
        sources: probed.iter().map(|leaf| leaf.further).sum(),
        calls: total(|leaf| leaf.usage.answers),
        prompt_tokens: total(|leaf| leaf.usage.prompt_tokens),
        answer_tokens: total(|leaf| leaf.usage.answer_tokens),
        kept: total(|leaf| leaf.kept),
        bytes: total(|leaf| leaf.bytes),
        seconds: fresh.then_some(seconds),
    }
}

fn predicted<'a>(leaves: impl Iterator<Item = (&'a Probed, f64)>) -> Range {
    /// The 97.5 % quantile of the normal distribution.
    const Z: f64 = 1.96;
    let (mut likely, mut variance) = (0.0, 0.0);
    for (leaf, value) in leaves.filter(|(leaf, _)| leaf.sources > 0 && leaf.further > 0) {
        let (used, further) = (leaf.sources as f64, leaf.further as f64);
        let total = value / used * further;
        likely += total;
        variance += total * total * (1.0 / used + 1.0 / further);
    }
    if likely <= 0.0 {
        return Range::default();
    }
    let factor = 1.0 + Z * variance.sqrt() / likely;
    Range { low: likely / factor, likely, high: likely * factor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(sources: usize, further: usize, answer_tokens: usize) -> Probed {
        let usage = Usage { answers: 2 * sources, cached: 0, prompt_tokens: 100 * sources, answer_tokens };
        Probed { sources, usage, kept: sources, bytes: 500 * sources, further }
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    #[test]
    fn a_worked_example() {
        let found = estimate(&[leaf(4, 12, 120), leaf(4, 0, 80)], Duration::from_secs(10));
        assert_eq!(found.sources, 12);
        // One leaf goes on: 2 calls a source; 1 + 1.96 sqrt(1/4 + 1/12) times as many at most.
        close(found.calls.likely, 24.0);
        let factor = 1.0 + 1.96 * (1.0_f64 / 3.0).sqrt();
        close(found.calls.high, 24.0 * factor);
        close(found.calls.low, 24.0 / factor);
        close(found.answer_tokens.likely, 360.0);
        close(found.bytes.likely, 6000.0);
        // 1,560 tokens to come at 1,000 in 10 seconds, and 12 sources after 8 at once.
        let seconds = found.seconds.unwrap();
        close(seconds.likely, 15.6 / 1.5_f64.sqrt());
        assert!(seconds.low < seconds.likely && seconds.likely < seconds.high);
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(estimate(&[], Duration::from_secs(1)), Estimate::default());
        assert_eq!(estimate(&[leaf(4, 0, 100)], Duration::from_secs(1)).calls, Range::default());
        let mut known = leaf(4, 8, 100);
        known.usage.cached = known.usage.answers;
        assert_eq!(estimate(&[known], Duration::from_secs(1)).seconds, None, "what is kept takes no time");
    }

    /// Of many runs with drawn costs, the true totals lie in the interval at least as often as it says.
    #[test]
    fn the_interval_holds_what_it_promises() {
        let cost = |run: u64, source: u64| {
            let drawn = crate::identity::number(&[b"cost", &run.to_le_bytes(), &source.to_le_bytes()]);
            20 + (drawn % 400) as usize
        };
        let total =
            |run: u64, sources: std::ops::Range<u64>| -> usize { sources.map(|source| cost(run, source)).sum() };
        let inside = (0..1000).filter(|&run| {
            let found = estimate(&[leaf(5, 50, total(run, 0..5))], Duration::from_secs(1)).answer_tokens;
            (found.low..=found.high).contains(&(total(run, 5..55) as f64))
        });
        assert!(inside.count() >= 950);
    }
}
