"""Best-of-n from one sample of M: what the best of every n <= M would be, exactly averaged over which n are drawn.

Beside `rules`; numpy and scipy only. The best of n drawn without replacement is the i-th of M, counted from the worst,
with probability C(i-1, n-1) / C(M, n). Completions that score alike stand in every order with equal chance, so each
stands for the mean of them all. Invariant: unbiased for every n, whatever M; n = 1 is the plain mean.
Letters: M completions of one prompt in the order of their scores, n of them drawn; N the grid of n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from plaudit.measure.intervals import Floats, Ints

_ROWS = 512


def rank_weights(grid_N: Sequence[int], num: int) -> Floats:
    """Row n, column i: how likely the i-th of `num`, from the worst, is the best of n that are drawn."""
    rank_M = np.arange(1, num + 1, dtype=np.float64)[None, :]
    draw_N = np.asarray(grid_N, dtype=np.float64)[:, None]
    # Below rank n there is no way to choose: any rank that can be computed stands in, and its weight is zero.
    possible_NM = np.maximum(rank_M, draw_N)
    log_NM = _log_choose(possible_NM - 1, draw_N - 1) - _log_choose(np.full_like(possible_NM, num), draw_N)
    return np.where(rank_M >= draw_N, np.exp(log_NM), 0.0)


def _log_choose(top: Floats, bottom: Floats) -> Floats:
    found: Floats = special.gammaln(top + 1) - special.gammaln(bottom + 1) - special.gammaln(top - bottom + 1)
    return found


def find_blocks(score_M: Floats) -> tuple[Ints, Ints]:
    """For scores in order: where each one's run of equals begins, and where it ends (exclusive)."""
    starts = np.flatnonzero(np.r_[True, score_M[1:] != score_M[:-1]])
    ends = np.r_[starts[1:], len(score_M)]
    return np.repeat(starts, ends - starts), np.repeat(ends, ends - starts)


def level_ties(value_M: Floats, score_M: Floats) -> Floats:
    """Each value as the mean of those whose scores are the same; scores are in order."""
    start_M, end_M = find_blocks(score_M)
    sum_M = np.r_[0.0, np.cumsum(value_M)]
    # A difference of sums would turn a lone value into one nearly as good.
    levelled: Floats = np.where(end_M - start_M == 1, value_M, (sum_M[end_M] - sum_M[start_M]) / (end_M - start_M))
    return levelled


def estimate_best(value_M: Floats, score_M: Floats, grid_N: Sequence[int]) -> Floats:
    """The mean `value` of the best by `score` of n, for every n of the grid; both in any order."""
    order = np.argsort(score_M, kind="stable")
    found: Floats = rank_weights(grid_N, len(score_M)) @ level_ties(value_M[order], score_M[order])
    return found


def estimate_wins(value_M: Floats, score_M: Floats, grid_N: Sequence[int]) -> Floats:
    """How often the best of n by `score` has a higher `value` than one more completion of the same sample (ties half).

    The other one is drawn from those that are not among the n, so n = 1 gives one half; nan for n = M, where none is
    left.
    """
    num = len(score_M)
    order = np.argsort(score_M, kind="stable")
    value, score = value_M[order], score_M[order]
    start_M, end_M = find_blocks(score)
    lower_M, upper_M = np.empty(num), np.empty(num)
    for begin in range(0, num, _ROWS):
        rows = slice(begin, begin + _ROWS)
        win_RM = (np.sign(value[rows, None] - value[None, :]) + 1) / 2
        sum_RM = np.concatenate([np.zeros((len(win_RM), 1)), np.cumsum(win_RM, axis=1)], axis=1)
        at = np.arange(len(win_RM))
        lower_M[rows] = sum_RM[at, start_M[rows]]
        upper_M[rows] = sum_RM[at, -1] - sum_RM[at, end_M[rows]]
    rank_M = np.arange(num)
    # Among equals every order is as likely, and of two equals either is the better one half of the time.
    lower_M = level_ties(lower_M, score) + (rank_M - start_M) / 2
    upper_M = level_ties(upper_M, score) + (end_M - 1 - rank_M) / 2
    draw_N = np.asarray(grid_N, dtype=np.float64)[:, None]
    left_NM = np.where(rank_M > 0, (rank_M + 1 - draw_N) / np.maximum(rank_M, 1), 0.0)
    chance_NM = (upper_M + left_NM * lower_M) / np.maximum(num - draw_N, 1)
    wins: Floats = (rank_weights(grid_N, num) * chance_NM).sum(axis=1)
    return np.where(draw_N[:, 0] < num, wins, np.nan)


def bound_kl(num: int) -> float:
    """How far best-of-n can be from the policy it samples: log n - (n - 1) / n, reached if no answer comes twice."""
    return math.log(num) - (num - 1) / num


def estimate_kl(count_M: Ints, score_M: Floats, grid_N: Sequence[int]) -> Floats:
    """KL of best-of-n from the policy, by how often each answer came (`count` of M): Beirami et al. 2024.

    An answer's probability is read off the others, (count - 1) / (M - 1): what came once counts as never coming again,
    and a sample without doubles gives the bound.
    """
    num = len(score_M)
    order = np.argsort(score_M, kind="stable")
    chance_M = (count_M[order] - 1) / max(num - 1, 1)
    draw_N = np.asarray(grid_N, dtype=np.float64)[:, None]
    missed_NM = (1 - chance_M) ** draw_N
    with np.errstate(divide="ignore", invalid="ignore"):
        rare_NM = missed_NM * (np.log(draw_N) + (draw_N - 1) * np.log1p(-chance_M) - (draw_N - 1) / draw_N)
        often_NM = (1 - missed_NM) * np.log((1 - missed_NM) / chance_M)
    # An answer that always comes is never missed; one that came once is not known to come again.
    kl_NM = np.where(chance_M < 1, rare_NM, 0.0) + np.where(chance_M > 0, often_NM, 0.0)
    levelled_NM = np.stack([level_ties(kl_M, score_M[order]) for kl_M in kl_NM])
    found: Floats = (rank_weights(grid_N, num) * levelled_NM).sum(axis=1)
    return np.maximum(found, 0.0)


def soft_weights(score_M: Floats, temperature: float) -> Floats:
    """How likely each is chosen when the odds are exp(score / temperature)."""
    found: Floats = special.softmax(score_M / temperature)
    return found


def pessimistic_weights(score_M: Floats, beta: float) -> Floats:
    """Chances that grow linearly with the score above a level, and stop there: best for chi-squared regularisation.

    They are max(0, score - level) / beta / M, with the level at which they sum to one (Huang et al. 2025).
    """
    order = np.sort(score_M)[::-1]
    # With the k best above the level: sum(score) - k * level = beta * M.
    levels = (np.cumsum(order) - beta * len(order)) / np.arange(1, len(order) + 1)
    inside = np.flatnonzero(order > levels)
    level = levels[inside[-1]]
    weight: Floats = np.maximum(score_M - level, 0.0) / (beta * len(order))
    found: Floats = weight / weight.sum()
    return found
