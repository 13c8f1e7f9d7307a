//! Rounds of a flow over leaves: as many rows as wanted, no more calls than that takes, the same rows however often it stops.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use espalier_dataset::{Row, Verdict};
use espalier_inference::Request;
use espalier_sdg::flow::{Budget, Flow, FlowEngine, ResponseCache};
use espalier_sdg::{LeafRounds, RoundOptions, RoundsOutcome, SdgError, run_rounds};
use espalier_taxonomy::{ChunkSettings, Leaf, LeafKind, Seed, TestItem, Tree};

use crate::script::{answer_of, flow_of, text_of};

const FLOW: &str = r"
espalier: 1
outputs: [question, response]
blocks:
  - {name: ask, type: llm, prompt: ask.jinja, output: question, temperature: 1}
  - {name: answer, type: llm, prompt: answer.jinja, output: response}
";

const PROMPTS: [(&str, &str); 2] = [
    ("ask.jinja", "{% filter turn('user') %}Ask {{ seed_question }}{% endfilter %}"),
    ("answer.jinja", "{% filter turn('user') %}Answer {{ question }}{% endfilter %}"),
];

fn leaf(id: &str) -> Leaf {
    let seed = |number: usize| Seed {
        question: format!("Seed {number} of {id}?"),
        answer: format!("Answer {number}."),
        ..Seed::default()
    };
    Leaf {
        id: id.into(),
        kind: LeafKind::FreeformSkill,
        seeds: (0..20).map(seed).collect(),
        test: vec![TestItem { question: "Is it held out?".into(), answer: "Yes".into(), ..TestItem::default() }],
        ..Leaf::default()
    }
}

/// Two of three questions are good; one of five of those is a test's. A leaf named `mute` gets no answer at all.
fn script(request: &Request) -> String {
    let text = text_of(request);
    match text.split_once(' ').unwrap() {
        ("Answer", question) if question.contains("mute") => " ".into(),
        ("Answer", question) => format!("An answer to {question}"),
        (_, seed) if request.seed.is_multiple_of(3) => format!("{seed} {}", request.seed),
        _ if request.seed.is_multiple_of(5) => "Is it held out?".into(),
        (_, seed) => format!("{seed} {}?", request.seed),
    }
}

struct Setting {
    _folder: tempfile::TempDir,
    flow: Flow,
    tree: Tree,
    probe: bool,
}

impl Setting {
    fn new(leaves: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flow = flow_of(folder.path(), FLOW, &PROMPTS);
        let tree = Tree { leaves: leaves.iter().map(|id| leaf(id)).collect(), ..Tree::default() };
        Self { _folder: folder, flow, tree, probe: false }
    }

    /// Runs until `stop_after` answers; rows whose question has no question mark are refused by the review.
    fn run(
        &self,
        wanted: usize,
        budget: Budget,
        cache: &mut ResponseCache,
        stop_after: usize,
    ) -> (Result<RoundsOutcome, SdgError>, usize) {
        let plans: Vec<LeafRounds<'_>> =
            self.tree.leaves.iter().map(|leaf| LeafRounds { leaf, flow: &self.flow, wanted }).collect();
        let stop = AtomicBool::new(false);
        let options = RoundOptions {
            tree: &self.tree,
            seed: 1,
            chunks: &ChunkSettings::default(),
            count_tokens: &|text| text.len(),
            scale: 1,
            rounds: 4,
            budget,
            probe: self.probe,
            stop: &stop,
        };
        let mut review = |_: &Leaf, rows: &mut [Row]| {
            for row in rows.iter_mut().filter(|row| row.verdict == Verdict::Accepted) {
                if !row.question().unwrap_or_default().ends_with('?') {
                    row.verdict = Verdict::Rejected;
                    row.reason = "no question: it does not ask".into();
                }
            }
            Ok(())
        };
        let mut answered = 0;
        let mut engine = |requests: &[Request], on_answer: &mut dyn FnMut(usize, _) -> ControlFlow<()>| {
            for (index, request) in requests.iter().enumerate().rev() {
                answered += 1;
                stop.store(answered >= stop_after, Ordering::Relaxed);
                if on_answer(index, Ok(answer_of(&script(request)))) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        };
        let teacher = FlowEngine::in_waves("scripted", &mut engine);
        let mut engines = BTreeMap::from([("teacher".to_owned(), teacher)]);
        let made = run_rounds(&plans, &options, &mut engines, cache, &mut review, &mut |_| {});
        (made, answered)
    }
}

fn accepted(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.verdict == Verdict::Accepted).count()
}

#[test]
fn a_leaf_gets_what_it_wants_and_little_more_is_asked() {
    let setting = Setting::new(&["a", "b"]);
    let (made, answered) = setting.run(30, Budget::default(), &mut ResponseCache::in_memory(), usize::MAX);
    for outcome in made.unwrap().leaves {
        assert_eq!(outcome.shortfall, None);
        assert!((30..45).contains(&accepted(&outcome.rows)), "{}", accepted(&outcome.rows));
        let ids: BTreeSet<&String> = outcome.rows.iter().map(|row| &row.id).collect();
        assert_eq!(ids.len(), outcome.rows.len(), "a source that comes again is another row");
        assert!(
            outcome
                .rows
                .iter()
                .all(|row| row.question() != Some("Is it held out?") || row.reason.starts_with("held-out question"))
        );
        assert!(outcome.rows.iter().enumerate().all(|(index, row)| row.index == index as u64));
    }
    assert!(answered < 300, "{answered} answers for 60 rows");
}

#[test]
fn what_is_stopped_anywhere_ends_with_the_same_rows() {
    let setting = Setting::new(&["a", "b"]);
    let rows = |made: Result<RoundsOutcome, SdgError>| -> Vec<Row> {
        made.unwrap().leaves.into_iter().flat_map(|outcome| outcome.rows).collect()
    };
    let whole = rows(setting.run(12, Budget::default(), &mut ResponseCache::in_memory(), usize::MAX).0);
    let folder = tempfile::tempdir().unwrap();
    for stop_after in [1, 7, 20, 41] {
        let mut cache = ResponseCache::open(&folder.path().join("answers.jsonl")).unwrap();
        let (made, _) = setting.run(12, Budget::default(), &mut cache, stop_after);
        assert!(made.is_err());
    }
    let mut cache = ResponseCache::open(&folder.path().join("answers.jsonl")).unwrap();
    assert!(rows(setting.run(12, Budget::default(), &mut cache, usize::MAX).0) == whole);
}

#[test]
fn a_probe_tells_what_the_run_will_cost_and_the_run_goes_on_from_it() {
    let mut setting = Setting::new(&["a", "b"]);
    let (whole, asked) = setting.run(30, Budget::default(), &mut ResponseCache::in_memory(), usize::MAX);
    setting.probe = true;
    let mut cache = ResponseCache::in_memory();
    let (probed, first) = setting.run(30, Budget::default(), &mut cache, usize::MAX);
    let rest = probed.unwrap().probed.unwrap();
    let (low, high) = (rest.calls.low as usize, rest.calls.high as usize);
    assert!(first < asked && (low..=high).contains(&(asked - first)), "{first} of {asked} answers, then {rest:?}");
    assert!(rest.kept.low > 10.0 && rest.seconds.is_some());
    setting.probe = false;
    let (made, further) = setting.run(30, Budget::default(), &mut cache, usize::MAX);
    assert_eq!(first + further, asked, "nothing is asked twice");
    let rows = |made: RoundsOutcome| made.leaves.into_iter().flat_map(|outcome| outcome.rows).collect::<Vec<Row>>();
    assert!(rows(made.unwrap()) == rows(whole.unwrap()));
}

#[test]
fn a_leaf_that_gives_nothing_is_given_up_and_says_why() {
    let setting = Setting::new(&["mute"]);
    let (made, answered) = setting.run(400, Budget::default(), &mut ResponseCache::in_memory(), usize::MAX);
    let outcome = &made.unwrap().leaves[0];
    assert_eq!(accepted(&outcome.rows), 0);
    let said = outcome.shortfall.as_deref().unwrap();
    assert!(said.starts_with("0 of 400 rows: ") && said.contains("no question and answer"), "{said}");
    assert!(answered <= 160, "{answered} answers before it was given up");
}

#[test]
fn a_budget_ends_the_run_and_what_was_finished_is_there() {
    let setting = Setting::new(&["a"]);
    let budget = Budget { tokens: Some(1), minutes: None };
    let made = setting.run(30, budget, &mut ResponseCache::in_memory(), usize::MAX).0.unwrap();
    assert_eq!(made.budget_ended.as_deref(), Some("the budget of 1 tokens is spent"));
    assert!(made.leaves[0].shortfall.as_deref().unwrap().ends_with("the budget of 1 tokens is spent"));
}

/// The time is over in the middle of a wave: what was answered by then is kept for the next run.
#[test]
fn minutes_end_a_wave_too() {
    let setting = Setting::new(&["a"]);
    let mut cache = ResponseCache::in_memory();
    let budget = Budget { tokens: None, minutes: Some(1e-9) };
    let (made, answered) = setting.run(30, budget, &mut cache, usize::MAX);
    let made = made.unwrap();
    assert_eq!(made.budget_ended.as_deref(), Some("the budget of 0.000000001 minutes is over"));
    assert!(made.leaves[0].rows.is_empty() && answered <= 1, "{answered}");
}
