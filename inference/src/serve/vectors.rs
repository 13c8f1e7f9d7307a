//! `/v1/embeddings`.

use std::ops::ControlFlow;
use std::sync::PoisonError;

use serde_json::{Map, Value};

use super::exchange::{Exchange, Sent, Unanswered};
use super::problem::Problem;
use crate::error::EngineError;
use crate::openai::{read_embeddings, vectors};

/// The field that holds the texts.
const INPUT: &str = "input";

/// Texts as vectors, on the thread of the connection; those of other connections wait meanwhile.
pub(super) fn answer(mut exchange: Exchange<'_, '_>, body: &Map<String, Value>) -> Result<Sent, Unanswered> {
    let served = exchange.served;
    let asked = read_embeddings(body).map_err(Problem::from)?;
    let (name, adapter) = served.model(asked.model.as_deref())?;
    let running = &served.running;
    let dimensions = running.dimensions();
    if let Some(wanted) = asked.dimensions.filter(|&wanted| wanted != dimensions) {
        let message = format!("dimensions: vectors of this model have {dimensions} elements, not {wanted}");
        return Err(Problem::new(400, message).at("dimensions").with_code("invalid_value").into());
    }
    let failed = |error: &EngineError| Unanswered::from(Problem::of_engine(error, INPUT));
    let texts: Vec<Vec<u32>> = asked
        .inputs
        .iter()
        .map(|input| running.tokens(input).map_err(|error| failed(&error)))
        .collect::<Result<_, _>>()?;
    let mut found: Vec<Option<Result<Vec<f32>, EngineError>>> = texts.iter().map(|_| None).collect();
    {
        let _turn = served.embedding.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = &exchange.connection;
        let take = &mut |index: usize, vector| {
            found[index] = Some(vector);
            if connection.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        running.embed(&texts, adapter.as_deref(), take).map_err(|error| failed(&error))?;
    }
    let mut all = Vec::with_capacity(found.len());
    for vector in found {
        all.push(vector.ok_or(Unanswered::Gone)?.map_err(|error| failed(&error))?);
    }
    let tokens = texts.iter().map(Vec::len).sum();
    exchange.answer(&vectors(name, &all, asked.base64, tokens))
}
