//! The functions of lm-eval's task files that stand here in Rust: a task that names another one is refused.

use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use super::source::Entry;
use crate::error::EvalError;

/// A function that a task file may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// `HellaSwag`: context and endings without the marks of `WikiHow`.
    HellaswagDocuments,
    /// `WinoGrande`: the place of the right option.
    WinograndeText,
    /// `WinoGrande`: what follows the blank.
    WinograndeTarget,
    /// `WinoGrande`: what leads to the blank, with each option.
    WinograndeChoices,
    /// COPA: the premise and its connector.
    CopaText,
    /// COPA: the right alternative.
    CopaTarget,
    /// COPA: both alternatives.
    CopaChoices,
    /// `TruthfulQA` mc2: the share of probability on true answers.
    TruthfulMass,
    /// `WikiText` as running text.
    WikitextTarget,
    /// Counts of words and bytes of the page as it was.
    WikitextResults,
    /// `IFEval`: which instructions are followed.
    IfevalResults,
}

/// What a function is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Documents,
    Text,
    Target,
    Choice,
    Results,
}

/// (families it belongs to, its name there, use, function)
const CARRIED: &[(&[&str], &str, Part, Function)] = &[
    (&["hellaswag"], "utils.process_docs", Part::Documents, Function::HellaswagDocuments),
    (&["winogrande"], "preprocess_winogrande.doc_to_text", Part::Text, Function::WinograndeText),
    (&["winogrande"], "preprocess_winogrande.doc_to_target", Part::Target, Function::WinograndeTarget),
    (&["winogrande"], "preprocess_winogrande.doc_to_choice", Part::Choice, Function::WinograndeChoices),
    (&["copa", "super_glue"], "utils.doc_to_text", Part::Text, Function::CopaText),
    (&["copa", "super_glue"], "utils.doc_to_target", Part::Target, Function::CopaTarget),
    (&["copa", "super_glue"], "utils.doc_to_choice", Part::Choice, Function::CopaChoices),
    (&["truthful"], "utils.process_results_mc2", Part::Results, Function::TruthfulMass),
    (&["wikitext"], "preprocess_wikitext.wikitext_detokenizer", Part::Target, Function::WikitextTarget),
    (&["ifeval"], "utils.process_results", Part::Results, Function::IfevalResults),
    (&["wikitext"], "preprocess_wikitext.process_results", Part::Results, Function::WikitextResults),
];

impl Function {
    /// The function that an entry names, for a use, in a task. A name such as `utils.process_docs` stands for another function in
    /// every family of tasks, so the family decides too: it is read off the data set or the task's name.
    pub(crate) fn find(entry: &Entry, part: Part, data: &str, task: &str) -> Result<Self, EvalError> {
        let Some(name) = entry.function() else {
            return Err(entry.error(format!("`{}` names a function: `!function MODULE.NAME`", entry.key)));
        };
        let (data, task) = (data.to_lowercase(), task.to_lowercase());
        let of_family = |family: &&str| data.contains(*family) || task.contains(*family);
        let carried = |&(families, known, used, function): &(&[&str], &str, Part, Self)| {
            (known == name && used == part && families.iter().any(of_family)).then_some(function)
        };
        CARRIED.iter().find_map(carried).ok_or_else(|| {
            entry.error(format!(
                "`{}` names the function `{name}` in Python, which this program does not run; write a template or the name of a \
                 column (functions of hellaswag, winogrande, copa, truthfulqa, ifeval and wikitext stand here in Rust)",
                entry.key
            ))
        })
    }

    /// A document made ready; `Err` names the column that is missing or of another kind.
    pub(crate) fn document(self, document: &Value) -> Result<Value, String> {
        let Self::HellaswagDocuments = self else { return Ok(document.clone()) };
        let context = format!("{} {}", text(document, "ctx_a")?, capitalized(text(document, "ctx_b")?));
        let query = wikihow_cleaned(&format!("{}: {context}", text(document, "activity_label")?));
        let endings = column(document, "endings")?.as_array().ok_or("the column `endings` is no list")?;
        let choices: Vec<String> =
            endings.iter().map(|ending| wikihow_cleaned(ending.as_str().unwrap_or_default())).collect();
        // The columns that were there stay, as in a `map` over the data set.
        let mut made: Map<String, Value> = document.as_object().cloned().unwrap_or_default();
        let label = super::python::text(column(document, "label")?);
        made.insert("query".to_owned(), query.into());
        made.insert("choices".to_owned(), choices.into());
        made.insert(
            "gold".to_owned(),
            label.trim().parse::<i64>().map_err(|_| format!("the label {label:?} is no number"))?.into(),
        );
        Ok(made.into())
    }

    /// A text, a target or choices of a document.
    pub(crate) fn value(self, document: &Value) -> Result<Value, String> {
        Ok(match self {
            Self::WinograndeText => match text(document, "answer")? {
                "1" => json!(0),
                "2" => json!(1),
                other => return Err(format!("the answer {other:?} is neither \"1\" nor \"2\"")),
            },
            Self::WinograndeTarget => json!(around_blank(document)?.1.trim()),
            Self::WinograndeChoices => {
                let before = around_blank(document)?.0;
                json!([
                    format!("{before}{}", text(document, "option1")?),
                    format!("{before}{}", text(document, "option2")?)
                ])
            }
            Self::CopaText => {
                let connector = match text(document, "question")? {
                    "cause" => "because",
                    "effect" => "therefore",
                    other => return Err(format!("the question {other:?} is neither \"cause\" nor \"effect\"")),
                };
                let mut premise = text(document, "premise")?.trim().to_owned();
                premise.pop();
                json!(format!("{premise} {connector}"))
            }
            Self::CopaTarget => {
                let right = if column(document, "label")?.as_i64() == Some(0) { "choice1" } else { "choice2" };
                json!(alternative(text(document, right)?))
            }
            Self::CopaChoices => {
                json!([alternative(text(document, "choice1")?), alternative(text(document, "choice2")?)])
            }
            Self::WikitextTarget => json!(wikitext(text(document, "page")?)),
            Self::HellaswagDocuments | Self::TruthfulMass | Self::WikitextResults | Self::IfevalResults => {
                return Err("the function gives no text".to_owned());
            }
        })
    }
}

fn column<'d>(document: &'d Value, name: &str) -> Result<&'d Value, String> {
    document.get(name).ok_or_else(|| format!("there is no column `{name}`"))
}

fn text<'d>(document: &'d Value, name: &str) -> Result<&'d str, String> {
    column(document, name)?.as_str().ok_or_else(|| format!("the column `{name}` is no text"))
}

/// `str.capitalize`: the first letter upper case, the others lower.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(characters.flat_map(char::to_lowercase)).collect()
}

fn wikihow_cleaned(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut result = String::with_capacity(text.len());
    let mut rest = text.as_str();
    // Anything in brackets on one line.
    while let Some(open) = rest.find('[') {
        let close = rest[open..].find([']', '\n']).filter(|at| rest.as_bytes()[open + at] == b']');
        let (kept, after) = close.map_or((open + 1, open + 1), |at| (open, open + at + 1));
        result.push_str(&rest[..kept]);
        rest = &rest[after..];
    }
    result.push_str(rest);
    result.replace("  ", " ")
}

fn around_blank(document: &Value) -> Result<(&str, &str), String> {
    text(document, "sentence")?.split_once('_').ok_or_else(|| "the sentence has no blank `_`".to_owned())
}

fn alternative(choice: &str) -> String {
    let mut characters = choice.chars();
    let first = characters.next().map(char::to_lowercase);
    std::iter::once(' ').chain(first.into_iter().flatten()).chain(characters).collect()
}

/// `WikiText` without the spaces that its tokens were parted by, in the order of steps of lm-eval.
fn wikitext(page: &str) -> String {
    let mut text = page.replace("s '", "s'");
    text = replaced(&text, r"/' [0-9]/", "/'[0-9]/");
    for (from, to) in [
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ] {
        text = text.replace(from, to);
    }
    for (pattern, to) in [
        (r"\(\s*([^\)]*?)\s*\)", "($1)"),
        (r"\[\s*([^\]]*?)\s*\]", "[$1]"),
        (r"\{\s*([^}]*?)\s*\}", "{$1}"),
        (r#""\s*([^"]*?)\s*""#, "\"$1\""),
        (r"'\s*([^']*?)\s*'", "'$1'"),
    ] {
        text = replaced(&text, pattern, to);
    }
    for (from, to) in [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" \u{b0} ", "\u{b0}"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ] {
        text = text.replace(from, to);
    }
    text
}

fn replaced(text: &str, pattern: &str, to: &str) -> String {
    Regex::new(pattern).map_or_else(|_| text.to_owned(), |regex| regex.replace_all(text, to).into_owned())
}

/// Words as `re.split(r"\s+", text)` counts them.
pub(crate) fn words(text: &str) -> usize {
    let mut count = 1;
    let mut space = false;
    for character in text.chars() {
        count += usize::from(character.is_whitespace() && !space);
        space = character.is_whitespace();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_as_in_python() {
        // Each expected value was printed by the function of the same name in lm-eval 0.4.13.
        let document = json!({"activity_label": "Roof", "ctx_a": "A man [header] sits. [title] On", "ctx_b": "he IS", "endings": [" is [x] ok.  "], "label": "0"});
        let made = Function::HellaswagDocuments.document(&document).unwrap();
        assert_eq!(made["query"], "Roof: A man sits.. On He is");
        assert_eq!((&made["choices"], &made["gold"]), (&json!(["is ok."]), &json!(0)));
        let document = json!({"sentence": "Ann met _ there .", "option1": "Bea", "option2": "Cy", "answer": "2"});
        assert_eq!(Function::WinograndeText.value(&document), Ok(json!(1)));
        assert_eq!(Function::WinograndeTarget.value(&document), Ok(json!("there .")));
        assert_eq!(Function::WinograndeChoices.value(&document), Ok(json!(["Ann met Bea", "Ann met Cy"])));
        let document = json!({"premise": "It rained. ", "question": "effect", "choice1": "He left.", "choice2": "Éa b.", "label": 1});
        assert_eq!(Function::CopaText.value(&document), Ok(json!("It rained therefore")));
        assert_eq!(Function::CopaTarget.value(&document), Ok(json!(" éa b.")));
        assert_eq!(Function::CopaChoices.value(&document), Ok(json!([" he left.", " éa b."])));
        let page =
            json!({"page": " = = Title = = \n It ' s 1 @,@ 000 ( see \" x \" ) , 5 \u{b0} N , the dogs ' bowl .\n"});
        assert_eq!(
            Function::WikitextTarget.value(&page),
            Ok(json!(" == Title ==\nIt's 1,000 (see \"x\"), 5\u{b0}N, the dogs' bowl .\n"))
        );
        assert!(Function::CopaText.value(&json!({})).unwrap_err().contains("no column `question`"));
        assert_eq!((words("a b\n\nc"), words(" a "), words("")), (3, 3, 1));
    }
}
