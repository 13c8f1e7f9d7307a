//! The trainable values of all updates in one flat vector, and the place of each module's among them.

use std::collections::BTreeMap;
use std::ops::Range;

use espalier_model::{LoraAdapter, LoraModule, ModelConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lora_options::ModulePlan;
use crate::ops::lora_linear::{GroupModule, GroupPlan};

/// The updates of a model: for each layer and each group of projections that share their input the stacked
/// `A [sum of ranks, inputs]`, then the `B [outputs, rank]` of its modules, then for `DoRA` their magnitudes `[outputs]`.
///
/// The order is the same wherever the frozen weights are: adapters, checkpoints and optimizer know nothing of devices.
#[derive(Debug)]
pub struct Updates {
    rslora: bool,
    dora: bool,
    places: Vec<Place>,
    parameters: Vec<f32>,
}

/// The place of one module's update.
#[derive(Debug)]
struct Place {
    plan: ModulePlan,
    a: Range<usize>,
    b: Range<usize>,
    /// `DoRA` alone.
    magnitudes: Option<Range<usize>>,
}

impl Place {
    /// Name of the module in GGUF.
    fn name(&self) -> String {
        format!("blk.{}.{}", self.plan.layer, self.plan.projection.gguf)
    }
}

impl Updates {
    /// None yet.
    pub(crate) fn new(rslora: bool, dora: bool) -> Self {
        Self { rslora, dora, places: Vec::new(), parameters: Vec::new() }
    }

    /// All trainable values, in a fixed order.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// All trainable values, to change in place.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        &mut self.parameters
    }

    /// Whether there are magnitudes among the parameters.
    pub fn is_dora(&self) -> bool {
        self.places.iter().any(|place| place.magnitudes.is_some())
    }

    /// Whether the scales are those of rsLoRA.
    pub fn is_rslora(&self) -> bool {
        self.rslora
    }

    /// The shape of a group of modules that share their input, at least one; `None` of none.
    pub(crate) fn group(&self, config: &ModelConfig, members: &[ModulePlan]) -> Option<GroupPlan> {
        let (inputs, _) = members.first()?.projection.size(config);
        let modules = members.iter().map(|plan| {
            let rank = plan.rank as f32;
            let scale = plan.alpha / if self.rslora { rank.sqrt() } else { rank };
            GroupModule { outputs: plan.projection.range(config), rank: plan.rank, scale }
        });
        Some(GroupPlan { inputs, modules: modules.collect(), dora: self.dora })
    }

    /// Adds the parameters of such a group behind those that are there: zeros, and for `DoRA` the lengths of the frozen rows
    /// of all outputs of the product.
    pub(crate) fn push(&mut self, members: &[ModulePlan], group: &GroupPlan, lengths: &[f32]) -> Range<usize> {
        let first = self.parameters.len();
        let [a, b, _] = group.parameter_lengths();
        let (mut next_a, mut next_b, mut next_magnitude) = (first, first + a, first + a + b);
        self.parameters.resize(first + a + b, 0.0);
        for (plan, module) in members.iter().zip(&group.modules) {
            let outputs = module.outputs.len();
            let a = next_a..next_a + plan.rank * group.inputs;
            let b = next_b..next_b + plan.rank * outputs;
            (next_a, next_b) = (a.end, b.end);
            let magnitudes = group.dora.then(|| {
                self.parameters.extend_from_slice(&lengths[module.outputs.clone()]);
                let own = next_magnitude..next_magnitude + outputs;
                next_magnitude = own.end;
                own
            });
            self.places.push(Place { plan: *plan, a, b, magnitudes });
        }
        first..self.parameters.len()
    }

    /// Draws every `A` uniformly from `±1/sqrt(inputs)`, as PEFT does.
    pub(crate) fn draw(&mut self, config: &ModelConfig, seed: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for Place { plan, a, .. } in &self.places {
            let (inputs, _) = plan.projection.size(config);
            let bound = (inputs as f32).sqrt().recip();
            for value in &mut self.parameters[a.clone()] {
                *value = random.random_range(-bound..bound);
            }
        }
    }

    /// Takes the values of an adapter with these very modules.
    pub(crate) fn take_from(&mut self, adapter: &LoraAdapter) {
        for place in &self.places {
            let module = &adapter.modules[&place.name()];
            self.parameters[place.a.clone()].copy_from_slice(&module.a);
            self.parameters[place.b.clone()].copy_from_slice(&module.b);
            if let (Some(own), Some(magnitudes)) = (&place.magnitudes, &module.magnitude) {
                self.parameters[own.clone()].copy_from_slice(magnitudes);
            }
        }
    }

    /// The updates as an adapter, rows of `B` in GGUF order.
    pub(crate) fn to_adapter(&self, config: &ModelConfig, base_model: &str) -> LoraAdapter {
        let values = |range: &Range<usize>| self.parameters[range.clone()].to_vec();
        let modules = self.places.iter().map(|place| {
            let (inputs, outputs) = place.plan.projection.size(config);
            let module = LoraModule {
                a: values(&place.a),
                b: values(&place.b),
                inputs,
                outputs,
                rank: place.plan.rank,
                alpha: place.plan.alpha,
                magnitude: place.magnitudes.as_ref().map(values),
            };
            (place.name(), module)
        });
        LoraAdapter {
            rslora: self.rslora,
            base_model: base_model.to_owned(),
            base_sha256: None,
            chat_template: None,
            modules: modules.collect::<BTreeMap<_, _>>(),
        }
    }
}
