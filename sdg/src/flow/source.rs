//! The rows that flows start from. The names of columns are `InstructLab`'s, so that its pipelines and our flows run on the
//! same rows.

use std::collections::{BTreeSet, HashMap};

use espalier_taxonomy::{ChunkSettings, Leaf, LeafKind, Seed, chunks};
use serde_json::{Map, Value};

use super::sample::{Origin, Sample};
use crate::identity::digest;

/// Pairs of a context that a prompt shows, as `InstructLab` has it.
const PAIRS: usize = 3;

/// The columns of the rows that a leaf of a kind gives.
pub fn source_columns(kind: LeafKind) -> BTreeSet<String> {
    let knowledge = ["document", "document_heading", "document_outline", "domain", "icl_document"];
    let skill = ["task_description", "seed_question", "seed_response"];
    let mut columns: BTreeSet<String> = match kind {
        LeafKind::Knowledge => knowledge.iter().map(ToString::to_string).collect(),
        LeafKind::FreeformSkill => skill.iter().map(ToString::to_string).collect(),
        LeafKind::GroundedSkill => skill.iter().chain(&["seed_context"]).map(ToString::to_string).collect(),
    };
    if kind == LeafKind::Knowledge {
        columns.extend((1..=PAIRS).flat_map(|pair| [format!("icl_query_{pair}"), format!("icl_response_{pair}")]));
    }
    columns.extend(["leaf_node_type", "leaf_node_path"].map(str::to_owned));
    columns
}

/// The rows of a leaf: of knowledge each chunk of its documents with each context of its seeds, of a skill each seed. A context
/// with fewer than three pairs shows its pairs again.
pub fn sources(leaf: &Leaf, settings: &ChunkSettings, count_tokens: &dyn Fn(&str) -> usize) -> Vec<Sample> {
    let rows = match leaf.kind {
        LeafKind::Knowledge => knowledge(leaf, settings, count_tokens),
        LeafKind::FreeformSkill | LeafKind::GroundedSkill => {
            leaf.seeds.iter().enumerate().map(|(number, seed)| skill(leaf, number, seed)).collect()
        }
    };
    named(leaf, rows)
}

fn skill(leaf: &Leaf, number: usize, seed: &Seed) -> (Map<String, Value>, Origin) {
    let mut columns = Map::new();
    columns.insert("task_description".into(), leaf.task_description.as_str().into());
    if let Some(context) = &seed.context {
        columns.insert("seed_context".into(), context.as_str().into());
    }
    columns.insert("seed_question".into(), seed.question.as_str().into());
    columns.insert("seed_response".into(), seed.answer.as_str().into());
    node(leaf, &mut columns);
    let origin = Origin { seeds: vec![number.to_string()], ..Origin::default() };
    (columns, origin)
}

fn knowledge(
    leaf: &Leaf,
    settings: &ChunkSettings,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Vec<(Map<String, Value>, Origin)> {
    let contexts = contexts(leaf);
    let mut rows = Vec::new();
    for document in &leaf.documents {
        let name = document.path.file_name().map(|name| name.to_string_lossy().into_owned());
        for chunk in chunks(document, settings, count_tokens) {
            for numbers in &contexts {
                let mut columns = Map::new();
                columns.insert("document".into(), chunk.text.as_str().into());
                columns.insert("document_heading".into(), chunk.heading.as_str().into());
                pairs(leaf, numbers, &mut columns);
                node(leaf, &mut columns);
                let origin = Origin {
                    seeds: numbers.iter().map(ToString::to_string).collect(),
                    document: name.clone(),
                    chunk_hash: Some(chunk.hash.clone()),
                };
                rows.push((columns, origin));
            }
        }
    }
    rows
}

/// The numbers of the seeds of each context. Seeds of one context stand one after another.
fn contexts(leaf: &Leaf) -> Vec<Vec<usize>> {
    let mut contexts: Vec<Vec<usize>> = Vec::new();
    for (number, seed) in leaf.seeds.iter().enumerate() {
        match contexts.last_mut() {
            Some(last) if leaf.seeds[last[0]].context == seed.context => last.push(number),
            _ => contexts.push(vec![number]),
        }
    }
    contexts
}

fn pairs(leaf: &Leaf, numbers: &[usize], columns: &mut Map<String, Value>) {
    let first = &leaf.seeds[numbers[0]];
    columns.insert("icl_document".into(), first.context.clone().unwrap_or_default().into());
    columns.insert("document_outline".into(), leaf.document_outline.clone().unwrap_or_default().into());
    columns.insert("domain".into(), leaf.domain.clone().unwrap_or_default().into());
    for (pair, &number) in numbers.iter().cycle().take(PAIRS).enumerate() {
        columns.insert(format!("icl_query_{}", pair + 1), leaf.seeds[number].question.as_str().into());
        columns.insert(format!("icl_response_{}", pair + 1), leaf.seeds[number].answer.as_str().into());
    }
}

fn node(leaf: &Leaf, columns: &mut Map<String, Value>) {
    columns.insert("leaf_node_type".into(), leaf.kind.name().into());
    columns.insert("leaf_node_path".into(), leaf.id.replace('/', "_").into());
}

/// Names each row by its content, so that a seed put in front changes no other row; equal ones are counted.
fn named(leaf: &Leaf, rows: Vec<(Map<String, Value>, Origin)>) -> Vec<Sample> {
    let mut equal: HashMap<[u8; 32], u64> = HashMap::new();
    let mut name = |columns: &Map<String, Value>| {
        let content = digest(&[Value::Object(columns.clone()).to_string().as_bytes()]);
        let number = equal.entry(content).and_modify(|count| *count += 1).or_default();
        [&content[..], &number.to_le_bytes()].concat()
    };
    rows.into_iter().map(|(columns, origin)| Sample::new(&leaf.id, &name(&columns), columns, origin)).collect()
}

#[cfg(test)]
mod tests {
    use espalier_taxonomy::Document;

    use super::*;

    fn seed(context: Option<&str>, number: usize) -> Seed {
        Seed {
            question: format!("Question {number}?"),
            answer: format!("Answer {number}."),
            context: context.map(str::to_owned),
            line: 1,
            ..Seed::default()
        }
    }

    #[test]
    fn knowledge_is_chunks_by_contexts() {
        let leaf = Leaf {
            id: "knowledge/ponds".into(),
            kind: LeafKind::Knowledge,
            seeds: vec![seed(Some("a"), 0), seed(Some("a"), 1), seed(Some("b"), 2)],
            documents: vec![Document {
                path: "x/pond.md".into(),
                text: "# Pond\n\nA toad.\n\n# Frog\n\nGreen.\n".into(),
            }],
            ..Leaf::default()
        };
        let rows = sources(&leaf, &ChunkSettings::default(), &|text| text.len());
        assert_eq!(rows.len(), 4);
        for row in &rows {
            assert_eq!(row.columns.keys().cloned().collect::<BTreeSet<_>>(), source_columns(LeafKind::Knowledge));
        }
        assert_eq!(rows[0].text("icl_query_3"), Some("Question 0?"), "pairs come again");
        assert_eq!(rows[3].text("document"), Some("Green."));
        assert_eq!(rows[3].text("leaf_node_path"), Some("knowledge_ponds"));
        assert_eq!(
            (rows[3].origin.document.as_deref(), &rows[3].origin.seeds),
            (Some("pond.md"), &vec!["2".to_owned()])
        );
        assert_eq!(rows.iter().map(|row| &row.id).collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn a_skill_is_its_seeds() {
        for (kind, context) in [(LeafKind::FreeformSkill, None), (LeafKind::GroundedSkill, Some("text"))] {
            let leaf = Leaf { kind, seeds: vec![seed(context, 0), seed(context, 0)], ..Leaf::default() };
            let rows = sources(&leaf, &ChunkSettings::default(), &|text| text.len());
            assert_eq!(rows[0].columns.keys().cloned().collect::<BTreeSet<_>>(), source_columns(kind));
            assert_ne!(rows[0].id, rows[1].id, "equal seeds are two rows");
        }
    }
}
