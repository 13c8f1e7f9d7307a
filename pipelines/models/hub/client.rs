//! Requests to a hub: redirects followed by hand so that the token stays with its host, patience with a busy server.

use super::settings::HubSettings;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// Attempts before a hub that fails is given up; one that was never reached is asked twice.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
const REDIRECTS: usize = 8;

/// Why a request brought nothing.
#[derive(Debug)]
pub enum Trouble {
    /// The hub answered with an error status; `code` is its `X-Error-Code`.
    Refused { status: u16, code: String },
    /// No answer.
    Unreachable { host: String, reason: String },
    /// Ctrl-C.
    Stopped,
}

/// Asks one hub.
pub struct HubClient<'a> {
    agent: Agent,
    settings: &'a HubSettings,
    stop: &'a AtomicBool,
}

impl<'a> HubClient<'a> {
    /// A client that opens no connection before it is asked.
    pub fn new(settings: &'a HubSettings, stop: &'a AtomicBool) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("espalier/", env!("CARGO_PKG_VERSION")))
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .timeout_per_read(Some(Duration::from_mins(1)));
        if is_loopback(&settings.endpoint) {
            config = config.proxy(None);
        }
        Self { agent: config.build().into(), settings, stop }
    }

    /// The host that is asked.
    pub fn host(&self) -> String {
        host(&self.settings.endpoint)
    }

    /// The answer of status 200 or 206 to a path of the hub, from byte `from` on.
    ///
    /// Waits and asks again where the hub is busy, fails or hangs up.
    pub fn get(&self, path: &str, from: u64) -> Result<Response<Body>, Trouble> {
        let url = format!("{}{path}", self.settings.endpoint);
        let mut attempt = 1;
        loop {
            let (trouble, attempts, asked_pause) = match self.follow(&url, from) {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let status = response.status().as_u16();
                    let header = |name: &str| response.headers().get(name)?.to_str().ok();
                    let pause = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
                    let attempts = if status == 429 || status >= 500 { ATTEMPTS } else { 1 };
                    let code = header("x-error-code").unwrap_or_default().to_owned();
                    (Trouble::Refused { status, code }, attempts, pause)
                }
                Err(Trouble::Stopped) => return Err(Trouble::Stopped),
                Err(trouble) => (trouble, 2, None),
            };
            if attempt >= attempts {
                return Err(trouble);
            }
            self.wait(asked_pause.unwrap_or_else(|| pause(attempt)).min(LONGEST_PAUSE))?;
            attempt += 1;
        }
    }

    /// Sleeps, unless Ctrl-C ends it.
    pub fn wait(&self, time: Duration) -> Result<(), Trouble> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check_stop()?;
            std::thread::sleep(Duration::from_millis(50).min(time));
        }
        self.check_stop()
    }

    /// Fails after Ctrl-C.
    pub fn check_stop(&self) -> Result<(), Trouble> {
        if self.stop.load(Ordering::Relaxed) { Err(Trouble::Stopped) } else { Ok(()) }
    }

    /// One request and the redirects that it leads to. Addresses of redirects hold signatures: errors name only hosts.
    fn follow(&self, url: &str, from: u64) -> Result<Response<Body>, Trouble> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            self.check_stop()?;
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if let Some(token) = &self.settings.token
                && origin(&url) == origin(&self.settings.endpoint)
                && (url.starts_with("https://") || is_loopback(&url))
            {
                request = request.header("authorization", token.header());
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| unreachable(&url, &reason(&error)))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let next = if location.starts_with('/') && !location.starts_with("//") {
                format!("{}{location}", origin(&url))
            } else {
                location.to_owned()
            };
            let known = next.starts_with("https://") || next.starts_with("http://") && !url.starts_with("https://");
            if !known {
                return Err(unreachable(&url, "it redirects to an address that is not safe to follow"));
            }
            url = next;
        }
        Err(unreachable(&url, "it redirects without end"))
    }
}

/// The pause before the next attempt.
pub fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE * 2_u32.pow(attempt.saturating_sub(1).min(6))
}

fn unreachable(url: &str, reason: &str) -> Trouble {
    Trouble::Unreachable { host: host(url), reason: reason.to_owned() }
}

/// What the system said, without the names of layers in between.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Rustls(error) => format!("its certificate or connection is not secure ({error})"),
        other => other.to_string(),
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> String {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..].find(['/', '?', '#']).map_or(url.len(), |at| after_scheme + at);
    url[..end].to_ascii_lowercase()
}

fn host(url: &str) -> String {
    url.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_else(|| "the hub".into())
}

fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("https://Hub.co/a/b?c=https://x"), "https://hub.co");
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
        assert_ne!(origin("https://hub.co:444/"), origin("https://hub.co/"));
        assert_ne!(origin("https://hub.co.evil.org/"), origin("https://hub.co"));
        assert!(is_loopback("http://127.0.0.1:80/a") && !is_loopback("http://127.0.evil.org/"));
    }
}
