//! The counts of a step, in a process of their own: they belong to the process.

use std::time::{Duration, Instant};

use espalier_nn::profile::{Cost, Operation, Total, enable, timed, totals};

#[test]
fn an_operation_inside_another_is_counted_once() {
    let wait = || std::thread::sleep(Duration::from_millis(5));
    let [outer, inner] = [Operation::Embedding, Operation::Optimizer].map(|operation| operation as usize);
    timed(Operation::Embedding, Cost::values(1), wait);
    assert!(totals().iter().all(|total| *total == Total::default()), "counted while off");
    enable(true);
    let begun = Instant::now();
    timed(Operation::Embedding, Cost::product(1, 2, 3, 8), || {
        timed(Operation::Optimizer, Cost::values(5), wait);
        timed(Operation::Optimizer, Cost::values(5), wait);
    });
    let elapsed = begun.elapsed().as_nanos() as u64;
    enable(false);
    let totals = totals();
    assert!(totals[inner].nanoseconds >= 10_000_000);
    assert!(totals[outer].nanoseconds + totals[inner].nanoseconds <= elapsed);
    assert_eq!(totals[outer].cost, Cost { arithmetic: 12, bytes: 8 });
    assert_eq!(totals[inner].cost, Cost { arithmetic: 0, bytes: 40 });
}
