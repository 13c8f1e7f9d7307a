//! Judges from the first planted answer to the score: good ones are believed, planted bad ones are caught.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::cell::Cell;
use std::cmp::Ordering;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use espalier_eval::EvalError;
use espalier_eval::judging::{
    Answered, CalibrationItem, Criterion, JudgePrompts, Judges, MtBench, MtBenchOptions, OnText, Pairs, Question,
    Rater, Rubric, RubricJudge, Standard, Transcript, Winner, Writer, answer, compare_answers, run, run_pairs,
    shipped_items, shipped_questions, write_pairs,
};
use espalier_inference::judge::Reading;
use espalier_inference::{Answer, Constraint, EngineError, Finish, Prompt, Request, TokenLogprob};

/// Writes what a function makes of the last turn, last request first.
struct Fake<'a> {
    name: &'static str,
    says: &'a dyn Fn(&str) -> String,
    asked: Cell<usize>,
}

impl<'a> Fake<'a> {
    fn new(name: &'static str, says: &'a dyn Fn(&str) -> String) -> Self {
        Self { name, says, asked: Cell::new(0) }
    }
}

fn text(text: String) -> Answer {
    Answer {
        text,
        tokens: Vec::new(),
        finish: Finish::Stop,
        logprobs: Vec::new(),
        end: None,
        prompt_logprobs: Vec::new(),
        echo: Vec::new(),
        prompt_tokens: 0,
        prompt_tokens_cut: 0,
        server_usage: None,
    }
}

fn last_turn(request: &Request) -> &str {
    let Prompt::Chat(messages) = &request.prompt else { panic!("a conversation") };
    messages.last().map_or("", |message| message.content.as_str())
}

impl Writer for Fake<'_> {
    fn identity(&self) -> &str {
        self.name
    }

    fn write(&self, requests: &[Request], on_text: OnText<'_>) -> Result<(), EngineError> {
        for (index, request) in requests.iter().enumerate().rev() {
            self.asked.set(self.asked.get() + 1);
            if on_text(index, Ok(text((self.says)(last_turn(request))))).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// What stands between the marks of the last answer of a prompt; of the one of A or B with its letter.
fn shown<'a>(prompt: &'a str, letter: &str) -> &'a str {
    let (open, close) = (format!("<answer{letter}>\n"), format!("\n</answer{letter}>"));
    let from = prompt.rfind(&open).expect("an answer") + open.len();
    &prompt[from..from + prompt[from..].find(&close).expect("its end")]
}

fn is_pair(prompt: &str) -> bool {
    prompt.contains("<answer of A>")
}

/// A number from 0 to 4 that has nothing to do with length.
fn noise(text: &str) -> usize {
    text.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) as usize % 5
}

/// 9 for planted good answers, 2 for bad ones, 4 to 8 for others.
fn fair_rating(items: &[CalibrationItem], answer: &str) -> usize {
    if items.iter().any(|item| item.good == answer) {
        9
    } else if items.iter().any(|item| item.bad == answer) {
        2
    } else {
        4 + noise(answer)
    }
}

fn fair(items: &[CalibrationItem], prompt: &str) -> String {
    if is_pair(prompt) {
        let [a, b] = [" of A", " of B"].map(|letter| fair_rating(items, shown(prompt, letter)));
        let verdict = match a.cmp(&b) {
            Ordering::Greater => "[[A]]",
            Ordering::Less => "[[B]]",
            Ordering::Equal => "[[C]]",
        };
        format!("I compared them. {verdict}")
    } else {
        format!("It is so. Rating: [[{}]]", fair_rating(items, shown(prompt, "")))
    }
}

fn some_questions() -> Vec<Question> {
    shipped_questions().unwrap().into_iter().filter(|question| question.question_id % 5 == 1).collect()
}

fn model_says(prompt: &str) -> String {
    format!("An answer to: {}", &prompt.chars().take(40).collect::<String>())
}

fn bench(folder: &Path, judge: &Fake<'_>, second: Option<&Fake<'_>>) -> Result<MtBench, EvalError> {
    bench_until(folder, judge, second, usize::MAX)
}

/// Stops after some replies.
fn bench_until(folder: &Path, judge: &Fake<'_>, second: Option<&Fake<'_>>, most: usize) -> Result<MtBench, EvalError> {
    let (questions, items) = (some_questions(), shipped_items().unwrap());
    let rater = Rater::Prompts(JudgePrompts::shipped());
    let options = MtBenchOptions {
        model: "student",
        questions: &questions,
        rater: &rater,
        items: &items,
        standard: Standard::default(),
        max_tokens: 64,
        judgment_tokens: 64,
        judge_itself: false,
        folder,
    };
    let model = Fake::new("student", &model_says);
    let judges = Judges { judge: ("judge", judge), second: second.map(|second| ("second", second as &dyn Writer)) };
    let mut replies = 0;
    run(&model, &judges, &options, &mut |_, _| {
        replies += 1;
        if replies >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

#[test]
fn a_fair_judge_is_believed_and_its_files_are_fastchats() {
    let folder = tempfile::tempdir().unwrap();
    let items = shipped_items().unwrap();
    let says = |prompt: &str| fair(&items, prompt);
    let also = |prompt: &str| fair(&items, prompt).replace("[[4]]", "[[5]]");
    let found = bench(folder.path(), &Fake::new("j", &says), Some(&Fake::new("k", &also))).unwrap();
    assert_eq!(found.withheld, Vec::<String>::new());
    assert_eq!((found.proof.told_apart.count, found.proof.preferred.count, found.unanswered), (20, 20, 0));
    assert!(found.proof.agreement.unwrap() > 0.8);
    let scores = found.scores.unwrap();
    assert_eq!((scores.questions, scores.turns.len(), scores.categories.len()), (16, 2, 8));
    let interval = scores.interval.unwrap();
    assert!((4.0..=8.0).contains(&scores.mean) && interval.low < scores.mean && scores.mean < interval.high);
    let lines = fs::read_to_string(folder.path().join("model_judgment/judge_single.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((line["question_id"].as_u64(), line["turn"].as_u64()), (Some(81), Some(1)));
    assert_eq!(line["judge"], serde_json::json!(["judge", "espalier-single"]));
    let math = lines.lines().find(|line| line.starts_with("{\"question_id\":111,")).unwrap();
    assert!(math.contains("espalier-single-reference") && math.contains("<right-answer>"), "{math}");
    assert_eq!(fs::read_to_string(folder.path().join("model_answer/student.jsonl")).unwrap().lines().count(), 16);
    assert_eq!(
        serde_json::from_str::<MtBench>(&fs::read_to_string(folder.path().join("mt_bench_student.json")).unwrap())
            .unwrap()
            .scores,
        Some(scores)
    );
}

#[test]
fn planted_bad_judges_are_caught() {
    let items = shipped_items().unwrap();
    let caught = |says: &dyn Fn(&str) -> String, second: Option<&Fake<'_>>| {
        let folder = tempfile::tempdir().unwrap();
        let found = bench(folder.path(), &Fake::new("bad", says), second).unwrap();
        assert_eq!(found.scores, None, "{found:?}");
        found.withheld.join("; ")
    };
    let flatterer = |prompt: &str| if is_pair(prompt) { "[[C]]".into() } else { "Wonderful! [[9]]".to_owned() };
    assert!(caught(&flatterer, None).contains("higher in 0 of 20 planted pairs"));
    let by_length = |prompt: &str| {
        if is_pair(prompt) {
            let longer = shown(prompt, " of A").len() > shown(prompt, " of B").len();
            return if longer { "[[A]]" } else { "[[B]]" }.to_owned();
        }
        format!("[[{}]]", (shown(prompt, "").len() / 20).clamp(1, 10))
    };
    assert!(caught(&by_length, None).contains("planted pairs: the share may be as low as"));
    let first_seen = |prompt: &str| if is_pair(prompt) { "[[A]]".into() } else { fair(&items, prompt) };
    assert!(caught(&first_seen, None).contains("changes with the order of the answers in 20 of 20 planted pairs"));
    let mumbler = |prompt: &str| {
        let said = fair(&items, prompt);
        if noise(prompt) == 0 { said.replace("[[", "") } else { said }
    };
    assert!(caught(&mumbler, None).contains("cannot be read"));
    let fair_judge = |prompt: &str| fair(&items, prompt);
    let contrary = |prompt: &str| format!("[[{}]]", 10 - fair_rating(&items, shown(prompt, "")));
    assert!(caught(&fair_judge, Some(&Fake::new("k", &contrary))).contains("agreement with the second judge is -"));
}

#[test]
fn no_model_judges_itself_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let says = |_: &str| String::new();
    let error = bench(folder.path(), &Fake::new("student", &says), None).unwrap_err().to_string();
    assert!(error.contains("the judge is the model that is judged"), "{error}");
}

#[test]
fn an_interrupted_run_goes_on_and_ends_with_the_same_files() {
    let items = shipped_items().unwrap();
    let says = |prompt: &str| fair(&items, prompt);
    let whole = tempfile::tempdir().unwrap();
    let judge = Fake::new("j", &says);
    let expected = bench(whole.path(), &judge, None).unwrap();
    let broken = tempfile::tempdir().unwrap();
    let resumed = Fake::new("j", &says);
    for _ in 0..4 {
        let stopped = bench_until(broken.path(), &resumed, None, 31).unwrap_err();
        assert!(matches!(stopped, EvalError::Interrupted { .. }), "{stopped}");
    }
    assert_eq!(bench(broken.path(), &resumed, None).unwrap(), expected);
    assert_eq!(resumed.asked.get(), judge.asked.get(), "nothing is asked twice");
    for file in ["mt_bench_student.json", "model_answer/student.jsonl", "model_judgment/judge_single.jsonl"] {
        assert_eq!(fs::read(whole.path().join(file)).unwrap(), fs::read(broken.path().join(file)).unwrap(), "{file}");
    }
    assert_eq!(bench(broken.path(), &resumed, None).unwrap(), expected);
    assert_eq!(resumed.asked.get(), judge.asked.get(), "a finished run asks nothing");
}

#[test]
fn two_models_are_compared_in_both_orders() {
    let items = shipped_items().unwrap();
    let (questions, prompts) = (some_questions(), JudgePrompts::shipped());
    let mut go_on = |_: usize, _: usize| ControlFlow::Continue(());
    let better = |_: &str| items[0].good.clone();
    let worse =
        |prompt: &str| if prompt.len().is_multiple_of(2) { items[0].bad.clone() } else { items[1].good.clone() };
    let (better, worse) = (Fake::new("a", &better), Fake::new("b", &worse));
    let mut answers = [&better, &worse]
        .map(|model| answer(&mut Transcript::open(model, None).unwrap(), &questions, 64, &mut go_on).unwrap());
    // A turn that one model did not answer is not compared.
    answers[1].get_mut(&81).unwrap().truncate(1);
    let says = |prompt: &str| fair(&items, prompt);
    let judge = Fake::new("j", &says);
    let mut judge = Transcript::open(&judge, None).unwrap();
    let found = compare_answers(&mut judge, &questions, [&answers[0], &answers[1]], &prompts, 64, &mut go_on).unwrap();
    assert_eq!(found.len(), 31);
    let pairs = Pairs::new(&found);
    assert_eq!((pairs.losses, pairs.flips, pairs.failures), (0, 0, 0));
    assert!(pairs.wins > 5 && pairs.ties > 5, "{pairs:?}");
    assert!(found.iter().all(|pair| pair.winner() != Some(Winner::Second)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("judge_pair.jsonl");
    write_pairs(&path, ["a", "b"], "judge", &found).unwrap();
    let line: serde_json::Value = serde_json::from_str(
        fs::read_to_string(&path)
            .unwrap()
            .lines()
            .find(|line| line.contains("\"a\"") && line.contains("model_1\",\"g2"))
            .unwrap(),
    )
    .unwrap();
    assert_eq!((line["model_1"].as_str(), line["g2_winner"].as_str()), (Some("a"), Some("model_1")));
}

#[test]
fn two_models_are_compared_when_the_judge_is_fair() {
    let (questions, items) = (some_questions(), shipped_items().unwrap());
    let rater = Rater::Prompts(JudgePrompts::shipped());
    let folder = tempfile::tempdir().unwrap();
    let options = MtBenchOptions {
        model: "better",
        questions: &questions,
        rater: &rater,
        items: &items,
        standard: Standard::default(),
        max_tokens: 64,
        judgment_tokens: 64,
        judge_itself: false,
        folder: folder.path(),
    };
    let mut go_on = |_: usize, _: usize| ControlFlow::Continue(());
    let (good, bad) = (|_: &str| items[0].good.clone(), |_: &str| items[0].bad.clone());
    let (better, worse) = (Fake::new("a", &good), Fake::new("b", &bad));
    let answers = [&better, &worse]
        .map(|model| answer(&mut Transcript::open(model, None).unwrap(), &questions, 64, &mut go_on).unwrap());
    let models = [("better", "a", &answers[0]), ("worse", "b", &answers[1])]
        .map(|(name, identity, answers)| Answered { name, identity, answers });
    let says = |prompt: &str| fair(&items, prompt);
    let judge = Fake::new("j", &says);
    let judges = Judges { judge: ("judge", &judge), second: None };
    let found = run_pairs(models, &judges, &options, &mut go_on).unwrap();
    assert_eq!(found.pairs, Some(Pairs { wins: 32, ..Pairs::default() }), "{found:?}");
    assert!(found.p.unwrap() < 1e-8 && folder.path().join("model_judgment/judge_pair.jsonl").exists());
    let first_seen = |prompt: &str| if is_pair(prompt) { "[[A]]".into() } else { fair(&items, prompt) };
    let judge = Fake::new("k", &first_seen);
    let judges = Judges { judge: ("judge", &judge), second: None };
    let found = run_pairs(models, &judges, &options, &mut go_on).unwrap();
    assert_eq!((found.pairs, found.p), (None, None));
    assert!(found.withheld[0].contains("in both orders in 0 of 20"), "{:?}", found.withheld);
    let own = Judges { judge: ("judge", &better), second: None };
    assert!(
        run_pairs(models, &own, &options, &mut go_on).unwrap_err().to_string().contains("is the model that is judged")
    );
}

fn rubric(reading: Reading) -> Rubric {
    let criterion = |name: &str, weight| Criterion {
        name: name.into(),
        question: "Does the answer do what the question asks for?".into(),
        levels: vec!["not at all".into(), "in part".into(), "wholly".into()],
        weight,
    };
    Rubric { name: "helpful".into(), reading, criteria: vec![criterion("right", 3.0), criterion("clear", 1.0)] }
}

/// A judge whose digits have probabilities.
struct Sure<'a>(&'a [CalibrationItem]);

impl Writer for Sure<'_> {
    fn identity(&self) -> &'static str {
        "sure"
    }

    fn write(&self, requests: &[Request], on_text: OnText<'_>) -> Result<(), EngineError> {
        for (index, request) in requests.iter().enumerate() {
            let turn = last_turn(request);
            let level = match request.constraint.as_deref() {
                // A probe: which token begins this label?
                Some(Constraint::Choice(labels)) if labels.len() == 1 => labels[0].parse::<u32>().unwrap(),
                Some(Constraint::JsonSchema(_)) => 1,
                _ if fair_rating(self.0, shown(turn, "")) > 5 => 3,
                _ => 1,
            };
            let top = vec![(100 + level, 0.8_f32.ln()), (102, 0.1_f32.ln())];
            let token = TokenLogprob { token: 100 + level, logprob: 0.8_f32.ln(), top };
            let answer = Answer { logprobs: vec![token], ..text(level.to_string()) };
            if on_text(index, Ok(answer)).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn a_rubric_rates_a_model_and_its_judge_is_proven() {
    let items = shipped_items().unwrap();
    let mut go_on = |_: usize, _: usize| ControlFlow::Continue(());
    let (questions, rater) = (some_questions(), Rater::Rubric(rubric(Reading::Expected)));
    let folder = tempfile::tempdir().unwrap();
    let options = MtBenchOptions {
        model: "model",
        questions: &questions,
        rater: &rater,
        items: &items,
        standard: Standard::default(),
        max_tokens: 64,
        judgment_tokens: 64,
        judge_itself: false,
        folder: folder.path(),
    };
    let good = |_: &str| items[0].good.clone();
    let model = Fake::new("a", &good);
    let sure = Sure(&items);
    let judges = Judges { judge: ("judge", &sure), second: None };
    let found = run(&model, &judges, &options, &mut go_on).unwrap();
    let scores = found.scores.as_ref().expect("a judge that tells planted answers apart is believed");
    // 0.8 at the highest of three levels and 0.1 at another: between 5 and 10.
    assert!(scores.mean > 5.0 && scores.mean < 10.0, "{scores:?}");
    let second_turn = found.judgments.iter().find(|judgment| judgment.turn == 2).unwrap();
    assert!(second_turn.user_prompt.contains(&format!("Assistant: {}", items[0].good)), "{}", second_turn.user_prompt);
    assert!(second_turn.judgment.starts_with("right: ") && second_turn.judgment.contains("\nclear: "));
    let asked = model.asked.get();
    assert_eq!(run(&model, &judges, &options, &mut go_on).unwrap(), found);
    assert_eq!(model.asked.get(), asked, "nothing is asked twice");
}

#[test]
fn rubric_judges_are_proven_too() {
    let items = shipped_items().unwrap();
    let mut go_on = |_: usize, _: usize| ControlFlow::Continue(());
    let sure = Sure(&items);
    let mut judge = Transcript::open(&sure, None).unwrap();
    let rubric_of = rubric(Reading::Expected);
    let proof = RubricJudge::new(&mut judge, &rubric_of).unwrap().calibrate(&items, &mut go_on).unwrap();
    assert!(proof.faults(&Standard::default()).is_empty(), "{proof:?}");
    let blind = |_: &str| "Score: 2".to_owned();
    let blind = Fake::new("blind", &blind);
    let mut judge = Transcript::open(&blind, None).unwrap();
    let rubric_of = rubric(Reading::Text);
    let proof = RubricJudge::new(&mut judge, &rubric_of).unwrap().calibrate(&items, &mut go_on).unwrap();
    assert!(proof.faults(&Standard::default())[0].contains("0 of 20"), "{proof:?}");
}
