"""Is a difference real? Exact tests by prompt, and intervals that exclude zero only where such a test agrees.

The bootstrap collapses when all differences agree: of two prompts that moved the same way, every replicate moved that
way too. So a verdict needs two things here: an interval that excludes zero, and an exact test by prompt. Both are put
into one interval, which is widened to hold zero where the test does not agree; the p value that is given beside it is
below 0.05 exactly where the interval excludes zero. `bench/verdicts.py` measures how often a verdict is false.
Letters: C comparisons, P prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from plaudit.measure.intervals import (
    FEWEST_EXCEPTIONS,
    LEVEL,
    Floats,
    Interval,
    Ints,
    exact_interval,
    percentile_interval,
    resample_sums,
    sum_by_cluster,
)

ALPHA = 1 - LEVEL

STEPS = 64
"""Values that lie on no grid are rounded to this many steps for the sign-flip test."""

FEW_VALUES = 64
"""With more prompts than this, the mean of continuous values rests on its interval alone."""

SPARE = 0.9
"""Of the chance that an interval may miss, skewed values use this much: the reach itself is a simulated figure."""

_MOST_EXACT = 2_000_000
_SAMPLES, _DRAWN, _MANY = 4_000, 1_000_000, 4_000
"""Sampled coefficients of variation, values drawn for them in all, and prompts beyond which Student's reach will do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedMean:
    """The mean of paired differences over comparisons, its 95% interval by prompt, and the p value of no difference.

    `prompts` have a comparison; `discordant` of them have differences that do not cancel. Only these are evidence.
    """

    mean: float
    interval: Interval | None
    p: float
    prompts: int
    discordant: int


def fewest_discordant(num_tests: int = 1) -> int:
    """The fewest discordant prompts with which a sign test can reject at 5%, shared among `num_tests` tests."""
    return math.ceil(math.log2(2 * num_tests / ALPHA))


def say_too_few(discordant: int, *, num_tests: int = 1) -> str:
    """A sentence that says how much evidence is missing; empty where there could be enough."""
    needed = fewest_discordant(num_tests)
    if discordant >= needed:
        return ""
    prompts = "discordant prompt" if discordant == 1 else "discordant prompts"
    return f"not enough evidence: {discordant} {prompts}; at least {needed} are needed"


def sign_flip_p(weight_P: Ints) -> float:
    """Exact two-sided p of the sum of the weights, if every weight were as likely to have the other sign.

    With equal weights it is McNemar's exact test. With others it is the same test on prompts that count differently.
    """
    size_P = np.abs(weight_P[weight_P != 0]).astype(np.int64)
    if not len(size_P):
        return 1.0
    size_P //= np.gcd.reduce(size_P)
    divisor = int(np.gcd.reduce(np.abs(weight_P[weight_P != 0])))
    observed, total = abs(int(weight_P.sum())) // divisor, int(size_P.sum())
    if not observed:
        return 1.0
    if total > _MOST_EXACT:
        return float(2 * special.ndtr(-observed / math.sqrt(float((size_P.astype(np.float64) ** 2).sum()))))
    # The characteristic function of a sum of independent +-w is a product of cosines; its inverse transform on a grid
    # that is longer than the range of the sum is the distribution itself.
    length = 2 * total + 2
    angle = 2 * np.pi / length * np.arange(length // 2 + 1)
    transform = np.ones(len(angle))
    for size, count in zip(*np.unique(size_P, return_counts=True), strict=True):
        transform *= np.cos(angle * size) ** count
    share = np.fft.irfft(transform, length)
    p = 2 * float(share[observed : total + 1].sum())
    # Rounding of the transform is about 1e-16; no sum is rarer than all signs alike.
    return min(max(p, 2.0 ** (1 - len(size_P))), 1.0)


def paired_mean(value_C: Floats, cluster_C: Ints, *, seed: int) -> PairedMean:
    """Of differences of right and wrong: values between -1 and 1 in steps of a half; at least one comparison.

    The interval is the hull of the bootstrap by prompt and of the exact interval of the share of discordant prompts
    that favour either side.
    """
    sums_PK = sum_by_cluster(np.stack([value_C, np.ones(len(value_C))], axis=1), cluster_C)
    sum_P, num_P = sums_PK[:, 0], len(sums_PK)
    p = sign_flip_p(np.rint(2 * sum_P).astype(np.int64))
    mean, discordant = float(value_C.mean()), int((np.abs(sum_P) > 0.25).sum())
    if num_P < 2:
        return PairedMean(mean=mean, interval=None, p=p, prompts=num_P, discordant=discordant)
    total_BK = resample_sums(np.stack([value_C, np.ones(len(value_C))], axis=1), cluster_C, seed=seed)
    drawn_B = total_BK[:, 0] / total_BK[:, 1]
    low, high = _hull(percentile_interval(drawn_B, num_P), _conditional_interval(sum_P, len(value_C)))
    if p >= ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    elif low <= 0 <= high:
        p = ALPHA  # the sign-flip test alone would reject; the two together do not
    return PairedMean(mean=mean, interval=(low, high), p=p, prompts=num_P, discordant=discordant)


def _hull(first: Interval | None, second: Interval) -> Interval:
    return second if first is None else (min(first[0], second[0]), max(first[1], second[1]))


def _conditional_interval(sum_P: Floats, num_C: int) -> Interval:
    """Of the mean: Clopper and Pearson's interval of the share of discordant weight on the positive side, rescaled.

    Prompts of unequal weight count as the smaller number of equal ones that varies as much. Where few prompts are
    discordant their share is uncertain too.
    """
    num_P, size_P = len(sum_P), np.abs(sum_P[np.abs(sum_P) > 0.25])
    if not len(size_P):
        most = exact_interval(0, num_P)[1]
        return -most, most
    weight = float(size_P.sum())
    effective = weight**2 / float((size_P**2).sum())
    low, high = exact_interval((1 + float(sum_P.sum()) / weight) / 2 * effective, effective)
    least = most = weight / num_C
    if len(size_P) < FEWEST_EXCEPTIONS:
        share = len(size_P) / num_P
        least, most = (min(weight / num_C * end / share, 1.0) for end in exact_interval(len(size_P), num_P))
    # The mean is the discordant weight times a number between -1 and 1: the greater weight is the farther from zero.
    low, high = 2 * low - 1, 2 * high - 1
    return low * (most if low < 0 else least), high * (most if high > 0 else least)


def skew_proof_interval(value_P: Floats, *, num_tests: float = 1.0) -> Interval | None:
    """Of the mean of a value a prompt, at 95% for `num_tests` of them together; None of a single prompt.

    It is as wide as shifts need that are as skewed as an exponential distribution, to either side, and holds zero
    where the sign-flip test of few prompts does not agree.
    """
    num_P = len(value_P)
    if num_P < 2:
        return None
    mean = float(value_P.mean())
    half = skew_proof_reach(num_P, ALPHA / num_tests) * float(value_P.std(ddof=1)) / math.sqrt(num_P)
    low, high = mean - half, mean + half
    is_few = int((value_P != 0).sum()) <= FEW_VALUES
    if is_few and not low <= 0 <= high and _flip_values(value_P) >= ALPHA / num_tests:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def _flip_values(value_P: Floats) -> float:
    most = float(np.abs(value_P).max())
    return sign_flip_p(np.rint(value_P / most * STEPS).astype(np.int64)) if most else 1.0


@lru_cache(maxsize=4096)
def skew_proof_reach(num_prompts: int, miss: float) -> float:
    """Standard errors to either side of the mean that miss the true mean with a chance of `miss` at most.

    Student's, or more where that is too little for values as skewed as an exponential distribution. Mean and
    coefficient of variation of exponential values are independent, so given the latter the tails of the t statistic are
    those of a gamma distribution; they are averaged over sampled coefficients of variation.
    """
    student = float(-special.stdtrit(num_prompts - 1, miss / 2))
    if num_prompts > _MANY:
        return student
    step_S = _sample_variation(num_prompts) / math.sqrt(num_prompts)

    def excess(reach: float) -> float:
        below_S = special.gammainc(num_prompts, num_prompts / (1 + reach * step_S))
        room_S = np.maximum(1 - reach * step_S, 1e-12)
        above_S = special.gammaincc(num_prompts, num_prompts / room_S)
        return math.log(max(float((below_S + above_S).mean()), 1e-300) / (SPARE * miss))

    if excess(student) <= 0:
        return student
    high = 2 * student
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, student, high, rtol=1e-6))


@lru_cache(maxsize=64)
def _sample_variation(num_prompts: int) -> Floats:
    """Coefficients of variation of so many exponential values."""
    size = min(_SAMPLES, _DRAWN // num_prompts), num_prompts
    value_SP = np.random.default_rng([num_prompts, 7]).exponential(size=size)
    return np.asarray(value_SP.std(axis=1, ddof=1) / value_SP.mean(axis=1), dtype=np.float64)


def effective_tests(value_BN: Floats) -> float:
    """How many independent tests it amounts to, if the best of these columns is tested: by their joint bootstrap.

    The first row is the measured one, the others are replicates.
    """
    spread_N = value_BN[1:].std(axis=0)
    varies_N = spread_N > 0
    if not varies_N.any():
        return 1.0
    off_BN = np.abs(value_BN[1:, varies_N] - value_BN[:1, varies_N]) / spread_N[varies_N]
    single = 2 * float(special.ndtr(-np.quantile(off_BN.max(axis=1), LEVEL)))
    return float(np.clip(ALPHA / single, 1.0, varies_N.sum())) if single else float(varies_N.sum())
