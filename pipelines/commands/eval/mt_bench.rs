//! MT-Bench: answers of two turns, which a judge rates and compares.

use super::contestants;
use crate::cli::EvalArguments;
use crate::commands::Session;
use crate::models::resolve;
use crate::outcome::{Failure, Interrupted, Status};
use crate::servers;
use crate::stages::StageContext;
use anyhow::Result;
use espalier_eval::EvalError;
use espalier_eval::judging::{
    Answered, JudgePrompts, Judges, MtBench, MtBenchOptions, Proof, Standard, Versus, Writer, answers_file,
    read_answers, run as run_bench, run_pairs, shipped_items, shipped_questions,
};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::Model;
use serde_json::json;
use std::ops::ControlFlow;

/// The name of the task.
pub(super) const NAME: &str = "mt_bench";

/// Longest answers and judgments, in tokens.
const MAX_TOKENS: usize = 1024;

pub(super) fn run(arguments: &EvalArguments, session: Session<'_>) -> Result<Status> {
    let Some(reference) = &arguments.judge else {
        return Err(Failure::usage("mt_bench needs a judge")
            .hint("name one with `--judge MODEL`, or a server's with `--judge http://127.0.0.1:8080`")
            .into());
    };
    let judge = open(reference, session)?;
    let second = arguments.second_judge.as_ref().map(|second| open(second, session)).transpose()?;
    let judges = Judges {
        judge: (reference, &judge),
        second: arguments.second_judge.as_deref().zip(second.as_ref().map(|second| second as &dyn Writer)),
    };
    let prompts = arguments.judge_prompts.as_deref().map_or_else(|| Ok(JudgePrompts::shipped()), JudgePrompts::read)?;
    let mut questions = shipped_questions()?;
    if let Some(limit) = arguments.limit {
        let count = if limit < 1.0 { (limit * questions.len() as f64).ceil() } else { limit };
        questions.truncate(count as usize);
    }
    let items = shipped_items()?;
    let folder = arguments.out.join(NAME);
    let context =
        StageContext { stage: "eval", reporter: session.reporter, stop: session.stop, precision: session.precision };
    let options = MtBenchOptions {
        model: "",
        questions: &questions,
        prompts: &prompts,
        items: &items,
        standard: Standard::default(),
        max_tokens: MAX_TOKENS,
        judgment_tokens: MAX_TOKENS,
        judge_itself: arguments.judge_itself,
        folder: &folder,
    };
    let on_reply = &mut |label: &str, done: usize, total: usize| {
        context.progress(label, done as u64, total as u64, "texts", "");
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut found = Vec::new();
    let mut identities = Vec::new();
    for contestant in contestants(arguments, session) {
        let contestant = contestant?;
        let of_model = MtBenchOptions { model: &contestant.label, ..options };
        let benched = run_bench(&contestant.engine, &judges, &of_model, &mut |done, total| {
            on_reply(&contestant.label, done, total)
        });
        let benched = uninterrupted(benched)?;
        say(&benched, session);
        identities.push(contestant.engine.identity().to_owned());
        found.push(benched);
    }
    let mut versus = Vec::new();
    for other in 1..found.len() {
        let names = [other, 0].map(|index| found[index].model.as_str());
        let answers =
            [read_answers(&answers_file(&folder, names[0]))?, read_answers(&answers_file(&folder, names[1]))?];
        let models = [
            Answered { name: names[0], identity: &identities[other], answers: &answers[0] },
            Answered { name: names[1], identity: &identities[0], answers: &answers[1] },
        ];
        let of_pair = MtBenchOptions { model: names[0], ..options };
        let compared = run_pairs(models, &judges, &of_pair, &mut |done, total| on_reply(names[0], done, total));
        let compared = uninterrupted(compared)?;
        say_pairs(&compared, session);
        versus.push(compared);
    }
    session.reporter.result(json!({"models": found, "comparisons": versus}));
    Ok(Status::Done)
}

fn uninterrupted<T>(found: Result<T, EvalError>) -> Result<T> {
    match found {
        Err(EvalError::Interrupted { .. }) => Err(Interrupted.into()),
        found => Ok(found?),
    }
}

/// A judge in this process, or the first model of a server.
fn open(reference: &str, session: Session<'_>) -> Result<Engine> {
    if reference.contains("://") {
        return servers::open(reference, None);
    }
    let model = Model::open(&resolve(reference, session.reporter, session.stop)?.path)?;
    let memory = session.memory.map(|bytes| bytes.0 as u64);
    let options = EngineOptions { precision: session.precision, memory, ..EngineOptions::default() };
    Ok(Engine::Native(NativeEngine::load(&model, None, &options)?))
}

fn say(found: &MtBench, session: Session<'_>) {
    match &found.scores {
        Some(scores) => {
            let interval = scores
                .interval
                .map_or_else(String::new, |interval| format!(" (95 %: {:.2} to {:.2})", interval.low, interval.high));
            session.reporter.line(format!(
                "{}  MT-Bench {:.2}{interval} of 10 over {} questions, judged by {}",
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
