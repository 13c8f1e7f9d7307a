//! URLs and keys of servers.

use crate::error::EngineError;

/// Where a server stands, and the key that it wants.
#[derive(Clone)]
pub(super) struct Address {
    /// As it was given, without a slash at the end: its name in messages.
    pub url: String,
    /// Below this stand `models` and `chat/completions`.
    pub base: String,
    /// Below this stands what is not of `OpenAI`.
    pub root: String,
    key: Option<String>,
}

impl std::fmt::Debug for Address {
    // By hand: the derived form would print the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Address {
    /// `url` is `http://127.0.0.1:8080`, with or without `/v1`.
    fn new(url: &str, key: Option<String>) -> Result<Self, EngineError> {
        let refused = |problem| EngineError::Url { url: url.to_owned(), problem };
        let trimmed = url.trim().trim_end_matches('/');
        let Some(rest) = trimmed.strip_prefix("http://") else {
            return Err(refused("only http:// is supported"));
        };
        let authority = rest.split('/').next().unwrap_or("");
        if authority.is_empty() {
            return Err(refused("there is no host in it"));
        }
        if authority.contains('@') {
            return Err(refused("a user or password does not belong into it; put the key into ESPALIER_API_KEY"));
        }
        let root = trimmed.strip_suffix("/v1").unwrap_or(trimmed).to_owned();
        Ok(Self { url: root.clone(), base: format!("{root}/v1"), root, key })
    }

    /// The value of the header `Authorization`.
    pub(super) fn authorization(&self) -> Option<String> {
        self.key.as_ref().map(|key| format!("Bearer {key}"))
    }

    /// The text of a server without the key: some repeat it in their messages.
    pub(super) fn without_key(&self, text: String) -> String {
        match &self.key {
            Some(key) if text.contains(key.as_str()) => text.replace(key.as_str(), "(the key)"),
            _ => text,
        }
    }
}

/// The addresses of a list like `http://a:8080,http://b:8080`. `key` gives the value of an environment variable: of
/// `ESPALIER_API_KEY_2` for the second server, else of `ESPALIER_API_KEY`.
///
/// # Errors
/// A URL that is not plain http, one that stands there twice.
pub(super) fn addresses(list: &str, key: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Address>, EngineError> {
    let mut addresses: Vec<Address> = Vec::new();
    for (index, url) in list.split(',').enumerate() {
        let of = |name: &str| key(name).map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        let key = of(&format!("ESPALIER_API_KEY_{}", index + 1)).or_else(|| of("ESPALIER_API_KEY"));
        let address = Address::new(url, key)?;
        if addresses.iter().any(|other| other.root == address.root) {
            return Err(EngineError::Url { url: url.to_owned(), problem: "it stands in the list twice" });
        }
        addresses.push(address);
    }
    Ok(addresses)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_version_are_the_same() {
        for url in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", " http://127.0.0.1:8080/v1/"] {
            let address = &addresses(url, &|_| None).unwrap()[0];
            assert_eq!(
                (address.base.as_str(), address.url.as_str()),
                ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080")
            );
        }
        for url in ["https://x", "http://", "localhost:1", "http://a:b@c", "", "http://a,", "http://a,http://a/v1"] {
            assert!(matches!(addresses(url, &|_| None), Err(EngineError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn each_server_has_its_key_and_shows_it_nowhere() {
        let keys = |name: &str| match name {
            "ESPALIER_API_KEY" => Some("common".to_owned()),
            "ESPALIER_API_KEY_2" => Some(" own\n".to_owned()),
            "ESPALIER_API_KEY_3" => Some(String::new()),
            _ => None,
        };
        let all = addresses("http://a,http://b,http://c", &keys).unwrap();
        let sent: Vec<_> = all.iter().filter_map(Address::authorization).collect();
        assert_eq!(sent, ["Bearer common", "Bearer own", "Bearer common"]);
        assert!(!format!("{all:?}").contains("own"));
        assert_eq!(all[1].without_key("wrong key own!".to_owned()), "wrong key (the key)!");
    }
}
