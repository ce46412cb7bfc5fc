"""thresholds.py: learned beside the model, ascending, and saved to the bit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from labelled import group_of
from plaudit import ConfigError, Label, ModelError, Preference, Tie
from plaudit.losses import Items, LossName, LossSettings, OrdinalState, Targets, build_items, compute_loss, join_items
from plaudit.losses.thresholds import NARROWEST, first_thresholds

CHOSEN = LossSettings(name=LossName.ORDINAL, cuts=(1.5, 2.5), grade_shares=(0.25, 0.25, 0.25, 0.25))


def targets_of(labels: list[Label], chosen: LossSettings = CHOSEN) -> Targets:
    """Each label is a Group of two of its own."""
    held = []
    for n, label in enumerate(labels):
        items = build_items(group_of(2, label), [True, True], chosen)
        assert isinstance(items, Items)
        held.append((items, {0: 2 * n, 1: 2 * n + 1}))
    return join_items(held)


def observed(num: int, edges: tuple[float, ...]) -> tuple[torch.Tensor, list[Label]]:
    """Scores, and what somebody says of them whose grades begin at these edges."""
    made = torch.Generator().manual_seed(1)
    scores = 2 * torch.randn(num, 2, generator=made)
    noise = torch.rand(num, generator=made).logit()
    labels: list[Label] = []
    for gap, slip in zip((scores[:, 0] - scores[:, 1]).tolist(), noise.tolist(), strict=True):
        grade = sum(abs(gap + slip) > edge for edge in edges)
        side = (0, 1) if gap + slip > 0 else (1, 0)
        labels.append(Preference(better=side[0], worse=side[1], margin=float(grade)) if grade else Tie(tie=(0, 1)))
    return scores.reshape(-1), labels


def test_thresholds_of_labels_are_found() -> None:
    edges = (0.4, 1.2, 3.0)
    scores, labels = observed(4000, edges)
    targets, state = targets_of(labels), OrdinalState(CHOSEN, learning_rate=0.05)
    losses = []
    for _ in range(120):
        loss = compute_loss(scores, targets, CHOSEN, state) / targets.count
        loss.backward()
        state.step()
        losses.append(float(loss.detach()))
    assert state.thresholds().tolist() == pytest.approx(edges, abs=0.15)
    assert losses[-1] < losses[0] - 0.05


def test_first_thresholds_give_every_grade_its_share_where_scores_say_nothing() -> None:
    shares = (0.1, 0.4, 0.3, 0.2)
    chosen = LossSettings(name=LossName.ORDINAL, cuts=(1.5, 2.5), grade_shares=shares)
    labels: list[Label] = [Tie(tie=(0, 1)), *(Preference(better=0, worse=1, margin=m) for m in (1.0, 2.0, 3.0))]
    for label, share in zip(labels, shares, strict=True):
        loss = compute_loss(torch.zeros(2), targets_of([label], chosen), chosen)
        # A preference can point either way, so that each side has half of its grade's share.
        assert math.exp(-float(loss)) == pytest.approx(share if isinstance(label, Tie) else share / 2, rel=1e-5)


def test_probabilities_of_all_that_can_be_said_add_up_to_one() -> None:
    state = OrdinalState(CHOSEN)
    sides = [(a, b, m) for a, b in ((0, 1), (1, 0)) for m in (1.0, 2.0, 3.0)]
    labels: list[Label] = [Tie(tie=(0, 1)), *(Preference(better=a, worse=b, margin=m) for a, b, m in sides)]
    for gap in (-3.0, 0.0, 0.7, 20.0):
        found = [compute_loss(torch.tensor([gap, 0.0]), targets_of([label]), CHOSEN, state) for label in labels]
        assert sum(math.exp(-float(x.detach())) for x in found) == pytest.approx(1.0, rel=1e-5)


def test_thresholds_ascend_whatever_was_learned() -> None:
    state = OrdinalState(CHOSEN)
    for raw in ([-1e3, -1e3, -1e3], [50.0, -90.0, 3.0]):
        with torch.no_grad():
            state.raw_G.copy_(torch.tensor(raw))
        assert (state.thresholds().diff() > 0.9 * NARROWEST).all()
        assert state.thresholds()[0] > 0


def test_without_ties_the_first_threshold_is_zero_and_stays_there() -> None:
    chosen = LossSettings(name=LossName.ORDINAL, ties="drop", cuts=(1.5,), grade_shares=(0.3, 0.35, 0.35))
    state = OrdinalState(chosen)
    before = state.thresholds()
    labels: list[Label] = [Preference(better=0, worse=1, margin=2.0)]
    for _ in range(5):
        compute_loss(torch.tensor([0.5, 0.0]), targets_of(labels, chosen), chosen, state).backward()
        state.step()
    assert before[0] == state.thresholds()[0] == 0
    assert state.thresholds()[1] < before[1]


def test_a_grade_that_never_occurs_has_a_probability_all_the_same() -> None:
    """An evaluation set may hold ties, or grades, that the training data did not."""
    chosen = LossSettings(name=LossName.ORDINAL, cuts=(1.5,), grade_shares=(0.0, 1.0, 0.0))
    labels: list[Label] = [Tie(tie=(0, 1)), Preference(better=0, worse=1, margin=2.0)]
    for state in (None, OrdinalState(chosen)):
        for label in labels:
            assert compute_loss(torch.tensor([0.5, 0.0]), targets_of([label], chosen), chosen, state).isfinite()


def learn(state: OrdinalState, steps: int, first: int = 0) -> None:
    scores, labels = observed(400, (0.4, 1.2, 3.0))
    for n in range(first, first + steps):
        part = slice(40 * (n % 10), 40 * (n % 10) + 40)
        compute_loss(scores[2 * part.start : 2 * part.stop], targets_of(labels[part]), CHOSEN, state).backward()
        state.step()


def test_a_state_that_was_saved_goes_on_to_the_bit(tmp_path: Path) -> None:
    through, stopped = OrdinalState(CHOSEN), OrdinalState(CHOSEN)
    learn(through, 15)
    learn(stopped, 7)
    save_file(stopped.state_dict(), tmp_path / "state.safetensors")
    resumed = OrdinalState(CHOSEN)
    learn(resumed, 2)  # whatever it was before
    resumed.load_state_dict(load_file(tmp_path / "state.safetensors"))
    learn(resumed, 8, first=7)
    for name, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert resumed.card() == through.card()


def test_a_fresh_state_can_be_saved_and_loaded() -> None:
    worn, fresh = OrdinalState(CHOSEN), OrdinalState(CHOSEN)
    learn(worn, 3)
    worn.load_state_dict(fresh.state_dict())
    learn(worn, 2)
    learn(fresh, 2)
    assert torch.equal(worn.raw_G, fresh.raw_G)


def test_a_step_that_was_skipped_moves_nothing() -> None:
    state = OrdinalState(CHOSEN)
    before = state.raw_G.detach().clone()
    compute_loss(torch.tensor([math.nan, 0.0]), targets_of([Tie(tie=(0, 1))]), CHOSEN, state).backward()
    assert state.raw_G.grad is not None
    state.zero_grad()
    state.step()
    assert torch.equal(state.raw_G, before)


def test_thresholds_of_another_number_of_grades_are_refused() -> None:
    other = OrdinalState(LossSettings(name=LossName.ORDINAL, cuts=(1.0,)))
    with pytest.raises(ModelError, match="2 thresholds came from the checkpoint, and the data has 3 grades"):
        OrdinalState(CHOSEN).load_state_dict(other.state_dict())
    with pytest.raises(ModelError, match="no thresholds came"):
        other.load_state_dict({})


def test_only_ordinal_has_thresholds() -> None:
    with pytest.raises(ConfigError, match="only ordinal learns them"):
        OrdinalState(LossSettings())


def test_shares_that_do_not_fit_the_cuts_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 grade_shares came with 2 cuts"):
        first_thresholds(LossSettings(name=LossName.ORDINAL, cuts=(1.0, 2.0), grade_shares=(0.5, 0.5)))
