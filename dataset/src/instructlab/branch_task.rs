//! Tasks of multiple choice for lm-evaluation-harness, as `InstructLab` evaluates a branch of the tree (MMLU-branch).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::folder::file_names;
use crate::atomic::{AtomicFile, write_atomically};
use crate::error::DatasetError;
use crate::formats::Problem;
use crate::row::{Row, Verdict};
use crate::versions::RowSource;

/// A question with four answers of which one is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MultipleChoice {
    /// What is asked.
    pub question: String,
    /// The answers.
    pub choices: [String; 4],
    /// Place of the right one, from 0.
    pub answer: usize,
}

impl MultipleChoice {
    /// The question that a row asks: answers `A)` to `D)` a line each behind it (also `A.`, `(A)`, `A:`), and a reply that
    /// names one. instructlab-sdg throws away what does not say the letter first; here `Answer: B)` counts too.
    pub fn of_row(row: &Row) -> Option<Self> {
        let reply = row.turns.iter().rev().find(|turn| turn.role == "assistant")?;
        let lines: Vec<&str> = row.question()?.lines().collect();
        let options: Vec<(usize, usize, &str)> = lines
            .iter()
            .enumerate()
            .filter_map(|(at, line)| option(line).map(|(letter, text)| (at, letter, text)))
            .collect();
        let [.., a, b, c, d] = options.as_slice() else { return None };
        if [a.1, b.1, c.1, d.1] != [0, 1, 2, 3] || options.len() != 4 {
            return None;
        }
        let question = lines[..a.0].join("\n").trim().to_owned();
        let choices = [a, b, c, d].map(|option| option.2.to_owned());
        let answer =
            letter(&reply.content).or_else(|| choices.iter().position(|choice| *choice == reply.content.trim()))?;
        let different: BTreeSet<&String> = choices.iter().collect();
        (!question.is_empty() && different.len() == 4).then_some(Self { question, choices, answer })
    }
}

/// A line such as `B) text`: the place of its letter, and the text.
fn option(line: &str) -> Option<(usize, &str)> {
    let line = line.trim();
    let line = line.strip_prefix('(').unwrap_or(line);
    let mut letters = line.chars();
    let place = "ABCD".find(letters.next()?)?;
    let rest = letters.as_str().strip_prefix([')', '.', ':'])?.trim();
    (!rest.is_empty()).then_some((place, rest))
}

/// The letter that a reply names.
fn letter(reply: &str) -> Option<usize> {
    let reply = reply.trim();
    let said = ["Answer:", "The answer is", "Correct answer:"].iter().find_map(|start| reply.strip_prefix(start));
    let reply = said.unwrap_or(reply).trim().trim_start_matches('(');
    let mut letters = reply.chars();
    let place = "ABCD".find(letters.next()?)?;
    // `A pond` names no letter; `A`, `A)` and `A.` do.
    letters.next().is_none_or(|next| ").:,".contains(next)).then_some(place)
}

/// A task that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BranchTask {
    /// Its name for `--tasks`.
    pub name: String,
    /// The leaf whose questions it asks.
    pub leaf: String,
    /// How many.
    pub questions: u64,
}

/// Writes `LEAF_task.yaml` and `mmlubench_LEAF.jsonl` for each leaf with accepted questions of multiple choice into a folder.
/// The task names its data as `out` does, so that lm-eval finds it from where this was run.
///
/// # Errors
/// When rows cannot be read, none is such a question, or a file cannot be written.
pub fn write_branch_tasks(rows: &RowSource, out: &Path) -> Result<Vec<BranchTask>, DatasetError> {
    let mut leaves: BTreeMap<String, u64> = BTreeMap::new();
    let questions = || {
        rows.rows().filter_map(|row| match row {
            Ok(row) if row.verdict != Verdict::Accepted => None,
            Ok(row) => MultipleChoice::of_row(&row).map(|found| Ok((row, found))),
            Err(error) => Some(Err(error)),
        })
    };
    for row in questions() {
        *leaves.entry(row?.0.leaf).or_default() += 1;
    }
    if leaves.is_empty() {
        let what = "no accepted row is a question with four answers A) to D) and a reply that names one".to_owned();
        return Err(DatasetError::Problem(Problem { path: out.to_path_buf(), line: None, what }));
    }
    let names = file_names(&leaves.keys().cloned().collect());
    let mut files: BTreeMap<String, (PathBuf, AtomicFile)> = BTreeMap::new();
    let mut tasks = Vec::new();
    for (leaf, &count) in &leaves {
        let Some(name) = names.get(leaf) else { continue };
        let data = out.join(format!("mmlubench_{name}.jsonl"));
        let task = out.join(format!("{name}_task.yaml"));
        let text = task_yaml(name, &data).map_err(|error| DatasetError::table(&task, &error))?;
        write_atomically(&task, |out| out.write_all(text.as_bytes())).map_err(DatasetError::file("write", &task))?;
        let file = AtomicFile::create(&data).map_err(DatasetError::file("write", &data))?;
        files.insert(leaf.clone(), (data, file));
        tasks.push(BranchTask { name: name.clone(), leaf: leaf.clone(), questions: count });
    }
    for row in questions() {
        let (row, MultipleChoice { question, choices, answer }) = row?;
        let Some((path, file)) = files.get_mut(&row.leaf) else { continue };
        let line = json!({
            "question": question,
            "choices": choices,
            "answer": answer,
            "subject": row.domain.as_deref().unwrap_or(&row.leaf),
            "dataset_type": "mcq_qa",
            "id": row.id,
        });
        writeln!(file, "{line}").map_err(DatasetError::file("write", path))?;
    }
    for (path, file) in files.into_values() {
        file.commit().map_err(DatasetError::file("write", &path))?;
    }
    Ok(tasks)
}

/// The task as `InstructLab` words it, so that figures compare.
fn task_yaml(name: &str, data: &Path) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&json!({
        "task": name,
        "tag": "mmlu_pr",
        "dataset_path": "json",
        "dataset_name": null,
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
        "doc_to_choice": "{{[choices[0], choices[1], choices[2], choices[3]]}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": true}],
    }))
}
