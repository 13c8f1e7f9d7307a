//! Values by name: what was asked or computed once and is not again.

use std::collections::HashMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::DatasetError;
use crate::journal::Journal;

/// One line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line<V> {
    key: String,
    value: V,
}

#[derive(Debug)]
enum Lines<V> {
    Memory(Vec<Line<V>>),
    File(Journal<Line<V>>),
}

/// Values by name: in memory, and in a [`Journal`] where a file is given.
#[derive(Debug)]
pub struct KeyedJournal<V> {
    lines: Lines<V>,
    /// The line of each name; the last one where a name was written twice.
    places: HashMap<String, usize>,
}

impl<V: Clone + Serialize + DeserializeOwned> KeyedJournal<V> {
    /// One that forgets when the program ends.
    pub fn in_memory() -> Self {
        Self { lines: Lines::Memory(Vec::new()), places: HashMap::new() }
    }

    /// Opens or creates a file of values. A torn last line is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written, or when a finished line is none of ours.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let journal: Journal<Line<V>> = Journal::open(path)?;
        let places = journal.rows().iter().enumerate().map(|(place, line)| (line.key.clone(), place)).collect();
        Ok(Self { lines: Lines::File(journal), places })
    }

    /// How many names have a value.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The value of a name.
    pub fn get(&self, key: &str) -> Option<&V> {
        let lines = match &self.lines {
            Lines::Memory(lines) => lines,
            Lines::File(journal) => journal.rows(),
        };
        self.places.get(key).and_then(|&place| lines.get(place)).map(|line| &line.value)
    }

    /// Keeps a value; when this returns, a kill of the process cannot lose what a file holds.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&mut self, key: &str, value: V) -> Result<(), DatasetError> {
        let line = Line { key: key.to_owned(), value };
        let place = match &mut self.lines {
            Lines::Memory(lines) => {
                lines.push(line);
                lines.len()
            }
            Lines::File(journal) => {
                journal.append(&line)?;
                journal.rows().len()
            }
        };
        self.places.insert(key.to_owned(), place - 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Text {
        text: String,
    }

    fn text(text: &str) -> Text {
        Text { text: text.to_owned() }
    }

    #[test]
    fn survives_a_cut_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/answers.jsonl");
        let mut kept = KeyedJournal::open(&path).unwrap();
        kept.put("a", text("line\nbreak")).unwrap();
        let first = std::fs::metadata(&path).unwrap().len() as usize;
        kept.put("b", text("two")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in first..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut again = KeyedJournal::open(&path).unwrap();
            assert_eq!((again.len(), again.get("a")), (1, kept.get("a")), "cut at {length}");
            again.put("b", text("two")).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        std::fs::write(&path, "{}\n").unwrap();
        assert!(KeyedJournal::<Text>::open(&path).unwrap_err().to_string().contains("answers.jsonl:1: "));
    }

    #[test]
    fn the_last_value_of_a_name_counts() {
        let mut kept = KeyedJournal::in_memory();
        assert!(kept.is_empty());
        kept.put("a", text("one")).unwrap();
        kept.put("a", text("two")).unwrap();
        assert_eq!((kept.len(), kept.get("a"), kept.get("b")), (1, Some(&text("two")), None));
    }
}
