//! From the documents of a task to what a model is asked.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use espalier_inference::{ChatTemplate, Message};
use serde_json::{Value, json};

use super::config::{FewShot, Field, OutputType, TaskConfig};
use super::data::Splits;
use super::python;
use super::random::Random;
use super::template::Templates;
use crate::ask::{Ask, Writing};
use crate::error::EvalError;
use crate::task::ItemPrompt;

/// How tasks are asked.
#[derive(Clone, Debug, Default)]
pub struct TaskOptions<'a> {
    /// Only the first documents of each task: a number from 1 on, or a share below 1.
    pub limit: Option<f64>,
    /// Only these documents, counted from 0.
    pub samples: Option<Vec<usize>>,
    /// Solved examples before each question, in place of what the tasks say. A task that says 0 stays so.
    pub num_fewshot: Option<usize>,
    /// Puts questions as conversation, through this template; examples are earlier turns.
    pub chat_template: Option<&'a ChatTemplate>,
    /// Makes one turn of examples and question.
    pub fewshot_as_one_turn: bool,
    /// What the conversation begins with.
    pub system_instruction: Option<&'a str>,
    /// A folder of benchmark files.
    pub data_dir: Option<&'a Path>,
    /// Seed of few-shot draws; lm-eval's is 1234.
    pub fewshot_seed: Option<u64>,
}

/// lm-eval's default.
const FEWSHOT_SEED: u64 = 1234;

/// A task with everything that it asks.
#[derive(Debug)]
pub(crate) struct Benchmark {
    pub(crate) config: TaskConfig,
    pub(crate) documents: Vec<Document>,
    /// Documents of the whole task.
    pub(crate) original: usize,
    pub(crate) few_shot: usize,
    /// What a person should know of the data.
    pub(crate) warnings: Vec<String>,
}

/// The right answer of a question with choices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Gold {
    One(usize),
    /// Any of these.
    Several(Vec<usize>),
    /// The task has no choices.
    None,
}

/// One document of a task.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) id: usize,
    pub(crate) row: Value,
    pub(crate) target: Value,
    pub(crate) choices: Vec<String>,
    pub(crate) gold: Gold,
    /// In the order of lm-eval's requests; repeats of one stand together.
    pub(crate) asks: Vec<Ask>,
}

/// A part of a prompt: what is said, and what follows it in plain text.
#[derive(Clone, Debug)]
struct Turn {
    role: &'static str,
    text: String,
    delimiter: String,
}

/// What an engine reads, by lm-eval's rules.
struct Builder<'b> {
    config: &'b TaskConfig,
    options: &'b TaskOptions<'b>,
    templates: &'b Templates,
    few_shot: usize,
    /// Examples and the generator that draws them.
    pool: Option<(Rc<Vec<Value>>, RefCell<Random>)>,
    /// Whether a question has several texts, each with the same end.
    several_texts: bool,
    /// Whether documents have lists of targets.
    several_targets: bool,
}

impl Benchmark {
    /// Reads the data of a task and makes its questions.
    pub(crate) fn build(config: TaskConfig, options: &TaskOptions<'_>) -> Result<Self, EvalError> {
        let refuse = |problem: String| EvalError::Task { task: config.task.clone(), problem };
        let splits = Splits::new(&config, options.data_dir);
        let split = config.eval_split().unwrap_or_default();
        let documents = processed(&splits.documents(split)?, config.process_docs, &config)?;
        let few_shot = match (config.num_fewshot, options.num_fewshot) {
            (Some(0), _) => 0,
            (_, Some(wanted)) => wanted,
            (own, None) => own.unwrap_or(0),
        };
        let pool = if few_shot > 0 {
            let examples = example_documents(&config, &splits)?;
            if examples.len() < few_shot {
                return Err(refuse(format!(
                    "{few_shot} examples were asked for, but there are {}; ask for fewer",
                    examples.len()
                )));
            }
            let seed = options.fewshot_seed.unwrap_or(FEWSHOT_SEED);
            Some((examples, RefCell::new(Random::new(seed))))
        } else {
            None
        };
        let templates = Templates::new();
        let mut builder = Builder {
            config: &config,
            options,
            templates: &templates,
            few_shot,
            pool,
            several_texts: false,
            several_targets: false,
        };
        let first = documents.first().ok_or_else(|| refuse("it has no documents".to_owned()))?;
        let at_first = |problem: String| refuse(format!("document 0: {problem}"));
        builder.several_texts =
            builder.field(&config.text, first).map_err(at_first)?.is_i64() && config.choice.is_some();
        builder.several_targets = builder.field(&config.target, first).map_err(at_first)?.is_array();
        let original = documents.len();
        let chosen = chosen(original, options).map_err(refuse)?;
        let mut asked = Vec::with_capacity(chosen.len());
        for id in chosen {
            let document = &documents[id];
            asked.push(builder.document(id, document).map_err(|problem| refuse(format!("document {id}: {problem}")))?);
        }
        let mut warnings = warnings(&asked);
        let FewShot { split: own, samples, .. } = &config.fewshot;
        if few_shot > 0 && own.is_none() && samples.is_none() && config.usual_fewshot_split() == config.eval_split() {
            // As in lm-eval, a document may so be its own example.
            warnings
                .push("its examples are drawn from the documents that are asked; name a `fewshot_split`".to_owned());
        }
        Ok(Self { documents: asked, original, few_shot, warnings, config })
    }
}

fn chosen(count: usize, options: &TaskOptions<'_>) -> Result<Vec<usize>, String> {
    if let Some(samples) = &options.samples {
        let mut samples = samples.clone();
        samples.sort_unstable();
        samples.dedup();
        return match samples.last() {
            Some(last) if *last >= count => {
                Err(format!("sample {last} was asked for, but there are {count}, counted from 0"))
            }
            _ => Ok(samples),
        };
    }
    let most = match options.limit {
        None => count,
        Some(share) if share < 1.0 => (count as f64 * share).ceil() as usize,
        Some(most) => most as usize,
    };
    Ok((0..count.min(most)).collect())
}

fn processed(
    documents: &Rc<Vec<Value>>,
    process: Option<super::function::Function>,
    config: &TaskConfig,
) -> Result<Rc<Vec<Value>>, EvalError> {
    let Some(process) = process else { return Ok(Rc::clone(documents)) };
    let each = documents.iter().enumerate().map(|(id, document)| {
        process.document(document).map_err(|problem| EvalError::Task {
            task: config.task.clone(),
            problem: format!("document {id}: {problem}"),
        })
    });
    each.collect::<Result<Vec<_>, _>>().map(Rc::new)
}

/// The documents that examples are taken from.
fn example_documents(config: &TaskConfig, splits: &Splits<'_>) -> Result<Rc<Vec<Value>>, EvalError> {
    let fewshot = &config.fewshot;
    let documents = match (&fewshot.split, &fewshot.samples) {
        (Some(split), _) => processed(&splits.documents(split)?, fewshot.process_docs, config)?,
        (None, Some(samples)) => Rc::new(samples.clone()),
        (None, None) => {
            let split = config.usual_fewshot_split().unwrap_or_default();
            processed(&splits.documents(split)?, config.process_docs, config)?
        }
    };
    let Some(indices) = &fewshot.indices else { return Ok(documents) };
    let picked = indices.iter().map(|&index| documents.get(index).cloned());
    picked.collect::<Option<Vec<_>>>().map(Rc::new).ok_or_else(|| EvalError::Task {
        task: config.task.clone(),
        problem: format!("`fewshot_indices` names rows beyond the {} of its split", documents.len()),
    })
}

/// What is odd in the data but does not stop anything.
fn warnings(documents: &[Document]) -> Vec<String> {
    let equal: Vec<usize> = documents
        .iter()
        .filter(|document| {
            document.choices.iter().enumerate().any(|(at, choice)| document.choices[..at].contains(choice))
        })
        .map(|document| document.id)
        .collect();
    if equal.is_empty() {
        return Vec::new();
    }
    let shown: Vec<String> = equal.iter().take(7).map(ToString::to_string).collect();
    let more = if equal.len() > shown.len() { ", ..." } else { "" };
    vec![format!(
        "{} of {} documents have two equal choices, of which the first counts as chosen (document {}{more})",
        equal.len(),
        documents.len(),
        shown.join(", ")
    )]
}

impl Builder<'_> {
    fn document(&self, id: usize, document: &Value) -> Result<Document, String> {
        let config = self.config;
        let prefix = self.resolved(config.gen_prefix.as_deref(), document)?;
        let contexts = self.contexts(document, prefix.as_deref())?;
        let target = self.field(&config.target, document)?;
        let choices = match &config.choice {
            Some(field) => self.choices(field, document)?,
            None => Vec::new(),
        };
        let gold = if config.output == OutputType::MultipleChoice {
            if let Some(empty) = choices.iter().position(|choice| choice.trim().is_empty()) {
                return Err(format!("choice {empty} is empty; every choice needs a text"));
            }
            let right = if self.several_texts { self.field(&config.text, document)? } else { target.clone() };
            gold(&right, &choices)?
        } else {
            Gold::None
        };
        let asks = self.asks(&contexts, &target, &choices)?;
        Ok(Document { id, row: document.clone(), target, choices, gold, asks })
    }

    /// A text, number or list of a document.
    fn field(&self, field: &Field, document: &Value) -> Result<Value, String> {
        let template = match field {
            Field::Fixed(value) => return Ok(value.clone()),
            Field::Function(function) => return function.value(document),
            Field::Template(template) => template,
        };
        if let Some(value) = document.get(template) {
            return Ok(value.clone());
        }
        let text = self.templates.render(template, document)?;
        if python::is_digits(&text)
            && self.config.choice.is_some()
            && let Some(number) = python::literal(&text)
        {
            return Ok(number);
        }
        if text.len() >= 2
            && text.starts_with('[')
            && text.ends_with(']')
            && let Some(list) = python::literal(&text)
        {
            return Ok(list);
        }
        Ok(Value::String(text))
    }

    fn choices(&self, field: &Field, document: &Value) -> Result<Vec<String>, String> {
        let value = match field {
            Field::Template(template) if document.get(template).is_none() => {
                let text = self.templates.render(template, document)?;
                python::literal(&text).ok_or_else(|| format!("`doc_to_choice` gives {text:?}, which is no list"))?
            }
            field => self.field(field, document)?,
        };
        match value {
            Value::Array(items) if !items.is_empty() => Ok(items.iter().map(python::text).collect()),
            Value::Array(_) => Err("it has no choices".to_owned()),
            other => Err(format!("`doc_to_choice` gives {}, which is no list", python::repr(&other))),
        }
    }

    /// A setting that is the name of a column or a template.
    fn resolved(&self, setting: Option<&str>, document: &Value) -> Result<Option<String>, String> {
        let Some(setting) = setting.filter(|setting| !setting.is_empty()) else { return Ok(None) };
        match document.get(setting) {
            Some(value) => Ok(Some(python::text(value))),
            None => self.templates.render(setting, document).map(Some),
        }
    }

    /// The prompts of a document: one, or one for each of its texts.
    fn contexts(&self, document: &Value, prefix: Option<&str>) -> Result<Vec<String>, String> {
        let mut turns = Vec::new();
        let description = self.resolved(Some(&self.config.description), document)?.unwrap_or_default();
        let instruction = self.options.system_instruction.unwrap_or_default();
        let system = joined(instruction, &description, &self.config.fewshot.fewshot_delimiter);
        if !system.is_empty() {
            turns.push(Turn { role: "system", text: system, delimiter: String::new() });
        }
        for example in self.examples(document)? {
            turns.extend(self.example(&example)?);
        }
        let text = self.field(&self.config.text, document)?;
        if !self.several_texts {
            let Value::String(text) = text else {
                return Err(format!("`doc_to_text` gives {}, which is no text", python::repr(&text)));
            };
            turns.extend(question(&text, prefix, &self.config.target_delimiter));
            return Ok(vec![self.rendered(&turns, prefix)?]);
        }
        let texts = self.choices(self.config.choice.as_ref().ok_or("it has no choices")?, document)?;
        let each = texts.iter().map(|text| {
            let turns: Vec<Turn> = turns.iter().cloned().chain(question(text, prefix, "")).collect();
            self.rendered(&turns, prefix)
        });
        each.collect()
    }

    /// The examples before a document, which is never among them where both come from one split.
    fn examples(&self, document: &Value) -> Result<Vec<Value>, String> {
        let Some((pool, random)) = &self.pool else { return Ok(Vec::new()) };
        let wanted = self.few_shot;
        let FewShot { first, split, .. } = &self.config.fewshot;
        let excludes = *split == self.config.test_split;
        let others = || pool.iter().filter(|example| !excludes || *example != document);
        if *first {
            let found: Vec<Value> = others().take(wanted).cloned().collect();
            return if found.len() == wanted {
                Ok(found)
            } else {
                Err("there are not enough other examples".to_owned())
            };
        }
        let mut random = random.borrow_mut();
        if excludes && pool.len() <= wanted {
            return Err("there are not enough other examples".to_owned());
        }
        let drawn = random.sample(pool.len(), wanted + usize::from(excludes));
        let found: Vec<Value> = drawn
            .iter()
            .map(|&at| &pool[at])
            .filter(|example| !excludes || *example != document)
            .take(wanted)
            .cloned()
            .collect();
        if found.len() == wanted {
            return Ok(found);
        }
        // Copies of the document were drawn: once more among all others.
        let others: Vec<&Value> = others().collect();
        if others.len() < wanted {
            return Err("there are not enough other examples".to_owned());
        }
        Ok(random.sample(others.len(), wanted).iter().map(|&at| others[at].clone()).collect())
    }

    fn example(&self, example: &Value) -> Result<Vec<Turn>, String> {
        let fewshot = &self.config.fewshot;
        let choices = match &fewshot.choice {
            Some(field) => self.choices(field, example)?,
            None => Vec::new(),
        };
        let text = self.field(&fewshot.text, example)?;
        let choice = |place: &Value| -> Result<String, String> {
            let found = place.as_u64().and_then(|place| choices.get(usize::try_from(place).ok()?));
            found.cloned().ok_or_else(|| {
                format!("an example's answer is {}, but it has {} choices", python::text(place), choices.len())
            })
        };
        let target = self.field(&fewshot.target, example)?;
        let (text, answer) = if self.several_texts {
            (choice(&text)?, python::text(&target))
        } else {
            let answer = match &target {
                Value::Number(_) if !choices.is_empty() => choice(&target)?,
                Value::Array(targets) => targets.first().map(python::text).unwrap_or_default(),
                other => python::text(other),
            };
            (python::text(&text), answer)
        };
        let prefix = self.resolved(fewshot.gen_prefix.as_deref(), example)?.unwrap_or_default();
        let answer = joined(&prefix, &answer, " ");
        let delimited = prefix.is_empty() || requires_delimiter(&text, &prefix);
        let delimiter = if delimited { fewshot.target_delimiter.clone() } else { String::new() };
        Ok(vec![
            Turn { role: "user", text, delimiter },
            Turn { role: "assistant", text: answer, delimiter: fewshot.fewshot_delimiter.clone() },
        ])
    }

    /// The turns as one text, plain or through the chat template.
    fn rendered(&self, turns: &[Turn], prefix: Option<&str>) -> Result<String, String> {
        let plain =
            |turns: &[Turn]| turns.iter().flat_map(|turn| [turn.text.as_str(), &turn.delimiter]).collect::<String>();
        let Some(template) = self.options.chat_template else { return Ok(plain(turns)) };
        let messages = if self.options.fewshot_as_one_turn {
            one_turn(turns)
        } else {
            turns.iter().map(|turn| Message::new(turn.role, turn.text.as_str())).collect()
        };
        let opens = prefix.is_none_or(str::is_empty);
        let text = template
            .render(&messages, opens)
            .or_else(|error| {
                // Some templates refuse a system turn; lm-eval leaves it out then.
                let without: Vec<Message> =
                    messages.iter().filter(|message| message.role != "system").cloned().collect();
                if without.len() < messages.len() { template.render(&without, opens) } else { Err(error) }
            })
            .map_err(|error| error.to_string())?;
        if opens {
            return Ok(text);
        }
        // The answer goes on where the last turn's text ends.
        let last = messages.last().map(|message| message.content.trim()).unwrap_or_default();
        let end = text.rfind(last).map_or(text.len(), |at| at + last.len());
        Ok(text[..end].to_owned())
    }

    fn asks(&self, contexts: &[String], target: &Value, choices: &[String]) -> Result<Vec<Ask>, String> {
        let config = self.config;
        let prompts: Vec<Arc<ItemPrompt>> =
            contexts.iter().map(|text| Arc::new(ItemPrompt::Text(text.clone()))).collect();
        let prompt = |at: usize| prompts.get(at).map_or_else(|| Arc::new(ItemPrompt::Text(String::new())), Arc::clone);
        Ok(match config.output {
            OutputType::LogLikelihood => {
                let Value::String(continuation) = target.clone() else {
                    return Err(format!("`doc_to_target` gives {}, which is no text", python::repr(target)));
                };
                vec![Ask::Continuation { prompt: prompt(0), continuation }]
            }
            OutputType::Rolling => vec![Ask::Whole { text: python::text(target) }],
            OutputType::Generate => (0..config.repeats).map(|repeat| self.writing(prompt(0), repeat)).collect(),
            OutputType::MultipleChoice => {
                let plain = self.options.chat_template.is_none();
                let keeps = config
                    .gen_prefix
                    .as_deref()
                    .is_some_and(|prefix| !prefix.ends_with(char::is_whitespace) && !prefix.is_empty());
                let delimiter = if plain || keeps { config.target_delimiter.as_str() } else { "" };
                let after = |prompt: Arc<ItemPrompt>, text: &str| Ask::Continuation {
                    prompt,
                    continuation: [delimiter, text].concat(),
                };
                let mut asks: Vec<Ask> = if self.several_texts {
                    let end = python::text(target);
                    prompts.iter().map(|prompt| after(Arc::clone(prompt), &end)).collect()
                } else {
                    choices.iter().map(|choice| after(prompt(0), choice)).collect()
                };
                if config
                    .metrics
                    .iter()
                    .any(|metric| metric.measure == super::metric::Measure::AccuracyMutualInformation)
                {
                    let alone = Arc::new(ItemPrompt::Text(String::new()));
                    asks.extend(choices.iter().map(|choice| after(Arc::clone(&alone), choice)));
                }
                asks
            }
        })
    }

    fn writing(&self, prompt: Arc<ItemPrompt>, repeat: usize) -> Ask {
        let generation = &self.config.generation;
        let samples = generation.temperature > 0.0;
        let writing = Writing {
            stop: generation.until.clone(),
            max_tokens: generation.max_tokens,
            temperature: generation.temperature,
            top_p: generation.top_p,
            top_k: generation.top_k,
            // Greedy repeats are one text.
            seed: if samples { repeat as u64 } else { 0 },
            harness: true,
        };
        Ask::Text { prompt, writing: Arc::new(writing) }
    }
}

/// The turns of a question that is not answered.
fn question(text: &str, prefix: Option<&str>, delimiter: &str) -> Vec<Turn> {
    let prefix = prefix.filter(|prefix| !prefix.is_empty());
    let delimited = prefix.is_some_and(|prefix| requires_delimiter(text, prefix));
    let delimiter = if delimited { delimiter.to_owned() } else { String::new() };
    let mut turns = vec![Turn { role: "user", text: text.to_owned(), delimiter }];
    turns.extend(prefix.map(|prefix| Turn { role: "assistant", text: prefix.to_owned(), delimiter: String::new() }));
    turns
}

/// Examples and question as one turn of the user, between the system's and what the answer begins with.
fn one_turn(turns: &[Turn]) -> Vec<Message> {
    let (system, turns) = match turns.split_first() {
        Some((first, rest)) if first.role == "system" => (Some(first), rest),
        _ => (None, turns),
    };
    let (turns, begun) = match turns.split_last() {
        Some((last, rest)) if last.role == "assistant" => (rest, Some(last)),
        _ => (turns, None),
    };
    let mut text = String::new();
    for (at, turn) in turns.iter().enumerate() {
        text.push_str(&turn.text);
        if at + 1 < turns.len() {
            text.push_str(&turn.delimiter);
        }
    }
    let message = |turn: &Turn| Message::new(turn.role, turn.text.as_str());
    system.map(message).into_iter().chain([Message::new("user", text)]).chain(begun.map(message)).collect()
}

/// Both texts, parted where neither has white space at the border.
fn joined(first: &str, second: &str, delimiter: &str) -> String {
    if first.is_empty() || second.is_empty() {
        return [first, second].concat();
    }
    let delimiter = if requires_delimiter(first, second) { delimiter } else { "" };
    [first, delimiter, second].concat()
}

fn requires_delimiter(first: &str, second: &str) -> bool {
    !(first.is_empty() || first.ends_with(char::is_whitespace) || second.starts_with(char::is_whitespace))
}

fn gold(right: &Value, choices: &[String]) -> Result<Gold, String> {
    let place = |value: &Value| -> Result<usize, String> {
        let found = match value {
            Value::String(label) => choices.iter().position(|choice| choice == label),
            other => {
                other.as_u64().and_then(|place| usize::try_from(place).ok()).filter(|place| *place < choices.len())
            }
        };
        found.ok_or_else(|| {
            format!(
                "the right answer is {}, but there are {} choices, counted from 0; check `doc_to_target` and the data",
                python::repr(&json!(value)),
                choices.len()
            )
        })
    };
    match right {
        Value::Array(all) => all.iter().map(place).collect::<Result<_, _>>().map(Gold::Several),
        one => place(one).map(Gold::One),
    }
}
