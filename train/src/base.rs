//! What is looked at in the base before the first step.

use espalier_model::{Model, ModelError};
use rayon::prelude::*;

use crate::TrainError;

/// Refuses a base with a weight that is no number: every loss would be none.
pub(crate) fn check(model: &Model) -> Result<(), TrainError> {
    for info in model.tensors() {
        let tensor = model.tensor(&info.name)?;
        // One row a thread at a time: a whole matrix of token vectors would be the largest memory of the run.
        let look = |values: &mut Vec<f32>, row: usize| -> Result<Option<TrainError>, ModelError> {
            tensor.row(row, values)?;
            let broken = values.iter().position(|value| !value.is_finite());
            let tensor = || info.name.clone();
            Ok(broken.map(|column| TrainError::BaseNotFinite { tensor: tensor(), row, column, value: values[column] }))
        };
        let found = (0..info.rows).into_par_iter().map_init(|| vec![0.0; info.columns], look);
        if let Some(found) = found.find_map_first(Result::transpose) {
            return Err(found?);
        }
        // Its pages would count as memory of this process; weights that stay in the file come back when they are used.
        tensor.release();
    }
    Ok(())
}
