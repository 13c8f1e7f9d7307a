//! Which tokens a text holds, and how often.

use std::collections::HashMap;

/// A token of the prompt or the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    pub(crate) token: u32,
    /// How often it stands in the answer: 0 when the prompt alone has it.
    pub(crate) in_answer: u32,
}

/// The different tokens of a text in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Occurrences {
    list: Vec<Occurrence>,
    places: HashMap<u32, usize>,
}

impl Occurrences {
    /// Those of a prompt; the answer is empty.
    pub(crate) fn of_prompt(prompt: &[u32]) -> Self {
        let mut occurrences = Self::default();
        for &token in prompt {
            occurrences.entry(token);
        }
        occurrences
    }

    /// Counts one more token of the answer.
    pub(crate) fn push(&mut self, token: u32) {
        self.entry(token).in_answer += 1;
    }

    pub(crate) fn as_slice(&self) -> &[Occurrence] {
        &self.list
    }

    fn entry(&mut self, token: u32) -> &mut Occurrence {
        let place = *self.places.entry(token).or_insert_with(|| {
            self.list.push(Occurrence { token, in_answer: 0 });
            self.list.len() - 1
        });
        &mut self.list[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_is_known_and_the_answer_counted() {
        let mut occurrences = Occurrences::of_prompt(&[5, 9, 5]);
        for token in [9, 7, 9] {
            occurrences.push(token);
        }
        let found: Vec<(u32, u32)> = occurrences.as_slice().iter().map(|o| (o.token, o.in_answer)).collect();
        assert_eq!(found, [(5, 0), (9, 2), (7, 1)]);
    }
}
