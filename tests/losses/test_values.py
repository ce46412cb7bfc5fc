"""Every loss against numbers worked out by hand, and the options that all of them share."""

from __future__ import annotations

import math

import pytest
import torch

from labelled import COMPARING, group_of
from plaudit import Group, Preference, Ranking, Ratings, Tie
from plaudit.losses import (
    Items,
    LossName,
    LossSettings,
    OrdinalState,
    build_items,
    combine_scores,
    compute_loss,
    join_items,
    loss_of,
)

LN2 = math.log(2)
PAIR = group_of(2, Preference(better=0, worse=1))
WIDE = group_of(2, Preference(better=0, worse=1, margin=0.5))
TIE = group_of(2, Tie(tie=(0, 1)))
AT_GAPS = [name for name in COMPARING if name is not LossName.TOKEN_WISE]


def value(name: LossName, group: Group, scores: list[float], **rest: object) -> float:
    return loss_of(group, scores, LossSettings(name=name, **rest))  # type: ignore[arg-type]


# log(1 + e^-1) = 0.313262, log(1 + e^1) = 1.313262, log(1 + e^-0.5) = 0.474077, log(1 + e^1.5) = 1.701413


@pytest.mark.parametrize(
    ("name", "group", "scores", "expected"),
    [
        (LossName.BRADLEY_TERRY, PAIR, [2.0, 1.0], 0.313262),
        (LossName.BRADLEY_TERRY, PAIR, [1.0, 2.0], 1.313262),
        (LossName.BRADLEY_TERRY, PAIR, [0.0, 0.0], LN2),
        (LossName.BRADLEY_TERRY, WIDE, [2.0, 1.0], 0.474077),
        (LossName.BRADLEY_TERRY, TIE, [2.0, 1.0], 0.813262),
        (LossName.LOG_EXP, PAIR, [2.0, 1.0], 0.313262),
        (LossName.LOG_EXP, WIDE, [2.0, 1.0], 0.313262),
        (LossName.LOG_EXP, TIE, [2.0, 1.0], 0.813262),
        (LossName.HINGE, PAIR, [2.0, 1.5], 0.5),
        (LossName.HINGE, PAIR, [3.0, 1.0], 0.0),
        (LossName.HINGE, PAIR, [0.0, 2.0], 3.0),
        (LossName.HINGE, WIDE, [2.0, 1.75], 0.25),
        (LossName.HINGE, TIE, [0.5, 0.0], 1.0),
        (LossName.HINGE, TIE, [3.0, 0.0], 2.0),
        (LossName.SCALED_BT, PAIR, [2.0, 1.0], 0.313262),
        (LossName.SCALED_BT, WIDE, [2.0, 1.0], 0.156631),
        (LossName.SCALED_BT, TIE, [2.0, 1.0], 0.813262),
        (LossName.PLACKETT_LUCE, PAIR, [2.0, 1.0], 0.313262),
        (LossName.PLACKETT_LUCE, TIE, [2.0, 1.0], 0.813262),
        # log(e² + e + 1) - 2 = 0.407606, and 0.313262 for the second choice; their mean is the loss.
        (LossName.PLACKETT_LUCE, group_of(3, Ranking(order=(0, 1, 2))), [2.0, 1.0, 0.0], 0.360434),
        (LossName.PLACKETT_LUCE, group_of(3, Ratings(ratings=(9.0, 2.0, 1.0))), [2.0, 1.0, 0.0], 0.360434),
        (LossName.REGRESSION, group_of(2, Ratings(ratings=(3.0, None))), [1.0, 7.0], 4.0),
        (LossName.REGRESSION, group_of(2, Ratings(ratings=(3.0, 1.0))), [1.0, 2.0], 2.5),
    ],
)
def test_by_hand(name: LossName, group: Group, scores: list[float], expected: float) -> None:
    assert value(name, group, scores) == pytest.approx(expected, abs=2e-6)


def test_regression_standardises_ratings() -> None:
    found = value(LossName.REGRESSION, group_of(1, Ratings(ratings=(7.0,))), [1.0], means=(4.0,), spreads=(2.0,))
    assert found == pytest.approx(0.25)  # (1 - 1.5)²


def test_regression_of_several_attributes() -> None:
    chosen = LossSettings(
        name=LossName.REGRESSION, attributes=("a", "b"), means=(1.0, 0.0), spreads=(1.0, 10.0), mean_over="comparisons"
    )
    group = group_of(2, Ratings(ratings=(2.0, None), by="a"), Ratings(ratings=(5.0, 20.0), by="b"))
    items = build_items(group, [True, True], chosen)
    assert isinstance(items, Items)
    score_LA = torch.tensor([[0.0, 9.0], [3.0, 0.5]])
    total = compute_loss(score_LA, join_items([(items, {0: 1, 1: 0})]), chosen)
    # Completion 0 is at leaf 1: (3 - 1)², (0.5 - 0.5)²; completion 1 at leaf 0: (9 - 2)².
    assert float(total) == pytest.approx(4 + 0 + 49)
    assert items.count == 3
    assert combine_scores(score_LA, chosen).tolist() == [4.5, 1.75]
    assert combine_scores(score_LA[:, 0], chosen).tolist() == [0.0, 3.0]


def test_a_tie_of_two_in_a_ranking_is_the_mean_over_both_orders() -> None:
    scores = [0.3, 1.1, -0.4, 2.0]
    tied = group_of(4, Ratings(ratings=(2.0, 3.0, 2.0, 1.0)))
    orders = [group_of(4, Ranking(order=(1, *two, 3))) for two in ((0, 2), (2, 0))]
    expected = sum(value(LossName.PLACKETT_LUCE, group, scores) for group in orders) / 2
    assert value(LossName.PLACKETT_LUCE, tied, scores) == pytest.approx(expected, rel=1e-6)


def test_tied_completions_that_are_dropped_are_chosen_against_those_below_alone() -> None:
    tied = group_of(3, Ratings(ratings=(2.0, 2.0, 1.0)))
    found = value(LossName.PLACKETT_LUCE, tied, [2.0, 1.0, 0.0], ties="drop")
    assert found == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2, rel=1e-6)


# Smoothing, weights, annotators, centering: the same for all.


@pytest.mark.parametrize("name", AT_GAPS)
def test_label_smoothing_is_the_other_side_by_its_share(name: LossName) -> None:
    right, wrong = (value(name, PAIR, scores) for scores in ([2.0, 0.5], [0.5, 2.0]))
    smoothed = value(name, PAIR, [2.0, 0.5], label_smoothing=0.1)
    assert smoothed == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-6)


@pytest.mark.parametrize("name", AT_GAPS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_tie_is_half_a_win_each_way_however_labels_are_smoothed(name: LossName, smoothing: float) -> None:
    graded = {"cuts": (), "grade_shares": (0.5, 0.5)}
    found = value(name, TIE, [2.0, 0.5], label_smoothing=smoothing, **graded)
    assert found == pytest.approx(value(name, group_of(2, Tie(tie=(1, 0))), [2.0, 0.5], **graded), rel=1e-6)
    if name is not LossName.ORDINAL:  # whose tie is a grade of its own
        ways = [value(name, PAIR, scores) for scores in ([2.0, 0.5], [0.5, 2.0])]
        assert found == pytest.approx(sum(ways) / 2, rel=1e-6)


@pytest.mark.parametrize("name", [*AT_GAPS, LossName.PLACKETT_LUCE])
def test_weights_of_labels_and_annotators_multiply_in_a_weighted_mean(name: LossName) -> None:
    group = group_of(
        2, Preference(better=0, worse=1, weight=3.0, by="ann1"), Preference(better=1, worse=0, weight=1.0, by="ann2")
    )
    one, other = (value(name, PAIR, scores) for scores in ([2.0, 0.5], [0.5, 2.0]))
    for mean_over in ("groups", "comparisons"):
        found = value(name, group, [2.0, 0.5], annotators={"ann1": 0.5}, mean_over=mean_over)
        assert found == pytest.approx((1.5 * one + 1.0 * other) / 2.5, rel=1e-6)


def test_weights_of_ratings() -> None:
    group = group_of(1, Ratings(ratings=(1.0,), weight=3.0, by="a"), Ratings(ratings=(2.0,), by="b"))
    found = value(LossName.REGRESSION, group, [0.0], annotators={"a": 2.0})
    assert found == pytest.approx((6 * 1 + 4) / 7)


@pytest.mark.parametrize("name", [*AT_GAPS, LossName.PLACKETT_LUCE])
def test_centering_adds_the_square_of_the_sum(name: LossName) -> None:
    plain, centered = (value(name, PAIR, [2.0, 0.5], center=c) for c in (0.0, 0.1))
    assert centered - plain == pytest.approx(0.1 * 2.5**2, rel=1e-5)


def test_centering_weighs_a_ranking_by_the_choices_that_its_mean_counts() -> None:
    """With ties=drop the two tied last are no choices: the ranking is one item, and is centered as one."""
    tied_last = group_of(3, Ratings(ratings=(2.0, 1.0, 1.0)))
    scores, mean = [3.0, 2.0, 1.0], 2.0
    for ties in ("drop", "half"):
        plain, centered = (value(LossName.PLACKETT_LUCE, tied_last, scores, ties=ties, center=c) for c in (0.0, 0.1))
        assert centered - plain == pytest.approx(0.1 * (2 * mean) ** 2, rel=1e-5), ties


def test_centering_of_a_ranking_is_of_its_mean_and_of_a_rating_its_own() -> None:
    ranked = group_of(3, Ranking(order=(0, 1, 2)))
    plain, centered = (value(LossName.PLACKETT_LUCE, ranked, [3.0, 2.0, 1.0], center=c) for c in (0.0, 0.1))
    assert centered - plain == pytest.approx(0.1 * 4.0**2, rel=1e-5)
    rated = group_of(1, Ratings(ratings=(1.0,)))
    assert value(LossName.REGRESSION, rated, [1.5], center=0.1) == pytest.approx(0.25 + 0.1 * 9)


def test_strengths_weigh_the_loss_but_not_the_mean_it_is_divided_by() -> None:
    group = group_of(2, Preference(better=0, worse=1, margin=3.0), Preference(better=0, worse=1, margin=1.0))
    found = value(LossName.SCALED_BT, group, [2.0, 1.0], strength_unit=2.0)
    assert found == pytest.approx((1.5 + 0.5) * 0.313262 / 2, rel=1e-5)


def test_ordinal_by_hand() -> None:
    """Thresholds 0.5 and 1.5, gap 1: σ(0.5) = 0.622459, σ(-0.5) = 0.377541, σ(1.5) = 0.817574."""
    chosen = LossSettings(name=LossName.ORDINAL, cuts=(1.0,))
    state = OrdinalState(chosen)
    with torch.no_grad():
        state.raw_G.copy_(torch.log(torch.expm1(torch.tensor([0.5, 1.0]) - 0.01)))
    labels = [Preference(better=0, worse=1, margin=m) for m in (0.5, 1.5, None)]
    expected = [0.622459 - 0.377541, 0.377541, 0.622459, 0.377541 - (1 - 0.817574)]
    for label, probability in zip([*labels, Tie(tie=(0, 1))], expected, strict=True):
        items = build_items(group_of(2, label), [True, True], chosen)
        assert isinstance(items, Items)
        targets = join_items([(items, {0: 0, 1: 1})])
        found = compute_loss(torch.tensor([1.0, 0.0]), targets, chosen, state)
        assert float(found.detach()) == pytest.approx(-math.log(probability), rel=1e-5), label


def test_ordinal_with_one_grade_and_no_ties_is_bradley_terry() -> None:
    for scores in ([2.0, 0.5], [-1.0, 0.5]):
        found = value(LossName.ORDINAL, PAIR, scores, ties="drop")
        assert found == pytest.approx(value(LossName.BRADLEY_TERRY, PAIR, scores), rel=1e-6)
