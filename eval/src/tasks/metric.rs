//! Metrics: what an answer is worth, and what all of them are worth together.

use fancy_regex::Regex;
use serde_json::Value;

use super::config::{Keys, OutputType};
use super::filter::regexes;
use super::function::Function;
use super::source::Entry;
use crate::error::EvalError;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The likeliest choice is right; after a text, the target is the greedy one.
    Accuracy,
    /// The choice that is likeliest for each of its characters.
    AccuracyNormalized,
    /// The choice that is likeliest for each of its bytes.
    AccuracyBytes,
    /// The choice that gains most from the question.
    AccuracyMutualInformation,
    /// The answer equals the target; the right choice is the greedy text.
    ExactMatch,
    F1,
    Matthews,
    Brier,
    Perplexity,
    WordPerplexity,
    BytePerplexity,
    BitsPerByte,
    /// `IFEval`: every instruction of the prompt is followed, as the answer stands.
    PromptStrict,
    /// `IFEval`: which instructions are followed, as the answer stands.
    InstructionsStrict,
    /// `IFEval`: every instruction of the prompt is followed in one of the answer's forms.
    PromptLoose,
    /// `IFEval`: which instructions are followed in one of the answer's forms.
    InstructionsLoose,
    /// Only the answers count: no score.
    Bypass,
}

/// How the values of all documents become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Mean,
    NanMean,
    Median,
    Perplexity,
    WeightedPerplexity,
    BitsPerByte,
    F1,
    Matthews,
    Brier,
    /// The share of all instructions of all prompts.
    Instructions,
    Bypass,
}

/// (name, measure, its usual aggregation, higher is better, output types it has a value for)
const MEASURES: &[(&str, Measure, Aggregation, bool, &[OutputType])] = {
    use OutputType::{Generate, LogLikelihood, MultipleChoice, Rolling};
    &[
        ("acc", Measure::Accuracy, Aggregation::Mean, true, &[MultipleChoice, LogLikelihood]),
        ("acc_norm", Measure::AccuracyNormalized, Aggregation::Mean, true, &[MultipleChoice]),
        ("acc_bytes", Measure::AccuracyBytes, Aggregation::Mean, true, &[MultipleChoice]),
        ("acc_mutual_info", Measure::AccuracyMutualInformation, Aggregation::Mean, true, &[MultipleChoice]),
        ("exact_match", Measure::ExactMatch, Aggregation::Mean, true, &[Generate, MultipleChoice]),
        ("f1", Measure::F1, Aggregation::F1, true, &[MultipleChoice]),
        ("mcc", Measure::Matthews, Aggregation::Matthews, true, &[MultipleChoice]),
        ("brier_score", Measure::Brier, Aggregation::Brier, false, &[MultipleChoice]),
        ("perplexity", Measure::Perplexity, Aggregation::Perplexity, false, &[LogLikelihood]),
        ("word_perplexity", Measure::WordPerplexity, Aggregation::WeightedPerplexity, false, &[Rolling]),
        ("byte_perplexity", Measure::BytePerplexity, Aggregation::WeightedPerplexity, false, &[Rolling]),
        ("bits_per_byte", Measure::BitsPerByte, Aggregation::BitsPerByte, false, &[Rolling]),
        ("prompt_level_strict_acc", Measure::PromptStrict, Aggregation::Mean, true, &[Generate]),
        ("inst_level_strict_acc", Measure::InstructionsStrict, Aggregation::Instructions, true, &[Generate]),
        ("prompt_level_loose_acc", Measure::PromptLoose, Aggregation::Mean, true, &[Generate]),
        ("inst_level_loose_acc", Measure::InstructionsLoose, Aggregation::Instructions, true, &[Generate]),
        ("bypass", Measure::Bypass, Aggregation::Bypass, true, &[MultipleChoice, LogLikelihood, Rolling, Generate]),
    ]
};

const AGGREGATIONS: &[(&str, Aggregation)] = &[
    ("mean", Aggregation::Mean),
    ("nanmean", Aggregation::NanMean),
    ("median", Aggregation::Median),
    ("perplexity", Aggregation::Perplexity),
    ("weighted_perplexity", Aggregation::WeightedPerplexity),
    ("bits_per_byte", Aggregation::BitsPerByte),
    ("f1", Aggregation::F1),
    ("matthews_corrcoef", Aggregation::Matthews),
    ("brier_score", Aggregation::Brier),
    ("bypass", Aggregation::Bypass),
];

/// A metric of a task.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) measure: Measure,
    pub(crate) aggregation: Aggregation,
    pub(crate) higher_is_better: bool,
    /// What does not count in `exact_match`.
    pub(crate) exact: Exact,
}

/// What does not count when two texts are compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exact {
    regexes_to_ignore: Vec<Regex>,
    ignore_case: bool,
    ignore_punctuation: bool,
    ignore_numbers: bool,
}

impl Exact {
    /// Whether an answer equals a target.
    pub(crate) fn equal(&self, answer: &str, target: &str) -> bool {
        self.clean(answer) == self.clean(target)
    }

    fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for regex in &self.regexes_to_ignore {
            text = regex.replace_all(&text, "").into_owned();
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        text.retain(|c| {
            !(self.ignore_punctuation && c.is_ascii_punctuation() || self.ignore_numbers && c.is_ascii_digit())
        });
        text
    }
}

/// The value of a metric for one document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Worth {
    Number(f64),
    /// A sum and what it is weighed by.
    Weighed(f64, usize),
    /// The right class and the one chosen.
    Classes(i64, i64),
    /// The right class and the probability of each.
    Probabilities(i64, Vec<f64>),
    /// Which instructions are followed.
    Verdicts(Vec<bool>),
    Nothing,
}

impl Worth {
    /// In the form of lm-eval's sample files.
    pub(crate) fn json(&self) -> Value {
        let number = |value: f64| serde_json::json!(value);
        match self {
            Self::Number(value) => number(*value),
            Self::Weighed(sum, weight) => serde_json::json!([sum, weight]),
            Self::Classes(right, chosen) => serde_json::json!([right, chosen]),
            Self::Probabilities(right, all) => serde_json::json!([right, all]),
            Self::Verdicts(followed) => serde_json::json!(followed),
            Self::Nothing => Value::Null,
        }
    }

    /// The plain number, where it is one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            _ => None,
        }
    }
}

/// What a task measures that does not say so.
pub(crate) fn default_metrics(output: OutputType) -> Vec<Metric> {
    let names: &[&str] = match output {
        OutputType::MultipleChoice => &["acc", "acc_norm"],
        OutputType::LogLikelihood => &["perplexity", "acc"],
        OutputType::Rolling => &["word_perplexity", "byte_perplexity", "bits_per_byte"],
        OutputType::Generate => &["exact_match"],
    };
    names.iter().filter_map(|name| usual(name)).collect()
}

fn usual(name: &str) -> Option<Metric> {
    let &(name, measure, aggregation, higher_is_better, _) = MEASURES.iter().find(|(known, ..)| *known == name)?;
    Some(Metric { name: name.to_owned(), measure, aggregation, higher_is_better, exact: Exact::default() })
}

/// Reads `metric_list`.
pub(crate) fn read_metrics(
    entry: &Entry,
    output: OutputType,
    results: Option<Function>,
    task: &str,
    data: &str,
) -> Result<Vec<Metric>, EvalError> {
    const EXACT: &[&str] = &["regexes_to_ignore", "ignore_case", "ignore_punctuation", "ignore_numbers"];
    let mut metrics = Vec::new();
    for item in entry.items() {
        let entries = item.entries()?;
        let keys = Keys(&entries);
        let named = keys.get("metric").ok_or_else(|| item.error("an entry of `metric_list` names its `metric`"))?;
        if let Some(function) = named.function() {
            return Err(named.error(format!(
                "the metric is the function `{function}` in Python, which this program does not run; use one of {}",
                names(output)
            )));
        }
        let name = named.text()?;
        let known = MEASURES.iter().find(|(known, .., outputs)| *known == name && outputs.contains(&output));
        if known.is_none() {
            return Err(named.error(format!(
                "there is no metric {name:?} for the output type `{}` of task {task:?} ({data}); its metrics are {}",
                output.name(),
                names(output)
            )));
        }
        let Some(mut metric) = usual(&name) else { continue };
        let own: &[&str] = if metric.measure == Measure::ExactMatch { EXACT } else { &[] };
        keys.only(&[&["metric", "aggregation", "higher_is_better", "hf_evaluate"], own].concat())?;
        if let Some(aggregation) = keys.get("aggregation") {
            metric.aggregation = read_aggregation(aggregation)?;
        }
        if let Some(higher) = keys.get("higher_is_better") {
            metric.higher_is_better = higher.bool()?;
        }
        let flag = |key: &str| keys.get(key).map_or(Ok(false), Entry::bool);
        metric.exact = Exact {
            regexes_to_ignore: keys.get("regexes_to_ignore").map(regexes).transpose()?.unwrap_or_default(),
            ignore_case: flag("ignore_case")?,
            ignore_punctuation: flag("ignore_punctuation")?,
            ignore_numbers: flag("ignore_numbers")?,
        };
        let of_ifeval = matches!(
            metric.measure,
            Measure::PromptStrict | Measure::InstructionsStrict | Measure::PromptLoose | Measure::InstructionsLoose
        );
        if of_ifeval != (results == Some(Function::IfevalResults)) {
            return Err(named.error(format!("{name:?} and `process_results` of ifeval go together alone")));
        }
        if results == Some(Function::TruthfulMass) && metric.measure != Measure::Accuracy {
            return Err(named.error("this task gives `acc` alone"));
        }
        metrics.push(metric);
    }
    if metrics.is_empty() {
        return Err(entry.error("`metric_list` is empty; name a metric"));
    }
    Ok(metrics)
}

fn names(output: OutputType) -> String {
    let of_output = MEASURES.iter().filter(|(.., outputs)| outputs.contains(&output));
    of_output.map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
}

fn read_aggregation(entry: &Entry) -> Result<Aggregation, EvalError> {
    let known = || AGGREGATIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if entry.function() == Some("utils.agg_inst_level_acc") {
        return Ok(Aggregation::Instructions);
    }
    if let Some(function) = entry.function() {
        return Err(entry.error(format!(
            "the aggregation is the function `{function}` in Python, which this program does not run; use one of {}",
            known()
        )));
    }
    let name = entry.text()?;
    let found = AGGREGATIONS.iter().find(|(known, _)| *known == name).map(|(_, aggregation)| *aggregation);
    found.ok_or_else(|| entry.error(format!("there is no aggregation {name:?}; it is one of {}", known())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_without_what_does_not_count() {
        let exact = Exact {
            regexes_to_ignore: vec![
                Regex::new(",").unwrap(),
                Regex::new("(?s).*#### ").unwrap(),
                Regex::new("\\.$").unwrap(),
            ],
            ignore_case: true,
            ..Exact::default()
        };
        assert!(exact.equal("1,234.", "long\nreasons\n#### 1234"));
        assert!(exact.equal("ABC", "abc") && !exact.equal("1 2", "12"));
        let exact = Exact { ignore_punctuation: true, ignore_numbers: true, ..Exact::default() };
        assert!(exact.equal("a-b 7!", "ab ") && !exact.equal("A", "a"));
        assert!(!Exact::default().equal("a ", "a"));
    }
}
