//! Chat templates: how a conversation becomes the text that a model was trained on.
//!
//! Templates are written in Jinja for Python's transformers. They run here in minijinja with the same settings (blocks take
//! their line with them), with the methods of Python's strings and dictionaries that templates call, with `raise_exception`,
//! and without the clock: `strftime_now` is not defined, and templates that ask for it fall back to their fixed date.

mod python_methods;

pub use python_methods::call as python_method;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// For models without a template: roles as headings, an end token after each answer so that a tuned model learns to stop.
const PLAIN: &str = "\
{%- for message in messages -%}
{{ message.role | title }}: {{ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}";

const NAME: &str = "chat template";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    builtin: bool,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// From the template that a model brings (`None`: the built-in plain one) and the texts of its BOS and EOS tokens (empty
    /// where it has none). A template that is not Jinja is an error with its line.
    pub fn new(source: Option<&str>, bos: &str, eos: &str) -> Result<Self, ModelError> {
        let builtin = source.is_none();
        let source = source.unwrap_or(PLAIN);
        let environment = environment(source).map_err(|error| failure(&error))?;
        Ok(Self { environment, source: source.to_owned(), builtin, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The text of a conversation; `add_generation_prompt` opens the turn of the assistant.
    ///
    /// Fails when the template refuses the conversation, for instance because roles do not alternate.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ModelError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())]))
            .collect();
        let context = context! {
            messages,
            add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => (),
            documents => (),
        };
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|error| failure(&error))
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the model brought no template.
    pub fn is_builtin(&self) -> bool {
        self.builtin
    }
}

fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python_method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("tojson", tojson);
    environment.add_template_owned(NAME, without_generation_blocks(source))?;
    Ok(environment)
}

fn failure(error: &Error) -> ModelError {
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    ModelError::invalid(
        format!("{NAME}{line}"),
        detail,
        "check the roles and their order, or give the model another chat template",
    )
}

/// `json.dumps(value, ensure_ascii=False)`: minijinja's own filter, without its protection against HTML.
fn tojson(value: &Value, indent: Option<Value>, arguments: Kwargs) -> Result<String, Error> {
    let _: Option<bool> = arguments.get("ensure_ascii")?;
    let text = minijinja::filters::tojson(value, indent, arguments)?.to_string();
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at..];
        let known = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
        let length = if let Some(&(code, character)) = known.iter().find(|(code, _)| escape.starts_with(code)) {
            plain.push(character);
            code.len()
        } else {
            // Any other escape: the backslash and the ASCII character after it, so that `\\u003c` stays.
            let length = escape.len().min(2);
            plain.push_str(&escape[..length]);
            length
        };
        rest = &escape[length..];
    }
    plain.push_str(rest);
    Ok(plain)
}

/// transformers marks the assistant's words with `{% generation %}`...`{% endgeneration %}`, which print nothing: they become a
/// condition that is always true.
fn without_generation_blocks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, inside, after)) = next_block(rest) {
        result.push_str(before);
        let name = inside.trim_matches(['-', '+']).trim();
        match name {
            "generation" | "endgeneration" => {
                let replacement = if name == "generation" { "if true" } else { "endif" };
                result.push_str(&["{%", &inside.replace(name, &format!(" {replacement} ")), "%}"].concat());
            }
            _ => result.push_str(&["{%", inside, "%}"].concat()),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

/// The text before the next `{% %}`, its inside, and the text after it.
fn next_block(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{%")?;
    let (inside, after) = rest.split_once("%}")?;
    Some((before, inside, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    const QWEN25: &str = "{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- \"\\n\" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

    const LLAMA2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

    fn render(source: &str, messages: &[(&str, &str)], prompt: bool) -> Result<String, ModelError> {
        let messages: Vec<Message> = messages.iter().map(|&(role, content)| Message::new(role, content)).collect();
        ChatTemplate::new(Some(source), "<s>", "</s>")?.render(&messages, prompt)
    }

    #[test]
    fn smollm2_puts_its_own_system_turn_first() {
        let text = render(SMOLLM2, &[("user", "Hi")], true).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn qwen25_with_and_without_a_system_turn() {
        let text = render(QWEN25, &[("system", "S"), ("user", "U"), ("assistant", "A")], false).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        );
        let text = render(QWEN25, &[("user", "U")], true).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn llama2_strips_and_raises() {
        let text = render(LLAMA2, &[("system", "S"), ("user", " U "), ("assistant", "A")], false).unwrap();
        assert_eq!(text, "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n U [/INST] A </s>");
        let error = render(LLAMA2, &[("assistant", "A")], false).unwrap_err().to_string();
        assert!(error.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn the_plain_template_is_a_prefix_of_its_own_answer() {
        let plain = ChatTemplate::new(None, "", "</s>").unwrap();
        assert!(plain.is_builtin());
        let (question, answer) = (Message::new("user", "2 + 2?"), Message::new("assistant", "4"));
        let prompt = plain.render(std::slice::from_ref(&question), true).unwrap();
        assert_eq!(prompt, "User: 2 + 2?\n\nAssistant:");
        let whole = plain.render(&[question, answer], false).unwrap();
        assert_eq!(whole, "User: 2 + 2?\n\nAssistant: 4</s>\n\n");
    }

    #[test]
    fn blocks_take_their_line_and_no_clock_is_there() {
        let source =
            "{% if strftime_now is defined %}\nclock\n{% endif %}\n    {% set day = '26 Jul 2024' %}\n{{ day }}\n";
        assert_eq!(render(source, &[], false).unwrap(), "26 Jul 2024");
    }

    #[test]
    fn json_is_that_of_python() {
        let source = r#"{{ {"a": [1, 2.5, none, true], "b": "<é' & \\u003c\n>"} | tojson }}"#;
        assert_eq!(render(source, &[], false).unwrap(), r#"{"a": [1, 2.5, null, true], "b": "<é' & \\u003c\n>"}"#);
    }

    #[test]
    fn generation_blocks_and_loop_controls() {
        let source = "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{%- generation -%} {{ m.content }} {%- endgeneration %};{% endfor %}";
        assert_eq!(render(source, &[("system", "S"), ("user", "U")], false).unwrap(), "U;");
    }

    #[test]
    fn a_broken_template_names_its_line() {
        let error = ChatTemplate::new(Some("a\n{% if %}"), "", "").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn python_methods() {
        for (expression, expected) in [
            ("'  a '.strip()", "a"),
            ("'xxaxx'.strip('x')", "a"),
            ("'xxaxx'.lstrip('x')", "axx"),
            ("'a\\n'.rstrip('\\n')", "a"),
            ("'abc'.startswith('ab')", "True"),
            ("'abc'.startswith(('x', 'a'))", "True"),
            ("'abc'.endswith('ab')", "False"),
            ("'a</t>b</t>c'.split('</t>')[-1]", "c"),
            ("'a b  c'.split() | join('|')", "a|b|c"),
            ("'a b  c'.split(none, 1) | join('|')", "a|b  c"),
            ("'a,b,c'.split(',', 1) | join('|')", "a|b,c"),
            ("'a,b,c'.rsplit(',', 1) | join('|')", "a,b|c"),
            ("'aaa'.replace('a', 'b')", "bbb"),
            ("'aaa'.replace('a', 'b', 2)", "bba"),
            ("'aB'.upper() + 'aB'.lower() + 'ab cd'.title() + 'aB'.capitalize()", "ABabAb CdAb"),
            ("{'a': 1}.items() | list | length", "1"),
            ("{'a': 1}.get('a') + {'a': 1}.get('b', 2)", "3"),
            ("{'a': 1}.keys() | join", "a"),
            ("{'a': 1}.values() | join", "1"),
            ("', '.join(['a', 'b'])", "a, b"),
            ("'abcb'.find('b')", "1"),
            ("'abcb'.count('b')", "2"),
        ] {
            let result = render(&format!("{{{{ {expression} }}}}"), &[], false);
            assert_eq!(result.unwrap_or_else(|error| error.to_string()), expected, "{expression}");
        }
        let error = render("{{ 'a'.swapcase() }}", &[], false).unwrap_err().to_string();
        assert!(error.contains("swapcase"), "{error}");
    }
}
