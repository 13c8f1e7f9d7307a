//! `pipeline taxonomy show`: the tree, what each leaf holds, and sums for its branches.

use super::plural;
use crate::commands::Session;
use crate::outcome::Status;
use crate::stages::generate::read_tree;
use anyhow::Result;
use espalier_taxonomy::{ChunkSettings, Leaf, LeafKind, Tree, chunks};
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn run(path: &Path, session: Session<'_>) -> Result<Status> {
    let tree = read_tree(path)?;
    let lines = lines(&tree);
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or_default();
    for Line { name, facts } in &lines {
        session.reporter.line(format!("{name:width$}  {facts}").trim_end());
    }
    session.reporter.line(String::new());
    session.reporter.line(Sums::of(tree.leaves.iter()).words());
    for note in &tree.notes {
        session.reporter.line(note.to_string());
    }
    let json: Vec<serde_json::Value> = tree
        .leaves
        .iter()
        .map(|leaf| {
            serde_json::json!({
                "id": leaf.id, "kind": leaf.kind.name(), "seeds": leaf.seeds.len(), "documents": leaf.documents.len(),
                "covered": coverage(leaf), "template": leaf.questions.is_some(), "checker": leaf.verify.is_some(),
                "test": leaf.test.len(), "license": leaf.license, "samples": leaf.samples, "flow": leaf.flow, "hash": leaf.hash,
            })
        })
        .collect();
    session.reporter.result(serde_json::json!({"leaves": json}));
    Ok(Status::Done)
}

struct Line {
    name: String,
    facts: String,
}

/// Branches and leaves from the root on, each below its branch.
fn lines(tree: &Tree) -> Vec<Line> {
    let mut leaves: Vec<&Leaf> = tree.leaves.iter().collect();
    leaves.sort_by(|a, b| a.id.split('/').cmp(b.id.split('/')));
    let mut lines = Vec::new();
    below("", "", &leaves, &mut lines);
    lines
}

/// The lines below a branch; `indent` is what stands before each.
fn below(branch: &str, indent: &str, leaves: &[&Leaf], lines: &mut Vec<Line>) {
    let mut rest = leaves;
    while let Some(first) = rest.first() {
        let name = first.id[branch.len()..].split('/').next().unwrap_or_default();
        let path = format!("{branch}{name}");
        let count = rest.iter().take_while(|leaf| leaf.id == path || leaf.id.starts_with(&format!("{path}/"))).count();
        let (here, others) = rest.split_at(count);
        rest = others;
        let is_last = rest.is_empty();
        let (mark, deeper) = match (branch.is_empty(), is_last) {
            (true, _) => ("", ""),
            (false, true) => ("└─ ", "   "),
            (false, false) => ("├─ ", "│  "),
        };
        let leaf = here.iter().find(|leaf| leaf.id == path);
        let facts = match (leaf, here) {
            (Some(leaf), _) => facts(leaf),
            // A branch of one leaf says nothing that the leaf does not.
            (None, [_]) => String::new(),
            (None, _) => Sums::of(here.iter().copied()).words(),
        };
        lines.push(Line { name: format!("{indent}{mark}{name}"), facts });
        let inner: Vec<&Leaf> = here.iter().copied().filter(|leaf| leaf.id != path).collect();
        if !inner.is_empty() {
            below(&format!("{path}/"), &format!("{indent}{deeper}"), &inner, lines);
        }
    }
}

/// What a leaf holds.
fn facts(leaf: &Leaf) -> String {
    let kind = match leaf.kind {
        LeafKind::FreeformSkill => "skill",
        LeafKind::GroundedSkill => "grounded skill",
        LeafKind::Knowledge => "knowledge",
    };
    let mut facts = vec![kind.to_owned(), plural(leaf.seeds.len(), "seed")];
    if !leaf.documents.is_empty() {
        facts.push(plural(leaf.documents.len(), "document"));
    }
    if let Some((covered, all)) = coverage(leaf) {
        facts.push(format!("seeds on {covered} of {}", plural(all, "chunk")));
    }
    if leaf.questions.is_some() {
        facts.push("a question template".into());
    }
    if leaf.verify.is_some() {
        facts.push("a checker".into());
    }
    if !leaf.test.is_empty() {
        facts.push(plural(leaf.test.len(), "held-out question"));
    }
    facts.extend(leaf.weight.map(|weight| format!("weight {weight}")));
    facts.extend(leaf.license.clone());
    facts.join(", ")
}

/// How many chunks of a leaf's documents a seed's context stands in, and how many there are.
fn coverage(leaf: &Leaf) -> Option<(usize, usize)> {
    /// Words in a row that context and chunk share.
    const WORDS: usize = 8;
    let settings = ChunkSettings::default();
    let grams = |text: &str| -> BTreeSet<Vec<String>> {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        words.windows(WORDS).map(<[String]>::to_vec).collect()
    };
    let seeds: BTreeSet<Vec<String>> =
        leaf.seeds.iter().filter_map(|seed| seed.context.as_deref()).flat_map(grams).collect();
    let count = |text: &str| text.split_whitespace().count();
    let chunks: Vec<_> = leaf.documents.iter().flat_map(|document| chunks(document, &settings, &count)).collect();
    let covered = chunks.iter().filter(|chunk| grams(&chunk.text).iter().any(|gram| seeds.contains(gram))).count();
    (!chunks.is_empty()).then_some((covered, chunks.len()))
}

/// What the leaves of a branch hold together.
struct Sums {
    leaves: usize,
    seeds: usize,
    documents: usize,
    tested: usize,
    checked: usize,
    licenses: BTreeSet<String>,
}

impl Sums {
    fn of<'a>(leaves: impl Iterator<Item = &'a Leaf>) -> Self {
        let mut sums = Self { leaves: 0, seeds: 0, documents: 0, tested: 0, checked: 0, licenses: BTreeSet::new() };
        for leaf in leaves {
            sums.leaves += 1;
            sums.seeds += leaf.seeds.len();
            sums.documents += leaf.documents.len();
            sums.tested += usize::from(!leaf.test.is_empty());
            sums.checked += usize::from(leaf.verify.is_some());
            sums.licenses.insert(leaf.license.clone().unwrap_or_else(|| "no licence stated".to_owned()));
        }
        sums
    }

    fn words(&self) -> String {
        let leaves = if self.leaves == 1 { "1 leaf".to_owned() } else { format!("{} leaves", self.leaves) };
        let mut facts = vec![leaves, plural(self.seeds, "seed")];
        if self.documents > 0 {
            facts.push(plural(self.documents, "document"));
        }
        facts.push(format!("{} with a test, {} with a checker", self.tested, self.checked));
        facts.push(self.licenses.iter().cloned().collect::<Vec<_>>().join(" / "));
        facts.join(", ")
    }
}
