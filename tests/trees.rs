//! The words of the commands that look at trees: show, preview, diff, lint and new.

#[path = "binary/mod.rs"]
mod binary;

use binary::{Bench, Said};
use std::fs;
use std::path::Path;
use std::process::Command;

fn whole(said: &Said) -> String {
    assert!(!said.err.contains("panicked"), "{}", said.err);
    let errors = if said.err.is_empty() { String::new() } else { format!("-- error output\n{}", said.err) };
    format!("{}{errors}-- exit code {}", said.out, said.code)
}

#[test]
fn trees_are_drawn_with_what_their_leaves_hold() {
    let bench = Bench::new();
    let words = ["tests/assets/taxonomy", "taxonomy/examples/quickstart", "taxonomy/examples/tiny/knowledge/the_pond"]
        .map(|tree| format!("$ taxonomy show {tree}\n{}\n\n", whole(&bench.run(&["taxonomy", "show", tree]))));
    insta::assert_snapshot!(words.concat());
}

#[test]
fn documents_and_their_chunks_are_shown() {
    let bench = Bench::new();
    let leaf = bench.run(&["taxonomy", "preview", "taxonomy/examples/tiny/knowledge/the_pond", "--chunk-tokens", "40"]);
    insta::assert_snapshot!("preview_leaf", whole(&leaf));
    let page =
        "<html><title>Ponds</title><nav>Home</nav><h1>Frogs</h1><p>A green frog. It sat on a stone. It sang.</p>";
    let file = bench.write("pond.html", page);
    let settings = ["--chunk-tokens", "8", "--chunk-overlap", "3", "--text"];
    insta::assert_snapshot!(
        "preview_file",
        whole(&bench.run(&[&["taxonomy", "preview", &file], &settings[..]].concat()))
    );
    let tokens = bench.run(&["taxonomy", "preview", &file, "--model", "tests/assets/model/stories260K.bin"]);
    assert!(tokens.out.contains(" tokens: Frogs"), "{}", whole(&tokens));
    let scan = bench.write("scan.pdf", "%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n");
    insta::assert_snapshot!("preview_refused", whole(&bench.run(&["taxonomy", "preview", &scan])));
}

#[test]
fn what_changed_is_told_with_and_without_git() {
    let bench = Bench::new();
    bench.tree("tree");
    let (tree, state) = (bench.text("tree"), bench.text("state.json"));
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"];
        let output = Command::new("git").arg("-C").arg(&tree).args(identity).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    let has_git = git(&["init", "--quiet"]) && git(&["add", "."]) && git(&["commit", "--quiet", "-m", "first"]);
    assert_eq!(bench.run(&["taxonomy", "diff", "--save", &state, &tree]).code, 0);
    insta::assert_snapshot!("diff_same", whole(&bench.run(&["taxonomy", "diff", &state, &tree])));
    let leaf = bench.path("tree/knowledge/the_pond/qna.yaml");
    let text = fs::read_to_string(&leaf).expect("a leaf");
    let at = text.find("question: ").expect("a question") + "question: ".len();
    fs::write(&leaf, format!("{}So {}", &text[..at], text[at..].trim_start_matches('"'))).expect("a leaf");
    fs::rename(bench.path("tree/skills/go_on_with_a_story"), bench.path("tree/skills/stories")).expect("a folder");
    let document = bench.path("tree/knowledge/the_pond/pond.md");
    let longer = fs::read_to_string(&document).expect("a document") + "\nMore.\n";
    fs::write(&document, longer).expect("a document");
    let changed = whole(&bench.run(&["taxonomy", "diff", &state, &tree]));
    insta::assert_snapshot!("diff_changed", changed);
    if has_git {
        assert_eq!(whole(&bench.run(&["taxonomy", "diff", "--git", "HEAD", &tree])), changed);
        insta::assert_snapshot!(
            "diff_no_reference",
            whole(&bench.run(&["taxonomy", "diff", "--git", "nowhere", &tree]))
        );
        bench.tree("other");
        let outside = bench.command(&["taxonomy", "diff", "--git", "HEAD", &bench.text("other")]);
        let output = { outside }.env("GIT_CEILING_DIRECTORIES", bench.path("")).output().expect("the binary starts");
        insta::assert_snapshot!("diff_no_repository", whole(&bench.said(&output)));
    }
    let mut alone = bench.command(&["taxonomy", "diff", "--git", "HEAD", &tree]);
    let output = alone.env("PATH", "").output().expect("the binary starts");
    insta::assert_snapshot!("diff_no_git", whole(&bench.said(&output)));
    insta::assert_snapshot!("diff_nothing", whole(&bench.run(&["taxonomy", "diff", &tree])));
    let json = bench.run(&["--json", "taxonomy", "diff", &state, &tree]);
    let last: serde_json::Value = serde_json::from_str(json.out.lines().last().unwrap_or_default()).expect("JSON");
    assert!(last.to_string().contains("skills/stories"), "{last}");
}

#[test]
fn lint_finds_what_validate_allows() {
    let bench = Bench::new();
    bench.tree("tree");
    let seeds = "espalier: 1\ncreated_by: me\ntask_description: Name the colour.\nseed_examples:\n\
        \x20 - {question: What colour has a green frog in the pond?, answer: Green.}\n\
        \x20 - {question: What colour has the green frog in the pond?, answer: green}\n\
        \x20 - {question: Which colour has the sky above the old mill?, answer: GREEN}\n";
    bench.write("tree/skills/colours/qna.yaml", seeds);
    let row = "{\"question\": \"Which colour has the sky above the old mill?\", \"choices\": [\"blue\", \"green\"]}\n";
    let against = bench.write("benchmark.jsonl", row);
    let tree = bench.text("tree/skills/colours");
    assert_eq!(bench.run(&["taxonomy", "validate", &tree]).code, 0);
    let arguments = ["taxonomy", "lint", "--against", &against, "--near", "0.5", &tree];
    let found = bench.run(&arguments);
    insta::assert_snapshot!("lint", whole(&found));
    let denied = bench.run(&[&arguments[..], &["--deny", "--github"]].concat());
    assert_eq!(denied.code, 2);
    assert!(denied.out.lines().all(|line| line.starts_with("::warning file=")), "{}", denied.out);
    let bad = bench.write("bad.jsonl", "{\n");
    insta::assert_snapshot!("lint_bad_benchmark", bench.run(&["taxonomy", "lint", "--against", &bad, &tree]).refusal());
}

#[test]
fn a_scaffold_is_valid_and_never_overwrites() {
    let bench = Bench::new();
    for kind in ["skill", "grounded", "knowledge"] {
        let leaf = bench.text(kind);
        let made = bench.run(&["taxonomy", "new", &leaf, "--kind", kind, "--author", "A \"B\""]);
        assert_eq!(made.code, 0, "{}", made.err);
        let valid = bench.run(&["taxonomy", "validate", &leaf]);
        assert_eq!(valid.code, 0, "{kind}: {}{}", valid.out, valid.err);
        let lint = bench.run(&["taxonomy", "lint", &leaf]);
        assert_eq!(lint.out.matches("never filled in").count(), 3, "{}", lint.out);
        let again = bench.run(&["taxonomy", "new", &leaf]);
        assert_eq!(again.code, 2);
    }
    insta::assert_snapshot!("new_again", bench.run(&["taxonomy", "new", &bench.text("skill")]).refusal());
    let good = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("taxonomy/examples/tiny/knowledge/the_pond/qna.yaml"),
    );
    let good = good.expect("a leaf").replace("test: test.jsonl", "");
    let proposed = bench.write("leaf/qna.yaml.proposed", good.replace("created_by", "made_by"));
    bench.write("leaf/pond.md", "# Pond\n\nA frog.\n");
    let refused = bench.run(&["taxonomy", "new", &bench.text("leaf"), "--accept"]);
    assert!(refused.code == 2 && refused.err.contains("qna.yaml.proposed:"), "{}", refused.err);
    fs::write(&proposed, good).expect("a file");
    let accepted = bench.run(&["taxonomy", "new", &bench.text("leaf"), "--accept"]);
    assert_eq!(accepted.code, 0, "{}", accepted.err);
    assert!(bench.path("leaf/qna.yaml").exists() && !Path::new(&proposed).exists());
}

#[test]
fn a_document_is_extracted_once() {
    let bench = Bench::new();
    bench.tree("tree");
    let leaf = "tree/knowledge/the_pond/qna.yaml";
    let text = std::fs::read_to_string(bench.path(leaf)).expect("a leaf");
    bench.write(leaf, text.replace("pond.md", "pond.html"));
    let page = "<h1>The pond</h1><p>There was a little pond in the park. A green frog lived in the pond. A white duck came each day.</p>";
    bench.write("tree/knowledge/the_pond/pond.html", page);
    let kept = || std::fs::read_dir(bench.path("cache/documents")).map_or(0, Iterator::count);
    for _ in 0..2 {
        let said = bench.run(&["taxonomy", "validate", &bench.text("tree")]);
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        assert_eq!(kept(), 1);
    }
    let entry =
        std::fs::read_dir(bench.path("cache/documents")).expect("a folder").next().expect("an entry").expect("it");
    std::fs::write(entry.path(), "damaged").expect("a file");
    let said = bench.run(&["taxonomy", "validate", &bench.text("tree")]);
    assert_eq!((said.code, kept()), (0, 1), "a damaged text is made anew: {}{}", said.out, said.err);
}
