"""Rankings against scikit-learn and scipy, Group by Group, and by hand where labels are no full order."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score

from labelled import group_of
from plaudit.group import Label, Preference, Ranking, Ratings, Tie
from plaudit.measure import RankingQuality, build_table, measure_ranking

number = st.sampled_from((0.0, 0.5, 1.0, 2.0, 4.0))


def ranked(scores: list[float | None], *labels: Label) -> RankingQuality | None:
    return measure_ranking(build_table([group_of(len(scores), *labels)], [scores]))


@given(st.lists(st.tuples(number, number), min_size=3, max_size=7))
def test_rated_completions_are_ranked_as_others_rank_them(rows: list[tuple[float, float]]) -> None:
    rating, score = ([row[side] for row in rows] for side in (0, 1))
    found = ranked(list(score), Ratings(ratings=tuple(rating)))
    if len(set(rating)) == 1:
        assert found is None
        return
    assert found is not None and found.ndcg is not None
    gains = np.array([rating]) - min(rating)
    assert found.ndcg == pytest.approx(ndcg_score(gains, [score]))
    assert found.ndcg_random == pytest.approx(ndcg_score(gains, [[0.0] * len(rows)]))
    tau = kendalltau(rating, score).statistic
    assert found.kendall == pytest.approx(0.0 if np.isnan(tau) else tau)
    tops = [r == max(rating) for r, s in rows if s == max(score)]
    assert found.top1 == pytest.approx(np.mean(tops))
    assert found.top1_random == pytest.approx(np.mean([r == max(rating) for r in rating]))
    right = [
        0.5 if a[1] == b[1] else float((a[0] > b[0]) == (a[1] > b[1])) for a, b in combinations(rows, 2) if a[0] != b[0]
    ]
    assert found.pairwise == pytest.approx(np.mean(right))
    assert found.rating_picked == pytest.approx(np.mean([r for r, s in rows if s == max(score)]))
    assert (found.rating_mean, found.rating_best) == (pytest.approx(np.mean(rating)), max(rating))


@given(st.permutations(range(5)), st.lists(number, min_size=5, max_size=5))
def test_an_order_is_ratings_that_fall_by_one(order: list[int], score: list[float]) -> None:
    found, rated = (
        ranked(list(score), label)
        for label in (Ranking(order=tuple(order)), Ratings(ratings=tuple(-float(order.index(k)) for k in range(5))))
    )
    assert found is not None and rated is not None
    for name in ("pairwise", "top1", "kendall", "ndcg", "ndcg_random"):
        assert getattr(found, name) == pytest.approx(getattr(rated, name))
    assert found.rating_picked is None and rated.rating_picked is not None


def test_the_mean_is_over_groups() -> None:
    labels = [Ranking(order=(0, 1, 2)), Ratings(ratings=(1, 5, 3, 2)), Preference(better=0, worse=1)]
    groups = [group_of(3, labels[0]), group_of(4, labels[1]), group_of(2, labels[2])]
    scores = [[3.0, 2.0, 1.0], [4.0, 1.0, 2.0, 3.0], [0.0, 1.0]]
    found = measure_ranking(build_table(groups, scores))
    assert found is not None and (found.groups, found.completions, found.unscored) == (2, 7, 0)
    assert found.top1 == 0.5 and found.top1_random == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert found.pairwise == pytest.approx(3 / 9)
    assert found.kendall == pytest.approx((1.0 - 1.0) / 2)
    assert (found.rating_picked, found.rating_best) == (1.0, 5.0)


def test_groups_without_labels_at_the_end_change_nothing() -> None:
    labelled = [group_of(3, Ranking(order=(0, 1, 2))), group_of(3, Ranking(order=(2, 1, 0)))]
    scores = [[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]]
    alone = measure_ranking(build_table(labelled, scores))
    followed = measure_ranking(build_table([*labelled, group_of(3), group_of(2)], [*scores, [0.0] * 3, [0.0] * 2]))
    assert alone is not None and followed == alone


def test_one_above_the_others_is_no_order_among_the_others() -> None:
    labels = [Preference(better=0, worse=k) for k in (1, 2, 3)]
    for rest in ([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]):
        found = ranked([9.0, *rest], *labels)
        assert found is not None and found.top1 == found.pairwise == found.kendall == 1.0
        assert found.ndcg == pytest.approx(1.0)
    worst = ranked([0.0, 1.0, 2.0, 3.0], *labels)
    assert worst is not None and worst.top1 == worst.pairwise == 0.0 and worst.kendall == -1.0


def test_a_group_without_a_score_is_counted_and_two_are_no_ranking() -> None:
    order = Ranking(order=(0, 1, 2))
    table = build_table([group_of(3, order), group_of(3, order)], [[1.0, None, 0.0], [3.0, 2.0, 1.0]])
    found = measure_ranking(table)
    assert found is not None and (found.groups, found.unscored) == (1, 1)
    assert ranked([1.0, None, 0.0], order) is None and ranked([1.0, 0.0], Preference(better=0, worse=1)) is None
    assert ranked([1.0, 2.0, 3.0], Tie(tie=(0, 1, 2))) is None


def test_level_ratings_leave_the_gain_to_the_other_labels() -> None:
    found = ranked([3.0, 2.0, 1.0], Ratings(ratings=(1, 1, 1)), Preference(better=2, worse=0))
    assert found is not None and found.ndcg is not None and found.ndcg < 1
    circle = [Preference(better=a, worse=b) for a, b in ((0, 1), (1, 2), (2, 0))]
    found = ranked([3.0, 2.0, 1.0], *circle)
    assert found is not None and found.ndcg is None and found.as_json()["ndcg_ci"] is None


def test_scores_without_an_order_get_what_chance_gets() -> None:
    rng = np.random.default_rng(0)
    groups = [group_of(4, Ratings(ratings=tuple(rng.normal(size=4)))) for _ in range(400)]
    level, random = ([list(s) for s in rows] for rows in (np.zeros((400, 4)), rng.normal(size=(400, 4))))
    flat, drawn = (measure_ranking(build_table(groups, scores)) for scores in (level, random))
    assert flat is not None and drawn is not None
    assert (flat.pairwise, flat.top1, flat.kendall, flat.ndcg) == (0.5, 0.25, 0.0, pytest.approx(flat.ndcg_random))
    assert drawn.top1_ci is not None and drawn.top1_ci[0] <= drawn.top1_random <= drawn.top1_ci[1]
    assert drawn.kendall == pytest.approx(0, abs=0.08) and drawn.ndcg == pytest.approx(drawn.ndcg_random, abs=0.02)
