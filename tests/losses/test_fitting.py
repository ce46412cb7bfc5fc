"""fitting.py: what a loss has to know of the data is found, said, or refused."""

from __future__ import annotations

import random

import pytest

from labelled import group_of
from plaudit import DataError, Group, Preference, Ranking, Ratings, Tie
from plaudit.losses import LossName, LossSettings, fit_loss


def fit(name: LossName, groups: list[Group], **rest: object) -> tuple[LossSettings, str]:
    settings, notes = fit_loss(groups, LossSettings(name=name, **rest))  # type: ignore[arg-type]
    return settings, "; ".join(notes)


def margins(*values: float | None) -> list[Group]:
    return [group_of(2, Preference(better=0, worse=1, margin=value)) for value in values]


def test_mean_and_spread_of_ratings() -> None:
    groups = [group_of(2, Ratings(ratings=(1.0, 5.0))), group_of(3, Ratings(ratings=(3.0, None, 3.0)))]
    settings, said = fit(LossName.REGRESSION, groups)
    assert settings.means == (3.0,)
    assert settings.spreads == pytest.approx((2**0.5,))
    assert "4 ratings of rating: mean 3, spread 1.414" in said


def test_each_attribute_has_its_own() -> None:
    carried = {"completions": [{"truth": 10}, {"truth": 20}]}
    groups = [group_of(2, Ratings(ratings=(1.0, 3.0), by="ann/clarity"), meta=carried)]
    settings, _ = fit(LossName.REGRESSION, groups, attributes=("truth", "clarity"))
    assert (settings.means, settings.spreads) == ((15.0, 2.0), (5.0, 1.0))


def test_ratings_that_are_all_the_same_are_said() -> None:
    settings, said = fit(LossName.REGRESSION, [group_of(2, Ratings(ratings=(4.0, 4.0)))])
    assert (settings.means, settings.spreads) == ((4.0,), (1.0,))
    assert "all ratings of rating are 4" in said


def test_regression_without_ratings_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 groups, and none has ratings; take loss\.name=bradley_terry"):
        fit(LossName.REGRESSION, margins(None))


def test_an_attribute_that_nobody_rated_is_refused_with_those_that_are_there() -> None:
    group = group_of(1, Ratings(ratings=(1.0,), by="ann/clarity"), meta={"completions": [{"annotations": {"wit": 3}}]})
    with pytest.raises(DataError, match=r"loss\.attributes names truth, .* there are ratings of: clarity, wit"):
        fit(LossName.REGRESSION, [group], attributes=("clarity", "truth"))


def test_the_mean_margin_weighs_as_one() -> None:
    settings, said = fit(LossName.SCALED_BT, margins(1.0, 3.0, None, 0.0, -2.0))
    assert settings.strength_unit == 2.0
    assert "3 comparisons (60%) have margins; 2, their mean" in said


def test_scaled_bt_without_margins_says_that_it_scales_nothing() -> None:
    settings, said = fit(LossName.SCALED_BT, margins(None, 0.0))
    assert settings.strength_unit == 1.0
    assert "it learns as bradley_terry does" in said
    assert "loss.margins is false" in fit(LossName.SCALED_BT, margins(1.0), margins=False)[1]


def test_few_margins_are_grades_and_ties_one_of_their_own() -> None:
    groups = [*margins(1.0, 1.0, 2.0, 3.0), group_of(2, Tie(tie=(0, 1)))]
    settings, said = fit(LossName.ORDINAL, groups)
    assert settings.cuts == (1.5, 2.5)
    assert settings.grade_shares == pytest.approx((0.2, 0.4, 0.2, 0.2))
    assert "3 grades of preference, parted by the margins 1.5, 2.5" in said


def test_many_margins_are_cut_into_four() -> None:
    settings, _ = fit(LossName.ORDINAL, margins(*(n / 10 for n in range(1, 101))))
    assert settings.cuts == pytest.approx((2.575, 5.05, 7.525))
    assert settings.grade_shares == pytest.approx((0.0, 0.25, 0.25, 0.25, 0.25))


def test_ordinal_without_margins_has_one_grade_and_says_so() -> None:
    settings, said = fit(LossName.ORDINAL, [*margins(None, None, None), group_of(2, Tie(tie=(0, 1)))])
    assert (settings.cuts, settings.grade_shares) == ((), (0.25, 0.75))
    assert "there is one grade" in said
    settings, said = fit(LossName.ORDINAL, margins(1.0, 2.0), margins=False)
    assert (settings.cuts, settings.grade_shares) == ((), (0.0, 1.0))


@pytest.mark.parametrize("name", list(LossName))
def test_the_order_of_groups_does_not_matter(name: LossName) -> None:
    made = random.Random(0)
    groups = [group_of(3, Ratings(ratings=tuple(made.gauss(0, 1) for _ in range(3)))) for _ in range(50)]
    shuffled = made.sample(groups, len(groups))
    assert fit(name, groups) == fit(name, shuffled)


def test_margins_that_shift_are_counted_aloud() -> None:
    said = fit(LossName.BRADLEY_TERRY, [*margins(1.0, None), group_of(2, Ratings(ratings=(1.0, 2.0)))])[1]
    assert said.startswith("1 of 3 comparisons have a margin")
    assert fit(LossName.BRADLEY_TERRY, margins(1.0), margins=False)[1] == ""
    assert fit(LossName.LOG_EXP, margins(1.0))[1] == ""


@pytest.mark.parametrize("name", [LossName.BRADLEY_TERRY, LossName.ORDINAL, LossName.SCALED_BT])
def test_an_annotator_who_is_not_there_is_named(name: LossName) -> None:
    groups = [group_of(2, Preference(better=0, worse=1, by="ann1/clarity"))]
    said = fit(name, groups, annotators={"ann1": 0.5, "ann9": 2.0})[1]
    assert "loss.annotators weighs ann9, by whom no label is" in said


def test_rankings_of_two_are_no_rankings() -> None:
    assert "bradley_terry without margins" in fit(LossName.PLACKETT_LUCE, margins(None))[1]
    assert fit(LossName.PLACKETT_LUCE, [group_of(3, Ranking(order=(0, 1, 2)))])[1] == ""
