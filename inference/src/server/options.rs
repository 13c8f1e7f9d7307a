//! How servers are used.

use std::time::Duration;

use crate::error::EngineError;

use super::event::ServerNews;
use super::exchange::Timeouts;
use super::inspect::Profile;
use super::limit::Limit;

/// How servers are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// The name of the model; `None` takes the first that all servers list.
    pub model: Option<String>,
    /// Most requests under way at one server.
    pub concurrency: usize,
    /// Longest time until a connection stands.
    pub connect_timeout: Duration,
    /// Longest time until an answer begins. Servers begin when the whole text is written.
    pub first_byte_timeout: Duration,
    /// Longest time for one request, its answer included.
    pub timeout: Duration,
    /// How often a request is tried in all, at one server or several.
    pub attempts: u32,
    /// How long a server is put aside when it fails; doubled with each further time until it answers.
    pub first_pause: Duration,
    /// How long all servers may be gone before a call ends.
    pub patience: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            model: None,
            concurrency: 256,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_mins(10),
            timeout: Duration::from_mins(15),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            patience: Duration::from_mins(2),
        }
    }
}

impl ServerOptions {
    /// The defaults, changed by `ESPALIER_SERVER_CONCURRENCY` (requests), `ESPALIER_SERVER_TIMEOUT` (seconds for an answer) and
    /// `ESPALIER_SERVER_PATIENCE` (seconds without any server). `variable` gives the value of one.
    ///
    /// # Errors
    /// A value that is no whole number of at least 1.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, EngineError> {
        let number = |name: &'static str| match variable(name) {
            None => Ok(None),
            Some(text) => match text.trim().parse::<u32>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(EngineError::Option {
                    option: name,
                    problem: format!("{text:?} is no whole number of at least 1"),
                }),
            },
        };
        let mut options = Self::default();
        if let Some(most) = number("ESPALIER_SERVER_CONCURRENCY")? {
            options.concurrency = most as usize;
        }
        if let Some(seconds) = number("ESPALIER_SERVER_TIMEOUT")? {
            options.timeout = Duration::from_secs(seconds.into());
            options.first_byte_timeout = options.timeout;
        }
        if let Some(seconds) = number("ESPALIER_SERVER_PATIENCE")? {
            options.patience = Duration::from_secs(seconds.into());
        }
        Ok(options)
    }

    pub(super) fn check(&self) -> Result<(), EngineError> {
        for (option, value) in [("concurrency", self.concurrency), ("attempts", self.attempts as usize)] {
            if value == 0 {
                return Err(EngineError::Option { option, problem: "must be at least 1".to_owned() });
            }
        }
        Ok(())
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts { connect: self.connect_timeout, first_byte: self.first_byte_timeout, whole: self.timeout }
    }

    pub(super) fn limit(&self, profile: &Profile) -> Limit {
        match profile.slots {
            Some(slots) => Limit::of_slots(slots, self.concurrency),
            None => Limit::climbing(profile.kind.words().first_concurrency, self.concurrency),
        }
    }

    pub(super) fn found(&self, profile: &Profile, model: &str) -> ServerNews {
        ServerNews::Found {
            kind: profile.kind,
            model: profile.kind.plain_name(model).to_owned(),
            slots: profile.slots,
            concurrency: self.limit(profile).at_once(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_environment_changes_bounds() {
        let set = |name: &str| match name {
            "ESPALIER_SERVER_CONCURRENCY" => Some("3".to_owned()),
            "ESPALIER_SERVER_PATIENCE" => Some(" 7 ".to_owned()),
            _ => None,
        };
        let options = ServerOptions::from_environment(&set).unwrap();
        assert_eq!((options.concurrency, options.patience), (3, Duration::from_secs(7)));
        assert_eq!(options.timeout, ServerOptions::default().timeout);
        let error = ServerOptions::from_environment(&|_| Some("0".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "option ESPALIER_SERVER_CONCURRENCY: \"0\" is no whole number of at least 1");
    }
}
