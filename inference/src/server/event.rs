//! What a pool of servers says while it works.

use std::time::Duration;

use serde_json::{Value, json};

use super::kind::ServerKind;

/// Something that happened in a pool, with the URL of the server that it happened to.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerEvent {
    /// The server.
    pub url: String,
    /// What happened.
    pub what: ServerNews,
}

/// What can happen to a server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServerNews {
    /// It answered for the first time, or again after it was started anew.
    Found {
        /// Its kind.
        kind: ServerKind,
        /// Its name of the model.
        model: String,
        /// How many requests it works on at once, where it tells.
        slots: Option<usize>,
        /// How many it is given at once from here on.
        concurrency: usize,
    },
    /// It is given more or fewer requests at once.
    Concurrency {
        /// Before.
        from: usize,
        /// From here on.
        to: usize,
        /// Why.
        reason: String,
    },
    /// It failed and gets nothing for a while.
    Aside {
        /// How it failed.
        reason: String,
        /// For how long it gets nothing.
        pause: Duration,
    },
    /// It works again.
    Back,
    /// It gets nothing in this call any more.
    Excluded {
        /// Why.
        reason: String,
    },
    /// Fields of requests that a server of this kind does not know, and that it is not sent.
    LeftOut {
        /// The kind.
        kind: ServerKind,
        /// Their names.
        fields: String,
    },
    /// It does not tell how many tokens it read and wrote: said with its first such answer.
    Estimated,
    /// What it did in a call, said at the end.
    Served {
        /// Requests that it answered.
        answers: usize,
        /// Tokens that it wrote, as it counts them, or estimated where it does not.
        tokens: usize,
        /// How long the call took.
        elapsed: Duration,
        /// Requests that it failed, and that were asked again.
        failed: usize,
    },
}

impl ServerNews {
    /// Whether a person should look at it.
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::Aside { .. } | Self::Excluded { .. } | Self::LeftOut { .. })
    }
}

impl ServerEvent {
    /// The figures, for scripts: `event` says what they are.
    pub fn figures(&self) -> Value {
        let mut figures = match &self.what {
            ServerNews::Found { kind, model, slots, concurrency } => {
                json!({"event": "server_found", "kind": kind.name(),
                "model": model, "slots": slots, "concurrency": concurrency})
            }
            ServerNews::Concurrency { from, to, reason } => {
                json!({"event": "server_concurrency", "from": from, "to": to, "reason": reason})
            }
            ServerNews::Aside { reason, pause } => {
                json!({"event": "server_aside", "reason": reason, "seconds": pause.as_secs_f64()})
            }
            ServerNews::Back => json!({"event": "server_back"}),
            ServerNews::Excluded { reason } => json!({"event": "server_excluded", "reason": reason}),
            ServerNews::LeftOut { kind, fields } => {
                json!({"event": "server_fields_left_out", "kind": kind.name(), "fields": fields})
            }
            ServerNews::Estimated => json!({"event": "server_counts_estimated"}),
            ServerNews::Served { answers, tokens, elapsed, failed } => json!({"event": "server_served",
                "answers": answers, "tokens": tokens, "seconds": elapsed.as_secs_f64(),
                "tokens_per_second": *tokens as f64 / elapsed.as_secs_f64().max(1e-3), "failed": failed}),
        };
        figures["url"] = json!(self.url);
        figures
    }
}

impl std::fmt::Display for ServerEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = &self.url;
        match &self.what {
            ServerNews::Found { kind, model, slots: Some(slots), .. } => {
                write!(f, "{url}: {kind} with {model}; {slots} at once: it has as many slots")
            }
            ServerNews::Found { kind, model, slots: None, concurrency } => {
                write!(f, "{url}: {kind} with {model}; {concurrency} at once to begin with: it does not tell its slots")
            }
            ServerNews::Concurrency { from, to, reason } => write!(f, "{url}: {from} -> {to} at once: {reason}"),
            ServerNews::Aside { reason, pause } => {
                write!(f, "{url}: put aside for {:.1} s: {reason}", pause.as_secs_f64())
            }
            ServerNews::Back => write!(f, "{url}: answers again"),
            ServerNews::Excluded { reason } => write!(f, "{url}: gets no more requests: {reason}"),
            ServerNews::LeftOut { kind, fields } => {
                write!(
                    f,
                    "{url}: {kind} does not know {fields}: it answers without; set it at the server, or leave it out"
                )
            }
            ServerNews::Estimated => {
                write!(f, "{url}: does not tell its tokens (`usage`): their counts are estimates, four bytes a token")
            }
            ServerNews::Served { answers, tokens, elapsed, failed } => {
                let seconds = elapsed.as_secs_f64().max(1e-3);
                write!(f, "{url}: {answers} answers, {:.1} tokens/s", *tokens as f64 / seconds)?;
                if *failed > 0 {
                    write!(f, "; {failed} requests failed here and were asked again")?;
                }
                Ok(())
            }
        }
    }
}
