//! What a generation will cost, told by its first portion.

use super::flows::Flows;
use super::review::Reviewer;
use super::{Engines, GenerateStage, Places, embedder, flows, open};
use crate::models::ResolvedModel;
use crate::outcome::Failure;
use crate::reporter::{duration, size};
use crate::stages::StageContext;
use anyhow::Result;
use espalier_sdg::estimate::{Estimate, Range};

/// What a probe found.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// What is still to come behind the first portion.
    pub rest: Estimate,
    /// Leaves that no flow makes, which are not looked at.
    pub without_flow: usize,
}

/// Runs the first portion of every leaf that has a flow. Its answers are kept: the run goes on from there.
pub fn probe(
    config: &GenerateStage,
    teacher: &ResolvedModel,
    engines: Engines<'_>,
    places: &Places,
    context: &StageContext<'_>,
) -> Result<Probe> {
    let options = context.writing_options();
    let opened = open(config, teacher, engines, &options, context)?;
    let flows = Flows::of_tree(&opened.tree, config)?;
    let mut reviewer = Reviewer::new(config, embedder(config, engines.embedder, &options.packed(), context)?)?;
    let around = opened.surroundings(config, context, true);
    let made = flows.run(&around, &places.work.join(flows::ANSWERS), &mut reviewer)?;
    let without_flow = opened.tree.leaves.iter().filter(|leaf| flows.of(leaf).is_none()).count();
    match made.probed {
        Some(rest) => Ok(Probe { rest, without_flow }),
        None => Err(Failure::usage("there is nothing to probe: no leaf with a flow has a source")
            .hint("leaves without a flow ask once for each row, and once more for each retry")
            .into()),
    }
}

/// What is still to come, in one line.
pub fn words(rest: &Estimate) -> String {
    if rest.sources == 0 {
        return "nothing more is to come: every leaf has its rows, or will not get them".to_owned();
    }
    let count = |range: Range, what: &str| {
        format!("{} {what} ({} to {})", rounded(range.likely), rounded(range.low), rounded(range.high))
    };
    let time = rest.seconds.map_or_else(String::new, |range| {
        format!("; {} ({} to {})", duration(range.likely), duration(range.low), duration(range.high))
    });
    format!(
        "still to come: about {}, {}, {}{time}; {}, {}",
        count(rest.calls, "answers"),
        count(rest.answer_tokens, "tokens of answers"),
        count(rest.prompt_tokens, "of prompts"),
        count(rest.kept, "rows kept"),
        size(rest.bytes.likely as u64)
    )
}

/// Two digits: more would promise what a portion cannot know.
fn rounded(value: f64) -> String {
    let digits = if value < 1.0 { 0 } else { value.log10().floor() as i32 };
    let unit = 10_f64.powi((digits - 1).max(0));
    let digits = ((value / unit).round() * unit).to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_digits() {
        assert_eq!([0.0, 3.4, 96.0, 1234.0, 99_500.0].map(rounded), ["0", "3", "96", "1,200", "100,000"]);
    }

    #[test]
    fn the_rest_is_told_in_a_line() {
        let range = |likely: f64| Range { low: likely / 2.0, likely, high: likely * 2.0 };
        let rest = Estimate {
            sources: 40,
            calls: range(1200.0),
            prompt_tokens: range(380_000.0),
            answer_tokens: range(91_000.0),
            kept: range(200.0),
            bytes: range(1.2e6),
            seconds: Some(range(720.0)),
        };
        insta::assert_snapshot!(words(&rest), @"still to come: about 1,200 answers (600 to 2,400), 91,000 tokens of answers (46,000 to 180,000), 380,000 of prompts (190,000 to 760,000); 12 min 0 s (6 min 0 s to 24 min 0 s); 200 rows kept (100 to 400), 1.2 MB");
    }
}
