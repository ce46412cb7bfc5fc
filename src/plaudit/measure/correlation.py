"""Does the score go with length, with lists, with headings, with bold? Within prompts, where nothing else explains it.

Stands on `table` and `intervals`. A long question has long answers, and may have good ones: so every value is taken as
its distance from the mean of its prompt, and the correlation is over these. By rank, it is the ranks within a prompt
that are correlated. Invariant: a prompt whose answers have one score, or one length, says nothing and changes nothing
but the other's spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from plaudit.measure.intervals import Floats, Interval, Ints, percentile_interval, resample_sums
from plaudit.measure.record import Record
from plaudit.measure.table import Table

STYLES = ("lists", "headings", "bold")


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation(Record):
    """Pearson's, and Spearman's of ranks, within prompts; None where one of the two does not vary.

    `n` scored completions of `prompts` prompts that have at least two of them.
    """

    correlation: float | None
    correlation_ci: Interval | None
    spearman: float | None
    spearman_ci: Interval | None
    n: int
    prompts: int


def measure_length(
    table: Table, *, scores: Floats | None = None, unit: Literal["characters", "tokens"] = "characters"
) -> Correlation:
    """Of score with length; a completion whose tokens are not known is left out of what is measured in tokens."""
    length_N = table.tokens_N if unit == "tokens" else table.length_N.astype(np.float64)
    return correlate_within(table.score_N if scores is None else scores, length_N, table.prompt_N, seed=table.seed)


def measure_style(table: Table) -> dict[str, Correlation]:
    """Of score with the number of list items, of headings, and of bold passages."""
    amounts = {"lists": table.lists_N, "headings": table.headings_N, "bold": table.bold_N}
    return {
        name: correlate_within(table.score_N, amounts[name].astype(np.float64), table.prompt_N, seed=table.seed)
        for name in STYLES
    }


def correlate_within(x_N: Floats, y_N: Floats, prompt_N: Ints, *, seed: int) -> Correlation:
    """Pooled correlation of two things within prompts, where both are known."""
    known_N = np.isfinite(x_N) & np.isfinite(y_N)
    _, place_N, size_P = np.unique(prompt_N[known_N], return_inverse=True, return_counts=True)
    several_N = size_P[place_N] > 1
    x_N, y_N, place_N = x_N[known_N][several_N], y_N[known_N][several_N], place_N[several_N]
    pearson, pearson_ci = _pool(x_N, y_N, place_N, seed)
    spearman, spearman_ci = _pool(rank_within(x_N, place_N), rank_within(y_N, place_N), place_N, seed)
    return Correlation(
        correlation=pearson,
        correlation_ci=pearson_ci,
        spearman=spearman,
        spearman_ci=spearman_ci,
        n=len(x_N),
        prompts=int((size_P > 1).sum()),
    )


def rank_within(value_N: Floats, place_N: Ints) -> Floats:
    """The rank of each value among those of its place, from 1; equal values share the mean of their ranks."""
    return share_positions(value_N, place_N, lambda position: (position + 1).astype(np.float64))


def share_positions(value_N: Floats, place_N: Ints, worth: Callable[[Ints], Floats]) -> Floats:
    """What each one's position among those of its place is worth, lowest value first; equal values share evenly."""
    order_N = np.lexsort((value_N, place_N))
    value, place = value_N[order_N], place_N[order_N]
    begins = np.ones(len(value), dtype=np.bool_)
    begins[1:] = place[1:] != place[:-1]
    differs = begins.copy()
    differs[1:] |= value[1:] != value[:-1]
    position = np.arange(len(value)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    block = np.cumsum(differs) - 1
    worth_N = np.empty(len(value))
    worth_N[order_N] = (np.bincount(block, weights=worth(position)) / np.bincount(block))[block]
    return worth_N


def _center(value_N: Floats, place_N: Ints) -> Floats:
    """Distances from the mean of the place."""
    count_P = np.maximum(np.bincount(place_N), 1)
    centered: Floats = value_N - (np.bincount(place_N, weights=value_N) / count_P)[place_N]
    return centered


def _pool(x_N: Floats, y_N: Floats, place_N: Ints, seed: int) -> tuple[float | None, Interval | None]:
    if not len(x_N):
        return None, None
    # Below the rounding of the means, a spread is none.
    least = [1e-24 * float((value_N**2).sum()) for value_N in (x_N, y_N)]
    x_N, y_N = _center(x_N, place_N), _center(y_N, place_N)
    products_NK = np.stack([x_N * y_N, x_N**2, y_N**2], axis=1)
    xy, xx, yy = products_NK.sum(axis=0)
    if xx <= least[0] or yy <= least[1]:
        return None, None
    drawn_BK = np.maximum(resample_sums(products_NK, place_N, seed=seed), [-np.inf, 0.0, 0.0])
    with np.errstate(invalid="ignore", divide="ignore"):
        found_B = drawn_BK[:, 0] / np.sqrt(drawn_BK[:, 1] * drawn_BK[:, 2])
    interval = percentile_interval(found_B, len(np.unique(place_N)))
    return float(xy / np.sqrt(xx * yy)), interval and (max(interval[0], -1.0), min(interval[1], 1.0))
