#!/usr/bin/env python3
"""What scipy and statsmodels make of the cases that our statistics are held against.

    golden-statistics.py > eval/tests/golden/statistics.json

Bootstrap intervals are given with 400,000 draws: they are compared within the Monte Carlo error. Where neither package has
the figure (Tango's score, Connor's sample size, Krippendorff's alpha), it is found here another way than our code finds it:
a likelihood maximised, an equation solved numerically, a mean over all pairs of ratings.
needs: numpy, scipy, statsmodels. Read by eval/tests/statistics.rs.
"""
import itertools, json, math
import numpy as np
from scipy import optimize, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.weightstats import DescrStatsW

rng = np.random.default_rng(20)
out = {}

out["wilson"] = [[k, n, c, *stats.binomtest(k, n).proportion_ci(c, "wilson")]
                 for k, n in [(0, 10), (10, 10), (17, 27), (650, 1000), (3, 14042)] for c in [.9, .95]]
out["normal"] = [[x, stats.norm.cdf(x), stats.norm.ppf(stats.norm.cdf(x))] for x in [-9.0, -3.1, -1.0, -.01, .4, 2.2, 3.5]]
out["student"] = [[t, df, stats.t.sf(t, df)] for t in [-3.0, -.2, 0.0, .01, .7, 1.96, 4.0, 12.0, 60.0]
                  for df in [1, 2, 5, 29, 63.5, 200, 9999, 1e6]]
out["student_quantile"] = [[p, df, stats.t.ppf(p, df)] for p in [.001, .1, .5, .6, .95, .975, .9995]
                           for df in [1, 3, 26, 1318, 1e5]]

out["mcnemar_exact"] = [[b, c, mcnemar([[0, b], [c, 0]], exact=True).pvalue]
                        for b, c in [(0, 0), (0, 6), (5, 0), (3, 9), (2, 12), (7, 7), (12, 12), (4, 20)]]
out["mcnemar_mid_p"] = [[b, c, 2 * stats.binom.cdf(min(b, c), b + c, .5) - stats.binom.pmf(min(b, c), b + c, .5)
                         if b != c else 1 - .5 * stats.binom.pmf(b, 2 * b, .5)]
                        for b, c in [(10, 20), (100, 140), (15, 15), (1000, 1100), (0, 25), (13, 12)]]


def tango(n, b, c, d):
    """The score statistic, the probability of a loss being found by maximising the trinomial likelihood."""
    low, high = max(0.0, -d) + 1e-15, (1 - d) / 2 - 1e-15
    def minus(q):
        return -(b * math.log(q + d) + c * math.log(q) + (n - b - c) * math.log(max(1 - 2 * q - d, 1e-300)))
    q = optimize.minimize_scalar(minus, bounds=(low, high), method="bounded", options={"xatol": 1e-14}).x
    # The likelihood is flat at its top: the root of its slope is sharper.
    slope = lambda q: b / (q + d) + c / q - 2 * (n - b - c) / (1 - 2 * q - d)
    try:
        q = optimize.brentq(slope, max(low, q - 1e-4), min(high, q + 1e-4), xtol=1e-16, rtol=1e-15)
    except ValueError:
        pass
    return (b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


out["tango"] = [[n, b, c, d, tango(n, b, c, d)]
                for n, b, c in [(100, 9, 3), (1000, 40, 52), (541, 30, 30)] for d in [-.1, -.02, -.01, .01, .03, .1]]
out["tango_interval"] = [
    [n, b, c, z, optimize.brentq(lambda d: tango(n, b, c, d) - stats.norm.ppf((1 + z) / 2), -.5, (b - c) / n - 1e-9, xtol=1e-14),
     optimize.brentq(lambda d: tango(n, b, c, d) + stats.norm.ppf((1 + z) / 2), (b - c) / n + 1e-9, .5, xtol=1e-14)]
    for n, b, c in [(100, 9, 3), (1000, 40, 52), (541, 30, 33)] for z in [.9, .95]]

# Continuous scores: paired t-test, interval, two one-sided tests; with clusters as OLS on a constant has it.
out["mean"] = []
for n, shift in [(5, .0), (27, .1), (80, .02), (400, -.05)]:
    values = np.round(rng.normal(shift, .3, n), 3)
    clusters = np.sort(rng.integers(0, max(2, n // 4), n))
    test = stats.ttest_1samp(values, 0)
    ols = OLS(values, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": True}, use_t=True)
    degrees = len(set(clusters)) - 1
    sheet = DescrStatsW(values)
    margin = .1
    out["mean"].append(dict(
        values=values.tolist(), clusters=clusters.tolist(), margin=margin,
        mean=values.mean(), standard_error=stats.sem(values), p=test.pvalue, interval=list(test.confidence_interval(.95)),
        non_inferiority_p=stats.ttest_1samp(values, -margin, alternative="greater").pvalue,
        equivalence_p=sheet.ttost_mean(-margin, margin)[0],
        cluster_error=ols.bse[0], cluster_degrees=degrees,
        cluster_p=2 * stats.t.sf(abs(values.mean() / ols.bse[0]), degrees),
        cluster_interval=[values.mean() - stats.t.ppf(.975, degrees) * ols.bse[0],
                          values.mean() + stats.t.ppf(.975, degrees) * ols.bse[0]]))

out["multiple"] = []
for m in [1, 2, 4, 9, 40]:
    p = np.round(rng.beta(.4, 2, m), 5)
    if m > 4:
        p[1] = p[3]
    out["multiple"].append(dict(p=p.tolist(), holm=multipletests(p, method="holm")[1].tolist(),
                                benjamini_hochberg=multipletests(p, method="fdr_bh")[1].tolist()))

level, power = stats.norm.ppf(.975), stats.norm.ppf(.8)


def connor(n, share):
    return optimize.brentq(lambda d: math.sqrt(n) * d - level * math.sqrt(share) - power * math.sqrt(share - d * d), 0,
                           share, xtol=1e-15)


out["detectable"] = [[n, s, connor(n, s)] for n in [164, 541, 1319, 14042] for s in [.1, .25, .6]]


def effect(n, ratio):
    """The effect that a z-test shows with a chance of 80 %; solve_power itself stops after seven digits."""
    z_test = NormalIndPower(ddof=0)
    return optimize.brentq(lambda d: z_test.power(d, n, .025, ratio=ratio, alternative="larger") - .8, 1e-9, 10, xtol=1e-15)


out["detectable_unpaired"] = [[n, m, p, effect(n, m / n) * math.sqrt(p * (1 - p))]
                              for n, m in [(164, 164), (1319, 500), (10042, 10042)] for p in [.5, .3]]
out["detectable_mean"] = [[n, s, effect(n, 0) * s] for n in [80, 1000] for s in [.2, 1.5]]

out["correlation"] = []
for n in [3, 12, 80, 600]:
    x = np.round(rng.normal(0, 1, n), 1 if n > 12 else 3)
    y = np.round(.4 * x + rng.normal(0, 1, n), 1 if n > 12 else 3)
    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    out["correlation"].append(dict(x=x.tolist(), y=y.tolist(), pearson=[pearson.statistic, pearson.pvalue],
                                   spearman=[spearman.statistic, spearman.pvalue]))

out["kappa"] = []
for n, k in [(20, 2), (80, 3), (300, 5)]:
    a = rng.integers(0, k, n)
    b = np.where(rng.random(n) < .6, a, rng.integers(0, k, n))
    table = np.zeros((k, k))
    for i, j in zip(a, b):
        table[i, j] += 1
    case = dict(first=a.tolist(), second=b.tolist(), categories=k)
    for name, weights in [("equal", None), ("linear", np.arange(k)), ("quadratic", np.arange(k))]:
        kinds = dict(wt=None) if weights is None else dict(wt="linear" if name == "linear" else "quadratic")
        result = cohens_kappa(table, **kinds)
        case[name] = [float(result.kappa), float(result.std_kappa)]
    out["kappa"].append(case)


def alpha(units, distance):
    """Krippendorff's alpha as the mean distance within units over that of all pairs of ratings."""
    units = [u for u in units if len(u) > 1]
    pooled = [v for u in units for v in u]
    n = len(pooled)
    within = sum(distance(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)) / n
    among = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (n * (n - 1))
    return 1 - within / among


out["alpha"] = []
# The example of Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: .743, .815 and .849.
example = [[1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4], [1, 1, 2, 1],
           [2, 2, 2, 2], [5, 5, 5], [1, 1], [3]]
scores = [[float(v) for v in np.clip(rng.integers(1, 11) + rng.integers(-1, 2, rng.integers(1, 5)), 1, 10)] for _ in range(60)]
for units in [example, scores]:
    pooled = [v for u in units if len(u) > 1 for v in u]
    ordinal = lambda a, b: (sum(min(a, b) <= v <= max(a, b) for v in pooled)
                            - (pooled.count(a) + pooled.count(b)) / 2) ** 2
    out["alpha"].append(dict(units=units, nominal=alpha(units, lambda a, b: float(a != b)), ordinal=alpha(units, ordinal),
                             interval=alpha(units, lambda a, b: (a - b) ** 2)))

out["bootstrap"] = []
for values in [[0.0] * 20 + [1.0, 2.0, 4.0, 8.0, 16.0], [0.0] * 80 + [1.0] * 14 + [-1.0] * 6,
               np.round(rng.exponential(1, 60), 3).tolist()]:
    case = dict(values=values)
    for name, method in [("percentile", "percentile"), ("bca", "BCa")]:
        result = stats.bootstrap((np.array(values),), np.mean, n_resamples=400_000, method=method, batch=1000,
                                 rng=np.random.default_rng(1))
        case[name] = list(result.confidence_interval)
        case["standard_error"] = float(result.standard_error)
    out["bootstrap"].append(case)


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


print("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(plain(value))}" for key, value in out.items()) + "\n}")
