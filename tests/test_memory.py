"""What a device offers: which one, in what precision, and how many tokens fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from plaudit import memory
from plaudit.errors import ConfigError
from plaudit.memory import choose_device, choose_dtype, find_budget, free_memory, is_out_of_memory

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs that answer."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "local_rank", "device"),
    [
        (None, None, "cuda"),
        (None, "0", "cuda:0"),
        (None, "3", "cuda:3"),
        (None, "5", "cuda:1"),
        (None, "first", "cuda"),
        ("cuda:2", "3", "cuda:2"),
        ("cuda", "3", "cuda"),
        ("cpu", "3", "cpu"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_and_by_each_process_of_torchrun_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str | None, local_rank: str | None, device: str
) -> None:
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert choose_device(name) == torch.device(device)


def test_without_a_gpu_it_is_the_cpu_whatever_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(None) == CPU
    with pytest.raises(ConfigError, match="device 'cuda' came; here there is cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("is_fast", [True, False])
def test_auto_is_bfloat16_where_it_is_fast(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    monkeypatch.setattr(memory, "has_fast_bfloat16", lambda: is_fast)
    assert choose_dtype("auto", CPU) is (torch.bfloat16 if is_fast else torch.float32)
    assert choose_dtype("float32", CPU) is torch.float32
    with pytest.raises(ConfigError, match="dtype 'int8' came; one of auto, float32, bfloat16 was needed"):
        choose_dtype("int8", CPU)


def test_a_budget_follows_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(hidden_size=1024, intermediate_size=4096)
    found = []
    for free in (0, 1 << 28, 1 << 29, 1 << 30, 1 << 50):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        found.append(find_budget(config, torch.float32, CPU))
    assert found == sorted(found)
    assert found[0] == 512
    assert found[-1] == memory.LARGEST_BUDGET["cpu"]
    assert all(tokens % 512 == 0 for tokens in found)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1 << 28)
    assert find_budget(config, torch.bfloat16, CPU) > find_budget(config, torch.float32, CPU)
    assert find_budget(SimpleNamespace(hidden_size=1024), torch.float32, CPU) == found[1]


def test_free_memory_is_some_and_not_more_than_there_is() -> None:
    assert 1 << 20 < free_memory(CPU) <= 1 << 50


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it
