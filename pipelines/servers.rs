//! Servers as an engine: opened with what the environment says, and their news as events.

use crate::events::Event;
use crate::reporter::Reporter;
use anyhow::Result;
use espalier_inference::{Engine, ServerEvent, ServerNews, ServerOptions, ServerPool};

/// The servers of a list of URLs. `model` is their name of the model; `None` takes the first that all of them list.
pub fn open(urls: &str, model: Option<&str>) -> Result<Engine> {
    let variable = |name: &str| std::env::var(name).ok();
    let options = ServerOptions { model: model.map(ToOwned::to_owned), ..ServerOptions::from_environment(&variable)? };
    Ok(Engine::Servers(ServerPool::open(urls, &variable, options)?))
}

/// The URLs as a cache key has them: their order and spelling change nothing.
pub fn canonical(urls: &str) -> String {
    let mut urls: Vec<&str> = urls.split(',').map(plain).collect();
    urls.sort_unstable();
    urls.join(",")
}

fn plain(url: &str) -> &str {
    let url = url.trim().trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url)
}

/// Says what happened to a server: in words for a person, in figures for scripts and the log.
pub fn report(event: &ServerEvent, stage: &str, reporter: &Reporter) {
    reporter.send(&Event::Figures { stage: stage.to_owned(), figures: event.figures() });
    // Figures of a short call are for scripts: generation makes one for each leaf and try.
    if matches!(event.what, ServerNews::Served { failed: 0, .. }) && stage == "generate" {
        return;
    }
    let (stage, message) = (stage.to_owned(), event.to_string());
    reporter.send(&if event.what.is_warning() {
        Event::Warning { stage, message }
    } else {
        Event::Note { stage, message }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_servers_changes_no_key() {
        assert_eq!(canonical("http://b:1/v1, http://a:2/"), canonical("http://a:2,http://b:1"));
        assert_ne!(canonical("http://a:2"), canonical("http://a:2,http://b:1"));
    }
}
