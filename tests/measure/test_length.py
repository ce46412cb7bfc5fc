"""What length is worth, against statsmodels; correlations, against scipy; and a planted slope that is taken out."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.nonparametric.smoothers_lowess import lowess

from plaudit.errors import InputError
from plaudit.group import pair
from plaudit.measure import (
    LengthFit,
    Table,
    TableBuilder,
    build_table,
    correct_held_out,
    fit_length,
    measure_accuracy,
    measure_length,
    measure_style,
    score_per_token,
)
from plaudit.measure.correlation import correlate_within, rank_within
from plaudit.measure.length import FEWEST_ANSWERS, regress_locally
from plaudit.measure.table import Floats, Ints


@pytest.mark.parametrize("num", [30, 60, 400])
def test_local_regression_is_that_of_statsmodels(num: int) -> None:
    rng = np.random.default_rng(num)
    x = np.sort(rng.uniform(0, 10, num))
    y = np.sin(x) + rng.normal(0, 0.3, num) + 5 * (rng.random(num) < 0.05)
    ours = regress_locally(x, y, x)
    np.testing.assert_allclose(ours, lowess(y, x, frac=0.4, it=3, delta=0.0)[:, 1], rtol=1e-6, atol=1e-8)


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=30).map(sorted),
    st.floats(-3, 3),
    st.floats(-2, 2),
)
@example([0, 1], 0.0, 5e-324)  # the smallest number: a billionth of it is 0
def test_a_line_is_found_whatever_the_lengths(x: list[int], level: float, slope: float) -> None:
    x_N = np.array(x, dtype=np.float64)
    at = np.unique(x_N)
    curve = regress_locally(x_N, level + slope * x_N, at)
    assert np.isfinite(curve).all()
    if len(at) == 1:
        np.testing.assert_allclose(curve, level + slope * at, atol=1e-9)


def scored(num: int, slope: float, seed: int = 0) -> Table:
    """Pairs whose score is quality, which labels follow, and `slope` times the log of length, which they do not."""
    rng = np.random.default_rng(seed)
    builder = TableBuilder()
    for n in range(num):
        lengths, quality = np.exp(rng.normal(5, 0.7, 2)).astype(int) + 1, rng.normal(0, 1, 2)
        better = int(quality[1] > quality[0])
        texts = ["x" * lengths[better], "x" * lengths[1 - better]]
        score = quality + slope * np.log(lengths)
        builder.add(pair(f"q{n}", *texts), [score[better], score[1 - better]], tokens=[len(t) // 4 for t in texts])
    return builder.finish()


def test_a_planted_slope_is_seen_and_taken_out() -> None:
    table = scored(1500, slope=2.0)
    raw, found = measure_accuracy(table), measure_length(table)
    assert found.correlation is not None and found.correlation > 0.6 and found.correlation_ci is not None
    assert found.correlation_ci[0] > 0.5 and (found.n, found.prompts) == (3000, 1500)
    fit = fit_length(table)
    assert all(b > a for a, b in pairwise(fit.lengths)) and fit.n == 3000
    corrected_N = fit.correct(table.score_N, table.length_N)
    assert corrected_N.mean() == pytest.approx(table.score_N.mean(), abs=0.05)
    for scores in (corrected_N, correct_held_out(table)):
        after, left = measure_accuracy(table, scores=scores), measure_length(table, scores=scores)
        assert raw.accuracy is not None and after.accuracy is not None and left.correlation is not None
        assert after.accuracy > 0.95 > raw.accuracy + 0.1
        assert abs(left.correlation) < 0.05


def test_a_scorer_that_does_not_look_at_length_is_left_alone() -> None:
    table = scored(1500, slope=0.0)
    found = measure_length(table)
    assert found.correlation_ci is not None and found.correlation_ci[0] < 0 < found.correlation_ci[1]
    after = measure_accuracy(table, scores=correct_held_out(table)).accuracy
    assert after is not None and after > 0.97


def test_held_out_curves_have_not_seen_what_they_correct() -> None:
    table = scored(300, slope=1.0)
    far_N = table.score_N.copy()
    far_N[:2] += 1e6
    moved = correct_held_out(replace(table, score_N=far_N)) - correct_held_out(table)
    np.testing.assert_allclose(moved[:2], 1e6, rtol=1e-9)


def test_a_curve_comes_back_from_its_json() -> None:
    fit = fit_length(scored(100, slope=1.0))
    back = LengthFit.from_json(json.loads(json.dumps(fit.as_json())))
    assert back == fit and back.correct(1.0, 150) == fit.correct(1.0, 150)
    assert isinstance(fit.correct(1, 150), float)
    assert fit.correct(0.0, 10**9) == fit.correct(0.0, fit.lengths[-1])
    whole = fit.as_json()
    for broken in ({}, whole | {"lengths": whole["lengths"][::-1]}, whole | {"scores": [1.0]}, whole | {"n": None}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            LengthFit.from_json(broken)


def test_too_few_answers_are_no_curve() -> None:
    with pytest.raises(InputError, match=f"20 scored answers came, at least {FEWEST_ANSWERS} were needed"):
        fit_length(scored(10, slope=1.0))
    assert np.isnan(correct_held_out(scored(10, slope=1.0))).all()


def test_answers_of_one_length_have_one_worth() -> None:
    table = build_table([pair(f"q{n}", "same", "size") for n in range(50)], [[float(n), 0.0] for n in range(50)])
    fit = fit_length(table)
    assert len(fit.lengths) == 1
    np.testing.assert_allclose(fit.correct(table.score_N, table.length_N), table.score_N, atol=1e-9)
    found = measure_length(table)
    assert found.correlation is None and found.correlation_ci is None and found.spearman is None
    assert json.loads(json.dumps(found.as_json()))["correlation"] is None


def test_scores_by_token() -> None:
    builder = TableBuilder()
    builder.add(pair("q", "a", "b"), [2.0, 3.0], tokens=[4, None])
    builder.add(pair("q", "a", "b"), [2.0, None], tokens=[0, 3])
    np.testing.assert_array_equal(score_per_token(builder.finish()), [0.5, np.nan, np.nan, np.nan])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=0, max_size=30))
def test_ranks_are_scipys_within_each_place(rows: list[tuple[int, int]]) -> None:
    place = np.array([p for p, _ in rows], dtype=np.int64)
    value = np.array([v for _, v in rows], dtype=np.float64)
    found = rank_within(value, place)
    for p in np.unique(place):
        np.testing.assert_allclose(found[place == p], stats.rankdata(value[place == p]))


def drawn(prompts: int, rho: float, rng: np.random.Generator) -> tuple[Floats, Floats, Ints]:
    prompt = np.repeat(np.arange(prompts), rng.integers(1, 5, prompts))
    x = rng.normal(size=len(prompt))
    y = rho * x + (1 - rho**2) ** 0.5 * rng.normal(size=len(prompt))
    # What a prompt adds to all its answers is not the answers' doing.
    shared = rng.normal(0, 3, (2, prompts))
    return x + shared[0, prompt], y + shared[1, prompt], prompt


def test_correlations_are_scipys_of_what_is_left_within_prompts() -> None:
    x, y, prompt = drawn(80, 0.4, np.random.default_rng(0))
    y[3] = np.nan
    there = ~np.isnan(y)
    sizes = np.bincount(prompt[there], minlength=80)
    chosen = [np.flatnonzero(there & (prompt == p)) for p in range(80) if sizes[p] > 1]
    found = correlate_within(x, y, prompt, seed=0)
    pearson = stats.pearsonr(*(np.concatenate([v[rows] - v[rows].mean() for rows in chosen]) for v in (x, y)))
    ranks = [np.concatenate([stats.rankdata(v[rows]) - (len(rows) + 1) / 2 for rows in chosen]) for v in (x, y)]
    assert found.correlation == pytest.approx(pearson.statistic)
    assert found.spearman == pytest.approx(stats.pearsonr(*ranks).statistic)
    assert (found.n, found.prompts) == (sum(map(len, chosen)), len(chosen))


def test_of_pairs_the_rank_correlation_is_how_much_oftener_the_longer_one_wins() -> None:
    rows = [pair(f"q{n}", "long answer" if n < 70 else "a", "short") for n in range(100)]
    table = build_table(rows, [[1.0, 0.0]] * 100)
    assert measure_length(table).spearman == pytest.approx(0.7 - 0.3)
    assert measure_length(table, unit="tokens").n == 0


def held(prompts: int, rho: float, replications: int) -> float:
    rng = np.random.default_rng(1)
    count = 0
    for n in range(replications):
        low, high = correlate_within(*drawn(prompts, rho, rng), seed=n).correlation_ci or (0, 0)
        count += low <= rho <= high
    return count / replications


def test_intervals_of_correlations_cover() -> None:
    assert held(80, 0.5, 250) >= 0.91


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_intervals_of_correlations_cover_closely(rho: float) -> None:
    share = held(150, rho, 1500)
    print(f"correlation {rho}: {share:.3f}")
    assert 0.925 <= share <= 0.97


def test_style_is_found_where_it_is_planted() -> None:
    rng = np.random.default_rng(0)
    rows, scores = [], []
    for n in range(300):
        items = rng.integers(0, 5, 2)
        rows.append(pair(f"q{n}", *("word\n" + "- item\n" * k for k in items)))
        scores.append([float(k) + rng.normal() for k in items])
    found = measure_style(build_table(rows, scores))
    assert list(found) == ["lists", "headings", "bold"]
    assert found["lists"].correlation is not None and found["lists"].correlation > 0.6
    assert found["headings"].correlation is None and found["bold"].correlation_ci is None


def test_a_constant_correlates_with_nothing() -> None:
    ramp, place = np.arange(6.0), np.zeros(6, np.int64)
    for constant in (np.zeros(6), np.full(6, 0.1)):
        for x, y in ((constant, ramp), (ramp, constant)):
            found = correlate_within(x, y, place, seed=0)
            assert (found.correlation, found.spearman) == (None, None)
