//! Whether a server gets requests: it works, is put aside for a while, is looked at, is tried with one request, is out.

use std::time::Duration;

/// Longest pause between two looks at a server, also when it asks for a longer one.
pub(super) const MAX_PAUSE: Duration = Duration::from_mins(1);

/// The pause after so many failures: doubled with each, between the half and the whole of that by `jitter`, so that what failed
/// together does not come back together.
pub(super) fn pause(first: Duration, failures: u32, jitter: f64) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(MAX_PAUSE).mul_f64(0.5 + 0.5 * jitter)
}

/// How a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// There was no connection, or no answer in time: whatever else is sent there fails too.
    Dead,
    /// An error of the server, half an answer, one that cannot be read: it may be the request's fault, or chance.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// One request at a time until one succeeds.
    Trial,
    /// Nothing until then. A server that asked for a pause is tried after it, one that failed is looked at first.
    Aside {
        until: Duration,
        asked_for: bool,
    },
    /// Somebody looks whether it is back.
    Probing,
    /// For good.
    Excluded,
}

/// Why a server is put aside.
#[derive(Clone, Copy, Debug)]
enum Why {
    Failed,
    /// It wants it so, with the length of the pause where it says one.
    Asked(Option<Duration>),
}

/// The health of one server.
#[derive(Clone, Debug)]
pub(super) struct Health {
    state: State,
    /// Failures since the last success.
    failures: u32,
    /// Times that it was put aside since the last success.
    times_aside: u32,
    /// Counts every time that it was put aside: the failure of a request that was sent before says nothing more.
    episode: u32,
    last_error: Option<String>,
}

impl Health {
    pub(super) fn up() -> Self {
        Self { state: State::Up, failures: 0, times_aside: 0, episode: 0, last_error: None }
    }

    /// Not there at the beginning: looked at from `until` on.
    pub(super) fn absent(error: String, until: Duration) -> Self {
        let state = State::Aside { until, asked_for: false };
        Self { state, failures: 1, times_aside: 1, episode: 1, last_error: Some(error) }
    }

    pub(super) fn is_usable(&self) -> bool {
        matches!(self.state, State::Up | State::Trial)
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.state == State::Trial
    }

    pub(super) fn is_probing(&self) -> bool {
        self.state == State::Probing
    }

    pub(super) fn is_excluded(&self) -> bool {
        self.state == State::Excluded
    }

    pub(super) fn episode(&self) -> u32 {
        self.episode
    }

    pub(super) fn last_error(&self) -> &str {
        self.last_error.as_deref().unwrap_or("nothing is known of it")
    }

    /// When it is looked at or tried again.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.state {
            State::Aside { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Ends a pause that is over; says whether the server has to be looked at.
    pub(super) fn awake(&mut self, now: Duration) -> bool {
        match self.state {
            State::Aside { until, asked_for } if until <= now => {
                self.state = if asked_for { State::Trial } else { State::Probing };
                !asked_for
            }
            _ => false,
        }
    }

    /// An answer came; says whether the server is back with it.
    pub(super) fn answered(&mut self) -> bool {
        let back = matches!(self.state, State::Trial | State::Aside { asked_for: false, .. });
        if back {
            self.state = State::Up;
        }
        self.failures = 0;
        self.times_aside = 0;
        back
    }

    /// A request failed that was sent in `episode`; the pause if the server is put aside for it. Broken answers put it aside
    /// when two come without a good one between them.
    pub(super) fn failed(
        &mut self,
        (severity, reason): (Severity, &str),
        episode: u32,
        (first_pause, jitter): (Duration, f64),
        now: Duration,
    ) -> Option<Duration> {
        self.last_error = Some(reason.to_owned());
        if episode != self.episode || self.state == State::Excluded {
            return None;
        }
        self.failures += 1;
        if severity == Severity::Broken && self.failures < 2 && self.state == State::Up {
            return None;
        }
        Some(self.put_aside(Why::Failed, (first_pause, jitter), now))
    }

    /// The server has too much to do, or is not ready; `wished` is the pause that it asks for.
    pub(super) fn busy(
        &mut self,
        (wished, reason): (Option<Duration>, &str),
        episode: u32,
        (first_pause, jitter): (Duration, f64),
        now: Duration,
    ) -> Option<Duration> {
        self.last_error = Some(reason.to_owned());
        if episode != self.episode || self.state == State::Excluded {
            return None;
        }
        Some(self.put_aside(Why::Asked(wished), (first_pause, jitter), now))
    }

    /// The look at it ended, and it is tried from here on; or the pause, where it fails in another way than before.
    pub(super) fn probed(
        &mut self,
        result: Result<(), &str>,
        (first_pause, jitter): (Duration, f64),
        now: Duration,
    ) -> Option<Duration> {
        if self.state != State::Probing {
            return None;
        }
        match result {
            Ok(()) => {
                self.state = State::Trial;
                None
            }
            Err(reason) => {
                let known = self.last_error.replace(reason.to_owned()).is_some_and(|known| known == reason);
                let pause = self.put_aside(Why::Failed, (first_pause, jitter), now);
                (!known).then_some(pause)
            }
        }
    }

    pub(super) fn exclude(&mut self, reason: &str) {
        self.last_error = Some(reason.to_owned());
        self.state = State::Excluded;
        self.episode += 1;
    }

    fn put_aside(&mut self, why: Why, (first_pause, jitter): (Duration, f64), now: Duration) -> Duration {
        let growing = pause(first_pause, self.times_aside, jitter);
        let pause = match why {
            Why::Asked(Some(wished)) => wished.min(MAX_PAUSE),
            Why::Asked(None) | Why::Failed => growing,
        };
        self.times_aside += 1;
        self.episode += 1;
        self.state = State::Aside { until: now + pause, asked_for: matches!(why, Why::Asked(_)) };
        pause
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    const FIRST: (Duration, f64) = (Duration::from_secs(1), 1.0);
    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn pauses_double_until_an_answer_comes() {
        let mut health = Health::up();
        let mut now = NOW;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = health.failed((Severity::Dead, "refused"), health.episode(), FIRST, now).unwrap();
            assert_eq!(pause, Duration::from_secs(seconds));
            assert!(!health.is_usable() && !health.awake(now));
            now += pause;
            assert!(health.awake(now) && health.is_probing());
            assert_eq!(health.probed(Ok(()), FIRST, now), None);
            assert!(health.is_on_trial());
        }
        assert!(health.answered() && health.is_usable() && !health.is_on_trial());
        let pause = health.failed((Severity::Dead, "refused"), health.episode(), FIRST, now);
        assert_eq!(pause, Some(Duration::from_secs(1)));
    }

    #[test]
    fn one_broken_answer_is_chance_and_two_are_not() {
        let mut health = Health::up();
        let fail = |health: &mut Health, episode| health.failed((Severity::Broken, "half"), episode, FIRST, NOW);
        assert_eq!(fail(&mut health, 0), None);
        health.answered();
        assert_eq!(fail(&mut health, 0), None);
        assert!(fail(&mut health, 0).is_some());
        assert_eq!(fail(&mut health, 0), None, "sent before it was put aside");
        assert!(health.answered(), "an answer that was under way shows that it lives");
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept() {
        let mut health = Health::up();
        let wished = Some(Duration::from_secs(7));
        assert_eq!(health.busy((wished, "busy"), 0, FIRST, NOW), wished);
        assert!(!health.answered() && !health.is_usable(), "other answers do not end it");
        assert!(!health.awake(NOW + Duration::from_secs(7)) && health.is_on_trial(), "tried without a look");
        let long = Some(Duration::from_hours(1));
        assert_eq!(health.busy((long, "busy"), health.episode(), FIRST, NOW), Some(MAX_PAUSE));
    }

    #[test]
    fn an_excluded_server_stays_out() {
        let mut health = Health::up();
        health.exclude("no key");
        assert_eq!(health.failed((Severity::Dead, "x"), health.episode(), FIRST, NOW), None);
        assert!(health.is_excluded() && !health.answered() && !health.awake(NOW) && health.due().is_none());
    }
}
