"""Every loss teaches a small linear model the order that its labels were made from, in a second."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labelled import COMPARING
from plaudit import Completion, Group, Label, Preference, Ranking, Ratings, Tie
from plaudit.losses import (
    Items,
    LossName,
    LossSettings,
    OrdinalState,
    build_items,
    compute_loss,
    find_positions,
    fit_loss,
    join_items,
)
from plaudit.pack import PackSettings, build_packs

WIDTH, ANSWERS, STEPS = 8, 4, 80
ANSWERED = tuple(Completion(content=str(k)) for k in range(ANSWERS))


def truth() -> np.ndarray:
    return np.linspace(-2, 2, WIDTH)


def label_for(name: LossName, worth_K: np.ndarray) -> list[Label]:
    """What somebody who sees these worths says, in the form that the loss is for."""
    order = tuple(int(k) for k in np.argsort(-worth_K))
    match name:
        case LossName.REGRESSION:
            return [Ratings(ratings=tuple(float(round(x)) for x in worth_K))]
        case LossName.PLACKETT_LUCE:
            return [Ranking(order=order)]
        case LossName.ORDINAL | LossName.SCALED_BT:
            gap = float(worth_K[order[0]] - worth_K[order[1]])
            near: Label = (
                Tie(tie=order[:2]) if gap < 1 else Preference(better=order[0], worse=order[1], margin=gap // 1)
            )
            return [near, Preference(better=order[0], worse=order[3], margin=4.0)]
    return [Preference(better=order[0], worse=order[1]), Preference(better=order[2], worse=order[3])]


def agreement(weight_D: torch.Tensor) -> float:
    """How often fresh completions come out in the right order."""
    features = np.random.default_rng(9).normal(size=(500, 2, WIDTH))
    told, found = features @ truth(), features @ weight_D.detach().double().numpy()
    return float(np.mean((told[:, 0] > told[:, 1]) == (found[:, 0] > found[:, 1])))


@pytest.mark.parametrize("name", [name for name in LossName if name is not LossName.TOKEN_WISE])
def test_a_linear_model_learns_the_order(name: LossName) -> None:
    features = np.random.default_rng(0).normal(size=(48, ANSWERS, WIDTH))
    worth_GK = features @ truth()
    groups = [
        Group(prompt=str(n), completions=ANSWERED, labels=tuple(label_for(name, w))) for n, w in enumerate(worth_GK)
    ]
    settings, _ = fit_loss(groups, LossSettings(name=name))
    held = []
    for n, group in enumerate(groups):
        items = build_items(group, [True] * ANSWERS, settings)
        assert isinstance(items, Items)
        held.append((items, {k: n * ANSWERS + k for k in range(ANSWERS)}))
    targets = join_items(held)
    feature_LD = torch.tensor(features.reshape(-1, WIDTH), dtype=torch.float32)
    weight_D = torch.zeros(WIDTH, requires_grad=True)
    assert agreement(weight_D) < 0.6
    state = OrdinalState(settings) if name is LossName.ORDINAL else None
    optimizer, losses = torch.optim.Adam([weight_D], lr=0.1), []
    for _ in range(STEPS):
        loss = compute_loss(feature_LD @ weight_D, targets, settings, state) / targets.count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if state is not None:
            state.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert agreement(weight_D) > 0.9


@pytest.mark.parametrize("name", [LossName.TOKEN_WISE])
def test_a_model_of_tokens_learns_which_tokens_are_good(name: LossName) -> None:
    assert name in COMPARING
    random, worth_V = np.random.default_rng(0), np.array([0.0, 0.0, 1.0, -1.0, 0.5, -0.5])
    settings, rows, groups = LossSettings(name=name), [], []
    for _ in range(40):
        prompt = random.integers(0, 2, 10)
        two = [np.concatenate([prompt, random.integers(2, 6, random.integers(3, 8))]).astype(np.int32) for _ in "ab"]
        better = int(worth_V[two[1]].mean() > worth_V[two[0]].mean())
        rows.append(two)
        groups.append(Group(prompt="", completions=ANSWERED[:2], labels=(Preference(better=better, worse=1 - better),)))
    [pack] = build_packs(rows, PackSettings(budget=1 << 20))
    leaves: list[dict[int, int]] = [{} for _ in groups]
    for leaf, (n, k) in enumerate(pack.members_L):
        leaves[n][k] = leaf
    held = [
        (items, leaves[n]) for n, g in enumerate(groups) if isinstance(items := build_items(g, [1, 1], settings), Items)
    ]
    at, positions = find_positions(pack, held)
    targets, token_P = join_items(held, positions), torch.from_numpy(pack.tree.tokens_T[at]).long()
    value_V = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([value_V], lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (compute_loss(value_V[token_P], targets, settings) / targets.count).backward()
        optimizer.step()
    assert np.argsort(value_V.detach()[2:].numpy()).tolist() == np.argsort(worth_V[2:]).tolist()
