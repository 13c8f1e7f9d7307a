//! How many lines of each leaf of each source a mixture takes, and which.

use std::collections::BTreeMap;

use super::recipe::{MixSource, leaf_share};
use crate::draw::Draw;
use crate::instructlab::SamplingSize;

/// Lines by leaf.
pub(super) type Counts = BTreeMap<String, u64>;

/// The lines that a source has of a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Held {
    pub(super) lines: u64,
    /// The sum of their own weights: so many lines they are as their leaf wants it.
    pub(super) weighted: f64,
}

/// What a source holds, by leaf.
pub(super) type Holdings = BTreeMap<String, Held>;

/// What is taken of a source.
#[derive(Clone, Debug)]
pub(super) struct Take {
    amount: Amount,
    leaves: Leaves,
    most_per_leaf: Option<u64>,
}

/// What says how often the lines of a leaf are taken.
#[derive(Clone, Debug)]
enum Leaves {
    /// The lines themselves, by the weight of their leaf, but for these branches, of which the recipe says it.
    Own(Vec<(String, f64)>),
    /// Nothing: a recipe of `InstructLab`'s speaks of whole files.
    Equal,
}

#[derive(Clone, Copy, Debug)]
enum Amount {
    Size(SamplingSize),
    /// A share of the whole mixture.
    Part(f64),
}

impl Take {
    pub(super) fn of(source: &MixSource) -> Self {
        let amount = match (source.lines, source.share, source.part) {
            (_, _, Some(part)) => Amount::Part(part),
            (Some(lines), ..) => Amount::Size(SamplingSize::Lines(lines)),
            (_, share, _) => Amount::Size(SamplingSize::Share(share.unwrap_or(1.0))),
        };
        let leaves = source.leaves.iter().map(|(leaf, share)| (leaf.clone(), *share)).collect();
        Self { amount, leaves: Leaves::Own(leaves), most_per_leaf: source.most_per_leaf }
    }

    pub(super) fn size(size: SamplingSize) -> Self {
        Self { amount: Amount::Size(size), leaves: Leaves::Equal, most_per_leaf: None }
    }

    /// Lines of each leaf after its own share and the cap, before the size of the source is looked at.
    fn base(&self, held: &Holdings) -> Counts {
        let base = |(leaf, held): (&String, &Held)| {
            let wanted = match &self.leaves {
                Leaves::Equal => held.lines as f64,
                Leaves::Own(branches) => match leaf_share(branches, leaf) {
                    Some(share) => held.lines as f64 * share,
                    None => held.weighted,
                },
            };
            (leaf.clone(), (wanted.round() as u64).min(self.most_per_leaf.unwrap_or(u64::MAX)))
        };
        held.iter().map(base).collect()
    }
}

/// Lines of each leaf of each source. Parts of the mixture are reckoned from the sources that are not parts.
pub(super) fn plan(takes: &[&Take], held: &[Holdings]) -> Vec<Counts> {
    let bases: Vec<Counts> = takes.iter().zip(held).map(|(take, held)| take.base(held)).collect();
    let total = |counts: &Counts| counts.values().sum::<u64>();
    let mut parts = 0.0;
    let mut fixed = 0;
    for (take, base) in takes.iter().zip(&bases) {
        match take.amount {
            Amount::Part(part) => parts += part,
            Amount::Size(size) => fixed += size.lines(total(base)),
        }
    }
    let whole = fixed as f64 / (1.0 - parts).max(f64::MIN_POSITIVE);
    let wanted = |(take, base): (&&Take, &Counts)| match take.amount {
        Amount::Part(part) => spread(base, (whole * part).round() as u64),
        Amount::Size(size) => spread(base, size.lines(total(base))),
    };
    takes.iter().zip(&bases).map(wanted).collect()
}

/// Shares a number out in the ratios of others, to the last one: the largest remainders are rounded up, the first among
/// equals.
fn spread(base: &Counts, wanted: u64) -> Counts {
    let total: u64 = base.values().sum();
    if total == 0 || total == wanted {
        return base.clone();
    }
    let product = |count: u64| u128::from(count) * u128::from(wanted);
    let mut found: Counts =
        base.iter().map(|(leaf, &count)| (leaf.clone(), (product(count) / u128::from(total)) as u64)).collect();
    let missing = wanted - found.values().sum::<u64>();
    let mut order: Vec<(&String, u128)> =
        base.iter().map(|(leaf, &count)| (leaf, product(count) % u128::from(total))).collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    for (leaf, _) in order.into_iter().take(missing as usize) {
        if let Some(count) = found.get_mut(leaf) {
            *count += 1;
        }
    }
    found
}

/// Takes a wanted number out of lines that come one after the other (Knuth, The Art of Computer Programming 2, algorithm S),
/// each as often as every other, but for a remainder that is drawn.
#[derive(Debug)]
pub(super) struct Drawn {
    /// Lines that are still to come.
    left: u64,
    /// How many of these are taken once more than the others.
    wanted: u64,
    /// How often each comes anyway.
    each: u64,
    draw: Draw,
}

impl Drawn {
    pub(super) fn new(lines: u64, wanted: u64, draw: Draw) -> Self {
        let (each, wanted) = (wanted.checked_div(lines).unwrap_or(0), wanted.checked_rem(lines).unwrap_or(0));
        Self { left: lines, wanted, each, draw }
    }

    /// How often the next line is taken.
    pub(super) fn copies(&mut self) -> u64 {
        let more = self.left > 0 && (self.draw.below(self.left as usize) as u64) < self.wanted;
        self.left = self.left.saturating_sub(1);
        self.wanted -= u64::from(more);
        self.each + u64::from(more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_many_are_taken_as_wanted(lines in 1_u64..200, wanted in 0_u64..500, seed: u64) {
            let mut drawn = Drawn::new(lines, wanted, Draw::new(seed, &[]));
            let copies: Vec<u64> = (0..lines).map(|_| drawn.copies()).collect();
            prop_assert_eq!(copies.iter().sum::<u64>(), wanted);
            let (least, most) = (copies.iter().min().unwrap(), copies.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }

        #[test]
        fn a_number_is_shared_out_to_the_last(counts in proptest::collection::vec(0_u64..1000, 1..12), wanted in 0_u64..5000) {
            let base: Counts = counts.iter().enumerate().map(|(at, &count)| (at.to_string(), count)).collect();
            let found = spread(&base, wanted);
            let total: u64 = counts.iter().sum();
            prop_assert_eq!(found.values().sum::<u64>(), if total == 0 { 0 } else { wanted });
            for (leaf, count) in &found {
                let exact = base[leaf] as f64 * wanted as f64 / total.max(1) as f64;
                prop_assert!((*count as f64 - exact).abs() < 1.0);
            }
        }
    }

    #[test]
    fn parts_are_of_the_whole_mixture() {
        let counts = |count: u64| Counts::from([("a".to_owned(), count)]);
        let part =
            |part: f64| Take { amount: Amount::Part(part), leaves: Leaves::Own(Vec::new()), most_per_leaf: None };
        let all = Take::size(SamplingSize::Share(1.0));
        let found = plan(&[&all, &part(0.25), &part(0.25)], &[held(100, 1.0), held(1000, 1.0), held(20, 1.0)]);
        assert_eq!(found, [counts(100), counts(50), counts(50)]);
    }

    fn held(lines: u64, weight: f64) -> Holdings {
        Holdings::from([("a".to_owned(), Held { lines, weighted: lines as f64 * weight })])
    }

    #[test]
    fn lines_weigh_what_their_leaf_says_unless_the_recipe_says_it() {
        let taken = |leaves: Leaves| {
            let all = Amount::Size(SamplingSize::Share(1.0));
            plan(&[&Take { amount: all, leaves, most_per_leaf: None }], &[held(10, 2.5)])[0]["a"]
        };
        assert_eq!(taken(Leaves::Own(Vec::new())), 25);
        assert_eq!(taken(Leaves::Own(vec![("a".to_owned(), 3.0)])), 30);
        assert_eq!(taken(Leaves::Equal), 10);
    }
}
