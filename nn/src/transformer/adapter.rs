//! Updates on their way from and to adapters.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_model::{LoraAdapter, LoraModule};

use super::frozen::FrozenTransformer;
use super::lora::LoraModel;
use super::lora_options::ModulePlan;
use crate::error::NnError;

impl LoraModel {
    /// A model that goes on from `adapter`, with its modules, ranks and scales.
    ///
    /// # Errors
    ///
    /// A module that the model does not have in this shape, a rank above its width.
    pub fn from_adapter(frozen: Arc<FrozenTransformer>, adapter: &LoraAdapter) -> Result<Self, NnError> {
        let plans = ModulePlan::of_adapter(&frozen.config, adapter)?;
        let mut model = Self::of_plans(frozen, plans, adapter.rslora, adapter.is_dora());
        for place in &model.places {
            let module = &adapter.modules[&place.name()];
            model.parameters[place.a.clone()].copy_from_slice(&module.a);
            model.parameters[place.b.clone()].copy_from_slice(&module.b);
            if let (Some(own), Some(magnitudes)) = (&place.magnitudes, &module.magnitude) {
                model.parameters[own.clone()].copy_from_slice(magnitudes);
            }
        }
        Ok(model)
    }

    /// The updates as an adapter, rows of `B` in GGUF order.
    pub fn to_adapter(&self, base_model: &str) -> LoraAdapter {
        let values = |range: &std::ops::Range<usize>| self.parameters[range.clone()].to_vec();
        let modules = self.places.iter().map(|place| {
            let (inputs, outputs) = place.plan.projection.size(&self.frozen().config);
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

impl super::lora::Place {
    /// Name of the module in GGUF.
    fn name(&self) -> String {
        format!("blk.{}.{}", self.plan.layer, self.plan.projection.gguf)
    }
}
