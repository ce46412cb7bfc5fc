"""What a device offers: precision, and how many tokens fit at once.

Stands below attention and `model`. The token budget is one number that bounds memory; it is found from what is free,
not guessed from the name of the device.

Invariant: what is chosen here is a start, never a promise; running out of memory halves it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
import torch

from plaudit.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LARGEST_BUDGET = {"cpu": 8192, "cuda": 131072}
"""More tokens a pack than this gain nothing: the matrix products are already as fast as they get."""


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or without one a GPU if there is one; ConfigError if it is not on this machine.

    The processes that torchrun starts on one machine take a GPU each.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = ["cpu", *(["cuda"] if count else []), *(f"cuda:{n}" for n in range(count))]
    if name is not None and name not in here:
        raise ConfigError(f"device {name!r} came; here there is {', '.join(here)}")
    if name is None and count:
        place = os.environ.get("LOCAL_RANK", "")
        return torch.device("cuda", int(place) % count) if place.isdecimal() else torch.device("cuda")
    return torch.device(name or "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device multiplies it natively, else float32."""
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise ConfigError(f"dtype {name!r} came; one of auto, {', '.join(DTYPES)} was needed")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if has_fast_bfloat16() else torch.float32


def to_device(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """The array on the device. On a GPU the copy is queued on the current stream, and nobody waits for it."""
    found = torch.from_numpy(array)
    # Only pinned memory is copied without waiting; torch keeps it until the copy has been made.
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; on a CPU this process's share of what the container's limit leaves."""
    if device.type == "cuda":
        # What torch keeps for reuse counts as used to the driver, and is free to us: after training it may be most.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    available = 1 << 40
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
        with (
            open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit,
            open("/sys/fs/cgroup/memory.current", encoding="ascii") as used,
        ):
            available = min(available, int(limit.read()) - int(used.read()))
    except (OSError, StopIteration, ValueError):
        pass  # not Linux, or no limit: the largest budget is small next to any machine that runs a model at all
    # The processes that torchrun starts on one machine share its memory.
    return available // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def find_budget(config: Any, dtype: torch.dtype, device: torch.device) -> int:
    """Tokens a pack: as many as half of the free memory holds, in steps of 512, at most what still gains speed."""
    hidden = config.hidden_size
    wide = getattr(config, "intermediate_size", None) or 4 * hidden
    per_token = (12 * hidden + 4 * wide) * dtype.itemsize
    fitting = int(free_memory(device) // 2 // per_token)
    return max(512, min(fitting // 512 * 512, LARGEST_BUDGET.get(device.type, 4096)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))


def keep_freed_memory(device: torch.device) -> None:
    """Tell glibc's allocator to keep what is freed: fresh pages are dear, and packs on a CPU ask for the same sizes."""
    if device.type != "cpu" or os.name != "posix" or os.environ.get("MALLOC_MMAP_THRESHOLD_"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # not glibc
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 1 << 30)
    mallopt(top_pad, 64 << 20)
