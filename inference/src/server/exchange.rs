//! One exchange with a server: a request over HTTP, and what came back or how it failed.

use std::time::Duration;

use serde_json::Value;

use super::address::Address;
use super::health::Severity;

/// Longest answer of a server that is read.
const MAX_BODY: u64 = 64 << 20;

/// How long a server may take to say something about itself.
const PROBE: Duration = Duration::from_secs(10);

/// How long it may take at the longest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Until the connection stands.
    pub connect: Duration,
    /// Until the answer begins.
    pub first_byte: Duration,
    /// Until the answer is there.
    pub whole: Duration,
}

/// A client over kept connections.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
}

/// What a server answered.
pub(super) struct Reply {
    pub status: u16,
    pub text: String,
    /// The pause that it asks for.
    pub retry_after: Option<Duration>,
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoReply {
    pub severity: Severity,
    pub reason: String,
}

impl Client {
    pub(super) fn new(timeouts: Timeouts, connections: usize) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(timeouts.whole))
            .timeout_connect(Some(timeouts.connect.min(timeouts.whole)))
            .timeout_recv_response(Some(timeouts.first_byte))
            .http_status_as_error(false)
            // The servers meant here stand on this machine or in its network.
            .proxy(None)
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            // Below the five seconds after which llama-server and others close an idle connection.
            .max_idle_age(Duration::from_secs(3))
            .build()
            .into();
        Self { agent }
    }

    /// Asks what a server says about itself.
    pub(super) fn get(&self, address: &Address, url: &str) -> Result<Reply, NoReply> {
        let mut get = self.agent.get(url);
        if let Some(authorization) = address.authorization() {
            get = get.header("Authorization", authorization);
        }
        read(address, get.config().timeout_global(Some(PROBE)).build().call())
    }

    /// Sends a body of JSON.
    pub(super) fn post(&self, address: &Address, url: &str, body: &Value) -> Result<Reply, NoReply> {
        let mut post = self.agent.post(url);
        if let Some(authorization) = address.authorization() {
            post = post.header("Authorization", authorization);
        }
        read(address, post.send_json(body))
    }
}

fn read(address: &Address, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Reply, NoReply> {
    let mut response = response.map_err(|error| no_reply(&error))?;
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let bytes = response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(|error| no_reply(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| NoReply {
        severity: Severity::Broken,
        reason: format!("the answer is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()),
    })?;
    Ok(Reply { status, text: address.without_key(text), retry_after })
}

/// What the library says, in our words where it happens every day.
fn no_reply(error: &ureq::Error) -> NoReply {
    use std::io::ErrorKind;
    let dead = |reason: String| NoReply { severity: Severity::Dead, reason };
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => dead("no connection in time".to_owned()),
        ureq::Error::Timeout(ureq::Timeout::RecvResponse) => dead("the answer did not begin in time".to_owned()),
        ureq::Error::Timeout(_) => dead("the answer did not end in time".to_owned()),
        ureq::Error::HostNotFound => dead("there is no host of this name".to_owned()),
        ureq::Error::ConnectionFailed => dead("no connection".to_owned()),
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            dead("connection refused: nothing listens there".to_owned())
        }
        ureq::Error::Io(error)
            if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) =>
        {
            dead("the host cannot be reached".to_owned())
        }
        ureq::Error::Io(error) => {
            NoReply { severity: Severity::Broken, reason: format!("the connection broke: {error}") }
        }
        error => NoReply { severity: Severity::Broken, reason: error.to_string() },
    }
}
