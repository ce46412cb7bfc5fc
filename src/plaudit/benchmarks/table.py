"""The table of benchmarks: by name, by what a row looks like, and from a name to files.

Last of `benchmarks`. Invariant: a name that stands for a benchmark's public files is never taken for one if a file or
folder is called so; and what the network does not give comes out as a sentence that says how to name local files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plaudit.benchmarks import (
    hhh,
    judgebench,
    llmbar,
    ppe_correctness,
    ppe_preference,
    rewardbench,
    rewardbench2,
    rmb,
    rmbench,
)
from plaudit.benchmarks.benchmark import Benchmark
from plaudit.errors import ConfigError
from plaudit.group import Group

BENCHMARKS: dict[str, Benchmark] = {
    room.BENCHMARK.name: room.BENCHMARK
    for room in (
        rewardbench, rewardbench2, rmbench, judgebench, llmbar, ppe_preference, ppe_correctness, rmb, hhh,
    )
}  # fmt: skip
"""Name -> benchmark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A benchmark that was asked for, and where its rows are."""

    benchmark: Benchmark
    paths: tuple[str, ...]


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name, or the one that a dialect of this name is of; a ConfigError lists all of them."""
    found = _find(name)
    if found is None:
        raise ConfigError(f"the benchmark {name!r} came, one of {', '.join(BENCHMARKS)} was needed")
    return found


def _find(name: str) -> Benchmark | None:
    wanted = name.lower().replace("_", "-")
    for one in BENCHMARKS.values():
        if wanted in (one.name, *one.aliases, *one.dialects):
            return one
    return None


def detect_benchmark(dialect: str, group: Group) -> Benchmark | None:
    """The benchmark that a row is of, by how it is spelled or by the source that it names; None for other data."""
    for one in BENCHMARKS.values():
        if (dialect in one.dialects and one.is_own(group)) or group.source in one.origins:
            return one
    return None


def resolve_benchmark(told: str) -> Named | None:
    """What NAME (its public files) or NAME=PATH (local ones) stands for; None where it is a path or another address."""
    name, equals, path = told.partition("=")
    found = _find(name)
    if found is None or (not equals and Path(told).expanduser().exists()):
        return None
    if equals and not path:
        raise ConfigError(f"{told!r} came; {found.name}=PATH was needed, a file, a folder or a glob")
    if equals:
        return Named(benchmark=found, paths=(path,))
    if not found.sources:
        raise ConfigError(
            f"{found.title} has no single address that can be read; take its files from {found.home} and name them: "
            f"{found.name}=PATH"
        )
    return Named(benchmark=found, paths=found.sources)


def advise(benchmark: Benchmark) -> str:
    """How to go on without a network."""
    return (
        f"without a network, take {benchmark.title}'s files from {benchmark.home} where there is one, and name them: "
        f"{benchmark.name}=PATH"
    )
