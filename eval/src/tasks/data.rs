//! The documents of a task: from files that its YAML names, from a folder of benchmarks, or from what is built in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use espalier_dataset::read_parquet_values;
use serde_json::{Map, Value};

use super::config::TaskConfig;
use super::shape::{plain, restored};
use super::shipped;
use super::table::{csv_rows, hellaswag_rows, json_rows};
use crate::error::EvalError;

/// The splits of a data set, each read when it is asked for.
pub(crate) struct Splits<'t> {
    config: &'t TaskConfig,
    /// Folder of benchmarks.
    folder: Option<&'t Path>,
    read: RefCell<HashMap<String, Rc<Vec<Value>>>>,
}

/// What a split is also called in names of files.
const SPLITS: &[(&str, &[&str])] = &[
    ("train", &["train", "training"]),
    ("validation", &["validation", "val", "valid", "dev", "eval"]),
    ("test", &["test"]),
    ("dev", &["dev"]),
];

/// Endings of files that can be read; all but `parquet` may be followed by one of [`PACKED`].
const ENDINGS: [&str; 4] = ["parquet", "jsonl", "json", "csv"];

/// Endings of files that are unpacked as they are read.
const PACKED: [&str; 2] = ["gz", "bz2"];

/// The only data set that is also read as plain text, of six lines an item.
const HELLASWAG: &str = "hellaswag";

impl<'t> Splits<'t> {
    pub(crate) fn new(config: &'t TaskConfig, folder: Option<&'t Path>) -> Self {
        Self { config, folder, read: RefCell::default() }
    }

    /// The documents of a split, every one with the same keys.
    pub(crate) fn documents(&self, split: &str) -> Result<Rc<Vec<Value>>, EvalError> {
        if let Some(known) = self.read.borrow().get(split) {
            return Ok(Rc::clone(known));
        }
        let mut rows = Vec::new();
        for file in self.files(split)? {
            rows.extend(file.rows(self.config)?);
        }
        if rows.is_empty() {
            return Err(self.refuse(format!("the split `{split}` of its data set is empty; check the file")));
        }
        let rows = rows.into_iter().map(|row| restored(row, self.config)).collect();
        let rows = Rc::new(plain(rows));
        self.read.borrow_mut().insert(split.to_owned(), Rc::clone(&rows));
        Ok(rows)
    }

    fn refuse(&self, problem: String) -> EvalError {
        EvalError::Task { task: self.config.task.clone(), problem }
    }

    fn files(&self, split: &str) -> Result<Vec<Source>, EvalError> {
        let data = &self.config.data;
        if let Some(named) = data.kwargs.get("data_files") {
            return self.named_files(named, split);
        }
        if let Some(folder) = data.kwargs.get("data_dir").and_then(Value::as_str) {
            return self.found(&data.folder.join(folder), split);
        }
        if let Some(folder) = self.folder {
            return self.found(folder, split);
        }
        if let Some(text) = shipped::embedded(&self.config.task, &data.path, data.name.as_deref(), split)? {
            return Ok(vec![Source::Embedded(text)]);
        }
        Err(self.refuse(format!(
            "its data set {:?} is not built in, and nothing is loaded from the network; put its files into a folder and name the folder \
             with --data-dir, or use `dataset_path: json` with `dataset_kwargs: {{data_files: ...}}`",
            [Some(data.path.as_str()), data.name.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ")
        )))
    }

    /// `data_files`: one for all splits, a list, or a mapping of splits.
    fn named_files(&self, named: &Value, split: &str) -> Result<Vec<Source>, EvalError> {
        let of_split = match named {
            Value::Object(splits) => splits.get(split).ok_or_else(|| {
                let known: Vec<&str> = splits.keys().map(String::as_str).collect();
                self.refuse(format!("`data_files` has no split `{split}`; it has {}", known.join(", ")))
            })?,
            // `datasets` calls everything `train` when no split is named.
            other if split == "train" => other,
            _ => {
                return Err(self.refuse(format!(
                    "`data_files` names no splits, so that all is `train`, but the task reads `{split}`; write `data_files: \
                     {{{split}: FILE}}`"
                )));
            }
        };
        let names: Vec<&str> = match of_split {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            other => other.as_str().into_iter().collect(),
        };
        names.into_iter().map(|name| self.resolve(name).map(Source::File)).collect()
    }

    /// A file that the task names: beside its YAML, else in the folder of benchmarks, else from where the program runs.
    fn resolve(&self, name: &str) -> Result<PathBuf, EvalError> {
        let beside = self.config.data.folder.join(name);
        let candidates = [Some(beside.clone()), self.folder.map(|folder| folder.join(name)), Some(PathBuf::from(name))];
        candidates.into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
            self.refuse(format!(
                "its data file {} is not there; check `data_files`, or name its folder with --data-dir",
                beside.display()
            ))
        })
    }

    /// The files of a split below a folder, by their names.
    fn found(&self, folder: &Path, split: &str) -> Result<Vec<Source>, EvalError> {
        if !folder.is_dir() {
            return Err(self.refuse(format!("the folder {} is not there; check --data-dir", folder.display())));
        }
        let mut files = Vec::new();
        collect(folder, 0, &|file| self.is_readable(file), &mut files);
        files.sort();
        let keys = self.keys();
        let named = |file: &PathBuf| Named::of(file, folder);
        let matching: Vec<(PathBuf, Named)> = files
            .into_iter()
            .map(|file| (named(&file), file))
            .filter(|(name, _)| name.is_of(&keys))
            .map(|(name, file)| (file, name))
            .collect();
        let of_split: Vec<&(PathBuf, Named)> = matching.iter().filter(|(_, name)| name.is_split(split)).collect();
        // A data set of one file has no name for its split.
        let only = matching.iter().filter(|(_, name)| name.split.is_none());
        let chosen: Vec<PathBuf> = match of_split.as_slice() {
            [] if Some(split) == self.config.eval_split() => only.map(|(file, _)| file.clone()).take(1).collect(),
            [] => Vec::new(),
            // Shards of one table lie together; the same data in another form does not.
            [(first, _), ..] => {
                let together =
                    |file: &&PathBuf| file.parent() == first.parent() && file.extension() == first.extension();
                of_split.iter().map(|(file, _)| file).filter(together).cloned().collect()
            }
        };
        if chosen.is_empty() {
            let name = keys.first().cloned().unwrap_or_default();
            return Err(self.refuse(format!(
                "no file below {} is the split `{split}` of its data set; name it {name}_{split}.jsonl (or .json, .csv, .parquet), or \
                 {name}/{split}.jsonl",
                folder.display()
            )));
        }
        Ok(chosen.into_iter().map(Source::File).collect())
    }

    fn is_readable(&self, file: &Path) -> bool {
        let lines_of_hellaswag = || {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            self.config.data.last() == HELLASWAG && name.starts_with("hellaswag_val")
        };
        match ending(file) {
            Some("txt") => lines_of_hellaswag(),
            Some("parquet") => !is_packed(file),
            Some(known) => ENDINGS.contains(&known),
            None => false,
        }
    }

    /// What files and folders of the data set may be called, the task's own name first.
    fn keys(&self) -> Vec<String> {
        let data = &self.config.data;
        let last = data.last();
        let mut keys = vec![self.config.task.clone()];
        match &data.name {
            // `main` and the like say nothing of the data set.
            Some(name)
                if !["main", "default", "multiple_choice", "winogrande_xl", "wikitext-2-raw-v1"]
                    .contains(&name.as_str()) =>
            {
                keys.push(name.clone());
            }
            Some(name) => {
                keys.extend(
                    [last.to_owned(), name.clone()].into_iter().filter(|key| key != "main" && key != "default"),
                );
            }
            None => keys.push(last.to_owned()),
        }
        keys
    }
}

/// Files that can be read, to a depth that folders of benchmarks have.
fn collect(folder: &Path, depth: usize, readable: &dyn Fn(&Path) -> bool, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if depth < 6 {
                collect(&path, depth + 1, readable, files);
            }
        } else if readable(&path) {
            files.push(path);
        }
    }
}

/// Whether the file is unpacked as it is read.
fn is_packed(file: &Path) -> bool {
    file.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| PACKED.contains(&ending))
}

/// The path without its endings.
fn stem(file: &Path) -> PathBuf {
    let unpacked = if is_packed(file) { file.with_extension("") } else { file.to_owned() };
    unpacked.with_extension("")
}

/// The ending that tells the form of a file, below that of its packing.
fn ending(file: &Path) -> Option<&str> {
    let name = if is_packed(file) { Path::new(file.file_stem()?) } else { file };
    name.extension()?.to_str()
}

/// The text of a file, unpacked.
fn text_of(path: &Path) -> std::io::Result<String> {
    let file = std::fs::File::open(path)?;
    let mut text = String::new();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text)?,
        Some("bz2") => bzip2::read::MultiBzDecoder::new(file).read_to_string(&mut text)?,
        _ => std::io::BufReader::new(file).read_to_string(&mut text)?,
    };
    Ok(text)
}

/// What the name of a file says.
struct Named {
    /// The folders above and the file itself, without the words for splits; letters and digits only.
    words: Vec<String>,
    split: Option<String>,
}

impl Named {
    fn of(file: &Path, folder: &Path) -> Self {
        let below = stem(file.strip_prefix(folder).unwrap_or(file));
        let mut parts: Vec<String> =
            below.components().map(|part| part.as_os_str().to_string_lossy().to_lowercase()).collect();
        parts.extend(folder.file_name().map(|name| name.to_string_lossy().to_lowercase()));
        let mut split = None;
        let words = parts
            .iter()
            .map(|part| {
                let part = part.split("-of-").next().unwrap_or(part);
                let part = part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
                let part = if part.is_empty() { parts[0].as_str() } else { part };
                for alias in SPLITS.iter().flat_map(|(_, aliases)| aliases.iter()) {
                    let rest = if part == *alias {
                        Some("")
                    } else {
                        part.strip_suffix(alias)
                            .and_then(|rest| rest.strip_suffix(['_', '-', '.']))
                            .or_else(|| part.strip_prefix(alias).and_then(|rest| rest.strip_prefix(['_', '-', '.'])))
                    };
                    if let Some(rest) = rest {
                        split.get_or_insert_with(|| (*alias).to_owned());
                        return normal(rest);
                    }
                }
                normal(part)
            })
            .collect();
        Self { words, split }
    }

    fn is_of(&self, keys: &[String]) -> bool {
        keys.iter().map(|key| normal(key)).any(|key| self.words.contains(&key))
    }

    fn is_split(&self, split: &str) -> bool {
        let aliases = SPLITS.iter().find(|(name, _)| *name == split).map_or(&[][..], |(_, aliases)| aliases);
        self.split.as_deref().is_some_and(|found| found == split || aliases.contains(&found))
    }
}

fn normal(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Where rows come from.
enum Source {
    File(PathBuf),
    Embedded(String),
}

impl Source {
    fn rows(&self, config: &TaskConfig) -> Result<Vec<Value>, EvalError> {
        let (path, text) = match self {
            Self::Embedded(text) => return json_rows(Path::new(&config.task), text, None),
            Self::File(path) => {
                let parquet = ending(path) == Some("parquet");
                if parquet || config.data.path == "parquet" {
                    let refuse = |error: espalier_dataset::DatasetError| EvalError::Task {
                        task: config.task.clone(),
                        problem: error.to_string(),
                    };
                    return read_parquet_values(path).map_err(refuse);
                }
                (path, text_of(path).map_err(EvalError::file(path, "read the data set"))?)
            }
        };
        let csv = matches!(ending(path), Some("csv" | "tsv"));
        if ending(path) == Some("txt") && config.data.last() == HELLASWAG {
            return hellaswag_rows(path, &text);
        }
        if config.data.path == "text" {
            return Ok(text.lines().map(|line| Map::from_iter([("text".to_owned(), line.into())]).into()).collect());
        }
        if csv || config.data.path == "csv" {
            let named = |key: &str| config.data.kwargs.get(key).and_then(Value::as_str);
            return csv_rows(path, &text, named("delimiter").or(named("sep")));
        }
        json_rows(path, &text, config.data.kwargs.get("field").and_then(Value::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_tell_data_set_and_split() {
        let of = |file: &str| Named::of(&Path::new("/data").join(file), Path::new("/data"));
        for (file, key, split) in [
            ("ARC-Easy/test-00000-of-00001.parquet", "ARC-Easy", Some("test")),
            ("mmlu/dev/abstract_algebra_dev.csv", "abstract_algebra", Some("dev")),
            ("gsm8k/train.jsonl", "gsm8k", Some("train")),
            ("llm/arc_easy.jsonl", "arc_easy", None),
            ("val_piqa.json", "piqa", Some("val")),
            ("piqa/validation.jsonl.gz", "piqa", Some("validation")),
            ("hellaswag/hellaswag_val_full.txt.bz2", "hellaswag", None),
        ] {
            let named = of(file);
            assert!(named.is_of(&[key.to_owned()]), "{file}: {:?}", named.words);
            assert_eq!(named.split.as_deref(), split, "{file}");
        }
        assert!(of("val_piqa.json").is_split("validation") && !of("val_piqa.json").is_split("test"));
        assert!(!of("llm/arc_easy.jsonl").is_of(&["arc".to_owned()]));
    }

    #[test]
    fn packed_files_are_unpacked() {
        use std::io::Write;

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        gz.write_all(b"one\n").unwrap();
        bz2.write_all(b"two\n").unwrap();
        let (gz, bz2) = (gz.finish().unwrap(), bz2.finish().unwrap());
        std::fs::write(path("a.jsonl.gz"), [gz.clone(), gz].concat()).unwrap();
        std::fs::write(path("a.txt.bz2"), &bz2[..]).unwrap();
        assert_eq!(text_of(&path("a.jsonl.gz")).unwrap(), "one\none\n");
        assert_eq!(text_of(&path("a.txt.bz2")).unwrap(), "two\n");
        assert_eq!(
            (ending(&path("a.jsonl.gz")), ending(&path("a.csv")), ending(&path("gz"))),
            (Some("jsonl"), Some("csv"), None)
        );
        std::fs::write(path("a.txt.bz2"), &bz2[..bz2.len() - 4]).unwrap();
        assert!(text_of(&path("a.txt.bz2")).is_err());
    }
}
