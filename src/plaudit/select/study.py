"""A scored file in, the folder of a best-of-N study out: report.json and its page.

Last file of `select`, beside `job`. Invariant: a folder that has a report.json has its page.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plaudit import __version__
from plaudit.errors import ConfigError
from plaudit.formats import Row
from plaudit.formats.sources import STDIN, Source, hash_file
from plaudit.intake import Intake, ReadSettings
from plaudit.report import REPORT, make_folder, write_report
from plaudit.runs.environment import say_command
from plaudit.select.candidates import By
from plaudit.select.curve import measure_curve
from plaudit.select.sample import read_sample


@dataclass(frozen=True, kw_only=True, slots=True)
class BonSettings:
    """What is studied: `gold` names the column of gold scores, `num_max` the largest n; None finds them."""

    gold: str | None = None
    num_max: int | None = None
    by: By = "scores"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_max is not None and self.num_max < 2:
            raise ConfigError(f"--max-n {self.num_max} came; at least 2 was needed: the best of one is that one")


def study_best_of_n(
    sources: list[str], out: str, settings: BonSettings | None = None, *, reading: ReadSettings | None = None,
    watch: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Read scored rows, estimate the best of every n, write report.json and report.html into the folder `out`."""
    settings = settings or BonSettings()
    folder = Path(out).expanduser()
    make_folder(folder)
    start = time.perf_counter()
    intake = Intake(sources, str(folder / REPORT), reading)
    try:
        with intake.reader(is_last=True) as reader:
            sample = read_sample(_watched(iter(reader), watch), gold=settings.gold, by=settings.by)
            notes, bad_rows = list(reader.notes), reader.num_bad
        data = _describe(intake.sources)
    finally:
        intake.close()
    curve = measure_curve(sample, num_max=settings.num_max, seed=settings.seed)
    found = curve.as_json()
    if sample.gold == settings.by:
        notes.append(f"gold is {settings.by} itself: the curve is the most that any choice could reach")
    report = {
        "plaudit": __version__,
        "kind": "bon",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": say_command(sys.argv),
        "seed": settings.seed,
        "data": data,
        "by": settings.by,
        "gold": sample.gold,
        "candidates": sum(sample.sizes),
        "unscored": sample.unscored,
        "without_gold": sample.without_gold,
        "empty_rows": sample.empty,
        "bad_rows": bad_rows,
        **found,
        "notes": [*notes, *found["notes"]],
        "seconds": round(time.perf_counter() - start, 3),
    }
    write_report(report, folder)
    return report


def _describe(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Where the rows came from, as it was said, and the hash of each file; None of what is elsewhere."""
    return [
        {
            "path": STDIN if source.is_copy and source.name == "stdin" else source.name,
            "sha256": hash_file(Path(source.place)) if os.path.isfile(source.place) else None,
        }
        for source in sources
    ]


def _watched(rows: Iterator[Row], watch: Callable[[int], None] | None) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield row
        if watch is not None:
            watch(number)
