//! What stands before a body.

use super::problem::Problem;

/// Bytes that a head may have; more would not be read in sense.
pub(super) const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// A request without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// Without what follows a question mark.
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    /// The page from which a browser sends the request.
    pub(super) origin: Option<String>,
    pub(super) length: Length,
    pub(super) expects_continue: bool,
    pub(super) keep_alive: bool,
    /// HTTP/1.0 knows no chunks: its streams end with the connection.
    pub(super) knows_chunks: bool,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Known(usize),
    Chunked,
}

/// Reads a head; `None` while it is not all there.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Problem::new(431, format!("the head is longer than {MAX_HEAD} bytes or {MAX_HEADERS} lines")));
        }
        Err(error) => return Err(Problem::new(400, format!("this is not an HTTP request: {error}"))),
    };
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let version_1_1 = request.version == Some(1);
    let mut head = Head {
        method: method.to_owned(),
        path: target.split(['?', '#']).next().unwrap_or_default().to_owned(),
        authorization: None,
        origin: None,
        length: Length::Known(0),
        expects_continue: false,
        keep_alive: version_1_1,
        knows_chunks: version_1_1,
    };
    let mut known = None;
    let mut chunked = false;
    for header in request.headers.iter() {
        let value = || std::str::from_utf8(header.value).map(str::trim).unwrap_or_default();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let value = value();
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let length = value.parse::<usize>().ok().filter(|_| digits);
            let length = length.ok_or_else(|| Problem::new(400, "Content-Length is not a number".to_owned()))?;
            if known.replace(length).is_some_and(|before| before != length) {
                return Err(Problem::new(400, "Content-Length is said twice, differently".to_owned()));
            }
        } else if is("transfer-encoding") {
            if !value().eq_ignore_ascii_case("chunked") {
                return Err(Problem::new(501, "only chunked bodies are understood".to_owned()));
            }
            chunked = true;
        } else if is("connection") {
            for word in value().split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    head.keep_alive = false;
                } else if word.eq_ignore_ascii_case("keep-alive") {
                    head.keep_alive = true;
                }
            }
        } else if is("expect") {
            head.expects_continue = value().eq_ignore_ascii_case("100-continue");
        } else if is("authorization") {
            head.authorization = Some(value().to_owned());
        } else if is("origin") {
            head.origin = Some(value().to_owned());
        }
    }
    head.length = match (known, chunked) {
        // What two readers could understand differently is not answered.
        (Some(_), true) => return Err(Problem::new(400, "the body has both a length and chunks".to_owned())),
        (_, true) => Length::Chunked,
        (known, false) => Length::Known(known.unwrap_or(0)),
    };
    Ok(Some((head, length)))
}

impl Head {
    /// Whether another request may follow on the connection.
    pub(super) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether another request may follow a stream.
    pub(super) fn keeps_alive_after_stream(&self) -> bool {
        self.keep_alive && self.knows_chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> u16 {
        parse_head(text.as_bytes()).expect_err("a refusal").status()
    }

    #[test]
    fn a_head_says_what_follows() {
        let text = "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 12\r\nExpect: 100-continue\r\n\
            Authorization: Bearer k\r\n\r\nrest";
        let (head, length) = parse_head(text.as_bytes()).expect("a head").expect("whole");
        assert_eq!((head.method.as_str(), head.path.as_str(), length), ("POST", "/v1/x", text.len() - 4));
        assert_eq!((head.length, head.authorization.as_deref()), (Length::Known(12), Some("Bearer k")));
        assert!(head.expects_continue && head.keep_alive && head.knows_chunks);
        assert_eq!(parse_head(b"POST /v1/x HT"), Ok(None));
        let (old, _) = parse_head(b"GET / HTTP/1.0\r\n\r\n").expect("a head").expect("whole");
        assert!(!old.keep_alive && !old.knows_chunks);
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        let with = |lines: &str| refused(&format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n"));
        assert_eq!(with("Content-Length: 5\r\nContent-Length: 6"), 400);
        assert_eq!(with("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400);
        assert_eq!(with("Content-Length: +5"), 400);
        assert_eq!(with("Content-Length: "), 400);
        assert_eq!(with("Transfer-Encoding: gzip, chunked"), 501);
        assert_eq!(with(&"A: b\r\n".repeat(70)), 431);
        assert_eq!(with(&format!("A: {}", "b".repeat(20 << 10))), 431);
        assert_eq!(refused("\u{16}\u{3}\u{1}\r\n\r\n"), 400);
    }
}
