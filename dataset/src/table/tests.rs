//! Rows go into a table and come back.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;

use super::*;
use crate::row::{Row, Score, Split, Turn, Verdict};

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let turn = (".{0,4}", ".{0,20}").prop_map(|(role, content)| Turn { role, content });
    let score = (".{0,4}", -1e9_f64..1e9).prop_map(|(block, score)| Score { block, score });
    let row = (
        (".{0,8}", ".{0,8}", any::<u64>(), proptest::collection::vec(turn, 0..4)),
        (proptest::collection::vec(".{0,3}", 0..4), proptest::option::of(".{0,8}"), any::<u64>(), any::<bool>()),
        (proptest::collection::vec(score, 0..3), any::<u32>(), any::<bool>(), proptest::option::of(".{0,4}")),
    );
    let row = row.prop_map(
        |(
            (id, leaf, index, turns),
            (texts, text, sampling_seed, accepted),
            (scores, prompt_tokens, train, verifier),
        )| Row {
            id,
            leaf,
            index,
            turns,
            seed_ids: texts.clone(),
            license: text.clone(),
            document: text.clone(),
            sampling_seed,
            verdict: if accepted { Verdict::Accepted } else { Verdict::Rejected },
            scores,
            prompt_tokens,
            split: if train { Split::Train } else { Split::HeldOut },
            verifier,
            reasoning: text,
            licenses: texts,
            leaf_weight: train.then(|| f64::from(prompt_tokens) + 0.5),
            ..Row::default()
        },
    );
    proptest::collection::vec(row, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn rows_come_back_and_bytes_repeat(rows in rows()) {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
        write_parquet(&a, &rows).unwrap();
        write_parquet(&b, &rows).unwrap();
        prop_assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        prop_assert_eq!(read_parquet(&a).unwrap(), rows);
    }
}

/// A row that says something in each of its fields.
fn full() -> Row {
    let text = |name: &str| format!("the {name}");
    Row {
        id: text("id"),
        leaf: text("leaf"),
        kind: text("kind"),
        index: 3,
        turns: vec![Turn::new("user", "Q"), Turn::new("assistant", "A")],
        slots: text("slots"),
        seed_ids: vec!["1".into(), "2".into()],
        document: Some(text("document")),
        flow: text("flow"),
        prompt_hash: text("prompt_hash"),
        model: text("model"),
        sampling_seed: u64::MAX,
        answer: text("answer"),
        verdict: Verdict::Accepted,
        reason: text("reason"),
        license: Some(text("license")),
        chunk_hash: Some(text("chunk_hash")),
        chunk: Some(text("chunk")),
        context: Some(text("context")),
        context_kind: Some(text("context_kind")),
        domain: Some(text("domain")),
        flow_version: text("flow_version"),
        block: text("block"),
        parameters: text("parameters"),
        scores: vec![Score { block: "judge".into(), score: 0.1 }],
        verifier: Some(text("verifier")),
        prompt_tokens: 5,
        answer_tokens: u32::MAX,
        reasoning: Some(text("reasoning")),
        split: Split::HeldOut,
        licenses: vec!["MIT".into()],
        leaf_weight: Some(2.5),
    }
}

#[test]
fn every_field_has_its_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, &[full(), Row::default()]).unwrap();
    assert_eq!(read_parquet(&path).unwrap(), [full(), Row::default()]);
    let fields = serde_json::to_value(full()).unwrap();
    let fields: Vec<&String> = fields.as_object().unwrap().keys().collect();
    assert_eq!(fields, COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>());
}

#[test]
fn the_schema_is_stable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, &[full()]).unwrap();
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let mut words = Vec::new();
    parquet::schema::printer::print_schema(&mut words, reader.metadata().file_metadata().schema());
    insta::assert_snapshot!(String::from_utf8(words).unwrap());
}

#[test]
fn an_older_table_is_read_and_a_foreign_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, older) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
    write_parquet(&path, &[full()]).unwrap();
    let keep = |wanted: &dyn Fn(&Column) -> bool| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap().build().unwrap();
        let places: Vec<usize> = (0..COLUMNS.len()).filter(|&at| wanted(&COLUMNS[at])).collect();
        let schema = Arc::new(reader.schema().project(&places).unwrap());
        let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap().project(&places).unwrap()).collect();
        let mut writer = ArrowWriter::try_new(File::create(&older).unwrap(), schema, None).unwrap();
        for batch in &batches {
            writer.write(batch).unwrap();
        }
        writer.close().unwrap();
        read_parquet(&older)
    };
    let read = keep(&|column| column.required).unwrap();
    assert_eq!((&read[0].turns, &read[0].license), (&full().turns, &full().license));
    assert_eq!((&read[0].scores, read[0].split, &read[0].licenses), (&vec![], Split::Train, &vec![]));
    assert_eq!(read[0].leaf_weight, None);
    let error = keep(&|column| column.name != "verdict").unwrap_err().to_string();
    assert!(error.contains("the column `verdict` is missing"), "{error}");
}

#[test]
fn a_weight_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, &[Row { leaf_weight: Some(0.0), ..full() }]).unwrap();
    let error = read_parquet(&path).unwrap_err().to_string();
    assert!(error.contains("`leaf_weight` is 0; it is above zero"), "{error}");
}

#[test]
fn a_long_table_has_groups_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let mut writer = RowWriter::create(&path).unwrap();
    for index in 0..40_000 {
        writer.write(Row { index, ..full() }).unwrap();
    }
    // A text of 40 MB ends a group by itself.
    writer.write(Row { index: 40_000, answer: "x".repeat(40 << 20), ..full() }).unwrap();
    writer.write(Row { index: 40_001, ..full() }).unwrap();
    assert_eq!(writer.rows(), 40_002);
    assert!(!path.exists());
    writer.finish().unwrap();
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(groups, [16_384, 16_384, 7_233, 1]);
    let reader = RowReader::open(&path).unwrap();
    assert_eq!(reader.rows(), 40_002);
    assert!(reader.enumerate().all(|(at, row)| row.unwrap().index == at as u64));
}

#[test]
fn a_table_that_is_not_finished_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::create(&folder.path().join("a.parquet")).unwrap();
    writer.write(full()).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, &[Row::default()]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, 50, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = read_parquet(&path).unwrap_err().to_string();
        assert!(error.contains("a.parquet"), "{error}");
    }
}
