//! A training step by operation, each beside the limit that it meets first.

use crate::bound::{Bound, Rates};
use espalier_train::profile::{Operation, Total, totals};
use std::time::Instant;

/// Counts the operations of one step after another.
pub struct StepClock {
    before: [Total; Operation::ALL.len()],
    faults: u64,
    started: Instant,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// From the end of the step before to its own.
    pub seconds: f64,
    /// Memory pages that the system handed out meanwhile.
    pub page_faults: u64,
    operations: [Total; Operation::ALL.len()],
}

impl StepClock {
    /// From now on.
    pub fn start() -> Self {
        Self { before: totals(), faults: page_faults(), started: Instant::now() }
    }

    /// What happened since the last call.
    pub fn lap(&mut self) -> Step {
        let now = Self::start();
        let mut operations = now.before;
        for (total, before) in operations.iter_mut().zip(&self.before) {
            total.nanoseconds -= before.nanoseconds;
            total.cost.arithmetic -= before.cost.arithmetic;
            total.cost.bytes -= before.cost.bytes;
        }
        let seconds = (now.started - self.started).as_secs_f64();
        let step = Step { seconds, page_faults: now.faults - self.faults, operations };
        *self = now;
        step
    }
}

impl Step {
    /// Time of all counted operations: the rest went to the tape and the loop.
    pub fn counted_seconds(&self) -> f64 {
        self.operations.iter().map(|total| total.nanoseconds as f64 / 1e9).sum()
    }

    /// Its operations, the longest first, for the result, beside the seconds that each takes `alone` (of another step, times
    /// `scale`).
    pub fn operations(&self, alone: &Self, scale: f64, rates: Rates) -> Vec<serde_json::Value> {
        let totals = self.operations.iter().zip(&alone.operations);
        let mut rows: Vec<_> =
            Operation::ALL.iter().zip(totals).filter(|(_, (total, _))| total.nanoseconds > 0).collect();
        rows.sort_by_key(|(_, (total, _))| std::cmp::Reverse(total.nanoseconds));
        rows.into_iter()
            .map(|(operation, (total, alone))| {
                let seconds = total.nanoseconds as f64 / 1e9;
                let mut row = serde_json::json!({
                    "name": operation.name(), "seconds": seconds, "share": seconds / self.seconds.max(1e-12),
                    "alone_seconds": scale * alone.nanoseconds as f64 / 1e9,
                });
                Bound::of(total.cost.arithmetic as f64, total.cost.bytes as f64, rates).write(seconds, &mut row);
                row
            })
            .collect()
    }
}

/// The rows of [`Step::operations`] as a table.
pub fn table(rows: &[serde_json::Value]) -> Vec<String> {
    let number = |row: &serde_json::Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    rows.iter()
        .map(|row| {
            format!(
                "  {:<26}{:>8.3} s {:>5.1}%   alone {:.3} s   {} bound {:.3} s",
                row["name"].as_str().unwrap_or_default(),
                number(row, "seconds"),
                100.0 * number(row, "share"),
                number(row, "alone_seconds"),
                row["bound"].as_str().unwrap_or_default(),
                number(row, "bound_seconds"),
            )
        })
        .collect()
}

/// Pages that this process got from the system so far.
fn page_faults() -> u64 {
    let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name in brackets: state, seven identifiers, then the minor faults (man 5 proc).
    let behind = line.rsplit_once(')').map_or("", |(_, behind)| behind);
    behind.split_whitespace().nth(7).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_train::profile::{Cost, Counting, count, timed};

    #[test]
    fn a_lap_holds_what_happened_in_it() {
        let mut clock = StepClock::start();
        let mut laps = [Counting::InStep, Counting::Alone { runs: 2 }, Counting::Off].map(|counting| {
            count(counting);
            let pages = timed(Operation::Optimizer, Cost { arithmetic: 600, bytes: 10 }, || vec![1_u8; 1 << 22]);
            timed(Operation::Norms, Cost { arithmetic: 0, bytes: 50 }, || std::hint::black_box(&pages).len());
            clock.lap()
        });
        let [step, alone, none] = &mut laps;
        let rates = Rates { operations_per_second: 100.0, bytes_per_second: 10.0 };
        let rows = step.operations(alone, 2.0, rates);
        let row = |name: &str| rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default();
        assert_eq!(
            (&row("optimizer")["bound"], &row("optimizer")["bound_seconds"]),
            (&"arithmetic".into(), &6.0.into())
        );
        assert_eq!((&row("norms")["bound"], &row("norms")["bound_seconds"]), (&"memory".into(), &5.0.into()));
        assert!(step.counted_seconds() <= step.seconds);
        let sum: f64 = rows.iter().filter_map(|row| row["alone_seconds"].as_f64()).sum();
        assert!((sum - 2.0 * alone.counted_seconds()).abs() < 1e-9 && sum > 0.0);
        assert!(
            table(&rows).iter().any(|line| line.contains("optimizer") && line.ends_with("arithmetic bound 6.000 s"))
        );
        assert!(none.operations(alone, 1.0, rates).is_empty());
    }
}
