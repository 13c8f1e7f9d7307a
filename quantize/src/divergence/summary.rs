//! Figures over many positions, each with an interval.

use serde::Serialize;

use super::position::Position;

/// Draws of the bootstrap.
const RESAMPLES: usize = 1000;
/// With fewer texts, pieces of texts are drawn instead.
const LEAST_TEXTS: usize = 8;
/// Positions of such a piece: neighbours are alike, so they are drawn together.
const PIECE: usize = 32;

/// A figure and where it lies with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Its interval, by a bootstrap over whole texts (over pieces of 32 positions where there are fewer than 8 texts); none
    /// where there is but one piece.
    pub interval: Option<[f64; 2]>,
}

/// What is measured at every position that counts, named as llama-perplexity names it.
///
/// With `p` the reference's distribution and `q` the candidate's, the divergence of a position is
/// `sum p (ln p - ln q)`, and its delta is `q - p` at the token that follows in the text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Divergence {
    /// Mean Kullback-Leibler divergence, in nats.
    pub mean_kld: Estimate,
    /// Median divergence.
    pub median: Estimate,
    /// The divergence that one position in ten exceeds.
    pub p90: Estimate,
    /// The divergence that one position in a hundred exceeds.
    pub p99: Estimate,
    /// The divergence that one position in a thousand exceeds.
    pub p99_9: Estimate,
    /// Largest divergence.
    pub max: f64,
    /// Part of the positions where both put the same token first.
    pub same_top: Estimate,
    /// Mean delta: below zero when the candidate is less sure of the text.
    pub mean_delta_p: Estimate,
    /// Root mean square of the delta.
    pub rms_delta_p: Estimate,
    /// Perplexity of the candidate over that of the reference.
    pub perplexity_ratio: Estimate,
    /// Positions compared.
    pub tokens: usize,
    /// Texts that they stand in.
    pub texts: usize,
}

/// The figures of one draw, in the order of [`Divergence`].
type Figures = [f64; 9];

/// `texts` hold the positions of each text; none when there is no position.
pub(super) fn summary(texts: &[Vec<Position>]) -> Option<Divergence> {
    let clusters = clusters(texts);
    let sums: Vec<Sums> = clusters.iter().map(|cluster| Sums::of(cluster)).collect();
    // Positions by their divergence, each with its cluster.
    let mut sorted: Vec<(f64, u32)> = (0_u32..)
        .zip(&clusters)
        .flat_map(|(cluster, positions)| positions.iter().map(move |position| (position.divergence, cluster)))
        .collect();
    sorted.sort_by(|left, right| left.0.total_cmp(&right.0));
    let tokens = sorted.len();
    let max = sorted.last()?.0;
    let values = figures(&sums, &sorted, &vec![1; clusters.len()]);
    let mut draws: [Vec<f64>; 9] = Default::default();
    if clusters.len() > 1 {
        let mut random = SplitMix(0);
        for _ in 0..RESAMPLES {
            let mut times = vec![0; clusters.len()];
            for _ in 0..clusters.len() {
                times[random.below(clusters.len())] += 1;
            }
            for (draws, figure) in draws.iter_mut().zip(figures(&sums, &sorted, &times)) {
                draws.push(figure);
            }
        }
    }
    let mut estimates = values.into_iter().zip(draws).map(|(value, mut draws)| {
        draws.sort_by(f64::total_cmp);
        let interval = (!draws.is_empty()).then(|| [quantile(&draws, 0.025), quantile(&draws, 0.975)]);
        Estimate { value, interval }
    });
    let mut next = || estimates.next();
    Some(Divergence {
        mean_kld: next()?,
        median: next()?,
        p90: next()?,
        p99: next()?,
        p99_9: next()?,
        same_top: next()?,
        mean_delta_p: next()?,
        rms_delta_p: next()?,
        perplexity_ratio: next()?,
        max,
        tokens,
        texts: texts.iter().filter(|text| !text.is_empty()).count(),
    })
}

/// What is drawn together.
fn clusters(texts: &[Vec<Position>]) -> Vec<&[Position]> {
    let texts: Vec<&[Position]> = texts.iter().map(Vec::as_slice).filter(|text| !text.is_empty()).collect();
    if texts.len() >= LEAST_TEXTS { texts } else { texts.iter().flat_map(|text| text.chunks(PIECE)).collect() }
}

/// Sums over a cluster.
struct Sums {
    count: f64,
    divergence: f64,
    same_top: f64,
    delta: f64,
    delta_squared: f64,
    log_ratio: f64,
}

impl Sums {
    fn of(positions: &[Position]) -> Self {
        let sum = |figure: &dyn Fn(&Position) -> f64| positions.iter().map(figure).sum::<f64>();
        Self {
            count: positions.len() as f64,
            divergence: sum(&|position| position.divergence),
            same_top: sum(&|position| f64::from(u8::from(position.same_top))),
            delta: sum(&|position| position.delta),
            delta_squared: sum(&|position| position.delta * position.delta),
            log_ratio: sum(&|position| position.log_ratio),
        }
    }
}

/// The figures when each cluster is there so many times.
fn figures(sums: &[Sums], sorted: &[(f64, u32)], times: &[u32]) -> Figures {
    let total = |figure: &dyn Fn(&Sums) -> f64| -> f64 {
        sums.iter().zip(times).map(|(sums, times)| figure(sums) * f64::from(*times)).sum()
    };
    let count = total(&|sums| sums.count);
    let mean = |figure: &dyn Fn(&Sums) -> f64| total(figure) / count;
    let [median, p90, p99, p99_9] = quantiles(sorted, times, count, [0.5, 0.9, 0.99, 0.999]);
    [
        mean(&|sums| sums.divergence),
        median,
        p90,
        p99,
        p99_9,
        mean(&|sums| sums.same_top),
        mean(&|sums| sums.delta),
        mean(&|sums| sums.delta_squared).sqrt(),
        mean(&|sums| sums.log_ratio).exp(),
    ]
}

/// Quantiles (rising parts) of sorted numbers that are there so many times, between the two nearest.
fn quantiles<const N: usize>(sorted: &[(f64, u32)], times: &[u32], count: f64, parts: [f64; N]) -> [f64; N] {
    // For each part the places of the numbers below and above it.
    let places = parts.map(|part| part * (count - 1.0));
    let mut found = [0.0; N];
    let (mut part, mut seen, mut before) = (0, 0.0, 0.0);
    for (value, cluster) in sorted {
        let there = times[*cluster as usize];
        if there == 0 {
            continue;
        }
        // This number takes the places from `seen` to `end`.
        let end = seen + f64::from(there) - 1.0;
        while part < N && places[part] <= end {
            let place = places[part];
            let between = (place - (seen - 1.0)).clamp(0.0, 1.0);
            found[part] = if place >= seen { *value } else { before + (*value - before) * between };
            part += 1;
        }
        before = *value;
        seen = end + 1.0;
    }
    found
}

/// Quantile of sorted numbers, between the two nearest.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// The generator `SplitMix64` (Steele, Lea and Flood, 2014): the same draws on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The high half of the product: even to within 2^-32 for every bound here.
        ((u128::from(mixed) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    fn position(divergence: f64) -> Position {
        Position { divergence, same_top: divergence < 0.5, delta: -divergence, log_ratio: divergence }
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = [(0.0, 0), (1.0, 1), (2.0, 2), (3.0, 3)];
        assert_eq!(quantiles(&sorted, &[1; 4], 4.0, [0.0, 0.5, 0.9, 1.0]), [0.0, 1.5, 2.7, 3.0]);
        // 0, 0, 2: the median is the second zero, three quarters lie halfway to 2.
        assert_eq!(quantiles(&sorted, &[2, 0, 1, 0], 3.0, [0.5, 0.75]), [0.0, 1.0]);
        assert_eq!(quantiles(&sorted[..1], &[1], 1.0, [0.5, 0.999]), [0.0, 0.0]);
    }

    #[test]
    fn figures_by_hand_and_intervals_around_them() {
        let texts: Vec<Vec<Position>> = (0..10).map(|text| vec![position(f64::from(text) / 10.0); 3]).collect();
        let found = summary(&texts).unwrap();
        assert!((found.mean_kld.value - 0.45).abs() < 1e-12);
        assert!((found.median.value - 0.45).abs() < 1e-12);
        assert_eq!((found.max, found.same_top.value, found.tokens, found.texts), (0.9, 0.5, 30, 10));
        assert!((found.perplexity_ratio.value - 0.45_f64.exp()).abs() < 1e-12);
        // The mean of ten texts: 0.45 and 1.96 times 0.287 / sqrt 10.
        let [low, high] = found.mean_kld.interval.unwrap();
        assert!((low - 0.272).abs() < 0.03 && (high - 0.628).abs() < 0.03, "{low} {high}");
        assert_eq!(summary(&texts), Some(found), "the draws are the same every time");
    }

    #[test]
    fn few_texts_are_drawn_in_pieces_and_nothing_gives_nothing() {
        assert!(summary(&[vec![position(0.1); 70]]).unwrap().mean_kld.interval.is_some());
        assert_eq!(summary(&[vec![position(0.1); 7]]).unwrap().mean_kld.interval, None);
        assert!(summary(&[Vec::new()]).is_none());
    }
}
