//! The 25 kinds of instruction, with their arguments.

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// How a count stands to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Fewer than the bound.
    LessThan,
    /// The bound or more.
    AtLeast,
}

impl Relation {
    /// Whether a count stands so to the bound.
    pub fn holds(self, count: usize, bound: usize) -> bool {
        match self {
            Self::LessThan => count < bound,
            Self::AtLeast => count >= bound,
        }
    }
}

/// An instruction that a program can check. The ids in brackets are those of the published set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Instruction {
    /// Every one of these patterns occurs, in any case (`keywords:existence`).
    Keywords(Vec<Regex>),
    /// A pattern occurs so often, in any case (`keywords:frequency`).
    KeywordFrequency(Regex, Relation, usize),
    /// None of these words occurs, in any case (`keywords:forbidden_words`).
    ForbiddenWords(Vec<Regex>),
    /// A letter occurs so often, in any case (`keywords:letter_frequency`).
    LetterFrequency(char, Relation, usize),
    /// The language, as ISO 639-1 code (`language:response_language`).
    Language(String),
    /// So many sentences (`length_constraints:number_sentences`).
    Sentences(Relation, usize),
    /// Exactly so many parts between `***` (`length_constraints:number_paragraphs`).
    Paragraphs(usize),
    /// So many words (`length_constraints:number_words`).
    Words(Relation, usize),
    /// Exactly so many parts between empty lines, of which one begins with a word
    /// (`length_constraints:nth_paragraph_first_word`).
    FirstWord {
        /// Parts there are to be.
        paragraphs: usize,
        /// The part that begins with the word, from 1.
        nth: usize,
        /// The word, in lower case.
        word: String,
    },
    /// At least so many `[placeholders]` (`detectable_content:number_placeholders`).
    Placeholders(usize),
    /// A postscript begins with the pattern (`detectable_content:postscript`).
    Postscript(Regex),
    /// Exactly so many bullet points (`detectable_format:number_bullet_lists`).
    Bullets(usize),
    /// One of three fixed answers occurs (`detectable_format:constrained_response`).
    ConstrainedResponse,
    /// At least so many `*highlights*` (`detectable_format:number_highlighted_sections`).
    Highlights(usize),
    /// At least so many headings of this pattern (`detectable_format:multiple_sections`).
    Sections(Regex, usize),
    /// The whole is JSON, bare or in a code fence (`detectable_format:json_format`).
    Json,
    /// A title in `<<double angular brackets>>` (`detectable_format:title`).
    Title,
    /// Two different responses, six asterisks between them (`combination:two_responses`).
    TwoResponses,
    /// Begins with this text, in any case (`combination:repeat_prompt`).
    RepeatPrompt(String),
    /// Ends with this text, in any case (`startend:end_checker`).
    EndsWith(String),
    /// Stands in double quotation marks (`startend:quotation`).
    Quotation,
    /// So many words in capitals (`change_case:capital_word_frequency`).
    CapitalWords(Relation, usize),
    /// English in capitals (`change_case:english_capital`).
    EnglishCapital,
    /// English in small letters (`change_case:english_lowercase`).
    EnglishLowercase,
    /// No comma (`punctuation:no_comma`).
    NoComma,
}

impl Instruction {
    /// The instruction of an id and its arguments.
    ///
    /// # Errors
    /// A sentence for the user: the id is unknown, an argument is missing or is of another kind.
    pub fn new(id: &str, arguments: &Map<String, Value>) -> Result<Self, String> {
        let given = Arguments { id, arguments };
        Ok(match id {
            "keywords:existence" => Self::Keywords(given.patterns("keywords", "", "")?),
            "keywords:frequency" => Self::KeywordFrequency(
                given.pattern(given.text("keyword")?.trim())?,
                given.relation("relation")?,
                given.count("frequency")?,
            ),
            "keywords:forbidden_words" => Self::ForbiddenWords(given.patterns("forbidden_words", r"\b", r"\b")?),
            "keywords:letter_frequency" => Self::LetterFrequency(
                given.letter("letter")?,
                given.relation("let_relation")?,
                given.count("let_frequency")?,
            ),
            "language:response_language" => Self::Language(given.text("language")?.to_owned()),
            "length_constraints:number_sentences" => {
                Self::Sentences(given.relation("relation")?, given.count("num_sentences")?)
            }
            "length_constraints:number_paragraphs" => Self::Paragraphs(given.count("num_paragraphs")?),
            "length_constraints:number_words" => Self::Words(given.relation("relation")?, given.count("num_words")?),
            "length_constraints:nth_paragraph_first_word" => given.first_word()?,
            "detectable_content:number_placeholders" => Self::Placeholders(given.count("num_placeholders")?),
            "detectable_content:postscript" => Self::Postscript(given.postscript()?),
            "detectable_format:number_bullet_lists" => Self::Bullets(given.count("num_bullets")?),
            "detectable_format:constrained_response" => Self::ConstrainedResponse,
            "detectable_format:number_highlighted_sections" => Self::Highlights(given.count("num_highlights")?),
            "detectable_format:multiple_sections" => {
                let heading = [r"\s?", given.text("section_spliter")?.trim(), r"\s?\d+\s?"].concat();
                Self::Sections(given.compiled(&heading, false)?, given.count("num_sections")?)
            }
            "detectable_format:json_format" => Self::Json,
            "detectable_format:title" => Self::Title,
            "combination:two_responses" => Self::TwoResponses,
            "combination:repeat_prompt" => Self::RepeatPrompt(given.text("prompt_to_repeat")?.trim().to_lowercase()),
            "startend:end_checker" => Self::EndsWith(given.text("end_phrase")?.trim().to_lowercase()),
            "startend:quotation" => Self::Quotation,
            "change_case:capital_word_frequency" => {
                Self::CapitalWords(given.relation("capital_relation")?, given.count("capital_frequency")?)
            }
            "change_case:english_capital" => Self::EnglishCapital,
            "change_case:english_lowercase" => Self::EnglishLowercase,
            "punctuation:no_comma" => Self::NoComma,
            _ => {
                return Err(format!(
                    "instruction {id:?} is unknown; the 25 kinds of the published IFEval set are checked"
                ));
            }
        })
    }
}

/// The arguments of one instruction, read by name.
struct Arguments<'a> {
    id: &'a str,
    arguments: &'a Map<String, Value>,
}

impl Arguments<'_> {
    fn refuse(&self, name: &str, expected: &str) -> String {
        match self.arguments.get(name) {
            Some(found) if !found.is_null() => format!("{}: `{name}` is {found}, expected {expected}", self.id),
            _ => format!("{}: `{name}` is missing in `kwargs`; give {expected}", self.id),
        }
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        self.arguments
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.refuse(name, "a text"))
    }

    fn count(&self, name: &str) -> Result<usize, String> {
        // Data frames turn whole numbers with gaps between them into 3.0.
        let number = self
            .arguments
            .get(name)
            .and_then(Value::as_f64)
            .filter(|number| number.fract().abs() < f64::EPSILON && (1.0..=f64::from(u32::MAX)).contains(number));
        number.map(|number| number as usize).ok_or_else(|| self.refuse(name, "a whole number from 1"))
    }

    fn relation(&self, name: &str) -> Result<Relation, String> {
        match self.arguments.get(name).and_then(Value::as_str) {
            Some("less than") => Ok(Relation::LessThan),
            Some("at least") => Ok(Relation::AtLeast),
            _ => Err(self.refuse(name, "\"less than\" or \"at least\"")),
        }
    }

    fn letter(&self, name: &str) -> Result<char, String> {
        let mut characters = self.text(name)?.chars();
        match (characters.next(), characters.next()) {
            (Some(letter), None) => Ok(letter.to_lowercase().next().unwrap_or(letter)),
            _ => Err(self.refuse(name, "one letter")),
        }
    }

    fn patterns(&self, name: &str, before: &str, after: &str) -> Result<Vec<Regex>, String> {
        let words = self.arguments.get(name).and_then(Value::as_array).filter(|words| !words.is_empty());
        let words: Option<Vec<&str>> = words.and_then(|words| words.iter().map(Value::as_str).collect());
        let words = words.ok_or_else(|| self.refuse(name, "a list of words"))?;
        words.iter().map(|word| self.pattern(&[before, word, after].concat())).collect()
    }

    /// Words are regular expressions, as in the published checker.
    fn pattern(&self, pattern: &str) -> Result<Regex, String> {
        self.compiled(pattern, true)
    }

    fn compiled(&self, pattern: &str, any_case: bool) -> Result<Regex, String> {
        RegexBuilder::new(pattern)
            .case_insensitive(any_case)
            .multi_line(true)
            .build()
            .map_err(|error| format!("{}: {pattern:?} is no regular expression: {error}", self.id))
    }

    fn postscript(&self) -> Result<Regex, String> {
        let pattern = match self.text("postscript_marker")?.trim() {
            "P.P.S" => r"\s*p\.\s?p\.\s?s.*$".to_owned(),
            "P.S." => r"\s*p\.\s?s\..*$".to_owned(),
            other => [r"\s*", &other.to_lowercase(), ".*$"].concat(),
        };
        self.compiled(&pattern, false)
    }

    fn first_word(&self) -> Result<Instruction, String> {
        let (paragraphs, nth) = (self.count("num_paragraphs")?, self.count("nth_paragraph")?);
        if nth > paragraphs {
            return Err(format!("{}: `nth_paragraph` is {nth}, but there are to be {paragraphs} paragraphs", self.id));
        }
        Ok(Instruction::FirstWord { paragraphs, nth, word: self.text("first_word")?.to_lowercase() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(id: &str, arguments: &Value) -> String {
        Instruction::new(id, arguments.as_object().unwrap()).unwrap_err()
    }

    #[test]
    fn wrong_arguments_are_named() {
        let missing = problem("length_constraints:number_words", &json!({"relation": "at least"}));
        assert_eq!(
            missing,
            "length_constraints:number_words: `num_words` is missing in `kwargs`; give a whole number from 1"
        );
        let wrong = problem("length_constraints:number_words", &json!({"relation": "more than", "num_words": 3}));
        assert!(wrong.contains("`relation` is \"more than\", expected \"less than\" or \"at least\""), "{wrong}");
        assert!(problem("keywords:existence", &json!({"keywords": []})).contains("a list of words"));
        assert!(problem("keywords:existence", &json!({"keywords": ["("]})).contains("no regular expression"));
        assert!(problem("keywords:letter_frequency", &json!({"letter": "ab"})).contains("one letter"));
        let beyond = json!({"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"});
        assert!(problem("length_constraints:nth_paragraph_first_word", &beyond).contains("2 paragraphs"));
        assert!(problem("keywords:rhyme", &json!({})).contains("25 kinds"));
    }

    #[test]
    fn whole_numbers_may_be_written_as_decimals() {
        let found =
            Instruction::new("detectable_format:number_bullet_lists", json!({"num_bullets": 3.0}).as_object().unwrap());
        assert!(matches!(found, Ok(Instruction::Bullets(3))));
        assert!(
            problem("detectable_format:number_bullet_lists", &json!({"num_bullets": 2.5})).contains("whole number")
        );
    }
}
