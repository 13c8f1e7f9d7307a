//! What happens to a prompt that the context window does not hold.

use crate::error::EngineError;

/// The rule for a prompt that does not fit. It holds in the native engine; a server follows its own.
///
/// Where tokens are taken away, the prompt keeps what the window holds beside the answer: `max_tokens`, but at most half of
/// the window. BOS at the beginning stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The request fails, the others go on.
    #[default]
    Refuse,
    /// The oldest tokens go: for a text to be continued.
    TruncateLeft,
    /// Tokens in the middle go, as many before as after: for an instruction around a long document.
    TruncateMiddle,
}

impl Overflow {
    /// Makes `prompt` fit; gives the number of tokens that were taken away.
    ///
    /// # Errors
    /// A prompt that does not fit and may not be cut.
    pub(crate) fn fit(
        self,
        prompt: &mut Vec<u32>,
        max_tokens: usize,
        context: usize,
        bos: Option<u32>,
    ) -> Result<usize, EngineError> {
        if self == Self::Refuse {
            return if prompt.len() < context {
                Ok(0)
            } else {
                Err(EngineError::PromptTooLong { prompt: prompt.len(), context })
            };
        }
        let room = (context - max_tokens.min(context / 2)).min(context.saturating_sub(1)).max(1);
        let excess = prompt.len().saturating_sub(room);
        if excess == 0 {
            return Ok(0);
        }
        let kept = usize::from(bos.is_some() && prompt.first().copied() == bos && room > 1);
        let from = match self {
            Self::TruncateMiddle => (room / 2).max(kept),
            _ => kept,
        };
        prompt.drain(from..from + excess);
        Ok(excess)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn fit(overflow: Overflow, length: u32, max_tokens: usize, context: usize) -> (Vec<u32>, usize) {
        let mut prompt: Vec<u32> = (0..length).collect();
        let cut = overflow.fit(&mut prompt, max_tokens, context, Some(0)).unwrap();
        (prompt, cut)
    }

    #[test]
    fn what_fits_stays() {
        for overflow in [Overflow::Refuse, Overflow::TruncateLeft, Overflow::TruncateMiddle] {
            assert_eq!(fit(overflow, 6, 4, 10), ((0..6).collect(), 0));
        }
        // Without a policy the answer takes what is left.
        assert_eq!(fit(Overflow::Refuse, 9, 4, 10).1, 0);
    }

    #[test]
    fn the_prompt_keeps_its_beginning_and_what_the_policy_says() {
        assert_eq!(fit(Overflow::TruncateLeft, 12, 4, 10), (vec![0, 7, 8, 9, 10, 11], 6));
        assert_eq!(fit(Overflow::TruncateMiddle, 12, 4, 10), (vec![0, 1, 2, 9, 10, 11], 6));
        assert_eq!(fit(Overflow::TruncateLeft, 12, 100, 10).0, [0, 8, 9, 10, 11], "half of the window is the prompt's");
        assert_eq!(fit(Overflow::TruncateLeft, 5, 1, 1), (vec![4], 4));
        assert_eq!(fit(Overflow::TruncateMiddle, 5, 0, 2), (vec![4], 4));
    }

    #[test]
    fn without_leave_nothing_is_cut() {
        let error = Overflow::Refuse.fit(&mut vec![1; 10], 4, 10, None).unwrap_err();
        assert!(matches!(error, EngineError::PromptTooLong { prompt: 10, context: 10 }));
    }
}
