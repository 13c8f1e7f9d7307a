//! How answers are written.

use crate::cli::ChatSampling;
use crate::outcome::Failure;
use anyhow::Result;
use espalier_inference::Sampling;
use std::fmt::Write as _;
use std::str::FromStr;

/// The settings by the words that change them.
pub const SETTINGS: [&str; 7] = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens", "seed"];

/// A setting and what it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// One of [`SETTINGS`].
    pub name: String,
    /// As it was written.
    pub value: String,
}

/// How answers are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Seed of the first answer; each later one has the next.
    pub seed: u64,
    /// Longest answer.
    pub max_tokens: usize,
}

impl From<ChatSampling> for Settings {
    fn from(given: ChatSampling) -> Self {
        let ChatSampling { temperature, top_k, top_p, min_p, seed, max_tokens } = given;
        Self { sampling: Sampling { temperature, top_k, top_p, min_p, ..Sampling::GREEDY }, seed, max_tokens }
    }
}

impl Settings {
    /// Whether every answer is the most probable one.
    pub fn is_greedy(&self) -> bool {
        self.sampling.temperature <= 0.0
    }

    /// Refuses what no setting can be.
    pub fn check(&self) -> Result<()> {
        let Sampling { temperature, top_p, min_p, repetition_penalty, .. } = self.sampling;
        let wrong = |name: &str, problem: &str| Err(Failure::usage(format!("{name}: {problem}")).into());
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return wrong(
                "temperature",
                "0 or more: 0 always takes the likeliest token, 1 draws as the model was trained",
            );
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return wrong("top_p", "above 0 and at most 1, which keeps all tokens");
        }
        if !(0.0..=1.0).contains(&min_p) {
            return wrong("min_p", "0 to 1; 0 keeps all tokens");
        }
        if !(repetition_penalty > 0.0 && repetition_penalty.is_finite()) {
            return wrong("repetition_penalty", "above 0; 1 changes nothing");
        }
        if self.max_tokens == 0 {
            return wrong("max_tokens", "at least 1");
        }
        Ok(())
    }

    /// Changes one setting.
    pub fn set(&mut self, setting: &Setting) -> Result<()> {
        let mut changed = self.clone();
        let (name, value) = (setting.name.as_str(), setting.value.as_str());
        match name {
            "temperature" => changed.sampling.temperature = number(name, value)?,
            "top_k" => changed.sampling.top_k = number(name, value)?,
            "top_p" => changed.sampling.top_p = number(name, value)?,
            "min_p" => changed.sampling.min_p = number(name, value)?,
            "repetition_penalty" => changed.sampling.repetition_penalty = number(name, value)?,
            "max_tokens" => changed.max_tokens = number(name, value)?,
            _ => changed.seed = number(name, value)?,
        }
        changed.check()?;
        *self = changed;
        Ok(())
    }

    /// All settings, a line each.
    pub fn text(&self, adapter: &str, system: Option<&str>) -> String {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, .. } = &self.sampling;
        let mut text = String::new();
        let values = [
            ("temperature", temperature.to_string()),
            ("top_k", top_k.to_string()),
            ("top_p", top_p.to_string()),
            ("min_p", min_p.to_string()),
            ("repetition_penalty", repetition_penalty.to_string()),
            ("max_tokens", self.max_tokens.to_string()),
            ("seed", self.seed.to_string()),
            ("adapter", adapter.to_owned()),
            ("system", system.unwrap_or("none").to_owned()),
        ];
        for (name, value) in values {
            let _ = writeln!(text, "{name:18}  {value}");
        }
        text.trim_end().to_owned()
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Failure::usage(format!("/{name} {value}: a number is missing")).into())
}
