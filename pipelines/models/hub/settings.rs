//! The environment that other Hugging Face tools read: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE`.

use crate::outcome::Failure;
use anyhow::Result;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Where models come from when `HF_ENDPOINT` is not set.
const ENDPOINT: &str = "https://huggingface.co";

/// A secret: it is sent in one header to one host, and nothing here prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Trims the text; `None` where nothing is left.
    fn read(text: &str) -> Result<Option<Self>, Failure> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::usage("the token of HF_TOKEN holds characters that no token has")
                .hint("copy it once more, without quotation marks, spaces or line breaks inside"));
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// The value of the `Authorization` header.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token([hidden])")
    }
}

/// What the environment says about the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// `HF_ENDPOINT` without a slash at its end.
    pub endpoint: String,
    /// `HF_TOKEN`, else what `hf auth login` wrote to `HF_TOKEN_PATH` or `$HF_HOME/token`.
    pub token: Option<Token>,
    /// `HF_HUB_CACHE`, else `$HF_HOME/hub`: files that other tools have fetched are taken from there.
    pub shared_cache: Option<PathBuf>,
    /// `HF_HUB_OFFLINE`: no connection is made.
    pub offline: bool,
}

impl HubSettings {
    /// Reads the environment of this process.
    pub fn from_environment() -> Result<Self> {
        Self::read(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()).trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") || endpoint.contains('@') {
            return Err(Failure::usage("HF_ENDPOINT is not the address of a hub")
                .hint("it begins with https:// and holds no user name, such as https://huggingface.co")
                .into());
        }
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|folder| folder.join("huggingface")))
            .or_else(|| path("HOME").map(|folder| folder.join(".cache/huggingface")));
        let token = if let Some(token) = text("HF_TOKEN") {
            Token::read(&token)?
        } else {
            let file = path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|home| home.join("token")));
            let written = file.and_then(|file| std::fs::read_to_string(file).ok());
            written.map(|token| Token::read(&token)).transpose()?.flatten()
        };
        let shared_cache = path("HF_HUB_CACHE").or_else(|| home.map(|home| home.join("hub")));
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()));
        Ok(Self { endpoint, token, shared_cache, offline })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read(variables: &[(&str, &str)]) -> Result<HubSettings> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        HubSettings::read(|name| variables.get(name).map(OsString::from))
    }

    #[test]
    fn the_variables_of_other_tools_are_honoured() -> Result<()> {
        let home = tempfile::tempdir()?;
        let folder = home.path().to_string_lossy().into_owned();
        let plain = read(&[("HOME", "/home/a")])?;
        assert_eq!((plain.endpoint.as_str(), plain.offline, &plain.token), (ENDPOINT, false, &None));
        assert_eq!(plain.shared_cache, Some("/home/a/.cache/huggingface/hub".into()));
        std::fs::write(home.path().join("token"), "hf_file\n")?;
        let stored = read(&[("HF_HOME", &folder), ("HF_ENDPOINT", "http://mirror:8080/"), ("HF_HUB_OFFLINE", "ON")])?;
        assert_eq!((stored.endpoint.as_str(), stored.offline), ("http://mirror:8080", true));
        assert_eq!(stored.token.map(|token| token.header()), Some("Bearer hf_file".into()));
        let given = read(&[("HF_HOME", &folder), ("HF_TOKEN", " hf_variable ")])?;
        assert_eq!(given.token.as_ref().map(Token::header), Some("Bearer hf_variable".into()));
        assert!(!format!("{given:?}").contains("hf_variable"));
        Ok(())
    }

    #[test]
    fn a_token_or_an_address_that_is_none_is_refused_without_showing_it() {
        for variables in [("HF_TOKEN", "hf_a b"), ("HF_ENDPOINT", "ftp://hub"), ("HF_ENDPOINT", "https://me:pw@hub")] {
            let error = read(&[variables]).unwrap_err().to_string();
            assert!(!error.contains(variables.1), "{error}");
        }
    }
}
