//! Public benchmarks from files: JSON lines with a query and choices (ARC, PIQA, `OpenBookQA`, COPA) and MMLU's CSV.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::EvalError;
use crate::task::{Generation, Item, ItemPrompt, Task};

#[derive(Deserialize)]
struct ChoiceLine {
    query: String,
    choices: Vec<String>,
    gold: usize,
}

/// A task from JSON lines `{"query": ..., "choices": [...], "gold": 0}`, zero-shot.
///
/// A query that starts with `Question:` and does not end with `Answer:` gets that as its last line; any other is taken as it is.
/// Choices follow after one space, as in lm-eval.
pub fn read_choices(path: &Path, name: &str) -> Result<Task, EvalError> {
    let text = std::fs::read_to_string(path).map_err(EvalError::file(path, "read the benchmark"))?;
    let mut items = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let problem = |problem: String| EvalError::Line { path: path.to_owned(), line: index + 1, problem };
        let expected = "expected {\"query\": text, \"choices\": [texts], \"gold\": index}";
        let doc: Value = serde_json::from_str(line).map_err(|error| problem(format!("{error}; {expected}")))?;
        let parsed = ChoiceLine::deserialize(&doc).map_err(|error| problem(format!("{error}; {expected}")))?;
        if parsed.choices.iter().any(String::is_empty) {
            return Err(problem("a choice is empty; every choice needs a text".to_owned()));
        }
        let Some(answer) = parsed.choices.get(parsed.gold).cloned() else {
            return Err(problem(format!(
                "gold is {}, but there are {} choices, counted from 0",
                parsed.gold,
                parsed.choices.len()
            )));
        };
        items.push(Item {
            id: format!("{name}#{}", index + 1),
            prompt: ItemPrompt::Text(with_answer_line(&parsed.query)),
            choices: parsed.choices,
            gold: parsed.gold,
            answer,
            doc,
            test: None,
        });
    }
    Ok(Task { name: name.to_owned(), items, generation: Generation::default(), few_shot: 0 })
}

fn with_answer_line(query: &str) -> String {
    if !query.starts_with("Question:") || query.trim_end().ends_with("Answer:") {
        return query.to_owned();
    }
    let newline = if query.ends_with('\n') { "" } else { "\n" };
    [query, newline, "Answer:"].concat()
}

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

struct MmluQuestion {
    question: String,
    choices: Vec<String>,
    gold: usize,
}

/// One subject of MMLU from CSV files with the header `question,choice0,choice1,choice2,choice3,answer` (answer 0 to 3), with the
/// first `few_shot` questions of `examples` solved before each; the prompt of lm-eval's `mmlu` tasks.
pub fn read_mmlu(test: &Path, examples: Option<&Path>, subject: &str, few_shot: usize) -> Result<Task, EvalError> {
    let name = format!("mmlu_{subject}");
    let solved = examples.map(read_mmlu_questions).transpose()?.unwrap_or_default();
    if solved.len() < few_shot {
        let problem = format!("{few_shot} examples were asked for, but there are {}; ask for fewer", solved.len());
        return Err(EvalError::Task { task: name, problem });
    }
    let mut head =
        format!("The following are multiple choice questions (with answers) about {}.\n\n", subject.replace('_', " "));
    for example in &solved[..few_shot] {
        head.push_str(&[&mmlu_prompt(example), " ", LETTERS[example.gold], "\n\n"].concat());
    }
    let items = read_mmlu_questions(test)?
        .into_iter()
        .enumerate()
        .map(|(index, question)| Item {
            id: format!("{name}#{}", index + 1),
            prompt: ItemPrompt::Text([head.as_str(), &mmlu_prompt(&question)].concat()),
            choices: LETTERS.map(str::to_owned).to_vec(),
            gold: question.gold,
            answer: LETTERS[question.gold].to_owned(),
            doc: json!({"question": question.question, "subject": subject, "choices": question.choices, "answer": question.gold}),
            test: None,
        })
        .collect();
    Ok(Task { name, items, generation: Generation::default(), few_shot })
}

fn mmlu_prompt(question: &MmluQuestion) -> String {
    let mut prompt = format!("{}\n", question.question.trim());
    for (letter, choice) in LETTERS.iter().zip(&question.choices) {
        prompt.push_str(&[letter, ". ", choice, "\n"].concat());
    }
    prompt.push_str("Answer:");
    prompt
}

fn read_mmlu_questions(path: &Path) -> Result<Vec<MmluQuestion>, EvalError> {
    let text = std::fs::read_to_string(path).map_err(EvalError::file(path, "read the benchmark"))?;
    let mut questions = Vec::new();
    for (line, fields) in csv_records(&text) {
        if line == 1 && fields.first().is_some_and(|field| field == "question") {
            continue;
        }
        let problem = |problem: String| EvalError::Line { path: path.to_owned(), line, problem };
        let Ok([question, a, b, c, d, answer]) = <[String; 6]>::try_from(fields) else {
            return Err(problem("expected six fields: question,choice0,choice1,choice2,choice3,answer".to_owned()));
        };
        let gold = match answer.trim() {
            "0" | "A" => 0,
            "1" | "B" => 1,
            "2" | "C" => 2,
            "3" | "D" => 3,
            other => {
                return Err(problem(format!("the answer is {other:?}, expected 0 to 3 or A to D")));
            }
        };
        questions.push(MmluQuestion { question, choices: vec![a, b, c, d], gold });
    }
    Ok(questions)
}

/// Records of a CSV text (RFC 4180: quoted fields may hold commas, line ends and doubled quotes), each with its first line from 1.
fn csv_records(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut records = Vec::new();
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let (mut line, mut first_line) = (1, 1);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        line += usize::from(character == '\n');
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                if !(fields.is_empty() && field.is_empty()) {
                    fields.push(std::mem::take(&mut field));
                    records.push((first_line, std::mem::take(&mut fields)));
                }
                first_line = line;
            }
            _ => field.push(character),
        }
    }
    if !(fields.is_empty() && field.is_empty()) {
        fields.push(field);
        records.push((first_line, fields));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_with_choices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arc.jsonl");
        std::fs::write(
            &path,
            "{\"query\": \"Question: Q?\", \"choices\": [\"x\", \"y\"], \"gold\": 1}\n\n{\"query\": \"So\", \"choices\": [\"x\"], \"gold\": 0, \"more\": 1}\n",
        )
        .unwrap();
        let task = read_choices(&path, "arc").unwrap();
        assert_eq!(task.items[0].prompt, ItemPrompt::Text("Question: Q?\nAnswer:".into()));
        assert_eq!((task.items[0].gold, task.items[0].answer.as_str()), (1, "y"));
        assert_eq!(task.items[1].prompt, ItemPrompt::Text("So".into()));
        assert_eq!(task.items[1].id, "arc#3");
        assert_eq!(with_answer_line("Question: Q\n"), "Question: Q\nAnswer:");
        assert_eq!(with_answer_line("Question: Q\nAnswer:"), "Question: Q\nAnswer:");
        std::fs::write(&path, "{\"query\": \"Q\", \"choices\": [\"x\"], \"gold\": 3}").unwrap();
        assert!(read_choices(&path, "arc").unwrap_err().to_string().contains("arc.jsonl:1: gold is 3"));
    }

    #[test]
    fn mmlu_with_an_example() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.csv");
        std::fs::write(
            &path,
            "question,choice0,choice1,choice2,choice3,answer\n\"A \"\"b\"\", c\nd? \",1,2,\"3,0\",4,2\nQ,w,x,y,z,0",
        )
        .unwrap();
        let task = read_mmlu(&path, Some(&path), "abstract_algebra", 1).unwrap();
        assert_eq!(
            task.items[1].prompt,
            ItemPrompt::Text(
                "The following are multiple choice questions (with answers) about abstract algebra.\n\n\
                 A \"b\", c\nd?\nA. 1\nB. 2\nC. 3,0\nD. 4\nAnswer: C\n\nQ\nA. w\nB. x\nC. y\nD. z\nAnswer:"
                    .into()
            )
        );
        assert_eq!((task.items[0].gold, task.items[0].answer.as_str()), (2, "C"));
        std::fs::write(&path, "h\nQ,w,x,y,z,7").unwrap();
        assert!(read_mmlu(&path, None, "s", 0).unwrap_err().to_string().contains("dev.csv:1: expected six fields"));
        assert!(read_mmlu(&path, None, "s", 1).is_err());
    }
}
