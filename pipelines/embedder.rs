//! Texts as vectors, for what asks whether two of them say the same.

use crate::models::ResolvedModel;
use crate::outcome::{Failure, Interrupted};
use anyhow::{Result, anyhow};
use espalier_dataset::quality::Vectors;
use espalier_inference::{EmbeddingEngine, EmbeddingOptions, EngineOptions};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

/// The cosine from which two texts say the same by a model that was made for vectors, where nothing else is said.
pub const SAME_MEANING: f32 = 0.95;

/// A model that makes vectors of texts.
#[derive(Debug)]
pub struct Embedder<'a> {
    engine: EmbeddingEngine,
    stop: &'a AtomicBool,
    cut: usize,
}

/// What is wrong with the cosine of a stage, beside the embedder that the stage names.
pub fn check_same_meaning(embedder: Option<&str>, same_meaning: Option<f32>) -> Result<(), String> {
    match (embedder, same_meaning) {
        (None, Some(_)) => Err("`same_meaning` is about the vectors of an `embedder`; name one".to_owned()),
        (_, Some(cosine)) if !(0.0..=1.0).contains(&cosine) => {
            Err(format!("`same_meaning` is {cosine}; choose 0 to 1"))
        }
        _ => Ok(()),
    }
}

impl<'a> Embedder<'a> {
    /// Loads a model, made for vectors or not.
    pub fn load(model: &ResolvedModel, options: &EngineOptions, stop: &'a AtomicBool) -> Result<Self> {
        Ok(Self { engine: EmbeddingEngine::load(&model.path, options)?, stop, cut: 0 })
    }

    /// From which cosine on two texts say the same: what was `wanted`; of a model that was made for vectors [`SAME_MEANING`]; of one
    /// that writes, all whose vectors point the same way, none can be foretold.
    pub fn threshold(&self, wanted: Option<f32>) -> Option<f32> {
        wanted.or(matches!(self.engine, EmbeddingEngine::Encoder(_)).then_some(SAME_MEANING))
    }

    /// The threshold, or a refusal that says how to choose one.
    pub fn required_threshold(&self, wanted: Option<f32>) -> Result<f32> {
        self.threshold(wanted).ok_or_else(|| {
            Failure::usage(
                "the embedder is a model that writes: from which cosine on its vectors say the same is not known",
            )
            .hint(
                "say it with `--same-meaning 0.98` or the like (in a pipeline file `same_meaning: 0.98`), or name a model that was \
                 made for vectors",
            )
            .into()
        })
    }

    /// What decides every vector beside the text.
    pub fn identity(&self) -> &str {
        self.engine.identity()
    }

    /// A warning about texts that were longer than the model reads, where there were some.
    pub fn warning(&self) -> Option<String> {
        let (cut, context) = (self.cut, self.engine.context());
        (cut > 0).then(|| {
            format!(
                "{cut} texts are longer than the {context} tokens that the embedder reads: their ends were not compared"
            )
        })
    }

    /// The vector of each text; one without words has zeros and is like nothing.
    pub fn vectors(&mut self, texts: &[String]) -> Result<Vectors> {
        let mut vectors = vec![vec![0.0; self.engine.dimensions()]; texts.len()];
        let (mut places, mut tokens) = (Vec::new(), Vec::new());
        for (place, text) in texts.iter().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let (ids, missing) = self.engine.encode(text)?;
            self.cut += usize::from(missing > 0);
            places.push(place);
            tokens.push(ids);
        }
        let mut failure = None;
        self.engine.embed(&tokens, EmbeddingOptions::default(), &mut |place, vector| {
            match vector {
                Ok(vector) => vectors[places[place]] = vector,
                Err(error) => failure = Some(error),
            }
            let goes_on = failure.is_none() && !self.stop.load(Ordering::Relaxed);
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        Vectors::dense(&vectors).map_err(|reason| anyhow!("{reason}"))
    }
}
