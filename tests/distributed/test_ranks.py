"""Two ranks train what one does: the same losses, the same weights, one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forks import Parent
from launches import environment, farthest, fork_ranks, free_port, read_rows, stop_after, train_command, weights_of


def same(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what depends on place, speed and rounding."""
    other = ("second", "model", "run", "curves", "mfu", "eval", "train")
    return {key: value for key, value in report.items() if not any(word in key for word in other)}


def names(run: Path) -> set[str]:
    """The files of a run; each rank has its own random state in a checkpoint."""
    found = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    return {name for name in found if "rng_state" not in name}


def test_two_ranks_are_one(trainers: Parent, place: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    [alone] = fork_ranks(trainers, train_command(place, one, "precision=float32", "--json"), 1)
    first, second = fork_ranks(trainers, train_command(place, two, "precision=float32", "--json"), 2)
    assert second == "", "a rank that writes nothing wrote on stdout"
    gap, apart = farthest(two, one)
    assert gap < 1e-4 and apart < 1e-5
    assert same(json.loads(first)) == same(json.loads(alone))
    assert names(one) == names(two)


@pytest.mark.slow
def test_masters_of_narrow_weights_move_alike(trainers: Parent, place: Path, tmp_path: Path) -> None:
    for world in (1, 2):
        fork_ranks(trainers, train_command(place, tmp_path / f"run{world}", "precision=bfloat16"), world)
    gap, apart = farthest(tmp_path / "run2", tmp_path / "run1")
    # A score of bfloat16 hidden states may move by a few of their 256 steps when packs are other ones.
    assert gap < 0.25 and apart < 0.01
    losses = [[row["loss"] for row in read_rows(tmp_path / f"run{w}") if "loss" in row] for w in (1, 2)]
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [("lora.enabled=true",), ("loss.name=plackett_luce",), ("train.budget=100000",)], ids=str
)
def test_other_runs_are_one_too(trainers: Parent, place: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    for world in (1, 3):
        fork_ranks(trainers, train_command(place, tmp_path / f"run{world}", "precision=float32", *more), world)
    gap, apart = farthest(tmp_path / "run3", tmp_path / "run1")
    assert gap < 1e-4 and apart < 1e-5


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_it_was(trainers: Parent, place: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    argv = ["precision=float32"]
    fork_ranks(trainers, train_command(place, whole, *argv), 2)
    stop_after(half, whole, 6)
    words = fork_ranks(trainers, [*train_command(place, half, *argv), "--resume"], 2)
    assert words and farthest(half, whole) == (0.0, 0.0)
    assert all(weights_of(half)[name].equal(x) for name, x in weights_of(whole).items())
    fork_ranks(trainers, [*train_command(place, half, *argv), "--resume"], 2)  # finished: both end, at once


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_ranks_and_says_so(trainers: Parent, place: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    fork_ranks(trainers, train_command(place, whole, "precision=float32"), 2)
    stop_after(half, whole, 6)
    child = trainers.start(*train_command(place, half, "precision=float32"), "--resume")
    assert child.wait() == 0 and "was written by 2 ranks, and this run has 1" in child.stderr.read_text()
    gap, apart = farthest(half, whole)
    assert gap < 1e-4 and apart < 1e-5


def test_what_the_first_rank_refuses_ends_all(trainers: Parent, place: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    port, argv = free_port(), train_command(place, tmp_path / "run")
    children = [trainers.start(*argv, env=environment(rank, 2, port)) for rank in range(2)]
    assert [child.wait() for child in children] == [2, 2]
    assert "run" in children[0].stderr.read_text() and "the first process" in children[1].stderr.read_text()


def test_ranks_that_nobody_joined_are_refused(trainers: Parent, place: Path, tmp_path: Path) -> None:
    child = trainers.start(*train_command(place, tmp_path / "run"), env={"RANK": "0", "WORLD_SIZE": "2"})
    assert child.wait() == 2 and "MASTER_ADDR" in child.stderr.read_text()
