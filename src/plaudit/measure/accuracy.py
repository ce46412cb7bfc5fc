"""How often the better completion has the higher score, how sure that is, and what is not in the figure.

Stands on `table` and `intervals`. Every comparison counts once; equal scores are half right; labelled ties and
comparisons with an unscored completion are counted apart and are in no accuracy. Intervals are by prompt. Invariant:
n + ties + unscored is the number of comparisons that were asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plaudit.measure.intervals import FEW_PROMPTS, Bools, Floats, Interval, Ints, rate_interval
from plaudit.measure.record import Record
from plaudit.measure.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy(Record):
    """A share of right comparisons; None of nothing.

    `n` comparisons of `prompts` prompts were measured, `score_ties` of them with equal scores. `ties` are labelled
    ties, `unscored` lacks a score on one side or both: neither is among the n.
    """

    accuracy: float | None
    accuracy_ci: Interval | None
    n: int
    prompts: int
    ties: int
    score_ties: int
    unscored: int

    @property
    def caution(self) -> str | None:
        """What to say beside the interval, if anything."""
        if not 0 < self.prompts < FEW_PROMPTS:
            return None
        return f"the interval rests on {self.prompts} prompts, and is no more than a hint"


def measure_accuracy(table: Table, *, scores: Floats | None = None, mask: Bools | None = None) -> Accuracy:
    """Accuracy of the table's scores, or of other `scores_N`, on the comparisons of `mask_C`, or on all."""
    score_N = table.score_N if scores is None else scores
    asked_C = np.ones(len(table.better_C), dtype=np.bool_) if mask is None else mask
    plain_C = asked_C & ~table.is_tie_C
    measured_C = plain_C & are_scored(table, score_N)
    right_C = count_right(table, score_N, measured_C)
    prompt_C = table.prompt_C[measured_C]
    return Accuracy(
        accuracy=float(right_C.mean()) if len(right_C) else None,
        accuracy_ci=rate_interval(right_C, prompt_C, seed=table.seed),
        n=len(right_C),
        prompts=len(np.unique(prompt_C)),
        ties=int((asked_C & table.is_tie_C).sum()),
        score_ties=int((right_C == 0.5).sum()),
        unscored=int((plain_C & ~measured_C).sum()),
    )


def find_measured(table: Table, score_N: Floats) -> Ints:
    """The numbers of the comparisons that say which one is better, and have both scores."""
    return np.flatnonzero(~table.is_tie_C & are_scored(table, score_N))


def are_scored(table: Table, score_N: Floats) -> Bools:
    """Whether both sides of a comparison have a score."""
    scored: Bools = ~np.isnan(score_N[table.better_C]) & ~np.isnan(score_N[table.worse_C])
    return scored


def count_right(table: Table, score_N: Floats, which_C: Bools | Ints) -> Floats:
    """1 where the better one's score is higher, 0 where the worse one's, a half where they are equal."""
    right: Floats = (np.sign(score_N[table.better_C[which_C]] - score_N[table.worse_C[which_C]]) + 1) / 2
    return right
