//! The columns of a table of rows: what each is called, means, and how it goes between a row and an array.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Float64Builder, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder,
    StructArray, StructBuilder, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};

use crate::row::{Row, Score, Split, Turn, Verdict};

/// A column of the table.
pub struct Column {
    /// Its name, which is that of the field of [`Row`].
    pub name: &'static str,
    /// What it holds.
    pub meaning: &'static str,
    /// Whether every table has it; the others are filled with their default when an older table is read.
    pub(crate) required: bool,
    access: Access,
}

impl std::fmt::Debug for Column {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Column").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a value goes from a row into an array and back.
enum Access {
    Text(fn(&Row) -> &str, fn(&mut Row, &str)),
    Optional(fn(&Row) -> Option<&str>, fn(&mut Row, &str)),
    /// A text of few values; the second says whether it is one of them.
    Word(fn(&Row) -> &str, fn(&mut Row, &str) -> bool),
    Number(fn(&Row) -> u64, fn(&mut Row, u64)),
    Count(fn(&Row) -> u32, fn(&mut Row, u32)),
    Texts(fn(&Row) -> &[String], fn(&mut Row, Vec<String>)),
    Weight(fn(&Row) -> Option<f64>, fn(&mut Row, f64)),
    Turns,
    Scores,
}

const fn column(required: bool, name: &'static str, access: Access, meaning: &'static str) -> Column {
    Column { name, meaning, required, access }
}

/// Sets a word that is known.
fn known<T>(value: Option<T>, place: &mut T) -> bool {
    value.map(|value| *place = value).is_some()
}

/// The columns in their order.
#[rustfmt::skip]
pub const COLUMNS: [Column; 32] = [
    column(true, "id", Access::Text(|row| &row.id, |row, text| text.clone_into(&mut row.id)),
        "16 hexadecimal digits that name the row: equal for the same leaf, flow, place and seed"),
    column(true, "leaf", Access::Text(|row| &row.leaf, |row, text| text.clone_into(&mut row.leaf)),
        "path of the leaf in the tree"),
    column(true, "kind", Access::Text(|row| &row.kind, |row, text| text.clone_into(&mut row.kind)),
        "`freeform_skill`, `grounded_skill` or `knowledge`"),
    column(true, "index", Access::Number(|row| row.index, |row, value| row.index = value),
        "place among the rows of the leaf, from 0"),
    column(true, "turns", Access::Turns, "what is trained on: `system`, `user` and `assistant` in turn"),
    column(true, "slots", Access::Text(|row| &row.slots, |row, text| text.clone_into(&mut row.slots)),
        "values of the slots of the question, a JSON object"),
    column(true, "seed_ids", Access::Texts(|row| &row.seed_ids, |row, list| row.seed_ids = list),
        "seed examples that stood in the prompt, by their number from 0 in the leaf"),
    column(true, "document", Access::Optional(|row| row.document.as_deref(), |row, text| row.document = Some(text.to_owned())),
        "the document that the row is about"),
    column(true, "flow", Access::Text(|row| &row.flow, |row, text| text.clone_into(&mut row.flow)),
        "the flow that made it"),
    column(true, "prompt_hash", Access::Text(|row| &row.prompt_hash, |row, text| text.clone_into(&mut row.prompt_hash)),
        "SHA-256 of the prompt"),
    column(true, "model", Access::Text(|row| &row.model, |row, text| text.clone_into(&mut row.model)),
        "the teacher and its hash; `none` where no model wrote"),
    column(true, "sampling_seed", Access::Number(|row| row.sampling_seed, |row, value| row.sampling_seed = value),
        "the seed that the tokens were drawn with"),
    column(true, "answer", Access::Text(|row| &row.answer, |row, text| text.clone_into(&mut row.answer)),
        "what the teacher wrote, untouched"),
    column(true, "verdict", Access::Word(|row| row.verdict.name(), |row, word| known(Verdict::from_name(word), &mut row.verdict)),
        "`accepted` or `rejected`"),
    column(true, "reason", Access::Text(|row| &row.reason, |row, text| text.clone_into(&mut row.reason)),
        "`category: detail` of a rejection, or the check that it passed"),
    column(true, "license", Access::Optional(|row| row.license.as_deref(), |row, text| row.license = Some(text.to_owned())),
        "licence of the work that the leaf draws on, as its attribution says it"),
    column(false, "chunk_hash", Access::Optional(|row| row.chunk_hash.as_deref(), |row, text| row.chunk_hash = Some(text.to_owned())),
        "SHA-256 of the chunk of the document"),
    column(false, "chunk", Access::Optional(|row| row.chunk.as_deref(), |row, text| row.chunk = Some(text.to_owned())),
        "the text of the chunk"),
    column(false, "context", Access::Optional(|row| row.context.as_deref(), |row, text| row.context = Some(text.to_owned())),
        "what the flow made of the chunk and asked about (a summary, facts); nothing where it asked about the chunk itself"),
    column(false, "context_kind", Access::Optional(|row| row.context_kind.as_deref(), |row, text| row.context_kind = Some(text.to_owned())),
        "what kind of text the context is, in the words of the flow"),
    column(false, "domain", Access::Optional(|row| row.domain.as_deref(), |row, text| row.domain = Some(text.to_owned())),
        "the field that the leaf belongs to, as it says itself"),
    column(false, "flow_version", Access::Text(|row| &row.flow_version, |row, text| text.clone_into(&mut row.flow_version)),
        "version of the flow: a hash of its file and prompts"),
    column(false, "block", Access::Text(|row| &row.block, |row, text| text.clone_into(&mut row.block)),
        "the block of the flow that wrote the row, or that refused it"),
    column(false, "parameters", Access::Text(|row| &row.parameters, |row, text| text.clone_into(&mut row.parameters)),
        "how the teacher was asked (temperature, limit of tokens and so on), a JSON object"),
    column(false, "scores", Access::Scores, "what judges and rewards gave, in the order of the flow"),
    column(false, "verifier", Access::Optional(|row| row.verifier.as_deref(), |row, text| row.verifier = Some(text.to_owned())),
        "the checker that looked at the answer, and what it found"),
    column(false, "prompt_tokens", Access::Count(|row| row.prompt_tokens, |row, count| row.prompt_tokens = count),
        "tokens of the prompt, by the teacher's tokenizer"),
    column(false, "answer_tokens", Access::Count(|row| row.answer_tokens, |row, count| row.answer_tokens = count),
        "tokens that the teacher wrote"),
    column(false, "reasoning", Access::Optional(|row| row.reasoning.as_deref(), |row, text| row.reasoning = Some(text.to_owned())),
        "what the teacher thought before it answered"),
    column(false, "split", Access::Word(|row| row.split.name(), |row, word| known(Split::from_name(word), &mut row.split)),
        "`train`, or `held_out` for evaluation"),
    column(false, "licenses", Access::Texts(|row| &row.licenses, |row, list| row.licenses = list),
        "SPDX identifiers of the licences of the works that the row draws on"),
    column(false, "leaf_weight", Access::Weight(|row| row.leaf_weight, |row, weight| row.leaf_weight = Some(weight)),
        "how often training takes the row in an epoch, as its leaf says (`weight`); once where that says nothing"),
];

fn turn_fields() -> Fields {
    Fields::from(vec![Field::new("role", DataType::Utf8, false), Field::new("content", DataType::Utf8, false)])
}

fn score_fields() -> Fields {
    Fields::from(vec![Field::new("block", DataType::Utf8, false), Field::new("score", DataType::Float64, false)])
}

/// The item of a list column; none is null.
fn item(kind: DataType) -> FieldRef {
    Arc::new(Field::new("item", kind, false))
}

/// The Arrow schema of a table of rows.
pub fn row_schema() -> Schema {
    Schema::new(COLUMNS.iter().map(Column::field).collect::<Vec<_>>())
}

impl Column {
    /// Its type in words.
    pub fn type_words(&self) -> &'static str {
        match self.access {
            Access::Text(..) | Access::Word(..) => "text",
            Access::Optional(..) => "text or nothing",
            Access::Number(..) => "u64",
            Access::Count(..) => "u32",
            Access::Texts(..) => "list of text",
            Access::Weight(..) => "f64 or nothing",
            Access::Turns => "list of {role, content}",
            Access::Scores => "list of {block, score}",
        }
    }

    fn field(&self) -> Field {
        let (kind, nullable) = match self.access {
            Access::Text(..) | Access::Word(..) => (DataType::Utf8, false),
            Access::Optional(..) => (DataType::Utf8, true),
            Access::Number(..) => (DataType::UInt64, false),
            Access::Count(..) => (DataType::UInt32, false),
            Access::Texts(..) => (DataType::List(item(DataType::Utf8)), false),
            Access::Weight(..) => (DataType::Float64, true),
            Access::Turns => (DataType::List(item(DataType::Struct(turn_fields()))), false),
            Access::Scores => (DataType::List(item(DataType::Struct(score_fields()))), false),
        };
        Field::new(self.name, kind, nullable)
    }

    /// The values of `rows`.
    pub(super) fn array(&self, rows: &[Row]) -> ArrayRef {
        let rows = rows.iter();
        match self.access {
            Access::Text(get, _) => Arc::new(StringArray::from_iter_values(rows.map(get))),
            Access::Word(get, _) => Arc::new(StringArray::from_iter_values(rows.map(get))),
            Access::Optional(get, _) => Arc::new(rows.map(get).collect::<StringArray>()),
            Access::Number(get, _) => Arc::new(UInt64Array::from_iter_values(rows.map(get))),
            Access::Count(get, _) => Arc::new(UInt32Array::from_iter_values(rows.map(get))),
            Access::Texts(get, _) => {
                let mut list = ListBuilder::new(StringBuilder::new()).with_field(item(DataType::Utf8));
                for row in rows {
                    for text in get(row) {
                        list.values().append_value(text);
                    }
                    list.append(true);
                }
                Arc::new(list.finish())
            }
            Access::Weight(get, _) => Arc::new(rows.map(get).collect::<Float64Array>()),
            Access::Turns => structures(rows, turn_fields(), |row, builder| {
                for turn in &row.turns {
                    append_text(builder, 0, &turn.role);
                    append_text(builder, 1, &turn.content);
                    builder.append(true);
                }
            }),
            Access::Scores => structures(rows, score_fields(), |row, builder| {
                for score in &row.scores {
                    append_text(builder, 0, &score.block);
                    if let Some(column) = builder.field_builder::<Float64Builder>(1) {
                        column.append_value(score.score);
                    }
                    builder.append(true);
                }
            }),
        }
    }

    /// Sets the column's field in each of `rows`, which are those of the batch.
    pub(super) fn read(&self, batch: &RecordBatch, rows: &mut [Row]) -> Result<(), String> {
        if !self.required && batch.column_by_name(self.name).is_none() {
            return Ok(());
        }
        match self.access {
            Access::Text(_, set) => {
                let column = typed::<StringArray>(batch, self.name)?;
                rows.iter_mut().enumerate().for_each(|(at, row)| set(row, column.value(at)));
            }
            Access::Optional(_, set) => {
                let column = typed::<StringArray>(batch, self.name)?;
                let said = rows.iter_mut().enumerate().filter(|(at, _)| column.is_valid(*at));
                said.for_each(|(at, row)| set(row, column.value(at)));
            }
            Access::Word(_, set) => {
                let column = typed::<StringArray>(batch, self.name)?;
                for (at, row) in rows.iter_mut().enumerate() {
                    if !set(row, column.value(at)) {
                        return Err(format!("unknown {} {:?}", self.name, column.value(at)));
                    }
                }
            }
            Access::Number(_, set) => {
                let column = typed::<UInt64Array>(batch, self.name)?;
                rows.iter_mut().enumerate().for_each(|(at, row)| set(row, column.value(at)));
            }
            Access::Count(_, set) => {
                let column = typed::<UInt32Array>(batch, self.name)?;
                rows.iter_mut().enumerate().for_each(|(at, row)| set(row, column.value(at)));
            }
            Access::Texts(_, set) => {
                let column = typed::<ListArray>(batch, self.name)?;
                for (at, row) in rows.iter_mut().enumerate() {
                    let texts = column.value(at);
                    let texts = array::<StringArray>(&texts, self.name)?;
                    set(row, (0..texts.len()).map(|at| texts.value(at).to_owned()).collect());
                }
            }
            Access::Weight(_, set) => {
                let column = typed::<Float64Array>(batch, self.name)?;
                for (at, row) in rows.iter_mut().enumerate().filter(|(at, _)| column.is_valid(*at)) {
                    let weight = column.value(at);
                    if !(weight.is_finite() && weight > 0.0) {
                        return Err(format!("`{}` is {weight}; it is above zero", self.name));
                    }
                    set(row, weight);
                }
            }
            Access::Turns => {
                let column = typed::<ListArray>(batch, self.name)?;
                for (at, row) in rows.iter_mut().enumerate() {
                    let turns = column.value(at);
                    let [roles, contents] = fields(&turns, self.name, ["role", "content"])?;
                    let (roles, contents) = (array::<StringArray>(roles, "role")?, array(contents, "content")?);
                    let turn = |at| Turn::new(roles.value(at), StringArray::value(contents, at));
                    row.turns = (0..turns.len()).map(turn).collect();
                }
            }
            Access::Scores => {
                let column = typed::<ListArray>(batch, self.name)?;
                for (at, row) in rows.iter_mut().enumerate() {
                    let scores = column.value(at);
                    let [blocks, values] = fields(&scores, self.name, ["block", "score"])?;
                    let (blocks, values) = (array::<StringArray>(blocks, "block")?, array(values, "score")?);
                    let score =
                        |at| Score { block: blocks.value(at).to_owned(), score: Float64Array::value(values, at) };
                    row.scores = (0..scores.len()).map(score).collect();
                }
            }
        }
        Ok(())
    }
}

/// A list of structures a row.
fn structures<'a>(
    rows: impl Iterator<Item = &'a Row>,
    fields: Fields,
    append: impl Fn(&Row, &mut StructBuilder),
) -> ArrayRef {
    let field = item(DataType::Struct(fields.clone()));
    let mut list = ListBuilder::new(StructBuilder::from_fields(fields, 0)).with_field(field);
    for row in rows {
        append(row, list.values());
        list.append(true);
    }
    Arc::new(list.finish())
}

fn append_text(builder: &mut StructBuilder, field: usize, text: &str) {
    if let Some(column) = builder.field_builder::<StringBuilder>(field) {
        column.append_value(text);
    }
}

/// A column of a batch, in its type.
pub(crate) fn typed<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, String> {
    array(batch.column_by_name(name).ok_or_else(|| format!("the column `{name}` is missing"))?, name)
}

fn array<'a, T: Array + 'static>(array: &'a ArrayRef, name: &str) -> Result<&'a T, String> {
    let typed = array.as_any().downcast_ref::<T>();
    typed.ok_or_else(|| format!("the column `{name}` has the type {}", array.data_type()))
}

/// The fields of the structures that a list holds.
fn fields<'a, const N: usize>(list: &'a ArrayRef, name: &str, fields: [&str; N]) -> Result<[&'a ArrayRef; N], String> {
    let structures = array::<StructArray>(list, name)?;
    let found: Result<Vec<_>, _> = fields
        .iter()
        .map(|field| structures.column_by_name(field).ok_or_else(|| format!("`{name}` lacks `{field}`")))
        .collect();
    found?.try_into().map_err(|_| format!("`{name}` lacks a field"))
}
