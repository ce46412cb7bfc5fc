"""items.py: every claim of every label is in the items, or counted with a reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelled import AT_LEAVES, COMPARING, group_of, groups, list_sides, loss_settings, slow_loss
from plaudit import DataError, Group, InternalError, Preference, Ranking, Ratings, Tie
from plaudit.losses import Items, LossName, LossSettings, build_items, compute_loss, join_items, loss_of
from plaudit.losses.attributes import standardise
from plaudit.losses.thresholds import first_thresholds

SCORES = st.lists(st.floats(-4, 4, width=16), min_size=5, max_size=5)
PRESENT = st.lists(st.sampled_from((True, True, True, False)), min_size=5, max_size=5)


def everyone(group: Group) -> list[bool]:
    return [True] * len(group.completions)


def built(group: Group, chosen: LossSettings, present: list[bool] | None = None) -> Items:
    items = build_items(group, everyone(group) if present is None else present, chosen)
    assert isinstance(items, Items), items
    return items


def reason(group: Group, chosen: LossSettings, **rest: object) -> str:
    found = build_items(group, rest.pop("present", everyone(group)), chosen, **rest)  # type: ignore[arg-type]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("name", AT_LEAVES)
@settings(max_examples=80)
@given(data=st.data())
def test_items_and_losses_are_what_the_labels_say_one_by_one(name: LossName, data: st.DataObject) -> None:
    group, chosen = data.draw(groups()), data.draw(loss_settings([name]))
    scores, present = data.draw(SCORES), data.draw(PRESENT)
    present = present[: len(group.completions)]
    edges = first_thresholds(chosen).tolist()
    expected = slow_loss(group, present, scores, chosen, edges)
    items = build_items(group, present, chosen)
    if expected is None:
        assert isinstance(items, str)
        return
    assert isinstance(items, Items), items
    targets = join_items([(items, {k: k for k in range(len(scores))})])
    total = float(compute_loss(torch.tensor(scores, dtype=torch.float64), targets, chosen))
    assert total == pytest.approx(expected[0], rel=2e-6, abs=2e-6)
    assert items.count == pytest.approx(expected[1])


@settings(max_examples=200)
@given(groups(), loss_settings(COMPARING), PRESENT)
def test_every_comparison_is_there_or_counted(group: Group, chosen: LossSettings, present: list[bool]) -> None:
    present = present[: len(group.completions)]
    items = build_items(group, present, chosen)
    told = len(list(group.comparisons()))
    kept = list(list_sides(group, present, chosen))
    if isinstance(items, str):
        assert kept == []
        return
    assert [(b, w, t) for b, w, t, *_ in kept] == list(
        zip(items.better_C.tolist(), items.worse_C.tolist(), items.is_tie_C.tolist(), strict=True)
    )
    assert len(kept) + sum(n for _, n in items.left_out) == told
    assert all(present[k] for k in items.completions())
    assert items.weight_C.sum() == pytest.approx(items.count, rel=1e-6)


@settings(max_examples=100)
@given(groups(), loss_settings())
def test_a_group_counts_one_unless_its_labels_weigh_less(group: Group, chosen: LossSettings) -> None:
    items = build_items(group, everyone(group), chosen)
    if isinstance(items, str) or chosen.mean_over != "groups":
        return
    most = max(label.weight for label in group.labels) * max(1.0, *chosen.annotators.values(), 0.0)
    assert 0 < items.count <= most + 1e-9
    if all(label.weight == 1 for label in group.labels) and not chosen.annotators:
        assert items.count == pytest.approx(1.0)


def test_comparisons_are_there_for_every_loss_since_accuracy_is_measured_by_them() -> None:
    group = group_of(3, Ratings(ratings=(3.0, 1.0, 2.0)))
    for name in LossName:
        items = built(group, LossSettings(name=name))
        assert list(zip(items.better_C.tolist(), items.worse_C.tolist(), strict=True)) == [(0, 1), (0, 2), (2, 1)]


def test_what_margins_mean_depends_on_the_loss() -> None:
    group = group_of(2, Preference(better=0, worse=1, margin=0.5), Preference(better=1, worse=0))
    rated = group_of(2, Ratings(ratings=(9.0, 2.0)))

    def margins(name: LossName, of: Group = group, **rest: bool) -> list[float]:
        return built(of, LossSettings(name=name, **rest)).margin_C.tolist()  # type: ignore[arg-type]

    assert margins(LossName.BRADLEY_TERRY) == [0.5, 0.0]
    assert margins(LossName.BRADLEY_TERRY, margins=False) == [0.0, 0.0]
    assert margins(LossName.HINGE) == [0.5, 1.0]
    assert margins(LossName.HINGE, margins=False) == [1.0, 1.0]
    assert margins(LossName.BRADLEY_TERRY, rated) == [0.0], "a difference of ratings is no amount of score"
    assert margins(LossName.HINGE, rated) == [1.0]
    strengths = built(rated, LossSettings(name=LossName.SCALED_BT, strength_unit=3.5)).strength_C
    assert strengths.tolist() == [2.0]


def test_the_strength_of_a_comparison_is_the_size_of_its_margin() -> None:
    labels = [Preference(better=0, worse=1, margin=m) for m in (0.5, -0.5, None)]
    settings = LossSettings(name=LossName.SCALED_BT, strength_unit=2.0)
    assert built(group_of(2, *labels), settings).strength_C.tolist() == [0.25, 0.25, 1.0]


def test_grades_are_cut_by_margin_and_a_label_without_one_has_none() -> None:
    chosen = LossSettings(name=LossName.ORDINAL, cuts=(1.0, 2.0))
    labels = [Preference(better=0, worse=1, margin=m) for m in (0.5, 1.0, 1.5, -2.5, None)]
    items = built(group_of(2, *labels, Tie(tie=(0, 1))), chosen)
    assert items.grade_C.tolist() == [1, 2, 2, 3, -1, 0]
    unmeasured = built(group_of(2, labels[0], Tie(tie=(0, 1))), LossSettings(name=LossName.ORDINAL, margins=False))
    assert unmeasured.grade_C.tolist() == [-1, 0]


def test_orders_keep_ties_in_tiers_and_are_padded() -> None:
    chosen = LossSettings(name=LossName.PLACKETT_LUCE)
    items = built(group_of(4, Ratings(ratings=(2.0, None, 5.0, 2.0)), Ranking(order=(3, 1))), chosen)
    assert items.order_RK.tolist() == [[2, 0, 3], [3, 1, -1]]
    assert items.tier_RK.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert items.order_weight_R.tolist() == pytest.approx([1 / 3, 1 / 3]), "three choices in all"


def test_a_completion_that_is_absent_leaves_the_rest_of_a_ranking() -> None:
    chosen = LossSettings(name=LossName.PLACKETT_LUCE)
    items = built(group_of(3, Ranking(order=(2, 0, 1))), chosen, present=[False, True, True])
    assert items.order_RK.tolist() == [[2, 1]]
    assert items.left_out == (("a completion that is compared was left out", 1),)


def test_what_became_the_same_tokens_is_left_out_and_counted() -> None:
    group = group_of(3, Preference(better=0, worse=1), Preference(better=1, worse=0), Preference(better=0, worse=2))
    items = build_items(group, [True] * 3, LossSettings(), identical=[(0, 1)])
    assert isinstance(items, Items)
    assert (items.better_C.tolist(), items.worse_C.tolist()) == ([0], [2])
    assert items.left_out == (("the completions that are compared are the same tokens", 2),)
    ranked = group_of(3, Ranking(order=(0, 2, 1)))
    items = build_items(ranked, [True] * 3, LossSettings(name=LossName.PLACKETT_LUCE), identical=[(0, 1)])
    assert isinstance(items, Items)
    assert items.order_RK.tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("group", "chosen", "words"),
    [
        (group_of(2), LossSettings(), "no labels"),
        (group_of(2, Tie(tie=(0, 1))), LossSettings(ties="drop"), "tied, and loss.ties is drop"),
        (group_of(2, Tie(tie=(0, 1))), LossSettings(name=LossName.PLACKETT_LUCE, ties="drop"), "tied"),
        (group_of(2, Preference(better=0, worse=1, weight=0.0)), LossSettings(), "of weight zero"),
        (group_of(2, Preference(better=0, worse=1, by="x")), LossSettings(annotators={"x": 0.0}), "of weight zero"),
        (group_of(2, Preference(better=0, worse=1, margin=0.0)), LossSettings(name=LossName.SCALED_BT), "margin zero"),
        (group_of(2, Preference(better=0, worse=1)), LossSettings(name=LossName.REGRESSION), "no ratings"),
        (group_of(2, Ratings(ratings=(None, None))), LossSettings(name=LossName.REGRESSION), "no ratings"),
        (group_of(1, Ratings(ratings=(3.0,))), LossSettings(), "nothing in its labels compares two"),
        (group_of(2, Ratings(ratings=(3.0, None))), LossSettings(name=LossName.PLACKETT_LUCE), "nothing in its labels"),
    ],
)
def test_a_group_that_teaches_nothing_says_why(group: Group, chosen: LossSettings, words: str) -> None:
    assert words in reason(group, chosen)


def test_absent_completions_can_leave_nothing() -> None:
    group = group_of(2, Preference(better=0, worse=1))
    for name in (LossName.BRADLEY_TERRY, LossName.PLACKETT_LUCE):
        found = reason(group, LossSettings(name=name), present=[True, False])
        assert found == "a completion that is compared was left out"
    found = reason(
        group_of(1, Ratings(ratings=(1.0,))), LossSettings(name=LossName.REGRESSION), present=np.array([False])
    )
    assert found == "a completion that is rated was left out"


def test_one_rated_completion_is_enough_for_regression() -> None:
    items = built(group_of(1, Ratings(ratings=(3.0,))), LossSettings(name=LossName.REGRESSION))
    assert items.completions() == [0]
    assert (items.count, len(items.better_C)) == (1.0, 0)


def test_flags_that_are_not_one_a_completion_are_our_fault() -> None:
    with pytest.raises(InternalError, match="3 flags came for 2 completions"):
        build_items(group_of(2), [True] * 3, LossSettings())


def test_the_loss_of_a_group_that_teaches_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no labels"):
        loss_of(group_of(2), [0.0, 1.0], LossSettings())


class TestAttributes:
    CHOSEN = LossSettings(
        name=LossName.REGRESSION,
        attributes=("clarity", "truth"),
        means=(3.0, 0.0),
        spreads=(2.0, 1.0),
        annotators={"ann1": 0.5},
    )

    def test_ratings_are_found_by_the_name_of_their_label(self) -> None:
        group = group_of(
            2,
            Ratings(ratings=(5.0, None), by="clarity"),
            Ratings(ratings=(1.0, 2.0), by="ann1/truth"),
            Ratings(ratings=(9.0, 9.0), by="overall"),
        )
        items = built(group, self.CHOSEN)
        found = zip(items.rated_N, items.attribute_N, items.rating_N, items.rating_weight_N * 3, strict=True)
        assert [(int(k), int(a), float(r), round(float(w), 6)) for k, a, r, w in found] == [
            (0, 0, 5.0, 1.0),
            (0, 1, 1.0, 0.5),
            (1, 1, 2.0, 0.5),
        ]
        assert items.is_tie_C.tolist() == [True], "the overall rating is what accuracy is measured by"

    def test_without_a_label_the_numbers_beside_the_completions_are_read(self) -> None:
        carried = [
            {"clarity": 4, "annotations": {"truth": {"Rating": "2"}}},
            {"clarity": None, "annotations": {"truth": {"Rating": "N/A"}}},
        ]
        items = built(group_of(2, meta={"completions": carried}), self.CHOSEN)
        found = list(zip(items.rated_N.tolist(), items.attribute_N.tolist(), items.rating_N.tolist(), strict=True))
        assert found == [(0, 0, 4.0), (0, 1, 2.0)]

    def test_a_label_by_the_name_counts_and_not_what_is_carried_beside_it(self) -> None:
        carried = [{"clarity": 1, "truth": 2}, {"clarity": 1, "truth": 2}]
        group = group_of(2, Ratings(ratings=(5.0, None), by="ann3/clarity"), meta={"completions": carried})
        items = built(group, self.CHOSEN)
        found = list(zip(items.rated_N.tolist(), items.attribute_N.tolist(), items.rating_N.tolist(), strict=True))
        assert found == [(0, 0, 5.0), (0, 1, 2.0), (1, 1, 2.0)]

    def test_what_is_carried_for_another_number_of_completions_is_not_read(self) -> None:
        assert reason(group_of(2, meta={"completions": [{"clarity": 4}]}), self.CHOSEN).startswith("no ratings")

    def test_attributes_alone_are_compared_by_their_weighed_sum(self) -> None:
        chosen = LossSettings(
            name=LossName.REGRESSION,
            attributes=("clarity", "truth"),
            attribute_weights=(1.0, 0.1),
            means=(3.0, 0.0),
            spreads=(2.0, 1.0),
        )
        group = group_of(
            3,
            Ratings(ratings=(1.0, 5.0, 4.0), by="clarity"),
            Ratings(ratings=(9.0, 0.0, None), by="a/truth"),
            Ratings(ratings=(1.0, 0.0, None), by="b/truth"),
        )
        items = built(group, chosen)
        # Clarity -1 and 1; the two views of truth are 5 and 0 in the mean: -1 + 0.5 is below 1 + 0.
        assert (items.better_C.tolist(), items.worse_C.tolist()) == ([1], [0])


def test_a_rating_is_standardised_by_the_mean_and_spread_of_its_attribute() -> None:
    settings = LossSettings(name=LossName.REGRESSION, attributes=("a", "b"), means=(3.0, 1.0), spreads=(2.0, 0.5))
    assert [standardise(5.0, n, settings) for n in (0, 1)] == [1.0, 8.0]
    assert standardise(5.0, 0, LossSettings(name=LossName.REGRESSION)) == 5.0
