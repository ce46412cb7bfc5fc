"""Two scorers against statsmodels' McNemar and by hand; the paired interval in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar

from plaudit.group import pair
from plaudit.measure import Table, build_table, compare_scores, measure_accuracy
from plaudit.measure.compare import measure_mcnemar
from plaudit.measure.table import Floats
from plaudit.report.comparison import build_comparison_verdict
from plaudit.report.facts import Facts

PLAIN = [pair(f"q{n}", f"a{n}", f"b{n}", subset="xyz"[n % 3], id=str(n)) for n in range(300)]


def table_of(num: int = 300) -> Table:
    return build_table(PLAIN[:num], [[0.0, 0.0]] * num)


def scores(right: Floats) -> Floats:
    """Scores that are right where it says, for pairs."""
    return np.stack([right, 1 - right], axis=1).ravel().astype(np.float64)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels(only_a: int, only_b: int) -> None:
    exact, mid = measure_mcnemar(only_a, only_b)
    if only_a + only_b:
        assert exact == pytest.approx(mcnemar([[9, only_a], [only_b, 9]], exact=True).pvalue)
        # Half of what is as likely as what was seen counts, on either side.
        total, fewer = only_a + only_b, min(only_a, only_b)
        assert mid == pytest.approx(2 * binom.cdf(fewer - 1, total, 0.5) + binom.pmf(fewer, total, 0.5))
    assert mid <= exact and measure_mcnemar(only_b, only_a) == (exact, mid)


def test_figures_by_hand() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(300) < 0.6, rng.random(300) < 0.75
    table, one, other = table_of(), scores(a), scores(b)
    other[0] = np.nan
    found = compare_scores(table, one, other)
    a, b = a[1:], b[1:]
    assert (found.n, found.prompts, found.unscored) == (299, 299, 1)
    assert (found.accuracy_a, found.accuracy_b) == (pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert (found.only_a_right, found.only_b_right) == ((a & ~b).sum(), (b & ~a).sum())
    assert found.agree == pytest.approx((a == b).mean())
    moved = b.astype(float) - a
    half = 1.96 * moved.std() / 299**0.5
    assert found.difference_ci == pytest.approx((moved.mean() - half, moved.mean() + half), abs=0.012)
    assert found.mcnemar_p < 0.01
    assert [one.n for one in found.subsets.values()] == [99, 100, 100]
    by_subset = sum(part.n * (part.difference or 0) for part in found.subsets.values())
    assert by_subset / 299 == pytest.approx(found.difference)
    assert found.as_json()["subsets"]["x"]["n"] == 99


@given(st.integers(0, 1000))
def test_swapping_the_two_swaps_the_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, one, other = table_of(40), *rng.choice([0.0, 0.5, 1.0], (2, 80))
    found, swapped = compare_scores(table, one, other), compare_scores(table, other, one)
    assert found.difference == pytest.approx(-(swapped.difference or 0))
    assert found.only_a_right == swapped.only_b_right and found.mcnemar_p == swapped.mcnemar_p
    assert found.difference_ci is not None and swapped.difference_ci is not None
    assert found.difference_ci[0] == pytest.approx(-swapped.difference_ci[1])
    assert measure_accuracy(table, scores=one).accuracy == found.accuracy_a
    parted = {(d.id, round(d.a, 9), round(d.b, 9)) for d in found.disagreements}
    assert parted == {(d.id, round(d.b, 9), round(d.a, 9)) for d in swapped.disagreements}


def test_disagreements_are_the_widest_of_either_kind() -> None:
    table = table_of(12)
    gap_a = np.array([5.0, 1, -3, 2, 2, -1, 9, 1, 1, 1, 1, 1])
    gap_b = np.array([-1.0, -2, 4, 2, -1, 1, 9, 1, 1, 1, 1, 1])
    one, other = (np.stack([gap, np.zeros(12)], axis=1).ravel() for gap in (gap_a, gap_b))
    found = compare_scores(table, one, 100 * other, keep=4).disagreements
    assert [d.id for d in found] == ["0", "1", "2", "5"]
    assert [(d.a > 0, d.b > 0) for d in found] == [(True, False)] * 2 + [(False, True)] * 2
    assert (found[0].group, found[0].better, found[0].worse, found[0].subset) == (0, 0, 1, "x")
    assert found[0].a == pytest.approx(5 / (gap_a**2).mean() ** 0.5)


def test_a_tie_of_one_model_is_no_disagreement() -> None:
    one, other = (np.stack([np.array(gap), np.zeros(3)], axis=1).ravel() for gap in ([3.0, 2.0, 1.0], [0.0, -1.0, 0.0]))
    assert [d.id for d in compare_scores(table_of(3), one, other).disagreements] == ["1"]


def test_nothing_to_compare() -> None:
    table = table_of(5)
    found = compare_scores(table, np.full(10, np.nan), np.zeros(10))
    assert (found.n, found.unscored, found.difference, found.agree, found.mcnemar_p) == (0, 5, None, None, 1.0)
    assert found.disagreements == ()


@pytest.mark.parametrize("num", [2, 3, 5])
def test_few_comparisons_that_all_agree_name_no_winner(num: int) -> None:
    found = compare_scores(table_of(num), scores(np.zeros(num)), scores(np.ones(num)))
    assert found.difference == 1.0 and found.difference_ci is not None and found.difference_ci[0] <= 0
    said = build_comparison_verdict(Facts({"pairs": [{"a": "A", "b": "B", **found.as_json()}], "models": [{}, {}]}))
    assert said.answer == "No difference is shown."
    assert said.sentence.endswith(f"Not enough evidence: {num} discordant prompts; at least 6 are needed.")


def test_six_comparisons_that_all_agree_name_one() -> None:
    found = compare_scores(table_of(6), scores(np.zeros(6)), scores(np.ones(6)))
    assert found.difference_ci is not None and found.difference_ci[0] > 0
    assert (found.p, found.mcnemar_p, found.discordant_prompts) == (pytest.approx(1 / 32), pytest.approx(1 / 32), 6)
    assert found.subsets["x"].discordant_prompts == 2 and found.subsets["x"].p == 0.5
    said = build_comparison_verdict(Facts({"pairs": [{"a": "A", "b": "B", **found.as_json()}], "models": [{}, {}]}))
    assert said.answer == "B is better." and "p = 0.031" in said.sentence


def coverage(replications: int) -> float:
    """How often the paired interval holds the true difference, where the two are right about much the same."""
    rng, held = np.random.default_rng(11), 0
    table = table_of(200)
    for _ in range(replications):
        hard = rng.random(200)
        a, b = hard < 0.65, np.where(rng.random(200) < 0.8, hard < 0.7, rng.random(200) < 0.7)
        interval = compare_scores(table, scores(a), scores(b)).difference_ci or (0, 0)
        held += interval[0] <= 0.05 <= interval[1]
    return held / replications


def test_the_paired_interval_covers() -> None:
    assert coverage(150) >= 0.9


@pytest.mark.slow
def test_the_paired_interval_covers_closely() -> None:
    share = coverage(1500)
    print(f"paired interval: {share:.3f}")
    assert 0.93 <= share <= 0.97
