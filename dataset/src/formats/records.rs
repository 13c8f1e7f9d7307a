//! A file of training data as a stream of records with their lines.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::line::TrainingLine;
use super::split::{Fault, List, Piece, next_line};
use super::{Content, Example, Format, kind_of, names};
use crate::error::DatasetError;
use crate::row::{Row, Verdict};
use crate::table::RowReader;

/// Records that are looked at before a file's format is given up.
const LOOKED_AT: usize = 100;

/// What is wrong with a file or with one of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1; `None` when it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{}:{line}: {}", self.path.display(), self.what),
            None => write!(formatter, "{}: {}", self.path.display(), self.what),
        }
    }
}

/// A row that is not read yet.
#[derive(Debug)]
pub struct Record {
    line: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Bytes of a row of JSON, in this format.
    Json(Vec<u8>, Format),
    Document(String),
    Row(Box<Row>),
}

impl Record {
    /// Line in its file, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The JSON of the row as it stands in its file; nothing of a row of a table and of a document.
    pub fn json(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Json(bytes, _) => Some(bytes),
            Source::Document(_) | Source::Row(_) => None,
        }
    }

    /// The same row with other JSON in the place of its own.
    #[must_use]
    pub fn with_json(self, json: Vec<u8>) -> Self {
        match self.source {
            Source::Json(_, format) => Self { source: Source::Json(json, format), ..self },
            Source::Document(_) | Source::Row(_) => self,
        }
    }

    /// Reads the row.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn example(self) -> Result<Example, String> {
        match self.source {
            Source::Row(row) => Ok(Example::of_row(&row, self.line)),
            Source::Document(text) => Ok(Example::new(Content::Document(text), self.line)),
            Source::Json(bytes, format) => {
                let object = parse(&bytes)?;
                let content = format.read(&object)?;
                Example::of_object(&object, content, self.line)
            }
        }
    }
}

impl Record {
    /// Reads the row as a line of messages, with all that stands beside them.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn training_line(self) -> Result<TrainingLine, String> {
        match self.source {
            Source::Row(row) => Ok(TrainingLine::of_row(&row)),
            Source::Document(_) => Err("a document has no messages; mix files of conversations".to_owned()),
            Source::Json(bytes, format) => {
                let object = parse(&bytes)?;
                let content = format.read(&object)?;
                let id = Example::of_object(&object, content.clone(), self.line)?.id;
                TrainingLine::of_object(object, content, id)
            }
        }
    }
}

/// The object that a row of JSON is.
fn parse(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 (byte {} of the row); save the file as UTF-8", error.valid_up_to() + 1))?;
    match serde_json::from_str(text.trim_end()) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(format!("a row is a JSON object, this is {}", kind_of(&other))),
        Err(error) if error.is_eof() => {
            Err("the row ends in the middle of its JSON: it was cut off, or goes over several lines; write a row on one line"
                .to_owned())
        }
        Err(error) => {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            Err(format!("not JSON at character {}: {what}", error.column()))
        }
    }
}

enum Stream {
    Lines {
        reader: Counted,
        line: usize,
    },
    List {
        reader: Counted,
        list: List,
    },
    Rows {
        reader: RowReader,
        row: usize,
        bytes: u64,
    },
    Whole(Option<String>),
    /// Nothing more can be read.
    Over,
}

type Counted = BufReader<CountedFile>;

/// A file that knows how much of it was read.
struct CountedFile {
    file: File,
    read: u64,
}

impl Read for CountedFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

/// A file's records, one after the other.
pub struct Records {
    path: PathBuf,
    format: Format,
    stream: Stream,
    /// Taken from the stream to find the format.
    waiting: VecDeque<Result<Piece, Problem>>,
    bytes: u64,
    any: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Records")
            .field("path", &self.path)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Records {
    /// Opens a file, in `format` or in the one that its name and its first row tell.
    ///
    /// # Errors
    /// A file that cannot be opened, is empty, or is not of the format.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(DatasetError::file("read", path))?;
        let metadata = file.metadata().map_err(DatasetError::file("read", path))?;
        let refuse =
            |line: Option<usize>, what: String| DatasetError::Problem(Problem { path: path.to_path_buf(), line, what });
        if metadata.is_dir() {
            let what = format!("this is a folder; name its files, for instance {}/*.jsonl", path.display());
            return Err(refuse(None, what));
        }
        let mut reader = BufReader::with_capacity(1 << 16, CountedFile { file, read: 0 });
        let start = reader.fill_buf().map_err(DatasetError::file("read", path))?.to_vec();
        if start.is_empty() {
            return Err(refuse(None, "the file is empty".to_owned()));
        }
        if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
            return Err(refuse(None, "the file is UTF-16; save it as UTF-8".to_owned()));
        }
        let new = |format, stream| Self {
            path: path.to_path_buf(),
            format,
            stream,
            waiting: VecDeque::new(),
            bytes: metadata.len(),
            any: false,
        };
        let table = start.starts_with(b"PAR1");
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        match (format, ending.as_str()) {
            (Some(Format::Rows), _) | (None, "parquet") => {
                let stream = Stream::Rows { reader: RowReader::open(path)?, row: 0, bytes: metadata.len() };
                return Ok(new(Format::Rows, stream));
            }
            (_, _) if table => {
                let reader = RowReader::open(path)?;
                if let Some(named) = format {
                    let what = format!("this is a Parquet table, not {}: say `format: rows`", named.name());
                    return Err(refuse(None, what));
                }
                return Ok(new(Format::Rows, Stream::Rows { reader, row: 0, bytes: metadata.len() }));
            }
            (Some(Format::Document), _) | (None, "txt" | "md") => {
                return Ok(new(Format::Document, Stream::Whole(Some(whole(reader, path)?))));
            }
            _ => {}
        }
        if start.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
        }
        let first = start.iter().find(|byte| !byte.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(byte));
        let stream = match first {
            Some(b'[') => Stream::List { reader, list: List::default() },
            _ => Stream::Lines { reader, line: 0 },
        };
        let mut records = new(format.unwrap_or(Format::Messages), stream);
        records.find_format(format)?;
        Ok(records)
    }

    /// The format that the file is read in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much of it was read.
    pub fn bytes_read(&self) -> u64 {
        match &self.stream {
            Stream::Lines { reader, .. } | Stream::List { reader, .. } => reader.get_ref().read,
            Stream::Rows { reader, row, bytes } => bytes * (*row as u64) / (reader.rows() as u64).max(1),
            Stream::Whole(_) | Stream::Over => self.bytes,
        }
    }

    /// Looks at the first rows: which format they have, or whether they have the one that was named.
    fn find_format(&mut self, named: Option<Format>) -> Result<(), DatasetError> {
        let mut problem = None;
        while self.waiting.len() < LOOKED_AT
            && let Some(piece) = self.next_piece()
        {
            let looked = match &piece {
                Ok(piece) => parse(&piece.bytes).map_err(|what| self.problem(Some(piece.line), what)),
                Err(problem) => Err(problem.clone()),
            };
            let line = piece.as_ref().map_or(1, |piece| piece.line);
            self.waiting.push_back(piece);
            match (looked, named) {
                (Err(found), _) => problem = problem.or(Some(found)),
                (Ok(object), Some(named)) => {
                    // A row that only lacks a key is a fault of that row; one of another format, of the whole file.
                    return match named.check(&object) {
                        Err(what) if Format::of_object(&object).is_some() => {
                            Err(DatasetError::Problem(self.problem(Some(line), what)))
                        }
                        _ => Ok(()),
                    };
                }
                (Ok(object), None) => {
                    if let Some(format) = Format::of_object(&object) {
                        self.format = format;
                        return Ok(());
                    }
                    problem = problem.or_else(|| Some(self.problem(Some(line), unknown(&object))));
                }
            }
        }
        match (problem, named) {
            // With the format named, each row says what is wrong with it.
            (Some(_), Some(_)) | (None, _) => Ok(()),
            (Some(problem), None) => Err(DatasetError::Problem(problem)),
        }
    }

    fn problem(&self, line: Option<usize>, what: String) -> Problem {
        Problem { path: self.path.clone(), line, what }
    }

    fn next_piece(&mut self) -> Option<Result<Piece, Problem>> {
        let piece = match &mut self.stream {
            Stream::Lines { reader, line } => next_line(reader, line),
            Stream::List { reader, list } => list.next(reader),
            Stream::Rows { .. } | Stream::Whole(_) | Stream::Over => None,
        }?;
        Some(piece.map_err(|fault| {
            self.stream = Stream::Over;
            match fault {
                Fault::Read(error) => self.problem(None, format!("cannot read on: {error}")),
                Fault::Form(line, what) => self.problem(Some(line), what.to_owned()),
            }
        }))
    }

    /// The next accepted row of a table.
    fn next_row(&mut self) -> Option<Result<Record, Problem>> {
        let Stream::Rows { reader, row, .. } = &mut self.stream else { return None };
        for found in reader {
            *row += 1;
            match found {
                Err(error) => {
                    let what = match error {
                        DatasetError::Table { reason, .. } => reason,
                        other => other.to_string(),
                    };
                    self.stream = Stream::Over;
                    return Some(Err(self.problem(None, format!("not a table of rows: {what}; generate it again"))));
                }
                Ok(found) if found.verdict == Verdict::Accepted => {
                    return Some(Ok(Record { line: *row, source: Source::Row(Box::new(found)) }));
                }
                Ok(_) => {}
            }
        }
        None
    }

    fn next_record(&mut self) -> Option<Result<Record, Problem>> {
        if let Stream::Whole(text) = &mut self.stream {
            let text = text.take()?;
            if text.trim().is_empty() {
                return Some(Err(self.problem(None, "the file is empty".to_owned())));
            }
            return Some(Ok(Record { line: 1, source: Source::Document(text) }));
        }
        if matches!(self.stream, Stream::Rows { .. }) {
            return self.next_row();
        }
        let piece = match self.waiting.pop_front() {
            Some(piece) => piece,
            None => self.next_piece()?,
        };
        Some(piece.map(|Piece { line, bytes }| Record { line, source: Source::Json(bytes, self.format) }))
    }
}

/// Words for a row that is of no format.
fn unknown(object: &Map<String, Value>) -> String {
    format!(
        "cannot tell the format: the row has {}. Known are messages (`messages`), alpaca (`instruction`, `output`), sharegpt \
         (`conversations`), prompt_completion (`prompt`, `completion`) and text (`text`); for a file of plain text say \
         `format: document`",
        names(object)
    )
}

/// A file of plain text.
fn whole(mut reader: Counted, path: &Path) -> Result<String, DatasetError> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(DatasetError::file("read", path))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        let what = "not UTF-8; save the file as UTF-8".to_owned();
        DatasetError::Problem(Problem { path: path.to_path_buf(), line: Some(line), what })
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

impl Iterator for Records {
    type Item = Result<Record, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_record();
        if next.is_none() && !self.any {
            self.any = true;
            let what = match self.format {
                Format::Rows => "no row of the table was accepted; `pipeline data funnel` says why",
                _ => "the file has no rows",
            };
            return Some(Err(self.problem(None, what.to_owned())));
        }
        self.any = true;
        next
    }
}
