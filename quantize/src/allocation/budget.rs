//! The least cost under a budget: of bytes, or of the time of a token.

use super::errors::{Candidates, Rounding};

/// Place of the chosen one among the candidates of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice(pub(super) usize);

/// Halvings of the price: it is then exact to the last bit of its mantissa.
const HALVINGS: usize = 100;

/// Chooses for each tensor the type that costs least at one price of what it takes; the price is the lowest at which the budget
/// holds. What is left of the budget goes to single tensors, the best gain for what it takes first.
///
/// `costs` are the divergence that a unit of error costs in each group. The budget holds the smallest choices at least.
pub(super) fn allocate_budget(candidates: &Candidates, costs: &[f64], budget: u64) -> Vec<Choice> {
    let tensors = &candidates.tensors;
    let at = |price: f64| -> Vec<Choice> {
        tensors.iter().map(|tensor| cheapest(tensor, costs[tensor.group], price)).collect()
    };
    let fits = |choices: &[Choice]| candidates.spent(choices) <= budget;
    let (mut low, mut high) = (0.0, 1.0);
    if fits(&at(low)) {
        return at(low);
    }
    while !fits(&at(high)) && high < 1e300 {
        high *= 4.0;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if fits(&at(middle)) { high = middle } else { low = middle }
    }
    let mut choices = at(high);
    if !fits(&choices) {
        choices = vec![Choice(0); tensors.len()];
    }
    spend(candidates, costs, budget, &mut choices);
    choices
}

fn cheapest(tensor: &Rounding, cost: f64, price: f64) -> Choice {
    let value = |place: usize| cost * tensor.candidates[place].error + price * tensor.candidates[place].spent as f64;
    // Of equals the cheaper.
    let least = (0..tensor.candidates.len()).min_by(|&left, &right| value(left).total_cmp(&value(right)));
    Choice(least.unwrap_or(0))
}

/// Spends what is left of the budget.
fn spend(candidates: &Candidates, costs: &[f64], budget: u64, choices: &mut [Choice]) {
    let mut left = budget.saturating_sub(candidates.spent(choices));
    loop {
        let mut best: Option<(f64, usize, usize, u64)> = None;
        for (place, tensor) in candidates.tensors.iter().enumerate() {
            let now = tensor.candidates[choices[place].0];
            for (next, candidate) in tensor.candidates.iter().enumerate().skip(choices[place].0 + 1) {
                let more = candidate.spent - now.spent;
                let gain = costs[tensor.group] * (now.error - candidate.error) / more.max(1) as f64;
                if more <= left && gain > best.map_or(0.0, |best| best.0) {
                    best = Some((gain, place, next, more));
                }
            }
        }
        let Some((_, place, next, more)) = best else { return };
        choices[place] = Choice(next);
        left -= more;
    }
}

#[cfg(test)]
mod tests {
    use espalier_kernels::BlockType;
    use proptest::prelude::*;

    use super::super::errors::Candidate;
    use super::*;

    /// Tensors of such sizes in units; types of 2, 4 and 8 a unit with errors that fall.
    fn candidates(sizes: &[u64], errors: &[[f64; 3]]) -> Candidates {
        let tensor = |(place, (&size, errors)): (usize, (&u64, &[f64; 3]))| Rounding {
            name: format!("t{place}"),
            group: place,
            candidates: [2, 4, 8]
                .into_iter()
                .zip(errors)
                .map(|(spent, &error)| Candidate { block_type: BlockType::Q8_0, bytes: 0, spent: spent * size, error })
                .collect(),
        };
        Candidates {
            tensors: sizes.iter().zip(errors).enumerate().map(tensor).collect(),
            groups: (0..sizes.len()).map(|place| place.to_string()).collect(),
            fixed_bytes: 0,
            weights: 0,
        }
    }

    fn cost(candidates: &Candidates, costs: &[f64], choices: &[Choice]) -> f64 {
        let pairs = candidates.tensors.iter().zip(choices).zip(costs);
        pairs.map(|((tensor, choice), cost)| cost * tensor.candidates[choice.0].error).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_budget_holds_and_the_cost_is_near_the_least(
            tensors in prop::collection::vec((1_u64..20, 0.1_f64..1.0, 0.1_f64..0.9, 0.1_f64..0.9, 0.1_f64..10.0), 1..6),
            part in 0.0_f64..1.0,
        ) {
            let sizes: Vec<u64> = tensors.iter().map(|tensor| tensor.0).collect();
            let errors: Vec<[f64; 3]> = tensors.iter().map(|t| [t.1, t.1 * t.2, t.1 * t.2 * t.3]).collect();
            let costs: Vec<f64> = tensors.iter().map(|tensor| tensor.4).collect();
            let candidates = candidates(&sizes, &errors);
            let units: u64 = sizes.iter().sum();
            let budget = 2 * units + (part * (6 * units) as f64) as u64;
            let found = allocate_budget(&candidates, &costs, budget);
            prop_assert!(candidates.spent(&found) <= budget);
            // Every allocation that fits.
            let mut least = f64::INFINITY;
            for number in 0..3_usize.pow(tensors.len() as u32) {
                let choices: Vec<Choice> = (0..tensors.len()).map(|at| Choice(number / 3_usize.pow(at as u32) % 3)).collect();
                if candidates.spent(&choices) <= budget {
                    least = least.min(cost(&candidates, &costs, &choices));
                }
            }
            // One price for all leaves out at most what one tensor could gain.
            let most = tensors.iter().map(|t| t.4 * t.1).fold(0.0, f64::max);
            prop_assert!(cost(&candidates, &costs, &found) <= least + most);
        }
    }

    #[test]
    fn bytes_go_where_errors_cost_most() {
        let candidates = candidates(&[10, 10], &[[0.4, 0.1, 0.02]; 2]);
        assert_eq!(allocate_budget(&candidates, &[1.0, 9.0], 100), [Choice(0), Choice(2)]);
        assert_eq!(allocate_budget(&candidates, &[9.0, 1.0], 100), [Choice(2), Choice(0)]);
        assert_eq!(allocate_budget(&candidates, &[1.0, 1.0], 40), [Choice(0), Choice(0)]);
        assert_eq!(allocate_budget(&candidates, &[1.0, 1.0], 1000), [Choice(2), Choice(2)]);
    }
}
