//! The counts of a step, in a process of their own: they belong to the process.

use std::time::Duration;

use espalier_nn::profile::{Cost, Counting, Operation, Total, count, timed, totals};

#[test]
fn calls_are_counted_as_they_come_or_alone() {
    let mut runs = 0;
    let mut call = |operation| {
        timed(operation, Cost::product(1, 2, 3, 8), || {
            runs += 1;
            // The first run of a call is the slow one.
            std::thread::sleep(Duration::from_millis(if runs % 4 == 1 { 40 } else { 2 }));
            runs
        })
    };
    assert_eq!(call(Operation::Norms), 1);
    assert!(totals().iter().all(|total| *total == Total::default()), "counted while off");
    count(Counting::Alone { runs: 3 });
    assert_eq!((call(Operation::Norms), call(Operation::Optimizer)), (5, 9));
    count(Counting::InStep);
    assert_eq!((call(Operation::Additions), call(Operation::Additions)), (10, 11));
    count(Counting::Off);
    let total = |operation: Operation| totals()[operation as usize];
    let cost = Cost { arithmetic: 12, bytes: 8 };
    assert_eq!((total(Operation::Norms).cost, total(Operation::Optimizer).cost), (cost, cost));
    assert_eq!(total(Operation::Additions).cost, Cost { arithmetic: 24, bytes: 16 });
    assert!(total(Operation::Additions).nanoseconds >= 4_000_000);
}
