//! Settings of a leaf and seeds of several turns.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::fs;

use espalier_taxonomy::{Exchange, Leaf, read_tree};

const SKILL: &str = "espalier: 1\ncreated_by: me\ntask_description: t\nseed_examples:\n  - {question: a, answer: b}\n  - {question: c, answer: d}\n";

fn read(rest: &str) -> Result<Leaf, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("qna.yaml"), format!("{SKILL}{rest}")).unwrap();
    fs::write(folder.path().join("own.yaml"), "blocks: []\n").unwrap();
    read_tree(folder.path())
        .map(|tree| tree.leaves[0].clone())
        .map_err(|findings| findings.iter().map(|finding| finding.message.clone()).collect())
}

const THIRD: &str = "  - {question: e, answer: f}\n";

#[test]
fn settings_are_read_and_count_for_the_hash() {
    let leaf =
        read(&format!("{THIRD}flow: own.yaml\ntemperature: 0.7\nweight: 2\nlanguage: pt-BR\nsamples: 9\n")).unwrap();
    assert_eq!((leaf.flow.as_deref(), leaf.temperature, leaf.weight), (Some("own.yaml"), Some(0.7), Some(2.0)));
    assert_eq!((leaf.language.as_deref(), leaf.samples), (Some("pt-BR"), Some(9)));
    let plain = read(THIRD).unwrap();
    assert_eq!((plain.flow.as_deref(), plain.temperature), (None, None));
    let hotter = read(&format!("{THIRD}temperature: 1\n")).unwrap();
    assert_ne!(plain.hash, hotter.hash);
    let heavier = read(&format!("{THIRD}weight: 2\n")).unwrap();
    assert_ne!(plain.hash, heavier.hash, "another mixture");
    assert_eq!([plain.hash_of_rows(), heavier.hash_of_rows()], [plain.hash.clone(), plain.hash], "of the same rows");
    for (setting, message) in [
        ("flow: gone.yaml", "the flow gone.yaml is not in the folder of its leaf"),
        ("flow: ../own.yaml", "the flow ../own.yaml is not in the folder of its leaf"),
        ("temperature: hot", "`temperature` is a number from 0 to 2"),
        ("temperature: 2.5", "`temperature` is a number from 0 to 2"),
        ("weight: 0", "`weight` is a number from 0.001 to 1000"),
        ("weight: .nan", "`weight` is a number from 0.001 to 1000"),
        ("language: English", "\"English\" is not the tag of a language"),
    ] {
        assert_eq!(read(&format!("{THIRD}{setting}\n")).unwrap_err(), [message], "{setting}");
    }
}

#[test]
fn a_seed_may_have_several_turns() {
    let turns = "  - turns:\n      - user: Hello.\n      - assistant: Good day.\n      - user: How far is it?\n      - assistant: Two miles.\n";
    let leaf = read(turns).unwrap();
    let seed = &leaf.seeds[2];
    assert_eq!((seed.question.as_str(), seed.answer.as_str()), ("How far is it?", "Two miles."));
    assert_eq!(seed.history, [Exchange { user: "Hello.".into(), assistant: "Good day.".into() }]);
    assert_eq!(leaf.seeds[0].history, []);
    for (turns, message) in [
        ("[{user: a}]", "a conversation ends with the assistant"),
        ("[]", "a conversation ends with the assistant"),
        ("[{assistant: a}, {user: b}]", "turn 1 is the user's"),
        ("[{user: a}, {user: b}]", "turn 2 is the assistant's"),
        ("[{user: a}, {assistant: ''}]", "`assistant` is empty"),
        (
            "[{user: a}, {assistant: \"b\\nUser: c\"}]",
            "a line of this turn begins with `User:` or `Assistant:`, as turns do where a prompt shows them",
        ),
        ("[{user: x, colour: red}, {assistant: b}]", "unknown key `colour` in a turn"),
    ] {
        let found = read(&format!("  - turns: {turns}\n")).unwrap_err();
        assert_eq!(found[0], message, "{turns}: {found:?}");
    }
    let both = read("  - {turns: [{user: x}, {assistant: y}], question: q}\n").unwrap_err();
    assert!(both[0].starts_with("unknown key `question`"), "{both:?}");
}

#[test]
fn checks_of_numbers_and_of_several_kinds() {
    use espalier_taxonomy::Verify;
    let verify = |text: &str| read(&format!("{THIRD}verify: {text}\n")).map(|leaf| leaf.verify.unwrap());
    let numeric = |expression: &str, tolerance| Verify::Numeric { expression: expression.into(), tolerance };
    assert_eq!(verify("{numeric: {value: 3.5, tolerance: 0.1}}"), Ok(numeric("3.5", 0.1)));
    let drawn = "questions: {template: '{{ a }}?', slots: {a: {from: 1, to: 9}}}\nverify: {all_of: [{numeric: a * 2}, {any_of: [{regex: x}, {regex: y}]}]}";
    let leaf = read(&format!("{THIRD}{drawn}\n")).unwrap();
    let regex = |pattern: &str| Verify::Regex { pattern: pattern.into() };
    let expected = Verify::AllOf(vec![numeric("a * 2", 0.0), Verify::AnyOf(vec![regex("x"), regex("y")])]);
    assert_eq!(leaf.verify, Some(expected.clone()));
    assert_eq!((expected.truth(), expected.expressions()), (Some("a * 2"), vec!["a * 2"]));
    for (check, message) in [
        ("{numeric: a * 2}", "this `verify` computes the truth from slots, and this leaf has no `questions`"),
        ("{numeric: {value: 3, tolerance: -1}}", "`tolerance` is a number, 0 or more"),
        ("{numeric: {tolerance: 1}}", "`numeric` has `expression` or `value`"),
        ("{any_of: []}", "`any_of` is empty"),
        ("{any_of: [{regex: a, exact: b}]}", "`verify` has exactly one check"),
        ("{all_of: {regex: a}}", "`all_of` is a list, this is a mapping"),
    ] {
        assert_eq!(verify(check).unwrap_err()[0], message, "{check}");
    }
}
