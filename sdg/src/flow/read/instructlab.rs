//! Pipelines of instructlab-sdg 0.8.3, as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_taxonomy::Place;
use espalier_taxonomy::yaml::{Fields, Node, Report, Value, list, text};

use super::values::{number, pairs, pattern, raw_text, raw_texts, required_words, texts, whole, words};
use super::{Files, block_name, forget, key_places, unknown_type};
use crate::flow::block::BlockKind;
use crate::flow::block::columns::Columns;
use crate::flow::block::filter::{Filter, Operation, Type, ValueFilter};
use crate::flow::block::llm::{Ask, Generation, Llm, Samples};
use crate::flow::block::parse::{Parse, Pattern};
use crate::flow::prompt::{FlowPrompt, Template};
use crate::flow::{Block, Budget, Flow};

/// The types of blocks.
const TYPES: [&str; 12] = [
    "LLMBlock",
    "ConditionalLLMBlock",
    "LLMMessagesBlock",
    "FilterByValueBlock",
    "IterBlock",
    "SamplePopulatorBlock",
    "SelectorBlock",
    "CombineColumnsBlock",
    "FlattenColumnsBlock",
    "DuplicateColumnsBlock",
    "RenameColumnsBlock",
    "SetToMajorityValueBlock",
];

pub(super) fn read(fields: &mut Fields, name: &str, files: &mut Files, report: &mut Report<'_>) -> Option<Flow> {
    let version = fields.require("version", report)?;
    let place = version.place;
    let version = raw_text(version, "version", report)?;
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major > 1) {
        let message = format!("version {version} of pipelines is not known");
        report.error(place, message, "write `version: \"1.0\"`, or `espalier: 1` in place of it for a flow of ours");
    }
    let blocks = fields.require("blocks", report).and_then(|node| list(node, "blocks", report));
    let mut taken = Vec::new();
    let blocks = blocks?.into_iter().map(|node| block(node, &mut taken, files, report)).collect::<Vec<_>>();
    Some(Flow {
        name: name.to_owned(),
        version,
        file: std::path::PathBuf::new(),
        blocks: blocks.into_iter().collect::<Option<_>>()?,
        outputs: Vec::new(),
        budget: Budget::default(),
        auxiliary_instructions: auxiliary_instructions(fields, report),
        hash: String::new(),
    })
}

fn auxiliary_instructions(fields: &mut Fields, report: &mut Report<'_>) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let mixing = fields.take("datamixing").and_then(|(_, node)| Fields::of(node, "`datamixing`", report));
    let Some(mut mixing) = mixing else { return found };
    if let Some((_, node)) = mixing.take("auxiliary_instructions")
        && let Some(entries) = Fields::of(node, "`auxiliary_instructions`", report)
    {
        for (key, node) in entries.take_all() {
            let texts = texts(node, "auxiliary_instructions", report).unwrap_or_default();
            found.insert(key.name, texts.into_iter().map(|(text, _)| text).collect());
        }
    }
    mixing.refuse_the_rest(report);
    found
}

fn block(node: Node, taken: &mut Vec<String>, files: &mut Files, report: &mut Report<'_>) -> Option<Block> {
    let (place, mut keys) = (node.place, key_places(&node));
    let mut fields = Fields::of(node, "a block", report)?;
    let name = block_name(&mut fields, taken, report);
    let kind = fields.required_text("type", report);
    let config = fields.require("config", report);
    let drop_columns = words(&mut fields, "drop_columns", report);
    let drop_duplicates = words(&mut fields, "drop_duplicates", report);
    fields.refuse_the_rest(report);
    let (kind, kind_place) = kind?;
    let config = config?;
    keys.extend(key_places(&config));
    let mut fields = Fields::of(config, "the `config` of a block", report)?;
    let mut reader = Reader { files, report };
    let kind = reader.kind(&kind, kind_place, &mut fields);
    fields.refuse_the_rest(report);
    Some(Block { name: name?, after: None, kind: kind?, drop_columns, drop_duplicates, place, keys })
}

/// What stands around each value in an answer.
type Tags = Vec<(String, String)>;

struct Reader<'a, 'r> {
    files: &'a mut Files,
    report: &'a mut Report<'r>,
}

impl Reader<'_, '_> {
    fn kind(&mut self, kind: &str, place: Place, fields: &mut Fields) -> Option<BlockKind> {
        let report = &mut *self.report;
        Some(match kind {
            "LLMBlock" => self.llm(fields, false)?,
            "ConditionalLLMBlock" => self.llm(fields, true)?,
            "LLMMessagesBlock" => self.messages(fields)?,
            "FilterByValueBlock" => BlockKind::Filter(Filter::Value(filter(fields, report)?)),
            "IterBlock" => {
                let count = fields.require("num_iters", report).and_then(|node| whole(&node, "num_iters", 0, report));
                let (inner, place) = fields.required_text("block_type", report)?;
                BlockKind::Each { count: count?, block: Box::new(self.kind(&inner, place, fields)?) }
            }
            "SamplePopulatorBlock" => BlockKind::Columns(self.populate(fields)?),
            "SelectorBlock" => {
                let choices = fields.require("choice_map", report).and_then(|node| pairs(node, "choice_map", report));
                let by = fields.required_text("choice_col", report);
                let (output, _) = fields.required_text("output_col", report)?;
                BlockKind::Columns(Columns::Select { by: by?.0, choices: choices?.into_iter().collect(), output })
            }
            "CombineColumnsBlock" => {
                let columns = required_words(fields, "columns", report);
                let (output, _) = fields.required_text("output_col", report)?;
                let separator = fields.take("separator").and_then(|(_, node)| raw_text(node, "separator", report));
                let separator = separator.unwrap_or_else(|| "\n\n".to_owned());
                BlockKind::Columns(Columns::Combine { columns: columns?, output, separator })
            }
            "FlattenColumnsBlock" => {
                let columns = required_words(fields, "var_cols", report);
                let value = fields.required_text("value_name", report);
                let (name, _) = fields.required_text("var_name", report)?;
                BlockKind::Columns(Columns::Flatten { columns: columns?, name, value: value?.0 })
            }
            "DuplicateColumnsBlock" => BlockKind::Columns(Columns::Copy(columns_map(fields, report)?)),
            "RenameColumnsBlock" => BlockKind::Columns(Columns::Rename(columns_map(fields, report)?)),
            "SetToMajorityValueBlock" => {
                BlockKind::Columns(Columns::Majority { column: fields.required_text("col_name", report)?.0 })
            }
            "LLMLogProbBlock" => {
                forget(fields);
                report.error(
                    place,
                    "LLMLogProbBlock does nothing in instructlab-sdg 0.8.3: its body is switched off there",
                    "use an LLMBlock; a flow of ours keeps log-probabilities with `top_logprobs`",
                );
                return None;
            }
            other => {
                unknown_type(other, place, &TYPES, fields, report);
                return None;
            }
        })
    }

    fn llm(&mut self, fields: &mut Fields, conditional: bool) -> Option<BlockKind> {
        for ignored in ["model_id", "model_family", "model_prompt"] {
            fields.take(ignored);
        }
        let outputs = required_words(fields, "output_cols", self.report);
        let asked = if conditional { self.choice(fields) } else { self.single(fields) };
        let (generation, samples) = gen_kwargs(fields, self.report);
        let custom = fields.take("parser_kwargs").and_then(|(_, node)| parser(node, self.report));
        let num_samples = fields.take("batch_kwargs").and_then(|(_, node)| batch(node, self.report));
        let (ask, tags, place): (Ask, Tags, Place) = asked?;
        let parse = custom.or_else(|| (!tags.is_empty()).then_some(Parse::Tags(tags)));
        if parse.is_none() {
            let message = "the prompt names no `start_tags` and `end_tags`, and the block has no parser of its own";
            self.report.error(place, message, "add `start_tags: [\"\"]` and `end_tags: [\"\"]` to the prompt's file");
        }
        let llm = Llm { ask, outputs: outputs?, parse: parse?, samples, retries: 0, num_samples };
        Some(BlockKind::Llm(Box::new(llm), generation))
    }

    fn single(&mut self, fields: &mut Fields) -> Option<(Ask, Tags, Place)> {
        let (path, place) = fields.required_text("config_path", self.report)?;
        let (prompt, tags) = self.config(&path, place)?;
        Some((Ask::Prompt(prompt), tags, place))
    }

    /// The tags of all are those of the first.
    fn choice(&mut self, fields: &mut Fields) -> Option<(Ask, Tags, Place)> {
        let by = fields.required_text("selector_column_name", self.report);
        let node = fields.require("config_paths", self.report)?;
        let place = node.place;
        let mut prompts = BTreeMap::new();
        let mut tags = None;
        for pair in list(node, "config_paths", self.report)? {
            let pair_place = pair.place;
            let pair = raw_texts(pair, "config_paths", self.report)?;
            let [path, key] = pair.as_slice() else {
                let hint = "write `- [prompt.yaml, value]`";
                self.report.error(pair_place, "an entry of `config_paths` is a file and a value", hint);
                return None;
            };
            let (prompt, own) = self.config(path, pair_place)?;
            tags.get_or_insert(own);
            prompts.insert(key.clone(), prompt);
        }
        let Some(tags) = tags else {
            self.report.error(place, "`config_paths` is empty", "write `- [prompt.yaml, value]`");
            return None;
        };
        let ask = match prompts.remove("All") {
            Some(prompt) if prompts.is_empty() => Ask::Prompt(prompt),
            Some(prompt) => {
                prompts.insert("All".to_owned(), prompt);
                Ask::Choice { by: by?.0, prompts }
            }
            None => Ask::Choice { by: by?.0, prompts },
        };
        Some((ask, tags, place))
    }

    fn messages(&mut self, fields: &mut Fields) -> Option<BlockKind> {
        fields.take("model_id");
        let input = fields.required_text("input_col", self.report);
        let (output, _) = fields.required_text("output_col", self.report)?;
        let (mut generation, samples) = gen_kwargs(fields, self.report);
        let samples = match samples {
            Samples::Count(count) => Samples::List(count),
            other => other,
        };
        // Theirs: equal answers would make no sense.
        if !matches!(samples, Samples::List(1)) && generation.temperature <= 0.0 {
            generation.temperature = 0.7;
        }
        let ask = Ask::Conversation { column: input?.0 };
        let llm = Llm { ask, outputs: vec![output], parse: Parse::Verbatim, samples, retries: 0, num_samples: None };
        Some(BlockKind::Llm(Box::new(llm), generation))
    }

    /// A prompt's file: five parts, of which the first is the system's turn.
    fn config(&mut self, path: &str, place: Place) -> Option<(FlowPrompt, Tags)> {
        let node = self.files.yaml(path, place, self.report)?;
        let Value::Mapping(entries) = node.value else {
            self.report.error(place, format!("{path} is not a prompt"), "a prompt has `system`, `introduction`, ...");
            return None;
        };
        let mut parts: BTreeMap<String, Node> = entries.into_iter().map(|(key, node)| (key.name, node)).collect();
        let mut part = |name: &str, report: &mut Report<'_>| {
            if let Some(node) = parts.remove(name) {
                raw_text(Node { place, ..node }, name, report)
            } else {
                let hint = format!("add `{name}: \"\"` to that file");
                report.error(place, format!("`{name}` is missing in the prompt {path}"), hint);
                None
            }
        };
        let system = part("system", self.report);
        let user = ["introduction", "principles", "examples", "generation"].map(|name| part(name, self.report));
        let user: Option<Vec<String>> = user.into_iter().collect();
        let mut tags = |name: &str, report: &mut Report<'_>| match parts.remove(name) {
            Some(node) => raw_texts(Node { place, ..node }, name, report),
            None => Some(Vec::new()),
        };
        let (starts, ends) = (tags("start_tags", self.report)?, tags("end_tags", self.report)?);
        let template = Template::Config { system: system?, user: user?.join("\n") };
        Some((FlowPrompt { name: path.to_owned(), template }, starts.into_iter().zip(ends).collect()))
    }

    fn populate(&mut self, fields: &mut Fields) -> Option<Columns> {
        let paths =
            fields.require("config_paths", self.report).and_then(|node| texts(node, "config_paths", self.report));
        let by = fields.required_text("column_name", self.report);
        let post_fix = fields.take("post_fix").and_then(|(_, node)| raw_text(node, "post_fix", self.report));
        let mut found = BTreeMap::new();
        for (path, place) in paths? {
            let key = path.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default().to_owned();
            let path = match post_fix.as_deref() {
                None | Some("") => path,
                Some(post_fix) => path.replace(".yaml", &format!("_{post_fix}.yaml")),
            };
            if let serde_json::Value::Object(entries) = self.files.yaml(&path, place, self.report)?.to_json() {
                found.insert(key, entries)
            } else {
                self.report.error(place, format!("{path} is not a mapping"), "write `column: value` lines");
                return None;
            };
        }
        Some(Columns::Populate { by: by?.0, entries: found })
    }
}

fn columns_map(fields: &mut Fields, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let node = fields.require("columns_map", report)?;
    pairs(node, "columns_map", report)
}

/// How a model writes, and how often.
fn gen_kwargs(fields: &mut Fields, report: &mut Report<'_>) -> (Generation, Samples) {
    let (mut generation, mut samples) = (Generation::default(), Samples::Count(1));
    let node = fields.take("gen_kwargs").map(|(_, node)| node).filter(|node| node.value != Value::Null);
    let Some(mut fields) = node.and_then(|node| Fields::of(node, "`gen_kwargs`", report)) else {
        return (generation, samples);
    };
    fields.take("model");
    if let Some((_, node)) = fields.take("n") {
        samples = match &node.value {
            Value::Text(word) if word == "scaled" => Samples::Scaled,
            _ => whole(&node, "n", 1, report).map_or(samples, Samples::Count),
        };
    }
    let mut numbers = |name: &'static str, to: f64| {
        let found = fields.take(name);
        found.and_then(|(_, node)| number(&node, name, 0.0, to, report))
    };
    if let Some(temperature) = numbers("temperature", 10.0) {
        generation.temperature = temperature as f32;
    }
    if let Some(top_p) = numbers("top_p", 1.0) {
        generation.top_p = top_p as f32;
    }
    if let Some(max_tokens) = numbers("max_tokens", f64::INFINITY) {
        generation.max_tokens = max_tokens as usize;
    }
    if let Some(seed) = numbers("seed", f64::INFINITY) {
        generation.seed = seed as u64;
    }
    let stop = fields.take("stop").and_then(|(_, node)| raw_texts(node, "stop", report));
    generation.stop = stop.unwrap_or_default();
    fields.refuse_the_rest(report);
    (generation, samples)
}

fn parser(node: Node, report: &mut Report<'_>) -> Option<Parse> {
    let mut fields = Fields::of(node, "`parser_kwargs`", report)?;
    let name = fields.take("parser_name").and_then(|(_, node)| text(node, "parser_name", report));
    let found = fields.take("parsing_pattern").and_then(|(_, node)| text(node, "parsing_pattern", report));
    let cleanup = words(&mut fields, "parser_cleanup_tags", report);
    fields.refuse_the_rest(report);
    let (name, place) = name?;
    if name != "custom" {
        return None;
    }
    let Some(found) = found else {
        report.error(place, "the parser `custom` needs `parsing_pattern`", "add the pattern");
        return None;
    };
    Some(Parse::Regex(Arc::new(Pattern { regex: pattern(&found, report)?, cleanup })))
}

/// `batched` is how theirs asks a server, and means nothing here.
fn batch(node: Node, report: &mut Report<'_>) -> Option<i64> {
    let mut fields = Fields::of(node, "`batch_kwargs`", report)?;
    fields.take("batched");
    let count = fields.take("num_samples").and_then(|(_, node)| whole(&node, "num_samples", 1, report));
    fields.refuse_the_rest(report);
    count.map(|count| count as i64)
}

fn filter(fields: &mut Fields, report: &mut Report<'_>) -> Option<ValueFilter> {
    let column = fields.required_text("filter_column", report);
    let values = fields.require("filter_value", report).map(|node| match node.to_json() {
        serde_json::Value::Array(values) => values,
        value => vec![value],
    });
    let operation = fields.required_text("operation", report);
    let kind = fields.take("convert_dtype").and_then(|(_, node)| text(node, "convert_dtype", report));
    let default = fields.take("default_value").map(|(_, node)| node.to_json());
    let (operation, place) = operation?;
    let operation = one_of(&operation, place, "operation", &Operation::NAMES, report)?;
    let convert = match kind {
        None => None,
        Some((kind, place)) => {
            let kind = one_of(&kind, place, "convert_dtype", &Type::NAMES, report)?;
            let default = match default {
                None | Some(serde_json::Value::Null) => kind.default_value(),
                Some(given) => {
                    if let Some(default) = kind.convert(&given) {
                        default
                    } else {
                        report.error(place, "`default_value` cannot be converted", "give one of the type");
                        return None;
                    }
                }
            };
            Some((kind, default))
        }
    };
    let mut values = values?;
    if let Some((kind, default)) = &convert {
        for value in &mut values {
            *value = kind.convert(value).unwrap_or_else(|| default.clone());
        }
    }
    Some(ValueFilter { column: column?.0, values, operation, convert })
}

fn one_of<T: Copy>(
    word: &str,
    place: Place,
    key: &str,
    known: &[(&'static str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let found = known.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        report.error(place, format!("`{key}` is not `{word}`"), format!("write one of {}", names.join(", ")));
    }
    found
}
