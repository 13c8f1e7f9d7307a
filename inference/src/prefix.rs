//! The order in which texts are computed so that neighbours share the most.

use std::cmp::Reverse;

/// Texts that share at least this many tokens are kept together; less is not worth changing the order for.
const WORTH_GROUPING: usize = 16;

/// Length of the longest common prefix.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A text to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'a> {
    /// Texts of different adapters share nothing.
    pub(crate) adapter: Option<usize>,
    pub(crate) tokens: &'a [u32],
    /// How many tokens may be written behind it.
    pub(crate) longest_answer: usize,
}

impl Text<'_> {
    fn shared(&self, other: &Self) -> usize {
        if self.adapter == other.adapter { common_prefix(self.tokens, other.tokens) } else { 0 }
    }
}

/// An order of the texts in which each shares with its predecessor as long a prefix as with any text before it in its group.
///
/// Texts that share [`WORTH_GROUPING`] tokens are a group. It is walked like a tree of prefixes: whatever comes first at a
/// fork, the longest prefix that a text shares with anything before it is the one it shares with its direct predecessor, so
/// one kept cache serves as well as all of them. At a fork and among groups, the branch with the longest answer comes first,
/// so that it is not written alone at the end; of equals the one whose first member comes first, so that early requests are
/// answered early.
pub(crate) fn order(texts: &[Text<'_>]) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..texts.len()).collect();
    sorted.sort_by(|&a, &b| texts[a].cmp(&texts[b]).then(a.cmp(&b)));
    let rank = |branch: &&[usize]| {
        let longest = branch.iter().map(|&at| texts[at].longest_answer).max();
        (Reverse(longest), branch.iter().copied().min())
    };
    let groups = sorted.chunk_by(|&a, &b| texts[a].shared(&texts[b]) >= WORTH_GROUPING);
    let mut branches: Vec<&[usize]> = groups.collect();
    branches.sort_by_key(rank);
    branches.reverse();
    let mut order: Vec<usize> = Vec::with_capacity(texts.len());
    // What is on top comes next.
    while let Some(branch) = branches.pop() {
        let [first, .., last] = branch else {
            order.extend(branch);
            continue;
        };
        // They are sorted: what the first and the last share, all share.
        let fork = texts[*first].shared(&texts[*last]);
        let next = |at: usize| texts[at].tokens.get(fork);
        if next(*first) == next(*last) {
            // All the same.
            let same = order.len();
            order.extend(branch);
            order[same..].sort_by_key(|&at| (Reverse(texts[at].longest_answer), at));
            continue;
        }
        let waiting = branches.len();
        branches.extend(branch.chunk_by(|&a, &b| next(a) == next(b)));
        branches[waiting..].sort_by_key(rank);
        branches[waiting..].reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tokens: &[u32]) -> Text<'_> {
        Text { adapter: None, tokens, longest_answer: 1 }
    }

    #[test]
    fn groups_and_branches_keep_the_order_of_their_first_member() {
        let head_a: Vec<u32> = (100..120).collect();
        let head_b: Vec<u32> = (0..20).collect();
        let with = |head: &[u32], tail: &[u32]| [head, tail].concat();
        let texts =
            [with(&head_a, &[7]), with(&head_b, &[3]), with(&head_a, &[5]), vec![50], with(&head_b, &[1, 1]), vec![]];
        let mut views: Vec<Text<'_>> = texts.iter().map(|tokens| text(tokens)).collect();
        assert_eq!(order(&views), [0, 2, 1, 4, 3, 5]);
        views[2].adapter = Some(1);
        assert_eq!(order(&views), [0, 1, 4, 2, 3, 5], "an adapter has a group of its own");
    }

    #[test]
    fn the_longest_answer_begins_first_and_takes_its_neighbours_along() {
        let head: Vec<u32> = (0..20).collect();
        let with = |tail: &[u32]| [&head, tail].concat();
        let texts = [with(&[1, 5]), with(&[2, 6]), with(&[1, 4]), vec![7], with(&[2, 3]), with(&[2, 3]), head.clone()];
        let mut views: Vec<Text<'_>> = texts.iter().map(|tokens| text(tokens)).collect();
        assert_eq!(order(&views), [0, 2, 1, 4, 5, 6, 3]);
        views[5].longest_answer = 9;
        assert_eq!(order(&views), [5, 4, 1, 0, 2, 6, 3]);
        views[3].longest_answer = 10;
        assert_eq!(order(&views), [3, 5, 4, 1, 0, 2, 6]);
    }

    #[test]
    fn each_text_shares_the_most_with_its_predecessor() {
        let texts: Vec<Vec<u32>> = (0..300_u32)
            .map(|at| (0..20).chain((0..at % 9).map(|p| at.wrapping_mul(2_654_435_761 + p) >> (28 - p) & 3)).collect())
            .collect();
        let longest = |at: usize| at * 37 % 11;
        let views: Vec<Text<'_>> =
            texts.iter().enumerate().map(|(at, tokens)| Text { longest_answer: longest(at), ..text(tokens) }).collect();
        let order = order(&views);
        for at in 1..order.len() {
            let shared = |before: usize| common_prefix(&texts[order[before]], &texts[order[at]]);
            assert_eq!(Some(shared(at - 1)), (0..at).map(shared).max(), "place {at}");
        }
        let mut all = order;
        all.sort_unstable();
        assert!(all.into_iter().eq(0..300));
    }

    #[test]
    fn common_prefixes() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 4, 5]), 2);
        assert_eq!(common_prefix(&[], &[1]), 0);
        assert_eq!(common_prefix(&[1], &[1]), 1);
    }
}
