//! Blocks of our own form together: judged, mended, checked, voted on, passed through a program.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use espalier_inference::{Answer, EngineError, Request};
use espalier_sdg::flow::{
    Budget, Flow, FlowEngine, FlowOptions, FlowResult, FlowTask, ResponseCache, Sample, read_flow, run,
};
use espalier_sdg::{HeldOut, SdgError};
use espalier_taxonomy::{Leaf, Seed, Verify};
use serde_json::json;

use crate::script::{Run, answer_of, flow_of, samples, text_of};

const FLOW: &str = r"
espalier: 1
outputs: [question, response]
blocks:
  - {name: answer, type: llm, prompt: answer.jinja, output: response}
  - {name: right, type: judge, prompt: judge.jinja, reading: json, votes: 2}
  - {name: mend, type: repair, of: right, prompt: mend.jinja, output: response, tries: 2}
  - {name: own, type: verify}
  - {name: long, type: verify, check: {expression: {expression: 'response | length > 5'}}}
  - {name: thrice, type: each, count: 3, block: {type: llm, prompt: count.jinja, output: number, temperature: 1}}
  - {name: most, type: vote, by: question, column: number}
  - {name: shout, type: command, run: [sed, -e, 's/toad/TOAD/'], output: []}
  - {name: mapped, type: map, columns: {words: 'response.split() | length'}}
";

const PROMPTS: [(&str, &str); 4] = [
    ("answer.jinja", "{% filter turn('user') %}Answer {{ question }}{% endfilter %}"),
    ("judge.jinja", "{% filter turn('user') %}Judge {{ response }}{% endfilter %}"),
    ("mend.jinja", "{% filter turn('user') %}Mend {{ response }} as {{ reason }}{% endfilter %}"),
    ("count.jinja", "{% filter turn('user') %}Count {{ question }}{% endfilter %}"),
];

fn flow() -> (tempfile::TempDir, Flow) {
    let folder = tempfile::tempdir().unwrap();
    let flow = flow_of(folder.path(), FLOW, &PROMPTS);
    assert_eq!(flow.check(&["question".to_owned()].into(), &["teacher"]), []);
    assert_eq!(flow.engines(), ["judge", "teacher"]);
    (folder, flow)
}

fn leaf() -> Leaf {
    let verify = Some(Verify::Regex { pattern: "toad".into() });
    Leaf { id: "leaf".into(), verify, ..Leaf::default() }
}

fn questions() -> Vec<Sample> {
    samples(&[json!({"question": "one"}), json!({"question": "two"}), json!({"question": "three"})])
}

/// One answer is right at once, one when it is mended, one never.
fn script(request: &Request, _: usize) -> String {
    let text = text_of(request);
    let said = match text.split_once(' ').unwrap() {
        ("Answer", "one") => "A toad.",
        ("Answer", "two") => "A frog.",
        ("Answer", _) => "A crow.",
        ("Mend", rest) if rest.starts_with("A frog") => {
            assert!(rest.ends_with(
                "as judged poor: {\"reason\": \"r\", \"score\": \"No\"}\n\n{\"reason\": \"r\", \"score\": \"No\"}"
            ));
            "A small toad."
        }
        ("Mend", _) => "Still a crow.",
        ("Judge", rest) if rest.contains("toad") => "{\"reason\": \"r\", \"score\": \"Yes\"}",
        ("Count", _) => ["1", "2"][usize::from(request.seed.is_multiple_of(3))],
        _ => "{\"reason\": \"r\", \"score\": \"No\"}",
    };
    said.to_owned()
}

#[test]
fn rows_are_judged_mended_checked_and_voted_on() {
    let (_folder, flow) = flow();
    let mut run = Run { leaf: leaf(), ..Run::default() };
    let mut result = run.flow(&flow, questions(), &script).unwrap().results.remove(0);
    result.kept.sort_by_key(|row| row.text("question").map(str::to_owned));
    let rows: Vec<(&str, &str)> =
        result.kept.iter().map(|row| (row.text("question").unwrap(), row.text("response").unwrap())).collect();
    assert_eq!(rows, [("one", "A TOAD."), ("two", "A small TOAD.")]);
    assert_eq!(result.kept[1].columns["words"], json!(3));
    let scores: Vec<&str> = result.kept[1].scores.iter().map(|(block, _)| block.as_str()).collect();
    assert_eq!(scores, ["right", "right", "own", "long", "most"]);
    assert_eq!(result.kept[1].scores[0].1.to_bits(), 0.0_f64.to_bits(), "what the judge said at first stays");
    let lost = &result.rejected[0];
    assert_eq!((lost.block.as_str(), lost.category, lost.score), ("right", "judged poor", Some(0.0)));
    assert_eq!(lost.sample.text("response"), Some("Still a crow."));
    let mend = result.blocks.iter().find(|block| block.block == "mend").unwrap();
    assert_eq!((mend.rows_in, mend.rows_out, mend.rejected["judged poor"]), (3, 2, 1));
    let votes = result.rejected.iter().filter(|row| row.block == "most").count();
    assert_eq!(votes, 4, "of three answers to each question one stays");
}

#[test]
fn a_stop_anywhere_changes_nothing() {
    let (folder, flow) = flow();
    let mut unbroken = Run { leaf: leaf(), ..Run::default() };
    let whole = unbroken.flow(&flow, questions(), &script).unwrap();
    for stop_after in 1..=unbroken.asked.len() {
        let path = folder.path().join(format!("{stop_after}.jsonl"));
        let run = |stop_after| {
            let cache = ResponseCache::open(&path).unwrap();
            let backwards = |count: usize| (0..count).rev().collect();
            Run { leaf: leaf(), cache, stop_after, order: &backwards, ..Run::default() }.flow(
                &flow,
                questions(),
                &script,
            )
        };
        assert!(matches!(run(stop_after), Err(SdgError::Interrupted { .. })), "{stop_after}");
        assert_eq!(run(usize::MAX).unwrap().results[0].kept, whole.results[0].kept, "{stop_after}");
    }
}

#[test]
fn a_judge_that_is_told_to_record_drops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = "espalier: 1\nblocks:\n  - {name: right, type: judge, prompt: judge.jinja, reject: false}\n";
    let flow = flow_of(folder.path(), text, &[("judge.jinja", "{% filter turn('user') %}Judge it{% endfilter %}")]);
    let result = Run::default().flow(&flow, questions(), &script).unwrap().results.remove(0);
    assert_eq!((result.kept.len(), result.kept[0].scores.len()), (3, 1));
}

type OnAnswer<'a> = &'a mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>;

/// Says the same to every request, and notes what was asked.
fn saying<'a>(
    said: &'static str,
    asked: &'a RefCell<Vec<String>>,
) -> impl FnMut(&[Request], OnAnswer<'_>) -> Result<(), EngineError> + 'a {
    move |requests, on_answer| {
        for (index, request) in requests.iter().enumerate() {
            asked.borrow_mut().push(text_of(request));
            let _ = on_answer(index, Ok(answer_of(said)));
        }
        Ok(())
    }
}

#[test]
fn a_judge_of_its_own_gets_what_is_to_be_judged_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let text = "espalier: 1\nblocks:\n  - {name: answer, type: llm, prompt: answer.jinja, output: response}\n  \
                - {name: right, type: judge, prompt: judge.jinja, reading: json}\n";
    let prompts = [
        ("answer.jinja", "{% filter turn('user') %}Answer {{ question }}{% endfilter %}"),
        ("judge.jinja", "{% filter turn('user') %}Judge {{ response }}{% endfilter %}"),
    ];
    let flow = flow_of(folder.path(), text, &prompts);
    let (written, judged) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let mut teacher = saying("Because.", &written);
    let mut judge = saying("{\"reason\": \"r\", \"score\": \"No\"}", &judged);
    let mut engines = BTreeMap::from([
        ("teacher".to_owned(), FlowEngine::in_waves("t", &mut teacher)),
        ("judge".to_owned(), FlowEngine::in_waves("j", &mut judge)),
    ]);
    let leaf = Leaf { id: "leaf".to_owned(), ..Leaf::default() };
    let held_out = HeldOut::default();
    let task = FlowTask { leaf: &leaf, flow: &flow, sources: questions(), held_out: &held_out, elsewhere: Vec::new() };
    let stop = AtomicBool::new(false);
    let options = FlowOptions { seed: 7, scale: 1, budget: Budget::default(), stop: &stop };
    let made = run(&[task], &mut engines, &mut ResponseCache::in_memory(), &options, &mut |_| {}).unwrap();
    assert_eq!((made.results[0].kept.len(), made.results[0].rejected.len()), (0, 3));
    let (written, judged) = (written.borrow(), judged.borrow());
    assert!(written.len() == 3 && written.iter().all(|text| text.starts_with("Answer ")), "{written:?}");
    assert!(judged.iter().any(|text| text.starts_with("Judge Because.")), "{judged:?}");
    assert!(!judged.iter().any(|text| text.starts_with("Answer one")), "{judged:?}");
}

const CALIBRATED: &str = r"
espalier: 1
outputs: [question, response]
blocks:
  - name: right
    type: judge
    prompt: pair.jinja
    reading: json
    scale: [awful, bad, fair, good]
    on_poor: ON_POOR
    calibrate: {}
";

/// A calibrated judge over two rows, with a leaf of ten seeds.
fn judged(on_poor: &str, script: &dyn Fn(&Request, usize) -> String) -> Result<FlowResult, SdgError> {
    let folder = tempfile::tempdir().unwrap();
    let pair = ("pair.jinja", "{% filter turn('user') %}{{ question }} {{ response }}{% endfilter %}");
    let flow = flow_of(folder.path(), &CALIBRATED.replace("ON_POOR", on_poor), &[pair]);
    assert_eq!(flow.check(&["question".to_owned(), "response".to_owned()].into(), &["teacher"]), []);
    let seed = |number: usize| Seed {
        question: format!("Who lives in pond {number}?"),
        answer: format!("In pond {number} there lives a toad."),
        ..Seed::default()
    };
    let leaf = Leaf { id: "leaf".into(), seeds: (0..10).map(seed).collect(), ..Leaf::default() };
    let rows = samples(&[
        json!({"question": "Who lives in pond 30?", "response": "In pond 30 there lives a toad."}),
        json!({"question": "Who lives in pond 31?", "response": "In pond 30 there lives a toad."}),
    ]);
    Ok(Run { leaf, ..Run::default() }.flow(&flow, rows, script)?.results.remove(0))
}

fn rating(word: &str) -> String {
    format!("{{\"reason\": \"r\", \"score\": \"{word}\"}}")
}

/// Finds right answers bad and wrong ones awful, as small judges do.
fn stern(request: &Request, _: usize) -> String {
    let text = text_of(request);
    let pond = text.split("pond ").nth(1).and_then(|rest| rest.split('?').next()).unwrap_or_default().to_owned();
    rating(if text.contains(&format!("In pond {pond} there lives a toad.")) { "bad" } else { "awful" })
}

#[test]
fn a_judge_drops_rows_by_what_it_showed_on_planted_ones() {
    let result = judged("stop", &stern).unwrap();
    assert_eq!(result.kept.len(), 1);
    assert_eq!(result.kept[0].text("question"), Some("Who lives in pond 30?"));
    assert_eq!((result.rejected[0].category, result.rejected[0].score), ("judged poor", Some(0.0)));
    assert_eq!(
        result.blocks[0].notes,
        [
            "a good judge: area under the curve 1.00 (0.80 to 1.00); at 0.17 it passes 100 % of 10 good and 0 % of 10 bad planted \
         rows"
        ]
    );
    assert_eq!(result.blocks[0].usage.answers, 1 + 20 + 2);
}

#[test]
fn a_judge_that_cannot_tell_planted_rows_apart_drops_none_or_ends_the_run() {
    let kind = |_: &Request, _: usize| rating("awful");
    let result = judged("record", &kind).unwrap();
    assert_eq!((result.kept.len(), result.kept[0].scores.len()), (2, 1));
    assert!(result.blocks[0].notes[0].ends_with("its scores are recorded and reject nothing"), "{:?}", result.blocks);
    assert_eq!(judged("trust", &kind).unwrap().kept.len(), 0);
    let error = judged("stop", &kind).unwrap_err().to_string();
    assert!(error.starts_with("the block right fails: leaf leaf: a poor judge: "), "{error}");
    // An expression decides in the place of a poor judge, and of no other.
    let otherwise = "record\n    otherwise: \"'pond 30' in question\"";
    let result = judged(otherwise, &kind).unwrap();
    assert_eq!((result.kept.len(), result.kept[0].text("question")), (1, Some("Who lives in pond 30?")));
    assert_eq!((result.rejected[0].category, result.rejected[0].score), ("filtered", None));
    assert_eq!(result.rejected[0].detail, "not 'pond 30' in question");
    let said = judged(&format!("{otherwise}\n    reason: another pond"), &kind).unwrap();
    assert_eq!(said.rejected[0].detail, "another pond");
    let note = &result.blocks[0].notes[0];
    assert!(note.ends_with("; it is asked no more, rows must satisfy `'pond 30' in question` in its place"), "{note}");
    assert!(note.starts_with("a poor judge: area") && !note.contains("recorded"), "{note}");
    assert_eq!(result.blocks[0].usage.answers, 1 + 20, "no row costs an answer of a judge that decides nothing");
    let result = judged("record\n    otherwise: \"'pond 31' in question\"", &stern).unwrap();
    assert_eq!(result.kept[0].text("question"), Some("Who lives in pond 30?"), "the judge is good and decides");
}

#[test]
fn planted_rows_are_spoiled_in_ways_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let text = "espalier: 1\nblocks:\n  - {name: right, type: judge, prompt: p.jinja, calibrate: {spoil: all}}\n";
    std::fs::write(folder.path().join("flow.yaml"), text).unwrap();
    std::fs::write(folder.path().join("p.jinja"), "{% filter turn('user') %}x{% endfilter %}").unwrap();
    let findings = read_flow(&folder.path().join("flow.yaml")).unwrap_err();
    let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("flow.yaml:3:68: error: `spoil: all` is no way to spoil a planted row"), "{said:?}");
    assert!(said[0].contains("`answer`, `subject`") && said[0].contains("`reference`"), "{said:?}");
}

#[test]
fn what_decides_in_the_place_of_a_judge_needs_a_calibration_and_columns() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.jinja"), "{% filter turn('user') %}x{% endfilter %}").unwrap();
    for (keys, finding) in [
        ("otherwise: answer == 'x'", "flow.yaml:3:60: error: `otherwise` decides where a judge"),
        ("reason: not so", "flow.yaml:3:57: error: `reason` is what is said of rows that `otherwise` refuses"),
    ] {
        let judge = format!("- {{name: right, type: judge, prompt: p.jinja, {keys}}}");
        std::fs::write(folder.path().join("flow.yaml"), format!("espalier: 1\nblocks:\n  {judge}\n")).unwrap();
        let findings = read_flow(&folder.path().join("flow.yaml")).unwrap_err();
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains(finding), "{said:?}");
    }
    let flow = CALIBRATED.replace("ON_POOR", "record\n    otherwise: answer == 'x'");
    let pair = ("pair.jinja", "{% filter turn('user') %}{{ question }}{% endfilter %}");
    let found = flow_of(folder.path(), &flow, &[pair])
        .check(&["question".to_owned(), "response".to_owned()].into(), &["teacher"]);
    assert!(
        found.iter().any(|found| found.to_string().contains("`answer == 'x'` needs `answer`, which no block")),
        "{found:?}"
    );
}

#[test]
fn a_calibrated_judge_sees_no_column_that_planted_rows_lack() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = ("pair.jinja", "{% filter turn('user') %}{{ question }} {{ kind }}{% endfilter %}");
    let flow = flow_of(folder.path(), &CALIBRATED.replace("ON_POOR", "record"), &[prompt]);
    let columns = ["question", "response", "kind"].map(str::to_owned).into();
    let findings = flow.check(&columns, &["teacher"]);
    let said = findings[0].to_string();
    assert!(said.contains("flow.yaml:11:") && said.contains("shows `kind`, which the planted rows"), "{said}");
}
