"""Exact tests against brute force and scipy; intervals and p values that agree; how often a verdict is false."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from plaudit.measure.significance import (
    ALPHA,
    FEW_VALUES,
    effective_tests,
    fewest_discordant,
    paired_mean,
    say_too_few,
    sign_flip_p,
    skew_proof_interval,
    skew_proof_reach,
)
from plaudit.select import curve

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    strengths = curve.STRENGTHS  # the script leaves them out for the time that its process lives
    spec = importlib.util.spec_from_file_location("bench_verdicts", BENCH / "verdicts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    curve.STRENGTHS = strengths


@given(st.lists(st.integers(-6, 6), max_size=9))
def test_the_sign_flip_test_counts_all_signs(weights: list[int]) -> None:
    sums = [
        abs(sum(s * w for s, w in zip(signs, weights, strict=True))) for signs in product((-1, 1), repeat=len(weights))
    ]
    truth = np.mean([one >= abs(sum(weights)) for one in sums])
    assert sign_flip_p(np.array(weights, dtype=np.int64)) == pytest.approx(truth)


@pytest.mark.parametrize(("up", "down"), [(1, 0), (5, 0), (6, 0), (12, 3), (300, 240), (4000, 0)])
def test_with_equal_weights_it_is_the_binomial_test(up: int, down: int) -> None:
    weights = np.repeat([2, -2, 0], [up, down, 7])
    assert sign_flip_p(weights) == pytest.approx(stats.binomtest(up, up + down).pvalue, rel=1e-6, abs=1e-12)


def test_sums_beyond_the_exact_ones_are_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.repeat([1, -1, 3, -3], [600, 540, 130, 120])
    exact = sign_flip_p(weights)
    monkeypatch.setattr("plaudit.measure.significance._MOST_EXACT", 100)
    assert sign_flip_p(weights) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_prompts_that_all_agree_are_no_verdict_when_they_are_few(num: int) -> None:
    found = paired_mean(np.ones(num), np.arange(num), seed=0)
    assert found.interval is not None and found.interval[0] <= 0 and found.p == pytest.approx(2.0 ** (1 - num))
    assert say_too_few(num) == f"not enough evidence: {num} discordant prompts; at least 6 are needed"


def test_six_that_agree_are_a_verdict() -> None:
    assert fewest_discordant() == 6 and say_too_few(6) == ""
    found = paired_mean(np.ones(6), np.arange(6), seed=0)
    assert found.interval is not None and 0 < found.interval[0] < 0.1 and found.interval[1] == 1.0
    assert (found.p, found.prompts, found.discordant) == (pytest.approx(2 / 64), 6, 6)
    assert fewest_discordant(30) == 11 and 30 * 2.0 ** (1 - 11) < ALPHA <= 30 * 2.0 ** (1 - 10)
    assert say_too_few(1).startswith("not enough evidence: 1 discordant prompt;")


def test_many_comparisons_of_few_prompts_are_few_prompts() -> None:
    few = paired_mean(np.ones(500), np.arange(500) % 5, seed=0)
    assert few.interval is not None and few.interval[0] <= 0 and few.discordant == 5
    assert paired_mean(np.ones(500), np.zeros(500, dtype=np.int64), seed=0).interval is None


def test_two_that_never_differ_may_differ_as_rarely_as_prompts_allow() -> None:
    found = paired_mean(np.zeros(20), np.arange(20), seed=0)
    most = 1 - 0.025 ** (1 / 20)
    assert found.interval == pytest.approx((-most, most)) and (found.p, found.discordant) == (1.0, 0)
    cancelled = paired_mean(np.tile([1.0, -1.0], 20), np.arange(40) // 2, seed=0)
    assert cancelled.discordant == 0 and cancelled.p == 1.0


def test_the_share_of_discordant_prompts_is_uncertain_where_they_are_few() -> None:
    """Nine of 100 all one way: as many as 17 could be discordant; of ten, their share is taken as it is."""
    nine, ten = (paired_mean((np.arange(100) < k) * 1.0, np.arange(100), seed=0).interval for k in (9, 10))
    assert nine is not None and ten is not None
    assert nine[1] == pytest.approx(stats.binomtest(9, 100).proportion_ci(method="exact").high)
    assert ten[1] < nine[1]


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0]), min_size=2, max_size=60), st.integers(1, 4))
def test_p_and_interval_never_contradict_each_other(values: list[float], size: int) -> None:
    found = paired_mean(np.array(values), np.arange(len(values)) // size, seed=0)
    if found.interval is not None:
        low, high = found.interval
        assert low <= found.mean <= high and low >= -1 and high <= 1
        assert (found.p < ALPHA) == (low > 0 or high < 0)
        mirrored = paired_mean(-np.array(values), np.arange(len(values)) // size, seed=0)
        assert mirrored.interval == pytest.approx((-high, -low)) and mirrored.p == pytest.approx(found.p)


def test_with_one_comparison_a_prompt_p_is_mcnemars() -> None:
    rng = np.random.default_rng(0)
    moved = rng.choice([-1.0, 0.0, 1.0], 200, p=[0.1, 0.6, 0.3])
    found = paired_mean(moved, np.arange(200), seed=0)
    assert found.p == pytest.approx(stats.binomtest(int((moved > 0).sum()), int((moved != 0).sum())).pvalue)


@pytest.mark.parametrize("num", [3, 10, 40])
def test_the_reach_holds_for_exponential_values_and_is_never_below_students(num: int) -> None:
    value = np.random.default_rng(1).exponential(size=(40_000, num)) - 1
    t = value.mean(axis=1) / value.std(axis=1, ddof=1) * num**0.5
    for miss in (0.05, 0.01):
        missed = float((np.abs(t) > skew_proof_reach(num, miss)).mean())
        assert 0.75 * miss < missed < 1.05 * miss
        assert skew_proof_reach(num, miss) >= stats.t.ppf(1 - miss / 2, num - 1)
    # Student's misses more often, which is why there is another reach.
    assert (np.abs(t) > stats.t.ppf(0.975, num - 1)).mean() > 0.06


def test_of_many_prompts_the_reach_is_students() -> None:
    assert skew_proof_reach(4_001, 0.05) == pytest.approx(stats.t.ppf(0.975, 4_000))
    assert skew_proof_reach(4_000, 0.002) == pytest.approx(stats.t.ppf(0.999, 3_999), rel=0.02)


def test_the_interval_of_a_mean_is_by_hand() -> None:
    value = np.random.default_rng(2).normal(0.3, 1.0, 100)
    half = skew_proof_reach(100, 0.05) * value.std(ddof=1) / 10
    assert skew_proof_interval(value) == pytest.approx((value.mean() - half, value.mean() + half))
    assert skew_proof_interval(value[:1]) is None


@pytest.mark.parametrize(
    ("num", "num_tests", "is_shown"), [(5, 1, False), (6, 1, True), (10, 30, False), (11, 30, True)]
)
def test_equal_gains_of_few_prompts_are_no_certainty(num: int, num_tests: int, is_shown: bool) -> None:
    low, high = skew_proof_interval(np.full(num, 0.7), num_tests=num_tests) or (0.0, 0.0)
    assert high == pytest.approx(0.7) and (low > 0) is is_shown


def test_the_sign_flip_test_has_a_say_for_few_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.measure.significance.sign_flip_p", lambda weight_P: 1.0)
    few, many = (skew_proof_interval(np.full(FEW_VALUES + extra, 1.0)) for extra in (0, 1))
    assert few == (0.0, 1.0) and many == (1.0, 1.0)


def test_columns_that_move_together_are_one_test() -> None:
    rng = np.random.default_rng(3)
    draws = np.concatenate([np.zeros((1, 1)), rng.normal(size=(2_000, 1))])
    assert effective_tests(np.tile(draws, (1, 20))) == pytest.approx(1.0, abs=0.25)
    apart = np.concatenate([np.zeros((1, 20)), rng.normal(size=(2_000, 20))])
    assert 10 < effective_tests(apart) <= 20
    assert effective_tests(np.zeros((10, 3))) == 1.0


@pytest.mark.parametrize("num", [2, 3, 5, 10])
def test_verdicts_are_rarely_false(bench: ModuleType, num: int) -> None:
    """A small version of the table in docs/verdicts.md: with 200 data sets, 5% is not told apart from 9.7%."""
    cheap = [case for case in bench.nothing_to_find() if case.cost == 1]
    shares = {(case.verdict, case.setting): bench.measure(case, num, 200) for case in cheap}
    assert len(shares) > 20 and max(shares.values()) <= 0.097, shares


def test_verdicts_are_possible(bench: ModuleType) -> None:
    found = {case.verdict: bench.measure(case, 50, 60) for case in bench.something_to_find() if case.cost == 1}
    assert len(found) > 3 and found["drift: retrain"] > 0.8 and found["trust: leads over a coin"] > 0.8


@pytest.mark.slow
def test_no_verdict_is_false_in_more_than_one_of_twenty(bench: ModuleType) -> None:
    for case in bench.nothing_to_find():
        repeats = max(1, 2_000 // case.cost)
        for num in bench.PROMPTS:
            share = bench.measure(case, num, 2_000)
            print(f"{case.verdict}, {case.setting}, {num} prompts: {share:.1%}")
            assert share <= 0.05 + 3 * (0.05 * 0.95 / repeats) ** 0.5


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_p_is_raised_where_the_interval_holds_zero(sign: float) -> None:
    """Six prompts of unequal size that all agree: the sign-flip test alone would reject, the interval does not."""
    agreeing, prompts = np.full(10, sign), np.array([0, 1, 2, 3, 4, 4, 4, 4, 5, 5])
    found = paired_mean(agreeing, prompts, seed=0)
    assert sign_flip_p(np.bincount(prompts, 2 * agreeing).astype(np.int64)) == 0.03125
    assert found.interval is not None and found.interval[0] < 0 < found.interval[1] and found.p == ALPHA
    mixed, where = sign * np.array([1.0] * 8 + [0.0]), np.array([0, 1, 2, 2, 2, 3, 4, 5, 6])
    found = paired_mean(mixed, where, seed=0)
    assert found.interval is not None and found.interval[0] < 0 < found.interval[1] and found.p == ALPHA
