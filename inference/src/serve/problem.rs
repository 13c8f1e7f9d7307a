//! Errors in the form of the protocol.

use serde_json::json;

use super::connection::Reply;
use crate::error::EngineError;
use crate::openai::{FieldProblem, error_code};
use crate::service::Refused;

/// What is wrong with a request, or with the server at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: u16,
    message: String,
    /// The field that is wrong.
    param: Option<String>,
    code: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: u16, message: String) -> Self {
        Self { status, message, param: None, code: None }
    }

    pub(super) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(super) fn at(self, field: &str) -> Self {
        Self { param: Some(field.to_owned()), ..self }
    }

    /// The body is larger than one may be.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes; send several smaller requests");
        Self::new(413, message).with_code("request_too_large")
    }

    /// The client closed its side before the request was whole.
    pub(super) fn cut_off() -> Self {
        Self::new(400, "the body ends half-way".to_owned())
    }

    /// Something is full that will be free again.
    pub(super) fn busy(message: &str) -> Self {
        Self::new(429, format!("{message}; try again in a moment")).with_code("rate_limit_exceeded")
    }

    /// The server ends.
    pub(super) fn stopping() -> Self {
        Self::new(503, "the server is being stopped".to_owned()).with_code("server_stopping")
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// The object under `error`.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let kind = match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }

    pub(super) fn reply(&self) -> Reply {
        let mut reply = Reply::json(self.status, &self.to_json());
        match self.status {
            401 => reply.headers.push(("WWW-Authenticate", "Bearer".to_owned())),
            429 | 503 => reply.headers.push(("Retry-After", "1".to_owned())),
            _ => {}
        }
        reply
    }
}

impl From<FieldProblem> for Problem {
    fn from(problem: FieldProblem) -> Self {
        let code = if problem.problem == ": there is no such field" { "unknown_parameter" } else { "invalid_value" };
        Self::new(400, problem.to_string()).at(&problem.field).with_code(code)
    }
}

impl Problem {
    /// Why the engine gave no answer; `prompt` is the field that holds the prompt.
    pub(super) fn of_engine(error: &EngineError, prompt: &str) -> Self {
        let (status, param) = match error {
            EngineError::TooLargeForMemory { .. } => (400, Some("max_tokens")),
            EngineError::Constraint { .. } => (400, Some("response_format")),
            EngineError::PromptTooLong { .. }
            | EngineError::TextTooLong { .. }
            | EngineError::EmptyPrompt
            | EngineError::Model(_) => (400, Some(prompt)),
            EngineError::UnknownToken { .. } | EngineError::Option { .. } => (400, None),
            _ => (500, None),
        };
        let code = Some(if status == 500 { "server_error" } else { error_code(error) });
        Self { status, message: error.to_string(), param: param.map(str::to_owned), code }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::QueueFull { waiting } => Self::busy(&format!("{waiting} requests are waiting already")),
            Refused::Stopping => Self::stopping(),
        }
    }
}
