//! Cuts a stream into the texts of its rows, without reading it whole: lines, or the elements of one JSON list.

use std::io::{self, BufRead};

/// A stretch of the file: the bytes of a row and its first line, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) line: usize,
    pub(super) bytes: Vec<u8>,
}

/// A fault of the file itself.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    /// What is wrong, at a line.
    Form(usize, &'static str),
}

/// The next line that is not blank; `line` counts those read.
pub(super) fn next_line(reader: &mut impl BufRead, line: &mut usize) -> Option<Result<Piece, Fault>> {
    loop {
        let mut bytes = Vec::new();
        match reader.read_until(b'\n', &mut bytes) {
            Err(error) => return Some(Err(Fault::Read(error))),
            Ok(0) => return None,
            Ok(_) => *line += 1,
        }
        if !bytes.trim_ascii().is_empty() {
            return Some(Ok(Piece { line: *line, bytes }));
        }
    }
}

/// Where in a JSON list the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before `[`.
    Start,
    /// Behind `[` or `,`.
    Between,
    /// Behind `]`.
    End,
}

/// Cuts a JSON list into its elements: brackets and strings are followed, everything else is for the reader of a row.
#[derive(Debug)]
pub(super) struct List {
    place: Place,
    line: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { place: Place::Start, line: 1 }
    }
}

impl List {
    /// The next element; `None` at the end of the list.
    pub(super) fn next(&mut self, reader: &mut impl BufRead) -> Option<Result<Piece, Fault>> {
        let mut element = Element::default();
        let mut started = self.line;
        loop {
            let buffer = match reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Some(Err(Fault::Read(error))),
            };
            if buffer.is_empty() {
                let whole = self.place == Place::End;
                self.place = Place::End;
                return (!whole).then_some(Err(Fault::Form(
                    self.line,
                    "the file ends inside its list: it was cut off; write it again",
                )));
            }
            let (mut used, mut found) = (0, None);
            for &byte in buffer {
                used += 1;
                let was_empty = element.bytes.is_empty();
                found = self.step(byte, &mut element);
                if was_empty {
                    started = self.line;
                }
                if byte == b'\n' {
                    self.line += 1;
                }
                if found.is_some() {
                    break;
                }
            }
            reader.consume(used);
            match found {
                Some(Step::Element) => return Some(Ok(Piece { line: started, bytes: element.bytes })),
                Some(Step::Fault(what)) => {
                    self.place = Place::End;
                    return Some(Err(Fault::Form(self.line, what)));
                }
                None => {}
            }
        }
    }

    fn step(&mut self, byte: u8, element: &mut Element) -> Option<Step> {
        match self.place {
            Place::Start => {
                if byte == b'[' {
                    self.place = Place::Between;
                }
                None
            }
            Place::End if byte.is_ascii_whitespace() => None,
            Place::End => Some(Step::Fault("something stands behind the end of the list; remove it")),
            Place::Between if element.bytes.is_empty() && byte.is_ascii_whitespace() => None,
            Place::Between => {
                if element.open() {
                    element.push(byte);
                    return None;
                }
                match byte {
                    b',' => Some(if element.bytes.is_empty() {
                        Step::Fault("a comma without a row before it; remove it")
                    } else {
                        Step::Element
                    }),
                    b']' => {
                        self.place = Place::End;
                        (!element.bytes.is_empty()).then_some(Step::Element)
                    }
                    _ => {
                        element.push(byte);
                        None
                    }
                }
            }
        }
    }
}

enum Step {
    Element,
    Fault(&'static str),
}

/// The bytes of an element so far.
#[derive(Default)]
struct Element {
    bytes: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Element {
    /// Whether a bracket or a quote is open, so that `,` and `]` belong to it.
    fn open(&self) -> bool {
        self.depth > 0 || self.in_string
    }

    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &[u8], buffer: usize) -> Vec<Result<(usize, String), (usize, String)>> {
        let mut reader = io::BufReader::with_capacity(buffer, text);
        let mut list = List::default();
        std::iter::from_fn(|| list.next(&mut reader))
            .map(|piece| match piece {
                Ok(piece) => Ok((piece.line, String::from_utf8_lossy(&piece.bytes).trim().to_owned())),
                Err(Fault::Form(line, what)) => Err((line, what.to_owned())),
                Err(Fault::Read(error)) => Err((0, error.to_string())),
            })
            .collect()
    }

    #[test]
    fn elements_keep_their_lines() {
        let text = b"\n[\n {\"a\": \"],[\\\"\"},\n\n {\"b\":\n [1, 2]} ,3]\n";
        for buffer in [1, 3, 100] {
            assert_eq!(
                split(text, buffer),
                [
                    Ok((3, "{\"a\": \"],[\\\"\"}".to_owned())),
                    Ok((5, "{\"b\":\n [1, 2]}".to_owned())),
                    Ok((6, "3".to_owned()))
                ]
            );
        }
        assert!(split(b"[]", 8).is_empty());
    }

    #[test]
    fn a_torn_list_says_so_once() {
        for text in ["[{\"a\": 1}, {\"b", "[{\"a\": 1},", "["] {
            let found = split(text.as_bytes(), 8);
            assert_eq!(found.iter().filter(|piece| piece.is_err()).count(), 1, "{text}: {found:?}");
        }
        assert!(split(b"[1] 2", 8)[1].is_err());
        assert!(split(b"[,1]", 8)[0].is_err());
    }

    proptest! {
        #[test]
        fn a_list_comes_back(values in proptest::collection::vec(".{0,12}", 0..6), pretty: bool, buffer in 1_usize..40) {
            let rows: Vec<serde_json::Value> = values.iter().map(|text| serde_json::json!({ "text": text })).collect();
            let list = serde_json::Value::Array(rows.clone());
            let text = if pretty { serde_json::to_string_pretty(&list) } else { serde_json::to_string(&list) }.unwrap();
            let found: Vec<serde_json::Value> =
                split(text.as_bytes(), buffer).into_iter().map(|piece| serde_json::from_str(&piece.unwrap().1).unwrap()).collect();
            prop_assert_eq!(found, rows);
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let found = split(&[b"[", bytes.as_slice()].concat(), 7);
            prop_assert!(found.len() <= bytes.len() + 1);
        }
    }
}
