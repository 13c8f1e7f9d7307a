//! Flows in our own form, `espalier: 1`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use espalier_inference::Constraint;
use espalier_inference::judge::JudgeConfig;
use espalier_taxonomy::Place;
use espalier_taxonomy::yaml::{Fields, Node, Report, Value, list, text};

use super::values::{number, pairs, pattern, raw_text, raw_texts, required_words, texts, whole, words};
use super::{Files, block_name, key_places, unknown_type};
use crate::flow::ask::JUDGE;
use crate::flow::block::BlockKind;
use crate::flow::block::columns::Columns;
use crate::flow::block::command::Program;
use crate::flow::block::filter::{Filter, Requirement};
use crate::flow::block::judge::JudgeBlock;
use crate::flow::block::llm::{Ask, Generation, Llm, Samples};
use crate::flow::block::parse::{Parse, Pattern};
use crate::flow::block::planted::PlantedColumns;
use crate::flow::block::repair::Repair;
use crate::flow::block::split::{Pieces, Split};
use crate::flow::block::verify::{Select, Verify, Vote};
use crate::flow::{Block, Budget, Flow};
use crate::planted::Spoil;
use crate::reward::{Preference, Reward, RewardConfig};

/// The types of blocks.
const TYPES: [&str; 11] =
    ["llm", "filter", "unique", "map", "flatten", "split", "combine", "copy", "rename", "drop", "each"];

/// The keys of [`JudgeConfig`].
const JUDGE_KEYS: [&str; 10] =
    ["scale", "reading", "votes", "temperature", "swap", "keep", "max_tokens", "pattern", "least_auc", "on_poor"];

/// Longest answer where a block does not say, in tokens.
const MAX_TOKENS: usize = 1024;

pub(super) fn read(fields: &mut Fields, name: &str, files: &mut Files, report: &mut Report<'_>) -> Option<Flow> {
    if let Some((_, node)) = fields.take("espalier")
        && node.value != Value::Integer(1)
    {
        report.error(node.place, "this form of flows is not known", "write `espalier: 1`");
    }
    let name = fields.optional_text("flow", report).unwrap_or_else(|| name.to_owned());
    let version = fields.take("version").and_then(|(_, node)| raw_text(node, "version", report));
    let budget = fields.take("budget").and_then(|(_, node)| budget(node, report));
    let outputs = fields.take("outputs").and_then(|(_, node)| texts(node, "outputs", report));
    let blocks = fields.require("blocks", report).and_then(|node| list(node, "blocks", report));
    let mut taken = Vec::new();
    let blocks = blocks?.into_iter().map(|node| block(node, &mut taken, files, report)).collect::<Vec<_>>();
    Some(Flow {
        name,
        version: version.unwrap_or_default(),
        file: std::path::PathBuf::new(),
        blocks: blocks.into_iter().collect::<Option<_>>()?,
        outputs: outputs.unwrap_or_default(),
        budget: budget.unwrap_or_default(),
        auxiliary_instructions: auxiliary_instructions(fields, report),
        hash: String::new(),
    })
}

fn budget(node: Node, report: &mut Report<'_>) -> Option<Budget> {
    let mut fields = Fields::of(node, "`budget`", report)?;
    let tokens = fields.take("tokens").and_then(|(_, node)| whole(&node, "tokens", 1, report));
    let minutes = fields.take("minutes").and_then(|(_, node)| number(&node, "minutes", 0.0, f64::INFINITY, report));
    fields.refuse_the_rest(report);
    Some(Budget { tokens, minutes })
}

fn auxiliary_instructions(fields: &mut Fields, report: &mut Report<'_>) -> BTreeMap<String, Vec<String>> {
    let found = fields.take("auxiliary_instructions");
    let Some(entries) = found.and_then(|(_, node)| Fields::of(node, "`auxiliary_instructions`", report)) else {
        return BTreeMap::new();
    };
    let entry = |(key, node): (espalier_taxonomy::yaml::Key, Node)| {
        let texts = texts(node, "auxiliary_instructions", report).unwrap_or_default();
        (key.name, texts.into_iter().map(|(text, _)| text).collect())
    };
    entries.take_all().into_iter().map(entry).collect()
}

fn block(node: Node, taken: &mut Vec<String>, files: &mut Files, report: &mut Report<'_>) -> Option<Block> {
    let (place, keys) = (node.place, key_places(&node));
    let mut fields = Fields::of(node, "a block", report)?;
    let name = block_name(&mut fields, taken, report);
    let (kind, kind_place) = fields.required_text("type", report)?;
    let after = match fields.take("after") {
        Some((_, node)) => Some(texts(node, "after", report)?),
        None => None,
    };
    let kind = Reader { files, report }.kind(&kind, kind_place, &mut fields);
    fields.refuse_the_rest(report);
    let kind = kind?;
    let after = match &kind {
        BlockKind::Repair(repair) => after.or_else(|| Some(vec![(repair.of.clone(), kind_place)])),
        _ => after,
    };
    Some(Block { name: name?, after, kind, drop_columns: Vec::new(), drop_duplicates: Vec::new(), place, keys })
}

struct Reader<'a, 'r> {
    files: &'a mut Files,
    report: &'a mut Report<'r>,
}

impl Reader<'_, '_> {
    fn kind(&mut self, kind: &str, place: Place, fields: &mut Fields) -> Option<BlockKind> {
        let report = &mut *self.report;
        Some(match kind {
            "llm" => {
                let (llm, generation) = self.llm(fields)?;
                BlockKind::Llm(Box::new(llm), generation)
            }
            "judge" => BlockKind::Judge(Box::new(self.judge(fields)?)),
            "verify" => BlockKind::Verify(verify(fields, report)?),
            "vote" => {
                let by = required_words(fields, "by", report);
                let column = fields.required_text("column", report);
                let share = fields.take("share").and_then(|(_, node)| number(&node, "share", 0.0, 1.0, report));
                BlockKind::Vote(Vote { by: by?, column: column?.0, share: share.unwrap_or(0.0) })
            }
            "select" => {
                let by = required_words(fields, "by", report);
                let column = fields.required_text("column", report);
                let most = fields.take("most").map_or(Some(1), |(_, node)| whole(&node, "most", 1, report));
                let prefer = fields.take("prefer").and_then(|(_, node)| text(node, "prefer", report));
                let prefer = match prefer.as_ref().map(|(word, place)| (word.as_str(), place)) {
                    None | Some(("shortest", _)) => Preference::Shortest,
                    Some(("diverse", _)) => Preference::Diverse,
                    Some((other, place)) => {
                        report.error(*place, format!("`prefer` is not `{other}`"), "write `shortest` or `diverse`");
                        return None;
                    }
                };
                BlockKind::Select(Select { by: by?, column: column?.0, most: most?, prefer })
            }
            "repair" => {
                let of = fields.required_text("of", report);
                let tries = fields.take("tries").map_or(Some(1), |(_, node)| whole(&node, "tries", 1, report));
                let (llm, generation) = self.llm(fields)?;
                BlockKind::Repair(Box::new(Repair { of: of?.0, llm, generation, tries: tries? }))
            }
            "command" => {
                let run = fields.require("run", report).and_then(|node| raw_texts(node, "run", report));
                let seconds = fields.take("timeout_seconds");
                let seconds = seconds.map_or(Some(600), |(_, node)| whole(&node, "timeout_seconds", 1, report));
                let outputs = words(fields, "output", report);
                let run = run?;
                if run.first().is_none_or(String::is_empty) {
                    report.error(fields.place, "`run` is empty", "write the program and its arguments as a list");
                    return None;
                }
                let timeout = Duration::from_secs(seconds? as u64);
                BlockKind::Command(Program { run, folder: self.files.folder.clone(), timeout, outputs })
            }
            "filter" => {
                let keep = fields.required_text("keep", report);
                let reason = fields.optional_text("reason", report);
                BlockKind::Filter(Filter::Expression(Requirement { expression: keep?.0, reason }))
            }
            "unique" => {
                let columns = required_words(fields, "columns", report);
                let compare = fields.take("compare").and_then(|(_, node)| text(node, "compare", report));
                let normalize = match compare.as_ref().map(|(word, place)| (word.as_str(), place)) {
                    None | Some(("exact", _)) => false,
                    Some(("normalized", _)) => true,
                    Some((other, place)) => {
                        let message = format!("`compare` is not `{other}`");
                        report.error(*place, message, "write `exact` or `normalized`");
                        return None;
                    }
                };
                BlockKind::Filter(Filter::Unique { columns: columns?, normalize })
            }
            "map" => BlockKind::Columns(Columns::Map(required_pairs(fields, report)?)),
            "copy" => BlockKind::Columns(Columns::Copy(required_pairs(fields, report)?)),
            "rename" => BlockKind::Columns(Columns::Rename(required_pairs(fields, report)?)),
            "drop" => BlockKind::Columns(Columns::Drop(required_words(fields, "columns", report)?)),
            "flatten" => {
                let columns = required_words(fields, "columns", report);
                let name = fields.required_text("name_column", report);
                let (value, _) = fields.required_text("value_column", report)?;
                BlockKind::Columns(Columns::Flatten { columns: columns?, name: name?.0, value })
            }
            "split" => BlockKind::Split(split(fields, report)?),
            "combine" => {
                let columns = required_words(fields, "columns", report);
                let separator = fields.take("separator").and_then(|(_, node)| raw_text(node, "separator", report));
                let (output, _) = fields.required_text("output", report)?;
                let separator = separator.unwrap_or_else(|| "\n\n".to_owned());
                BlockKind::Columns(Columns::Combine { columns: columns?, output, separator })
            }
            "each" => {
                let count = fields.require("count", report).and_then(|node| whole(&node, "count", 1, report));
                let node = fields.require("block", report)?;
                let mut inner = Fields::of(node, "the `block` of a block", report)?;
                let (kind, place) = inner.required_text("type", report)?;
                if matches!(kind.as_str(), "each" | "repair") {
                    report.error(place, format!("`each` cannot hold `{kind}`"), "put it behind this block");
                    return None;
                }
                let block = self.kind(&kind, place, &mut inner);
                inner.refuse_the_rest(self.report);
                BlockKind::Each { count: count?, block: Box::new(block?) }
            }
            other => {
                unknown_type(other, place, &TYPES, fields, report);
                return None;
            }
        })
    }

    fn llm(&mut self, fields: &mut Fields) -> Option<(Llm, Generation)> {
        let ask = self.ask(fields);
        let outputs = required_words(fields, "output", self.report);
        let generation = generation(fields, self.report);
        let samples = fields.take("samples").map_or(Some(Samples::Count(1)), |(_, node)| match &node.value {
            Value::Text(word) if word == "scaled" => Some(Samples::Scaled),
            _ => whole(&node, "samples", 1, self.report).map(Samples::Count),
        });
        let retries = fields.take("retries").and_then(|(_, node)| whole(&node, "retries", 0, self.report));
        let parse = fields.take("parse").map(|(_, node)| (node.place, self.parse(node)));
        let outputs = outputs?;
        let parse = match parse {
            Some((place, parse)) => {
                let parse = parse?;
                if let Parse::Tags(tags) = &parse
                    && tags.len() != outputs.len()
                {
                    let message = format!("{} pairs of tags for {} columns", tags.len(), outputs.len());
                    self.report.error(place, message, "write a pair for each column of `output`, in their order");
                }
                parse
            }
            None if outputs.len() == 1 => Parse::Text,
            None => {
                let message = "an answer that gives several columns must be read somehow: `parse` is missing";
                self.report.error(fields.place, message, "add `parse: {tags: ...}`, `{regex: ...}` or `{json: ...}`");
                return None;
            }
        };
        let retries = retries.unwrap_or(0);
        Some((Llm { ask: ask?, outputs, parse, samples: samples?, retries, num_samples: None }, generation))
    }

    /// The keys of [`JudgeConfig`] beside those of the block.
    fn judge(&mut self, fields: &mut Fields) -> Option<JudgeBlock> {
        let prompt = fields.required_text("prompt", self.report);
        let engine = fields.optional_text("engine", self.report).unwrap_or_else(|| JUDGE.to_owned());
        let reject = match fields.take("reject").map(|(_, node)| (node.place, node.value)) {
            None | Some((_, Value::Bool(true))) => true,
            Some((_, Value::Bool(false))) => false,
            Some((place, _)) => {
                self.report.error(place, "`reject` is true or false", "write one of them");
                return None;
            }
        };
        let calibrate = fields.take("calibrate").map(|(_, node)| planted_columns(node, self.report));
        let otherwise = fields.take("otherwise").and_then(|(_, node)| text(node, "otherwise", self.report));
        if let (Some((_, place)), None) = (&otherwise, &calibrate) {
            let message = "`otherwise` decides where a judge is found to be poor, and this one is not calibrated";
            self.report.error(*place, message, "add `calibrate`, or put a block `filter` behind this one");
        }
        let reason = fields.take("reason").and_then(|(_, node)| text(node, "reason", self.report));
        if let (Some((_, place)), None) = (&reason, &otherwise) {
            let message = "`reason` is what is said of rows that `otherwise` refuses, and there is none";
            self.report.error(*place, message, "add `otherwise`, or leave `reason` out");
        }
        let mut given = serde_json::Map::new();
        let mut place = fields.place;
        for key in JUDGE_KEYS {
            if let Some((_, node)) = fields.take(key) {
                place = node.place;
                given.insert(key.to_owned(), node.to_json());
            }
        }
        let config = serde_json::from_value(given.into()).map_err(|error| error.to_string());
        let config = config.and_then(|config: JudgeConfig| config.validate().map(|()| config));
        let config = config.map_err(|reason| self.report.error(place, reason, "docs/flows.md has the keys of a judge"));
        let (name, place) = prompt?;
        let prompt = self.files.turns(&name, place, self.report)?;
        let calibrate = match calibrate {
            None => None,
            Some(columns) => Some(columns?),
        };
        let reason = reason.map(|(reason, _)| reason);
        let otherwise = otherwise.map(|(expression, _)| Requirement { expression, reason });
        Some(JudgeBlock { prompt, config: config.ok()?, engine, reject, calibrate, otherwise })
    }

    /// `prompt`, or `prompts` with `by`, or `conversation`.
    fn ask(&mut self, fields: &mut Fields) -> Option<Ask> {
        let by = fields.take("by").and_then(|(_, node)| text(node, "by", self.report));
        let conversation = fields.take("conversation").and_then(|(_, node)| text(node, "conversation", self.report));
        if let Some((column, _)) = conversation {
            return Some(Ask::Conversation { column });
        }
        let Some((_, node)) = fields.take("prompts") else {
            let (name, place) = fields.required_text("prompt", self.report)?;
            return Some(Ask::Prompt(self.files.turns(&name, place, self.report)?));
        };
        fields.take("prompt");
        let Some((by, _)) = by else {
            self.report.error(node.place, "`prompts` needs `by`", "add `by: COLUMN`, whose text names the prompt");
            return None;
        };
        let entries = Fields::of(node, "`prompts`", self.report)?.take_all();
        let mut prompts = BTreeMap::new();
        for (key, node) in entries {
            let (name, place) = text(node, "prompts", self.report)?;
            prompts.insert(key.name, self.files.turns(&name, place, self.report)?);
        }
        Some(Ask::Choice { by, prompts })
    }

    fn parse(&mut self, node: Node) -> Option<Parse> {
        let report = &mut *self.report;
        if let Value::Text(word) = &node.value
            && word == "text"
        {
            return Some(Parse::Text);
        }
        let place = node.place;
        let mut fields = Fields::of(node, "`parse`", report)?;
        let tags = fields.take("tags").map(|(_, node)| tags(node, report));
        let regex = fields.take("regex").map(|(_, node)| text(node, "regex", report));
        let cleanup = fields.take("cleanup").and_then(|(_, node)| raw_texts(node, "cleanup", report));
        let json = fields.take("json").map(|(_, node)| schema(&node, report));
        fields.refuse_the_rest(report);
        match (tags, regex, json) {
            (Some(tags), None, None) => Some(Parse::Tags(tags?)),
            (None, Some(found), None) => {
                let regex = pattern(&found?, report)?;
                Some(Parse::Regex(Arc::new(Pattern { regex, cleanup: cleanup.unwrap_or_default() })))
            }
            (None, None, Some(schema)) => Some(Parse::Json(Arc::new(schema?))),
            _ => {
                report.error(place, "`parse` is read in one way", "write `text`, or one of `tags`, `regex` and `json`");
                None
            }
        }
    }
}

fn planted_columns(node: Node, report: &mut Report<'_>) -> Option<PlantedColumns> {
    let mut fields = Fields::of(node, "`calibrate`", report)?;
    let question = fields.optional_text("question", report).unwrap_or_else(|| "question".to_owned());
    let answer = fields.optional_text("answer", report).unwrap_or_else(|| "response".to_owned());
    let context = fields.optional_text("context", report);
    let spoil = match fields.take("spoil") {
        None => Spoil::default(),
        Some((_, node)) => spoil(node, report)?,
    };
    fields.refuse_the_rest(report);
    Some(PlantedColumns { question, answer, context, spoil })
}

fn spoil(node: Node, report: &mut Report<'_>) -> Option<Spoil> {
    let (word, place) = text(node, "spoil", report)?;
    let found = Spoil::ALL.into_iter().find(|(name, _)| *name == word);
    if found.is_none() {
        let hint = "write `answer`, `subject` (the question is about another text) or `reference` (it points at a text that is not there)";
        report.error(place, format!("`spoil: {word}` is no way to spoil a planted row"), hint);
    }
    found.map(|(_, spoil)| spoil)
}

fn verify(fields: &mut Fields, report: &mut Report<'_>) -> Option<Verify> {
    let question = fields.optional_text("question", report).unwrap_or_else(|| "question".to_owned());
    let answer = fields.optional_text("answer", report).unwrap_or_else(|| "response".to_owned());
    let check = match fields.take("check") {
        None => None,
        Some((_, node)) => {
            let config = serde_json::from_value(node.to_json()).map_err(|error| error.to_string());
            match config.and_then(|config: RewardConfig| Reward::new(&config)) {
                Ok(reward) => Some(Arc::new(reward)),
                Err(reason) => {
                    report.error(node.place, format!("this check cannot be used: {reason}"), "correct it");
                    return None;
                }
            }
        }
    };
    Some(Verify { question, answer, check })
}

fn split(fields: &mut Fields, report: &mut Report<'_>) -> Option<Split> {
    let column = fields.required_text("column", report);
    let output = fields.required_text("output", report);
    let by = fields.take("by").and_then(|(_, node)| text(node, "by", report));
    let keep = fields.optional_text("keep", report);
    let most = fields.take("most").and_then(|(_, node)| whole(&node, "most", 1, report));
    let by = by.map(|(word, place)| {
        let found = Pieces::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, by)| by);
        if found.is_none() {
            report.error(place, format!("`by` is not `{word}`"), "write `sentences`, `lines` or `paragraphs`");
        }
        found
    });
    let by = by.unwrap_or(Some(Pieces::Sentences));
    Some(Split { column: column?.0, output: output?.0, by: by?, keep, most })
}

fn required_pairs(fields: &mut Fields, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let node = fields.require("columns", report)?;
    pairs(node, "columns", report)
}

/// Pairs of texts.
fn tags(node: Node, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for item in list(node, "tags", report)? {
        let place = item.place;
        match <[String; 2]>::try_from(raw_texts(item, "tags", report)?) {
            Ok([start, end]) if !start.is_empty() && !end.is_empty() => found.push((start, end)),
            _ => {
                report.error(place, "an entry of `tags` is two texts", "write `- [\"[Start]\", \"[End]\"]`");
                return None;
            }
        }
    }
    Some(found)
}

fn schema(node: &Node, report: &mut Report<'_>) -> Option<Constraint> {
    let constraint = Constraint::JsonSchema(node.to_json());
    match constraint.validate() {
        Ok(()) => Some(constraint),
        Err(reason) => {
            report.error(node.place, format!("this is not a JSON schema: {reason}"), "correct the schema");
            None
        }
    }
}

/// How a model writes.
fn generation(fields: &mut Fields, report: &mut Report<'_>) -> Generation {
    let mut generation = Generation { max_tokens: MAX_TOKENS, ..Generation::default() };
    if let Some(engine) = fields.optional_text("engine", report) {
        generation.engine = engine;
    }
    if let Some((_, node)) = fields.take("temperature") {
        generation.temperature = number(&node, "temperature", 0.0, 10.0, report).unwrap_or_default() as f32;
    }
    if let Some((_, node)) = fields.take("top_p") {
        generation.top_p = number(&node, "top_p", 0.0, 1.0, report).unwrap_or(1.0) as f32;
    }
    if let Some((_, node)) = fields.take("max_tokens") {
        generation.max_tokens = whole(&node, "max_tokens", 1, report).unwrap_or(MAX_TOKENS);
    }
    if let Some((_, node)) = fields.take("seed") {
        generation.seed = whole(&node, "seed", 0, report).unwrap_or_default() as u64;
    }
    if let Some((_, node)) = fields.take("top_logprobs") {
        generation.top_logprobs = whole(&node, "top_logprobs", 0, report).unwrap_or_default();
    }
    if let Some((_, node)) = fields.take("stop") {
        generation.stop = raw_texts(node, "stop", report).unwrap_or_default();
    }
    generation
}
