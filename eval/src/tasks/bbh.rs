//! BIG-Bench Hard (Suzgun et al. 2022) without examples: its 27 tasks, and what its filters take from an answer.

use std::fmt::Write;
use std::sync::LazyLock;

use fancy_regex::Regex;

/// What every task includes.
pub(crate) const TEMPLATE: (&str, &str) = ("_bbh_template_yaml", include_str!("../../tasks/_bbh_template_yaml"));

/// What counts as an answer.
enum Answer {
    /// The first match.
    Pattern(&'static str),
    /// The letter of a choice.
    Choice,
    /// A number, in digits or in words.
    Number,
    /// The words of the list in their last order.
    Words,
    /// One of two words, by the first pattern that is found.
    Either([(&'static str, &'static str); 2]),
}

/// (name, description, answer)
const TASKS: &[(&str, &str, Answer)] = &[
    (
        "boolean_expressions",
        "Evaluate the result of a random Boolean expression.",
        Answer::Pattern(r"\b(True|False)\b"),
    ),
    ("causal_judgement", "Answer questions about causal attribution.", Answer::Pattern(r"\b(Yes|No|yes|no)\b")),
    ("date_understanding", "Infer the date from context.", Answer::Choice),
    ("disambiguation_qa", "Clarify the meaning of sentences with ambiguous pronouns.", Answer::Choice),
    (
        "dyck_languages",
        "Correctly close a Dyck-n word.",
        Answer::Pattern(r#"(?<= )([" \[\(<{}>\)\]]+)|([" \[\(<{}>\)\]]+)"#),
    ),
    (
        "formal_fallacies",
        "Distinguish deductively valid arguments from formal fallacies.",
        Answer::Pattern(r"\b(valid|invalid)\b"),
    ),
    ("geometric_shapes", "Name geometric shapes from their SVG paths.", Answer::Choice),
    ("hyperbaton", "Order adjectives correctly in English sentences.", Answer::Choice),
    ("logical_deduction_five_objects", DEDUCTION, Answer::Choice),
    ("logical_deduction_seven_objects", DEDUCTION, Answer::Choice),
    ("logical_deduction_three_objects", DEDUCTION, Answer::Choice),
    ("movie_recommendation", "Recommend movies similar to the given list of movies.", Answer::Choice),
    ("multistep_arithmetic_two", "Solve multi-step arithmetic problems.", Answer::Number),
    (
        "navigate",
        "Given a series of navigation instructions, determine whether one would end up back at the starting point.",
        Answer::Pattern(r"\b(Yes|No|yes|no)\b"),
    ),
    (
        "object_counting",
        "Questions that involve enumerating objects and asking the model to count them.",
        Answer::Number,
    ),
    ("penguins_in_a_table", "Answer questions about a table of penguins and their attributes.", Answer::Choice),
    (
        "reasoning_about_colored_objects",
        "Answer extremely simple questions about the colors of objects on a surface.",
        Answer::Choice,
    ),
    ("ruin_names", "Select the humorous edit that 'ruins' the input movie or musical artist name.", Answer::Choice),
    (
        "salient_translation_error_detection",
        "Detect the type of error in an English translation of a German source sentence.",
        Answer::Choice,
    ),
    (
        "snarks",
        "Determine which of two sentences is sarcastic.\n\nAccording to Cambridge University Dictionary, sarcasm is \"the use of \
         remarks that clearly mean the opposite of what they say, made in order to hurt someone's feelings or to criticize something \
         in a humorous way.\" Sarcastic sentences often contain satirical or ironic utterances, hyperboles, ambivalent or witty \
         remarks.",
        Answer::Choice,
    ),
    (
        "sports_understanding",
        "Determine whether an artificially constructed sentence relating to sports is plausible or not.",
        Answer::Either([(r"\b(no|not plausible)\b", "no"), (r"\b(yes|plausible)\b", "yes")]),
    ),
    (
        "temporal_sequences",
        "Task description: Answer questions about which times certain events could have occurred.",
        Answer::Choice,
    ),
    ("tracking_shuffled_objects_five_objects", SWAPS, Answer::Choice),
    ("tracking_shuffled_objects_seven_objects", SWAPS, Answer::Choice),
    ("tracking_shuffled_objects_three_objects", SWAPS, Answer::Choice),
    (
        "web_of_lies",
        "Evaluate a random boolean function expressed as a word problem.",
        Answer::Either([
            (r"\b(no|does not tell the truth|is not telling the truth)\b", "no"),
            (r"\b(yes|tells the truth|is telling the truth)\b", "yes"),
        ]),
    ),
    ("word_sorting", "Sort a list of words.", Answer::Words),
];

const DEDUCTION: &str = "A logical deduction task which requires deducing the order of a sequence of objects.";
const SWAPS: &str = "A task requiring determining the final positions of a set of objects given their initial positions and a \
                     description of a sequence of swaps.";

/// The task files with their names, and that of the group.
pub(crate) fn files() -> impl Iterator<Item = (String, String)> {
    let names = TASKS.iter().fold(String::new(), |list, (name, ..)| list + "  - bbh_zeroshot_" + name + "\n");
    let group = format!(
        "group: bbh_zeroshot\ntask:\n{names}aggregate_metric_list:\n  - metric: exact_match\n    aggregation: mean\n    \
         weight_by_size: true\n    filter_list: flexible-extract\nmetadata:\n  version: 3.0\n"
    );
    let tasks =
        TASKS.iter().map(|(name, description, answer)| (format!("bbh_{name}.yaml"), file(name, description, answer)));
    tasks.chain(std::iter::once(("bbh_zeroshot.yaml".to_owned(), group)))
}

fn file(name: &str, description: &str, answer: &Answer) -> String {
    // A JSON text is one of YAML.
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let step = match answer {
        Answer::Pattern(pattern) => format!("regex\n        group_select: 0\n        regex_pattern: {}", text(pattern)),
        Answer::Choice => format!(
            "!function utils.MultiChoiceRegexFilter\n        group_select: 0\n        ignore_case: true\n        \
             ignore_punctuation: true\n        regex_pattern: {}",
            text(r"(\([A-Z]\))")
        ),
        Answer::Number => format!(
            "!function utils.NumberParseRegexFilter\n        group_select: 0\n        regex_pattern: {}",
            text("([-0-9]+)")
        ),
        Answer::Words => "!function utils.WordSortFilter".to_owned(),
        Answer::Either(patterns) => {
            let mut step =
                "!function utils.MapRegexFilter\n        group_select: 0\n        ignore_case: true\n        \
                            regex_pattern_to_value:"
                    .to_owned();
            for (pattern, value) in patterns {
                let _ = write!(step, "\n          {}: {}", text(pattern), text(value));
            }
            step
        }
    };
    format!(
        "include: {}\ntask: bbh_zeroshot_{name}\ndataset_name: {name}\ndescription: {}\nfilter_list:\n  - name: strict-match\n    \
         filter:\n      - function: take_first\n  - name: flexible-extract\n    filter:\n      - function: {step}\n      \
         - function: take_first\n",
        TEMPLATE.0,
        text(&format!("{description}\n\n"))
    )
}

/// The choices that a question lists as `(A) one`.
pub(crate) fn listed_choices(input: &str) -> Vec<String> {
    static CHOICE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\([A-Z]\)([^\n^(]*)").ok());
    let found = CHOICE.iter().flat_map(|regex| regex.captures_iter(input)).filter_map(Result::ok);
    found.filter_map(|found| found.get(1).map(|text| text.as_str().trim().to_owned())).collect()
}

/// The words of the list that `input` asks to sort, each once, in the order in which an answer names them last. `None` where the
/// question has no list.
pub(crate) fn sorted_words(input: &str, answer: &str) -> Option<String> {
    let words: Vec<&str> = input.split("List:").nth(1)?.split_whitespace().collect();
    let pattern = words.iter().map(|word| format!(r"\b{word}\b")).collect::<Vec<_>>().join("|");
    let found = Regex::new(&pattern).ok()?;
    let mut order: Vec<&str> = Vec::new();
    for word in found.find_iter(answer).filter_map(Result::ok).map(|found| found.as_str()) {
        order.retain(|known| *known != word);
        order.push(word);
    }
    Some(order.join(" "))
}

/// The words that lm-eval looks for, by where they stand in a number: a number of several words begins with one of the first set, goes
/// on with the second and ends with the third. The sets differ in which short words they know.
fn number_in_words() -> Option<Regex> {
    let words = |stems: &str, eight: &str| {
        format!(
            "zero|one|two|three|four|five|(?:twen|thir|for|fif|six|seven|nine)(?:{stems}teen|ty)|eight(?:{eight}een|y)|ten|eleven|\
             twelve|fourteen|hundred|thousand|(?:m|b|tr)illion"
        )
    };
    let (first, last) = (words("", "|"), words("", ""));
    let middle = words("|", "");
    Regex::new(&format!(r"((?:(?:{first})(?:{middle}|[^\S\r\n]|,|and|&)+)?(?:{last}))")).ok()
}

/// A number that an answer gives in English words, in digits.
pub(crate) fn spelled_number(answer: &str) -> Option<String> {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(number_in_words);
    let answer = answer.to_lowercase();
    let found = NUMBER.as_ref()?.find(&answer).ok()??;
    value(found.as_str()).map(|number| number.to_string())
}

const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// `three hundred and five thousand two`; words that are no part of numbers do not count.
fn value(words: &str) -> Option<u64> {
    let (mut whole, mut part, mut any) = (0_u64, 0_u64, false);
    for word in words.split_whitespace() {
        let scale = match word {
            "thousand" => 1_000,
            "million" => 1_000_000,
            "billion" => 1_000_000_000,
            _ => 0,
        };
        if scale > 0 {
            whole = whole.checked_add(part.max(1).checked_mul(scale)?)?;
            part = 0;
        } else if word == "hundred" {
            part = part.max(1).checked_mul(100)?;
        } else if let Some(place) = UNITS.iter().position(|unit| *unit == word) {
            part += place as u64;
        } else if let Some(place) = TENS.iter().position(|ten| *ten == word) {
            part += 10 * (place as u64 + 2);
        } else {
            continue;
        }
        any = true;
    }
    any.then_some(whole + part)
}
