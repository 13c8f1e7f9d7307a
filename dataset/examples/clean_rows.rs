//! Time and memory of cleaning many rows, with faults planted at known places.
//!
//! ```text
//! cargo run --release -p espalier-dataset --example clean_rows -- 1000000
//! ```
//!
//! Makes so many rows in a folder of its own (1 GB for a million, with the shingles), cleans them with every check and prints a line
//! of JSON: rows, seconds of making and of cleaning, peak memory, and what was found of what was planted. It fails where something
//! planted is missed, or something else is rejected.

#[path = "../tests/cleaning/planted.rs"]
mod planted;

use std::error::Error;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use espalier_dataset::quality::{Benchmarks, Cleaning, Compared, Deduplication, Outputs, Rules, clean, read_items};
use planted::{ITEMS, Planted, item, planted, row};

fn main() -> Result<(), Box<dyn Error>> {
    let rows: u64 = std::env::args().nth(1).ok_or("say how many rows, for instance 10000")?.parse()?;
    let folder = std::env::temp_dir().join(format!("espalier-clean-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = measure(rows, &folder);
    std::fs::remove_dir_all(&folder)?;
    println!("{}", result?);
    Ok(())
}

fn measure(rows: u64, folder: &std::path::Path) -> Result<serde_json::Value, Box<dyn Error>> {
    let started = Instant::now();
    let (input, benchmark) = (folder.join("rows.jsonl"), folder.join("benchmark.jsonl"));
    let mut file = BufWriter::new(std::fs::File::create(&input)?);
    (0..rows).try_for_each(|index| writeln!(file, "{}", row(index)))?;
    file.flush()?;
    std::fs::write(&benchmark, (0..ITEMS).map(|index| item(index) + "\n").collect::<String>())?;
    let made = started.elapsed().as_secs_f64();

    let cleaning = Cleaning {
        mask: true,
        rules: Some(Rules::default()),
        language: None,
        benchmarks: Some(Benchmarks::new(read_items(&benchmark)?)),
        deduplication: Some(Deduplication {
            threshold: 0.8,
            compared: Compared::Conversation,
            against: Vec::new(),
            index: None,
        }),
    };
    let output = folder.join("clean.jsonl");
    let started = Instant::now();
    let outputs = Outputs { cleaned: Some(&output), rejected: None };
    let report =
        clean(&input, outputs, &cleaning, None, &mut |_, _| ControlFlow::Continue(()))?.ok_or("it was stopped")?;
    let seconds = started.elapsed().as_secs_f64();

    let count = |kind| (0..rows).filter(|&index| planted(index) == kind).count() as u64;
    let found =
        |name: &str| report.rejected_by.iter().find(|(reason, _)| reason == name).map_or(0, |(_, count)| *count);
    let planted = [
        ("near-duplicate", Planted::Duplicate),
        ("contamination", Planted::Contamination),
        ("repetition", Planted::Loop),
    ];
    for (name, kind) in planted {
        if found(name) != count(kind) {
            return Err(format!("{} rows with {name} planted, {} found", count(kind), found(name)).into());
        }
    }
    if report.masked_rows != count(Planted::Personal) || report.rejected_by.len() > planted.len() {
        return Err(format!("other rows than the planted ones are masked or rejected: {:?}", report.rejected_by).into());
    }
    Ok(serde_json::json!({
        "rows": rows,
        "bytes": std::fs::metadata(&input)?.len(),
        "seconds_making": made,
        "seconds_cleaning": seconds,
        "rows_per_second": rows as f64 / seconds,
        "peak_bytes": peak_bytes(),
        "kept": report.kept,
        "rejected_by": report.rejected_by,
        "masked_rows": report.masked_rows,
    }))
}

/// The most memory that the process had, where the system tells (Linux).
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
