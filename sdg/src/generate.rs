//! Asks the teacher, has its answers judged, and keeps every row with its reason.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use espalier_dataset::{Journal, Row, Turn, Verdict};
use espalier_inference::{Answer, AnswerAll, Engine, EngineError, Prompt, Request, Sampling};
use espalier_taxonomy::{Leaf, LeafKind, Tree};

use crate::config::GenerateConfig;
use crate::conversation;
use crate::error::SdgError;
use crate::identity::{digest, hexadecimal, number};
use crate::judge::{Judge, read_pair};
use crate::plan::{Flow, Job, plan_leaf};
use crate::reward::CheckOutcome;

/// Whatever answers requests.
pub type Answerer<'a> = &'a mut AnswerAll<'a>;

/// What the rows of one leaf are made from.
#[derive(Clone, Copy)]
pub struct LeafGeneration<'a> {
    /// The whole tree: the tests of all its leaves are held out.
    pub tree: &'a Tree,
    /// The leaf.
    pub leaf: &'a Leaf,
    /// What the user chose.
    pub config: &'a GenerateConfig,
    /// Counts the tokens of a text, for the length of chunks.
    pub count_tokens: &'a dyn Fn(&str) -> usize,
    /// Set from outside to stop at the next answer.
    pub stop: &'a AtomicBool,
}

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
    /// A leaf gives fewer rows than it was asked for.
    Note {
        /// The leaf.
        leaf: String,
        /// How many, and why.
        message: String,
    },
    /// The teacher gave a leaf no row that can be used.
    Empty {
        /// The leaf.
        leaf: String,
        /// Why, and what to do.
        message: String,
    },
}

/// Makes the rows of a leaf. Rows that the journal holds are not made again; the result is the same for any interruption.
///
/// # Errors
/// See [`SdgError`]; everything that was finished is in the journal.
pub fn generate(
    generation: &LeafGeneration<'_>,
    engine: &Engine,
    journal: &mut Journal,
    on_event: &mut dyn FnMut(GenerateEvent),
) -> Result<Vec<Row>, SdgError> {
    let identity = engine.identity().to_owned();
    let answer: Answerer<'_> = &mut |requests, on_answer| engine.generate(requests, on_answer);
    generate_with(generation, &identity, answer, journal, on_event)
}

/// As [`generate()`], with whatever answers: `identity` stands in the rows.
///
/// # Errors
/// As [`generate()`].
pub fn generate_with(
    generation: &LeafGeneration<'_>,
    identity: &str,
    answer: Answerer<'_>,
    journal: &mut Journal,
    on_event: &mut dyn FnMut(GenerateEvent),
) -> Result<Vec<Row>, SdgError> {
    let LeafGeneration { tree, leaf, config, count_tokens, stop } = *generation;
    let jobs = plan_leaf(tree, leaf, config, count_tokens)?;
    if let Some(message) = shortfall(leaf, config, &jobs) {
        on_event(GenerateEvent::Note { leaf: leaf.id.clone(), message });
    }
    let done = journal.rows().iter().filter(|row| row.leaf == leaf.id);
    let mut work = LeafWork {
        leaf,
        judge: Judge::new(tree, leaf)?,
        config,
        identity,
        total: jobs.len(),
        done: done.map(|row| (row.id.clone(), row.clone())).collect(),
    };
    work.run(&jobs, journal, stop, answer, on_event)?;
    let made: Vec<Row> = jobs.iter().filter_map(|job| work.done.remove(&job.id)).collect();
    if let Some(message) = empty(&jobs, &made) {
        on_event(GenerateEvent::Empty { leaf: leaf.id.clone(), message });
    }
    Ok(made)
}

struct LeafWork<'a> {
    leaf: &'a Leaf,
    judge: Judge<'a>,
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
        let mut waiting: Vec<&Job> = jobs.iter().filter(|job| !self.done.contains_key(&job.id)).collect();
        for job in &waiting {
            if let Some(given) = &job.answer {
                let row = self.written(job, given, 0)?;
                self.keep(row, journal)?;
            }
        }
        waiting.retain(|job| job.answer.is_none());
        for attempt in 0..=self.config.retries {
            let last = attempt == self.config.retries;
            let requests: Vec<Request> = waiting.iter().map(|job| self.request(job, attempt)).collect();
            let mut rejected: Vec<&Job> = Vec::new();
            let (mut answered, mut interrupted) = (0, false);
            let mut failure = None;
            answer(&requests, &mut |index, reply| {
                let job = waiting[index];
                answered += 1;
                let step = self.row(job, reply, attempt).and_then(|row| {
                    if row.verdict == Verdict::Rejected && !last {
                        rejected.push(job);
                        return Ok(());
                    }
                    self.keep(row, journal)
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
            if answered < requests.len() {
                return Err(SdgError::Unanswered { missing: requests.len() - answered, asked: requests.len() });
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

    fn keep(&mut self, row: Row, journal: &mut Journal) -> Result<(), SdgError> {
        journal.append(&row)?;
        self.done.insert(row.id.clone(), row);
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
        let invented = matches!(job.flow, Flow::Invented | Flow::Grounded | Flow::Document);
        let temperature =
            if attempt == 0 && !invented { self.config.temperature } else { self.config.retry_temperature };
        Request {
            sampling: Sampling { temperature, ..Sampling::GREEDY },
            seed: sampling_seed(job, attempt),
            ..Request::new(Prompt::Chat(job.ask(attempt).prompt.clone()), self.config.max_tokens)
        }
    }

    /// A prompt that is too long is the fault of one row; whatever else an engine says stops the run.
    fn row(&self, job: &Job, reply: Result<Answer, EngineError>, attempt: usize) -> Result<Row, SdgError> {
        match reply {
            Ok(answer) => self.written(job, &answer.text, attempt),
            Err(error) if error.is_prompt_too_long() => {
                let question = job.question.clone().unwrap_or_default();
                let outcome = CheckOutcome::failed("prompt too long", &error.to_string());
                Ok(self.judged(job, [question, String::new()], "", outcome, attempt))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The row of a text that a teacher wrote, or that was given.
    fn written(&self, job: &Job, text: &str, attempt: usize) -> Result<Row, SdgError> {
        let (question, answer) = match &job.question {
            Some(question) => (question.clone(), text.trim().to_owned()),
            None => read_pair(text),
        };
        let outcome = self.judge.check(job, &question, &answer)?;
        Ok(self.judged(job, [question, answer], text, outcome, attempt))
    }

    fn judged(&self, job: &Job, pair: [String; 2], text: &str, outcome: CheckOutcome, attempt: usize) -> Row {
        let [question, answer] = pair;
        let answer = outcome.canonical.unwrap_or(answer);
        // What is no conversation was refused, and is kept as it was written.
        let turns = conversation::turns(self.leaf, &question, &answer)
            .unwrap_or_else(|_| vec![Turn::new("user", question), Turn::new("assistant", answer)]);
        let ask = job.ask(attempt);
        let prompt: String = ask.prompt.iter().map(|turn| format!("{}\u{0}{}\u{0}", turn.role, turn.content)).collect();
        Row {
            id: job.id.clone(),
            leaf: job.leaf.clone(),
            kind: self.leaf.kind.name().to_owned(),
            index: job.index,
            turns,
            slots: serde_json::to_string(&job.slots).unwrap_or_else(|_| "{}".to_owned()),
            seed_ids: ask.seed_ids.clone(),
            document: job.document.clone(),
            flow: job.flow.name().to_owned(),
            prompt_hash: hexadecimal(&digest(&[prompt.as_bytes()])),
            model: if job.answer.is_some() { "none".to_owned() } else { self.identity.to_owned() },
            sampling_seed: sampling_seed(job, attempt),
            answer: text.to_owned(),
            verdict: if outcome.passed { Verdict::Accepted } else { Verdict::Rejected },
            reason: outcome.reason,
            license: self.leaf.license.clone(),
            licenses: self.leaf.works.iter().filter_map(|work| work.spdx.clone()).collect(),
            ..Row::default()
        }
    }
}

fn sampling_seed(job: &Job, attempt: usize) -> u64 {
    number(&[b"sampling", job.id.as_bytes(), &attempt.to_le_bytes()])
}

/// Why the teacher is asked for fewer rows than the leaf wants.
fn shortfall(leaf: &Leaf, config: &GenerateConfig, jobs: &[Job]) -> Option<String> {
    let wanted = leaf.samples.unwrap_or(config.samples);
    let asked = jobs.iter().filter(|job| job.answer.is_none()).count();
    if asked >= wanted {
        return None;
    }
    let why = if leaf.kind == LeafKind::Knowledge && leaf.documents.is_empty() {
        "no document of the leaf is here, so that nothing can be asked about it"
    } else {
        "the template has no more different questions that no test holds out; give its slots more values"
    };
    Some(format!("{asked} of {wanted} samples: {why}"))
}

/// What to say when the teacher was asked and no answer of it can be used; rows that no model wrote do not count.
fn empty(jobs: &[Job], rows: &[Row]) -> Option<String> {
    let given: HashMap<&str, bool> = jobs.iter().map(|job| (job.id.as_str(), job.answer.is_some())).collect();
    let asked: Vec<&Row> = rows.iter().filter(|row| given.get(row.id.as_str()) == Some(&false)).collect();
    if asked.is_empty() || asked.iter().any(|row| row.verdict == Verdict::Accepted) {
        return None;
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &asked {
        *reasons.entry(row.reason_category()).or_default() += 1;
    }
    let list: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Some(format!(
        "none of the teacher's {} answers passed ({}); give more seeds, loosen the check or take a stronger teacher",
        asked.len(),
        list.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_inference::Finish;

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
                    end: None,
                    prompt_logprobs: vec![],
                    echo: vec![],
                    prompt_tokens: 0,
                    prompt_tokens_cut: 0,
                    server_usage: None,
                };
                if on_answer(index, Ok(answer)).is_break() {
                    break;
                }
            }
            Ok(())
        };
        let config = GenerateConfig::default();
        let leaf = &tree.leaves[0];
        let generation =
            LeafGeneration { tree: &tree, leaf, config: &config, count_tokens: &|text| text.len(), stop: &stop };
        let rows = generate_with(&generation, "scripted", answer, journal, &mut |_| {})?;
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
        let held: Vec<&str> = tree.leaves[0].test.iter().map(|item| item.question.as_str()).collect();
        assert!(!asked.iter().any(|text| held.iter().any(|question| text.ends_with(question))));
        Ok(())
    }
}
