//! The order in which texts are computed so that neighbours share the most.

/// Texts that share at least this many tokens are kept together; less is not worth changing the order for.
const WORTH_GROUPING: usize = 16;

/// Length of the longest common prefix.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// An order of the texts in which each shares with its predecessor as long a prefix as with any text before it in its group.
///
/// In lexicographic order the longest prefix that a text shares with anything before it is the one it shares with its direct
/// predecessor, so one kept cache serves as well as all of them. Groups of texts that share [`WORTH_GROUPING`] tokens come in
/// the order of their first member, so that early requests are answered early. Texts of different adapters share nothing.
pub(crate) fn order(texts: &[(Option<usize>, &[u32])]) -> Vec<usize> {
    let shared = |a: (_, &[u32]), b: (_, &[u32])| if a.0 == b.0 { common_prefix(a.1, b.1) } else { 0 };
    let mut sorted: Vec<usize> = (0..texts.len()).collect();
    sorted.sort_by(|&a, &b| texts[a].cmp(&texts[b]).then(a.cmp(&b)));
    let mut groups: Vec<&[usize]> = sorted.chunk_by(|&a, &b| shared(texts[a], texts[b]) >= WORTH_GROUPING).collect();
    groups.sort_by_key(|group| group.iter().copied().min());
    groups.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_the_order_of_their_first_member() {
        let head_a: Vec<u32> = (100..120).collect();
        let head_b: Vec<u32> = (0..20).collect();
        let with = |head: &[u32], tail: &[u32]| [head, tail].concat();
        let texts =
            [with(&head_a, &[7]), with(&head_b, &[3]), with(&head_a, &[5]), vec![50], with(&head_b, &[1, 1]), vec![]];
        let mut views: Vec<(Option<usize>, &[u32])> = texts.iter().map(|text| (None, text.as_slice())).collect();
        assert_eq!(order(&views), [2, 0, 4, 1, 3, 5]);
        views[2].0 = Some(1);
        assert_eq!(order(&views), [0, 4, 1, 2, 3, 5], "an adapter has a group of its own");
    }

    #[test]
    fn common_prefixes() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 4, 5]), 2);
        assert_eq!(common_prefix(&[], &[1]), 0);
        assert_eq!(common_prefix(&[1], &[1]), 1);
    }
}
