//! Templates of tasks: Jinja as Python runs it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use espalier_inference::python_method;
use fancy_regex::Regex;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Template};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use super::python;

/// Renders templates over documents. Names that a document does not have are errors; what is printed is Python's text of it.
pub(crate) struct Templates {
    environment: RefCell<Environment<'static>>,
    /// Name of each source within the environment.
    names: RefCell<HashMap<String, Rc<str>>>,
}

impl Templates {
    pub(crate) fn new() -> Self {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.keep_trailing_newline(true);
        if let Ok(syntax) = syntax.build() {
            environment.set_syntax(syntax);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(python_method);
        environment.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            Ok(out.write_str(&python_text(value)?)?)
        });
        environment.add_filter("regex_replace", regex_replace);
        Self { environment: RefCell::new(environment), names: RefCell::default() }
    }

    /// The text of a template over a document.
    pub(crate) fn render(&self, source: &str, document: &Value) -> Result<String, String> {
        // Most templates of delimiters and prefixes are plain text.
        if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            return Ok(source.to_owned());
        }
        let name = self.compiled(source).map_err(|error| words(&error))?;
        let environment = self.environment.borrow();
        environment
            .get_template(&name)
            .and_then(|template| template.render(Serde(document)))
            .map_err(|error| words(&error))
    }

    fn compiled(&self, source: &str) -> Result<Rc<str>, Error> {
        if let Some(name) = self.names.borrow().get(source) {
            return Ok(Rc::clone(name));
        }
        let name: Rc<str> = format!("template {}", self.names.borrow().len() + 1).into();
        self.environment.borrow_mut().add_template_owned(name.to_string(), source.to_owned())?;
        self.names.borrow_mut().insert(source.to_owned(), Rc::clone(&name));
        Ok(name)
    }
}

fn python_text(value: &Template) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let json = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, format!("a value has no text: {error}")))?;
    Ok(python::text(&json))
}

/// `re.sub(pattern, replacement, text, count)`.
fn regex_replace(text: &str, pattern: &str, replacement: &str, count: Option<usize>) -> Result<String, Error> {
    let regex = Regex::new(pattern)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("{pattern:?}: {error}")))?;
    // `\1` is Python's, `$1` ours.
    let mut translated = String::with_capacity(replacement.len());
    let mut characters = replacement.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                translated.push_str(&format!("${{{digit}}}"));
                characters.next();
            }
            ('$', _) => translated.push_str("$$"),
            _ => translated.push(character),
        }
    }
    Ok(regex.replacen(text, count.unwrap_or(0), translated.as_str()).into_owned())
}

fn words(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line().filter(|line| *line > 1) {
        Some(line) => format!("{detail} (line {line} of the template)"),
        None => detail,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_of_tasks_render_as_in_python() {
        // Each expected text was printed by lm_eval.utils.apply_template 0.4.13.
        let templates = Templates::new();
        let document = json!({
            "question": " What? ", "choices": {"text": ["a'b", "c"], "label": ["A", "B"]}, "answerKey": "B", "text": "one two three",
            "number": 2.0, "flag": true, "nothing": null, "sol1": "x", "sol2": "y\n",
        });
        for (source, expected) in [
            ("Question: {{question.strip()}}\nAnswer:\n", "Question: What?\nAnswer:\n"),
            ("{{choices.label.index(answerKey.lstrip())}}", "1"),
            ("{{choices.text}}", "[\"a'b\", 'c']"),
            ("{{[sol1, sol2]}}", "['x', 'y\\n']"),
            ("{{text.split(' ')[:-1]|join(' ')}}", "one two"),
            ("{{' '+text.split(' ')[-1]}}", " three"),
            ("{{number}} {{flag}} {{nothing}}", "2.0 True None"),
            ("{% set a = 'Q: ' %}{{a + question}}{% if flag %}!{% endif %}", "Q:  What? !"),
            ("{{choices['text'][0]}}{% for c in choices.text %} {{loop.index}}{% endfor %}", "a'b 1 2"),
            ("{{text | regex_replace('(o)ne', '\\\\1$')}}", "o$ two three"),
            ("{{ {'a': 1}['a'] }} {{text.upper()}} {{text[0]}}", "1 ONE TWO THREE o"),
        ] {
            assert_eq!(templates.render(source, &document).as_deref(), Ok(expected), "{source}");
        }
        assert!(templates.render("{{absent}}", &document).is_err());
        assert!(templates.render("{{choices.absent}}", &document).is_err());
        assert!(templates.render("{{question", &document).is_err());
        assert!(templates.render("{{choices.label.index('Z')}}", &document).unwrap_err().contains("there is no Z"));
    }
}
