"""Best-of-n estimates against every subset counted, and against what is known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize

from plaudit.select import bound_kl, estimate_best, estimate_kl, estimate_wins, pessimistic_weights, soft_weights
from plaudit.select.estimates import rank_weights
from plaudit.select.law import _invert_bound


def brute_best(value: list[float], score: list[float], n: int) -> float:
    """Every subset of n; among equal best scores each one with equal chance."""
    means = []
    for chosen in itertools.combinations(range(len(score)), n):
        top = max(score[k] for k in chosen)
        tied = [value[k] for k in chosen if score[k] == top]
        means.append(sum(tied) / len(tied))
    return sum(means) / len(means)


def brute_wins(value: list[float], score: list[float], n: int) -> float:
    found = []
    for chosen in itertools.combinations(range(len(score)), n):
        top = max(score[k] for k in chosen)
        tied = [k for k in chosen if score[k] == top]
        others = [k for k in range(len(score)) if k not in chosen]
        found += [(np.sign(value[i] - value[j]) + 1) / 2 for i in tied for j in others for _ in range(60 // len(tied))]
    return float(np.mean(found))


SAMPLES = {
    "distinct": ([3.0, 1.0, 4.0, 1.5, 5.0, 9.0], [0.3, -1.0, 0.9, 0.1, 0.2, 0.4]),
    "tied scores": ([3.0, 1.0, 4.0, 1.5, 5.0, 9.0], [1.0, 1.0, 0.0, 0.0, 2.0, 1.0]),
    "tied values": ([1.0, 0.0, 1.0, 0.0, 1.0, 1.0], [0.3, -1.0, 0.9, 0.1, 0.2, 0.4]),
    "all alike": ([3.0, 1.0, 4.0, 1.5, 5.0, 9.0], [2.0] * 6),
    "both tied": ([1.0, 0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 2.0, 2.0, 2.0]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_estimates_equal_every_subset_counted(name: str) -> None:
    value, score = SAMPLES[name]
    grid = list(range(1, len(score) + 1))
    found = estimate_best(np.array(value), np.array(score), grid)
    assert found == pytest.approx([brute_best(value, score, n) for n in grid], abs=1e-12)
    wins = estimate_wins(np.array(value), np.array(score), grid)
    assert wins[:-1] == pytest.approx([brute_wins(value, score, n) for n in grid[:-1]], abs=1e-12)
    assert math.isnan(wins[-1])


def test_one_is_the_plain_mean_and_a_coin_to_rounding() -> None:
    rng = np.random.default_rng(0)
    value, score = rng.normal(size=37), rng.normal(size=37).round(1)
    assert estimate_best(value, score, [1])[0] == pytest.approx(value.mean(), abs=1e-14)
    assert estimate_wins(value, score, [1])[0] == pytest.approx(0.5, abs=1e-12)


def test_weights_are_chances_also_for_samples_of_many_thousands() -> None:
    weights = rank_weights([1, 2, 100, 9_999, 12_600], 12_600)
    assert weights.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert np.isfinite(weights).all()
    assert weights[-1, -1] == pytest.approx(1.0)


def test_best_of_n_beats_one_more_by_n_over_n_plus_one_where_nothing_is_tied() -> None:
    score = np.random.default_rng(1).normal(size=40)
    found = estimate_wins(score, score, [1, 2, 3, 10, 39])
    assert found == pytest.approx([1 / 2, 2 / 3, 3 / 4, 10 / 11, 39 / 40], abs=1e-12)


def test_rows_are_taken_in_chunks_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    value, score = rng.normal(size=23), rng.integers(0, 5, 23).astype(float)
    whole = estimate_wins(value, score, range(1, 23))
    monkeypatch.setattr("plaudit.select.estimates._ROWS", 4)
    assert estimate_wins(value, score, range(1, 23)) == pytest.approx(whole, abs=1e-13)


def exact_kl(chance: np.ndarray, n: int) -> float:
    """KL of best-of-n from a policy over a few answers, the last one scoring highest."""
    above = np.cumsum(chance)
    best = above**n - np.r_[0.0, above[:-1]] ** n
    return float((best * np.log(best / chance)).sum())


def test_distance_is_the_bound_without_doubles_and_near_the_truth_with_them() -> None:
    score = np.random.default_rng(3).normal(size=30)
    grid = [1, 2, 5, 30]
    once = np.ones(30, dtype=np.int64)
    assert estimate_kl(once, score, grid) == pytest.approx([bound_kl(n) for n in grid], abs=1e-12)
    chance = np.array([0.5, 0.3, 0.2])
    drawn = np.random.default_rng(4).choice(3, size=4_000, p=chance)
    counts = np.bincount(drawn)[drawn]
    for n, found in zip([2, 4, 16, 64], estimate_kl(counts, drawn.astype(float), [2, 4, 16, 64]), strict=True):
        truth = exact_kl(chance, n)
        assert abs(found - truth) < 0.35 * truth + 0.02 < bound_kl(n), (n, found, truth, bound_kl(n))
    assert estimate_kl(np.full(9, 9), np.zeros(9), [1, 4]) == pytest.approx([0.0, 0.0])


def test_gentler_choices_are_chances_and_meet_their_definitions() -> None:
    score = np.random.default_rng(5).normal(size=50)
    soft = soft_weights(score, 0.7)
    assert soft.sum() == pytest.approx(1.0)
    assert np.log(soft[0] / soft[1]) == pytest.approx((score[0] - score[1]) / 0.7)
    assert soft_weights(score, 1e6) == pytest.approx(np.full(50, 0.02), rel=1e-5)
    assert soft_weights(score, 1e-4).argmax() == score.argmax()
    for beta in (0.01, 0.3, 2.0, 50.0):
        weight = pessimistic_weights(score, beta)
        level = optimize.brentq(lambda t, b=beta: (np.maximum(score - t, 0) / b).mean() - 1, -100, 100)
        slow = np.maximum(score - level, 0) / beta / 50
        assert weight == pytest.approx(slow / slow.sum(), abs=1e-9)
    assert pessimistic_weights(np.array([1.0]), 0.5) == pytest.approx([1.0])


def test_the_bound_on_kl_is_inverted() -> None:
    for n in (1.5, 2.0, 7.0, 1000.0):
        assert _invert_bound(math.log(n) - (n - 1) / n) == pytest.approx(n, rel=1e-9)
    assert _invert_bound(math.log(2e6) - 1) is None
