//! What a flow made of a leaf, as rows of training data.

use std::collections::BTreeMap;

use espalier_dataset::{Row, Score, Turn, Verdict};
use espalier_taxonomy::{Leaf, Tree};
use serde_json::{Value, json};

use crate::conversation::{said_by, turns};
use crate::error::SdgError;
use crate::flow::{Flow, Rejected, Sample};
use crate::held_out::HeldOut;
use crate::reward::CheckOutcome;
use crate::verify::Verifier;

/// Makes the rows of one leaf and one flow.
pub(super) struct RowMaker<'a> {
    leaf: &'a Leaf,
    flow: &'a Flow,
    pub(super) held_out: HeldOut,
    verifier: Verifier,
}

impl<'a> RowMaker<'a> {
    pub(super) fn new(tree: &Tree, leaf: &'a Leaf, flow: &'a Flow) -> Result<Self, SdgError> {
        Ok(Self { leaf, flow, held_out: HeldOut::of_leaf(tree, &leaf.id), verifier: Verifier::new(leaf)? })
    }

    /// The row of what came out of the flow. A held-out question and an answer that the leaf's own checker refuses are
    /// rejected whatever the flow thinks of them.
    pub(super) fn kept(&self, sample: &Sample) -> Result<Row, SdgError> {
        let mut row = self.row(sample);
        row.turns = match self.conversation(sample) {
            Ok(turns) => turns,
            Err(why) => {
                row.turns = pair(sample);
                row.reason = format!("no conversation: {why}");
                return Ok(row);
            }
        };
        let usable = row.turns.len() >= 2 && row.turns.iter().all(|turn| !turn.content.trim().is_empty());
        if !usable {
            "no question and answer".clone_into(&mut row.reason);
            return Ok(row);
        }
        let outcome = self.check(&row)?;
        if let (Some(answer), Some(turn)) = (outcome.canonical, row.turns.last_mut()) {
            turn.content = answer;
        }
        row.verifier = self.verifier.is_some().then(|| outcome.reason.clone());
        row.verdict = if outcome.passed { Verdict::Accepted } else { Verdict::Rejected };
        row.reason = outcome.reason;
        Ok(row)
    }

    fn check(&self, row: &Row) -> Result<CheckOutcome, SdgError> {
        if self.held_out.conversation(row.chunk.as_deref(), &row.turns) {
            return Ok(CheckOutcome::failed("held-out question", ""));
        }
        if self.verifier.is_some() {
            let question = said_by(&row.turns, "user").next_back().unwrap_or_default();
            let answer = row.turns.last().map(|turn| turn.content.as_str()).unwrap_or_default();
            return self.verifier.check(self.leaf, &BTreeMap::new(), question, answer);
        }
        Ok(CheckOutcome::passed(&format!("passed the flow {}", self.flow.name)))
    }

    /// The row of what a block refused.
    pub(super) fn rejected(&self, rejected: &Rejected) -> Row {
        let mut row = self.row(&rejected.sample);
        row.turns = self.conversation(&rejected.sample).unwrap_or_else(|_| pair(&rejected.sample));
        row.block.clone_from(&rejected.block);
        let detail = rejected.detail.replace('\n', " ");
        row.reason =
            if detail.is_empty() { rejected.category.to_owned() } else { format!("{}: {detail}", rejected.category) };
        row
    }

    /// The turns of a row: the column `messages` where a flow makes whole conversations, else question and answer.
    fn conversation(&self, sample: &Sample) -> Result<Vec<Turn>, &'static str> {
        if let Some(Value::Array(messages)) = sample.columns.get("messages") {
            let turn = |message: &Value| {
                let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
                Turn::new(text("role"), text("content").trim())
            };
            return Ok(messages.iter().map(turn).collect());
        }
        let (question, answer) = question_and_answer(sample);
        turns(self.leaf, question.trim(), answer.trim())
    }

    /// Everything but what is said and the verdict.
    fn row(&self, sample: &Sample) -> Row {
        let text = |column: &str| sample.text(column).map(str::to_owned);
        let chunk = text("raw_document").or_else(|| text("base_document")).or_else(|| text("document"));
        let context = text("document").filter(|context| Some(context) != chunk.as_ref());
        // What wrote the answer, or the question to an answer that is a text's own; of a row that was refused before it had
        // one, what wrote last.
        let written = |column: &str| sample.written.get(column).map(AsRef::as_ref);
        let last = || sample.written.values().last().map(AsRef::as_ref);
        let writing = sample.answer_writing().or_else(|| written("question")).or_else(last);
        let mut row = Row {
            id: sample.id.clone(),
            leaf: self.leaf.id.clone(),
            kind: self.leaf.kind.name().to_owned(),
            slots: "{}".to_owned(),
            seed_ids: sample.origin.seeds.clone(),
            document: sample.origin.document.clone(),
            chunk_hash: sample.origin.chunk_hash.clone(),
            chunk: chunk.filter(|_| sample.origin.chunk_hash.is_some()),
            context: context.filter(|_| sample.origin.chunk_hash.is_some()),
            context_kind: text("dataset_type"),
            domain: self.leaf.domain.clone(),
            flow: self.flow.name.clone(),
            flow_version: self.flow.hash.clone(),
            license: self.leaf.license.clone(),
            licenses: self.leaf.works.iter().filter_map(|work| work.spdx.clone()).collect(),
            model: "none".to_owned(),
            scores: scores(sample),
            ..Row::default()
        };
        if let Some(writing) = writing {
            row.block.clone_from(&writing.block);
            row.model.clone_from(&writing.engine);
            row.prompt_hash.clone_from(&writing.prompt_hash);
            row.sampling_seed = writing.seed;
            row.answer.clone_from(&writing.raw);
            row.reasoning.clone_from(&writing.reasoning);
            row.prompt_tokens = u32::try_from(writing.prompt_tokens).unwrap_or(u32::MAX);
            row.answer_tokens = u32::try_from(writing.answer_tokens).unwrap_or(u32::MAX);
            // Of an f32: as a person wrote it, not with the digits of its f64.
            let temperature: f64 = writing.temperature.to_string().parse().unwrap_or_default();
            row.parameters = json!({"temperature": temperature, "max_tokens": writing.max_tokens}).to_string();
        }
        row
    }
}

/// A score that is not finite says nothing.
fn scores(sample: &Sample) -> Vec<Score> {
    let finite = sample.scores.iter().filter(|(_, score)| score.is_finite());
    finite.map(|(block, score)| Score { block: block.clone(), score: *score }).collect()
}

fn question_and_answer(sample: &Sample) -> (String, String) {
    sample.question_and_answer().unwrap_or_else(|| {
        let text = |column| sample.text(column).unwrap_or_default().to_owned();
        (text("question"), text("response"))
    })
}

/// Question and answer as they were written.
fn pair(sample: &Sample) -> Vec<Turn> {
    let (question, answer) = question_and_answer(sample);
    vec![Turn::new("user", question.trim()), Turn::new("assistant", answer.trim())]
}
