//! What is known about a judge, and what it must be to be believed.

use serde::{Deserialize, Serialize};

use crate::statistics::wilson::wilson;

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Those counted.
    pub count: usize,
    /// All.
    pub of: usize,
}

impl Count {
    /// The share; `None` of nothing.
    pub fn share(self) -> Option<f64> {
        (self.of > 0).then(|| self.count as f64 / self.of as f64)
    }
}

/// What is known about a judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Planted pairs of which it rates the good answer higher.
    pub told_apart: Count,
    /// Planted pairs of which it prefers the good answer in both orders.
    pub preferred: Count,
    /// Ratings of planted answers that cannot be read.
    pub unread_ratings: Count,
    /// Verdicts on planted pairs that cannot be read.
    pub unread_verdicts: Count,
    /// Planted pairs on which its verdict changes with the order, of those with two verdicts.
    pub flips: Count,
    /// Judgments of the evaluated model that cannot be read.
    pub unread: Count,
    /// Krippendorff's alpha (interval data) with the second judge over the turns that both rated.
    pub agreement: Option<f64>,
    /// Spearman's correlation of score and length over the judged answers.
    pub length_correlation: Option<f64>,
}

/// What a judge must be for its score to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Standard {
    /// Least lower end of the 95 % interval (Wilson) of the share of planted pairs that it tells apart; by chance it is 0.5.
    /// With the 20 pairs that come with the program, 17 reach 0.6.
    pub told_apart: f64,
    /// Greatest share of its texts that cannot be read, of planted answers and of the model's each.
    pub unread: f64,
    /// Greatest share of planted pairs on which its verdict changes with the order.
    pub flips: f64,
    /// Least agreement with a second judge, where there is one.
    pub agreement: f64,
    /// Greatest correlation of score and length, in either direction.
    pub length_correlation: f64,
}

impl Default for Standard {
    fn default() -> Self {
        Self { told_apart: 0.6, unread: 0.1, flips: 0.3, agreement: 0.4, length_correlation: 0.7 }
    }
}

impl Proof {
    /// Why the judge's ratings are not to be believed; empty for a judge that meets the standard.
    pub fn faults(&self, standard: &Standard) -> Vec<String> {
        let mut faults = self.faults_on_planted(standard, self.unread_ratings);
        let told = self.told_apart;
        let low = wilson(told.count, told.of, 0.95).low;
        if told.of == 0 || low < standard.told_apart {
            faults.insert(0, format!(
                "it rates the good answer higher in {} of {} planted pairs: the share may be as low as {low:.2}, and {:.2} is asked for",
                told.count, told.of, standard.told_apart
            ));
        }
        if let Some(agreement) = self.agreement.filter(|agreement| *agreement < standard.agreement) {
            faults.push(format!(
                "its agreement with the second judge is {agreement:.2} (Krippendorff's alpha), and {:.2} is asked for",
                standard.agreement
            ));
        }
        if let Some(correlation) = self.length_correlation.filter(|found| found.abs() > standard.length_correlation) {
            faults.push(format!(
                "its scores follow the length of answers: the correlation is {correlation:.2}, and {:.2} is allowed",
                standard.length_correlation
            ));
        }
        faults
    }

    /// Why the judge's comparisons are not to be believed; empty for a judge that meets the standard.
    pub fn faults_of_pairs(&self, standard: &Standard) -> Vec<String> {
        let mut faults = self.faults_on_planted(standard, self.unread_verdicts);
        let low = wilson(self.preferred.count, self.preferred.of, 0.95).low;
        // Whoever guesses in both orders prefers the good answer twice in a quarter of the pairs; the same bound is asked for
        // all the same: flips have a bound of their own.
        if self.preferred.of == 0 || low < standard.told_apart {
            faults.insert(0, format!(
                "it prefers the good answer in both orders in {} of {} planted pairs: the share may be as low as {low:.2}, and {:.2} is asked for",
                self.preferred.count, self.preferred.of, standard.told_apart
            ));
        }
        faults
    }

    fn faults_on_planted(&self, standard: &Standard, planted: Count) -> Vec<String> {
        let mut faults = Vec::new();
        for (count, what) in [(planted, "planted answers"), (self.unread, "the model's answers")] {
            if count.share().is_some_and(|share| share > standard.unread) {
                faults.push(format!(
                    "{} of its {} judgments of {what} cannot be read, and {:.0} % are allowed",
                    count.count,
                    count.of,
                    100.0 * standard.unread
                ));
            }
        }
        if self.flips.share().is_some_and(|share| share > standard.flips) {
            faults.push(format!(
                "its verdict changes with the order of the answers in {} of {} planted pairs, and {:.0} % are allowed",
                self.flips.count,
                self.flips.of,
                100.0 * standard.flips
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Proof {
        Proof {
            told_apart: Count { count: 18, of: 20 },
            preferred: Count { count: 17, of: 20 },
            unread_ratings: Count { count: 1, of: 40 },
            unread_verdicts: Count { count: 0, of: 40 },
            flips: Count { count: 3, of: 20 },
            unread: Count { count: 2, of: 160 },
            agreement: Some(0.6),
            length_correlation: Some(-0.2),
        }
    }

    #[test]
    fn every_fault_is_named() {
        let standard = Standard::default();
        assert!(good().faults(&standard).is_empty() && good().faults_of_pairs(&standard).is_empty());
        let faults = |change: fn(&mut Proof)| {
            let mut proof = good();
            change(&mut proof);
            proof.faults(&standard).join("; ")
        };
        assert_eq!(
            faults(|proof| proof.told_apart.count = 16),
            "it rates the good answer higher in 16 of 20 planted pairs: the share may be as low as 0.58, and 0.60 is asked for"
        );
        assert!(faults(|proof| proof.unread_ratings.count = 5).contains("5 of its 40 judgments of planted answers"));
        assert!(faults(|proof| proof.unread.count = 17).contains("17 of its 160 judgments of the model's"));
        assert!(faults(|proof| proof.flips.count = 7).contains("7 of 20 planted pairs, and 30 %"));
        assert!(faults(|proof| proof.agreement = Some(0.1)).contains("0.10 (Krippendorff's alpha)"));
        assert!(faults(|proof| proof.length_correlation = Some(0.9)).contains("the correlation is 0.90"));
        let mut proof = good();
        proof.preferred.count = 9;
        assert!(proof.faults(&standard).is_empty());
        assert!(proof.faults_of_pairs(&standard)[0].contains("in both orders in 9 of 20"));
    }
}
