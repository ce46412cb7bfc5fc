"""What is measured with a model: peaks that are the best of what was seen, back ends that are caught when they lie."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from plaudit import trials
from plaudit.attend import BACKENDS, AttentionCall, BlockPlan
from plaudit.cli.app import plain
from plaudit.errors import ConfigError, ModelError
from plaudit.model import PLAIN, RewardNet
from plaudit.pack import Pack
from plaudit.trials import (
    Backend,
    Examination,
    Peak,
    examine,
    explain_dtype,
    make_small_model,
    measure_peak,
    plan_budgets,
    try_backends,
)
from speller import save_speller

CPU = torch.device("cpu")
cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="the ladder of a CPU")


class Clock:
    """Each look at it is as much later as it was told."""

    def __init__(self, *steps: float) -> None:
        self.now, self.steps = 0.0, iter(steps)

    def perf_counter(self) -> float:
        self.now += next(self.steps)
        return self.now


def test_a_peak_is_the_best_of_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    # A warming product of 1 s; the end is looked for; then products of 0.004, 0.001 and 0.002 s, until time is up.
    steps = [0, 1, 0, 0, 0.004, 0, 0, 0.001, 0, 0, 0.002, 1]
    monkeypatch.setattr(trials, "time", Clock(*steps))
    peak = measure_peak(CPU, torch.float32, seconds=0.5)
    assert (peak.device, peak.dtype) == ("cpu", "float32")
    assert peak.gflops == pytest.approx(2 * 1024**3 / 0.001 / 1e9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_peak_is_measured_in_the_precision_that_it_names(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    multiply = torch.mm

    def spy(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        seen.extend({a.dtype, b.dtype, out.dtype})
        return multiply(a, b, out=out)

    monkeypatch.setattr(torch, "mm", spy)
    peak = measure_peak(CPU, dtype, seconds=0.01)
    assert set(seen) == {dtype}
    assert len(seen) >= 2
    assert peak.gflops > 0


@pytest.mark.parametrize(
    ("has", "dtype", "says"),
    [
        ((), torch.float32, "this CPU has neither AVX512-BF16 nor AMX, so bfloat16 would be slower than float32"),
        (("AVX512-BF16",), torch.bfloat16, "this CPU multiplies bfloat16 natively (AVX512-BF16)"),
        (("AMX", "AVX512-BF16"), torch.bfloat16, "this CPU multiplies bfloat16 natively (AMX and AVX512-BF16)"),
    ],
)
def test_the_choice_of_a_precision_is_explained(
    monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], dtype: torch.dtype, says: str
) -> None:
    for name, probe in trials.INSTRUCTIONS.items():
        monkeypatch.setattr(torch.cpu, probe, lambda name=name: name in has)
    assert trials.choose_dtype("auto", CPU) is dtype
    assert explain_dtype(CPU, dtype) == says


def test_the_small_model_is_the_same_every_time_and_costs_no_luck() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, second = make_small_model(CPU, torch.float32), make_small_model(CPU, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = zip(first.hf.parameters(), second.hf.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    narrow = make_small_model(CPU, torch.bfloat16)
    assert (narrow.dtype, narrow.head.weight.dtype) == (torch.bfloat16, torch.float32)


@cpu_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu_every_back_end_is_tried_and_one_is_used(dtype: torch.dtype) -> None:
    blocks, aligned, last = try_backends(make_small_model(CPU, dtype))
    assert blocks == Backend(name="blocks", agrees=True, is_used=True, reason="two rows packed and alone agree")
    assert (aligned.name, aligned.agrees, aligned.is_used) == ("aligned", True, False)
    assert aligned.reason.endswith("--invariant uses it")
    assert (last.name, last.agrees, last.is_used) == (PLAIN, None, False)


class Blind(BlockPlan):
    """A back end that gives every query nothing."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
        return torch.zeros_like(super().attend(query, key, value, call))


class Slipping(BlockPlan):
    """A back end that reads the value before each key's own."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
        return super().attend(query, key, value.roll(1, dims=1), call)


class Burnt(BlockPlan):
    """A back end that gives what is no number."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
        return super().attend(query, key, value, call) * torch.nan


def explode(pack: Pack, device: torch.device) -> BlockPlan:
    raise RuntimeError("no kernel image is available\nand a page of addresses")


@cpu_only
@pytest.mark.parametrize(
    ("planted", "says"),
    [
        (Blind, "packed and alone differ by"),
        (Slipping, "packed and alone differ by"),
        (Burnt, "packed and alone differ by nan"),
        (explode, "it failed on this model (no kernel image is available)"),
    ],
)
def test_a_fault_that_was_planted_is_found_and_the_back_end_left(
    monkeypatch: pytest.MonkeyPatch, planted: Callable[..., Any], says: str
) -> None:
    monkeypatch.setitem(BACKENDS, "blocks", planted)
    net = make_small_model(CPU, torch.float32)
    blocks, aligned, last = try_backends(net)
    assert (blocks.agrees, blocks.is_used) == (False, False)
    assert says in blocks.reason
    assert aligned.agrees is True
    assert (last.is_used, net.backend) == (True, PLAIN)
    assert says in last.reason
    assert says in net.notes[0]


def test_trying_the_others_leaves_the_one_in_use_where_it_was() -> None:
    net = make_small_model(CPU, torch.float32)
    kept = net.backend, net.reason, list(net.notes)
    try_backends(net)
    assert (net.backend, net.reason, net.notes) == kept


def test_an_encoder_is_not_tried_and_is_told_why(tmp_path: Path) -> None:
    net = RewardNet.load(tiny.save_model(tmp_path / "encoder", "modernbert"), device="cpu", dtype="float32")
    *others, last = try_backends(net)
    assert [(b.agrees, b.is_used) for b in others] == [(None, False)] * len(others)
    assert all("not for an encoder" in backend.reason for backend in others)
    assert last.is_used
    assert "bidirectional encoder" in last.reason


def test_budgets_follow_memory_and_the_size_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.memory.free_memory", lambda device: 1 << 30)
    small, middle, large = plan_budgets(None, CPU, torch.float32)
    assert small.tokens > middle.tokens > large.tokens >= 512
    net = make_small_model(CPU, torch.bfloat16)
    [own] = plan_budgets(net, CPU, torch.float32)
    assert (own.hidden_size, own.tokens) == (64, trials.find_budget(net.hf.config, torch.bfloat16, CPU))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks in no time."""
    monkeypatch.setattr(
        trials, "measure_peak", lambda device, dtype: Peak(device=str(device), dtype=str(dtype), gflops=1.0)
    )


@pytest.mark.usefixtures("quick")
def test_a_language_model_will_do_and_is_the_one_that_is_told_of(tmp_path: Path) -> None:
    folder = str(save_speller(tmp_path / "speller"))
    found = examine(folder, dtype="float32", device="cpu")
    assert (found.model.name, found.model.architecture) == (folder, "LlamaForSequenceClassification")
    assert (found.model.dtype, found.model.device, found.model.context_length) == ("float32", "cpu", 1024)
    assert found.model.parameters == sum(p.numel() for p in RewardNet.load(folder, new_head=True).hf.parameters())
    assert found.auto_dtype == str(trials.choose_dtype("auto", CPU)).removeprefix("torch.")
    assert [b.model for b in found.budgets] == ["this model"]
    assert [b.name for b in found.backends if b.is_used] == [found.model.backend]
    told = json.loads(json.dumps(plain(found), allow_nan=False))
    assert list(told) == [f.name for f in fields(Examination)]


@pytest.mark.usefixtures("quick")
def test_without_a_model_one_is_made_and_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RewardNet, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    found = examine(device="cpu")
    assert found.model.name is None
    assert len(found.budgets) == len(trials.SHAPES)
    assert found.warnings == trials.find_warnings(found.processor, len(found.gpus))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        ({"name": "./no-such-folder"}, ModelError, "./no-such-folder is not there"),
        ({"device": "cuda:99"}, ConfigError, "device 'cuda:99' came; here there is cpu"),
        ({"dtype": "int8"}, ConfigError, "dtype 'int8' came; one of auto, float32, bfloat16 was needed"),
    ],
)
def test_what_cannot_be_examined_is_a_sentence(words: dict[str, str], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        examine(**words)  # type: ignore[arg-type]


def test_the_gpu_is_named_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(get_device_name=lambda device: "Example GPU")
    monkeypatch.setattr(sys.modules["torch"], "cuda", cuda)
    device = torch.device("cuda")
    assert explain_dtype(device, torch.bfloat16) == "Example GPU multiplies bfloat16 natively"
    assert explain_dtype(device, torch.float32) == "Example GPU does not multiply bfloat16"
