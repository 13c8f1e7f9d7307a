//! What a user may choose.

use serde::{Deserialize, Serialize};

/// How rows are generated. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// Samples of each leaf; a leaf's own `samples` wins.
    pub samples: usize,
    /// Decides slots, the choice of seeds and the teacher's random numbers.
    pub seed: u64,
    /// Seed examples that the teacher sees before a question.
    pub shots: usize,
    /// Temperature of the first try of an answer; 0 is greedy.
    pub temperature: f32,
    /// Temperature of invented questions, and of answers tried again.
    pub retry_temperature: f32,
    /// Longest answer, in tokens.
    pub max_tokens: usize,
    /// How often a rejected answer is tried again.
    pub retries: usize,
    /// Longest piece of a document in a prompt, in tokens.
    pub chunk_tokens: usize,
    /// Whether the seeds of knowledge leaves become rows.
    pub knowledge_seeds: bool,
    /// Whether the chunks of documents become rows (what does the document say about HEADING?).
    pub knowledge_documents: bool,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            samples: 40,
            seed: 0,
            shots: 4,
            temperature: 0.0,
            retry_temperature: 0.7,
            max_tokens: 128,
            retries: 1,
            chunk_tokens: 300,
            knowledge_seeds: true,
            knowledge_documents: true,
        }
    }
}

impl GenerateConfig {
    /// The first choice that cannot be, with the remedy.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        let temperature = |name: &str, value: f32| {
            if value.is_finite() && (0.0..=10.0).contains(&value) {
                Ok(())
            } else {
                Err(format!("`{name}` is {value}; choose a number from 0 to 10"))
            }
        };
        temperature("temperature", self.temperature)?;
        temperature("retry_temperature", self.retry_temperature)?;
        for (name, value) in
            [("samples", self.samples), ("max_tokens", self.max_tokens), ("chunk_tokens", self.chunk_tokens)]
        {
            if value == 0 {
                return Err(format!("`{name}` is 0; choose 1 or more"));
            }
        }
        if self.retries > 100 {
            return Err(format!("`retries` is {}; choose 100 or fewer", self.retries));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_zeros_are_refused() {
        assert!(serde_json::from_str::<GenerateConfig>("{\"sample\": 3}").is_err());
        let config: GenerateConfig = serde_json::from_str("{\"samples\": 3}").unwrap();
        assert_eq!(config, GenerateConfig { samples: 3, ..GenerateConfig::default() });
        assert!(config.validate().is_ok());
        assert!(GenerateConfig { samples: 0, ..config.clone() }.validate().is_err());
        assert!(GenerateConfig { temperature: f32::NAN, ..config }.validate().is_err());
    }
}
