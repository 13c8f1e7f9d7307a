//! `pipeline data sample`: rows drawn from all, in one reading.

use super::filter::Filter;
use super::show::print;
use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{Row, RowSource, draw_key};

pub(super) fn run(
    source: &RowSource,
    filter: &Filter,
    count: usize,
    seed: u64,
    session: Session<'_>,
) -> Result<Status> {
    // The rows with the smallest keys are a sample of all, whatever order they come in.
    let mut drawn: Vec<(u64, usize, Row)> = Vec::new();
    let mut fitting = 0;
    for row in filter.rows(source) {
        let row = row?;
        let key = draw_key(seed, &[b"sample", row.id.as_bytes()]);
        let place = drawn.partition_point(|(other, ..)| *other <= key);
        if place < count {
            drawn.insert(place, (key, fitting, row));
            drawn.truncate(count);
        }
        fitting += 1;
    }
    drawn.sort_by_key(|(_, place, _)| *place);
    let rows: Vec<Row> = drawn.into_iter().map(|(_, _, row)| row).collect();
    print(&rows, fitting, session);
    Ok(Status::Done)
}
