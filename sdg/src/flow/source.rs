//! The rows that flows start from. The names of columns are `InstructLab`'s where it has them, so that its pipelines and our
//! flows run on the same rows.

use std::collections::{BTreeSet, HashMap};

use espalier_taxonomy::{ChunkSettings, Leaf, LeafKind, QuestionTemplate, Seed, Tree, chunks};
use serde_json::{Map, Value, json};

use super::sample::{Origin, Sample};
use crate::error::SdgError;
use crate::held_out::HeldOut;
use crate::identity::{digest, number};
use crate::shots::ShotChooser;
use crate::slots::draw_distinct;

/// Pairs of a context that a prompt of `InstructLab` shows.
const PAIRS: usize = 3;

/// How rows are made of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// How documents are cut.
    pub chunks: ChunkSettings,
    /// Seeds in the column `examples`.
    pub examples: usize,
    /// Questions drawn from a template, unless the leaf says how many.
    pub questions: usize,
    /// Decides which seeds and which questions.
    pub seed: u64,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self { chunks: ChunkSettings::default(), examples: 5, questions: 100, seed: 0 }
    }
}

/// The columns of the rows of a leaf.
pub fn source_columns(leaf: &Leaf) -> BTreeSet<String> {
    let mut columns: BTreeSet<String> = ["examples", "leaf_node_type", "leaf_node_path"].map(str::to_owned).into();
    let mut add = |names: &[&str]| columns.extend(names.iter().map(ToString::to_string));
    match (&leaf.questions, leaf.kind) {
        (Some(template), _) => {
            add(&["task_description", "question"]);
            columns.extend(template.slots.keys().chain(template.derive.keys()).cloned());
        }
        (None, LeafKind::Knowledge) => {
            add(&["document", "document_heading", "document_outline", "domain", "icl_document"]);
            columns.extend((1..=PAIRS).flat_map(|pair| [format!("icl_query_{pair}"), format!("icl_response_{pair}")]));
        }
        (None, LeafKind::FreeformSkill) => add(&["task_description", "seed_question", "seed_response"]),
        (None, LeafKind::GroundedSkill) => add(&["task_description", "seed_question", "seed_response", "seed_context"]),
    }
    columns
}

/// The rows of a leaf of a tree: of a template its questions, of knowledge each chunk of its documents with each context of its
/// seeds, of a skill each seed. A context with fewer than three pairs shows its pairs again.
///
/// `examples` are seeds: of a template those most like the question, the most similar last; of knowledge the context's own;
/// of a skill the row's seed last, others by the settings' seed before it. The question of a seed of several turns is its
/// script, and the seed has its `turns` too. What tests hold out is drawn by no template.
///
/// # Errors
/// A template that cannot be filled in, and a seed that is a held-out test question.
pub fn sources(
    tree: &Tree,
    leaf: &Leaf,
    settings: &SourceSettings,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Result<Vec<Sample>, SdgError> {
    let held_out = HeldOut::of_leaf(tree, &leaf.id);
    if let Some(seed) = leaf.seeds.iter().find(|seed| held_out.seed(seed)) {
        return Err(SdgError::Leak { leaf: leaf.id.clone(), line: seed.line });
    }
    let rows = match (&leaf.questions, leaf.kind) {
        (Some(template), _) => questions(leaf, template, settings, &held_out)?,
        (None, LeafKind::Knowledge) => knowledge(leaf, settings, count_tokens),
        (None, _) => (0..leaf.seeds.len()).map(|number| skill(leaf, number, settings)).collect(),
    };
    Ok(named(leaf, rows))
}

type Row = (Map<String, Value>, Origin);

fn questions(
    leaf: &Leaf,
    template: &QuestionTemplate,
    settings: &SourceSettings,
    held_out: &HeldOut,
) -> Result<Vec<Row>, SdgError> {
    let chooser = ShotChooser::new(leaf.seeds.iter().map(|seed| seed.question.as_str()));
    let wanted = leaf.samples.unwrap_or(settings.questions);
    let drawn = draw_distinct(leaf, template, settings.seed, wanted, held_out)?;
    let row = |drawn: crate::slots::Drawn| {
        let mut columns = Map::new();
        columns.insert("task_description".into(), leaf.task_description.as_str().into());
        columns.insert("question".into(), drawn.question.as_str().into());
        columns.extend(drawn.slots);
        let shown = chooser.choose(&drawn.question, settings.examples, 0);
        (columns, shown)
    };
    Ok(drawn.into_iter().map(row).map(|(columns, shown)| finished(leaf, columns, &shown, Origin::default())).collect())
}

fn skill(leaf: &Leaf, row: usize, settings: &SourceSettings) -> Row {
    let seed = &leaf.seeds[row];
    let mut columns = Map::new();
    columns.insert("task_description".into(), leaf.task_description.as_str().into());
    if let Some(context) = &seed.context {
        columns.insert("seed_context".into(), context.as_str().into());
    }
    columns.insert("seed_question".into(), seed.script().into());
    columns.insert("seed_response".into(), seed.answer.as_str().into());
    let key = |other: &usize| {
        let [from, row, other] = [settings.seed, row as u64, *other as u64].map(u64::to_le_bytes);
        number(&[b"examples", &from, leaf.id.as_bytes(), &row, &other])
    };
    let mut shown: Vec<usize> = (0..leaf.seeds.len()).filter(|other| *other != row).collect();
    shown.sort_by_key(key);
    shown.truncate(settings.examples.saturating_sub(1));
    shown.push(row);
    finished(leaf, columns, &shown, Origin::default())
}

fn knowledge(leaf: &Leaf, settings: &SourceSettings, count_tokens: &dyn Fn(&str) -> usize) -> Vec<Row> {
    let contexts = contexts(leaf);
    let mut rows = Vec::new();
    for document in &leaf.documents {
        let name = document.path.file_name().map(|name| name.to_string_lossy().into_owned());
        for chunk in chunks(document, &settings.chunks, count_tokens) {
            for numbers in &contexts {
                let mut columns = Map::new();
                columns.insert("document".into(), chunk.text.as_str().into());
                columns.insert("document_heading".into(), chunk.heading.as_str().into());
                pairs(leaf, numbers, &mut columns);
                let chunk_hash = Some(chunk.hash.clone());
                let origin = Origin { document: name.clone(), chunk_hash, ..Origin::default() };
                let shown = &numbers[..numbers.len().min(settings.examples)];
                rows.push(finished(leaf, columns, shown, origin));
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
        columns.insert(format!("icl_query_{}", pair + 1), leaf.seeds[number].script().into());
        columns.insert(format!("icl_response_{}", pair + 1), leaf.seeds[number].answer.as_str().into());
    }
}

/// A row with what all rows have.
fn finished(leaf: &Leaf, mut columns: Map<String, Value>, shown: &[usize], origin: Origin) -> Row {
    let example = |&number: &usize| {
        let seed = &leaf.seeds[number];
        let Seed { answer, context, .. } = seed;
        let mut shown = json!({"seed": number, "question": seed.script(), "answer": answer, "context": context});
        if !seed.history.is_empty() {
            let turn = |role: &str, content: &str| json!({"role": role, "content": content});
            let turns = seed.exchanges().flat_map(|(asked, said)| [turn("user", asked), turn("assistant", said)]);
            shown["turns"] = turns.collect();
        }
        shown
    };
    columns.insert("examples".into(), shown.iter().map(example).collect());
    columns.insert("leaf_node_type".into(), leaf.kind.name().into());
    columns.insert("leaf_node_path".into(), leaf.id.replace('/', "_").into());
    (columns, Origin { seeds: shown.iter().map(ToString::to_string).collect(), ..origin })
}

/// Names each row by its content, so that a document put in front changes no other row; equal ones are counted.
fn named(leaf: &Leaf, rows: Vec<Row>) -> Vec<Sample> {
    let mut equal: HashMap<[u8; 32], u64> = HashMap::new();
    let mut name = |columns: &Map<String, Value>| {
        let content = digest(&[Value::Object(columns.clone()).to_string().as_bytes()]);
        let number = *equal.entry(content).and_modify(|count| *count += 1).or_default();
        [&content[..], &number.to_le_bytes()].concat()
    };
    rows.into_iter().map(|(columns, origin)| Sample::new(&leaf.id, &name(&columns), columns, origin)).collect()
}

#[cfg(test)]
mod tests {
    use espalier_taxonomy::{Document, Slot, TestItem};

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

    fn rows(leaf: &Leaf) -> Vec<Sample> {
        let rows = sources(&Tree::default(), leaf, &SourceSettings::default(), &|text| text.len()).unwrap();
        for row in &rows {
            assert_eq!(row.columns.keys().cloned().collect::<BTreeSet<_>>(), source_columns(leaf));
        }
        assert_eq!(rows.iter().map(|row| &row.id).collect::<BTreeSet<_>>().len(), rows.len());
        rows
    }

    #[test]
    fn knowledge_is_chunks_by_contexts() {
        let text = "# Pond\n\nA toad.\n\n# Frog\n\nGreen.\n".to_owned();
        let leaf = Leaf {
            id: "knowledge/ponds".into(),
            kind: LeafKind::Knowledge,
            seeds: vec![seed(Some("a"), 0), seed(Some("a"), 1), seed(Some("b"), 2)],
            documents: vec![Document { path: "x/pond.md".into(), text }],
            ..Leaf::default()
        };
        let rows = rows(&leaf);
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0].text("icl_query_3"), Some("Question 0?"), "pairs come again");
        assert_eq!(rows[3].text("document"), Some("Green."));
        assert_eq!(rows[3].text("leaf_node_path"), Some("knowledge_ponds"));
        assert_eq!(rows[3].columns["examples"][0]["context"], "b");
        let origin = &rows[3].origin;
        assert_eq!((origin.document.as_deref(), &origin.seeds), (Some("pond.md"), &vec!["2".to_owned()]));
        assert_eq!(origin.chunk_hash.as_ref().unwrap().len(), 64);
    }

    #[test]
    fn a_skill_is_its_seeds() {
        for (kind, context) in [(LeafKind::FreeformSkill, None), (LeafKind::GroundedSkill, Some("text"))] {
            let seeds = (0..8).map(|number| seed(context, number / 2)).collect();
            let rows = rows(&Leaf { kind, seeds, ..Leaf::default() });
            assert_eq!(rows.len(), 8);
            let examples = rows[4].columns["examples"].as_array().unwrap();
            assert_eq!((examples.len(), examples[4]["question"].as_str()), (5, Some("Question 2?")), "its own last");
            assert_eq!(rows[4].origin.seeds[4], "4");
        }
    }

    #[test]
    fn a_seed_of_several_turns_is_a_script_and_has_its_turns() {
        let history = vec![espalier_taxonomy::Exchange { user: "Hello.".into(), assistant: "Good day.".into() }];
        let script = "User: Hello.\nAssistant: Good day.\nUser: Question 1?";
        let seeds = vec![seed(Some("a"), 0), Seed { history, ..seed(Some("a"), 1) }];
        let skill = Leaf { kind: LeafKind::GroundedSkill, seeds: seeds.clone(), ..Leaf::default() };
        let row = &rows(&skill)[1];
        assert_eq!(row.text("seed_question"), Some(script));
        let shown = &row.columns["examples"][1];
        assert_eq!(
            (shown["question"].as_str(), shown["turns"][3]["content"].as_str()),
            (Some(script), Some("Answer 1."))
        );
        assert_eq!(row.columns["examples"][0].get("turns"), None, "ids of rows of plain seeds stay");
        let documents = vec![Document { path: "x/pond.md".into(), text: "A toad.".into() }];
        let knowledge = Leaf { kind: LeafKind::Knowledge, seeds, documents, ..Leaf::default() };
        assert_eq!(rows(&knowledge)[0].text("icl_query_2"), Some(script));
    }

    #[test]
    fn a_template_draws_what_no_test_holds_out() {
        let slots = [("n".to_owned(), Slot::IntegerRange { from: 1, to: 6, step: 1 })].into();
        let template = QuestionTemplate { template: "Double {{ n }}".into(), slots, derive: [].into() };
        let held = TestItem { question: "Double 3".into(), answer: "6".into(), ..TestItem::default() };
        let leaf = Leaf {
            id: "double".into(),
            seeds: vec![seed(None, 0), Seed { question: "Double 9".into(), ..seed(None, 1) }],
            questions: Some(template),
            test: vec![held],
            ..Leaf::default()
        };
        let tree = Tree { leaves: vec![leaf.clone()], ..Tree::default() };
        let made = sources(&tree, &leaf, &SourceSettings::default(), &|text| text.len()).unwrap();
        assert_eq!(made.len(), 5, "of six questions one is held out");
        assert!(made.iter().all(|row| row.text("question") != Some("Double 3") && row.columns["n"].is_number()));
        assert_eq!(made[0].columns["examples"][1]["question"], "Double 9", "the most similar last");
        let leaking = Leaf { seeds: vec![Seed { question: "Double 3".into(), ..seed(None, 1) }], ..leaf };
        let error = sources(&tree, &leaking, &SourceSettings::default(), &|text| text.len()).unwrap_err();
        assert!(matches!(error, SdgError::Leak { .. }));
    }
}
