"""What is chosen where nobody says: passes, and groups a step."""

from __future__ import annotations

from pathlib import Path

import pytest

import plaudit
from plaudit.config import Settled, read_config
from plaudit.plan import FEATURE_EPOCHS, choose_pace, choose_rate, choose_steps, count_flops, count_steps


def settle(*overrides: str) -> Settled:
    return read_config(None, overrides, {"model": "m", "data": "d", "out": "o"})


@pytest.mark.parametrize(
    ("num_groups", "overrides", "size", "steps"),
    [
        (20, (), 8, 3),
        (152, (), 8, 19),
        (700, (), 16, 44),
        (1400, (), 32, 44),
        (1400, ("train.epochs=2",), 64, 44),
        (100_000, (), 64, 1563),
        (700, ("train.backbone=frozen",), 64, 440),
        (700, ("train.max_steps=5",), 64, 5),
        (700, ("train.groups_per_step=3",), 3, 234),
    ],
)
def test_few_data_take_small_steps(num_groups: int, overrides: tuple[str, ...], size: int, steps: int) -> None:
    settled = choose_steps(settle(*overrides), num_groups)
    assert settled.config.train.groups_per_step == size
    assert count_steps(settled, num_groups) == steps


def test_a_stream_of_unknown_length_takes_the_largest_step() -> None:
    assert choose_steps(settle("streaming=true", "train.max_steps=9"), None).config.train.groups_per_step == 64


def test_what_a_person_set_stays_and_what_was_found_says_why() -> None:
    told = choose_steps(settle("train.epochs=3", "train.groups_per_step=5", "train.backbone=frozen"), 1000)
    assert (told.config.train.epochs, told.config.train.groups_per_step) == (3.0, 5)
    found = choose_rate(choose_steps(settle("train.backbone=frozen"), 1000), 100)
    assert (found.config.train.epochs, found.config.train.learning_rate) == (FEATURE_EPOCHS, 3e-3)
    assert found.origins["train.epochs"].startswith("derived: a head on fixed features")


@pytest.mark.parametrize(("cost", "every"), [(0.0, 13), (0.03, 13), (0.05, 20), (0.09, 34), (2.0, 34)])
def test_evaluations_take_a_quarter_of_the_time_at_most_and_are_three_at_least(cost: float, every: int) -> None:
    settled = choose_pace(settle(), 100, cost)
    assert settled.config.train.eval_every == settled.config.train.save_every == every
    assert ("of the training" in settled.origin("train.eval_every")) is (cost > 0.03)
    assert choose_pace(settle("train.eval_every=7"), 100, cost).config.train.eval_every == 7


def test_a_backbone_that_learns_nothing_is_never_gone_through_backward(tiny_reward: Path) -> None:
    net = plaudit.load(tiny_reward, device="cpu")
    whole = count_flops(net)
    net.backbone.requires_grad_(False)
    assert count_flops(net) == pytest.approx(whole / 3)
