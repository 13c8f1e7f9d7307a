//! What a judge's text says.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

static DOUBLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[\[(\d+\.?\d*)\]\]").ok());
static SINGLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[(\d+\.?\d*)\]").ok());

/// The rating in `[[7]]`, or in `[7]` where there is none, from 1 to 10. A text without one, or with another number, says
/// nothing.
pub fn read_rating(text: &str) -> Option<f64> {
    let found = [&DOUBLE, &SINGLE].into_iter().find_map(|pattern| pattern.as_ref()?.captures(text))?;
    found.get(1)?.as_str().parse().ok().filter(|rating| (1.0..=10.0).contains(rating))
}

/// Which of two answers a judge prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The first.
    First,
    /// The second.
    Second,
    /// Neither.
    Tie,
}

impl Winner {
    /// The same preference when the answers change places.
    #[must_use]
    pub fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }
}

/// The verdict `[[A]]`, `[[B]]` or `[[C]]` (a tie); a text with none or with several says nothing.
pub fn read_winner(text: &str) -> Option<Winner> {
    let verdicts = [("[[A]]", Winner::First), ("[[B]]", Winner::Second), ("[[C]]", Winner::Tie)];
    let mut found = verdicts.into_iter().filter(|(mark, _)| text.contains(mark)).map(|(_, winner)| winner);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_and_verdicts_are_read_or_left_out() {
        for (text, expected) in [
            ("Good. Rating: [[7]]", Some(7.0)),
            ("[3] sources; Rating: [[8.5]]", Some(8.5)),
            ("Rating: [6]", Some(6.0)),
            ("[[11]]", None),
            ("[[0]]", None),
            ("Rating: 9", None),
            ("[[ 9 ]]", None),
        ] {
            assert_eq!(read_rating(text), expected, "{text}");
        }
        assert_eq!(read_winner("So [[B]]."), Some(Winner::Second));
        assert_eq!(read_winner("[[A]] or [[B]]"), None);
        assert_eq!(read_winner("A"), None);
        assert_eq!(Winner::First.swapped(), Winner::Second);
    }
}
