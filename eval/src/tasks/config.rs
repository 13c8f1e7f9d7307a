//! What the YAML file of a task says, as lm-eval's `TaskConfig` has it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::filter::{Pipeline, read_pipelines};
use super::function::{Function, Part};
use super::metric::{Metric, default_metrics, read_metrics};
use super::python;
use super::source::{Entries, Entry};
use crate::error::EvalError;

/// The keys of a task.
const KEYS: &[&str] = &[
    "task",
    "task_alias",
    "tag",
    "include",
    "custom_dataset",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "process_docs",
    "doc_to_text",
    "doc_to_target",
    "doc_to_image",
    "doc_to_audio",
    "unsafe_code",
    "doc_to_choice",
    "process_results",
    "use_prompt",
    "description",
    "target_delimiter",
    "fewshot_delimiter",
    "fewshot_config",
    "num_fewshot",
    "metric_list",
    "output_type",
    "generation_kwargs",
    "repeats",
    "filter_list",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "gen_prefix",
    "metadata",
];

/// How a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputType {
    /// Which of the choices is likeliest.
    MultipleChoice,
    /// How likely the target is after the prompt.
    LogLikelihood,
    /// How likely a whole text is.
    Rolling,
    /// A text that the model writes.
    Generate,
}

impl OutputType {
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("multiple_choice", Self::MultipleChoice),
        ("loglikelihood", Self::LogLikelihood),
        ("loglikelihood_rolling", Self::Rolling),
        ("generate_until", Self::Generate),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// How a part of a document becomes a text, a target or choices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    /// The name of a column, or a template.
    Template(String),
    /// A fixed value: a number, a list.
    Fixed(Value),
    /// One of the functions that stand in for Python's.
    Function(Function),
}

/// Where few-shot examples come from and how they are written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FewShot {
    /// Take the first ones in order, rather than draw.
    pub(crate) first: bool,
    pub(crate) split: Option<String>,
    /// Only these rows of the split.
    pub(crate) indices: Option<Vec<usize>>,
    /// Examples written in the task file.
    pub(crate) samples: Option<Vec<Value>>,
    pub(crate) text: Field,
    pub(crate) target: Field,
    pub(crate) choice: Option<Field>,
    pub(crate) gen_prefix: Option<String>,
    pub(crate) fewshot_delimiter: String,
    pub(crate) target_delimiter: String,
    pub(crate) process_docs: Option<Function>,
}

/// How texts are generated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Generation {
    pub(crate) until: Vec<String>,
    pub(crate) max_tokens: usize,
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) top_k: usize,
    /// As it stands in the file, for the samples.
    pub(crate) kwargs: Value,
}

/// What lm-eval writes at most where the task does not say.
const MAX_TOKENS: usize = 256;

/// Where the documents of a task are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataSource {
    /// `json`, `csv`, `parquet`, or the name of a data set.
    pub(crate) path: String,
    /// The part of the data set.
    pub(crate) name: Option<String>,
    pub(crate) kwargs: Map<String, Value>,
    /// The folder of the task file.
    pub(crate) folder: PathBuf,
}

impl DataSource {
    /// The name of the data set without that of who publishes it.
    pub(crate) fn last(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// A task.
#[derive(Clone, Debug)]
pub(crate) struct TaskConfig {
    pub(crate) task: String,
    pub(crate) alias: Option<String>,
    pub(crate) data: DataSource,
    pub(crate) training_split: Option<String>,
    pub(crate) validation_split: Option<String>,
    pub(crate) test_split: Option<String>,
    pub(crate) process_docs: Option<Function>,
    pub(crate) text: Field,
    pub(crate) target: Field,
    pub(crate) choice: Option<Field>,
    pub(crate) process_results: Option<Function>,
    pub(crate) description: String,
    pub(crate) target_delimiter: String,
    pub(crate) fewshot: FewShot,
    pub(crate) num_fewshot: Option<usize>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) output: OutputType,
    pub(crate) generation: Generation,
    pub(crate) repeats: usize,
    pub(crate) filters: Vec<Pipeline>,
    pub(crate) gen_prefix: Option<String>,
    pub(crate) metadata: Value,
    /// Every key as it stands in the files, for the results.
    pub(crate) raw: Map<String, Value>,
}

/// Looks up keys of a mapping; a key without a value is as good as absent.
pub(crate) struct Keys<'e>(pub(crate) &'e Entries);

impl<'e> Keys<'e> {
    pub(crate) fn get(&self, key: &str) -> Option<&'e Entry> {
        self.0.iter().find(|entry| entry.key == key && !entry.is_null())
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, EvalError> {
        self.get(key).map(Entry::text).transpose()
    }

    fn function(&self, key: &str, part: Part, data: &DataSource, task: &str) -> Result<Option<Function>, EvalError> {
        let Some(entry) = self.get(key) else { return Ok(None) };
        Function::find(entry, part, &data.path, task).map(Some)
    }

    fn field(&self, key: &str, part: Part, data: &DataSource, task: &str) -> Result<Option<Field>, EvalError> {
        let Some(entry) = self.get(key) else { return Ok(None) };
        if entry.function().is_some() {
            return Function::find(entry, part, &data.path, task).map(|function| Some(Field::Function(function)));
        }
        Ok(Some(match entry.json() {
            Value::String(template) => Field::Template(template),
            // The labels of a dictionary only help people.
            Value::Object(entries) => Field::Fixed(entries.into_iter().map(|(_, value)| value).collect()),
            other => Field::Fixed(other),
        }))
    }

    /// Refuses keys that are not among the known ones.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), EvalError> {
        match self.0.iter().find(|entry| !known.contains(&entry.key.as_str())) {
            Some(entry) => Err(entry.unknown(known)),
            None => Ok(()),
        }
    }
}

impl TaskConfig {
    /// Reads the keys of a task, includes already laid under them.
    pub(crate) fn read(entries: &Entries, file: &Path) -> Result<Self, EvalError> {
        let keys = Keys(entries);
        keys.only(KEYS)?;
        refuse_what_is_not_carried(&keys)?;
        let first = || EvalError::TaskFile {
            path: file.to_owned(),
            line: 1,
            column: 1,
            problem: "the task has no name; write `task: NAME`".to_owned(),
        };
        let task = keys.text("task")?.ok_or_else(first)?;
        let refuse = |problem: &str| EvalError::Task { task: task.clone(), problem: problem.to_owned() };
        let data = data_source(&keys, file)?;
        let output = match keys.get("output_type") {
            None => OutputType::Generate,
            Some(entry) => {
                let name = entry.text()?;
                let known = OutputType::ALL.iter().find(|(known, _)| *known == name);
                known.map(|(_, kind)| *kind).ok_or_else(|| {
                    entry.error(format!(
                        "there is no output type {name:?}; it is one of {}",
                        OutputType::ALL.map(|(name, _)| name).join(", ")
                    ))
                })?
            }
        };
        let text = keys.field("doc_to_text", Part::Text, &data, &task)?;
        let target = keys.field("doc_to_target", Part::Target, &data, &task)?;
        let choice = keys.field("doc_to_choice", Part::Choice, &data, &task)?;
        if output == OutputType::MultipleChoice && choice.is_none() {
            return Err(refuse(
                "it is multiple choice but has no `doc_to_choice`; name the column or write a template",
            ));
        }
        let text = text.ok_or_else(|| refuse("it has no `doc_to_text`; name the column or write a template"))?;
        let target = target.ok_or_else(|| refuse("it has no `doc_to_target`; name the column or write a template"))?;
        let fewshot_delimiter = keys.text("fewshot_delimiter")?.unwrap_or_else(|| "\n\n".to_owned());
        let process_docs = keys.function("process_docs", Part::Documents, &data, &task)?;
        let process_results = keys.function("process_results", Part::Results, &data, &task)?;
        let generation = read_generation(&keys, &fewshot_delimiter)?;
        let defaults = FewShot {
            first: false,
            split: keys.text("fewshot_split")?,
            indices: None,
            samples: None,
            text: text.clone(),
            target: target.clone(),
            choice: choice.clone(),
            gen_prefix: keys.text("gen_prefix")?,
            fewshot_delimiter: fewshot_delimiter.clone(),
            target_delimiter: keys.text("target_delimiter")?.unwrap_or_else(|| " ".to_owned()),
            process_docs,
        };
        let fewshot = read_fewshot(&keys, &data, &task, defaults.clone())?;
        let metrics = match keys.get("metric_list") {
            Some(entry) => read_metrics(entry, output, process_results, &task, &data.path)?,
            None => default_metrics(output),
        };
        let is_bbh = data.path.contains("bbh") || task.contains("bbh");
        let config = Self {
            alias: keys.text("task_alias")?,
            training_split: keys.text("training_split")?,
            validation_split: keys.text("validation_split")?,
            test_split: keys.text("test_split")?,
            process_docs,
            text,
            target,
            choice,
            process_results,
            description: keys.text("description")?.unwrap_or_default(),
            target_delimiter: defaults.target_delimiter,
            fewshot,
            num_fewshot: keys.get("num_fewshot").map(Entry::count).transpose()?,
            metrics,
            output,
            generation,
            repeats: keys.get("repeats").map(Entry::count).transpose()?.unwrap_or(1).max(1),
            filters: keys
                .get("filter_list")
                .map(|entry| read_pipelines(entry, output, is_bbh))
                .transpose()?
                .unwrap_or_default(),
            gen_prefix: defaults.gen_prefix,
            metadata: keys.get("metadata").map_or_else(|| json!({}), Entry::json),
            raw: entries
                .iter()
                .filter(|entry| !entry.is_null())
                .map(|entry| (entry.key.clone(), entry.json()))
                .collect(),
            data,
            task,
        };
        if config.eval_split().is_none() {
            return Err(EvalError::Task {
                task: config.task,
                problem: "it has neither `test_split` nor `validation_split`; name the split to evaluate on".to_owned(),
            });
        }
        Ok(config)
    }

    /// The split whose documents are asked.
    pub(crate) fn eval_split(&self) -> Option<&str> {
        self.test_split.as_deref().or(self.validation_split.as_deref())
    }

    /// The split that few-shot examples come from when none is named.
    pub(crate) fn usual_fewshot_split(&self) -> Option<&str> {
        self.training_split.as_deref().or(self.validation_split.as_deref()).or(self.test_split.as_deref())
    }

    /// The version that the task gives itself.
    pub(crate) fn version(&self) -> Value {
        self.metadata.get("version").cloned().unwrap_or_else(|| "Yaml".into())
    }

    /// The name that the filter of a task without filters has, or those of the task.
    pub(crate) fn filter_names(&self) -> Vec<&str> {
        if self.filters.is_empty() {
            return vec!["none"];
        }
        self.filters.iter().map(|filter| filter.name.as_str()).collect()
    }
}

fn refuse_what_is_not_carried(keys: &Keys<'_>) -> Result<(), EvalError> {
    if let Some(entry) = keys.get("unsafe_code")
        && entry.bool()?
    {
        return Err(entry.key_error("the task runs code that a model wrote, which this program does not do"));
    }
    for (key, why) in [
        (
            "custom_dataset",
            "it makes its data set by a program in Python; write the data to a file, and name it by `dataset_path: json`",
        ),
        ("doc_to_image", "models here read text only"),
        ("doc_to_audio", "models here read text only"),
        ("use_prompt", "prompts of promptsource are not carried; write the prompt as `doc_to_text`"),
    ] {
        if let Some(entry) = keys.get(key) {
            return Err(entry.key_error(format!("`{key}` cannot be used: {why}")));
        }
    }
    Ok(())
}

fn data_source(keys: &Keys<'_>, file: &Path) -> Result<DataSource, EvalError> {
    let kwargs = match keys.get("dataset_kwargs") {
        None => Map::new(),
        Some(entry) => {
            entry.entries()?;
            entry.json().as_object().cloned().unwrap_or_default()
        }
    };
    Ok(DataSource {
        path: keys.text("dataset_path")?.unwrap_or_default(),
        name: keys.text("dataset_name")?,
        kwargs,
        folder: file.parent().map_or_else(PathBuf::new, Path::to_owned),
    })
}

fn read_generation(keys: &Keys<'_>, fewshot_delimiter: &str) -> Result<Generation, EvalError> {
    const KNOWN: &[&str] =
        &["until", "do_sample", "temperature", "top_p", "top_k", "max_gen_toks", "max_new_tokens", "max_tokens"];
    let usual = || vec![fewshot_delimiter.to_owned()];
    let Some(entry) = keys.get("generation_kwargs") else {
        let kwargs = json!({"until": usual(), "do_sample": false, "temperature": 0.0});
        return Ok(Generation {
            until: usual(),
            max_tokens: MAX_TOKENS,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            kwargs,
        });
    };
    let entries = entry.entries()?;
    let keys = Keys(&entries);
    keys.only(KNOWN)?;
    let mut kwargs = entry.json();
    let until = if let Some(until) = keys.get("until") {
        until.texts()?
    } else {
        kwargs["until"] = json!(usual());
        usual()
    };
    let temperature = keys.get("temperature").map(Entry::number).transpose()?;
    if let Some(temperature) = temperature {
        kwargs["temperature"] = json!(temperature);
    }
    let samples = keys.get("do_sample").map(Entry::bool).transpose()?;
    let most = ["max_gen_toks", "max_new_tokens", "max_tokens"].into_iter().find_map(|key| keys.get(key));
    Ok(Generation {
        until,
        max_tokens: most.map(Entry::count).transpose()?.unwrap_or(MAX_TOKENS),
        temperature: match (samples, temperature) {
            (Some(true), temperature) => temperature.unwrap_or(1.0),
            (None, Some(temperature)) => temperature,
            _ => 0.0,
        },
        top_p: keys.get("top_p").map(Entry::number).transpose()?.unwrap_or(1.0),
        top_k: keys.get("top_k").map(Entry::count).transpose()?.unwrap_or(0),
        kwargs,
    })
}

fn read_fewshot(keys: &Keys<'_>, data: &DataSource, task: &str, defaults: FewShot) -> Result<FewShot, EvalError> {
    const KNOWN: &[&str] = &[
        "sampler",
        "split",
        "process_docs",
        "fewshot_indices",
        "samples",
        "doc_to_text",
        "doc_to_choice",
        "doc_to_target",
        "gen_prefix",
        "fewshot_delimiter",
        "target_delimiter",
    ];
    let Some(entry) = keys.get("fewshot_config") else { return Ok(defaults) };
    let entries = entry.entries()?;
    let keys = Keys(&entries);
    keys.only(KNOWN)?;
    let first = match keys.get("sampler") {
        None => false,
        Some(entry) => match entry.text()?.as_str() {
            "default" => false,
            "first_n" => true,
            other => return Err(entry.error(format!("there is no sampler {other:?}; it is `default` or `first_n`"))),
        },
    };
    let indices = match keys.get("fewshot_indices") {
        None => None,
        Some(entry) => Some(entry.items().iter().map(Entry::count).collect::<Result<_, _>>()?),
    };
    let samples = match keys.get("samples") {
        None => None,
        Some(entry) if entry.function().is_some() => {
            return Err(entry.error(
                "`samples` names a function in Python, which this program does not run; write the examples here",
            ));
        }
        Some(entry) => {
            entry.items().iter().try_for_each(|item| item.entries().map(|_| ()))?;
            entry.json().as_array().cloned()
        }
    };
    Ok(FewShot {
        first,
        split: keys.text("split")?.or(defaults.split),
        indices,
        samples,
        text: keys.field("doc_to_text", Part::Text, data, task)?.unwrap_or(defaults.text),
        target: keys.field("doc_to_target", Part::Target, data, task)?.unwrap_or(defaults.target),
        choice: keys.field("doc_to_choice", Part::Choice, data, task)?.or(defaults.choice),
        gen_prefix: keys.text("gen_prefix")?.or(defaults.gen_prefix),
        fewshot_delimiter: keys.text("fewshot_delimiter")?.unwrap_or(defaults.fewshot_delimiter),
        target_delimiter: keys.text("target_delimiter")?.unwrap_or(defaults.target_delimiter),
        process_docs: keys.function("process_docs", Part::Documents, data, task)?.or(defaults.process_docs),
    })
}

/// One metric of a group over its tasks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupMetric {
    pub(crate) metric: String,
    /// Empty: every filter that the tasks have.
    pub(crate) filters: Vec<String>,
    pub(crate) weight_by_size: bool,
}

/// A group of tasks.
#[derive(Clone, Debug)]
pub(crate) struct GroupConfig {
    pub(crate) group: String,
    pub(crate) alias: Option<String>,
    /// Names of tasks, groups or tags; or whole tasks and groups.
    pub(crate) members: Vec<Entry>,
    pub(crate) metrics: Vec<GroupMetric>,
    pub(crate) metadata: Value,
}

impl GroupConfig {
    /// Reads the keys of a group.
    pub(crate) fn read(entries: &Entries) -> Result<Self, EvalError> {
        const KNOWN: &[&str] = &[
            "group",
            "group_alias",
            "task",
            "aggregate_metric_list",
            "aggregate_metric",
            "metadata",
            "tag",
            "include",
        ];
        let keys = Keys(entries);
        keys.only(KNOWN)?;
        let mut metrics = Vec::new();
        for entry in keys.get("aggregate_metric_list").map(Entry::items).unwrap_or_default() {
            let entries = entry.entries()?;
            let keys = Keys(&entries);
            keys.only(&["metric", "filter_list", "aggregation", "weight_by_size", "higher_is_better"])?;
            if let Some(aggregation) = keys.get("aggregation")
                && (aggregation.function().is_some() || aggregation.text()? != "mean")
            {
                return Err(aggregation.error("metrics of a group are aggregated by `mean`"));
            }
            metrics.push(GroupMetric {
                metric: keys.text("metric")?.ok_or_else(|| entry.error("it names no `metric`"))?,
                filters: keys.get("filter_list").map(Entry::texts).transpose()?.unwrap_or_default(),
                weight_by_size: keys.get("weight_by_size").map(Entry::bool).transpose()?.unwrap_or(true),
            });
        }
        Ok(Self {
            group: keys.text("group")?.unwrap_or_default(),
            alias: keys.text("group_alias")?,
            members: keys.get("task").map(Entry::items).unwrap_or_default(),
            metrics,
            metadata: keys.get("metadata").map_or_else(|| json!({}), Entry::json),
        })
    }

    /// `str` of the version in `metadata`.
    pub(crate) fn version(&self) -> String {
        self.metadata.get("version").map_or_else(|| "N/A".to_owned(), python::text)
    }
}
