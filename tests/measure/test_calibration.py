"""Calibration against scikit-learn and statsmodels, and in simulations where the truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from plaudit.group import pair
from plaudit.measure import Table, build_table, measure_calibration
from plaudit.measure.calibration import draw_reliability, fit_temperature, measure_ece
from plaudit.measure.table import Floats


def claimed(num: int, temperature: float, rng: np.random.Generator, spread: float = 1.5) -> Floats:
    """Better minus worse, where a gap is as good as one of gap / temperature."""
    gap = rng.normal(0, spread, num)
    return np.where(rng.random(num) < 1 / (1 + np.exp(-gap / temperature)), gap, -gap)


def table_of(gaps: Floats, prompts: int | None = None) -> Table:
    rows = [pair(f"q{n % (prompts or len(gaps))}", f"a{n}", f"b{n}") for n in range(len(gaps))]
    return build_table(rows, [[float(g), 0.0] for g in gaps])


def test_figures_are_scikit_learns() -> None:
    gaps = claimed(700, 2.0, np.random.default_rng(0))
    found = measure_calibration(table_of(gaps))
    assert found is not None and found.n == 700
    said = 1 / (1 + np.exp(-gaps))
    # An event that can happen and not: who comes first is drawn.
    first = np.random.default_rng(1).random(700) < 0.5
    event, forecast = first.astype(int), np.where(first, said, 1 - said)
    assert found.brier == pytest.approx(brier_score_loss(event, forecast))
    assert found.log_loss == pytest.approx(log_loss(event, forecast))
    sure, right = np.maximum(said, 1 - said), gaps > 0
    observed, predicted = calibration_curve(right, 2 * sure - 1, n_bins=10)
    np.testing.assert_allclose([b.observed for b in found.reliability], observed)
    np.testing.assert_allclose([b.predicted for b in found.reliability], (predicted + 1) / 2)
    counts = np.array([b.n for b in found.reliability])
    assert counts.sum() == 700 and found.ece == pytest.approx(counts @ np.abs(observed - (predicted + 1) / 2) / 700)
    assert json.loads(json.dumps(found.as_json()))["reliability"][0]["observed_ci"][0] >= 0


@pytest.mark.parametrize("prompts", [400, 60])
def test_the_temperature_is_that_of_a_logistic_regression(prompts: int) -> None:
    rng = np.random.default_rng(3)
    gaps, prompt = claimed(400, 1.7, rng), np.arange(400) % prompts
    found, interval = fit_temperature(gaps, prompt)
    flip = rng.random(400) < 0.5
    model = sm.Logit(flip.astype(float), np.where(flip, gaps, -gaps)[:, None])
    fitted = model.fit(disp=0, cov_type="cluster", cov_kwds={"groups": prompt, "use_correction": False})
    assert found == pytest.approx(1 / fitted.params[0], rel=1e-6) and interval is not None
    # Theirs of the inverse, ours of the logarithm; statsmodels divides by G where we divide by G - 1.
    error = np.log(interval[1] / interval[0]) / 2
    theirs = fitted.bse[0] / fitted.params[0] * (prompts / (prompts - 1)) ** 0.5
    assert error == pytest.approx(1.96 * theirs, rel=0.03)


@given(st.floats(0.01, 100), st.integers(0, 20))
def test_scaled_scores_have_a_scaled_temperature(scale: float, seed: int) -> None:
    gaps = claimed(150, 1.0, np.random.default_rng(seed))
    one, other = (fit_temperature(g, np.arange(150))[0] for g in (gaps, scale * gaps))
    assert one is not None and other == pytest.approx(scale * one, rel=1e-5)


def test_no_temperature_where_there_is_none() -> None:
    prompt = np.arange(60)
    assert fit_temperature(np.ones(60), prompt) == (None, None)
    assert fit_temperature(-np.ones(60), prompt) == (None, None)
    assert fit_temperature(np.zeros(60), prompt) == (None, None)
    assert fit_temperature(np.tile([1.0, -1.0], 30), prompt) == (None, None)
    one, interval = fit_temperature(np.array([3.0, 2.0, -1.0]), np.zeros(3, dtype=int))
    assert one is not None and interval is None
    found = measure_calibration(table_of(np.ones(60)))
    assert found is not None and found.ece_calibrated is None and found.reliability_calibrated == ()
    assert measure_calibration(build_table([], [])) is None


@pytest.mark.parametrize("lean", [1e-5, 1.1e-6, 0.9e-6, 1e-8])
def test_a_temperature_beyond_a_million_is_none(lean: float) -> None:
    """Gaps of 1 + lean and -1: the likelihood is highest at 1 / lean, and a million spreads are the most."""
    found, _ = fit_temperature(np.tile([1 + lean, -1.0], 30), np.arange(60))
    if lean > 1e-6:
        assert found == pytest.approx(1 / lean, rel=1e-3)
    else:
        assert found is None


@pytest.mark.parametrize("gap", [1e-9, 1e3])
def test_one_wrong_gap_is_enough_for_a_temperature_and_equal_gaps_are_not(gap: float) -> None:
    prompt = np.arange(40)
    assert fit_temperature(np.r_[np.full(39, gap), -gap], prompt)[0] == pytest.approx(gap / np.log(39))
    assert fit_temperature(np.r_[np.full(39, gap), 0.0], prompt) == (None, None)


def test_too_sure_a_scorer_is_cooled_on_prompts_it_was_not_fitted_on() -> None:
    found = measure_calibration(table_of(claimed(4000, 3.0, np.random.default_rng(5), spread=4.0)))
    assert found is not None and found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.ece_ci is not None and found.ece_ci[0] > 0.1
    assert found.ece_calibrated is not None and found.ece_calibrated < 0.03
    assert found.log_loss_calibrated is not None and found.log_loss_calibrated < found.log_loss - 0.1
    assert found.ece_calibrated_ci is not None and found.ece_calibrated_ci[0] == 0.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_left_is_not_what_the_temperature_was_fitted_on(seed: int) -> None:
    """Fitted fold by fold on the same comparisons, the loss would be below that of the one best temperature."""
    gaps = claimed(150, 2.0, np.random.default_rng(seed))
    found = measure_calibration(table_of(gaps))
    assert found is not None and found.temperature is not None and found.log_loss_calibrated is not None
    assert found.log_loss_calibrated > np.logaddexp(0, -gaps / found.temperature).mean()


def test_equal_scores_are_chance_and_half_right() -> None:
    (only,) = draw_reliability(np.zeros(20), np.arange(20), seed=0)
    assert (only.low, only.predicted, only.observed) == (0.5, 0.5, 0.5)
    assert measure_ece(np.zeros(20), np.arange(20), seed=0)[0] == 0.0


def true_error(temperature: float, spread: float = 1.5) -> float:
    """The error over the bins that endless comparisons would have."""
    gap = np.linspace(0, 12 * spread, 400_001)
    weight = np.exp(-((gap / spread) ** 2) / 2)
    sure, truth = 1 / (1 + np.exp(-gap)), 1 / (1 + np.exp(-gap / temperature))
    place = np.minimum(((sure - 0.5) * 20).astype(int), 9)
    return float(np.abs(np.bincount(place, weights=weight * (truth - sure))).sum() / weight.sum())


def coverage(num: int, temperature: float, replications: int) -> tuple[float, float]:
    """How often the intervals hold the error, and the temperature."""
    rng, truth, held = np.random.default_rng(7), true_error(temperature), np.zeros(2)
    for n in range(replications):
        gaps = claimed(num, temperature, rng)
        error = measure_ece(gaps, np.arange(num), seed=n)[1] or (0, 0)
        fitted = fit_temperature(gaps, np.arange(num))[1] or (0, 0)
        held += [error[0] <= truth <= error[1], fitted[0] <= temperature <= fitted[1]]
    return held[0] / replications, held[1] / replications


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_intervals_cover(temperature: float) -> None:
    error, fitted = coverage(300, temperature, 200)
    assert error > 0.86 and fitted > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("num", [300, 1000])
@pytest.mark.parametrize("temperature", [1.0, 1.5, 3.0])
def test_intervals_cover_closely(num: int, temperature: float) -> None:
    error, fitted = coverage(num, temperature, 500)
    print(f"{num} comparisons, temperature {temperature}: error {error:.3f}, temperature {fitted:.3f}")
    assert error > 0.87 and 0.92 < fitted < 0.98


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_a_temperature_and_its_interval_are_in_the_unit_of_the_scores(unit: float) -> None:
    gaps, prompt = claimed(60, 1.7, np.random.default_rng(5)), np.arange(60)
    found, interval = fit_temperature(gaps, prompt)
    scaled, scaled_interval = fit_temperature(gaps * unit, prompt)
    assert found is not None and interval is not None and scaled_interval is not None
    assert scaled == pytest.approx(found * unit, rel=1e-6)
    assert scaled_interval == pytest.approx([end * unit for end in interval], rel=1e-6)


def test_the_interval_of_a_temperature_has_students_reach_for_its_prompts() -> None:
    gaps, prompt = np.array([2.0, 1.0, -0.5, 1.5, 0.7, -0.2]), np.array([0, 0, 1, 2, 3, 4])
    found, interval = fit_temperature(gaps, prompt)
    assert found is not None and interval is not None
    wrong = 1 / (1 + np.exp(gaps / found))
    slopes = np.bincount(prompt, wrong * gaps)
    error = np.sqrt((slopes**2).sum() * 5 / 4) / (wrong * (1 - wrong) * gaps**2).sum() * found
    assert np.log(interval) == pytest.approx(np.log(found) + stats.t.ppf([0.025, 0.975], 4) * error)
