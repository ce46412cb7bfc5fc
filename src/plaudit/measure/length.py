"""What length is worth to a scorer, and scores without it.

Stands on `table`; numpy only. The worth of a length is a local regression of score on
length (Cleveland's: near answers count more, far-off scores count less), kept as a curve of a few straight pieces. A
corrected score is the raw one minus what its length is worth, plus what a length is worth on the whole. Invariant: a
correction is a function of score and length alone, so it can be stored with a model and computed anywhere; the figures
that `correct_held_out` gives rest on curves that have not seen the prompt they correct.
Letters: N completions, X knots of the curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from plaudit.errors import InputError
from plaudit.measure.intervals import Floats, Ints, assign_folds
from plaudit.measure.record import Record
from plaudit.measure.table import Table

FRACTION, ROUNDS = 0.4, 3
"""The share of all answers that has a say at a knot, and how often those that are far off the curve lose weight."""

MOST_KNOTS, MOST_ANSWERS = 65, 20_000
"""As many answers as are looked at: a curve of a few dozen numbers needs no more."""

FEWEST_ANSWERS, FOLDS = 30, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthFit(Record):
    """What an answer of so many characters scores, as points of a curve: straight between them, level beyond them.

    `mean_score` is the mean of the curve over the `n` answers it was fitted on.
    """

    lengths: tuple[float, ...]
    scores: tuple[float, ...]
    mean_score: float
    n: int

    @overload
    def correct(self, score: float, length: float) -> float: ...
    @overload
    def correct(self, score: Floats, length: Floats | Ints) -> Floats: ...
    def correct(self, score: float | Floats, length: float | Floats | Ints) -> float | Floats:
        """The score, or scores, if all answers were equally long; `length` is in characters of the answer."""
        worth = np.interp(length, self.lengths, self.scores) - self.mean_score
        return float(score - worth) if isinstance(score, int | float) else score - worth

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> LengthFit:
        """Back from its JSON; KeyError, TypeError or ValueError if that is not what `as_json` gives."""
        lengths, scores = (tuple(float(one) for one in found[name]) for name in ("lengths", "scores"))
        numbers = [*lengths, *scores, float(found["mean_score"])]
        if (
            not lengths
            or len(lengths) != len(scores)
            or not np.isfinite(numbers).all()
            or np.any(np.diff(lengths) <= 0)
        ):
            raise ValueError("lengths that rise, and a score for each, were needed")
        return cls(lengths=lengths, scores=scores, mean_score=numbers[-1], n=int(found["n"]))


def fit_length(table: Table) -> LengthFit:
    """The curve of all scored completions."""
    num_scored = table.num_completions - table.num_unscored
    if num_scored < FEWEST_ANSWERS:
        raise InputError(
            f"{num_scored} scored answers came, at least {FEWEST_ANSWERS} were needed to say what length is worth; "
            "measure on more data"
        )
    return _fit(table.score_N, table.length_N, table.seed)


def correct_held_out(table: Table) -> Floats:
    """Scores without what length is worth, each by a curve that was fitted on the other prompts."""
    score_N = table.score_N
    corrected_N = np.full(len(score_N), np.nan)
    fold_N = assign_folds(table.prompt_N, FOLDS, seed=table.seed)
    for fold in np.unique(fold_N):
        held_N = fold_N == fold
        others = np.where(held_N, np.nan, score_N)
        if (~np.isnan(others)).sum() >= FEWEST_ANSWERS:
            corrected_N[held_N] = _fit(others, table.length_N, table.seed).correct(
                score_N[held_N], table.length_N[held_N]
            )
    return corrected_N


def score_per_token(table: Table) -> Floats:
    """Scores divided by the answers' tokens: the other, cruder correction. An answer without tokens has none."""
    tokens_N = np.where(table.tokens_N > 0, table.tokens_N, np.nan)
    per_token: Floats = table.score_N / tokens_N
    return per_token


def _fit(score_N: Floats, length_N: Ints, seed: int) -> LengthFit:
    """The curve of the completions that have a score."""
    there = np.flatnonzero(~np.isnan(score_N))
    if len(there) > MOST_ANSWERS:
        there = np.sort(np.random.default_rng([seed, 3]).choice(there, MOST_ANSWERS, replace=False))
    # Twice as long is as much more at any length, so near and far are by the logarithm.
    order = there[np.argsort(length_N[there], kind="stable")]
    length, score = length_N[order].astype(np.float64), score_N[order]
    knots = np.unique(np.quantile(length, np.linspace(0, 1, MOST_KNOTS), method="nearest"))
    curve = regress_locally(np.log1p(length), score, np.log1p(knots))
    mean_score = float(np.interp(length, knots, curve).mean())
    return LengthFit(lengths=tuple(knots.tolist()), scores=tuple(curve.tolist()), mean_score=mean_score, n=len(order))


def regress_locally(x_N: Floats, y_N: Floats, at_X: Floats) -> Floats:
    """Local linear regression of y on x (rising), at `at_X` (rising, from the first x to the last)."""
    num_near = max(2, min(len(x_N), int(FRACTION * len(x_N) + 1e-10)))
    trust_N = np.ones(len(x_N))
    curve_X = np.empty(0)
    for _ in range(1 + ROUNDS):
        curve_X = np.array([_regress_at(x_N, y_N, trust_N, at, num_near) for at in at_X])
        off_N = np.abs(y_N - np.interp(x_N, at_X, curve_X))
        typical = float(np.median(off_N))
        if typical <= 1e-9 * (float(np.ptp(y_N)) or 1.0):  # where numbers end, both are 0
            break
        trust_N = np.maximum(1 - (off_N / (6 * typical)) ** 2, 0.0) ** 2
    return curve_X


def _regress_at(x_N: Floats, y_N: Floats, trust_N: Floats, at: float, num_near: int) -> float:
    """A straight line through the nearest points, the nearer the heavier; its height at `at`."""
    start = _find_nearest(x_N, at, num_near)
    near = slice(start, start + num_near)
    distance = np.abs(x_N[near] - at)
    reach = float(distance.max())
    # Equal lengths beyond the window have as good a claim, but the window's share of them says the same.
    weight = trust_N[near] * ((1 - (distance / reach) ** 3) ** 3 if reach > 0 else 1.0)
    total = float(weight.sum())
    if total <= 0:
        return float(y_N[near].mean())
    x_mean, y_mean = float(weight @ x_N[near]) / total, float(weight @ y_N[near]) / total
    aside = x_N[near] - x_mean
    spread = float(weight @ aside**2) / total
    if spread <= (1e-3 * (float(x_N[-1] - x_N[0]) or 1.0)) ** 2:
        return y_mean
    return y_mean + (at - x_mean) * float(weight @ (aside * y_N[near])) / total / spread


def _find_nearest(x_N: Floats, at: float, num_near: int) -> int:
    """Where the window of so many nearest points begins: the one that is not farther on its left than on its right."""
    low, high = 0, len(x_N) - num_near
    while low < high:
        middle = (low + high) // 2
        if at - x_N[middle] > x_N[middle + num_near] - at:
            low = middle + 1
        else:
            high = middle
    return low
