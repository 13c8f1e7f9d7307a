//! What the tests of the operations share: noise, comparison, differences, pools.

/// Deterministic noise in -1..1.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// Asserts that every difference is below `tolerance` times the larger of the value and the root mean square of all.
#[track_caller]
pub(crate) fn assert_close(values: &[f32], truth: &[f64], tolerance: f64, label: &str) {
    assert_eq!(values.len(), truth.len(), "{label}: lengths differ");
    let scale = (truth.iter().map(|t| t * t).sum::<f64>() / truth.len() as f64).sqrt();
    for (index, (value, truth)) in values.iter().zip(truth).enumerate() {
        let difference = (f64::from(*value) - truth).abs();
        assert!(
            difference <= tolerance * truth.abs().max(scale),
            "{label}: element {index} is {value}, expected {truth} (scale {scale})"
        );
    }
}

/// The values in double precision.
pub(crate) fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// The gradient of a scalar function by central differences in double precision.
pub(crate) fn gradient(at: &[f32], function: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = widen(at);
    let step = 1e-5;
    (0..x.len())
        .map(|index| {
            let centre = x[index];
            x[index] = centre + step;
            let above = function(&x);
            x[index] = centre - step;
            let below = function(&x);
            x[index] = centre;
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// Runs with a pool of that many threads.
pub(crate) fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool").install(run)
}
