"""What a corpus is made of, as its caller says it, and what each part of it is called.

First of `corpus`. Settings come from `config`, or from Python; what cannot be used is refused here, before any file is
opened. Invariant: no two parts of one kind have one name, and a name that the user gave is never changed.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from plaudit.errors import ConfigError
from plaudit.formats import Columns
from plaudit.formats.sources import COMPRESSIONS, KINDS, STDIN, refuse_repeated_pipe
from plaudit.redaction import hide_url

MADE = "eval"
"""What an evaluation set is called that was set aside from the training data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One source of Groups: how it is read, and which share of its Groups is taken (0.5: half, 2: each twice)."""

    path: str
    weight: float = 1.0
    name: str | None = None
    format: str | None = None
    columns: Columns | None = None
    limit: int | None = None
    bad_rows: str = "error"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"{self.path}: the weight {self.weight} came, a number over 0 was needed")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.path}: the limit {self.limit} came, at least 1 was needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSettings:
    """What to read for training and for evaluation, and how the two are kept apart.

    `learns` says what the loss learns from. `ties` is what becomes of a tie in training: half a win each way, or
    nothing. `checks` are those that only warn. `buffer` is how many Groups a stream is shuffled among, and `head` how
    many it is judged by.
    """

    parts: tuple[Part, ...]
    evals: tuple[Part, ...] = ()
    seed: int = 0
    eval_share: float = 0.05
    force_overlap: bool = False
    learns: Literal["comparisons", "ratings"] = "comparisons"
    ties: Literal["half", "drop"] = "half"
    checks: bool = True
    buffer: int = 10_000
    head: int = 20_000

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("no training data came; name at least one file, folder, URL or hub:owner/name")
        if not 0 <= self.eval_share <= 0.5:
            raise ConfigError(f"eval_share={self.eval_share} came, a share from 0 to 0.5 was needed")
        if self.buffer < 1 or self.head < 1:
            raise ConfigError(f"buffer={self.buffer} and head={self.head} came, at least 1 each was needed")
        for part in self.evals:
            if part.weight > 1:
                raise ConfigError(
                    f"{hide_url(part.path)}: the weight {part.weight:g} came for evaluation data, where a copy says "
                    "nothing new; give a share up to 1, or leave it out"
                )
        _check_places((*self.parts, *self.evals))


def _check_places(parts: Sequence[Part]) -> None:
    """What can be used once only: the pipe, and a file that bad rows are written to."""
    refuse_repeated_pipe([part.path for part in parts])
    asides = [os.path.realpath(part.bad_rows.partition("=")[2]) for part in parts if part.bad_rows != "error"]
    for aside, count in Counter(asides).items():
        if count > 1 and aside != os.path.realpath(os.devnull):
            raise ConfigError(
                f"{aside}: bad rows of {count} parts would replace each other there; name a file for each"
            )


def name_parts(parts: Sequence[Part]) -> list[str]:
    """A name for each part: its own, or the end of its path, as much of it as tells it from the others."""
    given = Counter(part.name for part in parts if part.name is not None)
    for name, count in given.items():
        if count > 1:
            raise ConfigError(f"{count} parts are named {name!r}; give each a name of its own")
    names = [part.name or "" for part in parts]
    trails = {n: _trail(part.path) for n, part in enumerate(parts) if part.name is None}
    for n, trail in trails.items():
        rivals = [other for m, other in trails.items() if m != n]
        depths = (d for d in range(1, len(trail) + 1) if all(other[-d:] != trail[-d:] for other in rivals))
        names[n] = next((name for d in depths if (name := "-".join(trail[-d:])) not in names), "")
    for n, trail in trails.items():
        if not names[n]:
            # One and the same path, then: a number tells them apart.
            numbered = (trail[-1] if number == 1 else f"{trail[-1]}-{number}" for number in range(1, len(parts) + 2))
            names[n] = next(name for name in numbered if name not in names)
    return names


def _trail(path: str) -> list[str]:
    """The words of a path that can make a name, the most telling one last."""
    if path == STDIN:
        return ["stdin"]
    if path.startswith("hub:"):
        words = path.removeprefix("hub:").replace("@", "/").replace(":", "/").split("/")
        # owner/name: the name is what people know; config and split only tell two of them apart.
        return [*words[:1], *words[2:], *words[1:2]] if len(words) > 1 else words
    _, is_url, place = path.rpartition("://")
    if is_url:
        # The query of an address, and who asks, are no part of a name.
        place = re.split(r"[?#]", place, maxsplit=1)[0].rpartition("@")[2]
    words = [word for word in PurePath(place).parts if word not in ("/", "..", ".") and "*" not in word]
    return [*words[:-1], _bare(words[-1])] if words else ["data"]


def _bare(name: str) -> str:
    """A file's name without the suffixes that say how it is laid out."""
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    stem, suffix = os.path.splitext(name)
    return stem if suffix and suffix.lower() in KINDS and stem else name
