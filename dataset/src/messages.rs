//! Rows as lines of messages: the one form in which rows lie beside their table, and in which they are converted.

use std::path::Path;

use crate::atomic::write_atomically;
use crate::error::DatasetError;
use crate::formats::TrainingLine;
use crate::row::Row;

/// Writes the rows that are trained on, a [`TrainingLine`] each, atomically: the very lines of the form
/// [`crate::OutputForm::Messages`].
///
/// # Errors
/// When the file cannot be written.
pub fn write_messages_jsonl(path: &Path, rows: &[Row]) -> Result<(), DatasetError> {
    write_atomically(path, |out| {
        let lines = rows.iter().filter(|row| row.is_learned()).map(TrainingLine::of_row);
        lines.filter(|line| !line.is_empty()).try_for_each(|line| line.write(out))
    })
    .map_err(DatasetError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Split, Turn, Verdict};
    use crate::{Example, FolderOptions, OutputForm, RowSource, SamplingSize, convert, write_parquet};

    fn row(id: &str, turns: &[(&str, &str)]) -> Row {
        Row {
            turns: turns.iter().map(|(role, text)| Turn::new(*role, *text)).collect(),
            id: id.into(),
            leaf: "dates".into(),
            kind: "freeform_skill".into(),
            flow: "template".into(),
            license: Some("MIT".into()),
            verdict: Verdict::Accepted,
            ..Row::default()
        }
    }

    #[test]
    fn rows_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages.jsonl");
        let accepted = row("1f", &[("user", "q\n\"1\""), ("assistant", "a")]);
        let weighed = Row { leaf_weight: Some(0.3), ..row("2f", &[("user", "q"), ("assistant", "b")]) };
        write_messages_jsonl(&path, &[accepted.clone(), weighed, Row::default()]).unwrap();
        let records: Vec<_> = crate::Records::open(&path, None).unwrap().collect();
        let [Ok(record), Ok(other)] = <[_; 2]>::try_from(records).unwrap() else { panic!("two rows") };
        let (example, other) = (record.example().unwrap(), other.example().unwrap());
        assert_eq!(example.content, Example::conversation(&accepted.turns, 1).content);
        assert_eq!((example.id.as_str(), example.leaf.as_deref()), ("1f", Some("dates")));
        assert_eq!((example.kind.as_deref(), example.leaf_weight), (Some("freeform_skill"), None));
        assert_eq!(other.leaf_weight, Some(0.3));
    }

    #[test]
    fn the_lines_beside_a_table_are_those_that_it_is_converted_to() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        let pair = [("user", "q"), ("assistant", "a")];
        let rows = [
            row("1", &pair),
            Row { leaf_weight: Some(2.0), domain: Some("d".into()), ..row("2", &pair) },
            row("3", &[("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]),
            Row { split: Split::HeldOut, ..row("4", &pair) },
            Row { verdict: Verdict::Rejected, ..row("5", &pair) },
            row("6", &[("user", "q"), ("assistant", " ")]),
        ];
        write_messages_jsonl(&of("beside.jsonl"), &rows).unwrap();
        write_parquet(&of("rows.parquet"), &rows).unwrap();
        let source = RowSource::find(&of("rows.parquet"), None).unwrap();
        let options = FolderOptions {
            seed: 7,
            system_prompt: String::new(),
            instructions: crate::AuxiliaryInstructions::default(),
            skill_lines: SamplingSize::Share(1.0),
            legacy: false,
            seeds: None,
        };
        convert(&source, OutputForm::Messages, &options, &of("converted.jsonl")).unwrap();
        convert(&source, OutputForm::Instructlab, &options, &of("folder")).unwrap();
        let text = |name: &str| std::fs::read_to_string(of(name)).unwrap();
        assert_eq!(text("beside.jsonl").lines().count(), 3);
        assert_eq!(text("beside.jsonl"), text("converted.jsonl"));
        assert_eq!(text("beside.jsonl"), text("folder/messages.jsonl"));
    }
}
