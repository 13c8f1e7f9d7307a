//! The kinds of servers, and in one table what differs between them.

use std::path::Path;

use serde_json::Value;

/// What a server is, as far as its answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// llama-server of llama.cpp; `RamaLama` and llamafile run it.
    LlamaServer,
    /// vLLM.
    Vllm,
    /// Ollama.
    Ollama,
    /// LM Studio.
    LmStudio,
    /// Docker Model Runner.
    ModelRunner,
    /// `pipeline serve`.
    Espalier,
    /// Anything else that speaks the protocol of `OpenAI`.
    Other,
}

/// How a kind takes a JSON schema and a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// `response_format` of both types.
    Both,
    /// `response_format` with a schema alone; an object is the schema of any object.
    SchemaAlone,
}

/// How a kind takes a regular expression or a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// vLLM: `structured_outputs`, in older versions `guided_regex` and `guided_choice`.
    Structured,
    /// `pipeline serve`: `structured_outputs` and no other word.
    StructuredAlone,
    /// llama.cpp: a grammar for a choice, nothing for an expression.
    Grammar,
    /// Both are sent; whether one is known shows in the answer.
    Unknown,
    /// Not at all: an instruction, and a look at the answer.
    Absent,
}

/// How a kind names tokens in log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logprobs {
    /// Each token comes with its `id`.
    Ids,
    /// Asked with `return_tokens_as_token_ids`, the token's text is `token_id:N`.
    TextIsId,
    /// Ids are not told.
    Absent,
}

/// A line of the table: the words of a kind.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "a line of a table: known or not, field by field")]
pub(super) struct Words {
    /// `top_k` and `min_p`.
    pub truncation: bool,
    /// The field of the repetition penalty; several where it is not known which one is understood.
    pub repetition: &'static [&'static str],
    /// `logit_bias`.
    pub logit_bias: bool,
    /// `stop_token_ids`.
    pub stop_tokens: bool,
    /// Prompts of token ids at `/completions`.
    pub token_prompts: bool,
    pub json: Json,
    pub text: Text,
    pub logprobs: Logprobs,
    /// `echo` with `logprobs` at `/completions`: what the prompt's tokens have. An unknown server is asked, and may refuse.
    pub echo: bool,
    /// Requests at once to begin with, where the slots are not told.
    pub first_concurrency: usize,
}

impl ServerKind {
    /// The table. Fields that all have in common: `max_tokens`, `temperature`, `top_p`, `seed`, `stop`, `frequency_penalty`
    /// and `presence_penalty`. `n` is nowhere used: n answers are n requests, so that each has a seed and is counted alone.
    pub(super) fn words(self) -> Words {
        const OPENAI: Words = Words {
            truncation: true,
            repetition: &["repeat_penalty", "repetition_penalty"],
            logit_bias: true,
            stop_tokens: true,
            token_prompts: true,
            json: Json::Both,
            text: Text::Unknown,
            logprobs: Logprobs::Ids,
            echo: true,
            first_concurrency: 1,
        };
        match self {
            Self::LlamaServer | Self::ModelRunner => Words {
                repetition: &["repeat_penalty"],
                stop_tokens: false,
                text: Text::Grammar,
                echo: false,
                ..OPENAI
            },
            Self::Vllm => Words {
                repetition: &["repetition_penalty"],
                text: Text::Structured,
                logprobs: Logprobs::TextIsId,
                first_concurrency: 8,
                ..OPENAI
            },
            Self::Ollama => Words {
                truncation: false,
                repetition: &[],
                logit_bias: false,
                stop_tokens: false,
                token_prompts: false,
                text: Text::Absent,
                logprobs: Logprobs::Absent,
                echo: false,
                ..OPENAI
            },
            Self::LmStudio => Words {
                repetition: &["repeat_penalty"],
                stop_tokens: false,
                token_prompts: false,
                json: Json::SchemaAlone,
                text: Text::Absent,
                logprobs: Logprobs::Absent,
                echo: false,
                ..OPENAI
            },
            Self::Espalier => Words {
                repetition: &["repetition_penalty"],
                text: Text::StructuredAlone,
                first_concurrency: 8,
                ..OPENAI
            },
            Self::Other => OPENAI,
        }
    }

    /// Its name in identities: no spaces.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlamaServer => "llama-server",
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::LmStudio => "lm-studio",
            Self::ModelRunner => "docker-model-runner",
            Self::Espalier => "espalier",
            Self::Other => "openai-compatible",
        }
    }

    /// The name of a model without what differs between machines that serve the same: the folder and `.gguf` of a file,
    /// registry and `:latest` of a reference.
    pub(super) fn plain_name(self, model: &str) -> &str {
        match self {
            Self::Ollama => model.strip_suffix(":latest").unwrap_or(model),
            Self::ModelRunner => {
                let model = model.strip_prefix("docker.io/").unwrap_or(model);
                model.strip_suffix(":latest").unwrap_or(model)
            }
            _ => {
                let path = Path::new(model);
                let gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
                let name = match (gguf, path.has_root()) {
                    (true, _) => path.file_stem(),
                    (false, true) => path.file_name(),
                    (false, false) => None,
                };
                name.and_then(|name| name.to_str()).unwrap_or(model)
            }
        }
    }

    /// Whether the body at the path of this kind ([`SIGNS`]) is its own, and of no kind that stands there before it.
    pub(super) fn recognizes(self, body: &Value) -> bool {
        match self {
            Self::Espalier => {
                body.get("build_info").and_then(Value::as_str).is_some_and(|build| build.starts_with("espalier "))
            }
            Self::LlamaServer => body.get("total_slots").is_some() || body.get("default_generation_settings").is_some(),
            Self::Vllm | Self::Ollama => body.get("version").is_some_and(Value::is_string),
            Self::LmStudio => body
                .pointer("/data/0")
                .is_some_and(|model| model.get("state").is_some() || model.get("publisher").is_some()),
            Self::ModelRunner | Self::Other => false,
        }
    }
}

/// The slots that the body says.
pub(super) fn slots(body: &Value) -> Option<usize> {
    body.get("total_slots").and_then(Value::as_u64).map(|slots| slots as usize)
}

/// Where kinds show themselves, in the order in which they are looked at. Servers answer unknown paths in many ways, also with
/// success: what comes is read, the status alone says nothing.
pub(super) const SIGNS: [(&str, &[ServerKind]); 4] = [
    ("/props", &[ServerKind::Espalier, ServerKind::LlamaServer]),
    ("/version", &[ServerKind::Vllm]),
    ("/api/version", &[ServerKind::Ollama]),
    ("/api/v0/models", &[ServerKind::LmStudio]),
];

impl std::fmt::Display for ServerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LlamaServer => "llama-server",
            Self::Vllm => "vLLM",
            Self::Ollama => "Ollama",
            Self::LmStudio => "LM Studio",
            Self::ModelRunner => "Docker Model Runner",
            Self::Espalier => "pipeline serve",
            Self::Other => "a server of an unknown kind",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_model_are_equal() {
        for (kind, name, plain) in [
            (ServerKind::LlamaServer, "/home/me/models/qwen.Q4_K_M.gguf", "qwen.Q4_K_M"),
            (ServerKind::LlamaServer, "qwen.Q4_K_M.gguf", "qwen.Q4_K_M"),
            (ServerKind::LlamaServer, "my-alias", "my-alias"),
            (ServerKind::Vllm, "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
            (ServerKind::Vllm, "/models/Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B-Instruct"),
            (ServerKind::Ollama, "qwen2.5:latest", "qwen2.5"),
            (ServerKind::Ollama, "qwen2.5:0.5b", "qwen2.5:0.5b"),
            (ServerKind::ModelRunner, "docker.io/ai/smollm2:latest", "ai/smollm2"),
        ] {
            assert_eq!(kind.plain_name(name), plain);
        }
    }
}
