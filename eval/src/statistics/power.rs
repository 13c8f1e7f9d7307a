//! What a number of items can show, and how many items a difference needs.
//!
//! Everywhere at a two-sided level of 5 % and with a chance of 80 % to see a difference that is there.

use super::normal;

/// The share of items on which two related models differ, when nothing better is known.
pub const USUAL_CHANGED: f64 = 0.1;

/// Normal quantiles of the level (97.5 %) and of the power (80 %).
fn quantiles() -> (f64, f64) {
    (normal::quantile(0.975), normal::quantile(0.8))
}

/// The least difference of two accuracies that `items` items answered by both models show, when a share `changed` of the items is
/// right in one model only. At most 1.
///
/// With n items, a share s and the normal quantiles a of the level and b of the power: the d of sqrt(n) d = a sqrt(s) + b sqrt(s - d^2)
/// (Miettinen, Biometrics 24 (1968) 339; Connor, Biometrics 43 (1987) 207). Where that d is more than s, there are more changed
/// items than was said: the d that is its own s is taken, every change then being in one direction. Not less than 6 / items,
/// because five changes in one direction and none in the other happen by chance once in 16 times.
pub fn detectable(items: usize, changed: f64) -> f64 {
    if items == 0 {
        return 1.0;
    }
    let (n, share) = (items as f64, changed.max(0.0));
    let (level, power) = quantiles();
    let squares = power * power - level * level;
    let root = n.sqrt() * level + power * (n + squares).max(0.0).sqrt();
    let among_changed = share.sqrt() * root / (n + power * power);
    let least = if among_changed <= share { among_changed } else { one_sided_change(n, level, power) };
    least.max(6.0 / n).min(1.0)
}

/// The d of n d = (a + b sqrt(1 - d))^2: the right side falls as d rises.
fn one_sided_change(n: f64, level: f64, power: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if n * middle < (level + power * f64::sqrt(1.0 - middle)).powi(2) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The least difference of two accuracies near `accuracy` that show on different items, so many for each model:
/// (a + b) sqrt(p (1 - p) (1/n + 1/m)). At most 1.
pub fn detectable_unpaired(first: usize, second: usize, accuracy: f64) -> f64 {
    if first == 0 || second == 0 {
        return 1.0;
    }
    let (level, power) = quantiles();
    let spread = accuracy.clamp(0.0, 1.0) * (1.0 - accuracy.clamp(0.0, 1.0));
    ((level + power) * (spread * (1.0 / first as f64 + 1.0 / second as f64)).sqrt()).min(1.0)
}

/// The least mean difference of paired scores that so many items show, `deviation` being the standard deviation of the
/// differences: (a + b) deviation / sqrt(n). Infinite without an item.
pub fn detectable_mean(items: usize, deviation: f64) -> f64 {
    let (level, power) = quantiles();
    if items == 0 { f64::INFINITY } else { (level + power) * deviation / (items as f64).sqrt() }
}

/// How many items, answered by both models, show a difference; the inverse of [`detectable`]. None where no number does: without
/// a difference.
pub fn items_needed(difference: f64, changed: f64) -> Option<usize> {
    let d = difference.abs();
    if d.is_nan() || d == 0.0 || d > 1.0 {
        return None;
    }
    let (level, power) = quantiles();
    // No difference without as many changes.
    let share = changed.max(d);
    let n = ((level * share.sqrt() + power * (share - d * d).sqrt()) / d).powi(2);
    Some(n.max(6.0 / d).ceil() as usize)
}

/// By how much a second model may be worse and still count as not worse, when nothing is said: one point, or more where so many
/// items cannot show as little. Items that show nothing below a quarter of them stay with one point, since a margin as wide as
/// what they show would prove nothing.
pub fn usual_margin(items: usize) -> f64 {
    const ONE_POINT: f64 = 0.01;
    const WIDEST: f64 = 0.25;
    let least = detectable(items, USUAL_CHANGED);
    if least <= WIDEST { least.max(ONE_POINT) } else { ONE_POINT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_items_show_little() {
        assert!(detectable(5, 0.1) > 0.999_999 && detectable(0, 0.1) > 0.999_999);
        // More changes need more items.
        assert!(detectable(1000, 0.3) > 1.5 * detectable(1000, 0.1));
        // 27 questions of a leaf: seven changes in one direction.
        assert!((detectable(27, 0.1) - 0.265).abs() < 0.002, "{}", detectable(27, 0.1));
        assert!(detectable_unpaired(0, 9, 0.5) > 0.999 && detectable_mean(0, 1.0).is_infinite());
    }

    #[test]
    fn as_many_items_as_are_needed_show_it() {
        for (difference, changed) in [(0.01, 0.1), (0.05, 0.1), (0.2, 0.1), (-0.03, 0.4), (0.9, 0.1)] {
            let items = items_needed(difference, changed).unwrap();
            assert!(detectable(items, changed) <= difference.abs() + 1e-12, "{difference} {items}");
            assert!(detectable(items - 1, changed) > difference.abs(), "{difference} {items}");
        }
        assert_eq!((items_needed(0.0, 0.1), items_needed(f64::NAN, 0.1)), (None, None));
    }

    #[test]
    fn power_is_what_it_says() {
        // Draws of 400 items of which 20 % change, so many more for the better that the difference is just detectable.
        use rand_chacha::ChaCha8Rng;
        use rand_chacha::rand_core::{Rng, SeedableRng};
        let (items, changed) = (400, 0.2);
        let difference = detectable(items, changed);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut uniform = move || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        let draws = 4000;
        let seen = (0..draws)
            .filter(|_| {
                let (mut lost, mut gained) = (0, 0);
                for _ in 0..items {
                    let at = uniform();
                    gained += usize::from(at < 0.5 * (changed + difference));
                    lost += usize::from(at > 1.0 - 0.5 * (changed - difference));
                }
                super::super::mcnemar::mcnemar(lost, gained).p < 0.05
            })
            .count();
        let share = seen as f64 / f64::from(draws);
        assert!((share - 0.8).abs() < 0.03, "{share}");
    }

    #[test]
    fn margins_are_a_point_or_what_can_be_shown() {
        assert!((usual_margin(100_000) - 0.01).abs() < 1e-12);
        assert!((usual_margin(200) - detectable(200, 0.1)).abs() < 1e-12 && usual_margin(200) > 0.05);
        assert!((usual_margin(20) - 0.01).abs() < 1e-12);
    }
}
