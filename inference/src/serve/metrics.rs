//! Counts for `/metrics`, in the text form of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::service::Load;

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    requests: u64,
    seconds: f64,
}

/// Requests answered so far.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// By path (of those that there are) and status.
    answered: Mutex<BTreeMap<(&'static str, u16), Count>>,
}

impl Metrics {
    pub(super) fn count(&self, path: &'static str, status: u16, taken: Duration) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let count = answered.entry((path, status)).or_default();
        count.requests += 1;
        count.seconds += taken.as_secs_f64();
    }

    /// Everything, with what the service says of itself.
    pub(super) fn text(&self, load: &Load, connections: usize) -> String {
        let mut text = String::new();
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        heading(&mut text, "requests_total", "counter", "Requests answered, by path and status.");
        for ((path, status), count) in answered.iter() {
            let _ = writeln!(text, "espalier_requests_total{{path=\"{path}\",status=\"{status}\"}} {}", count.requests);
        }
        heading(&mut text, "request_seconds_total", "counter", "Seconds from the head of a request to its last byte.");
        for ((path, status), count) in answered.iter() {
            let _ = writeln!(
                text,
                "espalier_request_seconds_total{{path=\"{path}\",status=\"{status}\"}} {}",
                count.seconds
            );
        }
        for (name, kind, words, value) in [
            ("connections", "gauge", "Open connections.", connections),
            ("requests_waiting", "gauge", "Requests that wait for a place.", load.waiting),
            ("requests_writing", "gauge", "Requests whose prompt is read or whose answer is written.", load.writing),
            ("cache_used_bytes", "gauge", "Bytes of keys and values in use.", load.cache_used_bytes),
            ("cache_bytes", "gauge", "Bytes that keys and values may take.", load.cache_bytes),
            ("prompt_tokens_total", "counter", "Tokens of prompts.", load.counts.prompt_tokens_logical),
            (
                "prompt_tokens_computed_total",
                "counter",
                "Tokens of prompts that were not there already.",
                load.counts.prompt_tokens_computed,
            ),
            ("new_tokens_total", "counter", "Tokens written.", load.counts.new_tokens),
            ("steps_total", "counter", "Passes over the weights.", load.counts.steps),
        ] {
            heading(&mut text, name, kind, words);
            let _ = writeln!(text, "espalier_{name} {value}");
        }
        text
    }
}

fn heading(text: &mut String, name: &str, kind: &str, words: &str) {
    let _ = writeln!(text, "# HELP espalier_{name} {words}\n# TYPE espalier_{name} {kind}");
}
