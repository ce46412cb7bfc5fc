"""Accuracy in parts: by subset, and by how much longer the better answer is.

Stands on `accuracy` and `baselines`. A figure over all hides a subset where the scorer is worse than the longest
answer, and a scorer that reads only length is right where the better answer is longer and wrong where it is shorter:
both are seen here. Invariant: the parts' comparisons add up to those of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from plaudit.measure.accuracy import Accuracy, measure_accuracy
from plaudit.measure.baselines import Baselines
from plaudit.measure.intervals import Interval
from plaudit.measure.record import Record
from plaudit.measure.table import Table

GAP_EDGES = (-1.0, -0.5, -0.25, -0.1, 0.1, 0.25, 0.5, 1.0)
"""Length of the better minus length of the worse answer, by the longer of the two."""

FEWEST_COMPARISONS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset(Accuracy):
    """One subset's figures, and what each baseline gets on the same comparisons."""

    baselines: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthGap(Record):
    """Comparisons whose better answer is longer, by `low` to `high` of the longer one's length (below 0: shorter)."""

    low: float
    high: float
    n: int
    accuracy: float | None
    accuracy_ci: Interval | None


def measure_subsets(table: Table, *, baselines: Baselines) -> dict[str, Subset]:
    """Accuracy of every subset, by name, in the order in which they came."""
    found = {}
    for code, name in enumerate(table.subsets):
        mask_C = table.subset_C == code
        accuracy = measure_accuracy(table, mask=mask_C)
        figures = {field: getattr(accuracy, field) for field in Accuracy.__slots__}
        found[name] = Subset(**figures, baselines=baselines.accuracies(mask_C))
    return found


def find_worst(subsets: Mapping[str, Subset]) -> str | None:
    """The subset of the lowest accuracy among those with comparisons enough to say so; None where there is one only."""
    enough = {name: s.accuracy for name, s in subsets.items() if s.n >= FEWEST_COMPARISONS and s.accuracy is not None}
    return min(enough, key=lambda name: enough[name]) if len(enough) > 1 else None


def measure_length_gaps(table: Table) -> tuple[LengthGap, ...]:
    """Accuracy by how much longer the better answer is, from much shorter to much longer."""
    better, worse = table.length_N[table.better_C], table.length_N[table.worse_C]
    gap_C = (better - worse) / np.maximum(np.maximum(better, worse), 1)
    place_C = np.clip(np.digitize(gap_C, GAP_EDGES) - 1, 0, len(GAP_EDGES) - 2)
    found = []
    for place, (low, high) in enumerate(pairwise(GAP_EDGES)):
        one = measure_accuracy(table, mask=place_C == place)
        gap = LengthGap(low=low, high=high, n=one.n, accuracy=one.accuracy, accuracy_ci=one.accuracy_ci)
        found.append(gap)
    return tuple(found)
