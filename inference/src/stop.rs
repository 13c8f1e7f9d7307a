//! The text of an answer as it grows, and where it must stop.

use espalier_model::Tokenizer;

/// Bytes written so far, with a search for stop strings that looks at each byte once.
#[derive(Debug)]
pub(crate) struct GrowingText {
    bytes: Vec<u8>,
    stops: Vec<Vec<u8>>,
    /// A stop string may begin this many bytes before the newest token.
    longest: usize,
    /// Bytes that [`Self::news`] has told.
    told: usize,
}

impl GrowingText {
    /// An empty text with its stop strings.
    pub(crate) fn new(stops: &[String]) -> Self {
        let stops: Vec<Vec<u8>> =
            stops.iter().filter(|stop| !stop.is_empty()).map(|stop| stop.clone().into_bytes()).collect();
        let longest = stops.iter().map(Vec::len).max().unwrap_or(0);
        Self { bytes: Vec::new(), stops, longest, told: 0 }
    }

    /// Appends a token. When that completes a stop string, the text is cut before it and `true` comes back.
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> bool {
        !tokenizer.is_special(token) && self.push_bytes(tokenizer.token_bytes(token))
    }

    fn push_bytes(&mut self, added: &[u8]) -> bool {
        let from = (self.bytes.len() + 1).saturating_sub(self.longest);
        self.bytes.extend_from_slice(added);
        let first = self.stops.iter().filter_map(|stop| find(&self.bytes, stop, from)).min();
        if let Some(at) = first {
            self.bytes.truncate(at);
        }
        first.is_some()
    }

    /// The text since the last call; `None` while its end may turn out otherwise: when it may begin a stop string, or is a part
    /// of a character. What `ended` stays as it is.
    pub(crate) fn news(&mut self, ended: bool) -> Option<String> {
        if !ended && (self.may_stop() || self.ends_within_a_character()) {
            return None;
        }
        let text = String::from_utf8_lossy(&self.bytes[self.told..]).into_owned();
        self.told = self.bytes.len();
        Some(text)
    }

    fn may_stop(&self) -> bool {
        self.stops.iter().any(|stop| (1..stop.len()).any(|length| self.bytes.ends_with(&stop[..length])))
    }

    fn ends_within_a_character(&self) -> bool {
        let last = self.bytes[self.told..].utf8_chunks().last();
        last.is_some_and(|last| std::str::from_utf8(last.invalid()).is_err_and(|error| error.error_len().is_none()))
    }

    /// The text; bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Where `needle` first begins in `bytes[from..]`.
fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(needle.len()).position(|window| window == needle).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut text = GrowingText::new(&stops);
        let stopped = pieces.iter().position(|piece| text.push_bytes(piece.as_bytes()));
        (text.into_text(), stopped)
    }

    #[test]
    fn stop_strings_are_found_across_tokens() {
        assert_eq!(write(&["\n\n"], &["One", ".\n", "\nTwo"]), ("One.".to_owned(), Some(2)));
        assert_eq!(write(&["END"], &["xE", "N", "Dy"]), ("x".to_owned(), Some(2)));
        assert_eq!(write(&["abc"], &["ab", "abc"]), ("ab".to_owned(), Some(1)));
    }

    #[test]
    fn the_earliest_stop_string_wins() {
        assert_eq!(write(&["world", "o"], &["hello world"]), ("hell".to_owned(), Some(0)));
    }

    #[test]
    fn only_what_is_certain_is_told() {
        let mut text = GrowingText::new(&["END".to_owned(), "\n\n".to_owned()]);
        let mut told = String::new();
        let heart = "\u{2764}".as_bytes();
        let pieces: [(&[u8], Option<&str>); 9] = [
            (b"one\n", None),
            (b"two", Some("one\ntwo")),
            (b" E", None),
            (b"N", None),
            (b"d", Some(" ENd")),
            (&heart[..1], None),
            (&heart[1..], Some("\u{2764}")),
            (b"\xffx", Some("\u{fffd}x")),
            (&heart[..2], None),
        ];
        for (piece, expected) in pieces {
            assert!(!text.push_bytes(piece));
            let news = text.news(false);
            assert_eq!(news.as_deref(), expected, "{piece:?}");
            told.extend(news);
        }
        assert!(text.push_bytes(b"yEND and more"));
        told.extend(text.news(true));
        assert_eq!(told, text.into_text());
    }

    #[test]
    fn no_stop_string_no_stop() {
        assert_eq!(write(&[], &["a", "b"]), ("ab".to_owned(), None));
        assert_eq!(write(&[""], &["a", "b"]), ("ab".to_owned(), None));
    }
}
