"""What holds for the slope of every loss: finite differences, symmetry, shifts, and scores far out."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from labelled import AT_LEAVES, COMPARING, CUTS, SHARES, group_of
from plaudit import Group, Preference, Ranking, Ratings, Tie
from plaudit.losses import (
    Items,
    LossName,
    LossSettings,
    Positions,
    Targets,
    build_items,
    compute_loss,
    join_items,
)
from plaudit.losses.ordinal import ordinal

GROUPS = [
    group_of(2, Preference(better=1, worse=0, margin=0.5)),
    group_of(3, Tie(tie=(0, 2)), Preference(better=1, worse=0, margin=2.0, weight=0.5)),
    group_of(5, Ranking(order=(4, 0, 3, 1)), Ratings(ratings=(1.0, 3.0, None, 3.0, 2.0), by="ann")),
    group_of(3, Ratings(ratings=(2.0, 2.0, 2.0))),
]
NUM = sum(len(group.completions) for group in GROUPS)
EVERY = tuple(LossName)


def settled(name: LossName, **rest: object) -> LossSettings:
    known = {"means": (2.0,), "spreads": (0.7,), "cuts": CUTS, "grade_shares": SHARES, "annotators": {"ann": 0.7}}
    return LossSettings(name=name, **(known | rest))  # type: ignore[arg-type]


def targets_of(groups: list[Group], chosen: LossSettings) -> Targets:
    """Leaf after leaf; for token_wise every comparison is of two tokens a side, the leaf and the one before it."""
    held, start = [], 0
    for group in groups:
        items = build_items(group, [True] * len(group.completions), chosen)
        if isinstance(items, Items):
            held.append((items, {k: start + k for k in range(len(group.completions))}))
        start += len(group.completions)
    if chosen.name is not LossName.TOKEN_WISE:
        return join_items(held)
    sides = [
        [leaf_of[int(k)] for items, leaf_of in held for k in getattr(items, side)] for side in ("better_C", "worse_C")
    ]
    better, worse = (torch.tensor([[2 * leaf, 2 * leaf + 1] for leaf in side]).reshape(-1).numpy() for side in sides)
    positions = Positions(
        better_P=better,
        worse_P=worse,
        owner_P=torch.arange(len(sides[0])).repeat_interleave(2).numpy(),
        leaf_of=tuple({k: 2 * leaf + 1 for k, leaf in leaf_of.items()} for _, leaf_of in held),
    )
    return join_items(held, positions)


def scores(name: LossName, size: float = 1.0, seed: int = 0) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    num = 2 * NUM if name is LossName.TOKEN_WISE else NUM
    return size * torch.randn(num, generator=made, dtype=torch.float64)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("rest", [{}, {"label_smoothing": 0.1, "center": 0.05}, {"ties": "drop", "margins": False}])
def test_slopes_are_those_of_finite_differences(name: LossName, rest: dict[str, object]) -> None:
    if name in (LossName.PLACKETT_LUCE, LossName.REGRESSION):
        rest = {key: value for key, value in rest.items() if key != "label_smoothing"}
    chosen = settled(name, **rest)
    targets = targets_of(GROUPS, chosen)
    score_L = scores(name).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: compute_loss(s, targets, chosen), (score_L,), eps=1e-6, atol=1e-7)
    [slope] = torch.autograd.grad(compute_loss(score_L, targets, chosen), score_L)
    assert float(slope.abs().sum()) > 0.1


def test_thresholds_have_the_slope_of_finite_differences() -> None:
    chosen = settled(LossName.ORDINAL, label_smoothing=0.1)
    targets = targets_of(GROUPS, chosen)
    edge_G = torch.tensor([0.3, 0.9, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s, t: ordinal(s, targets, chosen, t), (scores(LossName.ORDINAL).requires_grad_(), edge_G), atol=1e-7
    )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [1e4, 30.0, 1e-30, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_slope_are_finite_however_far_out_scores_are(name: LossName, size: float, dtype: torch.dtype) -> None:
    chosen = settled(name, center=0.01)
    score_L = scores(name, size).to(dtype).requires_grad_()
    loss = compute_loss(score_L, targets_of(GROUPS, chosen), chosen)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert score_L.grad is not None
    assert score_L.grad.isfinite().all()


@pytest.mark.parametrize("name", EVERY)
def test_nothing_stays_behind_on_the_cpu(name: LossName) -> None:
    """Scores and targets are on a device; a tensor that was made elsewhere on the way would be refused by it."""
    chosen = settled(name, center=0.01)
    score_L, targets = scores(name).float().to("meta").requires_grad_(), targets_of(GROUPS, chosen).to("meta")
    loss = compute_loss(score_L, targets, chosen)
    loss.backward()
    assert loss.device.type == "meta"


@pytest.mark.parametrize("name", EVERY)
def test_far_out_and_wrong_still_learns(name: LossName) -> None:
    """A loss that is flat where a comparison is badly wrong would never mend it."""
    chosen = settled(name)
    group = group_of(2, Ratings(ratings=(3.0, 1.0)))
    score_L = torch.tensor([-1e4, 1e4] if name is not LossName.TOKEN_WISE else [-1e4, -1e4, 1e4, 1e4]).requires_grad_()
    compute_loss(score_L, targets_of([group], chosen), chosen).backward()
    assert score_L.grad is not None
    own = score_L.grad[[0, -1]]
    assert own[0] < 0 < own[1]


@pytest.mark.parametrize("name", EVERY)
def test_a_shift_of_all_scores_changes_nothing_where_that_is_promised(name: LossName) -> None:
    chosen = settled(name)
    targets, score_L = targets_of(GROUPS, chosen), scores(name)
    there, shifted = (float(compute_loss(s, targets, chosen)) for s in (score_L, score_L + 3.7))
    if name is not LossName.REGRESSION:
        assert shifted == pytest.approx(there, rel=1e-12)
    else:
        assert abs(shifted - there) > 1
    assert abs(float(compute_loss(score_L + 3.7, targets, settled(name, center=0.1))) - there) > 1


@pytest.mark.parametrize("name", AT_LEAVES[:-1])
@pytest.mark.parametrize("num", [2, 3, 4])
def test_tied_completions_may_change_places(name: LossName, num: int) -> None:
    chosen = settled(name)
    values = scores(name)[:num]
    found = set()
    for order in itertools.permutations(range(num)):
        tied = group_of(num, Tie(tie=order))
        targets = targets_of([tied], chosen)
        found |= {round(float(compute_loss(values[list(turn)], targets, chosen)), 10) for turn in (range(num), order)}
    assert len(found) == 1


@pytest.mark.parametrize("name", [*COMPARING[:-1], LossName.PLACKETT_LUCE])
def test_a_tie_pulls_scores_together_and_rests_where_they_are_equal(name: LossName) -> None:
    chosen = settled(name)
    targets = targets_of([group_of(3, Tie(tie=(0, 1, 2)))], chosen)

    def slope(values: list[float]) -> Tensor:
        score_L = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        [found] = torch.autograd.grad(compute_loss(score_L, targets, chosen), score_L)
        return found

    assert slope([0.5, 0.5, 0.5]).tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    apart = slope([4.0, 0.0, -4.0])
    assert apart[0] > 0 > apart[2]


def test_ratings_with_ties_may_be_listed_in_any_order() -> None:
    chosen = settled(LossName.PLACKETT_LUCE)
    ratings, values = (2.0, 1.0, 2.0, 2.0, 3.0, 1.0), torch.randn(6, dtype=torch.float64)
    found = set()
    for turn in itertools.permutations(range(6)):
        targets = targets_of([group_of(6, Ratings(ratings=tuple(ratings[k] for k in turn)))], chosen)
        found.add(round(float(compute_loss(values[list(turn)], targets, chosen)), 10))
    assert len(found) == 1
