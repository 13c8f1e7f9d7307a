//! What a generation will cost, estimated from a short probe of it.
//!
//! A probe runs the flow on a few of its source rows. Rows that come of one source row are alike, so the source row is what is
//! counted: its calls, tokens, rows and bytes are one observation.

/// What one probed source row cost, all blocks together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProbedSource {
    /// Requests to engines.
    pub calls: usize,
    /// Tokens of their prompts.
    pub prompt_tokens: usize,
    /// Tokens of their answers.
    pub answer_tokens: usize,
    /// Rows that were kept.
    pub kept: usize,
    /// Bytes of all its rows as they are stored, rejected ones included.
    pub bytes: usize,
}

/// How long the probe took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeTime {
    /// Seconds of the engines' work.
    pub seconds: f64,
    /// Requests that stood before the engine at once, on average.
    pub at_once: f64,
    /// Requests that will stand there in the run, as far as the engine takes them.
    pub at_once_in_run: f64,
}

/// A number with the interval that it lies in with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lower end.
    pub low: f64,
    /// The best guess.
    pub likely: f64,
    /// Upper end.
    pub high: f64,
}

/// What a whole run will cost and give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Requests to engines.
    pub calls: Range,
    /// Tokens of prompts.
    pub prompt_tokens: Range,
    /// Tokens of answers.
    pub answer_tokens: Range,
    /// Rows that are kept.
    pub kept: Range,
    /// Bytes on disk.
    pub bytes: Range,
    /// Seconds.
    pub seconds: Range,
}

/// What `sources` source rows will cost, the probed ones among them not counted again: `sources` are those still to come.
/// `None` without a probed row.
///
/// Each total is N times the mean of the n probed ones, give or take t N s sqrt(1/n + 1/N) (the prediction of a sum of N
/// further observations; t of Student with n - 1 degrees of freedom, s their standard deviation). From a single source row
/// nothing is known of the spread: a third to three times are said. For the time, more requests at once make an engine
/// faster by a factor between one and the growth of their number: the ends take these, the guess their geometric mean.
pub fn estimate(probed: &[ProbedSource], time: ProbeTime, sources: usize) -> Option<Estimate> {
    let total = |of: fn(&ProbedSource) -> usize| {
        let values: Vec<f64> = probed.iter().map(|source| of(source) as f64).collect();
        predicted(&values, sources as f64)
    };
    let answer_tokens = total(|source| source.answer_tokens)?;
    let tokens = total(|source| source.prompt_tokens + source.answer_tokens)?;
    let probed_tokens: usize = probed.iter().map(|source| source.prompt_tokens + source.answer_tokens).sum();
    let per_token = time.seconds / (probed_tokens.max(1)) as f64;
    let growth = (time.at_once_in_run / time.at_once.max(1.0)).max(1.0);
    Some(Estimate {
        calls: total(|source| source.calls)?,
        prompt_tokens: total(|source| source.prompt_tokens)?,
        answer_tokens,
        kept: total(|source| source.kept)?,
        bytes: total(|source| source.bytes)?,
        seconds: Range {
            low: tokens.low * per_token / growth,
            likely: tokens.likely * per_token / growth.sqrt(),
            high: tokens.high * per_token,
        },
    })
}

fn predicted(values: &[f64], further: f64) -> Option<Range> {
    let count = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let likely = further * mean;
    if values.len() == 1 {
        return Some(Range { low: likely / 3.0, likely, high: likely * 3.0 });
    }
    if further < 1.0 {
        return Some(Range { low: 0.0, likely: 0.0, high: 0.0 });
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let away = student(values.len() - 1) * further * (variance * (1.0 / count + 1.0 / further)).sqrt();
    Some(Range { low: (likely - away).max(0.0), likely, high: likely + away })
}

/// The 97.5 % quantile of Student's t; between the degrees of the table, the larger quantile.
fn student(degrees: usize) -> f64 {
    const TABLE: [(usize, f64); 15] = [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (7, 2.365),
        (8, 2.306),
        (9, 2.262),
        (10, 2.228),
        (15, 2.131),
        (20, 2.086),
        (30, 2.042),
        (60, 2.000),
        (120, 1.980),
    ];
    let below = TABLE.iter().rev().find(|(known, _)| *known <= degrees);
    below.map_or(TABLE[0].1, |(_, quantile)| *quantile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(calls: usize, answer_tokens: usize) -> ProbedSource {
        ProbedSource { calls, prompt_tokens: 100 * calls, answer_tokens, kept: 1, bytes: 500 }
    }

    const TIME: ProbeTime = ProbeTime { seconds: 10.0, at_once: 4.0, at_once_in_run: 64.0 };

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    #[test]
    fn a_worked_example() {
        let probed = [source(2, 30), source(4, 50), source(3, 40)];
        let found = estimate(&probed, TIME, 12).unwrap();
        close(found.calls.likely, 36.0);
        // s = 1, t of 2 degrees 4.303: 4.303 * 12 * sqrt(1/3 + 1/12).
        let away = 4.303 * 12.0 * (1.0_f64 / 3.0 + 1.0 / 12.0).sqrt();
        close(found.calls.low, 36.0 - away);
        close(found.calls.high, 36.0 + away);
        assert_eq!(found.kept, Range { low: 12.0, likely: 12.0, high: 12.0 });
        close(found.bytes.likely, 6000.0);
        // 1020 tokens in 10 seconds at 4 at once; 16 times as many at once may be 1 to 16 times as fast.
        close(found.seconds.likely, 4080.0 * 10.0 / 1020.0 / 4.0);
        assert!(found.seconds.low < found.seconds.likely && found.seconds.likely < found.seconds.high);
    }

    #[test]
    fn little_is_said_of_little() {
        assert_eq!(estimate(&[], TIME, 5), None);
        let one = estimate(&[source(2, 30)], TIME, 5).unwrap();
        close(one.calls.high / one.calls.low, 9.0);
        let none = estimate(&[source(2, 30), source(4, 30)], TIME, 0).unwrap();
        close(none.calls.high, 0.0);
    }

    /// Of many runs with drawn costs, the true totals lie in the interval about as often as it says.
    #[test]
    fn the_interval_holds_what_it_promises() {
        let cost = |run: u64, source: u64| {
            let drawn = crate::identity::number(&[b"cost", &run.to_le_bytes(), &source.to_le_bytes()]);
            ProbedSource { answer_tokens: 20 + (drawn % 200) as usize, ..ProbedSource::default() }
        };
        let inside = (0..1000).filter(|run| {
            let probed: Vec<ProbedSource> = (0..6).map(|index| cost(*run, index)).collect();
            let found = estimate(&probed, TIME, 50).unwrap().answer_tokens;
            let truth: usize = (6..56).map(|index| cost(*run, index).answer_tokens).sum();
            (found.low..=found.high).contains(&(truth as f64))
        });
        let share = inside.count() as f64 / 1000.0;
        assert!((0.92..=0.98).contains(&share), "{share}");
    }
}
