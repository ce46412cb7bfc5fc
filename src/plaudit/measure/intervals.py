"""How sure a figure is: 95% intervals from resampled prompts.

Stands on numpy and scipy alone. Comparisons of one prompt share what makes them easy or hard, so it is prompts that are
drawn anew, with all their comparisons. What is drawn is sums: a statistic is a function of them, so one drawing serves
every statistic of the same prompts, and two scorers are compared on the same draws. Invariant: the same data and seed
give the same interval, and a figure between 0 and 1 never has an interval of no width.
Letters: B replicates, P clusters, K sums, C what is summed over.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Interval = tuple[float, float]

LEVEL = 0.95
REPLICATES = 2_000
MOST_CLUSTERS = 4_096
"""More prompts than this are drawn in bundles: a bundle's sum varies as its prompts' do, and the work is bounded."""

FEW_PROMPTS = 10
"""Below this, an interval is a hint."""

FEWEST_EXCEPTIONS = 10
"""Draws of prompts that are nearly all right, or all wrong, know nothing of the other kind: below this, binomial."""

_ROWS = 128


def resample_sums(sum_CK: Floats, cluster_C: Ints, *, seed: int) -> Floats:
    """Sums of the columns over clusters that are drawn anew, with replacement: a replicate a row."""
    sum_PK = sum_by_cluster(sum_CK, cluster_C, most=MOST_CLUSTERS, seed=seed)
    num_P, num_K = sum_PK.shape
    rng = np.random.default_rng([seed, 1])
    total_BK = np.empty((REPLICATES, num_K))
    for start in range(0, REPLICATES, _ROWS):
        rows = min(_ROWS, REPLICATES - start)
        drawn = rng.integers(0, num_P, (rows, num_P)) + num_P * np.arange(rows)[:, None]
        weight_BP = np.bincount(drawn.ravel(), minlength=rows * num_P).reshape(rows, num_P)
        total_BK[start : start + rows] = weight_BP.astype(np.float64) @ sum_PK
    return total_BK


def sum_by_cluster(sum_CK: Floats, cluster_C: Ints, *, most: int | None = None, seed: int = 0) -> Floats:
    """The columns summed by cluster, in the order of the clusters' numbers; or in at most `most` bundles of them."""
    names, place_C = np.unique(cluster_C, return_inverse=True)
    num_P = len(names)
    if most is not None and num_P > most:
        place_C = np.random.default_rng([seed, 0]).permutation(num_P)[place_C] % most
        num_P = most
    return np.stack([np.bincount(place_C, weights=column, minlength=num_P) for column in sum_CK.T], axis=1)


def assign_folds(prompt_N: Ints, num_folds: int, *, seed: int) -> Ints:
    """A fold for each, by prompt: folds are as even as they can be, and no prompt is in two."""
    names, place_N = np.unique(prompt_N, return_inverse=True)
    fold_P = np.random.default_rng([seed, 2]).permutation(len(names)) % num_folds
    folds: Ints = fold_P[place_N]
    return folds


def percentile_interval(value_B: Floats, num_prompts: int) -> Interval | None:
    """The middle 95% of the replicates; of few prompts a little more, as Student's t has it. None of less than two."""
    finite_B = value_B[np.isfinite(value_B)]
    if num_prompts < 2 or not len(finite_B):
        return None
    # Draws of n things vary less than samples do, by (n-1)/n, and n things tell their own spread only roughly.
    reach = -special.stdtrit(num_prompts - 1, (1 - LEVEL) / 2) * math.sqrt(num_prompts / (num_prompts - 1))
    tail = float(special.ndtr(-reach))
    low, high = np.quantile(finite_B, [tail, 1 - tail])
    return float(low), float(high)


def ratio_interval(top_C: Floats, bottom_C: Floats, cluster_C: Ints, *, seed: int) -> Interval | None:
    """Of the sum of one thing over the sum of another."""
    total_BK = resample_sums(np.stack([top_C, bottom_C], axis=1), cluster_C, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        return percentile_interval(total_BK[:, 0] / total_BK[:, 1], len(np.unique(cluster_C)))


def mean_interval(value_C: Floats, cluster_C: Ints, *, seed: int) -> Interval | None:
    """Of a mean over all C."""
    return ratio_interval(value_C, np.ones(len(value_C)), cluster_C, seed=seed)


def rate_interval(value_C: Floats, cluster_C: Ints, *, seed: int) -> Interval | None:
    """Of a mean of values between 0 and 1; None of nothing.

    Where fewer than ten prompts have anything but 1, or anything but 0, it is the exact binomial interval of as many
    trials as there are prompts.
    """
    if not len(value_C):
        return None
    sums_PK = sum_by_cluster(np.stack([value_C, np.ones(len(value_C))], axis=1), cluster_C)
    num_P = len(sums_PK)
    exceptions = min(int((sums_PK[:, 0] < sums_PK[:, 1]).sum()), int((sums_PK[:, 0] > 0).sum()))
    if exceptions < FEWEST_EXCEPTIONS:
        return exact_interval(float(value_C.mean()) * num_P, num_P)
    return mean_interval(value_C, cluster_C, seed=seed)


def exact_interval(successes: float, trials: float) -> Interval:
    """Clopper and Pearson's binomial interval."""
    tail = (1 - LEVEL) / 2
    low = float(special.betaincinv(successes, trials - successes + 1, tail)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return low, high
