//! Who may ask.

use sha2::{Digest, Sha256};

use super::head::Head;
use super::problem::Problem;

/// The key, as its hash: it is compared in constant time, and cannot be printed.
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Looks at every byte, wherever the first difference lies.
    fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        self.0.iter().zip(given).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

/// Lets a request pass, or says why not.
///
/// Without a key, a page that a browser shows on this machine could ask in the name of its reader: requests that a browser
/// sends for a page of another machine are refused.
pub(super) fn check(key: Option<&Key>, head: &Head) -> Result<(), Problem> {
    let Some(key) = key else {
        return match head.origin.as_deref().filter(|origin| !is_local(origin)) {
            Some(origin) => {
                Err(Problem::new(403, format!("requests of pages from {origin:?} are not answered without a key")))
            }
            None => Ok(()),
        };
    };
    let given = head.authorization.as_deref().and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let refused = |message: &str| Err(Problem::new(401, message.to_owned()).with_code("invalid_api_key"));
    match given {
        Some(given) if key.is(given) => Ok(()),
        Some(_) => refused("the key is not that of this server"),
        None => refused("this server asks for a key: send the header \"Authorization: Bearer KEY\""),
    }
}

fn is_local(origin: &str) -> bool {
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    matches!(name, "localhost" | "127.0.0.1" | "::1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::head::parse_head;

    fn status(key: Option<&str>, lines: &str) -> Option<u16> {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let (head, _) = parse_head(text.as_bytes()).expect("a head").expect("whole");
        check(key.map(Key::new).as_ref(), &head).err().map(|problem| problem.status())
    }

    #[test]
    fn only_the_key_opens() {
        assert_eq!(status(Some("secret"), "Authorization: Bearer secret\r\n"), None);
        assert_eq!(status(Some("secret"), "authorization: bearer  secret \r\n"), None);
        for lines in
            ["", "Authorization: Bearer secre\r\n", "Authorization: Basic secret\r\n", "Authorization: secret\r\n"]
        {
            assert_eq!(status(Some("secret"), lines), Some(401), "{lines}");
        }
    }

    #[test]
    fn pages_of_other_machines_do_not_ask_without_a_key() {
        assert_eq!(status(None, ""), None);
        assert_eq!(status(None, "Origin: http://localhost:3000\r\n"), None);
        assert_eq!(status(None, "Origin: http://[::1]:3000\r\n"), None);
        assert_eq!(status(None, "Origin: https://localhost.example.org\r\n"), Some(403));
        assert_eq!(status(None, "Origin: null\r\n"), Some(403));
        assert_eq!(status(Some("k"), "Origin: https://example.org\r\nAuthorization: Bearer k\r\n"), None);
    }
}
