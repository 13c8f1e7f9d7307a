//! Flows of leaves whose seeds are conversations.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use espalier_dataset::{Row, Verdict};
use espalier_inference::{Prompt, Request};
use espalier_sdg::flow::{Budget, FlowEngine, ResponseCache, SourceSettings, read_flow, read_flows, shipped, sources};
use espalier_sdg::{LeafRounds, RoundOptions, run_rounds};
use espalier_taxonomy::{ChunkSettings, Document, Exchange, Leaf, LeafKind, Seed, TestItem, Tree};

use crate::script::{Run, answer_of, text_of};

fn leaf(kind: LeafKind) -> Leaf {
    let context = (kind == LeafKind::Knowledge).then(|| "A duck came to the mill.".to_owned());
    let conversation = Seed {
        history: vec![Exchange { user: "Who came to the mill?".into(), assistant: "A duck came.".into() }],
        question: "And where from?".into(),
        answer: "From the lake.".into(),
        context: context.clone(),
        ..Seed::default()
    };
    let plain = Seed { question: "Who is it?".into(), answer: "A frog.".into(), context, ..Seed::default() };
    let document = Document { path: "pond.md".into(), text: "A brown toad lived in the pond.".into() };
    Leaf {
        id: "leaf".into(),
        kind,
        task_description: "Answer.".into(),
        document_outline: Some("A pond".into()),
        seeds: vec![plain.clone(), Seed { question: "What is it?".into(), ..plain }, conversation],
        documents: vec![document],
        test: vec![TestItem { question: "Is it held out?".into(), answer: "Yes".into(), ..TestItem::default() }],
        ..Leaf::default()
    }
}

/// Yes to every judge, and to the question that asks whether probabilities are told.
fn judged(request: &Request) -> Option<String> {
    let text = text_of(request);
    let plain = text.ends_with("Answer Yes or No.").then(|| "Yes".to_owned());
    plain.or_else(|| text.contains("\"score\" is one of").then(|| r#"{"reason": "so", "score": "Yes"}"#.to_owned()))
}

/// The rows of the flow `simple` where the teacher writes the same question to all that it is asked.
fn simple(question: &str) -> Vec<Row> {
    let tree = Tree { leaves: vec![leaf(LeafKind::FreeformSkill)], ..Tree::default() };
    let set = read_flows(&shipped("simple").unwrap()).unwrap();
    let flow = set.of(LeafKind::FreeformSkill).unwrap();
    let plans = [LeafRounds { leaf: &tree.leaves[0], flow, wanted: 1 }];
    let stop = AtomicBool::new(false);
    let options = RoundOptions {
        tree: &tree,
        seed: 1,
        chunks: &ChunkSettings::default(),
        count_tokens: &|text| text.len(),
        scale: 1,
        rounds: 1,
        budget: Budget::default(),
        probe: false,
        stop: &stop,
    };
    let mut engine = |requests: &[Request], on_answer: &mut dyn FnMut(usize, _) -> ControlFlow<()>| {
        for (index, request) in requests.iter().enumerate() {
            let written = || {
                let shown = "Question: User: Who came to the mill?\nAssistant: A duck came.\nUser: And where from?\n\
                             Answer: From the lake.";
                assert!(text_of(request).contains(shown), "{}", text_of(request));
                format!("Question: {question}\nAnswer: So it is.")
            };
            let text = judged(request).unwrap_or_else(written);
            if on_answer(index, Ok(answer_of(&text))) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    };
    let teacher = FlowEngine::in_waves("scripted", &mut engine);
    let mut engines = BTreeMap::from([("teacher".to_owned(), teacher)]);
    let mut cache = ResponseCache::in_memory();
    let made = run_rounds(&plans, &options, &mut engines, &mut cache, &mut |_, _| Ok(()), &mut |_| {}).unwrap();
    made.leaves.into_iter().flat_map(|outcome| outcome.rows).collect()
}

#[test]
fn a_question_in_the_manner_of_a_conversation_is_a_row_of_several_turns() {
    let rows = simple("User: Who sat there?\nAssistant: A cat sat.\nUser: And why?");
    let row = rows.iter().find(|row| row.verdict == Verdict::Accepted).unwrap();
    let said: Vec<(&str, &str)> = row.turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect();
    assert_eq!(
        said,
        [("user", "Who sat there?"), ("assistant", "A cat sat."), ("user", "And why?"), ("assistant", "So it is.")]
    );
    for (question, reason) in [
        ("User: Who sat there?\nUser: And why?", "no conversation: its turns do not alternate"),
        ("User: Is it held out?\nAssistant: Yes.\nUser: And why?", "held-out question"),
    ] {
        let rows = simple(question);
        assert!(rows.iter().any(|row| row.reason == reason), "{question}: {rows:?}");
        assert!(rows.iter().all(|row| row.verdict == Verdict::Rejected));
    }
}

#[test]
fn the_flow_of_conversations_shows_those_of_the_seeds_turn_by_turn() {
    let leaf = leaf(LeafKind::Knowledge);
    let tree = Tree { leaves: vec![leaf.clone()], ..Tree::default() };
    let rows = sources(&tree, &leaf, &SourceSettings::default(), &|text| text.len() / 4).unwrap();
    let flow = read_flow(&shipped("multi_turn").unwrap()).unwrap();
    let mut run = Run { leaf, scale: 1, ..Run::default() };
    let script = |request: &Request, _: usize| {
        let text = text_of(request);
        let Prompt::Chat(turns) = &request.prompt else { panic!("turns") };
        let last = turns.last().unwrap().content.as_str();
        judged(request).unwrap_or_else(|| {
            if last.starts_with("Write one question about this text") {
                let shown = "Question: Who came to the mill?\nAnswer: A duck came.";
                assert!(turns.iter().any(|turn| turn.content == shown), "its opening, not its end: {turns:?}");
                "Question: What lived in the pond?\nAnswer: A brown toad.".into()
            } else if last.contains("Write what the user asks next") {
                assert_eq!((turns.len(), turns[1].content.as_str()), (3, "And where from?"), "{turns:?}");
                "Was it old?".into()
            } else {
                assert!(text.contains("A duck came. And where from? From the lake."), "{text}");
                assert_eq!((turns.len(), last), (7, "Was it old?"));
                "Nobody knows.".into()
            }
        })
    };
    let found = run.flow(&flow, rows, &script).unwrap();
    let kept = &found.results[0].kept;
    assert_eq!(kept.len(), 1, "{:?}", found.results[0].rejected);
    let messages = kept[0].columns["messages"].as_array().unwrap();
    let said: Vec<&str> = messages.iter().filter_map(|message| message["content"].as_str()).collect();
    assert_eq!(said, ["What lived in the pond?", "A brown toad.", "Was it old?", "Nobody knows."]);
}
