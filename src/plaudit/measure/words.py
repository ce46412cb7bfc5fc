"""A scorer that knows only which words an answer has: logistic regression on hashed words, asked about unseen prompts.

Stands on `table` and `intervals`. Swapping two answers swaps the guess, so there is no intercept. What it gets right, a
model can get right without understanding: where the better answers are by one author and the worse by another, that can
be nearly everything. Invariant: no completion is scored by weights that its prompt had a part in.
Letters: C comparisons, N completions, F word codes, W words of all completions, one after the other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse, special

from plaudit.measure.intervals import Floats, Ints, assign_folds
from plaudit.measure.table import WORD_CODES, Table

FOLDS, STEPS = 5, 60
RIDGE = 30.0
"""Of 10, 30 and 100 the one in the middle: on eight public sets no other was better by more than chance."""

MOST_COMPARISONS = 20_000
"""As many are learned from, by lot: more change the figure by less than its interval is wide."""

FEWEST_COMPARISONS, FEWEST_PROMPTS = 100, 10

_CHUNK = 16_384


def score_words(table: Table) -> Floats | None:
    """A score for every completion by weights learned from the other prompts' labels; None where those are too few."""
    plain = np.flatnonzero(~table.is_tie_C)
    if len(plain) < FEWEST_COMPARISONS or len(np.unique(table.prompt_C[plain])) < FEWEST_PROMPTS:
        return None
    fold_G = assign_folds(table.prompt_G, FOLDS, seed=table.seed)
    fold_C, fold_N = fold_G[table.group_C[plain]], fold_G[table.group_N]
    rng = np.random.default_rng([table.seed, 5])
    score_N = np.zeros(table.num_completions)
    for fold in range(FOLDS):
        others = plain[fold_C != fold]
        if len(others) > MOST_COMPARISONS:
            others = np.sort(rng.choice(others, MOST_COMPARISONS, replace=False))
        weight_F = _learn(_build_differences(table, others))
        _add_up(table, np.flatnonzero(fold_N == fold), weight_F, score_N)
    return score_N


def _build_differences(table: Table, which: Ints) -> sparse.csr_array:
    """Words of the better answer minus words of the worse one, a comparison a row."""
    sides = [_build_rows(table, side_C[which]) for side_C in (table.better_C, table.worse_C)]
    difference = sparse.csr_array(sides[0] - sides[1])
    difference.eliminate_zeros()
    return difference


def _build_rows(table: Table, which: Ints) -> sparse.csr_array:
    """Which words these completions have: 1 for each, however often it comes."""
    first, size = table.word_start_N[which], np.diff(table.word_start_N)[which]
    start = np.concatenate([[0], np.cumsum(size)])
    place = np.arange(start[-1]) + np.repeat(first - start[:-1], size)
    code = table.word_W[place].astype(np.int32)
    return sparse.csr_array((np.ones(len(code)), code, start), shape=(len(which), WORD_CODES))


def _learn(rows: sparse.csr_array) -> Floats:
    """Weights of the words: the likeliest ones, large ones being less likely beforehand."""
    flipped = sparse.csr_array(rows.T)

    def loss(weight_F: Floats) -> tuple[float, Floats]:
        gap_C = rows @ weight_F
        slope_F = RIDGE * weight_F - flipped @ special.expit(-gap_C)
        return float(np.logaddexp(0.0, -gap_C).sum() + RIDGE / 2 * (weight_F**2).sum()), slope_F

    found = optimize.minimize(loss, np.zeros(WORD_CODES), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    weights: npt.NDArray[np.float64] = found.x
    return weights


def _add_up(table: Table, which: Ints, weight_F: Floats, score_N: Floats) -> None:
    """Scores of these completions, some thousands at a time."""
    for start in range(0, len(which), _CHUNK):
        some = which[start : start + _CHUNK]
        score_N[some] = _build_rows(table, some) @ weight_F
