//! Filters: what of a generated answer is compared.

use std::collections::HashMap;

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::bbh;
use super::config::{Keys, OutputType};
use super::python;
use super::source::Entry;
use crate::error::EvalError;

/// A named sequence of steps; a task may have several over the same answers.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) name: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Regex(Find),
    /// The tags of `('word', 'TAG')` pairs.
    PartsOfSpeech {
        fallback: Value,
    },
    ChoiceRegex {
        find: Find,
        /// The choices stand in the question, in place of a column of their own.
        listed: bool,
        ignore_case: bool,
        ignore_punctuation: bool,
        ignored: Vec<Regex>,
    },
    TakeFirst,
    TakeFirstK(usize),
    MajorityVote,
    Lowercase,
    Uppercase,
    Map {
        mapping: Map<String, Value>,
        default: Value,
    },
    RemoveWhitespace,
    /// Digits, else a number in words.
    Number(Find),
    /// The words of the question's list, in the order of the answer.
    WordSort,
    /// The value of the first pattern that what was found fits.
    Mapped {
        find: Find,
        values: Vec<(Find, String)>,
        ignore_case: bool,
    },
}

/// What `re.findall` finds.
#[derive(Clone, Debug)]
struct Find {
    regex: Regex,
    /// Which match: negative counts from the end.
    select: i64,
    fallback: String,
}

/// The answers to one request, between two steps: those of its repeats, or the one that was taken.
enum Answers {
    Many(Vec<Value>),
    One(Value),
}

const FUNCTIONS: &[&str] = &[
    "regex",
    "regex_pos",
    "multi_choice_regex",
    "take_first",
    "take_first_k",
    "majority_vote",
    "lowercase",
    "uppercase",
    "map",
    "remove_whitespace",
];

/// The pattern that lm-eval's `regex` has where the task gives none.
const USUAL_PATTERN: &str = r"#### (\-?[0-9\.\,]+)";

/// Reads `filter_list`.
///
/// `is_bbh`: the functions that steps may name are those of BIG-Bench Hard.
pub(crate) fn read_pipelines(entry: &Entry, output: OutputType, is_bbh: bool) -> Result<Vec<Pipeline>, EvalError> {
    entry.items().iter().map(|item| read_pipeline(item, output, is_bbh)).collect()
}

fn read_pipeline(entry: &Entry, output: OutputType, is_bbh: bool) -> Result<Pipeline, EvalError> {
    let entries = entry.entries()?;
    let keys = Keys(&entries);
    keys.only(&["name", "filter"])?;
    let name = keys.text("name")?.ok_or_else(|| entry.error("a filter has a `name`"))?;
    let steps = keys.get("filter").ok_or_else(|| entry.error("a filter has a list of steps, `filter`"))?;
    let steps: Vec<Step> = steps.items().iter().map(|step| read_step(step, is_bbh)).collect::<Result<_, _>>()?;
    if output != OutputType::Generate && !matches!(steps.as_slice(), [Step::TakeFirst]) {
        return Err(entry.error("a task without generated answers has no texts to filter: leave `filter_list` out"));
    }
    Ok(Pipeline { name, steps })
}

fn read_step(entry: &Entry, is_bbh: bool) -> Result<Step, EvalError> {
    let entries = entry.entries()?;
    let keys = Keys(&entries);
    let named = keys.get("function").ok_or_else(|| entry.error("a step of a filter has a `function`"))?;
    let name = match named.function() {
        Some(function) if is_bbh => format!("!function {function}"),
        Some(function) => {
            let known = FUNCTIONS.join(", ");
            let problem = format!(
                "the filter `{function}` is a program in Python, which does not run here; a filter is one of {known}"
            );
            return Err(named.error(problem));
        }
        None => named.text()?,
    };
    let find = || -> Result<Find, EvalError> {
        let pattern = keys.text("regex_pattern")?.unwrap_or_else(|| USUAL_PATTERN.to_owned());
        let regex = Regex::new(&pattern).map_err(|error| {
            keys.get("regex_pattern")
                .unwrap_or(entry)
                .error(format!("{pattern:?} is not a regular expression: {error}"))
        })?;
        let select = match keys.get("group_select") {
            Some(entry) => entry.number()? as i64,
            None => 0,
        };
        let fallback = keys.text("fallback")?.unwrap_or_else(|| "[invalid]".to_owned());
        Ok(Find { regex, select, fallback })
    };
    let only = |known: &[&str]| keys.only(&[&["function"], known].concat());
    let flag = |key: &str| keys.get(key).map_or(Ok(false), Entry::bool);
    Ok(match name.as_str() {
        "regex" => {
            only(&["regex_pattern", "group_select", "fallback"])?;
            Step::Regex(find()?)
        }
        "regex_pos" => {
            only(&["regex_pattern", "group_select", "fallback"])?;
            let fallback = keys.get("fallback").map_or_else(|| Value::from(vec!["invalid"]), Entry::json);
            Step::PartsOfSpeech { fallback }
        }
        "multi_choice_regex" | "!function utils.MultiChoiceRegexFilter" => {
            only(&[
                "regex_pattern",
                "group_select",
                "fallback",
                "ignore_case",
                "ignore_punctuation",
                "regexes_to_ignore",
            ])?;
            let ignored = keys.get("regexes_to_ignore").map(regexes).transpose()?.unwrap_or_default();
            let (ignore_case, ignore_punctuation) = (flag("ignore_case")?, flag("ignore_punctuation")?);
            Step::ChoiceRegex {
                find: find()?,
                listed: named.function().is_some(),
                ignore_case,
                ignore_punctuation,
                ignored,
            }
        }
        "take_first_k" => {
            only(&["k"])?;
            Step::TakeFirstK(keys.get("k").ok_or_else(|| entry.error("`take_first_k` has a `k`"))?.count()?)
        }
        "map" => {
            only(&["mapping_dict", "default_value"])?;
            let mapping = keys.get("mapping_dict").map(Entry::json);
            Step::Map {
                mapping: mapping.and_then(|mapping| mapping.as_object().cloned()).unwrap_or_default(),
                default: keys.get("default_value").map_or(Value::Null, Entry::json),
            }
        }
        "take_first" => {
            only(&[])?;
            Step::TakeFirst
        }
        "!function utils.NumberParseRegexFilter" => {
            only(&["regex_pattern", "group_select", "fallback"])?;
            Step::Number(find()?)
        }
        "!function utils.WordSortFilter" => {
            only(&[])?;
            Step::WordSort
        }
        "!function utils.MapRegexFilter" => {
            only(&["regex_pattern_to_value", "group_select", "fallback", "ignore_case"])?;
            mapped(entry, &keys, &find()?, flag("ignore_case")?)?
        }
        "majority_vote" => Step::MajorityVote,
        "lowercase" => Step::Lowercase,
        "uppercase" => Step::Uppercase,
        "remove_whitespace" => Step::RemoveWhitespace,
        other => {
            let known = FUNCTIONS.join(", ");
            return Err(named.error(format!("there is no filter {other:?} here; a filter is one of {known}")));
        }
    })
}

/// Patterns with the values that they stand for: all together find the answer, the first that fits what they found names it.
fn mapped(entry: &Entry, keys: &Keys<'_>, find: &Find, ignore_case: bool) -> Result<Step, EvalError> {
    let patterns = keys
        .get("regex_pattern_to_value")
        .ok_or_else(|| entry.error("`MapRegexFilter` has patterns with their values, `regex_pattern_to_value`"))?;
    let compiled = |pattern: &str| {
        Regex::new(pattern).map_err(|error| patterns.error(format!("{pattern:?} is not a regular expression: {error}")))
    };
    let mut values = Vec::new();
    let mut all = Vec::new();
    for value in patterns.entries()? {
        values.push((Find { regex: compiled(&value.key)?, ..find.clone() }, value.text()?));
        all.push(value.key);
    }
    Ok(Step::Mapped { find: Find { regex: compiled(&all.join("|"))?, ..find.clone() }, values, ignore_case })
}

/// A list of regular expressions.
pub(crate) fn regexes(entry: &Entry) -> Result<Vec<Regex>, EvalError> {
    let regex = |item: &Entry| -> Result<Regex, EvalError> {
        let pattern = item.text()?;
        Regex::new(&pattern).map_err(|error| item.error(format!("{pattern:?} is not a regular expression: {error}")))
    };
    entry.items().iter().map(regex).collect()
}

impl Pipeline {
    /// What of the answers to one request is compared. `Err` where the steps end in several answers.
    pub(crate) fn apply(&self, responses: &[String], document: &Value) -> Result<Value, String> {
        let mut answers = Answers::Many(responses.iter().map(|response| response.as_str().into()).collect());
        for step in &self.steps {
            answers = match answers {
                Answers::Many(many) => step.apply(many, document)?,
                // Python goes on over the characters of the one text; no task means that.
                Answers::One(_) => {
                    return Err(format!(
                        "the filter {:?} goes on after `take_first`; make that its last step",
                        self.name
                    ));
                }
            };
        }
        match answers {
            Answers::One(one) => Ok(one),
            Answers::Many(_) => Err(format!(
                "the filter {:?} ends with several answers; end it with `- function: take_first`",
                self.name
            )),
        }
    }
}

impl Step {
    fn apply(&self, answers: Vec<Value>, document: &Value) -> Result<Answers, String> {
        let each = |change: &dyn Fn(&str) -> Value| {
            answers.iter().map(|answer| change(answer.as_str().unwrap_or_default())).collect::<Vec<_>>()
        };
        Ok(Answers::Many(match self {
            Self::Regex(find) => each(&|text| find.first(text).unwrap_or_else(|| find.fallback.clone()).into()),
            Self::PartsOfSpeech { fallback } => each(&|text| parts_of_speech(text, fallback)),
            Self::ChoiceRegex { find, listed: true, ignore_case, ignore_punctuation, ignored } => {
                let clean = |text: &str| cleaned(text, ignored, *ignore_case, *ignore_punctuation);
                let choices = bbh::listed_choices(input(document)?);
                let choices: Vec<String> = choices.iter().map(|choice| clean(choice)).collect();
                each(&|text| find.choice(text, &clean(text), &choices).into())
            }
            Self::ChoiceRegex { find, listed: false, ignore_case, ignore_punctuation, ignored } => {
                let clean = |text: &str| cleaned(text, ignored, *ignore_case, *ignore_punctuation);
                let choices = document
                    .get("choices")
                    .and_then(Value::as_array)
                    .ok_or("`multi_choice_regex` needs documents with a column `choices`, a list of texts")?;
                let choices: Vec<String> = choices.iter().map(|choice| clean(python::text(choice).trim())).collect();
                each(&|text| find.choice(text, &clean(text), &choices).into())
            }
            Self::TakeFirst => {
                return Ok(Answers::One(answers.into_iter().next().unwrap_or(Value::Null)));
            }
            Self::TakeFirstK(count) => {
                if answers.len() < *count {
                    let found = answers.len();
                    return Err(format!(
                        "`take_first_k` wants {count} answers, but there are {found}; raise `repeats`"
                    ));
                }
                answers.into_iter().take(*count).collect()
            }
            Self::MajorityVote => vec![majority(answers)],
            Self::Lowercase => each(&|text| text.to_lowercase().into()),
            Self::Uppercase => each(&|text| text.to_uppercase().into()),
            Self::Map { mapping, default } => each(&|text| mapping.get(text).unwrap_or(default).clone()),
            Self::Number(find) => each(&|text| {
                let found = selected(&find.regex, find.select, text).text().or_else(|| bbh::spelled_number(text));
                found.unwrap_or_else(|| find.fallback.clone()).into()
            }),
            Self::WordSort => {
                let input = input(document)?;
                if bbh::sorted_words(input, "").is_none() {
                    return Err("`WordSortFilter` needs questions with words after `List:`".to_owned());
                }
                each(&|text| bbh::sorted_words(input, text).into())
            }
            Self::Mapped { find, values, ignore_case } => {
                let clean = |text: &str| if *ignore_case { text.to_lowercase() } else { text.to_owned() };
                each(&|text| {
                    let found = selected(&find.regex, find.select, &clean(text)).text().map(|found| clean(&found));
                    let fits = |(find, _): &&(Find, String)| {
                        found.as_ref().is_some_and(|found| selected(&find.regex, find.select, found).text().is_some())
                    };
                    values.iter().find(fits).map_or_else(|| find.fallback.clone(), |(_, value)| value.clone()).into()
                })
            }
            Self::RemoveWhitespace => each(&|text| text.trim().into()),
        }))
    }
}

/// The question of a document of BIG-Bench Hard.
fn input(document: &Value) -> Result<&str, String> {
    document
        .get("input")
        .and_then(Value::as_str)
        .ok_or_else(|| "the filter needs documents with a column `input`".to_owned())
}

impl Find {
    /// All matches as `re.findall` gives them, the selected one, its first group that is not empty; trimmed.
    fn first(&self, text: &str) -> Option<String> {
        match selected(&self.regex, self.select, text) {
            Found::Text(text) => Some(text),
            Found::Empty => Some(self.fallback.clone()),
            Found::Nothing => None,
        }
    }

    /// The letter of a choice as `(A)`: what the pattern finds, else a choice that stands in the text, else a letter after a colon.
    fn choice(&self, text: &str, clean: &str, choices: &[String]) -> String {
        let found = selected(&self.regex, self.select, text).text();
        found
            .or_else(|| self.named_choice(clean, choices))
            .or_else(|| self.letter(text, choices.len()))
            .unwrap_or_else(|| self.fallback.clone())
    }

    fn named_choice(&self, clean: &str, choices: &[String]) -> Option<String> {
        let mut branches: Vec<String> = choices.iter().map(|choice| escaped(choice)).collect();
        branches.sort_by_key(|branch| std::cmp::Reverse(branch.chars().count()));
        let regex = Regex::new(&branches.join("|")).ok()?;
        let found = selected(&regex, self.select, clean).text()?;
        let place = choices.iter().rposition(|choice| *choice == found);
        Some(place.map_or(found, |place| format!("({})", letter_of(place))))
    }

    fn letter(&self, text: &str, count: usize) -> Option<String> {
        let letters: Vec<String> = (0..count).map(|place| letter_of(place).to_string()).collect();
        let regex = Regex::new(&format!(r":[\s]*({})", letters.join("|"))).ok()?;
        let found = selected(&regex, self.select, text).text()?;
        Some(format!("({found})"))
    }
}

fn letter_of(place: usize) -> char {
    char::from_u32('A' as u32 + place as u32).unwrap_or('?')
}

/// `re.escape`.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| (!(c.is_alphanumeric() || c == '_') && c.is_ascii()).then_some('\\').into_iter().chain([c]))
        .collect()
}

/// What a pattern finds.
enum Found {
    /// The selected match, or its first group that is not empty; trimmed.
    Text(String),
    /// A match of which all groups are empty.
    Empty,
    /// No such match.
    Nothing,
}

impl Found {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// The selected one of all matches.
fn selected(regex: &Regex, select: i64, text: &str) -> Found {
    let matches: Vec<_> = regex.captures_iter(text).filter_map(Result::ok).collect();
    let place = match usize::try_from(-select) {
        Ok(back) if select < 0 => matches.len().checked_sub(back),
        _ => usize::try_from(select).ok(),
    };
    let Some(found) = place.and_then(|place| matches.get(place)) else { return Found::Nothing };
    let group = |at: usize| found.get(at).map_or("", |group| group.as_str());
    let text = match found.len() {
        1 => Some(group(0)),
        2 => Some(group(1)),
        groups => (1..groups).map(group).find(|text| !text.is_empty()),
    };
    text.map_or(Found::Empty, |text| Found::Text(text.trim().to_owned()))
}

fn parts_of_speech(text: &str, fallback: &Value) -> Value {
    let Ok(regex) = Regex::new(r"\('([^']*)', '([^']*)'\)") else { return fallback.clone() };
    let tags: Vec<String> = regex
        .captures_iter(text)
        .filter_map(Result::ok)
        .filter_map(|found| found.get(2).map(|tag| tag.as_str().to_owned()))
        .collect();
    if tags.is_empty() { fallback.clone() } else { tags.into() }
}

fn cleaned(text: &str, ignored: &[Regex], ignore_case: bool, ignore_punctuation: bool) -> String {
    let mut text = text.to_owned();
    for regex in ignored {
        text = regex.replace_all(&text, "").into_owned();
    }
    if ignore_case {
        text = text.to_lowercase();
    }
    if ignore_punctuation {
        text.retain(|c| !is_punctuation(c));
    }
    text
}

/// Unicode's punctuation (categories P*) as far as choices have it: that of ASCII, Latin-1, the general block and CJK.
fn is_punctuation(character: char) -> bool {
    match character {
        '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' => false,
        _ if character.is_ascii() => character.is_ascii_punctuation(),
        '\u{a1}' | '\u{a7}' | '\u{ab}' | '\u{b6}' | '\u{b7}' | '\u{bb}' | '\u{bf}' => true,
        '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' => {
            !matches!(character, '\u{2044}' | '\u{2052}')
        }
        _ => false,
    }
}

/// The answer that stands most often, the first among equals.
fn majority(answers: Vec<Value>) -> Value {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for answer in &answers {
        *counts.entry(python::repr(answer)).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    answers.into_iter().find(|answer| counts[&python::repr(answer)] == most).unwrap_or(Value::Null)
}
