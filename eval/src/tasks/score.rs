//! From replies to values, of each document and of the task.

use serde_json::{Map, Value, json};

use super::aggregate::{Member, aggregate, pool, standard_error};
use super::build::{Benchmark, Document, Gold};
use super::config::{OutputType, TaskConfig};
use super::function::{Function, words};
use super::metric::{Measure, Worth};
use super::python;
use super::selection::Group;
use crate::ask::{Ask, Reply};
use crate::error::EvalError;
use crate::evaluation::{Evaluation, ItemResult, sha256};
use crate::ifeval::verdicts;
use crate::run::first_greatest;
use crate::statistics::Interval;
use crate::statistics::wilson::wilson;

/// One metric under one filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// `acc`, `exact_match`.
    pub metric: String,
    /// `none`, `strict-match`.
    pub filter: String,
    /// The value over all documents.
    pub value: f64,
    /// Its standard error, where there is one.
    pub error: Option<f64>,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// One model on one task.
#[derive(Clone, Debug)]
pub struct TaskScores {
    /// Name of the task.
    pub task: String,
    /// Its name in tables.
    pub alias: String,
    /// Version that the task gives itself.
    pub version: Value,
    /// Solved examples before each question.
    pub few_shot: usize,
    /// Every metric under every filter.
    pub scores: Vec<Score>,
    /// Documents asked.
    pub documents: usize,
    /// Documents of the whole task.
    pub original: usize,
    /// What a person should know: odd data, prompts that did not fit.
    pub warnings: Vec<String>,
    /// 95 % interval of the first score, where it is a share of documents.
    pub interval: Option<Interval>,
    /// Keys of the task file, for the results.
    pub(crate) config: Value,
    /// One a document and filter, as lm-eval writes them, filter after filter.
    pub(crate) samples: Vec<Sample>,
}

/// One model on a group of tasks.
#[derive(Clone, Debug)]
pub struct GroupScores {
    /// Name of the group.
    pub group: String,
    /// Its name in tables.
    pub alias: String,
    /// Its version.
    pub version: String,
    /// Tasks and groups directly in it.
    pub members: Vec<String>,
    /// Its metrics, by the sizes of its tasks or each task alike.
    pub scores: Vec<Score>,
    /// Documents of all its tasks.
    pub documents: usize,
}

/// A document as it was asked and answered.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) id: usize,
    pub(crate) document: Value,
    pub(crate) target: String,
    /// Arguments of each request.
    pub(crate) arguments: Vec<Vec<Value>>,
    /// Responses of each request.
    pub(crate) responses: Vec<Vec<Value>>,
    pub(crate) filtered: Vec<Value>,
    pub(crate) filter: String,
    pub(crate) metrics: Vec<(String, Worth)>,
    pub(crate) document_hash: String,
    pub(crate) prompt_hash: String,
    pub(crate) target_hash: String,
    /// Why it has no answer.
    pub(crate) error: Option<String>,
    pub(crate) choices: Vec<String>,
    /// What counts as right, normalised by length.
    pub(crate) logprobs: Vec<f64>,
}

/// Scores a task. `replies` has the replies of each document in the order of its asks.
pub(crate) fn score(benchmark: &Benchmark, replies: &[Vec<Reply>]) -> Result<TaskScores, EvalError> {
    let config = &benchmark.config;
    let mut samples = Vec::new();
    let mut scores = Vec::new();
    for (place, filter) in config.filter_names().into_iter().enumerate() {
        let start = samples.len();
        for (document, replies) in benchmark.documents.iter().zip(replies) {
            let sample = sample(config, document, replies, (place, filter)).map_err(|problem| EvalError::Task {
                task: config.task.clone(),
                problem: format!("document {}: {problem}", document.id),
            })?;
            samples.push(sample);
        }
        for metric in &config.metrics {
            let values: Vec<Worth> = samples[start..]
                .iter()
                .filter_map(|sample| sample.metrics.iter().find(|(name, _)| *name == metric.name))
                .map(|(_, worth)| worth.clone())
                .collect();
            scores.push(Score {
                metric: metric.name.clone(),
                filter: filter.to_owned(),
                value: aggregate(metric.aggregation, &values),
                error: standard_error(metric.aggregation, &values),
                higher_is_better: metric.higher_is_better,
            });
        }
    }
    let mut raw = config.raw.clone();
    raw.insert("num_fewshot".to_owned(), json!(benchmark.few_shot));
    let interval = shares(config, &samples).map(|right| {
        let count = right.iter().filter(|right| **right > 0.5).count();
        wilson(count, right.len(), 0.95)
    });
    Ok(TaskScores {
        interval,
        task: config.task.clone(),
        alias: config.alias.clone().unwrap_or_else(|| config.task.clone()),
        version: config.version(),
        few_shot: benchmark.few_shot,
        scores,
        documents: benchmark.documents.len(),
        original: benchmark.original,
        warnings: [benchmark.warnings.clone(), cut_warnings(benchmark, replies)].concat(),
        config: raw.into(),
        samples,
    })
}

/// The first metric of each document under the first filter, where it is 0 or 1.
fn shares(config: &TaskConfig, samples: &[Sample]) -> Option<Vec<f64>> {
    let filter = samples.first()?.filter.as_str();
    let metric = config.metrics.first()?;
    let first = |sample: &Sample| sample.metrics.first().and_then(|(_, worth)| worth.number());
    let values = samples.iter().filter(|sample| sample.filter == filter).map(first);
    let values = values.collect::<Option<Vec<f64>>>()?;
    let share = |value: &f64| value.abs() < f64::EPSILON || (value - 1.0).abs() < f64::EPSILON;
    (metric.measure != Measure::Perplexity && values.iter().all(share)).then_some(values)
}

impl TaskScores {
    /// The items under the first metric and filter, to be compared with another model's; `None` where that metric has no value for
    /// each item, as perplexities have.
    pub fn evaluation(&self, model: &str) -> Option<Evaluation> {
        let first = self.scores.first()?;
        let of_filter = self.samples.iter().filter(|sample| sample.filter == first.filter);
        let items: Vec<ItemResult> = of_filter
            .enumerate()
            .map(|(index, sample)| item(&self.task, index, sample, &first.metric))
            .collect::<Option<_>>()?;
        let right = items.iter().filter(|item| item.correct).count();
        let normalized = self.scores.iter().find(|score| score.metric == "acc_norm").map(|score| score.value);
        Some(Evaluation {
            task: self.task.clone(),
            model: model.to_owned(),
            few_shot: self.few_shot,
            metric: first.metric.clone(),
            accuracy: first.value,
            accuracy_normalized: normalized,
            wilson: wilson(right, items.len(), 0.95),
            items,
        })
    }
}

fn item(task: &str, index: usize, sample: &Sample, metric: &str) -> Option<ItemResult> {
    let value =
        |name: &str| sample.metrics.iter().find(|(known, _)| known == name).and_then(|(_, worth)| worth.number());
    let score = value(metric).filter(|score| (0.0..=1.0).contains(score))?;
    let argument = |at: usize| sample.arguments.get(at).and_then(|arguments| arguments.first()).map(python::text);
    let continuations: Vec<String> =
        sample.arguments.iter().filter_map(|arguments| arguments.get(1)).map(python::text).collect();
    let likeliest = first_greatest(&sample.logprobs).and_then(|at| sample.choices.get(at).cloned());
    let response = sample.responses.first().and_then(|repeats| repeats.first()).map(python::text).unwrap_or_default();
    let filtered = sample.filtered.first().map(python::text).unwrap_or_default();
    let ranked = !sample.logprobs.is_empty();
    Some(ItemResult {
        id: format!("{task}#{}", sample.id + 1),
        index,
        doc_hash: sample.document_hash.clone(),
        prompt_hash: sample.prompt_hash.clone(),
        target_hash: sample.target_hash.clone(),
        target: sample.target.clone(),
        doc: sample.document.clone(),
        prompt: argument(0).unwrap_or_default(),
        response: likeliest.clone().unwrap_or(response),
        extracted: likeliest.unwrap_or(filtered),
        continuations: if ranked { continuations } else { Vec::new() },
        logprobs: sample.logprobs.clone(),
        correct: score > 0.5,
        correct_normalized: value("acc_norm").map(|value| value > 0.5),
        score,
        error: sample.error.clone(),
    })
}

/// How many questions did not fit, and how many have no answer.
fn cut_warnings(benchmark: &Benchmark, replies: &[Vec<Reply>]) -> Vec<String> {
    let count = |odd: &dyn Fn(&Reply) -> bool| replies.iter().filter(|replies| replies.iter().any(odd)).count();
    let all = benchmark.documents.len();
    let cut = count(&|reply| matches!(reply, Reply::Likelihood { cut: 1.., .. } | Reply::Text { cut: 1.., .. }));
    let failed = count(&|reply| matches!(reply, Reply::Failed(_)));
    let reason =
        replies.iter().flatten().find_map(|reply| if let Reply::Failed(reason) = reply { Some(reason) } else { None });
    let mut warnings = Vec::new();
    if cut > 0 {
        warnings.push(format!(
            "{cut} of {all} prompts are longer than the model's window and lost their beginning; ask with fewer examples"
        ));
    }
    if let Some(reason) = reason {
        warnings.push(format!("{failed} of {all} documents have no answer and count as wrong: {reason}"));
    }
    warnings
}

fn sample(
    config: &TaskConfig,
    document: &Document,
    replies: &[Reply],
    (place, filter): (usize, &str),
) -> Result<Sample, String> {
    let error =
        replies.iter().find_map(|reply| if let Reply::Failed(reason) = reply { Some(reason.clone()) } else { None });
    let arguments: Vec<Vec<Value>> = requests(config, document).map(|ask| arguments(ask, config)).collect();
    let prompt = arguments.first().and_then(|arguments| arguments.first()).map(python::text).unwrap_or_default();
    let target = python::text(&document.target);
    let responses: Vec<Value> = replies.iter().map(|reply| response(reply, config.output)).collect();
    let mut sample = Sample {
        id: document.id,
        document: document.row.clone(),
        document_hash: sha256(&python::json(&document.row)),
        prompt_hash: sha256(&prompt),
        target_hash: sha256(&target),
        target,
        arguments,
        responses: match config.output {
            OutputType::Generate => vec![responses.clone()],
            _ => responses.iter().map(|response| vec![response.clone()]).collect(),
        },
        filtered: responses,
        filter: filter.to_owned(),
        metrics: Vec::new(),
        error,
        choices: document.choices.clone(),
        logprobs: Vec::new(),
    };
    let likelihoods: Vec<(f64, bool)> = replies
        .iter()
        .map(|reply| match reply {
            Reply::Likelihood { logprob, greedy, .. } => (*logprob, *greedy),
            // No answer is wrong by any count.
            _ => (f64::NEG_INFINITY, false),
        })
        .collect();
    sample.metrics = match config.output {
        OutputType::Generate => {
            let texts: Vec<String> = replies
                .iter()
                .map(|reply| if let Reply::Text { text, .. } = reply { text.clone() } else { String::new() })
                .collect();
            let answer = match config.filters.get(place) {
                Some(pipeline) => pipeline.apply(&texts, &document.row)?,
                None => texts.first().cloned().unwrap_or_default().into(),
            };
            sample.filtered = vec![answer.clone()];
            generated(config, document, &answer, sample.error.is_some())?
        }
        OutputType::MultipleChoice => {
            sample.logprobs = likelihoods.iter().take(document.choices.len()).map(|(logprob, _)| *logprob).collect();
            multiple_choice(config, document, &likelihoods, sample.error.is_some())
        }
        OutputType::LogLikelihood => {
            let (logprob, greedy) = likelihoods.first().copied().unwrap_or((f64::NEG_INFINITY, false));
            each(config, |measure| match measure {
                Measure::Perplexity => Worth::Number(logprob),
                _ => Worth::Number(f64::from(u8::from(greedy))),
            })
        }
        OutputType::Rolling => {
            let logprob = likelihoods.first().map_or(f64::NEG_INFINITY, |(logprob, _)| *logprob);
            let text = match (config.process_results, document.row.get("page")) {
                // Counted before the text was made plain.
                (Some(Function::WikitextResults), Some(page)) => python::text(page),
                _ => python::text(&document.target),
            };
            each(config, |measure| match measure {
                Measure::WordPerplexity => Worth::Weighed(logprob, words(&text)),
                _ => Worth::Weighed(logprob, text.len()),
            })
        }
    };
    Ok(sample)
}

/// The requests as lm-eval counts them: repeats are one.
fn requests<'d>(config: &TaskConfig, document: &'d Document) -> impl Iterator<Item = &'d Ask> {
    let most = if config.output == OutputType::Generate { 1 } else { usize::MAX };
    document.asks.iter().take(most)
}

fn arguments(ask: &Ask, config: &TaskConfig) -> Vec<Value> {
    match ask {
        Ask::Continuation { prompt, continuation } => vec![prompt.as_text().into(), continuation.as_str().into()],
        Ask::Whole { text } => vec![text.as_str().into()],
        Ask::Text { prompt, .. } => vec![prompt.as_text().into(), config.generation.kwargs.clone()],
    }
}

/// A reply as lm-eval has it: numbers and truth values as Python's texts.
fn response(reply: &Reply, output: OutputType) -> Value {
    match reply {
        Reply::Likelihood { logprob, .. } if output == OutputType::Rolling => python::float(*logprob).into(),
        Reply::Likelihood { logprob, greedy, .. } => {
            json!([python::float(*logprob), if *greedy { "True" } else { "False" }])
        }
        Reply::Text { text, .. } => text.as_str().into(),
        Reply::Failed(_) => "".into(),
    }
}

fn each(config: &TaskConfig, worth: impl Fn(Measure) -> Worth) -> Vec<(String, Worth)> {
    config
        .metrics
        .iter()
        .map(|metric| {
            let worth = if metric.measure == Measure::Bypass { Worth::Nothing } else { worth(metric.measure) };
            (metric.name.clone(), worth)
        })
        .collect()
}

fn multiple_choice(
    config: &TaskConfig,
    document: &Document,
    replies: &[(f64, bool)],
    failed: bool,
) -> Vec<(String, Worth)> {
    let count = document.choices.len();
    let logprobs: Vec<f64> = replies.iter().take(count).map(|(logprob, _)| *logprob).collect();
    if config.process_results == Some(Function::TruthfulMass) {
        let labels = document.row.pointer("/mc2_targets/labels").and_then(Value::as_array);
        let mass = if failed { 0.0 } else { true_mass(&logprobs, labels.map_or(&[], Vec::as_slice)) };
        return each(config, |_| Worth::Number(mass));
    }
    let per = |length: &dyn Fn(&str) -> usize| -> Vec<f64> {
        logprobs.iter().zip(&document.choices).map(|(logprob, choice)| logprob / length(choice) as f64).collect()
    };
    let right = |values: &[f64]| {
        let chosen = first_greatest(values);
        let right = !failed
            && match &document.gold {
                Gold::One(gold) => chosen == Some(*gold),
                Gold::Several(all) => chosen.is_some_and(|chosen| all.contains(&chosen)),
                Gold::None => false,
            };
        Worth::Number(f64::from(u8::from(right)))
    };
    let gold = match &document.gold {
        Gold::One(gold) => vec![*gold],
        Gold::Several(all) => all.clone(),
        Gold::None => Vec::new(),
    };
    let class = gold.first().map_or(-100, |gold| *gold as i64);
    each(config, |measure| match measure {
        Measure::AccuracyNormalized => right(&per(&|choice| choice.chars().count())),
        Measure::AccuracyBytes => right(&per(&str::len)),
        Measure::AccuracyMutualInformation => {
            let alone = replies.iter().skip(count).map(|(logprob, _)| *logprob);
            right(&logprobs.iter().zip(alone).map(|(with, without)| with - without).collect::<Vec<_>>())
        }
        Measure::ExactMatch => Worth::Number(f64::from(u8::from(
            gold.iter().any(|&gold| replies.get(gold).is_some_and(|(_, greedy)| *greedy)),
        ))),
        Measure::F1 | Measure::Matthews => {
            Worth::Classes(class, first_greatest(&logprobs).map_or(-1, |chosen| chosen as i64))
        }
        Measure::Brier => Worth::Probabilities(class, softmax(&logprobs)),
        _ => right(&logprobs),
    })
}

fn softmax(logprobs: &[f64]) -> Vec<f64> {
    let greatest = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logprobs.iter().map(|logprob| (logprob - greatest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// The share of probability on the choices labelled 1.
fn true_mass(logprobs: &[f64], labels: &[Value]) -> f64 {
    let probabilities: Vec<f64> = logprobs.iter().map(|logprob| logprob.exp()).collect();
    let total: f64 = probabilities.iter().sum();
    let on_true = probabilities.iter().zip(labels).filter(|(_, label)| label.as_i64() == Some(1));
    on_true.map(|(probability, _)| probability / total).sum()
}

fn generated(
    config: &TaskConfig,
    document: &Document,
    answer: &Value,
    failed: bool,
) -> Result<Vec<(String, Worth)>, String> {
    let answer = python::text(answer);
    if config.process_results == Some(Function::IfevalResults) {
        let verdicts = verdicts(&document.row, &answer).map_err(|error| error.to_string())?;
        let all = |followed: bool| Worth::Number(f64::from(u8::from(followed)));
        return Ok(each(config, |measure| match measure {
            Measure::PromptStrict => all(verdicts.all_strict()),
            Measure::InstructionsStrict => Worth::Verdicts(verdicts.strict.clone()),
            Measure::PromptLoose => all(verdicts.all_loose()),
            _ => Worth::Verdicts(verdicts.loose.clone()),
        }));
    }
    let targets: Vec<String> = match (&document.target, document.choices.is_empty()) {
        (target, false) => {
            let place = target.as_u64().and_then(|place| usize::try_from(place).ok());
            let choice = place.and_then(|place| document.choices.get(place));
            vec![
                choice
                    .cloned()
                    .ok_or_else(|| format!("the target {} is no place of a choice", python::repr(target)))?,
            ]
        }
        (Value::Array(targets), true) => targets.iter().map(python::text).collect(),
        (target, true) => vec![python::text(target)],
    };
    let mut worths = Vec::new();
    for metric in &config.metrics {
        let equal = !failed && targets.iter().any(|target| metric.exact.equal(&answer, target));
        let worth =
            if metric.measure == Measure::Bypass { Worth::Nothing } else { Worth::Number(f64::from(u8::from(equal))) };
        worths.push((metric.name.clone(), worth));
    }
    Ok(worths)
}

/// A group over the scores of its tasks.
pub(crate) fn group_scores(group: &Group, tasks: &[TaskScores]) -> GroupScores {
    let config = &group.config;
    let own: Vec<&TaskScores> =
        group.tasks.iter().filter_map(|name| tasks.iter().find(|task| task.task == *name)).collect();
    let mut scores = Vec::new();
    for metric in &config.metrics {
        let mut filters: Vec<String> = metric.filters.clone();
        if filters.is_empty() {
            let of_tasks = own.iter().flat_map(|task| &task.scores).filter(|score| score.metric == metric.metric);
            filters = of_tasks.map(|score| score.filter.clone()).collect();
            filters.sort();
            filters.dedup();
        }
        for filter in filters {
            let mut higher = true;
            let members: Vec<Member> = own
                .iter()
                .filter_map(|task| {
                    let score =
                        task.scores.iter().find(|score| score.metric == metric.metric && score.filter == filter)?;
                    higher = score.higher_is_better;
                    Some(Member { value: score.value, error: score.error, size: task.documents })
                })
                .collect();
            if members.is_empty() {
                continue;
            }
            let (value, error) = pool(&members, metric.weight_by_size);
            scores.push(Score { metric: metric.metric.clone(), filter, value, error, higher_is_better: higher });
        }
    }
    GroupScores {
        group: config.group.clone(),
        alias: config.alias.clone().unwrap_or_else(|| config.group.clone()),
        version: config.version(),
        members: group.children.clone(),
        scores,
        documents: own.iter().map(|task| task.documents).sum(),
    }
}

/// A sample in lm-eval's form.
pub(crate) fn sample_json(sample: &Sample) -> Value {
    let arguments: Map<String, Value> = sample
        .arguments
        .iter()
        .enumerate()
        .map(|(index, arguments)| {
            let arguments = arguments.iter().enumerate().map(|(at, value)| (format!("arg_{at}"), value.clone()));
            (format!("gen_args_{index}"), Value::Object(arguments.collect()))
        })
        .collect();
    let mut json = json!({
        "doc_id": sample.id,
        "doc": sample.document,
        "target": sample.target,
        "arguments": arguments,
        "resps": sample.responses,
        "filtered_resps": sample.filtered,
        "filter": sample.filter,
        "metrics": sample.metrics.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        "doc_hash": sample.document_hash,
        "prompt_hash": sample.prompt_hash,
        "target_hash": sample.target_hash,
    });
    for (name, worth) in &sample.metrics {
        json[name.as_str()] = worth.json();
    }
    if let Some(error) = &sample.error {
        json["error"] = error.as_str().into();
    }
    json
}

#[cfg(test)]
mod tests;
