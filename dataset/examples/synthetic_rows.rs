//! Writes a table of made-up rows, as large as wanted, for figures and for looking at the form with other tools:
//! `cargo run --release -p espalier-dataset --example synthetic_rows -- 1000000 rows.parquet`.

use std::error::Error;
use std::path::Path;

use espalier_dataset::{Row, RowWriter, Score, Split, Turn, Verdict};

const SUBJECTS: [&str; 8] = ["pond", "well", "orchard", "hedge", "meadow", "mill", "lock", "weir"];

fn row(index: u64) -> Row {
    // A fixed permutation of the numbers, so that neighbours differ.
    let number = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let subject = SUBJECTS[(number % 8) as usize];
    let chunk = number % 997;
    let accepted = !number.is_multiple_of(5);
    Row {
        id: format!("{index:016x}"),
        leaf: format!("knowledge/made_up/{subject}"),
        kind: "knowledge".into(),
        index,
        turns: vec![
            Turn::new("user", format!("How deep is {subject} number {number} in the year {}?", 1800 + index % 200)),
            Turn::new("assistant", format!("The {subject} number {number} is {} metres deep.", number % 91)),
        ],
        slots: "{}".into(),
        seed_ids: vec![(number % 5).to_string()],
        document: Some(format!("{subject}.md")),
        chunk_hash: Some(format!("{chunk:064x}")),
        flow: "knowledge".into(),
        block: "question".into(),
        model: "none".into(),
        prompt_hash: format!("{number:064x}"),
        sampling_seed: index,
        answer: format!("{} metres", number % 91),
        verdict: if accepted { Verdict::Accepted } else { Verdict::Rejected },
        reason: if accepted { "faithful" } else { "not faithful: the document does not say so" }.into(),
        parameters: r#"{"temperature":0.7}"#.into(),
        scores: vec![Score { block: "faithfulness".into(), score: (number % 10) as f64 / 10.0 }],
        prompt_tokens: 200,
        answer_tokens: 12,
        split: if chunk.is_multiple_of(10) { Split::HeldOut } else { Split::Train },
        license: Some("CC0-1.0".into()),
        licenses: vec!["CC0-1.0".into()],
        ..Row::default()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [count, path] = arguments.as_slice() else { return Err("usage: synthetic_rows COUNT FILE.parquet".into()) };
    let mut writer = RowWriter::create(Path::new(path))?;
    (0..count.parse()?).try_for_each(|index| writer.write(row(index)))?;
    Ok(writer.finish()?)
}
