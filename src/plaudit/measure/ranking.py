"""How well scores rank three completions or more: by pairs, at the top, as an order, and by what is gained.

Stands on `table`, `intervals` and `correlation`. What the labels say of a Group is its settled comparisons: a
completion's standing is those it wins minus those it loses, so full orders, ratings and "this one above the others" are
all measured by what they say and no more. Invariant: equal scores are a draw between the orders they could be in, never
the order that completions stand in.
Letters: N completions, C comparisons, G groups; R ranked groups, and M completions of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plaudit.measure.correlation import share_positions
from plaudit.measure.intervals import Bools, Floats, Interval, Ints, mean_interval, rate_interval
from plaudit.measure.record import Record
from plaudit.measure.table import Table

FEWEST_RANKED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingQuality(Record):
    """Of `groups` Groups with three or more compared completions; `unscored` more have one without a score.

    `pairwise` is the accuracy over their comparisons. `top1` is how often the highest score is on a best completion.
    `kendall` is tau-b over compared pairs. `ndcg` is the gain of the order, rating or standing above the Group's lowest
    being the gain, by its best order's. All but `pairwise` are means over Groups. `top1_random` and `ndcg_random` are
    what no scores at all would get; Groups in which every order
    gains the same have no NDCG. Where completions are rated: the mean rating of what scores would pick, of a
    random pick, and of the best there is.
    """

    groups: int
    unscored: int
    completions: int
    pairwise: float
    pairwise_ci: Interval | None
    top1: float
    top1_ci: Interval | None
    top1_random: float
    kendall: float
    kendall_ci: Interval | None
    ndcg: float | None
    ndcg_ci: Interval | None
    ndcg_random: float | None
    rating_picked: float | None
    rating_picked_ci: Interval | None
    rating_mean: float | None
    rating_best: float | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Ranked:
    """Ranked Groups one after the other: `group_M` numbers them from 0, `of_C` are the comparisons' Groups."""

    num_R: int
    prompt_R: Ints
    group_M: Ints
    score_M: Floats
    standing_M: Floats
    rating_M: Floats
    of_C: Ints
    is_tie_C: Bools
    order_C: Floats

    def find_rated(self) -> Bools:
        """Groups whose compared completions all have a rating."""
        is_rated: Bools = self.sum_groups(np.isnan(self.rating_M).astype(np.float64)) == 0
        return is_rated

    def sum_groups(self, value_M: Floats) -> Floats:
        """Sums by Group."""
        return np.asarray(np.bincount(self.group_M, weights=value_M, minlength=self.num_R), dtype=np.float64)

    def best_of_groups(self, value_M: Floats) -> Floats:
        """The highest by Group."""
        starts = np.flatnonzero(np.diff(self.group_M, prepend=-1))
        return np.asarray(np.maximum.reduceat(value_M, starts), dtype=np.float64)


def measure_ranking(table: Table) -> RankingQuality | None:
    """How well the scores rank; None where no Group has three compared completions, all with scores."""
    ranked, num_unscored = _gather(table)
    if ranked is None:
        return None
    seed, prompt_R = table.seed, ranked.prompt_R
    right_C = (ranked.order_C[~ranked.is_tie_C] + 1) / 2
    top_R, top_random_R = _measure_top(ranked)
    kendall_R = _measure_kendall(ranked)
    ndcg_R, ndcg_random_R = _measure_gain(ranked)
    can_gain_R = ~np.isnan(ndcg_R)
    picked, picked_ci, mean, best = _measure_rating(ranked, seed)
    return RankingQuality(
        groups=ranked.num_R,
        unscored=num_unscored,
        completions=len(ranked.score_M),
        pairwise=float(right_C.mean()),
        pairwise_ci=rate_interval(right_C, prompt_R[ranked.of_C[~ranked.is_tie_C]], seed=seed),
        top1=float(top_R.mean()),
        top1_ci=rate_interval(top_R, prompt_R, seed=seed),
        top1_random=float(top_random_R.mean()),
        kendall=float(kendall_R.mean()),
        kendall_ci=mean_interval(kendall_R, prompt_R, seed=seed),
        ndcg=float(ndcg_R[can_gain_R].mean()) if can_gain_R.any() else None,
        ndcg_ci=mean_interval(ndcg_R[can_gain_R], prompt_R[can_gain_R], seed=seed) if can_gain_R.any() else None,
        ndcg_random=float(ndcg_random_R[can_gain_R].mean()) if can_gain_R.any() else None,
        rating_picked=picked,
        rating_picked_ci=picked_ci,
        rating_mean=mean,
        rating_best=best,
    )


def _gather(table: Table) -> tuple[_Ranked | None, int]:
    """The Groups that have an order to find, and how many of those lack a score."""
    score_N, num_N, num_G = table.score_N, table.num_completions, table.num_groups
    decided_C = (~table.is_tie_C).astype(np.float64)
    wins_N = np.bincount(table.better_C, weights=decided_C, minlength=num_N)
    losses_N = np.bincount(table.worse_C, weights=decided_C, minlength=num_N)
    compared_N = np.zeros(num_N, dtype=np.bool_)
    compared_N[table.better_C] = compared_N[table.worse_C] = True
    num_compared_G = np.bincount(table.group_N[compared_N], minlength=num_G)
    num_decided_G = np.bincount(table.group_C, weights=decided_C, minlength=num_G)
    lacking_G = np.bincount(table.group_N[compared_N & np.isnan(score_N)], minlength=num_G) > 0
    wanted_G = (num_compared_G >= FEWEST_RANKED) & (num_decided_G > 0)
    there_G = wanted_G & ~lacking_G
    if not there_G.any():
        return None, int(wanted_G.sum())
    place_G = np.cumsum(there_G) - 1
    of_N, of_C = compared_N & there_G[table.group_N], there_G[table.group_C]
    gap_C = score_N[table.better_C[of_C]] - score_N[table.worse_C[of_C]]
    ranked = _Ranked(
        num_R=int(there_G.sum()),
        prompt_R=table.prompt_G[there_G],
        group_M=place_G[table.group_N[of_N]],
        score_M=score_N[of_N],
        standing_M=np.asarray(wins_N - losses_N, dtype=np.float64)[of_N],
        rating_M=table.rating_N[of_N],
        of_C=place_G[table.group_C[of_C]],
        is_tie_C=table.is_tie_C[of_C],
        order_C=np.sign(gap_C),
    )
    return ranked, int((wanted_G & lacking_G).sum())


def _measure_top(ranked: _Ranked) -> tuple[Floats, Floats]:
    """The share of best completions among those with the highest score, and among all."""
    is_top_M = (ranked.score_M == ranked.best_of_groups(ranked.score_M)[ranked.group_M]).astype(np.float64)
    is_best_M = (ranked.standing_M == ranked.best_of_groups(ranked.standing_M)[ranked.group_M]).astype(np.float64)
    ones_M = np.ones(len(ranked.score_M))
    return (
        ranked.sum_groups(is_top_M * is_best_M) / ranked.sum_groups(is_top_M),
        ranked.sum_groups(is_best_M) / ranked.sum_groups(ones_M),
    )


def _measure_kendall(ranked: _Ranked) -> Floats:
    """Tau-b by Group: right minus wrong, by the pairs that labels tell apart and the pairs that scores do.

    Scores that tell nothing apart give no order, and that is 0.
    """
    decided = np.where(ranked.is_tie_C, 0.0, 1.0)
    balance_R = np.bincount(ranked.of_C, weights=decided * ranked.order_C, minlength=ranked.num_R)
    by_label_R = np.bincount(ranked.of_C, weights=decided, minlength=ranked.num_R)
    by_score_R = np.bincount(ranked.of_C, weights=np.abs(ranked.order_C), minlength=ranked.num_R)
    tau: Floats = balance_R / np.sqrt(np.maximum(by_label_R * by_score_R, 1.0))
    return tau


def _measure_gain(ranked: _Ranked) -> tuple[Floats, Floats]:
    """NDCG by Group, of the scores' order and of a random one; nan where nothing can be gained."""
    level_R = ranked.best_of_groups(ranked.rating_M) + ranked.best_of_groups(-ranked.rating_M) == 0
    by_rating_R = ranked.find_rated() & ~level_R
    worth_M = np.where(by_rating_R[ranked.group_M], ranked.rating_M, ranked.standing_M)
    gain_M = worth_M + ranked.best_of_groups(-worth_M)[ranked.group_M]

    def discount(position: Ints) -> Floats:
        return np.asarray(1 / np.log2(position + 2.0), dtype=np.float64)

    def add_up(value_M: Floats) -> Floats:
        return ranked.sum_groups(gain_M * share_positions(-value_M, ranked.group_M, discount))

    best_R = add_up(gain_M)
    best_R = np.where(best_R > 0, best_R, np.nan)
    return add_up(ranked.score_M) / best_R, add_up(np.zeros(len(gain_M))) / best_R


def _measure_rating(ranked: _Ranked, seed: int) -> tuple[float | None, Interval | None, float | None, float | None]:
    """Mean rating of the pick, with its interval; of a random pick; of the best: over Groups with all ratings."""
    is_rated_R = ranked.find_rated()
    if not is_rated_R.any():
        return None, None, None, None
    rating_M = np.where(is_rated_R[ranked.group_M], ranked.rating_M, 0.0)
    is_top_M = (ranked.score_M == ranked.best_of_groups(ranked.score_M)[ranked.group_M]).astype(np.float64)
    picked_R = (ranked.sum_groups(is_top_M * rating_M) / ranked.sum_groups(is_top_M))[is_rated_R]
    mean_R = (ranked.sum_groups(rating_M) / ranked.sum_groups(np.ones(len(rating_M))))[is_rated_R]
    best_R = ranked.best_of_groups(rating_M)[is_rated_R]
    interval = mean_interval(picked_R, ranked.prompt_R[is_rated_R], seed=seed)
    return float(picked_R.mean()), interval, float(mean_R.mean()), float(best_R.mean())
