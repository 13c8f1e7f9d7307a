//! What can go wrong in an engine.

use std::time::Duration;

use espalier_model::ModelError;

use crate::server::ServerKind;

/// An error of an engine; the message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model file, its tokenizer or its chat template.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The prompt leaves no room for a single new token.
    #[error(
        "the prompt has {prompt} tokens, but the context window holds {context} (prompt and answer together); shorten the \
         prompt by at least {} tokens, or raise the context if the model was trained for more", prompt + 1 - context
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens in the window.
        context: usize,
    },
    /// Keys and values of one text alone exceed the memory.
    #[error(
        "prompt and answer of up to {tokens} tokens take {needed} bytes of keys and values, but {available} are left for them; \
         allow more memory, shorten the prompt, or lower max_tokens"
    )]
    TooLargeForMemory {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Bytes that they take.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// A text that is to be read as a whole does not fit.
    #[error("the text has {tokens} tokens, but the context window holds {context}; split it")]
    TextTooLong {
        /// Tokens in the text.
        tokens: usize,
        /// Tokens in the window.
        context: usize,
    },
    /// There is nothing to start from.
    #[error("the prompt is empty and the model has no BOS token to start from; give at least one token")]
    EmptyPrompt,
    /// There is nothing to score.
    #[error("score request {index} has an empty continuation; give at least one token to score")]
    EmptyContinuation {
        /// Which request.
        index: usize,
    },
    /// A token id that the model does not have.
    #[error(
        "token id {token} is not in the vocabulary of {vocabulary} tokens; encode the text with this model's tokenizer"
    )]
    UnknownToken {
        /// The id.
        token: u32,
        /// How many ids there are.
        vocabulary: usize,
    },
    /// No answer can have the form that was asked for, or it cannot be followed.
    #[error("the {kind} of the answer cannot be followed: {problem}")]
    Constraint {
        /// JSON schema, regular expression, choice.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An option that cannot be.
    #[error("option {option}: {problem}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The adapter was made for another model.
    #[error(
        "the adapter does not fit the model: module {module:?}: {problem}; load it with the base model it was trained on"
    )]
    Adapter {
        /// GGUF name of the module.
        module: String,
        /// What does not fit.
        problem: String,
    },
    /// A request for an adapter that the engine does not have.
    #[error("the engine has no adapter {name:?}; it has {known}")]
    UnknownAdapter {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The engine was told to stop before the answer was complete.
    #[error("the engine was stopped before the answer was complete; ask again when it runs")]
    Stopped,
    /// The engine broke down while it computed. Later requests begin afresh.
    #[error("the engine broke down while it wrote the answer: {problem}; ask again, and report it if it comes back")]
    Broken {
        /// What it said.
        problem: String,
    },
    /// A request failed at every try.
    #[error(
        "no server answered it in {attempts} tries: {}; look into the servers' logs, then ask again", reasons.join("; ")
    )]
    GivenUp {
        /// How often it was tried.
        attempts: usize,
        /// Each server and how it failed, with how often.
        reasons: Vec<String>,
    },
    /// No server is left.
    #[error("{}", gone(*patience, *unanswered, servers))]
    ServersGone {
        /// How long they were waited for; `None` where waiting does not help, because they refuse us or serve something else.
        patience: Option<Duration>,
        /// Requests without an answer.
        unanswered: usize,
        /// Each server and its last error.
        servers: Vec<String>,
    },
    /// The server does not have the model.
    #[error("{url}: this server does not serve {model}; it serves {served}")]
    ModelNotServed {
        /// Where.
        url: String,
        /// What was asked for.
        model: String,
        /// What it has.
        served: String,
    },
    /// Servers whose answers differ cannot stand for each other.
    #[error(
        "the servers are of different {what}, and results depend on it: {}; name servers of one", servers.join("; ")
    )]
    DifferentServers {
        /// Models or kinds.
        what: &'static str,
        /// Each server and what it is or has.
        servers: Vec<String>,
    },
    /// A request asks for something that this kind of server cannot do.
    #[error("{kind} cannot do this: {what}; leave it out, or use llama-server, vLLM or the native engine")]
    ServerLacks {
        /// The kind.
        kind: ServerKind,
        /// What it cannot do.
        what: &'static str,
    },
    /// The server refuses a request, or to be asked at all.
    #[error("{url}: the server answered {status}: {body}; {remedy}")]
    Status {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// The first 200 bytes of what it said.
        body: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The server answered with success, but not in the form of `OpenAI`.
    #[error(
        "{url}: the answer is not in the OpenAI form: {missing}; it starts: {body}; \
         check that the URL is that of an OpenAI-compatible server (llama-server, vLLM, Ollama)"
    )]
    Garbage {
        /// Where.
        url: String,
        /// What was missing or malformed.
        missing: String,
        /// The first 200 bytes of the answer.
        body: String,
    },
    /// The server wrote something else than the form that was asked for, twice.
    #[error(
        "{url}: the answer does not fit the {kind} that was asked for (tried twice): {problem}; it starts: {answer}; \
         serve a model that follows instructions better, or a server that enforces the form (llama-server, vLLM)"
    )]
    Unfit {
        /// Where.
        url: String,
        /// JSON schema, regular expression, choice.
        kind: &'static str,
        /// What is wrong with the second answer.
        problem: String,
        /// The first 200 bytes of it.
        answer: String,
    },
    /// A URL that cannot be used.
    #[error("server URL {url:?}: {problem}; write it like http://127.0.0.1:8080")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl EngineError {
    /// Whether the prompt of this one request does not fit the context: others may, and asking again does not help.
    ///
    /// Servers say it in their own words with status 400 or 413 (llama-server: `exceed_context_size_error`, vLLM: `maximum
    /// context length`).
    pub fn is_prompt_too_long(&self) -> bool {
        match self {
            Self::PromptTooLong { .. } => true,
            Self::Status { status: 400 | 413, body, .. } => {
                let body = body.to_lowercase();
                ["context size", "context_size", "context length", "context_length", "context window"]
                    .iter()
                    .any(|words| body.contains(words))
            }
            _ => false,
        }
    }
}

/// The words of [`EngineError::ServersGone`].
fn gone(patience: Option<Duration>, unanswered: usize, servers: &[String]) -> String {
    let who = if servers.len() == 1 { "the server does not answer" } else { "no server answers" };
    let waited = match patience {
        Some(patience) if !patience.is_zero() => format!(" for {} s", patience.as_secs_f64()),
        _ => String::new(),
    };
    let left = match unanswered {
        0 => String::new(),
        1 => "; one request is left without an answer".to_owned(),
        count => format!("; {count} requests are left without an answer"),
    };
    let remedy = match patience {
        Some(_) => "; check that it runs and that host and port are right, then run the same again",
        None => "",
    };
    format!("{who}{waited}: {}{left}{remedy}", servers.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_in_their_own_words_that_a_prompt_is_too_long() {
        let status = |status, body: &str| EngineError::Status {
            url: "http://127.0.0.1:8080/v1".into(),
            status,
            body: body.into(),
            remedy: "",
        };
        let llama = r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#;
        assert!(status(400, llama).is_prompt_too_long());
        assert!(status(400, "This model's maximum context length is 2048 tokens.").is_prompt_too_long());
        assert!(!status(400, "unknown model").is_prompt_too_long());
        assert!(!status(500, llama).is_prompt_too_long());
        assert!(EngineError::PromptTooLong { prompt: 9, context: 8 }.is_prompt_too_long());
    }
}
