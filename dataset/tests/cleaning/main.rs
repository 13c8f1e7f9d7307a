//! Cleaning whole files: what is planted is found, nothing else is, whatever the form, and nothing is left of what was stopped.
#![allow(clippy::unwrap_used)]

mod planted;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use espalier_dataset::quality::{
    Benchmarks, Cleaning, CleaningReport, Compared, Deduplication, Meaning, Outputs, Rules, Vectors, clean, read_items,
};
use espalier_dataset::{DatasetError, Row, Turn, Verdict, read_parquet, write_parquet};
use planted::{ITEMS, Planted, item, planted, row};
use serde_json::{Value, json};

const ROWS: u64 = 2000;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, lines: impl IntoIterator<Item = String>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, lines.into_iter().map(|line| line + "\n").collect::<String>()).unwrap();
        path
    }

    fn names(&self) -> BTreeSet<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn everything(&self) -> Cleaning {
        let items = read_items(&self.write("ponds.jsonl", (0..ITEMS).map(item))).unwrap();
        Cleaning {
            mask: true,
            rules: Some(Rules::default()),
            language: None,
            benchmarks: Some(Benchmarks::new(items)),
            deduplication: Some(deduplication()),
        }
    }
}

fn deduplication() -> Deduplication {
    Deduplication { threshold: 0.8, compared: Compared::default(), against: Vec::new(), index: None }
}

fn run(input: &Path, output: &Path, cleaning: &Cleaning) -> CleaningReport {
    let outputs = Outputs { cleaned: Some(output), rejected: None };
    clean(input, outputs, cleaning, None, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(kind: Planted) -> u64 {
    (0..ROWS).filter(|&index| planted(index) == kind).count() as u64
}

#[test]
fn what_is_planted_is_found_and_nothing_else() {
    let bench = Bench::new();
    let input = bench.write("rows.jsonl", (0..ROWS).map(row));
    let (output, rejected) = (bench.path("clean.jsonl"), bench.path("rejected.jsonl"));
    let cleaning = bench.everything();
    let outputs = Outputs { cleaned: Some(&output), rejected: Some(&rejected) };
    let mut seen = Vec::new();
    let mut progress = |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    };
    let report = clean(&input, outputs, &cleaning, None, &mut progress).unwrap().unwrap();

    for line in lines(&rejected) {
        let index: u64 = line["id"].as_str().unwrap().parse().unwrap();
        let expected = match planted(index) {
            Planted::Duplicate => "near-duplicate: ",
            Planted::Contamination => "contamination: ",
            Planted::Loop => "repetition: ",
            kind => panic!("{kind:?} is rejected: {line}"),
        };
        assert!(line["reason"].as_str().unwrap().starts_with(expected), "{line}");
        assert_eq!(line["line"].as_u64(), Some(index + 1));
        assert_eq!(line["row"]["id"], line["id"]);
        match planted(index) {
            Planted::Contamination => {
                assert!(line["hit"]["item_text"].is_string() && line["hit"]["row_text"].is_string());
            }
            Planted::Duplicate => assert!(line["duplicate"]["similarity"].as_f64().unwrap() >= 0.8),
            _ => {}
        }
    }
    let found: Vec<(&str, u64)> = report.rejected_by.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let expected = [
        ("near-duplicate", count(Planted::Duplicate)),
        ("contamination", count(Planted::Contamination)),
        ("repetition", count(Planted::Loop)),
    ];
    assert_eq!(found, expected);
    assert_eq!((report.rows, report.kept), (ROWS, lines(&output).len() as u64));
    assert_eq!(report.masked_rows, count(Planted::Personal));
    let masked: Vec<_> = report.masked.iter().map(|(kind, count)| (*kind, *count)).collect();
    assert_eq!(masked, [("credit_card", count(Planted::Personal)), ("email", count(Planted::Personal))]);
    assert_eq!(report.leaves.iter().map(|leaf| leaf.generated).sum::<u64>(), ROWS);
    assert_eq!(report.contamination.len() as u64, count(Planted::Contamination));
    assert_eq!(seen.last().map(|(done, total)| done == total), Some(true));

    // What stays, stays as it is: byte by byte where nothing was masked.
    let kept: Vec<String> = std::fs::read_to_string(&output).unwrap().lines().map(str::to_owned).collect();
    for line in &kept {
        let index: u64 = serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().parse().unwrap();
        match planted(index) {
            Planted::Nothing => assert_eq!(*line, row(index)),
            _ => assert!(line.contains("Write to [EMAIL] or pay with [CREDIT_CARD]."), "{line}"),
        }
    }
    // A clean file is clean.
    let again = run(&output, &bench.path("again.jsonl"), &cleaning);
    assert_eq!((again.kept, again.masked_rows), (again.rows, 0));
    assert_eq!(std::fs::read(bench.path("again.jsonl")).unwrap(), std::fs::read(&output).unwrap());
    assert!(bench.names().iter().all(|name| !name.contains(".part")), "{:?}", bench.names());
}

#[test]
fn a_table_keeps_its_rejected_rows_and_says_why() {
    let bench = Bench::new();
    let made = |index: u64| {
        let line: Value = serde_json::from_str(&row(index)).unwrap();
        let turn = |place: usize| {
            let turn = &line["messages"][place];
            Turn::new(turn["role"].as_str().unwrap(), turn["content"].as_str().unwrap())
        };
        let before = index % 10 == 9;
        Row {
            id: line["id"].as_str().unwrap().into(),
            leaf: "ponds".into(),
            turns: vec![turn(0), turn(1)],
            verdict: if before { Verdict::Rejected } else { Verdict::Accepted },
            reason: if before { "wrong answer: 1 is not 2".into() } else { "exact".into() },
            ..Row::default()
        }
    };
    let rows: Vec<Row> = (0..400).map(made).collect();
    let (input, output) = (bench.path("rows.parquet"), bench.path("clean.parquet"));
    write_parquet(&input, &rows).unwrap();
    let report = run(&input, &output, &bench.everything());
    let cleaned = read_parquet(&output).unwrap();
    assert_eq!((cleaned.len(), report.rows, report.rejected_before), (400, 400, 40));
    for (before, after) in rows.iter().zip(&cleaned) {
        let index: u64 = before.id.parse().unwrap();
        match planted(index) {
            _ if before.verdict == Verdict::Rejected => assert_eq!(before, after),
            Planted::Nothing => assert_eq!(before, after),
            Planted::Personal => {
                assert!(after.verdict == Verdict::Accepted && after.turns[1].content.contains("[EMAIL]"));
            }
            Planted::Duplicate => assert_eq!(after.reason_category(), "near-duplicate"),
            Planted::Contamination => assert_eq!(after.reason_category(), "contamination"),
            Planted::Loop => assert_eq!(after.reason_category(), "repetition"),
        }
    }
    let error = clean(
        &input,
        Outputs { cleaned: Some(&bench.path("x.jsonl")), rejected: None },
        &Cleaning::default(),
        None,
        &mut |_, _| ControlFlow::Continue(()),
    );
    assert!(error.unwrap_err().to_string().contains("ends in .parquet"));
}

#[test]
fn seeds_and_earlier_runs_are_known() {
    let bench = Bench::new();
    let good = |range: std::ops::Range<u64>| range.filter(|&index| planted(index) == Planted::Nothing).map(row);
    let (first, second) = (bench.write("first.jsonl", good(0..60)), bench.write("second.jsonl", good(30..90)));
    let seeds = bench.write("seeds.jsonl", good(85..88));
    let index = bench.path("known.index");
    let mut wanted = Deduplication { index: Some(index.clone()), ..deduplication() };
    wanted.against = vec![seeds];
    let cleaning = Cleaning { deduplication: Some(wanted), ..Cleaning::default() };
    let report = run(&first, &bench.path("a.jsonl"), &cleaning);
    assert_eq!((report.rows, report.kept), (55, 55));
    let report = run(&second, &bench.path("b.jsonl"), &cleaning);
    let twice = good(30..60).count() as u64;
    assert_eq!(report.rejected_by, [("near-duplicate".to_owned(), twice + 3)]);
    let kept: Vec<&str> = report.near_duplicates.iter().map(|found| found.found.kept.as_str()).collect();
    assert!(kept.contains(&"seeds.jsonl:1") && kept.contains(&"00000031"), "{kept:?}");
    // The same run again is not its own twin.
    let before = std::fs::read(bench.path("b.jsonl")).unwrap();
    assert_eq!(run(&second, &bench.path("b.jsonl"), &cleaning).kept, report.kept);
    assert_eq!(std::fs::read(bench.path("b.jsonl")).unwrap(), before);
}

#[test]
fn what_is_stopped_or_broken_leaves_nothing() {
    let bench = Bench::new();
    let input = bench.write("rows.jsonl", (0..5000).map(row));
    let index = bench.path("known.index");
    let wanted = Deduplication { index: Some(index.clone()), ..deduplication() };
    let cleaning = Cleaning { deduplication: Some(wanted), ..Cleaning::default() };
    let (output, rejected) = (bench.path("out.jsonl"), bench.path("rejected.jsonl"));
    let outputs = Outputs { cleaned: Some(&output), rejected: Some(&rejected) };
    let stopped = clean(&input, outputs, &cleaning, None, &mut |_, _| ControlFlow::Break(())).unwrap();
    assert_eq!(stopped, None);
    assert_eq!(bench.names(), BTreeSet::from(["rows.jsonl".to_owned()]));
    // A dry run says what would be, and writes nothing either.
    let dry =
        clean(&input, Outputs::default(), &cleaning, None, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap();
    assert_eq!(dry.rejected_by, [("near-duplicate".to_owned(), 200)]);
    assert_eq!(bench.names(), BTreeSet::from(["rows.jsonl".to_owned()]));
}

#[test]
fn a_row_that_cannot_be_read_is_out_and_the_others_stay() {
    let bench = Bench::new();
    let input = bench.write("rows.jsonl", [row(1), "{\"messages\": 5}".into(), "no JSON".into(), row(2)]);
    let (output, rejected) = (bench.path("out.jsonl"), bench.path("rejected.jsonl"));
    let outputs = Outputs { cleaned: Some(&output), rejected: Some(&rejected) };
    let report =
        clean(&input, outputs, &Cleaning::default(), None, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap();
    assert_eq!(report.rejected_by, [("unreadable".to_owned(), 2)]);
    assert_eq!(lines(&output).len(), 2);
    let refused = lines(&rejected);
    assert_eq!((refused[0]["line"].as_u64(), refused[1]["row"].as_str()), (Some(2), Some("no JSON")));
    // A list over several lines comes out as lines.
    let pretty: Vec<Value> = [row(1), row(2)].iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    std::fs::write(&input, serde_json::to_string_pretty(&pretty).unwrap()).unwrap();
    run(&input, &output, &Cleaning::default());
    assert_eq!(std::fs::read_to_string(&output).unwrap(), format!("{}\n{}\n", row(1), row(2)));
}

#[test]
fn what_is_said_in_other_words_goes() {
    let bench = Bench::new();
    let row = |id: &str, question: &str, answer: &str| {
        let turns = [("user", question), ("assistant", answer)]
            .map(|(role, content)| json!({"role": role, "content": content}));
        json!({"id": id, "messages": turns}).to_string()
    };
    let input = bench.write(
        "rows.jsonl",
        [
            row("frog", "Which animal sat in the pond?", "A frog."),
            row("sea", "How far down does the sea go?", "Eleven kilometres."),
            row("creature", "What creature was sitting in the pond?", "It was a frog."),
            row("seed", "Who wrote the tune?", "Bach."),
            row("city", "Where is Paris?", "In France."),
        ],
    );
    let seeds = bench.write("seeds.jsonl", [row("", "Which composer made that tune?", "Bach")]);
    let items = bench.write("deep.jsonl", [json!({"question": "How deep is the sea?", "answer": "11 km"}).to_string()]);
    let mut asked = 0;
    let mut embed = |texts: &[String]| {
        asked += texts.len();
        let topics = ["pond", "sea", "tune", "Paris"];
        let vector = |text: &String| topics.map(|topic| f32::from(u8::from(text.contains(topic)))).to_vec();
        Vectors::dense(&texts.iter().map(vector).collect::<Vec<_>>()).map_err(DatasetError::Vectors)
    };
    let cleaning = Cleaning {
        benchmarks: Some(Benchmarks::new(read_items(&items).unwrap())),
        deduplication: Some(Deduplication { against: vec![seeds], ..deduplication() }),
        ..Cleaning::default()
    };
    let meaning = Meaning { threshold: 0.9, compared: Compared::Conversation, embed: &mut embed };
    let (output, rejected) = (bench.path("out.jsonl"), bench.path("rejected.jsonl"));
    let outputs = Outputs { cleaned: Some(&output), rejected: Some(&rejected) };
    let report =
        clean(&input, outputs, &cleaning, Some(meaning), &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap();
    let kept: Vec<Value> = lines(&output).into_iter().map(|line| line["id"].clone()).collect();
    assert_eq!(kept, ["frog", "city"]);
    let reasons: Vec<Value> = lines(&rejected).into_iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(
        reasons,
        [
            "contamination: 1.00 like the question of deep:1",
            "same meaning: 1.00 like frog",
            "same meaning: 1.00 like seeds.jsonl:1"
        ]
    );
    assert_eq!((report.same_meaning.len(), report.contamination_by_meaning.len()), (2, 1));
    assert_eq!((report.same_meaning[0].row_line, report.same_meaning[0].found.of.as_str()), (3, "frog"));
    assert_eq!(report.contaminated_by["deep"], 1);
    // The item, the seed, the question of each row, and each row that was left.
    assert_eq!(asked, 1 + 1 + 5 + 4);
}
