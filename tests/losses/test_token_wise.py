"""token_wise.py: the tokens that are asked for and paired, against token lists compared one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelled import group_of, list_sides, soft
from plaudit import Group, InternalError, Label, Preference, Ranking, Tie
from plaudit.losses import (
    Items,
    LossName,
    LossSettings,
    Positions,
    Targets,
    build_items,
    compute_loss,
    find_positions,
    join_items,
)
from plaudit.losses.token_wise import path_tokens
from plaudit.pack import Pack, PackSettings, build_packs

Rows = list[list[int]]


def score_of(prefix: list[int]) -> float:
    """A number that every prefix has for itself, as a causal model's token has."""
    return math.sin(sum((n + 1) * (token + 1.3) for n, token in enumerate(prefix)))


def slow_sum(rows: Rows, group: Group, chosen: LossSettings) -> float:
    """Every divergent position of every comparison, on the rows themselves."""
    total, sides = 0.0, list(list_sides(group, [True] * len(rows), chosen))
    for better, worse, is_tie, _, _, weight in sides:
        a, b = rows[better], rows[worse]
        size = max(len(a), len(b))
        first = next((t for t in range(size) if a[t : t + 1] != b[t : t + 1]), size - 1)
        gaps = [score_of(a[: t + 1]) - score_of(b[: t + 1]) for t in range(first, size)]
        other = 0.5 if is_tie else chosen.label_smoothing
        losses = [(1 - other) * soft(gap) + other * soft(-gap) for gap in gaps]
        total += weight * sum(losses) / len(losses)
    return total / len(sides) if chosen.mean_over == "groups" else total


def lay(
    many: list[tuple[Rows, Group]], chosen: LossSettings, *, share: bool = True
) -> tuple[Pack, np.ndarray, Positions, Targets]:
    """All Groups in one pack, and what is asked of it."""
    arrays = [[np.asarray(row, np.int32) for row in rows] for rows, _ in many]
    [pack] = build_packs(arrays, PackSettings(budget=1 << 20, share=share))
    leaf_of: dict[int, dict[int, int]] = {n: {} for n in range(len(many))}
    for leaf, (n, k) in enumerate(pack.members_L):
        leaf_of[n][k] = leaf
    held = []
    for n, (rows, group) in enumerate(many):
        items = build_items(group, [True] * len(rows), chosen)
        assert isinstance(items, Items)
        held.append((items, leaf_of[n]))
    at, positions = find_positions(pack, held)
    return pack, at, positions, join_items(held, positions)


def scores_at(pack: Pack, at: np.ndarray) -> torch.Tensor:
    """The score of every token that is asked for, by the prefix that its path spells."""
    found = {}
    for k in range(len(pack.members_L)):
        places = path_tokens(pack.tree, k)
        row = pack.tree.tokens_T[places].tolist()
        found |= {int(place): score_of(row[: n + 1]) for n, place in enumerate(places)}
    return torch.tensor([found[int(place)] for place in at], dtype=torch.float64)


@st.composite
def rows_and_group(draw: st.DrawFn) -> tuple[Rows, Group]:
    """Completions that share a prompt, long or too short to be shared, and all sorts of openings after it."""
    prompt = draw(st.lists(st.integers(0, 3), min_size=1, max_size=14))
    num = draw(st.integers(2, 4))
    opening = draw(st.lists(st.integers(0, 3), max_size=10))
    tails = draw(st.lists(st.lists(st.integers(0, 1), max_size=6), min_size=num, max_size=num))
    rows = [prompt + (opening if draw(st.booleans()) else []) + tail for tail in tails]
    several = st.lists(st.integers(0, num - 1), min_size=2, max_size=num, unique=True).map(tuple)
    kinds = st.one_of(
        several.map(lambda two: Preference(better=two[0], worse=two[1], weight=0.5)),
        several.map(lambda order: Ranking(order=order)),
        several.map(lambda tie: Tie(tie=tie)),
    )
    labels: list[Label] = draw(st.lists(kinds, min_size=1, max_size=3))
    return rows, group_of(num, *labels)


@settings(max_examples=150)
@given(st.lists(rows_and_group(), min_size=1, max_size=3), st.booleans(), st.sampled_from(("groups", "comparisons")))
def test_sums_are_those_of_token_lists_compared_one_by_one(
    many: list[tuple[Rows, Group]], share: bool, mean_over: str
) -> None:
    chosen = LossSettings(
        name=LossName.TOKEN_WISE,
        label_smoothing=0.1,
        mean_over=mean_over,  # type: ignore[arg-type]
    )
    pack, at, _, targets = lay(many, chosen, share=share)
    total = float(compute_loss(scores_at(pack, at), targets, chosen))
    assert total == pytest.approx(sum(slow_sum(rows, group, chosen) for rows, group in many), rel=1e-6, abs=1e-6)


@settings(max_examples=100)
@given(st.lists(rows_and_group(), min_size=1, max_size=3))
def test_leaves_are_among_the_tokens_so_that_accuracy_can_be_measured(many: list[tuple[Rows, Group]]) -> None:
    chosen = LossSettings(name=LossName.TOKEN_WISE)
    pack, at, _, targets = lay(many, chosen)
    score_P = scores_at(pack, at)
    assert (np.diff(at) > 0).all()
    sides = [(rows, side) for rows, group in many for side in list_sides(group, [True] * len(rows), chosen)]
    for name, n in (("better_C", 0), ("worse_C", 1)):
        expected = [score_of(rows[side[n]]) for rows, side in sides]  # type: ignore[index]
        assert score_P[getattr(targets, name)].tolist() == pytest.approx(expected)
    assert targets.leaf_L is not None
    own = sorted({score_of(row) for rows, _ in many for row in rows})
    assert sorted(set(score_P[targets.leaf_L].tolist())) == pytest.approx(own)


def test_only_divergent_tokens_and_leaves_are_asked_for() -> None:
    prompt = list(range(10))
    many = [([[*prompt, 20, 21, 22], [*prompt, 20, 30]], group_of(2, Preference(better=0, worse=1)))]
    chosen = LossSettings(name=LossName.TOKEN_WISE)
    pack, at, positions, targets = lay(many, chosen)
    assert sorted(pack.tree.tokens_T[at].tolist()) == [21, 22, 30]
    paired = [pack.tree.tokens_T[at[side]].tolist() for side in (positions.better_P, positions.worse_P)]
    assert paired == [[21, 22], [30, 30]], "the shorter one holds its last score"
    assert targets.owner_P is not None
    assert targets.owner_P.tolist() == [0, 0]


def test_a_completion_that_begins_like_another_holds_its_last_shared_token() -> None:
    many = [([[1, 2, 3, 4], [1, 2]], group_of(2, Preference(better=0, worse=1)))]
    pack, at, positions, _ = lay(many, LossSettings(name=LossName.TOKEN_WISE))
    paired = [pack.tree.tokens_T[at[side]].tolist() for side in (positions.better_P, positions.worse_P)]
    assert paired == [[3, 4], [2, 2]]


def test_two_that_are_the_same_are_compared_once_and_teach_nothing() -> None:
    many = [([[1, 2, 3], [1, 2, 3]], group_of(2, Preference(better=0, worse=1)))]
    chosen = LossSettings(name=LossName.TOKEN_WISE)
    pack, at, positions, targets = lay(many, chosen)
    assert len(positions.better_P) == 1
    score_P = scores_at(pack, at).requires_grad_()
    loss = compute_loss(score_P, targets, chosen)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert score_P.grad is not None
    assert score_P.grad.tolist() == [0.0]


def test_targets_without_positions_are_our_fault() -> None:
    chosen = LossSettings(name=LossName.TOKEN_WISE)
    items = build_items(group_of(2, Preference(better=0, worse=1)), [True, True], chosen)
    assert isinstance(items, Items)
    with pytest.raises(InternalError, match="find_positions"):
        compute_loss(torch.zeros(2), join_items([(items, {0: 0, 1: 1})]), chosen)
