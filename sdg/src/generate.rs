//! Asks the teacher, checks what it wrote, and keeps every row with its reason.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use espalier_dataset::{Journal, Row, Turn, Verdict, normalized};
use espalier_inference::{Answer, Engine, EngineError, Prompt, Request, Sampling};
use espalier_taxonomy::{Leaf, Tree};

use crate::config::GenerateConfig;
use crate::error::SdgError;
use crate::held_out::HeldOut;
use crate::identity::{digest, hexadecimal, number};
use crate::plan::{Flow, Job, plan};
use crate::verify::{CheckOutcome, Verifier};

/// Whatever answers requests: gets them all, hands over answers in any order; `Break` ends the call.
pub type Answerer<'a> = &'a mut dyn FnMut(
    &[Request],
    &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
) -> Result<(), EngineError>;

/// What happens while rows are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerateEvent {
    /// Rows done so far in a leaf.
    Progress {
        /// The leaf.
        leaf: String,
        /// Rows that are finished.
        done: u64,
        /// Rows wanted.
        total: u64,
        /// Rows that passed their checks.
        accepted: u64,
    },
    /// Something worth knowing.
    Note {
        /// The leaf.
        leaf: String,
        /// The message.
        message: String,
    },
    /// A leaf gave no row that can be used.
    Empty {
        /// The leaf.
        leaf: String,
        /// Why, and what to do.
        message: String,
    },
}

/// Makes the rows of a tree. Rows that the journal holds are not made again; the result is the same for any interruption.
///
/// # Errors
/// See [`SdgError`]; everything that was finished is in the journal.
pub fn generate(
    tree: &Tree,
    config: &GenerateConfig,
    engine: &Engine,
    count_tokens: &dyn Fn(&str) -> usize,
    journal: &mut Journal,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(GenerateEvent),
) -> Result<Vec<Row>, SdgError> {
    let identity = engine.identity().to_owned();
    let answer: Answerer<'_> = &mut |requests, on_answer| engine.generate(requests, on_answer);
    generate_with(tree, config, &identity, count_tokens, journal, stop, answer, on_event)
}

/// As [`generate`], with whatever answers: `identity` stands in the rows.
///
/// # Errors
/// As [`generate`].
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different side of one call: what, with what, where to, and who hears of it"
)]
pub fn generate_with(
    tree: &Tree,
    config: &GenerateConfig,
    identity: &str,
    count_tokens: &dyn Fn(&str) -> usize,
    journal: &mut Journal,
    stop: &AtomicBool,
    answer: Answerer<'_>,
    on_event: &mut dyn FnMut(GenerateEvent),
) -> Result<Vec<Row>, SdgError> {
    let jobs = plan(tree, config, count_tokens)?;
    let mut rows = Vec::new();
    for leaf in &tree.leaves {
        let mut work = LeafWork {
            leaf,
            verifier: Verifier::new(leaf)?,
            held_out: HeldOut::of_leaf(tree, &leaf.id),
            config,
            identity,
            total: jobs.iter().filter(|job| job.leaf == leaf.id).count(),
            done: journal
                .rows()
                .iter()
                .filter(|row| row.leaf == leaf.id)
                .map(|row| (row.id.clone(), row.clone()))
                .collect(),
        };
        work.run(&jobs, journal, stop, &mut *answer, on_event)?;
        let mut made: Vec<Row> = jobs.iter().filter_map(|job| work.done.remove(&job.id)).collect();
        report_empty(leaf, &made, on_event);
        rows.append(&mut made);
    }
    rows.sort_by(|a, b| (&a.leaf, a.index).cmp(&(&b.leaf, b.index)));
    Ok(rows)
}

struct LeafWork<'a> {
    leaf: &'a Leaf,
    verifier: Verifier,
    held_out: HeldOut,
    config: &'a GenerateConfig,
    identity: &'a str,
    total: usize,
    done: HashMap<String, Row>,
}

impl LeafWork<'_> {
    fn run(
        &mut self,
        jobs: &[Job],
        journal: &mut Journal,
        stop: &AtomicBool,
        answer: Answerer<'_>,
        on_event: &mut dyn FnMut(GenerateEvent),
    ) -> Result<(), SdgError> {
        let mut waiting: Vec<&Job> =
            jobs.iter().filter(|job| job.leaf == self.leaf.id && !self.done.contains_key(&job.id)).collect();
        for job in waiting.iter().filter(|job| job.answer.is_some()) {
            let row = self.judged(job, job.answer.as_deref().unwrap_or_default(), 0)?;
            journal.append(&row)?;
            self.done.insert(row.id.clone(), row);
        }
        waiting.retain(|job| job.answer.is_none());
        for attempt in 0..=self.config.retries {
            let last = attempt == self.config.retries;
            let requests: Vec<Request> = waiting.iter().map(|job| self.request(job, attempt)).collect();
            let mut rejected: Vec<&Job> = Vec::new();
            let mut failure = None;
            let mut interrupted = false;
            answer(&requests, &mut |index, text| {
                let job = waiting[index];
                let step = text.map_err(SdgError::from).and_then(|text| {
                    let row = self.judged(job, &text.text, attempt)?;
                    if row.verdict == Verdict::Rejected && !last {
                        rejected.push(job);
                        return Ok(());
                    }
                    journal.append(&row)?;
                    self.done.insert(row.id.clone(), row);
                    Ok(())
                });
                if let Err(error) = step {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
                on_event(self.progress());
                interrupted = stop.load(Ordering::Relaxed);
                if interrupted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if let Some(error) = failure {
                return Err(error);
            }
            if interrupted {
                return Err(SdgError::Interrupted { done: self.done.len(), total: self.total });
            }
            // Order of arrival must not decide the order of the next requests.
            rejected.sort_by_key(|job| job.index);
            waiting = rejected;
            if waiting.is_empty() {
                break;
            }
        }
        on_event(self.progress());
        Ok(())
    }

    fn progress(&self) -> GenerateEvent {
        let accepted = self.done.values().filter(|row| row.verdict == Verdict::Accepted).count();
        GenerateEvent::Progress {
            leaf: self.leaf.id.clone(),
            done: self.done.len() as u64,
            total: self.total as u64,
            accepted: accepted as u64,
        }
    }

    /// The first try of a known question takes the likeliest tokens; invented ones need chance to differ from each other.
    fn request(&self, job: &Job, attempt: usize) -> Request {
        let invented = matches!(job.flow, Flow::Invented | Flow::Document);
        let temperature =
            if attempt == 0 && !invented { self.config.temperature } else { self.config.retry_temperature };
        Request {
            sampling: Sampling { temperature, ..Sampling::GREEDY },
            seed: sampling_seed(job, attempt),
            ..Request::new(Prompt::Chat(job.prompt.clone()), self.config.max_tokens)
        }
    }

    fn judged(&self, job: &Job, text: &str, attempt: usize) -> Result<Row, SdgError> {
        let (question, answer) = match &job.question {
            Some(question) => (question.clone(), text.trim().to_owned()),
            None => read_pair(text),
        };
        let outcome = self.check(job, &question, &answer)?;
        let answer = outcome.canonical.clone().unwrap_or(answer);
        let prompt: String = job.prompt.iter().map(|turn| format!("{}\u{0}{}\u{0}", turn.role, turn.content)).collect();
        Ok(Row {
            id: job.id.clone(),
            leaf: job.leaf.clone(),
            kind: self.leaf.kind.name().to_owned(),
            index: job.index,
            turns: vec![Turn::new("user", question), Turn::new("assistant", answer)],
            slots: serde_json::to_string(&job.slots).unwrap_or_else(|_| "{}".to_owned()),
            seed_ids: job.seed_ids.clone(),
            document: job.document.clone(),
            flow: job.flow.name().to_owned(),
            prompt_hash: hexadecimal(&digest(&[prompt.as_bytes()])),
            model: if job.answer.is_some() { "none".to_owned() } else { self.identity.to_owned() },
            sampling_seed: sampling_seed(job, attempt),
            answer: text.to_owned(),
            verdict: if outcome.passed { Verdict::Accepted } else { Verdict::Rejected },
            reason: outcome.reason,
            license: self.leaf.license.clone(),
        })
    }

    fn check(&self, job: &Job, question: &str, answer: &str) -> Result<CheckOutcome, SdgError> {
        if self.held_out.question(None, question) || self.held_out.question(job.context.as_deref(), question) {
            return Ok(CheckOutcome::failed("held-out question", ""));
        }
        match job.flow {
            Flow::Template => self.verifier.check(self.leaf, &job.slots, question, answer),
            Flow::Seed | Flow::Passage => Ok(CheckOutcome::passed("given")),
            Flow::Invented => match self.readable(question, answer) {
                Some(refused) => Ok(refused),
                None => self.verifier.check(self.leaf, &BTreeMap::new(), question, answer),
            },
            Flow::Document => Ok(match self.readable(question, answer) {
                Some(refused) => refused,
                None if !question.trim_end().ends_with('?') => CheckOutcome::failed("not a question", question),
                None => supported(answer, job.context.as_deref().unwrap_or_default()),
            }),
        }
    }

    /// What every written pair must be: there, not endless, not a seed again, not a refusal.
    fn readable(&self, question: &str, answer: &str) -> Option<CheckOutcome> {
        const REFUSALS: [&str; 4] = ["as an ai", "i'm sorry", "i am sorry", "i cannot"];
        if question.trim().len() < 8 || answer.trim().is_empty() {
            return Some(CheckOutcome::failed("no question and answer", ""));
        }
        if question.len() > 600 {
            return Some(CheckOutcome::failed("question too long", ""));
        }
        let lower = answer.to_lowercase();
        if REFUSALS.iter().any(|refusal| lower.contains(refusal)) {
            return Some(CheckOutcome::failed("refusal", ""));
        }
        let asked = normalized(question);
        let copied = self.leaf.seeds.iter().any(|seed| normalized(&seed.question) == asked);
        copied.then(|| CheckOutcome::failed("copy of a seed", ""))
    }
}

fn sampling_seed(job: &Job, attempt: usize) -> u64 {
    number(&[b"sampling", job.id.as_bytes(), &attempt.to_le_bytes()])
}

/// The first `Question:` and `Answer:` of a text; empty where there is none.
fn read_pair(text: &str) -> (String, String) {
    let Some((_, rest)) = text.split_once("Question:") else { return (String::new(), String::new()) };
    let Some((question, answer)) = rest.split_once("Answer:") else { return (String::new(), String::new()) };
    let answer = answer.split("Question:").next().unwrap_or(answer);
    let answer = answer.split("\n\n").find(|part| !part.trim().is_empty()).unwrap_or_default();
    (question.trim().to_owned(), answer.trim().to_owned())
}

/// The share of an answer's content words that its text must hold.
const SUPPORT: f64 = 0.8;

/// Words of four letters and more, and numbers, carry an answer's claims.
fn supported(answer: &str, context: &str) -> CheckOutcome {
    let words = |text: &str| -> Vec<String> {
        normalized(text)
            .split_whitespace()
            .filter(|word| word.chars().count() >= 4 || word.chars().any(|letter| letter.is_ascii_digit()))
            .map(str::to_owned)
            .collect()
    };
    let known: HashSet<String> = words(context).into_iter().collect();
    let said = words(answer);
    let found = said.iter().filter(|word| known.contains(*word)).count();
    if said.is_empty() || (found as f64) < SUPPORT * said.len() as f64 {
        return CheckOutcome::failed("not supported by the text", &format!("{found} of {} words", said.len()));
    }
    CheckOutcome::passed("supported by the text")
}

fn report_empty(leaf: &Leaf, rows: &[Row], on_event: &mut dyn FnMut(GenerateEvent)) {
    if rows.iter().any(|row| row.verdict == Verdict::Accepted) {
        return;
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *reasons.entry(row.reason_category()).or_default() += 1;
    }
    let list: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    on_event(GenerateEvent::Empty {
        leaf: leaf.id.clone(),
        message: format!(
            "none of {} rows passed ({}); give more seeds, loosen the check or take a stronger teacher",
            rows.len(),
            list.join(", ")
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_inference::Finish;

    #[test]
    fn pairs_are_read_from_what_a_model_writes() {
        let text = "Question: How deep is it?\nAnswer: It is 40 centimetres deep.\n\nQuestion: x";
        assert_eq!(read_pair(text), ("How deep is it?".into(), "It is 40 centimetres deep.".into()));
        assert_eq!(read_pair("no form at all"), (String::new(), String::new()));
    }

    #[test]
    fn an_answer_must_rest_on_its_text() {
        let text = "The wires are 40 centimetres apart.";
        assert!(supported("It is 40 centimetres apart.", text).passed);
        assert!(!supported("They are 50 metres apart.", text).passed);
        assert!(!supported("", text).passed);
    }

    /// A scripted teacher that is right about even days, and counts what it is asked.
    fn run(journal: &mut Journal, stop_after: usize) -> Result<(Vec<Row>, Vec<String>), SdgError> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../taxonomy/examples/quickstart/skills");
        let mut tree = espalier_taxonomy::read_tree(path.as_ref()).expect("the quickstart is good");
        tree.leaves[0].samples = Some(20);
        let stop = AtomicBool::new(false);
        let mut asked = Vec::new();
        let answer: Answerer<'_> = &mut |requests, on_answer| {
            for (index, request) in requests.iter().enumerate().rev() {
                let Prompt::Chat(turns) = &request.prompt else { continue };
                asked.extend(turns.iter().map(|turn| turn.content.clone()));
                stop.store(asked.len() >= stop_after, Ordering::Relaxed);
                let text = if request.seed % 2 == 0 { "1999-01-01" } else { "no idea" };
                let answer = Answer {
                    text: text.into(),
                    tokens: vec![],
                    finish: Finish::Stop,
                    logprobs: vec![],
                    prompt_tokens: 0,
                };
                if on_answer(index, Ok(answer)).is_break() {
                    break;
                }
            }
            Ok(())
        };
        let config = GenerateConfig::default();
        let rows = generate_with(&tree, &config, "scripted", &|text| text.len(), journal, &stop, answer, &mut |_| {})?;
        Ok((rows, asked))
    }

    #[test]
    fn an_interrupted_generation_ends_with_the_same_rows_and_no_test_question_leaks()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (whole, asked) = run(&mut Journal::open(&folder.path().join("whole.jsonl"))?, usize::MAX)?;
        assert_eq!(whole.len(), 20);
        let path = folder.path().join("cut.jsonl");
        for stop_after in [1, 40, 90, 160] {
            let _ = run(&mut Journal::open(&path)?, stop_after);
        }
        let (resumed, _) = run(&mut Journal::open(&path)?, usize::MAX)?;
        assert_eq!(whole, resumed);
        let tree = espalier_taxonomy::read_tree(
            concat!(env!("CARGO_MANIFEST_DIR"), "/../taxonomy/examples/quickstart/skills").as_ref(),
        )
        .map_err(|errors| format!("{errors:?}"))?;
        let held: HashSet<&str> = tree.leaves[0].test.iter().map(|item| item.question.as_str()).collect();
        assert!(asked.iter().all(|text| !held.contains(text.as_str())));
        Ok(())
    }
}
