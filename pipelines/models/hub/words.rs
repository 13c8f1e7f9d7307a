//! What a person reads about a fetch from a hub: what is wrong, and what to do.

use super::client::Trouble;
use super::listing::License;
use super::settings::HubSettings;
use crate::models::reference::HubReference;
use crate::outcome::{Failure, Interrupted};

/// Licences that let anybody use, change and pass on a model, as the hub names them.
const OPEN: [&str; 13] = [
    "apache-2.0",
    "mit",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cdla-permissive-2.0",
    "isc",
    "unlicense",
    "mpl-2.0",
    "zlib",
];

/// What was asked of whom.
pub struct Asked<'a> {
    pub reference: &'a HubReference,
    pub settings: &'a HubSettings,
}

impl Asked<'_> {
    /// Address of the repository's page.
    fn page(&self) -> String {
        format!("{}/{}", self.settings.endpoint, self.reference.repository)
    }

    /// The licence in a sentence.
    pub fn license(&self, license: Option<&License>) -> String {
        let repository = &self.reference.repository;
        match license {
            None => format!("{repository} states no licence: ask its owners before you use it or what it writes"),
            Some(license) if OPEN.contains(&license.name.as_str()) => {
                format!("licence of {repository}: {}", license.name)
            }
            Some(license) => {
                let place =
                    license.link.clone().filter(|link| link.starts_with("https://")).unwrap_or_else(|| self.page());
                format!(
                    "licence of {repository}: {}; it may limit what you do with the model and its answers: {place}",
                    license.name
                )
            }
        }
    }

    /// No connection is wanted, and the files are not here.
    pub fn offline(&self) -> Failure {
        let repository = &self.reference.repository;
        Failure::usage(format!("{repository} is not on this machine, and HF_HUB_OFFLINE forbids a connection"))
            .hint("unset HF_HUB_OFFLINE to fetch it, or give the path of a model; `pipeline model list` shows what is in the cache")
    }

    /// What the hub's answer, or its silence, means; `file` where a file was asked for.
    pub fn trouble(&self, trouble: Trouble, file: Option<&str>) -> anyhow::Error {
        match trouble {
            Trouble::Stopped => Interrupted.into(),
            Trouble::Unreachable { host, reason } => Failure::try_again(format!("{host} gave no model: {reason}"))
                .hint(
                    "is this machine online, and HF_ENDPOINT right? What has arrived is kept: the same command goes on",
                )
                .into(),
            Trouble::Refused { status, code } => self.refused(status, &code, file).into(),
        }
    }

    fn refused(&self, status: u16, code: &str, file: Option<&str>) -> Failure {
        let repository = &self.reference.repository;
        let has_token = self.settings.token.is_some();
        match (status, code) {
            (429, _) => Failure::try_again("the hub has had too many requests from here").hint(if has_token {
                "wait some minutes: the same command goes on"
            } else {
                "wait some minutes, or set HF_TOKEN: the hub allows more to those it knows; the same command goes on"
            }),
            (500.., _) => Failure::try_again(format!("the hub failed with status {status}"))
                .hint("it may pass: the same command goes on where this one stopped"),
            (_, "GatedRepo") => self.gated(),
            (_, "RevisionNotFound") => {
                Failure::usage(format!("{repository} has no revision {}", self.reference.revision()))
                    .hint(format!("branches, tags and commits: {}/tree/main", self.page()))
            }
            (404, _) if file.is_some() => {
                Failure::try_again(format!("{repository} lists {}, and does not have it", file.unwrap_or_default()))
                    .hint("the repository may have changed this very moment: try again")
            }
            (401 | 404, _) if file.is_none() && has_token => {
                Failure::usage(format!("there is no model {repository}, or the account of HF_TOKEN may not see it"))
                    .hint(format!("look at {}, and whether the token still holds", self.page()))
            }
            (401 | 404, _) if file.is_none() => Failure::usage(format!(
                "there is no model {repository}, or it is private"
            ))
            .hint(format!("look at {}; for a private model set HF_TOKEN to a token that may read it", self.page())),
            (401 | 403, _) => self.gated(),
            _ => Failure::usage(format!("the hub refused the request with status {status}"))
                .hint(format!("look at {}", self.page())),
        }
    }

    fn gated(&self) -> Failure {
        let (repository, page) = (&self.reference.repository, self.page());
        if self.settings.token.is_some() {
            return Failure::usage(format!("{repository} is gated, and the account of HF_TOKEN has no access to it"))
                .hint(format!("sign in at {page} with that account, accept its terms, and wait until they let you in; the token must be allowed to read gated models"));
        }
        Failure::usage(format!("{repository} is gated: its owners ask you to accept their terms first"))
            .hint(format!("sign in at {page} and accept them, then make a token that may read it under Settings, Access Tokens, and set HF_TOKEN to it"))
    }
}
