"""A run that goes on from a checkpoint goes on with what it had found out: smaller packs, skipped steps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from launches import stop_after
from plaudit.committing import CommittingTrainer
from plaudit.errors import InputError
from plaudit.model import RewardNet
from schooling import Json, fit, graded_rows, settle, write_rows
from tiny import save_model

PACED = ("split.eval_share=0", "train.save_every=2", "train.keep=9", "train.epochs=1", "train.dropout=0.2")
LIMIT = 300
"""Tokens of a pack that memory does not hold, when it runs out."""


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.preparation.measure_peak", lambda *a, **k: SimpleNamespace(gflops=100.0))


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("school")
    save_model(folder / "rm")
    write_rows(folder / "pairs.jsonl", graded_rows(128))
    return folder


class Shortage:
    """Memory that runs out for large packs, in one step and never again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
        self.calls = calls
        original = RewardNet.forward

        def forward(net: RewardNet, pack: Any, at: Any = None) -> Tensor:
            if net.hf.training and pack.size > LIMIT:
                self.calls -= 1
                if self.calls == 0:
                    raise torch.OutOfMemoryError("out of memory")
            return original(net, pack, at)

        monkeypatch.setattr(RewardNet, "forward", forward)


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def go_on(school: Path, whole: Path, half: Path, step: int, *overrides: str) -> tuple[Json, list[str]]:
    """What a run does after a kill that left it with the checkpoint of this step."""
    stop_after(half, whole, step)
    report, _, said = fit(settle(school / "rm", school / "pairs.jsonl", half, *PACED, *overrides), resume=True)
    return report, said


class TestPacksThatMemoryHalved:
    @pytest.fixture
    def whole(self, school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A run whose memory ran out in its third step."""
        out = tmp_path / "whole"
        with monkeypatch.context() as patch:
            Shortage(patch, calls=3)
            report, _, said = fit(settle(school / "rm", school / "pairs.jsonl", out, *PACED, "train.budget=512"))
        assert report["budget"] == 256 and report["steps"] == 8
        assert [sentence for sentence in said if "memory" in sentence] == [
            "memory ran out: packs have 256 tokens from now on"
        ]
        return out

    def test_stay_as_they_were(self, school: Path, tmp_path: Path, whole: Path) -> None:
        report, said = go_on(school, whole, tmp_path / "half", 4, "train.budget=512")
        assert report["budget"] == 256
        assert "memory ran out at 512 tokens a pack before: 256, as since then" in said
        assert weights(tmp_path / "half") == weights(whole)

    def test_are_what_they_were_before_memory_ran_out(self, school: Path, tmp_path: Path, whole: Path) -> None:
        report, said = go_on(school, whole, tmp_path / "half", 2, "train.budget=512")
        assert report["budget"] == 512 and not any("memory ran out" in sentence for sentence in said)

    def test_are_what_someone_sets_meanwhile(self, school: Path, tmp_path: Path, whole: Path) -> None:
        report, said = go_on(school, whole, tmp_path / "half", 4, "train.budget=400")
        assert report["budget"] == 400 and not any("memory ran out" in sentence for sentence in said)


def test_steps_that_were_skipped_before_a_kill_are_in_the_report(school: Path, tmp_path: Path) -> None:
    rows = graded_rows(128)
    rows[5]["labels"][0] |= {"margin": 3e38, "weight": 9.0}  # their product is more than float32 holds
    data = write_rows(tmp_path / "rows.jsonl", rows)
    whole, lines, _ = fit(settle(school / "rm", data, tmp_path / "whole", *PACED))
    [skipped] = whole["skipped_steps"]
    assert skipped["rows"] == [rows[5]["id"]] and skipped["alone"]
    step = skipped["step"] + skipped["step"] % 2
    stop_after(tmp_path / "half", tmp_path / "whole", step)
    report, again, _ = fit(settle(school / "rm", data, tmp_path / "half", *PACED), resume=True)
    assert report["skipped_steps"] == whole["skipped_steps"]
    assert [row.get("skipped_steps") for row in again] == [row.get("skipped_steps") for row in lines]
    assert weights(tmp_path / "half") == weights(tmp_path / "whole")


def test_a_line_of_metrics_is_a_mean_over_the_steps_before_a_kill_too(school: Path, tmp_path: Path) -> None:
    told = (*PACED, "train.log_every=3")
    _, lines, _ = fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "whole", *told))
    stop_after(tmp_path / "half", tmp_path / "whole", 4)
    _, again, _ = fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "half", *told), resume=True)
    names = ("step", "loss", "accuracy", "margin", "mean_reward", "reward_std", "max_reward", "min_reward", "sharing")
    assert [[row.get(name) for name in names] for row in again] == [[row.get(name) for name in names] for row in lines]
    assert 6 in [row["step"] for row in lines]


@pytest.mark.parametrize(("written_by", "deepspeed"), [(2, True), (2, False), (1, True), (None, True)])
def test_a_deepspeed_checkpoint_of_another_number_of_ranks_is_refused(
    tmp_path: Path, written_by: int | None, deepspeed: bool
) -> None:
    told: list[str] = []
    trainer: Any = SimpleNamespace(world=1, is_deepspeed_enabled=deepspeed, tell=told.append)
    (tmp_path / "record.json").write_text(json.dumps({} if written_by is None else {"world": written_by}))
    if written_by == 2 and deepspeed:
        with pytest.raises(InputError, match="expected 2 ranks, which wrote this DeepSpeed checkpoint, got 1"):
            CommittingTrainer._check_ranks(trainer, tmp_path)
    else:
        CommittingTrainer._check_ranks(trainer, tmp_path)
        assert bool(told) is (written_by == 2)
