//! Which path is answered by what.

use serde_json::{Map, Value, json};

use super::body::Held;
use super::connection::Reply;
use super::exchange::{Exchange, Sent, Unanswered};
use super::problem::Problem;
use super::{auth, chat, props, texts, vectors};
use crate::openai::parse_body;

/// A path that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint<'p> {
    Chat,
    Completions,
    Embeddings,
    Models,
    Model(&'p str),
    Health,
    Metrics,
    Props,
}

impl<'p> Endpoint<'p> {
    /// With and without the version in front, as clients have it.
    pub(super) fn of(path: &'p str) -> Option<Self> {
        let path = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        Some(match path {
            "/chat/completions" => Self::Chat,
            "/completions" => Self::Completions,
            "/embeddings" => Self::Embeddings,
            "/models" => Self::Models,
            "/health" => Self::Health,
            "/metrics" => Self::Metrics,
            "/props" => Self::Props,
            _ => Self::Model(path.strip_prefix("/models/").filter(|name| !name.is_empty())?),
        })
    }

    /// The path under which it is counted.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Models => "/v1/models",
            Self::Model(_) => "/v1/models/{model}",
            Self::Health => "/health",
            Self::Metrics => "/metrics",
            Self::Props => "/props",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Chat | Self::Completions | Self::Embeddings => "POST",
            Self::Models | Self::Model(_) | Self::Health | Self::Metrics | Self::Props => "GET",
        }
    }
}

/// Answers one request. Its body is read here, after it is known that it will be wanted.
pub(super) fn answer(
    mut exchange: Exchange<'_, '_>,
    endpoint: Option<Endpoint<'_>>,
    held: &Held,
) -> Result<Sent, Unanswered> {
    let (served, head) = (exchange.served, exchange.head);
    if endpoint != Some(Endpoint::Health) {
        auth::check(served.key.as_ref(), head)?;
    }
    let Some(endpoint) = endpoint else {
        let message = format!("there is no {}; docs/serve.md lists what there is", head.path);
        return Err(Problem::new(404, message).with_code("not_found").into());
    };
    if head.method != endpoint.method() {
        let message = format!("{} is asked with {}, not {}", head.path, endpoint.method(), head.method);
        return Err(Problem::new(405, message).with_code("method_not_allowed").into());
    }
    if served.is_stopping() {
        return Err(Problem::stopping().into());
    }
    let body = exchange.connection.read_body(head, held)?;
    match endpoint {
        Endpoint::Chat => {
            let object = parse(&body.bytes)?;
            drop(body);
            chat::answer(exchange, &object)
        }
        Endpoint::Completions => {
            let object = parse(&body.bytes)?;
            drop(body);
            texts::answer(exchange, &object)
        }
        Endpoint::Embeddings => {
            let object = parse(&body.bytes)?;
            drop(body);
            vectors::answer(exchange, &object)
        }
        Endpoint::Models => {
            let list: Vec<Value> = served.names().map(|name| served.model_entry(name)).collect();
            exchange.reply(&Reply::json(200, &json!({"object": "list", "data": list})))
        }
        Endpoint::Model(name) => {
            let (name, _) = served.model(Some(name))?;
            exchange.reply(&Reply::json(200, &served.model_entry(name)))
        }
        Endpoint::Health => exchange.reply(&Reply::json(200, &json!({"status": "ok"}))),
        Endpoint::Props => exchange.reply(&Reply::json(200, &props::of(served))),
        Endpoint::Metrics => {
            let body = served.metrics.text(&served.running.load(), served.connections());
            let content_type = "text/plain; version=0.0.4; charset=utf-8";
            exchange.reply(&Reply { status: 200, content_type, headers: Vec::new(), body })
        }
    }
}

/// The body as a map of fields.
fn parse(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    parse_body(bytes).map_err(|message| Problem::new(400, message).with_code("invalid_json"))
}
