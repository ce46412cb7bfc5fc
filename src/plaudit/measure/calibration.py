"""Is a gap of two scores what it says? Read as log odds, it names a probability that one answer is the better one.

Stands on `table`, `intervals` and `accuracy`. A reward model is trained to have sigmoid(gap) be that probability;
whether it is, is asked of comparisons by how sure the scores are. One number, the temperature, makes gaps too large or
too small right on the whole. Labelled ties and unscored comparisons are in none of the figures. Invariant: the error
that is left after the temperature is measured on prompts that it was not fitted on.
Letters: C measured comparisons, B bins, S resampled replicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from plaudit.measure.accuracy import find_measured
from plaudit.measure.intervals import (
    LEVEL,
    Floats,
    Interval,
    Ints,
    assign_folds,
    mean_interval,
    percentile_interval,
    rate_interval,
    resample_sums,
    sum_by_cluster,
)
from plaudit.measure.record import Record
from plaudit.measure.table import Table

BINS, FOLDS = 10, 5
HOTTEST = 1e6
"""A temperature beyond this is none: the gaps say nothing, or the wrong thing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityBin(Record):
    """Comparisons whose scores are sure by `low` to `high`: how sure on the mean, and how often they are right."""

    low: float
    high: float
    n: int
    predicted: float
    observed: float
    observed_ci: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration(Record):
    """`n` comparisons. `ece` is the mean distance of sure and right over the bins, the others are of sigmoid(gap).

    `temperature` is what gaps are best divided by, None where no number will do: the scores are all right, or no better
    than chance. `ece_calibrated` and `log_loss_calibrated` are with the temperature of other prompts.
    """

    n: int
    ece: float
    ece_ci: Interval | None
    brier: float
    brier_ci: Interval | None
    log_loss: float
    log_loss_ci: Interval | None
    temperature: float | None
    temperature_ci: Interval | None
    ece_calibrated: float | None
    ece_calibrated_ci: Interval | None
    log_loss_calibrated: float | None
    reliability: tuple[ReliabilityBin, ...]
    reliability_calibrated: tuple[ReliabilityBin, ...]


def measure_calibration(table: Table, *, scores: Floats | None = None) -> Calibration | None:
    """How far sigmoid(gap) can be believed; None where nothing was measured."""
    score_N = table.score_N if scores is None else scores
    measured = find_measured(table, score_N)
    if not len(measured):
        return None
    gap_C = score_N[table.better_C[measured]] - score_N[table.worse_C[measured]]
    prompt_C, seed = table.prompt_C[measured], table.seed
    ece, ece_ci = measure_ece(gap_C, prompt_C, seed=seed)
    # The better one is the first of each comparison: its outcome is 1, and what is missing to 1 is the error.
    brier_C, log_loss_C = special.expit(-gap_C) ** 2, np.logaddexp(0.0, -gap_C)
    temperature, temperature_ci = fit_temperature(gap_C, prompt_C)
    held_C = _cool_held_out(gap_C, prompt_C, seed)
    after, after_ci = (None, None) if held_C is None else measure_ece(held_C, prompt_C, seed=seed)
    return Calibration(
        n=len(gap_C),
        ece=ece,
        ece_ci=ece_ci,
        brier=float(brier_C.mean()),
        brier_ci=mean_interval(brier_C, prompt_C, seed=seed),
        log_loss=float(log_loss_C.mean()),
        log_loss_ci=mean_interval(log_loss_C, prompt_C, seed=seed),
        temperature=temperature,
        temperature_ci=temperature_ci,
        ece_calibrated=after,
        ece_calibrated_ci=after_ci,
        log_loss_calibrated=None if held_C is None else float(np.logaddexp(0.0, -held_C).mean()),
        reliability=draw_reliability(gap_C, prompt_C, seed=seed),
        reliability_calibrated=() if held_C is None else draw_reliability(held_C, prompt_C, seed=seed),
    )


def measure_ece(gap_C: Floats, prompt_C: Ints, *, seed: int) -> tuple[float, Interval | None]:
    """Expected calibration error over ten even bins of how sure the scores are, from 1/2 to 1.

    Chance alone keeps the bins of a perfectly calibrated scorer apart, so the figure is too high, and a replicate's
    twice so. The interval is that of the replicates, moved down by as much; it reaches up to the figure at least, and
    down to 0 where the figure is no more than chance can make it.
    """
    sure_C, right_C, bin_C = _sort_into_bins(gap_C)
    # Observed minus predicted, by bin: their absolute sum is the error, so a replicate is sums again.
    column_CB = np.zeros((len(gap_C), BINS))
    column_CB[np.arange(len(gap_C)), bin_C] = right_C - sure_C
    apart_B = column_CB.sum(axis=0) / len(gap_C)
    ece = float(np.abs(apart_B).sum())
    drawn_SK = resample_sums(np.column_stack([column_CB, np.ones(len(gap_C))]), prompt_C, seed=seed)
    drawn_SB = drawn_SK[:, :BINS] / drawn_SK[:, BINS:]
    found_S, chance_S = np.abs(drawn_SB).sum(axis=1), np.abs(drawn_SB - apart_B).sum(axis=1)
    interval = percentile_interval(found_S, len(np.unique(prompt_C)))
    if interval is None:
        return ece, None
    excess = 2 * max(float(found_S.mean()) - ece, 0.0)
    low = 0.0 if ece <= np.quantile(chance_S, LEVEL) else max(interval[0] - excess, 0.0)
    return ece, (min(low, ece), max(min(interval[1] - excess, 1.0), ece))


def draw_reliability(gap_C: Floats, prompt_C: Ints, *, seed: int) -> tuple[ReliabilityBin, ...]:
    """The bins that hold anything, the least sure first."""
    sure_C, right_C, bin_C = _sort_into_bins(gap_C)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    return tuple(
        ReliabilityBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            n=int(held.sum()),
            predicted=float(sure_C[held].mean()),
            observed=float(right_C[held].mean()),
            observed_ci=rate_interval(right_C[held], prompt_C[held], seed=seed),
        )
        for b in range(BINS)
        if (held := bin_C == b).any()
    )


def fit_temperature(gap_C: Floats, prompt_C: Ints) -> tuple[float | None, Interval | None]:
    """The temperature of the highest likelihood, and how well it is known, comparisons of a prompt going together."""
    spread = float(np.abs(gap_C).mean())
    if not spread or not _slope(gap_C, 1 / (HOTTEST * spread)) > 0 or not (gap_C < 0).any():
        return None, None
    # The likelihood has one peak in the inverse of the temperature, so its slope has one zero.
    high = 1 / spread
    while _slope(gap_C, high) > 0:
        high *= 2
    inverse = float(
        optimize.brentq(lambda beta: _slope(gap_C, beta), 1 / (HOTTEST * spread), high, xtol=1e-12, rtol=1e-10)
    )
    wrong_C = special.expit(-inverse * gap_C)
    curvature = float((wrong_C * (1 - wrong_C) * gap_C**2).sum())
    slope_P = sum_by_cluster((wrong_C * gap_C)[:, None], prompt_C)[:, 0]
    num_P = len(slope_P)
    if num_P < 2 or not curvature > 0:
        return 1 / inverse, None
    error = math.sqrt(float((slope_P**2).sum()) * num_P / (num_P - 1)) / curvature / inverse
    reach = -float(special.stdtrit(num_P - 1, 0.025)) * error
    # Far beyond what any use could tell from infinite; and exp has an end.
    factor = math.exp(min(reach, 50.0))
    return 1 / inverse, (1 / inverse / factor, factor / inverse)


def _slope(gap_C: Floats, inverse: float) -> float:
    """Of the mean log likelihood, along the inverse temperature."""
    return float((special.expit(-inverse * gap_C) * gap_C).mean())


def _cool_held_out(gap_C: Floats, prompt_C: Ints, seed: int) -> Floats | None:
    """Gaps divided by the temperature of the other folds; None where one of those has none."""
    fold_C = assign_folds(prompt_C, FOLDS, seed=seed)
    if len(np.unique(fold_C)) < 2:
        return None
    cooled_C = np.empty(len(gap_C))
    for fold in np.unique(fold_C):
        held_C = fold_C == fold
        temperature, _ = fit_temperature(gap_C[~held_C], prompt_C[~held_C])
        if temperature is None:
            return None
        cooled_C[held_C] = gap_C[held_C] / temperature
    return cooled_C


def _sort_into_bins(gap_C: Floats) -> tuple[Floats, Floats, Ints]:
    """How sure the scores are, whether rightly so, and the bin."""
    sure_C = np.asarray(special.expit(np.abs(gap_C)), dtype=np.float64)
    right_C = (np.sign(gap_C) + 1) / 2
    bin_C = np.minimum(((sure_C - 0.5) * 2 * BINS).astype(np.int64), BINS - 1)
    return sure_C, right_C, bin_C
