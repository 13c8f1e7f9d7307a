//! Two models on MT-Bench, turn by turn, with the proof of the judge.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::answers::{Answers, write_lines};
use super::mt_bench::{Judges, MtBenchOptions, file_name, refuse_oneself};
use super::pairs::{Pairs, compare_answers, write_pairs};
use super::proof::{Count, Proof};
use super::rater::Rater;
use super::transcript::Transcript;
use crate::error::EvalError;
use crate::statistics::mcnemar::mcnemar;

/// What a judge says about two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// The models; wins are those of the first.
    pub models: [String; 2],
    /// The judge.
    pub judge: String,
    /// The counts; `None` where they are withheld.
    pub pairs: Option<Pairs>,
    /// Two-sided p-value of "both win equally often" over the turns with a winner (a sign test, as `McNemar` has it).
    pub p: Option<f64>,
    /// Why the counts are withheld; empty where they are shown.
    pub withheld: Vec<String>,
    /// What is known about the judge.
    pub proof: Proof,
}

/// A model that has answered.
#[derive(Clone, Copy)]
pub struct Answered<'a> {
    /// What it is called.
    pub name: &'a str,
    /// The identity of its writer.
    pub identity: &'a str,
    /// What it answered.
    pub answers: &'a Answers,
}

/// Has a judge compare the answers of two models in both orders, the judge proven first. Neither `options.model` nor a second
/// judge is asked. Writes `model_judgment/JUDGE_pair.jsonl` and `mt_bench_FIRST_SECOND.json` under the folder.
///
/// # Errors
/// As [`super::run`].
pub fn run_pairs(
    models: [Answered<'_>; 2],
    judges: &Judges<'_>,
    options: &MtBenchOptions<'_>,
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Versus, EvalError> {
    let (judge_name, judge) = judges.judge;
    let names = models.map(|model| model.name);
    for model in models {
        refuse_oneself(model.identity, judge.identity(), options.judge_itself)?;
    }
    let Rater::Prompts(prompts) = options.rater else {
        let problem = "a rubric knows no pairs: compare the ratings of the two models".to_owned();
        return Err(EvalError::Task { task: "mt_bench".to_owned(), problem });
    };
    let mut of_judge = Transcript::open(judge, Some(&options.folder.join("judge.journal")))?;
    let mut proof = options.rater.calibrate(&mut of_judge, options.items, options.judgment_tokens, on_reply)?;
    let answers = models.map(|model| model.answers);
    let tokens = options.judgment_tokens;
    let judged = compare_answers(&mut of_judge, options.questions, answers, prompts, tokens, on_reply)?;
    let verdicts = judged.iter().flat_map(|pair| pair.winners);
    proof.unread = Count { count: verdicts.filter(Option::is_none).count(), of: 2 * judged.len() };
    let mut withheld = proof.faults_of_pairs(&options.standard);
    let pairs = Pairs::new(&judged);
    if pairs.wins + pairs.losses + pairs.ties == 0 {
        withheld.push("no comparison holds a verdict in both orders".to_owned());
    }
    let path = options.folder.join("model_judgment").join([&file_name(judge_name), "_pair.jsonl"].concat());
    write_pairs(&path, names, judge_name, &judged)?;
    let shown = withheld.is_empty();
    let found = Versus {
        models: names.map(str::to_owned),
        judge: judge_name.to_owned(),
        pairs: shown.then_some(pairs),
        p: shown.then(|| mcnemar(pairs.losses, pairs.wins).p),
        withheld,
        proof,
    };
    let name = ["mt_bench_", &file_name(names[0]), "_", &file_name(names[1]), ".json"].concat();
    write_lines(&options.folder.join(name), std::iter::once(&found))?;
    Ok(found)
}
