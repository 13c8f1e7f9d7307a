//! What a user may choose about a judge.

use regex::Regex;
use serde::{Deserialize, Serialize};

/// How the rating is read from the judge model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// One token is written; the log-probabilities of the rating tokens give the mean rating and its spread. Small models
    /// know more than the one token that they write says.
    #[default]
    Expected,
    /// A reason and a rating as JSON, held to a schema while it is written.
    Json,
    /// A reason and a line with the rating as free text, for servers that hold to no form.
    Text,
}

/// What the two orders of what is shown mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    /// One order is shown.
    #[default]
    None,
    /// Both orders are shown, and a rating means the same in both.
    Same,
    /// Both orders are shown, and the scale names places (the first is better, the second is better): the rating of the
    /// second order is turned round.
    Mirrored,
}

/// What becomes of the verdicts of a judge that cannot tell planted good rows from bad ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPoor {
    /// They are recorded with the rows and reject none.
    #[default]
    Record,
    /// The run stops before it spends anything on rows.
    Stop,
    /// They reject rows as a good judge's do.
    Trust,
}

/// How rows are judged by a model. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeConfig {
    /// The ratings, worst first. The worst is score 0, the best 1, the others at equal distances between them.
    pub scale: Vec<String>,
    /// How the rating is read.
    pub reading: Reading,
    /// How often each row is judged with other random numbers. Reading `expected` takes one vote: it sees all that further
    /// ones could say.
    pub votes: usize,
    /// Temperature of votes after the first; the first is greedy.
    pub temperature: f32,
    /// Whether both orders of what is shown are judged.
    pub swap: Swap,
    /// Lowest score that passes, from 0 to 1. Without it, the best threshold of the calibration where the judge is good, or
    /// 0.5.
    pub keep: Option<f64>,
    /// Longest reason with its rating, in tokens.
    pub max_tokens: usize,
    /// For reading `text`: a regular expression whose first group is the rating. Without it, the last rating behind the word
    /// score, rating, verdict or answer is taken.
    pub pattern: Option<String>,
    /// Lowest area under the curve that the calibration's interval may reach.
    pub least_auc: f64,
    /// What becomes of the verdicts of a poor judge.
    pub on_poor: OnPoor,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            scale: vec!["No".to_owned(), "Yes".to_owned()],
            reading: Reading::default(),
            votes: 1,
            temperature: 0.7,
            swap: Swap::default(),
            keep: None,
            max_tokens: 160,
            pattern: None,
            least_auc: 0.6,
            on_poor: OnPoor::default(),
        }
    }
}

impl JudgeConfig {
    /// The first choice that cannot be, with the remedy.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        /// Letters of the alphabet: what long scales are shown as.
        const MOST_RATINGS: usize = 26;
        if !(2..=MOST_RATINGS).contains(&self.scale.len()) {
            return Err(format!("`scale` has {} ratings; name 2 to {MOST_RATINGS}, the worst first", self.scale.len()));
        }
        let mut seen: Vec<String> = Vec::new();
        for rating in &self.scale {
            let folded = rating.trim().to_lowercase();
            if folded.is_empty() || rating.chars().any(char::is_control) {
                return Err(format!("the rating {rating:?} of `scale` cannot be written in one line; write a word"));
            }
            if seen.contains(&folded) {
                return Err(format!("the rating {rating:?} stands twice in `scale`; name each once"));
            }
            seen.push(folded);
        }
        if !(1..=100).contains(&self.votes) {
            return Err(format!("`votes` is {}; choose a number from 1 to 100", self.votes));
        }
        if !(0.0..=10.0).contains(&self.temperature) {
            return Err(format!("`temperature` is {}; choose a number from 0 to 10", self.temperature));
        }
        if self.max_tokens < 8 {
            return Err(format!("`max_tokens` is {}; a reason and a rating need 8 or more", self.max_tokens));
        }
        let share = |name: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(format!("`{name}` is {value}; choose a number from 0 to 1"))
            }
        };
        self.keep.map_or(Ok(()), |keep| share("keep", keep))?;
        share("least_auc", self.least_auc)?;
        if let Some(pattern) = &self.pattern {
            let regex = Regex::new(pattern).map_err(|error| format!("`pattern` is no regular expression: {error}"))?;
            if regex.captures_len() < 2 {
                return Err("`pattern` has no group; put parentheses around the rating".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        let config: JudgeConfig = serde_json::from_str(json).unwrap();
        config.validate().unwrap_err()
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_remedy() {
        assert_eq!(JudgeConfig::default().validate(), Ok(()));
        assert!(serde_json::from_str::<JudgeConfig>(r#"{"vote": 3}"#).is_err());
        assert!(refusal(r#"{"scale": ["Yes"]}"#).contains("name 2 to 26"));
        assert!(refusal(r#"{"scale": ["Yes", "yes "]}"#).contains("stands twice"));
        assert!(refusal(r#"{"scale": ["a\nb", "c"]}"#).contains("one line"));
        assert!(refusal(r#"{"votes": 0}"#).contains("1 to 100"));
        assert!(refusal(r#"{"keep": 3}"#).contains("0 to 1"));
        assert!(refusal(r#"{"pattern": "[0-9]"}"#).contains("parentheses"));
        assert!(refusal(r#"{"pattern": "("}"#).contains("regular expression"));
    }
}
