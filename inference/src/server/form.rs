//! The form of an answer, as servers are told it: in their own words first, in words of fewer promises where they refuse
//! those, in the conversation itself at last. Whatever they were told, what comes is checked.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use espalier_model::Message;
use serde_json::{Map, Value, json};

use crate::constraint::Constraint;

use super::kind::{Json, Text, Words};

/// How a server is told the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In its fields for such forms: no answer has another one, if the server keeps its word.
    Fields,
    /// As any JSON object, and the schema in the conversation.
    AnyObject,
    /// In the conversation alone.
    Instruction,
}

impl Form {
    /// What is tried first with servers of these words.
    pub(super) fn first(constraint: &Constraint, words: Words) -> Self {
        match (constraint, words.text) {
            (Constraint::Regex(_), Text::Grammar | Text::Absent) | (Constraint::Choice(_), Text::Absent) => {
                Self::Instruction
            }
            _ => Self::Fields,
        }
    }

    /// What is tried when the server refuses this one.
    pub(super) fn next(self, constraint: &Constraint) -> Option<Self> {
        match (self, constraint) {
            (Self::Fields, Constraint::JsonSchema(_)) => Some(Self::AnyObject),
            (Self::Fields | Self::AnyObject, _) => Some(Self::Instruction),
            (Self::Instruction, _) => None,
        }
    }
}

/// The forms that one server took, so that what it refused is not tried with every request.
#[derive(Debug, Default)]
pub(super) struct TakenForms {
    by_constraint: Mutex<HashMap<u64, Form>>,
}

impl TakenForms {
    pub(super) fn first(&self, constraint: &Constraint, words: Words) -> Form {
        let known = self.by_constraint.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&key(constraint)).copied().unwrap_or_else(|| Form::first(constraint, words))
    }

    pub(super) fn took(&self, constraint: &Constraint, form: Form) {
        self.by_constraint.lock().unwrap_or_else(PoisonError::into_inner).insert(key(constraint), form);
    }
}

fn key(constraint: &Constraint) -> u64 {
    let mut hasher = DefaultHasher::new();
    constraint.hash(&mut hasher);
    hasher.finish()
}

/// Sets the fields of a body.
pub(super) fn constrain(body: &mut Map<String, Value>, constraint: &Constraint, words: Words, form: Form) {
    let mut set = |field: &str, value: Value| {
        body.insert(field.to_owned(), value);
    };
    let schema = |schema: &Value| json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}});
    match (constraint, form) {
        (_, Form::Instruction) => {}
        (Constraint::JsonSchema(wanted), Form::Fields) => set("response_format", schema(wanted)),
        (Constraint::JsonSchema(_) | Constraint::JsonObject, _) => set(
            "response_format",
            match words.json {
                Json::Both => json!({"type": "json_object"}),
                Json::SchemaAlone => schema(&json!({"type": "object"})),
            },
        ),
        (Constraint::Regex(expression), _) => {
            set("structured_outputs", json!({"regex": expression}));
            if words.text != Text::StructuredAlone {
                set("guided_regex", json!(expression));
            }
        }
        (Constraint::Choice(choices), _) => {
            if words.text != Text::Grammar {
                set("structured_outputs", json!({"choice": choices}));
            }
            if matches!(words.text, Text::Structured | Text::Unknown) {
                set("guided_choice", json!(choices));
            }
            if matches!(words.text, Text::Grammar | Text::Unknown) {
                // JSON strings are literals of a grammar too.
                let literals: Vec<String> = choices.iter().map(|choice| json!(choice).to_string()).collect();
                set("grammar", json!(format!("root ::= {}", literals.join(" | "))));
            }
        }
    }
}

/// Says the form in the conversation, where the fields do not say all of it.
pub(super) fn instruct(messages: &mut Vec<Message>, constraint: &Constraint, form: Form) {
    if form == Form::Fields {
        return;
    }
    let wanted = match constraint {
        Constraint::JsonSchema(schema) => format!("Answer with JSON that fits this JSON schema: {schema}"),
        Constraint::JsonObject => "Answer with one JSON object.".to_owned(),
        Constraint::Regex(expression) => {
            format!("Answer with a text that this regular expression matches as a whole: {expression}")
        }
        Constraint::Choice(choices) => format!("Answer with one of these texts: {}", json!(choices)),
    };
    let wanted = format!("{wanted}\nWrite nothing else: no explanation, no code block.");
    match messages.last_mut() {
        Some(last) if last.role == "user" => last.content = format!("{}\n\n{wanted}", last.content),
        _ => messages.push(Message::new("user", wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::ServerKind;
    use super::*;

    fn fields(constraint: &Constraint, kind: ServerKind, form: Form) -> Value {
        let mut body = Map::new();
        constrain(&mut body, constraint, kind.words(), form);
        Value::Object(body)
    }

    #[test]
    fn each_kind_is_told_in_its_words() {
        let schema = Constraint::JsonSchema(json!({"type": "integer"}));
        let choice = Constraint::Choice(vec!["a\"".to_owned(), "b".to_owned()]);
        let regex = Constraint::Regex("[ab]".to_owned());
        let object = json!({"response_format": {"type": "json_object"}});
        assert_eq!(fields(&schema, ServerKind::LlamaServer, Form::AnyObject), object);
        assert_eq!(fields(&Constraint::JsonObject, ServerKind::Ollama, Form::Fields), object);
        let any = fields(&Constraint::JsonObject, ServerKind::LmStudio, Form::Fields);
        assert_eq!(any["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
        assert_eq!(
            fields(&choice, ServerKind::LlamaServer, Form::Fields),
            json!({"grammar": "root ::= \"a\\\"\" | \"b\""})
        );
        assert_eq!(
            fields(&regex, ServerKind::Vllm, Form::Fields),
            json!({"structured_outputs": {"regex": "[ab]"}, "guided_regex": "[ab]"})
        );
        assert_eq!(
            fields(&regex, ServerKind::Espalier, Form::Fields),
            json!({"structured_outputs": {"regex": "[ab]"}})
        );
        assert_eq!(
            fields(&choice, ServerKind::Espalier, Form::Fields),
            json!({"structured_outputs": {"choice": ["a\"", "b"]}})
        );
        for (constraint, kind) in [(&regex, ServerKind::LlamaServer), (&choice, ServerKind::LmStudio)] {
            let form = Form::first(constraint, kind.words());
            assert_eq!((form, fields(constraint, kind, form)), (Form::Instruction, json!({})));
        }
    }

    #[test]
    fn an_instruction_stands_behind_the_question() {
        let mut messages = vec![Message::new("system", "Be kind."), Message::new("user", "A colour?")];
        let choice = Constraint::Choice(vec!["red".to_owned(), "blue".to_owned()]);
        instruct(&mut messages, &choice, Form::Fields);
        assert_eq!(messages[1].content, "A colour?");
        instruct(&mut messages, &choice, Form::Instruction);
        assert!(messages[1].content.starts_with("A colour?\n\nAnswer with one of these texts: [\"red\",\"blue\"]\n"));
        assert_eq!(messages.len(), 2);
    }
}
