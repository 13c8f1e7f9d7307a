//! Evaluating a task: what is done already, what is left, what the answers are worth.

use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::Engine;
use espalier_taxonomy::TestItem;

use crate::ask::ask_items;
use crate::error::EvalError;
use crate::evaluation::{Evaluation, ItemResult, doc_hash, sha256};
use crate::journal::{Header, Journal};
use crate::scoring::Checker;
use crate::task::{Item, Task};

/// Decides whether a response to a held-out item is right.
pub type Verifier<'a> = &'a dyn Fn(&TestItem, &str) -> bool;

/// How a task is evaluated.
#[derive(Clone, Copy, Default)]
pub struct EvaluationOptions<'a> {
    /// What the model is called in results: `base`, `tuned`, `Q4_K_M`.
    pub model: &'a str,
    /// Where finished items are kept, so that an interrupted run goes on. The folder must exist.
    pub journal: Option<&'a Path>,
    /// Decides for items of a leaf when the checker is [`Checker::Verify`].
    pub verify: Option<Verifier<'a>>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Items with a result, those of an earlier run included.
    pub done: usize,
    /// Items of the task.
    pub total: usize,
    /// Right items among them.
    pub correct: usize,
}

/// What an engine says to an item.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemAnswer {
    /// The generated text.
    Text(String),
    /// Sum of the natural log-probabilities of each choice, in order.
    Logprobs(Vec<f64>),
    /// Why there is no answer: the item counts as wrong.
    Failed(String),
}

/// Hands an answer for the item at an index of the slice; `Break` asks to stop.
pub type OnAnswer<'a> = &'a mut dyn FnMut(usize, ItemAnswer) -> ControlFlow<()>;

/// Gets the items without a result and hands over an answer for each, in any order.
pub type Answerer<'a> = &'a mut dyn FnMut(&[&Item], OnAnswer<'_>) -> Result<(), EvalError>;

/// Evaluates one engine on one task. Answers are greedy; choices are compared by log-likelihood, which only a local model gives.
///
/// `on_progress` hears of every finished item; `Break` ends the run with [`EvalError::Interrupted`], and the journal keeps what is
/// done. Items that the engine cannot answer (a prompt beyond the context) count as wrong and say why; a server that fails ends
/// the run with its error.
pub fn evaluate(
    engine: &Engine,
    task: &Task,
    options: &EvaluationOptions<'_>,
    on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Evaluation, EvalError> {
    evaluate_with(
        engine.identity(),
        task,
        options,
        &mut |items, on_answer| ask_items(engine, task, items, on_answer),
        on_progress,
    )
}

/// Evaluates whatever answers: `answer` gets the items without a result and hands over an answer for each, in any order.
/// `identity` says what answers; a journal is not continued by another.
pub fn evaluate_with(
    identity: &str,
    task: &Task,
    options: &EvaluationOptions<'_>,
    answer: Answerer<'_>,
    on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Evaluation, EvalError> {
    let mut results: Vec<Option<ItemResult>> = vec![None; task.items.len()];
    let mut journal = None;
    if let Some(path) = options.journal {
        let (opened, finished) = Journal::open(path, &Header::new(task, identity))?;
        for result in finished {
            let index = result.index;
            if let Some(place) = results.get_mut(index) {
                *place = Some(result);
            }
        }
        journal = Some(opened);
    }
    let mut progress = Progress {
        done: results.iter().flatten().count(),
        total: task.items.len(),
        correct: results.iter().flatten().filter(|result| result.correct).count(),
    };
    let pending: Vec<usize> = (0..task.items.len()).filter(|&index| results[index].is_none()).collect();
    let items: Vec<&Item> = pending.iter().map(|&index| &task.items[index]).collect();
    let mut failure = None;
    if !items.is_empty() {
        if on_progress(progress).is_break() {
            return Err(EvalError::Interrupted { done: progress.done, total: progress.total });
        }
        answer(&items, &mut |at, answer| {
            let Some(&index) = pending.get(at).filter(|&&index| results[index].is_none()) else {
                return ControlFlow::Continue(());
            };
            let result = score(task, index, answer, options.verify);
            if let Some(journal) = &mut journal
                && let Err(error) = journal.append(&result)
            {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            progress.done += 1;
            progress.correct += usize::from(result.correct);
            results[index] = Some(result);
            let flow = on_progress(progress);
            if flow.is_break() && progress.done < progress.total {
                failure = Some(EvalError::Interrupted { done: progress.done, total: progress.total });
            }
            flow
        })?;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let finished: Vec<ItemResult> = results.into_iter().flatten().collect();
    if finished.len() < task.items.len() {
        let missing = task.items.len() - finished.len();
        return Err(EvalError::Unanswered { task: task.name.clone(), missing, total: task.items.len() });
    }
    Ok(Evaluation::new(task, options.model, finished))
}

/// The result of an item.
fn score(task: &Task, index: usize, answer: ItemAnswer, verify: Option<Verifier<'_>>) -> ItemResult {
    let item = &task.items[index];
    let prompt = item.prompt.as_text();
    let choices = !item.choices.is_empty();
    let target = if choices { item.gold.to_string() } else { item.answer.clone() };
    let mut result = ItemResult {
        id: item.id.clone(),
        index,
        doc_hash: doc_hash(item),
        prompt_hash: sha256(&prompt),
        target_hash: sha256(&target),
        target,
        doc: item.doc.clone(),
        prompt,
        response: String::new(),
        extracted: String::new(),
        continuations: item.choices.iter().map(|choice| [item.prompt.delimiter(), choice].concat()).collect(),
        logprobs: Vec::new(),
        correct: false,
        correct_normalized: choices.then_some(false),
        score: 0.0,
        error: None,
    };
    match answer {
        ItemAnswer::Text(text) => {
            let checker = task.generation.checker;
            result.correct = match (checker, verify, &item.test) {
                (Checker::Verify, Some(verify), Some(test)) => verify(test, &text),
                _ => checker.is_correct(&text, &item.answer),
            };
            result.extracted = checker.extract(&text);
            result.response = text;
        }
        ItemAnswer::Logprobs(logprobs) => {
            let characters = item.choices.iter().map(|choice| choice.chars().count().max(1) as f64);
            let per_character: Vec<f64> =
                logprobs.iter().zip(characters).map(|(logprob, count)| logprob / count).collect();
            let likeliest = first_greatest(&logprobs);
            result.correct = likeliest == Some(item.gold);
            result.correct_normalized = Some(first_greatest(&per_character) == Some(item.gold));
            if let Some(choice) = likeliest.and_then(|at| item.choices.get(at)) {
                result.response.clone_from(choice);
                result.extracted.clone_from(choice);
            }
            result.logprobs = logprobs;
        }
        ItemAnswer::Failed(reason) => result.error = Some(reason),
    }
    result.score = f64::from(u8::from(result.correct));
    result
}

/// The index of the greatest value, the first among equals.
pub(crate) fn first_greatest(values: &[f64]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, value) in values.iter().enumerate() {
        if best.is_none_or(|best| *value > values[best]) {
            best = Some(index);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{Generation, ItemPrompt};

    fn task() -> Task {
        let item = |index: usize, choices: &[&str]| Item {
            id: format!("t#{index}"),
            prompt: ItemPrompt::Text(format!("Q{index}")),
            choices: choices.iter().map(ToString::to_string).collect(),
            gold: 1,
            answer: format!("A{index}"),
            doc: json!({"q": index}),
            test: Some(TestItem { question: format!("Q{index}"), ..TestItem::default() }),
        };
        Task {
            name: "t".into(),
            items: vec![item(0, &["x", "yyyy"]), item(1, &[]), item(2, &[]), item(3, &[])],
            generation: Generation::default(),
            few_shot: 0,
        }
    }

    fn answer_of(item: &Item) -> ItemAnswer {
        match item.id.as_str() {
            "t#0" => ItemAnswer::Logprobs(vec![-1.0, -2.0]),
            "t#1" => ItemAnswer::Text(" a1. ".into()),
            "t#2" => ItemAnswer::Failed("too long".into()),
            _ => ItemAnswer::Text("wrong".into()),
        }
    }

    /// Answers backwards, at most `most` items, and counts what it was asked.
    fn run(options: &EvaluationOptions<'_>, most: usize, asked: &mut usize) -> Result<Evaluation, EvalError> {
        evaluate_with(
            "fake",
            &task(),
            options,
            &mut |items, on_answer| {
                for (at, item) in items.iter().enumerate().rev() {
                    *asked += 1;
                    if on_answer(at, answer_of(item)).is_break() {
                        break;
                    }
                }
                Ok(())
            },
            &mut |progress| {
                if progress.done >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )
    }

    #[test]
    fn items_are_scored_in_the_order_of_the_task() {
        let evaluation = run(&EvaluationOptions { model: "base", ..EvaluationOptions::default() }, 9, &mut 0).unwrap();
        let right: Vec<bool> = evaluation.items.iter().map(|item| item.correct).collect();
        assert_eq!(right, [false, true, false, false]);
        // -1 / 1 against -2 / 4 per character
        assert_eq!(evaluation.items[0].correct_normalized, Some(true));
        assert_eq!(evaluation.items[0].response, "x");
        assert_eq!(evaluation.items[0].continuations, [" x", " yyyy"]);
        assert_eq!(evaluation.items[2].error.as_deref(), Some("too long"));
        assert_eq!((evaluation.accuracy, evaluation.failed(), evaluation.accuracy_normalized), (0.25, 1, None));
    }

    #[test]
    fn the_callers_check_decides_when_asked() {
        let mut task = task();
        task.generation.checker = Checker::Verify;
        let verify = |test: &TestItem, response: &str| test.question == "Q3" && response == "wrong";
        let options = EvaluationOptions { verify: Some(&verify), ..EvaluationOptions::default() };
        let result = score(&task, 3, ItemAnswer::Text("wrong".into()), options.verify);
        assert!(result.correct && result.score > 0.5);
        assert!(!score(&task, 1, ItemAnswer::Text("A1".into()), options.verify).correct);
        assert!(score(&task, 1, ItemAnswer::Text("A1".into()), None).correct);
    }

    #[test]
    fn an_interrupted_run_goes_on_and_ends_with_the_same_result() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.journal");
        let options = EvaluationOptions { model: "m", journal: Some(&path), verify: None };
        let unbroken = run(&EvaluationOptions { journal: None, ..options }, 9, &mut 0).unwrap();
        let mut asked = 0;
        let error = run(&options, 2, &mut asked).unwrap_err();
        assert!(matches!(error, EvalError::Interrupted { done: 2, total: 4 }), "{error}");
        // A torn line: killed while writing.
        let mut bytes = std::fs::read(&path).unwrap();
        let complete = bytes.len();
        bytes.extend_from_slice(b"{\"id\": \"t#0\", \"ind");
        std::fs::write(&path, &bytes).unwrap();
        let resumed = run(&options, 9, &mut asked).unwrap();
        assert_eq!(asked, 4);
        assert_eq!(serde_json::to_string(&resumed).unwrap(), serde_json::to_string(&unbroken).unwrap());
        // Whatever byte the kill came at, the result is the same.
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 1, 50, complete - 1, complete, complete + 1, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(run(&options, 9, &mut 0).unwrap(), unbroken, "cut at {length}");
        }
        assert_eq!(run(&options, 9, &mut asked).unwrap(), unbroken);
        assert_eq!(asked, 4, "a finished run asks nothing");
    }

    #[test]
    fn the_journal_of_another_model_or_task_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.journal");
        let options = EvaluationOptions { journal: Some(&path), ..EvaluationOptions::default() };
        run(&options, 9, &mut 0).unwrap();
        let again = |identity: &str, task: &Task| {
            evaluate_with(identity, task, &options, &mut |_, _| Ok(()), &mut |_| ControlFlow::Continue(()))
        };
        assert!(again("fake", &task()).is_ok());
        assert!(again("other", &task()).unwrap_err().to_string().contains("another model (fake, now other)"));
        let mut changed = task();
        changed.items[1].prompt = ItemPrompt::Text("changed".into());
        assert!(again("fake", &changed).unwrap_err().to_string().contains("version of the task"));
        std::fs::write(&path, "not a journal\n").unwrap();
        assert!(again("fake", &task()).unwrap_err().to_string().contains("t.journal:1: not a line"));
    }

    #[test]
    fn items_left_without_an_answer_are_an_error() {
        let error = evaluate_with("x", &task(), &EvaluationOptions::default(), &mut |_, _| Ok(()), &mut |_| {
            ControlFlow::Continue(())
        });
        assert!(error.unwrap_err().to_string().contains("left 4 of 4 items"));
    }

    #[test]
    fn the_first_among_equals_wins() {
        assert_eq!(first_greatest(&[-2.0, -1.0, -1.0]), Some(1));
        assert_eq!(first_greatest(&[f64::NAN, -1.0]), Some(0));
        assert_eq!(first_greatest(&[]), None);
    }
}
