//! From what a person writes about data to the files that are read.

use crate::outcome::Failure;
use anyhow::Result;
use espalier_train::{DataItem, DataSource};
use std::path::{Path, PathBuf};

/// The entry that `--data` says: a file, with `:key=value,key=value` behind it where there is more to say.
pub fn parse(text: &str) -> Result<DataItem> {
    let said = text.rsplit_once(':').filter(|(_, rest)| rest.contains('=') && !Path::new(text).exists());
    let Some((file, rest)) = said else { return Ok(DataItem::file(text)) };
    let refuse = |what: String| {
        Failure::usage(format!("--data {text}: {what}"))
            .hint("the form is FILE, or FILE:format=alpaca,weight=0.3,limit=1000,loss=last,kind=knowledge,name=WORD")
    };
    let mut entry = serde_json::Map::from_iter([("file".to_owned(), file.into())]);
    for assignment in rest.split(',') {
        let (key, value) = assignment.split_once('=').ok_or_else(|| refuse(format!("`{assignment}` has no `=`")))?;
        let value = serde_yaml::from_str(value).map_err(|error| refuse(format!("{key}: {error}")))?;
        entry.insert(key.to_owned(), value);
    }
    Ok(serde_json::from_value(entry.into()).map_err(|error| refuse(error.to_string()))?)
}

/// The files that an entry means: from the working folder, or else from `base`, sorted by name.
pub fn find(item: &DataItem, base: Option<&Path>) -> Result<DataSource> {
    let file = item.file.as_deref().unwrap_or_default();
    let places = [Some(PathBuf::from(file)), base.map(|base| base.join(file))];
    let is_pattern = file.contains(['*', '?', '[']);
    for place in places.into_iter().flatten() {
        if place.exists() {
            return Ok(DataSource::new(item, vec![place]));
        }
        let pattern = place.to_string_lossy();
        if is_pattern && let Ok(found) = glob::glob(&pattern) {
            let mut files: Vec<PathBuf> = found.flatten().filter(|path| path.is_file()).collect();
            files.sort();
            if !files.is_empty() {
                return Ok(DataSource::new(item, files));
            }
        }
    }
    let what = if is_pattern { "no file fits" } else { "there is no file" };
    Err(Failure::usage(format!("{what} {file}"))
        .hint("data is named by a path, with `*` for any name and `**` for any folders")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_train::{Learned, RowKind};

    #[test]
    fn an_entry_of_the_command_line_says_what_one_of_the_file_says() -> Result<()> {
        assert_eq!(parse("rows.jsonl")?, DataItem::file("rows.jsonl"));
        assert_eq!(parse("C:/rows.jsonl")?, DataItem::file("C:/rows.jsonl"));
        let item = parse("a:b.jsonl:format=alpaca,weight=0.3,limit=7,loss=last,kind=skill,name=mine")?;
        assert_eq!(item.file.as_deref(), Some("a:b.jsonl"));
        assert_eq!(item.format, Some(espalier_dataset::Format::Alpaca));
        assert_eq!((item.weight, item.limit, item.loss), (Some(0.3), Some(7), Some(Learned::Last)));
        assert_eq!((item.kind, item.name.as_deref()), (Some(RowKind::Skill), Some("mine")));
        let refusals = ["x:wieght=1", "x:weight=much", "x:format=csv", "x:weight=1,,"]
            .map(|text| parse(text).map_or_else(|error| error.to_string(), |item| format!("{item:?}")));
        insta::assert_snapshot!(refusals.join("\n"));
        Ok(())
    }

    #[test]
    fn files_are_found_in_order() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for name in ["b.lines", "a.lines", "c.txt"] {
            std::fs::write(folder.path().join(name), "x")?;
        }
        let found = find(&DataItem::file("*.lines"), Some(folder.path()))?;
        assert_eq!(found.files, [folder.path().join("a.lines"), folder.path().join("b.lines")]);
        assert_eq!(found.name, "*.lines");
        assert!(find(&DataItem::file("*.none"), Some(folder.path())).is_err());
        assert!(find(&DataItem::file("d.lines"), None).is_err());
        Ok(())
    }
}
