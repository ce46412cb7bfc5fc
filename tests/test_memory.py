"""memory.py: what a device offers, read from what is free and never from its name."""

from __future__ import annotations

import builtins
import ctypes
import io
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from plaudit import memory
from plaudit.errors import ConfigError
from plaudit.memory import (
    choose_device,
    choose_dtype,
    find_budget,
    free_memory,
    has_fast_bfloat16,
    is_out_of_memory,
    keep_freed_memory,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = SimpleNamespace(hidden_size=576, intermediate_size=1536)

Files = Callable[[dict[str, str]], None]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """What the machine's own files say."""

    def say(texts: dict[str, str]) -> None:
        def pretend(path: str, *args: Any, **options: Any) -> Any:
            if path not in texts:
                raise FileNotFoundError(path)
            return io.StringIO(texts[path])

        monkeypatch.setattr(memory, "open", pretend, raising=False)

    return say


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: size)


class TestFreeMemory:
    MEMINFO = "MemTotal: 9000 kB\nMemAvailable:    5000 kB\nBuffers: 1 kB\n"
    MAX, CURRENT = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"

    @pytest.mark.parametrize(
        ("texts", "wanted"),
        [
            ({"/proc/meminfo": MEMINFO}, 5000 << 10),
            ({"/proc/meminfo": MEMINFO, MAX: "max\n", CURRENT: "7\n"}, 5000 << 10),
            ({"/proc/meminfo": MEMINFO, MAX: "4096000\n", CURRENT: "96000\n"}, 4000000),
            ({"/proc/meminfo": MEMINFO, MAX: "99999999999\n", CURRENT: "1\n"}, 5000 << 10),
            ({"/proc/meminfo": "MemTotal: 9000 kB\n"}, 1 << 40),
            ({}, 1 << 40),
        ],
        ids=["no container", "no limit", "limit", "wide limit", "no such line", "another system"],
    )
    def test_on_a_cpu_it_is_what_is_available_within_the_limit(
        self, files: Files, texts: dict[str, str], wanted: int
    ) -> None:
        files(texts)
        assert free_memory(CPU) == wanted

    def test_on_this_machine_it_is_a_sensible_number(self) -> None:
        assert 1 << 24 < free_memory(CPU) <= 1 << 46

    def test_on_a_gpu_the_driver_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
        assert free_memory(CUDA) == 123 + 40, "what torch keeps for reuse can be reused"


class TestBudget:
    @pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
    def test_it_grows_with_what_is_free_in_steps_of_512_between_its_ends(
        self, monkeypatch: pytest.MonkeyPatch, device: torch.device
    ) -> None:
        budgets = []
        for size in [0, 1 << 20, *(n << 26 for n in range(1, 60)), 1 << 34, 1 << 40]:
            free(monkeypatch, size)
            budgets.append(find_budget(SMALL, torch.bfloat16, device))
        assert budgets == sorted(budgets) and len(set(budgets)) > 5
        assert all(budget % 512 == 0 for budget in budgets)
        assert budgets[0] == 512 and budgets[-1] == memory.LARGEST_BUDGET[device.type]

    def test_a_wider_model_or_more_precision_takes_fewer_tokens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        free(monkeypatch, 1 << 28)
        wide = SimpleNamespace(hidden_size=2304)
        small, precise, large = (
            find_budget(config, dtype, CUDA)
            for config, dtype in ((SMALL, torch.bfloat16), (SMALL, torch.float32), (wide, torch.bfloat16))
        )
        assert small > precise > large >= 512
        quarter = SimpleNamespace(hidden_size=2304, intermediate_size=4 * 2304)
        assert find_budget(quarter, torch.bfloat16, CUDA) == large, "what a configuration does not say is the usual"


class TestDevices:
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
        self, monkeypatch: pytest.MonkeyPatch, name: str | None, local_rank: str | None, device: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if local_rank is not None:
            monkeypatch.setenv("LOCAL_RANK", local_rank)
        assert choose_device(name) == torch.device(device)

    def test_without_a_gpu_it_is_the_cpu_whatever_torchrun_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert choose_device(None) == CPU
        with pytest.raises(ConfigError, match="device 'cuda' came; here there is cpu"):
            choose_device("cuda")

    @pytest.mark.parametrize("name", ["cuda:7", "tpu", ""])
    def test_one_that_is_not_there_is_refused_with_what_is(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(ConfigError, match=f"device '{name}' came; here there is cpu, cuda, cuda:0"):
            choose_device(name)


class TestPrecision:
    def test_names_are_what_they_say_and_others_are_refused(self) -> None:
        assert choose_dtype("float32", CPU) is torch.float32
        assert choose_dtype("bfloat16", CUDA) is torch.bfloat16
        with pytest.raises(ConfigError, match="dtype 'float16' came; one of auto, float32, bfloat16 was needed"):
            choose_dtype("float16", CPU)

    @pytest.mark.parametrize("is_fast", [True, False])
    def test_auto_is_bfloat16_where_it_is_native(self, is_fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = torch.bfloat16 if is_fast else torch.float32
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: is_fast)
        assert choose_dtype("auto", CUDA) is wanted
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
            monkeypatch.setattr(torch.cpu, name, lambda: is_fast)
            assert has_fast_bfloat16() is is_fast
            assert choose_dtype("auto", CPU) is wanted


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (OSError("can't allocate memory"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_running_out_of_memory_is_told_from_other_failures(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it


def test_a_pack_that_asks_for_too_much_is_running_out_of_memory() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


class TestAllocator:
    @pytest.fixture
    def told(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """What the allocator was told."""
        found: list[tuple[int, int]] = []
        library = SimpleNamespace(mallopt=lambda name, value: found.append((name, value)))
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
        return found

    def test_it_keeps_what_is_freed(self, told: list[tuple[int, int]]) -> None:
        keep_freed_memory(CPU)
        assert told == [(-4, 0), (-1, 1 << 30), (-2, 64 << 20)]

    def test_a_user_who_has_tuned_it_is_left_alone(
        self, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000")
        keep_freed_memory(CPU)
        assert told == []

    def test_packs_that_lie_on_a_gpu_ask_it_for_nothing(self, told: list[tuple[int, int]]) -> None:
        keep_freed_memory(torch.device("cuda"))
        assert told == []

    def test_other_systems_and_libraries_have_none(
        self, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
        keep_freed_memory(CPU)
        monkeypatch.setattr(memory, "os", SimpleNamespace(name="nt", environ=os.environ))
        monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("a library was opened"))
        keep_freed_memory(CPU)
        assert told == [] and builtins.open is open
