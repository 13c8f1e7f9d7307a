//! What a comparison says, in words.

use std::fmt;

use super::{Comparison, GroupComparison, NonInferiority, Verdict};

impl Comparison {
    /// The verdict in plain words, with what it rests on.
    pub fn words(&self) -> String {
        let (first, second) = (&self.first, &self.second);
        let flips = format!("{} gained, {} lost of {}", self.gained.len(), self.lost.len(), self.items);
        let evidence = format!("{}; {}; {flips}", self.interval(), self.p_words());
        match self.verdict {
            Verdict::Better => {
                format!("{second} is better than {first} by {} ({evidence})", self.amount(self.difference))
            }
            Verdict::Worse => {
                format!("{second} is worse than {first} by {} ({evidence})", self.amount(-self.difference))
            }
            Verdict::NoDifferenceShown => format!(
                "no difference shown between {second} and {first} ({}; {}; {flips}): {}",
                self.signed_amount(self.difference),
                self.p_words(),
                self.power_words()
            ),
        }
    }

    /// The answer to "is the second at most the margin worse?" in plain words.
    pub fn non_inferiority_words(&self) -> String {
        let (first, second) = (&self.first, &self.second);
        let margin = self.amount(self.margin);
        let most = if self.margin_interval.low.is_finite() {
            self.amount((-self.margin_interval.low).max(0.0))
        } else {
            "anything".to_owned()
        };
        match self.non_inferiority {
            NonInferiority::NonInferior => {
                format!("{second} is not worse than {first} by {margin}: it loses {most} at most")
            }
            NonInferiority::Worse => {
                format!("{second} is worse than {first}, and may lose up to {most} (allowed: {margin})")
            }
            NonInferiority::TooFewQuestions => format!(
                "{} items are too few to tell whether {second} loses less than {margin} against {first}: it may lose up to {most}",
                self.items
            ),
        }
    }

    /// What so many items can show.
    fn power_words(&self) -> String {
        if !self.detectable.is_finite() {
            return format!("{} item can show nothing", self.items);
        }
        let texts = self.clusters.map(|clusters| format!(" about {clusters} texts")).unwrap_or_default();
        format!("{} items{texts} can show {} or more", self.items, self.amount(self.detectable))
    }

    fn interval(&self) -> String {
        let ends = self.intervals.bca;
        format!("95 %: {} to {}", signed(ends.low, self.shares), signed(ends.high, self.shares))
    }

    fn p_words(&self) -> String {
        let p = PValue(self.p_adjusted);
        if self.family > 1 { format!("p {p} by Holm over {} claims", self.family) } else { format!("p {p}") }
    }

    /// A difference in the unit of the scores: `1.3 points`, or a plain number.
    pub fn amount(&self, value: f64) -> String {
        amount(value, self.shares)
    }

    fn signed_amount(&self, value: f64) -> String {
        let unit = if self.shares { " points" } else { "" };
        format!("{}{unit}", signed(value, self.shares))
    }
}

impl GroupComparison {
    /// The finding in plain words.
    pub fn words(&self) -> String {
        let (first, second) = (&self.first, &self.second);
        let ends = self.intervals.bca;
        let weight = if self.weight_by_size { "by size" } else { "alike" };
        let evidence = format!(
            "95 %: {} to {}; {} items of {} tasks, weighted {weight}",
            signed(ends.low, self.shares),
            signed(ends.high, self.shares),
            self.items,
            self.tasks
        );
        match self.verdict {
            Verdict::Better => {
                format!("{second} is better than {first} by {} ({evidence})", amount(self.difference, self.shares))
            }
            Verdict::Worse => {
                format!("{second} is worse than {first} by {} ({evidence})", amount(-self.difference, self.shares))
            }
            Verdict::NoDifferenceShown => format!("no difference shown between {second} and {first} ({evidence})"),
        }
    }
}

/// A share as percentage points, another score as it is.
fn amount(value: f64, shares: bool) -> String {
    if shares { format!("{:.1} points", 100.0 * value) } else { format!("{value:.3}") }
}

/// The same with its sign and without a unit. Zero has no sign.
fn signed(value: f64, shares: bool) -> String {
    let (value, digits) = if shares { (100.0 * value, 1) } else { (value, 3) };
    let text = format!("{value:+.digits$}");
    let zero = text.chars().all(|letter| !letter.is_ascii_digit() || letter == '0');
    if zero && value.is_finite() { text[1..].to_owned() } else { text }
}

/// `= 0.0312`, or `below 0.0001`.
struct PValue(f64);

impl fmt::Display for PValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0.0001 { formatter.write_str("below 0.0001") } else { write!(formatter, "= {:.4}", self.0) }
    }
}
