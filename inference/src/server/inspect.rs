//! What a server is, what it serves and how much it does at once, by asking it.

use serde_json::Value;

use crate::error::EngineError;

use super::address::Address;
use super::exchange::{Client, NoReply, Reply};
use super::kind::{SIGNS, ServerKind, slots};
use super::protocol::{beginning, remedy};

/// What a server said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub kind: ServerKind,
    /// Below this stands `chat/completions`.
    pub base: String,
    /// What it serves, each model with its other names; `None` when it does not list them.
    pub models: Option<Vec<Vec<String>>>,
    pub slots: Option<usize>,
}

/// Why nothing could be learned.
#[derive(Debug)]
pub(super) enum Absent {
    /// Nobody listens there, or not at this time.
    Gone(String),
    /// It is there, and may answer later.
    NotReady(String),
    /// It is not what is looked for, or refuses us.
    Wrong(EngineError),
}

impl Absent {
    fn of(no_reply: NoReply) -> Self {
        Self::Gone(no_reply.reason)
    }
}

/// Asks a server for its models, and what its kind shows itself by.
pub(super) fn inspect(client: &Client, address: &Address) -> Result<Profile, Absent> {
    let mut base = address.base.clone();
    let mut models = client.get(address, &format!("{base}/models")).map_err(Absent::of)?;
    let mut runner = address.root.contains("/engines");
    if models.status == 404 && !runner {
        let other = format!("{}/engines/v1", address.root);
        let there = client.get(address, &format!("{other}/models")).map_err(Absent::of)?;
        if there.status == 200 && listed(&there.text).is_ok() {
            (base, models, runner) = (other, there, true);
        }
    }
    let models = read_models(&base, &models)?;
    if runner {
        return Ok(Profile { kind: ServerKind::ModelRunner, base, models, slots: None });
    }
    for (path, kinds) in SIGNS {
        let Reply { status, text, .. } = client.get(address, &format!("{}{path}", address.root)).map_err(Absent::of)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        if let Some(&kind) = kinds.iter().find(|kind| status == 200 && kind.recognizes(&body)) {
            return Ok(Profile { kind, base, models, slots: slots(&body) });
        }
    }
    Ok(Profile { kind: ServerKind::Other, base, models, slots: None })
}

/// The models of an answer to `GET /models`. A server without such a list is believed to serve what it is asked for.
fn read_models(base: &str, reply: &Reply) -> Result<Option<Vec<Vec<String>>>, Absent> {
    let url = format!("{base}/models");
    match reply.status {
        200 => listed(&reply.text)
            .map(Some)
            .map_err(|missing| Absent::Wrong(EngineError::Garbage { url, missing, body: beginning(&reply.text) })),
        404 | 405 | 501 => Ok(None),
        status if status == 429 || status >= 500 => {
            Err(Absent::NotReady(format!("the server answered {status}: {}", beginning(&reply.text))))
        }
        status => Err(Absent::Wrong(EngineError::Status {
            url,
            status,
            body: beginning(&reply.text),
            remedy: remedy(status),
        })),
    }
}

fn listed(text: &str) -> Result<Vec<Vec<String>>, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON ({error})"))?;
    let data = match json.get("data") {
        // Ollama without a model.
        Some(Value::Null) => return Ok(Vec::new()),
        data => data.and_then(Value::as_array).ok_or("\"data\" is missing: a list of models")?,
    };
    let names = |model: &Value| -> Option<Vec<String>> {
        let id = model.get("id")?.as_str()?.to_owned();
        let aliases = model.get("aliases").and_then(Value::as_array).into_iter().flatten();
        Some(std::iter::once(id).chain(aliases.filter_map(|alias| Some(alias.as_str()?.to_owned()))).collect())
    };
    data.iter().map(names).collect::<Option<_>>().ok_or_else(|| "\"data[].id\" is missing".to_owned())
}

impl Profile {
    /// The server's own name of the model that was asked for.
    pub(super) fn own_name(&self, model: &str) -> Option<String> {
        let Some(models) = &self.models else {
            return Some(model.to_owned());
        };
        let plain = self.kind.plain_name(model);
        let same = |name: &String| name == model || self.kind.plain_name(name) == plain;
        models.iter().find(|names| names.iter().any(same)).map(|names| names[0].clone())
    }

    /// What it serves, for a person.
    pub(super) fn served(&self) -> String {
        match &self.models {
            None => "it does not say".to_owned(),
            Some(models) if models.is_empty() => "nothing".to_owned(),
            Some(models) => models.iter().map(|names| self.kind.plain_name(&names[0])).collect::<Vec<_>>().join(", "),
        }
    }
}
