//! How many requests a server gets at once.
//!
//! A server that tells its slots gets as many. Another one is tried with 1, 2, 4, 8 and so on: at each level the tokens that
//! it writes a second are counted over some answers, as long as it was always full; where doubling brings less than a tenth
//! more, the level before is taken and kept. The clock decides here which request goes where and when, never what comes out.

use std::time::Duration;

/// A level must bring at least so much more than the best one before it.
const GAIN: f64 = 1.1;

/// Answers that are counted at a level, beside twice the level.
const LEAST_ANSWERS: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Limit {
    at_once: usize,
    /// Never more than this.
    bound: usize,
    climb: Option<Climb>,
}

#[derive(Clone, Debug, Default)]
struct Climb {
    /// The best level so far and its tokens a second.
    best: Option<(usize, f64)>,
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Duration,
    answers: usize,
    tokens: usize,
}

/// A decision and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub from: usize,
    pub to: usize,
    pub reason: String,
}

impl Limit {
    /// For a server that has told its slots.
    pub(super) fn of_slots(slots: usize, bound: usize) -> Self {
        Self { at_once: slots.clamp(1, bound), bound, climb: None }
    }

    /// For one that has not.
    pub(super) fn climbing(first: usize, bound: usize) -> Self {
        Self { at_once: first.clamp(1, bound), bound, climb: Some(Climb::default()) }
    }

    pub(super) fn at_once(&self) -> usize {
        self.at_once
    }

    /// Counts an answer that came at `now`. `full` says whether the server had as many requests as it may have.
    pub(super) fn answered(&mut self, tokens: usize, full: bool, now: Duration) -> Option<Step> {
        let level = self.at_once;
        let climb = self.climb.as_mut()?;
        if !full {
            climb.window = None;
            return None;
        }
        let Some(window) = &mut climb.window else {
            climb.window = Some(Window { since: now, answers: 0, tokens: 0 });
            return None;
        };
        window.answers += 1;
        window.tokens += tokens;
        let elapsed = now.saturating_sub(window.since).as_secs_f64();
        if window.answers < (2 * level).max(LEAST_ANSWERS) || elapsed <= 0.0 {
            return None;
        }
        let rate = window.tokens as f64 / elapsed;
        climb.window = None;
        match climb.best {
            Some((best, before)) if rate < GAIN * before => {
                self.at_once = best;
                self.climb = None;
                let reason = format!(
                    "{level} at once brought {rate:.1} tokens/s and {best} at once {before:.1}: this is what it can do"
                );
                Some(Step { from: level, to: best, reason })
            }
            _ if level >= self.bound => {
                self.climb = None;
                None
            }
            _ => {
                climb.best = Some((level, rate));
                self.at_once = (2 * level).min(self.bound);
                let reason = format!("{level} at once brought {rate:.1} tokens/s, more may bring more");
                Some(Step { from: level, to: self.at_once, reason })
            }
        }
    }

    /// The server said that it has too much to do: half of it, for good.
    pub(super) fn step_back(&mut self, reason: &str) -> Option<Step> {
        let from = self.at_once;
        let to = (from / 2).max(1);
        self.at_once = to;
        self.climb = None;
        (to < from).then(|| Step { from, to, reason: reason.to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    /// A server of so many slots of 10 tokens/s, always full: where the climb ends, and its steps.
    fn climb(slots: usize, bound: usize) -> (usize, Vec<Step>) {
        let mut limit = Limit::climbing(1, bound);
        let mut steps = Vec::new();
        let mut now = 0.0;
        for _ in 0..3000 {
            now += 1.0 / limit.at_once().min(slots) as f64;
            steps.extend(limit.answered(10, true, Duration::from_secs_f64(now)));
        }
        (limit.at_once(), steps)
    }

    #[test]
    fn the_climb_ends_where_the_rate_does() {
        for (slots, end) in [(1, 1), (2, 2), (4, 4), (5, 8), (8, 8), (32, 32)] {
            let (reached, steps) = climb(slots, 256);
            assert_eq!(reached, end, "{slots} slots: {steps:?}");
            assert!(steps.last().unwrap().reason.contains("this is what it can do"));
        }
        assert_eq!(climb(100, 6).0, 6);
        let (_, steps) = climb(2, 256);
        assert_eq!(steps[0].reason, "1 at once brought 10.0 tokens/s, more may bring more");
        assert_eq!(steps[2].reason, "4 at once brought 20.0 tokens/s and 2 at once 20.0: this is what it can do");
    }

    #[test]
    fn a_server_that_was_not_full_decides_nothing() {
        let mut limit = Limit::climbing(2, 256);
        for second in 0..100 {
            assert_eq!(limit.answered(10, second % 3 != 0, Duration::from_secs(second)), None);
        }
        assert_eq!(limit.at_once(), 2);
    }

    #[test]
    fn slots_are_taken_as_they_are_told() {
        let mut limit = Limit::of_slots(4, 256);
        assert_eq!(limit.answered(10, true, Duration::from_secs(1)), None);
        assert_eq!(limit.step_back("busy").map(|step| step.to), Some(2));
        assert_eq!(limit.step_back("busy").map(|step| step.to), Some(1));
        assert_eq!(limit.step_back("busy"), None);
        assert_eq!((Limit::of_slots(0, 256).at_once(), Limit::of_slots(9, 3).at_once()), (1, 3));
    }
}
