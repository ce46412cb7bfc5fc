"""Files of rows in the tiny vocabulary, and the command that scores them, as an argument list and as a process."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

from forks import Parent

Json = dict[str, Any]


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(f"w{rng.randrange(7, 100)}" for _ in range(rng.randrange(low, high)))


def pair_rows(n: int, seed: int = 0) -> list[Json]:
    rng = random.Random(seed)
    return [
        {
            "id": f"q{i}",
            "prompt": words(rng, 3, 30),
            "chosen": words(rng, 1, 25),
            "rejected": words(rng, 1, 25),
            "extra": {"at": i},
        }
        for i in range(n)
    ]


def group_rows(n: int, seed: int = 1) -> list[Json]:
    rng = random.Random(seed)
    return [
        {"prompt": words(rng, 3, 30), "completions": [words(rng, 1, 25) for _ in range(rng.randrange(1, 5))]}
        for _ in range(n)
    ]


def write_lines(path: Path, rows: list[Json]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[Json]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def arguments(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    settings = ["--budget", "256", "--dtype", "float32", "--device", "cpu"]
    return ["score", str(model), str(data), "-o", str(out), *settings, *more]


def count_parts(folder: Path) -> int:
    return sum(1 for _ in folder.glob(".*/part-*.jsonl"))


def score_whole(parent: Parent, model: Path, data: Path) -> bytes:
    """What one undisturbed process writes."""
    whole = data.with_name("whole.jsonl")
    child = parent.start(*arguments(model, data, whole, "--window", "16"))
    assert child.wait() == 0, child.stderr.read_text()
    return whole.read_bytes()
