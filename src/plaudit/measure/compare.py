"""Two scorers on the same comparisons: which is better, how sure that is, and where they part.

Stands on `accuracy` and `significance`. Both are judged on the comparisons that both have scores for, and on the same
draws of prompts, so what is hard for both cancels. Invariant: swapping the two swaps every sign and nothing else; `p`
is below 0.05 exactly where the interval excludes zero.
Letters: C measured comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from plaudit.measure.accuracy import are_scored, count_right
from plaudit.measure.intervals import Bools, Floats, Interval, Ints
from plaudit.measure.record import Record
from plaudit.measure.significance import paired_mean
from plaudit.measure.table import Table

MOST_DISAGREEMENTS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement(Record):
    """A comparison that one has right and the other wrong: completions `better` and `worse` of Group number `group`.

    `a` and `b` are the gaps of better over worse in units of each one's own spread of gaps.
    """

    group: int
    better: int
    worse: int
    id: str | None
    subset: str
    a: float
    b: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference(Record):
    """Accuracy of the second minus that of the first, on `n` comparisons; `n` 0 and None where there is none.

    `p` is that of no difference, by prompt. On `discordant_prompts` the two are not equally often right.
    """

    n: int
    difference: float | None
    difference_ci: Interval | None
    p: float
    discordant_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparing(Record):
    """How scorer b differs from scorer a on `n` comparisons of `prompts` prompts; `unscored` lack a score of either.

    `agree` is the share that both order alike. `p` is that of no difference, by prompt, as the interval is. McNemar's
    test is over the comparisons that one has right and the other not, its exact p and the mid-p, which is less
    cautious; it takes comparisons as independent, so with several of a prompt it can be too sure. `disagreements` are
    the widest, as many of either kind as there are.
    """

    n: int
    prompts: int
    unscored: int
    accuracy_a: float | None
    accuracy_b: float | None
    difference: float | None
    difference_ci: Interval | None
    p: float
    discordant_prompts: int
    only_a_right: int
    only_b_right: int
    agree: float | None
    mcnemar_p: float
    mcnemar_mid_p: float
    subsets: Mapping[str, Difference]
    disagreements: tuple[Disagreement, ...]


def compare_scores(table: Table, scores_a: Floats, scores_b: Floats, *, keep: int = MOST_DISAGREEMENTS) -> Comparing:
    """How the second scores differ from the first, one score a completion of the table each, nan for none."""
    plain_C = ~table.is_tie_C
    measured = np.flatnonzero(plain_C & are_scored(table, scores_a) & are_scored(table, scores_b))
    right_a, right_b = count_right(table, scores_a, measured), count_right(table, scores_b, measured)
    prompt_C, subset_C = table.prompt_C[measured], table.subset_C[measured]
    everything = _differ(right_a, right_b, prompt_C, np.ones(len(measured), dtype=np.bool_), table.seed)
    only_a, only_b = int((right_a > right_b).sum()), int((right_b > right_a).sum())
    exact, mid = measure_mcnemar(only_a, only_b)
    return Comparing(
        n=len(measured),
        prompts=len(np.unique(prompt_C)),
        unscored=int(plain_C.sum()) - len(measured),
        accuracy_a=float(right_a.mean()) if len(measured) else None,
        accuracy_b=float(right_b.mean()) if len(measured) else None,
        difference=everything.difference,
        difference_ci=everything.difference_ci,
        p=everything.p,
        discordant_prompts=everything.discordant_prompts,
        only_a_right=only_a,
        only_b_right=only_b,
        agree=float((right_a == right_b).mean()) if len(measured) else None,
        mcnemar_p=exact,
        mcnemar_mid_p=mid,
        subsets={
            name: _differ(right_a, right_b, prompt_C, subset_C == code, table.seed)
            for code, name in enumerate(table.subsets)
        },
        disagreements=_find_disagreements(table, scores_a, scores_b, measured, keep),
    )


def measure_mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """Exact two-sided p of McNemar's test, and mid-p: are the two kinds of disagreement equally frequent?"""
    total, fewer = only_a + only_b, min(only_a, only_b)
    if not total:
        return 1.0, 1.0
    at_most = float(special.bdtr(fewer, total, 0.5))
    exactly = at_most - (float(special.bdtr(fewer - 1, total, 0.5)) if fewer else 0.0)
    return min(2 * at_most, 1.0), min(2 * at_most - exactly, 1.0)


def _differ(right_a: Floats, right_b: Floats, prompt_C: Ints, which_C: Bools, seed: int) -> Difference:
    """Of the comparisons asked for."""
    if not which_C.any():
        return Difference(n=0, difference=None, difference_ci=None, p=1.0, discordant_prompts=0)
    found = paired_mean((right_b - right_a)[which_C], prompt_C[which_C], seed=seed)
    return Difference(
        n=int(which_C.sum()),
        difference=found.mean,
        difference_ci=found.interval,
        p=found.p,
        discordant_prompts=found.discordant,
    )


def _find_disagreements(
    table: Table, scores_a: Floats, scores_b: Floats, measured: Ints, keep: int
) -> tuple[Disagreement, ...]:
    """The widest of those that only a has right, and of those that only b has right."""
    better, worse = table.better_C[measured], table.worse_C[measured]
    gaps = []
    for scores in (scores_a, scores_b):
        gap_C = scores[better] - scores[worse]
        spread = float(np.sqrt((gap_C**2).mean())) if len(gap_C) else 1.0
        gaps.append(gap_C / (spread or 1.0))
    a_C, b_C = gaps
    found = []
    for first_C, other_C in ((a_C, b_C), (b_C, a_C)):
        parted = np.flatnonzero((first_C > 0) & (other_C < 0))
        widest = parted[np.argsort((other_C - first_C)[parted], kind="stable")][: keep // 2]
        found += [int(c) for c in widest]
    group_C = table.group_C[measured]
    return tuple(
        Disagreement(
            group=int(group_C[c]),
            better=int(better[c] - table.start_G[group_C[c]]),
            worse=int(worse[c] - table.start_G[group_C[c]]),
            id=table.id_G[group_C[c]],
            subset=table.subsets[table.subset_G[group_C[c]]],
            a=float(a_C[c]),
            b=float(b_C[c]),
        )
        for c in found
    )
