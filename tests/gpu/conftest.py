"""Tests of the CUDA back ends: `make gpu-check`, or `pytest -m gpu tests/gpu`; without a CUDA device they skip.

`PLAUDIT_GPU_TESTS=cpu` runs them on a CPU with plain references in the place of the kernels: that shows that the tests
themselves run, and nothing about a GPU. `PLAUDIT_GPU_DEADLINE` (seconds since 1970) skips what has not begun by then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit import attend, model, trials
from reference_kernels import reference_flex, reference_varlen

HERE = Path(__file__).parent
BUDGET = "time budget"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs a GPU, and what compilers and drivers warn of is no error of ours."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Nothing begins after the deadline."""
    deadline = float(os.environ.get("PLAUDIT_GPU_DEADLINE") or "inf")
    if HERE in item.path.parents and time.time() > deadline:
        pytest.skip(BUDGET)


def half_precision_only(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The reference, refusing what FlashAttention refuses."""
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    return reference_varlen(query, *args, **kwargs)


def varlen_on_cpu(query: torch.Tensor, *args: Any, enable_gqa: bool = False, **kwargs: Any) -> torch.Tensor:
    """With the flag in its signature, where the back end looks for it."""
    return half_precision_only(query, *args, enable_gqa=enable_gqa, **kwargs)


@pytest.fixture(scope="session")
def device() -> Iterator[torch.device]:
    """The GPU; or, where that is asked for, a CPU that pretends."""
    if torch.cuda.is_available():
        yield torch.device("cuda")
        return
    if os.environ.get("PLAUDIT_GPU_TESTS") != "cpu":
        pytest.skip("no CUDA device; PLAUDIT_GPU_TESTS=cpu runs these tests with plain references of the kernels")
    ladder = partial(pretended_ladder, torch.device("cuda"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_on_cpu)
        patch.setattr(attend, "_compiled_flex", lambda: reference_flex)
        for module in (model, trials):
            patch.setattr(module, "backend_ladder", ladder)
        yield torch.device("cpu")


def pretended_ladder(cuda: torch.device, device: torch.device, *, invariant: bool = False) -> tuple[str, ...]:
    """The ladder of a GPU."""
    return attend.backend_ladder(cuda, invariant=invariant)


@pytest.fixture(scope="session")
def is_real(device: torch.device) -> bool:
    """Whether the kernels are real."""
    return device.type == "cuda"
