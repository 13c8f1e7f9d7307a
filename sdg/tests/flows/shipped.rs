//! The flows that come with the program: good for the leaves that they are for, and right in what they keep.

use espalier_inference::Request;
use espalier_sdg::flow::{
    Flow, FlowRun, SHIPPED, Sample, SourceSettings, read_flow, read_flows, shipped, source_columns, sources,
};
use espalier_taxonomy::{Document, Leaf, LeafKind, QuestionTemplate, Seed, Slot, Tree, Verify};
use serde_json::json;

use crate::script::{Run, text_of};

const TOAD: &str = "A brown toad lived in the pond. It was 12 years old and ate beetles.";

fn leaf(kind: LeafKind) -> Leaf {
    let seed = |number: usize| Seed {
        question: format!("Which bird is number {number}?"),
        answer: format!("The bird with the number {number} is a duck."),
        context: (kind != LeafKind::FreeformSkill).then(|| format!("Duck {number} came to the lake.")),
        line: 1,
        ..Seed::default()
    };
    Leaf {
        id: "leaf".into(),
        kind,
        task_description: "Answer.".into(),
        document_outline: Some("A pond".into()),
        domain: Some("ponds".into()),
        seeds: (0..5).map(seed).collect(),
        documents: vec![Document { path: "pond.md".into(), text: TOAD.into() }],
        ..Leaf::default()
    }
}

fn of_kind(name: &str, kind: LeafKind) -> Flow {
    let path = shipped(name).unwrap();
    if path.extension().is_some() {
        read_flow(&path).unwrap_or_else(|findings| panic!("{findings:#?}"))
    } else {
        read_flows(&path).unwrap_or_else(|findings| panic!("{findings:#?}")).of(kind).unwrap().clone()
    }
}

fn run(flow: &Flow, leaf: Leaf, rows: Vec<Sample>, script: &dyn Fn(&Request, usize) -> String) -> FlowRun {
    Run { leaf, scale: 2, ..Run::default() }.flow(flow, rows, script).unwrap()
}

fn rows_of(leaf: &Leaf) -> Vec<Sample> {
    let tree = Tree { leaves: vec![leaf.clone()], ..Tree::default() };
    sources(&tree, leaf, &SourceSettings::default(), &|text| text.len() / 4).unwrap()
}

/// Yes to every judge: in JSON, as the scripted engine tells no log-probabilities.
fn judged(request: &Request) -> Option<String> {
    text_of(request).contains("\"score\" is one of").then(|| r#"{"reason": "so", "score": "Yes"}"#.to_owned())
}

#[test]
fn every_shipped_flow_fits_its_leaves() {
    const KINDS: [LeafKind; 3] = [LeafKind::Knowledge, LeafKind::FreeformSkill, LeafKind::GroundedSkill];
    for flow in SHIPPED {
        let kinds: &[LeafKind] = match flow.name {
            "simple" | "full" => &KINDS,
            "multi_turn" | "multiple_choice" => &KINDS[..1],
            _ => &KINDS[1..2],
        };
        for kind in kinds {
            let mut leaf = leaf(*kind);
            if matches!(flow.name, "template" | "rejection_sampling") {
                leaf.questions = Some(template());
            }
            let columns = source_columns(&leaf);
            assert_eq!(of_kind(flow.name, *kind).check(&columns, &["teacher"]), [], "{} for {kind}", flow.name);
        }
        assert!(include_str!("../../../docs/flows.md").contains(&format!("| `{}` |", flow.name)), "{}", flow.name);
    }
}

#[test]
fn a_small_teacher_keeps_what_the_document_says_twice() {
    let leaf = leaf(LeafKind::Knowledge);
    let flow = of_kind("simple", LeafKind::Knowledge);
    let script = |request: &Request, _: usize| {
        let text = text_of(request);
        if let Some(yes) = judged(request) {
            return yes;
        }
        if text.contains("Write one question about this text and its answer.") {
            let written = [
                "How old was the brown toad?\nAnswer: The toad was 12 years old.",
                "What was eaten by the toad?\nAnswer: The toad ate purple elephants.",
                "Where lived the brown toad?\nAnswer: The brown toad lived in the pond.\n\nQuestion: More?\nAnswer: No.",
                "Toad\nAnswer: Toad",
            ];
            return format!("Question: {}", written[usize::try_from(request.seed % 4).unwrap()]);
        }
        // The second answer to the question about its home is another one.
        if text.ends_with("How old was the brown toad?") { "It was 12 years old.".into() } else { "In 1882.".into() }
    };
    let rows: Vec<Sample> =
        (0..12).flat_map(|number| rows_of(&Leaf { id: format!("leaf{number}"), ..leaf.clone() })).collect();
    let found = run(&flow, leaf, rows, &script);
    let result = &found.results[0];
    assert_eq!(result.kept.len(), 1, "{:?}", result.kept);
    assert_eq!(result.kept[0].text("response"), Some("The toad was 12 years old."));
    assert_eq!(result.kept[0].scores, [("faithful".to_owned(), 1.0)]);
    let mut reasons: Vec<&str> = result.rejected.iter().map(|row| row.block.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons, ["agreed", "is_a_question", "once", "supported"]);
}

#[test]
fn a_sentence_of_the_document_answers_the_question_that_is_written_for_it() {
    let leaf = leaf(LeafKind::Knowledge);
    let flow = of_kind("full", LeafKind::Knowledge);
    let script = |request: &Request, _: usize| {
        let text = text_of(request);
        if let Some(yes) = judged(request) {
            return yes;
        }
        if text.contains("Take everything from the text") {
            return "In the pond lived a brown toad, 12 years old. It ate beetles.".into();
        }
        if let Some((_, sentence)) = text.rsplit_once("Write the question to which this is the answer: ") {
            assert!(!sentence.starts_with("It "), "{sentence}");
            let asked = if sentence.starts_with("In the pond") {
                "What lived in the pond?"
            } else {
                "Where lived the brown toad?"
            };
            return asked.into();
        }
        if text.contains("Write one question") {
            let written = ["When was the pond dry?\nAnswer: The pond was dry at 12.", "Is it so?\nAnswer: It is so."];
            return format!("Question: {}", written[usize::try_from(request.seed % 2).unwrap()]);
        }
        match text.rsplit('\n').next().unwrap() {
            "Where lived the brown toad?" => "In the pond.".into(),
            "What lived in the pond?" => "A brown toad of 12 years.".into(),
            _ => "Nobody knows.".into(),
        }
    };
    let found = run(&flow, leaf.clone(), rows_of(&leaf), &script);
    let result = &found.results[0];
    let kept: Vec<_> =
        result.kept.iter().map(|row| (row.text("question").unwrap(), row.text("response").unwrap())).collect();
    assert_eq!(
        kept,
        [
            ("Where lived the brown toad?", "A brown toad lived in the pond."),
            ("What lived in the pond?", "In the pond lived a brown toad, 12 years old.")
        ]
    );
    let mut reasons: Vec<&str> = result.rejected.iter().map(|row| row.block.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    // No judge can tell planted rows apart here, so that words decide: "Is it so?" has none of the text.
    assert_eq!(reasons, ["agreed", "once", "relevant"]);
}

#[test]
fn four_choices_hold_one_right_answer_at_an_even_place() {
    let leaf = leaf(LeafKind::Knowledge);
    let flow = of_kind("multiple_choice", LeafKind::Knowledge);
    let rows: Vec<Sample> = (0..120)
        .flat_map(|number| {
            let document = Document { text: format!("{TOAD} {number}"), ..leaf.documents[0].clone() };
            rows_of(&Leaf { documents: vec![document], seeds: leaf.seeds[..1].to_vec(), ..leaf.clone() })
        })
        .collect();
    let script = |request: &Request, _: usize| {
        let text = text_of(request);
        if text.ends_with("Answer with its letter alone.") {
            let place = text.find("the right one").unwrap();
            return text[..place - 2].chars().next_back().unwrap().to_string();
        }
        json!({"question": format!("Which is right of {}?", request.seed), "right": "the right one", "wrong": ["x", "y", "z"]})
            .to_string()
    };
    let found = run(&flow, leaf, rows, &script);
    let kept = &found.results[0].kept;
    assert_eq!(kept.len(), 120, "{:?}", found.results[0].rejected.first());
    let mut letters = [0; 4];
    for row in kept {
        let place = "ABCD".find(row.text("letter").unwrap()).unwrap();
        assert_eq!(row.columns["choices"][place], "the right one");
        assert_eq!(row.columns["choices"].as_array().unwrap().len(), 4);
        assert!(row.text("response").unwrap().ends_with("the right one"));
        letters[place] += 1;
    }
    assert!(letters.iter().all(|count| (15..=45).contains(count)), "{letters:?}");
}

fn template() -> QuestionTemplate {
    QuestionTemplate {
        template: "What is {{ n }} + 1?".into(),
        slots: [("n".to_owned(), Slot::IntegerRange { from: 1, to: 60, step: 1 })].into(),
        ..QuestionTemplate::default()
    }
}

#[test]
fn drawn_questions_keep_right_answers_alone() {
    let verify = Some(Verify::Exact { expression: "n + 1".into(), ignore_case: false });
    let leaf = Leaf { verify, questions: Some(template()), samples: Some(20), ..leaf(LeafKind::FreeformSkill) };
    let right = |request: &Request| -> i64 {
        let text = text_of(request);
        text.rsplit("What is ").next().unwrap().split(' ').next().unwrap().parse::<i64>().unwrap() + 1
    };
    let script = |request: &Request, time: usize| match (request.seed + time as u64) % 4 {
        0 => format!(" {}.", right(request)),
        1 => format!("\"{}\"", right(request)),
        _ => "no idea".to_owned(),
    };
    for (name, most) in [("template", 1), ("rejection_sampling", 2)] {
        let found = run(&of_kind(name, LeafKind::FreeformSkill), leaf.clone(), rows_of(&leaf), &script);
        let kept = &found.results[0].kept;
        assert!(kept.len() > 5, "{name} keeps {}", kept.len());
        for row in kept {
            let truth = row.columns["n"].as_i64().unwrap() + 1;
            assert_eq!(row.text("response"), Some(truth.to_string().as_str()), "{name}");
        }
        for row in kept {
            let same = kept.iter().filter(|other| other.text("question") == row.text("question")).count();
            assert!(same <= most, "{name} keeps {same} of {:?}", row.text("question"));
        }
    }
}
