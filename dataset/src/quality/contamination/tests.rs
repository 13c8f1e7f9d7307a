use super::*;

fn item(line: usize, question: &str, choices: &[&str], answer: &str) -> Item {
    Item {
        benchmark: "ponds".into(),
        line,
        question: question.into(),
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
        answer: answer.into(),
    }
}

fn benchmarks() -> Benchmarks {
    Benchmarks::new(vec![
        item(1, "What is the capital of France?", &["Paris", "Rome"], "Paris"),
        item(
            2,
            "A farmer digs a pond that is four metres long, three metres wide and two metres deep. How much water fits in?",
            &[],
            "Four times three is twelve square metres, and twelve times two metres of depth makes 24 cubic metres of water in all.",
        ),
        item(
            3,
            "Which of these is right?",
            &[
                "Frogs breathe through their skin when they winter at the bottom",
                "Frogs fly south",
                "Frogs burn leaves to stay warm",
            ],
            "Frogs breathe through their skin when they winter at the bottom",
        ),
        item(4, "Which of the following is an example of a chemical change?", &[], "rust"),
        item(5, "Which of the following is an example of a physical change?", &[], "ice"),
        item(6, "Which of the following is an example of a mammal?", &[], "whale"),
    ])
}

fn lines(question: &str, answer: &str) -> Vec<(usize, Part)> {
    benchmarks().hits(&Sample::pair("", question, answer)).iter().map(|hit| (hit.line, hit.part)).collect()
}

#[test]
fn a_short_question_counts_whole() {
    assert_eq!(lines("what is the capital of FRANCE", "Lyon"), [(1, Part::Question)]);
    assert_eq!(
        lines("Here is a quiz.\n\nQuestion: What is the capital of France?\nA. Paris", "A"),
        [(1, Part::Question)]
    );
    assert_eq!(lines("Write a question.", "What is the capital of France?"), [(1, Part::Question)]);
    assert_eq!(lines("What is the capital of Spain?", "Paris"), []);
    assert_eq!(lines("Tell me what is the capital of France and how many live there.", "Paris"), []);
}

#[test]
fn half_of_the_runs_is_a_hit_and_both_sides_are_told() {
    let question =
        "My neighbour digs a pond that is four metres long, three metres wide and two metres deep. What does it cost?";
    let hits = benchmarks().hits(&Sample::pair("", question, "A lot."));
    assert_eq!(hits.len(), 1);
    let hit = &hits[0];
    // 22 words are 15 runs; 15 of the words are left in one piece: 8 runs.
    assert_eq!((hit.line, hit.part), (2, Part::Question));
    assert!((hit.contained.question - 8.0 / 15.0).abs() < 1e-9, "{}", hit.contained.question);
    assert!(hit.contained.answer.abs() < 1e-9);
    assert!(hit.row_text.starts_with("digs a pond that is four metres long"), "{}", hit.row_text);
    assert!(hit.item_text.starts_with("A farmer digs"));
    assert_eq!(hit.reason(), "contamination: 0.53 of the question of ponds:2");
    assert_eq!(lines("A pond is four metres long, three metres wide and cold. How cold?", "Very."), []);
}

#[test]
fn answers_and_choices_are_scored_apart() {
    let solved =
        "Four times three is twelve square metres, and twelve times two metres of depth makes 24 cubic metres.";
    assert_eq!(lines("How big is my pool?", solved), [(2, Part::Answer)]);
    let listed = "A. Frogs breathe through their skin when they winter at the bottom B. Frogs fly south";
    assert_eq!(lines("How do frogs live through the cold?", listed), [(3, Part::Choices)]);
    // A short choice may be said by anybody.
    assert_eq!(lines("What do birds do?", "Some birds fly south."), []);
}

#[test]
fn what_many_questions_have_in_common_says_nothing() {
    assert_eq!(lines("Which of the following is an example of a tool?", "hammer"), []);
    assert_eq!(lines("Which of the following is an example of a mammal?", "whale"), [(6, Part::Question)]);
}

#[test]
fn long_parts_are_held_against_longer_runs() {
    let long: Vec<String> = (0..80).map(|i| format!("w{i}")).collect();
    let known = Benchmarks::new(vec![item(1, &long.join(" "), &[], "")]);
    let share = |text: &str| known.hits(&Sample::pair("", text, "")).first().map(|hit| hit.contained.question);
    // Every twelfth word exchanged leaves no run of 13.
    let sieved: Vec<String> =
        long.iter().enumerate().map(|(i, w)| if i % 12 == 0 { "x".into() } else { w.clone() }).collect();
    assert_eq!(share(&sieved.join(" ")), None);
    assert_eq!(share(&long[..60].join(" ")), Some(48.0 / 68.0));
}

#[test]
fn files_of_known_benchmarks_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.jsonl");
    let file = [
        r#"{"question": "Q1", "choices": ["a", "b"], "answer": 1}"#,
        r#"{"question": "Q2", "choices": {"text": ["c", "d"], "label": ["1", "2"]}, "answerKey": "2"}"#,
        r#"{"ctx": "Q3", "endings": ["e", "f"], "label": "0"}"#,
        "",
        r#"{"goal": "Q4", "sol1": "g", "sol2": "h", "label": 1}"#,
        r#"{"question": "Q5", "answer": "5 + 5 = 10"}"#,
        r#"{"doc_id": 0, "doc": {"question": "Q6", "A": "i", "B": "j", "answer": "B"}, "target": "x"}"#,
        r#"{"question": "Q7", "mc1_targets": {"choices": ["k", "l"], "labels": [1, 0]}, "best_answer": "k"}"#,
        r#"{"question": "Q8", "answer": true, "passage": "p"}"#,
    ];
    std::fs::write(&path, file.join("\n")).unwrap();
    let items = read_items(&path).unwrap();
    let found: Vec<_> = items
        .iter()
        .map(|item| (item.line, item.question.as_str(), item.choices.join(""), item.answer.as_str()))
        .collect();
    let expected = [
        (1, "Q1", "ab", "b"),
        (2, "Q2", "cd", "d"),
        (3, "Q3", "ef", "e"),
        (5, "Q4", "gh", "h"),
        (6, "Q5", "", "5 + 5 = 10"),
        (7, "Q6", "ij", "j"),
        (8, "Q7", "kl", "k"),
        (9, "Q8", "", ""),
    ];
    assert_eq!(found, expected.map(|(line, question, choices, answer)| (line, question, choices.to_owned(), answer)));
    assert_eq!(items[0].benchmark, "mixed");
    for (bad, what) in
        [("{", ":1: this is not JSON"), ("{}\n[1]", ":1: no question"), ("[1]", "is a JSON object"), ("", "no item")]
    {
        std::fs::write(&path, bad).unwrap();
        let error = read_items(&path).unwrap_err().to_string();
        assert!(error.contains("mixed.jsonl") && error.contains(what), "{error}");
    }
}

#[test]
fn questions_in_other_words_are_found_by_vectors() {
    // A model of two topics: whether a text speaks of France, and how long it is.
    let embed = |texts: &[String]| {
        let topic = |text: &String| vec![if text.contains("France") { 1.0 } else { 0.0 }, 0.01 * text.len() as f32];
        crate::quality::Vectors::dense(&texts.iter().map(topic).collect::<Vec<_>>())
    };
    let long = format!("{}\n\nName France's capital.", "A long text about frogs. ".repeat(30));
    let rows = [
        Sample::pair("", "Name France's capital.", "Paris"),
        Sample::pair("", "", ""),
        Sample::pair("", &long, "Paris"),
    ];
    let questions = embed(&benchmarks().questions()).unwrap();
    let found = benchmarks().alike(&rows, &questions, 0.95, embed).unwrap();
    assert_eq!(found[0].as_ref().unwrap().reason(), "contamination: 0.99 like the question of ponds:1");
    assert_eq!(found[1], None);
    assert_eq!(found[2], found[0], "what follows a text is what is asked");
}

mod any_text {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// A row that is an item is always found, whatever the item, and the shares are shares.
        #[test]
        fn an_item_holds_itself(texts in proptest::collection::vec("(?s).{0,40}|([a-c]{1,2} ){0,90}", 1..6)) {
            let items = texts.iter().enumerate().map(|(line, text)| item(line + 1, text, &[text], text)).collect();
            let known = Benchmarks::new(items);
            for (line, text) in texts.iter().enumerate().filter(|(_, text)| !words(text).is_empty()) {
                let hits = known.hits(&Sample::pair("", text, text));
                prop_assert!(hits.iter().any(|hit| hit.line == line + 1));
                for hit in hits {
                    for share in [hit.contained.question, hit.contained.choices, hit.contained.answer] {
                        prop_assert!((0.0..=1.0).contains(&share));
                    }
                }
            }
        }
    }
}
