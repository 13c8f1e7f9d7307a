//! Blocks of our own form together: judged, mended, checked, voted on, passed through a program.

use espalier_inference::Request;
use espalier_sdg::SdgError;
use espalier_sdg::flow::{Flow, ResponseCache, Sample};
use espalier_taxonomy::{Leaf, Verify};
use serde_json::json;

use crate::script::{Run, flow_of, samples, text_of};

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
    assert_eq!(flow.engines(), ["teacher"]);
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
