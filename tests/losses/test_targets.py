"""targets.py: the step's loss is the same however its Groups are spread over packs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelled import AT_LEAVES, group_of, groups, loss_settings
from plaudit import Group, InternalError, Preference, Ranking
from plaudit.losses import Items, LossName, LossSettings, Targets, build_items, compute_loss, join_items


@settings(max_examples=60)
@given(st.lists(groups(), min_size=7, max_size=14), loss_settings(AT_LEAVES), st.integers(0, 2**20))
def test_one_pack_or_seven_is_the_same_sum_and_the_same_slope(
    many: list[Group], chosen: LossSettings, seed: int
) -> None:
    random = np.random.default_rng(seed)
    found = [(build_items(g, [True] * len(g.completions), chosen), g) for g in many]
    held = [(items, g) for items, g in found if isinstance(items, Items)]
    scores = [torch.tensor(random.normal(size=len(g.completions)), requires_grad=True) for _, g in held]

    def lay(chosen_numbers: list[int]) -> tuple[torch.Tensor, float]:
        """The loss of a pack that holds these Groups, its leaves in another order than theirs."""
        members = [(n, k) for n in chosen_numbers for k in range(len(scores[n]))]
        members = [members[i] for i in random.permutation(len(members))]
        leaf_of = {n: {k: leaf for leaf, (m, k) in enumerate(members) if m == n} for n in chosen_numbers}
        targets = join_items([(held[n][0], leaf_of[n]) for n in chosen_numbers])
        score_L = torch.stack([scores[n][k] for n, k in members]) if members else torch.zeros(0)
        return compute_loss(score_L, targets, chosen), targets.count

    whole, count = lay(list(range(len(held))))
    pieces = [lay([int(n) for n in part]) for part in np.array_split(random.permutation(len(held)), 7)]
    parts = torch.stack([loss for loss, _ in pieces]).sum()
    assert float(parts.detach()) == pytest.approx(float(whole.detach()), rel=1e-9, abs=1e-12)
    assert sum(n for _, n in pieces) == pytest.approx(count)
    if held:
        slopes = [torch.autograd.grad(total, scores, allow_unused=True, retain_graph=True) for total in (whole, parts)]
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", AT_LEAVES)
def test_nothing_to_compare_is_zero_and_still_has_a_slope(name: LossName) -> None:
    score_L = torch.randn(3, requires_grad=True)
    loss = compute_loss(score_L, join_items([]), LossSettings(name=name, center=0.1))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert score_L.grad is not None
    assert score_L.grad.tolist() == [0.0] * 3


def test_what_a_step_of_groups_weighs() -> None:
    """Two Groups count alike although one has three comparisons; of comparisons each counts."""
    ranked, single = group_of(3, Ranking(order=(0, 1, 2))), group_of(2, Preference(better=0, worse=1))
    score = {3: [3.0, 1.0, 0.0], 2: [0.0, 1.0]}

    def step(mean_over: str) -> float:
        chosen = LossSettings(mean_over=mean_over)  # type: ignore[arg-type]
        items = [build_items(g, [True] * len(g.completions), chosen) for g in (ranked, single)]
        assert all(isinstance(x, Items) for x in items)
        targets = join_items([(items[0], {0: 0, 1: 1, 2: 2}), (items[1], {0: 3, 1: 4})])  # type: ignore[list-item]
        total = compute_loss(torch.tensor([*score[3], *score[2]]), targets, chosen)
        return float(total) / targets.count

    soft = [float(np.log1p(np.exp(-d))) for d in (2.0, 3.0, 1.0, -1.0)]
    assert step("groups") == pytest.approx((sum(soft[:3]) / 3 + soft[3]) / 2)
    assert step("comparisons") == pytest.approx(sum(soft) / 4)


def test_a_score_that_the_pack_does_not_have_is_our_fault() -> None:
    items = build_items(group_of(2, Preference(better=0, worse=1)), [True, True], LossSettings())
    assert isinstance(items, Items)
    with pytest.raises(InternalError, match="completion 1"):
        join_items([(items, {0: 0})])


def test_targets_move_as_a_whole() -> None:
    items = build_items(group_of(2, Preference(better=0, worse=1)), [True, True], LossSettings())
    assert isinstance(items, Items)
    moved = join_items([(items, {0: 0, 1: 1})]).to("meta")
    assert isinstance(moved, Targets)
    assert (moved.better_C.device.type, moved.order_RK.device.type, moved.leaf_L) == ("meta", "meta", None)


def test_rankings_of_all_lengths_are_padded_with_no_place_and_the_first_tier() -> None:
    chosen = LossSettings(name=LossName.PLACKETT_LUCE)
    long, short = group_of(3, Ranking(order=(2, 0, 1))), group_of(2, Ranking(order=(1, 0)))
    held = []
    for group, leaves in ((long, {0: 4, 1: 0, 2: 2}), (short, {0: 3, 1: 1})):
        items = build_items(group, [True] * len(group.completions), chosen)
        assert isinstance(items, Items)
        held.append((items, leaves))
    targets = join_items(held)
    assert targets.order_RK.tolist() == [[2, 4, 0], [1, 3, -1]]
    assert targets.tier_RK.tolist() == [[0, 1, 2], [0, 1, 0]]
    score_L = torch.tensor([0.3, -1.0, 2.0, 0.7, -0.2])
    apart = sum(float(compute_loss(score_L, join_items([one]), chosen)) for one in held)
    assert float(compute_loss(score_L, targets, chosen)) == pytest.approx(apart, rel=1e-6)


def test_without_rankings_there_is_one_empty_column() -> None:
    """A width of zero would be an exception in every reduction over places."""
    items = build_items(group_of(2, Preference(better=0, worse=1)), [True, True], LossSettings())
    assert isinstance(items, Items)
    targets = join_items([(items, {0: 0, 1: 1})])
    assert (targets.order_RK.shape, targets.tier_RK.shape) == ((0, 1), (0, 1))


def test_second_readings_stand_at_the_places_of_the_first() -> None:
    """A Group that is read twice and one that is read once, their scores in any order."""
    chosen = LossSettings()
    items = build_items(group_of(2, Preference(better=0, worse=1)), [True, True], chosen)
    assert isinstance(items, Items)
    targets = join_items([(items, {0: 3, 1: 1}, {3: 0, 1: 5}), (items, {0: 2, 1: 4})])
    assert targets.leaf_L is not None and targets.leaf_L.tolist() == [1, 2, 3, 4]
    assert targets.closing_L is not None and targets.closing_L.tolist() == [0, 5, 2, 0, 4, 5]
    score_L = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    soft = [float(np.log1p(np.exp(-d))) for d in (3.0 - 1.0, 2.0 - 4.0, 0.0 - 5.0, 2.0 - 4.0)]
    assert float(compute_loss(score_L, targets, LossSettings(agreement=0.0))) == pytest.approx(sum(soft) / 2)
    # The better one scores 3 and 0, the worse one 1 and 5; the group that is read once has no difference.
    moved = float(compute_loss(score_L, targets, LossSettings(agreement=0.5))) - sum(soft) / 2
    assert moved == pytest.approx(0.5 * (9 + 16) / 2)
