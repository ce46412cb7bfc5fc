"""What a tiny model can learn in seconds: answers whose last word says how good they are; and runs on them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit.config import Settled, read_config
from plaudit.runs import read_metrics, read_saved
from plaudit.train import train

Json = dict[str, Any]
GRADES = ("w10", "w11", "w12", "w13")
"""Last words, from worst to best."""

QUICK = (
    "device=cpu",
    "precision=float32",
    "proof=false",
    "checks.enabled=false",
    "train.groups_per_step=16",
    "train.learning_rate=0.003",
    "train.epochs=2",
    "lora.enabled=false",
)


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(f"w{rng.randrange(14, 100)}" for _ in range(rng.randrange(low, high)))


def graded_rows(n: int, kind: str = "pairs", seed: int = 0) -> list[Json]:
    """Groups in a chat, with labels of a kind: pairs (with margins), order, ratings, attributes."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        grades = rng.sample(range(len(GRADES)), 2 if kind == "pairs" else 4)
        row: Json = {
            "id": f"q{seed}-{i}",
            "prompt": [{"role": "user", "content": words(rng, 3, 12)}],
            "completions": [f"{words(rng, 2, 8)} {GRADES[grade]}" for grade in grades],
        }
        best_first = sorted(range(len(grades)), key=lambda k: -grades[k])
        margin = float(max(grades) - min(grades))
        row["labels"] = {
            "pairs": [{"better": best_first[0], "worse": best_first[-1], "margin": margin}],
            "order": [{"order": best_first}],
            "ratings": [{"ratings": [float(grade) for grade in grades]}],
            "attributes": [
                {"ratings": [float(grade) for grade in grades], "by": "helpful"},
                {"ratings": [3.0 - grade if grade % 2 else float(grade) for grade in grades], "by": "honest"},
            ],
        }[kind]
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[Json]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settle(model: Path, data: Path, out: Path, *overrides: str, evals: Sequence[Path] = (), **more: Any) -> Settled:
    """Quick settings, and these; a run that stands in `out` is under them."""
    said = {text.partition("=")[0] for text in overrides}
    quick = [text for text in QUICK if text.partition("=")[0] not in said]
    base = {"model": str(model), "data": [str(data)], "out": str(out), "eval": [str(path) for path in evals], **more}
    return read_config(None, [*quick, *overrides], base, under=read_saved(out))


def fit(settled: Settled, *, resume: bool = False) -> tuple[Json, list[Json], list[str]]:
    """The report, the lines of metrics, and what was said."""
    said: list[str] = []
    report = train(settled, resume=resume, say=said.append, command=["a test"])
    return report, read_metrics(Path(settled.config.out) / "metrics.jsonl"), said
