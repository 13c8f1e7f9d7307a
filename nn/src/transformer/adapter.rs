//! Updates on their way from and to adapters.

use std::sync::Arc;

use espalier_model::LoraAdapter;

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
        model.updates.take_from(adapter);
        Ok(model)
    }

    /// The updates as an adapter, rows of `B` in GGUF order.
    pub fn to_adapter(&self, base_model: &str) -> LoraAdapter {
        self.updates.to_adapter(&self.frozen.config, base_model)
    }
}
