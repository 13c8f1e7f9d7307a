use proptest::prelude::*;

use super::*;

fn document(text: &str) -> Document {
    Document { path: "d.md".into(), text: text.into() }
}

fn count(text: &str) -> usize {
    text.split_whitespace().count()
}

fn cut(text: &str, max_tokens: usize, overlap: usize) -> Vec<Chunk> {
    chunks(&document(text), &ChunkSettings { max_tokens, overlap }, &count)
}

fn texts(chunks: &[Chunk]) -> Vec<&str> {
    chunks.iter().map(|chunk| chunk.text.as_str()).collect()
}

#[test]
fn headings_are_carried_and_blocks_stay_whole() {
    let text = "Intro here.\n\n# Trees\n\nOne two\nthree four.\n\nFive six.\n\n## Apple\n\n- a\n- b\n\n```\n# not a heading\n\nx\n```\n\n# Walls\n\nStone.\n";
    let found = cut(text, 6, 0);
    let shown: Vec<_> =
        found.iter().map(|c| (c.heading.as_str(), c.text.as_str(), c.first_line, c.last_line)).collect();
    assert_eq!(
        shown,
        [
            ("", "Intro here.", 1, 1),
            ("Trees", "One two three four.\n\nFive six.", 5, 8),
            ("Trees > Apple", "- a\n- b", 12, 13),
            ("Trees > Apple", "```\n# not a heading\n```", 15, 16),
            ("Trees > Apple", "```\nx\n```", 18, 19),
            ("Walls", "Stone.", 23, 23),
        ]
    );
    assert_eq!(cut(text, 7, 0)[3].text, "```\n# not a heading\n\nx\n```");
}

#[test]
fn long_paragraphs_are_cut_at_sentences() {
    assert_eq!(texts(&cut("a b c. d e f. g h i j k l m.", 5, 0)), ["a b c.", "d e f.", "g h i j k", "l m."]);
}

#[test]
fn a_long_table_repeats_its_header_and_long_code_its_fence() {
    let table = "| n | m |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n";
    let found = cut(table, 20, 0);
    assert_eq!(texts(&found), ["| n | m |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |", "| n | m |\n| - | - |\n| 5 | 6 |"]);
    assert_eq!((found[0].first_line, found[0].last_line, found[1].first_line), (1, 4, 5));
    let code = "````rust\nfn a() {\n}\n\nfn b() {\n```\n}\n````\n";
    assert_eq!(texts(&cut(code, 8, 0)), ["````rust\nfn a() {\n}\n````", "````rust\nfn b() {\n```\n}\n````"]);
}

#[test]
fn overlap_repeats_whole_sentences_of_running_text_alone() {
    let text = "One two. Three four. Five six.\n\nSeven eight nine. Ten.\n\n# Next\n\nLast.";
    assert_eq!(texts(&cut(text, 6, 0)), ["One two. Three four. Five six.", "Seven eight nine. Ten.", "Last."]);
    assert_eq!(
        texts(&cut(text, 6, 3)),
        ["One two. Three four. Five six.", "Five six.\n\nSeven eight nine. Ten.", "Last."]
    );
    assert_eq!(
        texts(&cut(text, 4, 2)),
        ["One two. Three four.", "Three four. Five six.", "Seven eight nine. Ten.", "Last."]
    );
    assert_eq!(texts(&cut("- a b\n- c d\n\nE f. G h.", 5, 2)), ["- a b", "- c d", "E f. G h."]);
}

#[test]
fn the_hash_is_of_heading_and_text_and_not_of_the_place() {
    let one = &cut("# A\n\nwords", 9, 0)[0];
    let moved = &cut("Before.\n\n# A\n\nwords", 9, 0)[1];
    assert_eq!(one.hash, moved.hash);
    assert_ne!(one.first_line, moved.first_line);
    assert_ne!(one.hash, cut("# B\n\nwords", 9, 0)[0].hash);
    // sha256 of "A\nwords".
    assert_eq!(&one.hash[..16], "b4364f00c56b7f9c");
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

/// Blocks of every kind in any order.
fn markdown() -> impl Strategy<Value = String> {
    let word = "[a-z]{1,4}[.]?";
    let words = |most| prop::collection::vec(word, 1..most).prop_map(|words| words.join(" "));
    let row = prop::collection::vec(word, 2).prop_map(|cells| format!("| {} |", cells.join(" | ")));
    let block = prop_oneof![
        words(30),
        prop::collection::vec(words(8), 1..6)
            .prop_map(|items| items.iter().map(|item| format!("- {item}\n")).collect()),
        prop::collection::vec(row, 1..6).prop_map(|rows| format!("| a | b |\n| - | - |\n{}", rows.join("\n"))),
        prop::collection::vec("[a-z ]{0,9}", 0..9).prop_map(|lines| format!("```x\n{}\n```", lines.join("\n"))),
        words(3).prop_map(|title| format!("## {title}")),
    ];
    prop::collection::vec(block, 0..8).prop_map(|blocks| blocks.join("\n\n"))
}

proptest! {
    #[test]
    fn no_word_is_lost_and_no_chunk_is_too_long(text in "([a-z#.\\-]{0,6}[ \n]){0,60}", max in 1_usize..9) {
        let found = cut(&text, max, 0);
        for chunk in &found {
            prop_assert!(count(&chunk.text) <= max);
            prop_assert!(!chunk.text.trim().is_empty());
        }
        let all = sections(&text);
        let expected: Vec<&str> = all.iter().flat_map(|s| &s.blocks).flat_map(|b| words(&b.text)).collect();
        let kept: Vec<&str> = found.iter().flat_map(|chunk| words(&chunk.text)).collect();
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn what_is_repeated_pushes_nothing_out(text in markdown(), max in 1_usize..24, overlap in 0_usize..12) {
        let found = cut(&text, max, overlap);
        for chunk in &found {
            prop_assert!(count(&chunk.text) <= max, "{:?}", chunk);
            prop_assert!(chunk.first_line >= 1 && chunk.first_line <= chunk.last_line);
        }
        // Headers, fences and sentences come again; nothing goes, and nothing changes its order.
        let all = sections(&text);
        let mut kept = found.iter().flat_map(|chunk| words(&chunk.text));
        for word in all.iter().flat_map(|section| &section.blocks).flat_map(|block| words(&block.text)) {
            prop_assert!(kept.any(|found| found == word), "{word} of {text:?} is lost in {found:?}");
        }
        let plain = cut(&text, max, 0);
        prop_assert!(found.iter().map(|chunk| chunk.text.len()).sum::<usize>() >= plain.iter().map(|chunk| chunk.text.len()).sum());
    }
}
