//! From the values of all documents to one, with its standard error, by lm-eval's formulas.

use super::metric::{Aggregation, Worth};
use super::random::Random;

/// Draws of a bootstrap, lm-eval's default.
const DRAWS: usize = 100_000;

/// Draws that share one seed.
const CHUNK: usize = 1000;

/// The value of a metric over documents. NaN where there is none.
pub(crate) fn aggregate(aggregation: Aggregation, values: &[Worth]) -> f64 {
    let numbers = || values.iter().filter_map(Worth::number);
    match aggregation {
        Aggregation::Mean => mean(numbers(), values.len()),
        Aggregation::NanMean => {
            let known: Vec<f64> = numbers().filter(|value| !value.is_nan()).collect();
            mean(known.iter().copied(), known.len())
        }
        Aggregation::Median => {
            let mut sorted: Vec<f64> = numbers().collect();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
        }
        Aggregation::Perplexity => (-mean(numbers(), values.len())).exp(),
        Aggregation::WeightedPerplexity => (-weighted_mean(values)).exp(),
        Aggregation::BitsPerByte => -weighted_mean(values) / std::f64::consts::LN_2,
        Aggregation::F1 => f1(values),
        Aggregation::Matthews => matthews(values),
        Aggregation::Brier => brier(values),
        Aggregation::Instructions => {
            let verdicts =
                values.iter().filter_map(|value| if let Worth::Verdicts(all) = value { Some(all) } else { None });
            let all: Vec<f64> = verdicts.flatten().map(|followed| f64::from(u8::from(*followed))).collect();
            mean(all.iter().copied(), all.len())
        }
        Aggregation::Bypass => 999.0,
    }
}

fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.sum::<f64>() / count as f64
}

fn weighted_mean(values: &[Worth]) -> f64 {
    let pairs = || {
        values
            .iter()
            .filter_map(|value| if let Worth::Weighed(sum, weight) = value { Some((*sum, *weight)) } else { None })
    };
    pairs().map(|(sum, _)| sum).sum::<f64>() / pairs().map(|(_, weight)| weight).sum::<usize>() as f64
}

fn classes(values: &[Worth]) -> impl Iterator<Item = (i64, i64)> {
    values
        .iter()
        .filter_map(|value| if let Worth::Classes(right, chosen) = value { Some((*right, *chosen)) } else { None })
}

/// F1 of class 1 against class 0; 0 where nothing is of class 1.
fn f1(values: &[Worth]) -> f64 {
    let count =
        |keep: &dyn Fn(i64, i64) -> bool| classes(values).filter(|&(right, chosen)| keep(right, chosen)).count() as f64;
    let both = count(&|right, chosen| right == 1 && chosen == 1);
    let either = count(&|right, _| right == 1) + count(&|_, chosen| chosen == 1);
    if either > 0.0 { 2.0 * both / either } else { 0.0 }
}

/// The correlation of Matthews for any number of classes (Gorodkin 2004); 0 where it is not defined.
fn matthews(values: &[Worth]) -> f64 {
    let pairs: Vec<(i64, i64)> = classes(values).collect();
    let mut names: Vec<i64> = pairs.iter().flat_map(|&(right, chosen)| [right, chosen]).collect();
    names.sort_unstable();
    names.dedup();
    let all = pairs.len() as f64;
    let agreed = pairs.iter().filter(|(right, chosen)| right == chosen).count() as f64;
    let share = |pick: &dyn Fn(&(i64, i64)) -> i64| -> Vec<f64> {
        names.iter().map(|name| pairs.iter().filter(|pair| pick(pair) == *name).count() as f64).collect()
    };
    let (right, chosen) = (share(&|pair| pair.0), share(&|pair| pair.1));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let covariance = agreed * all - product(&right, &chosen);
    let spread = (all * all - product(&chosen, &chosen)) * (all * all - product(&right, &right));
    if spread > 0.0 { covariance / spread.sqrt() } else { 0.0 }
}

/// Mean squared distance of the probabilities from certainty in the right class (Brier 1950).
fn brier(values: &[Worth]) -> f64 {
    let distances = values.iter().filter_map(|value| {
        let Worth::Probabilities(right, all) = value else { return None };
        let truth = |place: usize| f64::from(u8::from(i64::try_from(place) == Ok(*right)));
        Some(all.iter().enumerate().map(|(place, probability)| (probability - truth(place)).powi(2)).sum::<f64>())
    });
    mean(distances, values.len())
}

/// The standard error of an aggregated value: of a mean by formula, of others by the bootstrap; `None` for those that have none and
/// for fewer than two values.
pub(crate) fn standard_error(aggregation: Aggregation, values: &[Worth]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    match aggregation {
        Aggregation::Mean => {
            let numbers: Vec<f64> = values.iter().filter_map(Worth::number).collect();
            Some(sample_deviation(&numbers) / (numbers.len() as f64).sqrt())
        }
        Aggregation::NanMean
        | Aggregation::Median
        | Aggregation::Perplexity
        | Aggregation::F1
        | Aggregation::Matthews => Some(bootstrap(aggregation, values, DRAWS)),
        Aggregation::WeightedPerplexity
        | Aggregation::BitsPerByte
        | Aggregation::Brier
        | Aggregation::Instructions
        | Aggregation::Bypass => None,
    }
}

fn sample_deviation(values: &[f64]) -> f64 {
    let center = mean(values.iter().copied(), values.len());
    (values.iter().map(|value| (value - center).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// The deviation of the value over draws with replacement. Chunks have their own seeds, so their order of work does not matter.
fn bootstrap(aggregation: Aggregation, values: &[Worth], draws: usize) -> f64 {
    let chunk = |seed: usize| -> Vec<f64> {
        let mut random = Random::new(seed as u64);
        let count = values.len();
        (0..CHUNK)
            .map(|_| {
                let drawn: Vec<Worth> =
                    (0..count).map(|_| values[(random.unit() * count as f64) as usize].clone()).collect();
                aggregate(aggregation, &drawn)
            })
            .collect()
    };
    let chunks = draws / CHUNK;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(chunks.max(1));
    let found: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let chunk = &chunk;
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    (worker..chunks).step_by(threads).map(|seed| (seed, chunk(seed))).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut all: Vec<(usize, Vec<f64>)> =
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect();
        all.sort_by_key(|(seed, _)| *seed);
        all.into_iter().map(|(_, found)| found).collect()
    });
    sample_deviation(&found.concat())
}

/// One task in a group: its value, standard error and size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) value: f64,
    pub(crate) error: Option<f64>,
    pub(crate) size: usize,
}

/// Mean and standard error over the tasks of a group, weighted by their sizes or each alike.
pub(crate) fn pool(members: &[Member], by_size: bool) -> (f64, Option<f64>) {
    let weight = |member: &Member| if by_size { member.size as f64 } else { 1.0 };
    let total: f64 = members.iter().map(weight).sum();
    let value = members.iter().map(|member| member.value * weight(member)).sum::<f64>() / total;
    let errors: Option<Vec<f64>> = members.iter().map(|member| member.error).collect();
    let error = errors.map(|errors| {
        if by_size {
            let pooled = members
                .iter()
                .zip(&errors)
                .map(|(member, error)| (member.size as f64 - 1.0) * error.powi(2) * member.size as f64)
                .sum::<f64>()
                / (total - members.len() as f64);
            (pooled / total).sqrt()
        } else {
            errors.iter().map(|error| error.powi(2)).sum::<f64>().sqrt() / members.len() as f64
        }
    });
    (value, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f64]) -> Vec<Worth> {
        values.iter().map(|&value| Worth::Number(value)).collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn values_and_errors_are_those_of_lm_eval() {
        // Each expected value was printed by lm_eval.api.metrics 0.4.13.
        let right = numbers(&[1.0, 0.0, 1.0, 1.0, 0.0]);
        close(aggregate(Aggregation::Mean, &right), 0.6);
        close(standard_error(Aggregation::Mean, &right).unwrap(), 0.24494897427831783);
        let losses = numbers(&[-1.5, -2.25, -0.5]);
        close(aggregate(Aggregation::Perplexity, &losses), 4.123352997269821);
        close(bootstrap(Aggregation::Perplexity, &losses, 2000), 1.9009999715150925);
        close(aggregate(Aggregation::Median, &losses), -1.5);
        let weighed = [Worth::Weighed(-10.0, 4), Worth::Weighed(-20.0, 5)];
        close(aggregate(Aggregation::WeightedPerplexity, &weighed), 28.03162489452614);
        close(aggregate(Aggregation::BitsPerByte, &weighed), 4.8089834696298785);
        let classes: Vec<Worth> = [(0, 0), (1, 1), (1, 0), (0, 1), (1, 1), (0, 0)]
            .map(|(right, chosen)| Worth::Classes(right, chosen))
            .into();
        close(aggregate(Aggregation::F1, &classes), 0.6666666666666666);
        close(aggregate(Aggregation::Matthews, &classes), 0.3333333333333333);
        close(bootstrap(Aggregation::F1, &classes, 2000), 0.26666492520968016);
        let beliefs = [Worth::Probabilities(0, vec![0.7, 0.3]), Worth::Probabilities(1, vec![0.6, 0.4])];
        close(aggregate(Aggregation::Brier, &beliefs), 0.45);
        let members =
            [(0.5, 0.1, 10), (0.75, 0.05, 30)].map(|(value, error, size)| Member { value, error: Some(error), size });
        let (value, error) = pool(&members, true);
        close(value, 0.6875);
        close(error.unwrap(), 0.04497806482930845);
        close(pool(&members, false).1.unwrap(), 0.05590169943749475);
        assert_eq!(standard_error(Aggregation::BitsPerByte, &weighed), None);
        assert_eq!(standard_error(Aggregation::Mean, &right[..1]), None);
    }
}
