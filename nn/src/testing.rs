//! What the tests of the operations share.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `count` values in -1..1, always the same for a seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// A dense matrix without gradient.
pub(crate) fn matrix(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

/// A vector without gradient.
pub(crate) fn vector(values: &[f32]) -> Tensor<1> {
    Tensor::from_floats(values, &Device::flex())
}

/// Output, and the gradients of `sum(output * c)` for a fixed random `c`.
fn run(
    inputs: &[(Vec<f32>, [usize; 2])],
    body: &dyn Fn(&[Tensor<2>]) -> Tensor<2>,
) -> (Vec<f32>, Vec<Vec<f32>>, Vec<f32>) {
    let device = Device::flex().autodiff();
    let tensors: Vec<Tensor<2>> = inputs
        .iter()
        .map(|(values, shape)| Tensor::from_data(TensorData::new(values.clone(), *shape), &device).require_grad())
        .collect();
    let out = body(&tensors);
    let shape = out.dims();
    let weights = noise(99, shape[0] * shape[1]);
    let c = Tensor::<2>::from_data(TensorData::new(weights.clone(), shape), &device);
    let gradients = (out.clone() * c).sum().backward();
    let gradients =
        tensors.iter().map(|tensor| tensor.grad(&gradients).unwrap().into_data().try_to_vec().unwrap()).collect();
    (out.into_data().try_to_vec().unwrap(), gradients, weights)
}

/// Holds values and gradients of `fused` against `plain`, and its gradients against central differences.
pub(crate) fn check_against_plain(
    inputs: &[(Vec<f32>, [usize; 2])],
    fused: impl Fn(&[Tensor<2>]) -> Tensor<2>,
    plain: impl Fn(&[Tensor<2>]) -> Tensor<2>,
) {
    check_gradients(inputs, &fused, plain, &fused);
}

/// The same, with the differences of a function that has the gradient which `fused` is defined to have.
pub(crate) fn check_gradients(
    inputs: &[(Vec<f32>, [usize; 2])],
    fused: impl Fn(&[Tensor<2>]) -> Tensor<2>,
    plain: impl Fn(&[Tensor<2>]) -> Tensor<2>,
    differentiable: impl Fn(&[Tensor<2>]) -> Tensor<2>,
) {
    let (value, gradients, weights) = run(inputs, &fused);
    let (plain_value, plain_gradients, _) = run(inputs, &plain);
    assert_close(&value, &plain_value, 1e-5, "value");
    let objective = |inputs: &[(Vec<f32>, [usize; 2])]| -> f64 {
        let tensors: Vec<_> = inputs.iter().map(|(values, shape)| matrix(values, *shape)).collect();
        let out: Vec<f32> = differentiable(&tensors).into_data().try_to_vec().unwrap();
        out.iter().zip(&weights).map(|(x, c)| f64::from(*x) * f64::from(*c)).sum()
    };
    for (index, (gradient, plain)) in gradients.iter().zip(&plain_gradients).enumerate() {
        assert_close(gradient, plain, 2e-5, &format!("gradient {index}"));
        let step = 1e-2;
        let differences: Vec<f32> = (0..gradient.len())
            .map(|at| {
                let moved = |by: f32| {
                    let mut inputs = inputs.to_vec();
                    inputs[index].0[at] += by;
                    objective(&inputs)
                };
                ((moved(step) - moved(-step)) / (2.0 * f64::from(step))) as f32
            })
            .collect();
        assert_close(gradient, &differences, 5e-3, &format!("gradient {index} against differences"));
    }
}

/// Largest difference relative to the largest magnitude.
pub(crate) fn assert_close(left: &[f32], right: &[f32], tolerance: f32, what: &str) {
    assert_eq!(left.len(), right.len(), "{what}: lengths");
    let scale = right.iter().fold(1e-3_f32, |m, x| m.max(x.abs()));
    for (at, (x, y)) in left.iter().zip(right).enumerate() {
        assert!((x - y).abs() <= tolerance * scale, "{what}: element {at}: {x} for {y} (scale {scale})");
    }
}
