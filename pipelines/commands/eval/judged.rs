//! Answers that a judge rates and compares: to the questions of MT-Bench, or to those of a skills tree.

use super::contestants;
use crate::cli::{EvalArguments, JudgeArguments};
use crate::commands::Session;
use crate::models::resolve;
use crate::outcome::{Failure, Interrupted, Status};
use crate::servers;
use crate::stages::generate::read_tree;
use anyhow::Result;
use espalier_eval::EvalError;
use espalier_eval::judging::{
    Answered, Asked, JudgePrompts, Judges, MtBench, MtBenchOptions, Proof, Question, Rater, Rubric, Standard, Versus,
    Writer, answers_file, branch_questions, compare_ratings, read_answers, run as run_bench, run_pairs, shipped_items,
    shipped_questions, spread,
};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::Model;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;

/// The name of the task.
pub(super) const NAME: &str = "mt_bench";

/// Longest answers and judgments, in tokens.
const MAX_TOKENS: usize = 1024;

/// What the models are asked.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// The questions of MT-Bench.
    MtBench,
    /// The questions of a skills tree, as MT-Bench-branch.
    Tree(&'a Path),
}

impl Subject<'_> {
    fn folder(self) -> &'static str {
        match self {
            Self::MtBench => NAME,
            Self::Tree(_) => "mt_bench_branch",
        }
    }

    fn questions(self, arguments: &EvalArguments, judging: &JudgeArguments) -> Result<Vec<Question>> {
        let questions = match self {
            Self::MtBench => shipped_questions()?,
            Self::Tree(path) => {
                let asked = if judging.judge_seeds { Asked::Seeds } else { Asked::HeldOut };
                let questions = branch_questions(&read_tree(path)?.leaves, asked);
                if questions.is_empty() {
                    return Err(Failure::usage("no skill of this tree has a question to ask")
                        .hint("add `test: test.jsonl` to a leaf, or ask the seeds with `--judge-seeds`; knowledge is asked by MMLU-branch")
                        .into());
                }
                questions
            }
        };
        let Some(limit) = arguments.limit else { return Ok(questions) };
        let count = if limit < 1.0 { (limit * questions.len() as f64).ceil() } else { limit };
        Ok(spread(questions, count as usize))
    }
}

pub(super) fn run(
    arguments: &EvalArguments,
    judging: &JudgeArguments,
    subject: Subject<'_>,
    session: Session<'_>,
) -> Result<Status> {
    let Some(reference) = &judging.judge else {
        return Err(Failure::usage(format!("{} needs a judge", subject.folder()))
            .hint("name one with `--judge MODEL`, or a server's with `--judge http://127.0.0.1:8080`")
            .into());
    };
    if !arguments.train_data.is_empty() {
        return Err(Failure::usage("ratings of a judge are not given without the questions that rows hold")
            .hint("leave `--train-data` out, or ask the held-out tests of a tree without `--judge`")
            .into());
    }
    let questions = subject.questions(arguments, judging)?;
    let rater = match (&judging.rubric, &judging.judge_prompts) {
        (Some(rubric), _) => Rater::Rubric(Rubric::read(rubric)?),
        (None, Some(prompts)) => Rater::Prompts(JudgePrompts::read(prompts)?),
        (None, None) => Rater::Prompts(JudgePrompts::shipped()),
    };
    let engine = session.engine_options();
    let judge = open(reference, &engine, session)?;
    let second = judging.second_judge.as_ref().map(|second| open(second, &engine, session)).transpose()?;
    let judges = Judges {
        judge: (reference, &judge),
        second: judging.second_judge.as_deref().zip(second.as_ref().map(|second| second as &dyn Writer)),
    };
    let items = shipped_items()?;
    let folder = arguments.out.join(subject.folder());
    let options = MtBenchOptions {
        model: "",
        questions: &questions,
        rater: &rater,
        items: &items,
        standard: Standard::default(),
        max_tokens: MAX_TOKENS,
        judgment_tokens: MAX_TOKENS,
        judge_itself: judging.judge_itself,
        folder: &folder,
    };
    let rated = rate(arguments, &engine, &judges, &options, session)?;
    let changes = changes(&questions, &rated, session);
    // A rubric gives each answer its own rating; only prompts set answers side by side.
    let comparisons = match rater {
        Rater::Prompts(_) => pairs(&rated, &judges, &options, session)?,
        Rater::Rubric(_) => Vec::new(),
    };
    let models: Vec<&MtBench> = rated.iter().map(|(found, _)| found).collect();
    session.reporter.result(json!({"models": models, "changes": changes, "comparisons": comparisons}));
    Ok(Status::Done)
}

/// Every model's ratings, with the identity of the model.
fn rate(
    arguments: &EvalArguments,
    engine: &EngineOptions,
    judges: &Judges<'_>,
    options: &MtBenchOptions<'_>,
    session: Session<'_>,
) -> Result<Vec<(MtBench, String)>> {
    let mut rated = Vec::new();
    for contestant in contestants(arguments, engine, session) {
        let contestant = contestant?;
        let of_model = MtBenchOptions { model: &contestant.label, ..*options };
        let on_reply = &mut |done, total| progress(&contestant.label, done, total, session);
        let found = uninterrupted(run_bench(&contestant.engine, judges, &of_model, on_reply))?;
        say(&found, session);
        rated.push((found, contestant.engine.identity().to_owned()));
    }
    Ok(rated)
}

/// The ratings of every other model against those of the first, group by group; nothing where ratings are withheld.
fn changes(questions: &[Question], rated: &[(MtBench, String)], session: Session<'_>) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    let Some((first, others)) = rated.split_first() else { return found };
    for (other, _) in others.iter().filter(|(other, _)| first.0.scores.is_some() && other.scores.is_some()) {
        session.reporter.line(format!("{} against {}, ratings", other.model, first.0.model));
        let groups = compare_ratings(questions, &first.0.judgments, &other.judgments);
        for change in &groups {
            let interval = change
                .difference
                .map_or_else(String::new, |found| format!(" (95 %: {:+.2} to {:+.2})", found.low, found.high));
            session.reporter.line(format!(
                "  {:<12}{:>5.2} to {:>5.2}{interval} over {} questions: {}",
                change.group,
                change.first,
                change.second,
                change.questions,
                change.verdict()
            ));
        }
        found.push(json!({"first": first.0.model, "second": other.model, "groups": groups}));
    }
    found
}

/// Every other model against the first, answer by answer.
fn pairs(
    rated: &[(MtBench, String)],
    judges: &Judges<'_>,
    options: &MtBenchOptions<'_>,
    session: Session<'_>,
) -> Result<Vec<Versus>> {
    let mut found = Vec::new();
    for other in rated.iter().skip(1) {
        let both = [other, &rated[0]];
        let read = |(model, _): &(MtBench, String)| read_answers(&answers_file(options.folder, &model.model));
        let answers = [read(both[0])?, read(both[1])?];
        let answered = |side: usize| Answered {
            name: both[side].0.model.as_str(),
            identity: &both[side].1,
            answers: &answers[side],
        };
        let name = &both[0].0.model;
        let of_pair = MtBenchOptions { model: name, ..*options };
        let on_reply = &mut |done, total| progress(name, done, total, session);
        let compared = uninterrupted(run_pairs([answered(0), answered(1)], judges, &of_pair, on_reply))?;
        say_pairs(&compared, session);
        found.push(compared);
    }
    Ok(found)
}

fn progress(label: &str, done: usize, total: usize, session: Session<'_>) -> ControlFlow<()> {
    let context = session.stage("eval");
    context.progress(label, done as u64, total as u64, "texts", "");
    if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn uninterrupted<T>(found: Result<T, EvalError>) -> Result<T> {
    match found {
        Err(EvalError::Interrupted { .. }) => Err(Interrupted.into()),
        found => Ok(found?),
    }
}

/// A judge in this process, or the first model of a server.
fn open(reference: &str, options: &EngineOptions, session: Session<'_>) -> Result<Engine> {
    if reference.contains("://") {
        return servers::open(reference, None);
    }
    let model = Model::open(&resolve(reference, session.reporter, session.stop)?.path)?;
    Ok(Engine::Native(NativeEngine::load(&model, None, options)?))
}

fn say(found: &MtBench, session: Session<'_>) {
    match &found.scores {
        Some(scores) => {
            let interval = scores
                .interval
                .map_or_else(String::new, |interval| format!(" (95 %: {:.2} to {:.2})", interval.low, interval.high));
            session.reporter.line(format!(
                "{}  rated {:.2}{interval} of 10 over {} questions by {}",
                found.model, scores.mean, scores.questions, found.judge
            ));
            for (category, mean) in &scores.categories {
                session.reporter.line(format!("  {category:<12}{mean:>5.2}"));
            }
        }
        None => withheld(&found.model, &found.judge, &found.withheld, session),
    }
    session.reporter.line(format!("  {}", words(&found.proof)));
}

fn say_pairs(found: &Versus, session: Session<'_>) {
    let [first, second] = &found.models;
    match found.pairs {
        Some(pairs) => session.reporter.line(format!(
            "{first} against {second}: {} won, {} lost, {} neither, {} of these because the order decided{}",
            pairs.wins,
            pairs.losses,
            pairs.ties,
            pairs.flips,
            found.p.map_or_else(String::new, |p| format!(" (p = {p:.3})"))
        )),
        None => withheld(&format!("{first} against {second}"), &found.judge, &found.withheld, session),
    }
}

fn withheld(what: &str, judge: &str, reasons: &[String], session: Session<'_>) {
    session.reporter.line(format!("{what}  the score is withheld: {judge} is a poor judge"));
    for reason in reasons {
        session.reporter.line(format!("  {reason}"));
    }
}

/// What is known about the judge, in one line.
fn words(proof: &Proof) -> String {
    let mut words = format!(
        "the judge told {} of {} planted pairs apart, changed its mind with the order in {} of {}, and {} of {} judgments \
         cannot be read",
        proof.told_apart.count,
        proof.told_apart.of,
        proof.flips.count,
        proof.flips.of,
        proof.unread.count,
        proof.unread.of
    );
    if let Some(agreement) = proof.agreement {
        words.push_str(&format!("; agreement with the second judge {agreement:.2}"));
    }
    if let Some(correlation) = proof.length_correlation {
        words.push_str(&format!("; correlation of score and length {correlation:.2}"));
    }
    words
}
