"""A benchmark: where its files are, what each Group adds to its figures, and how these become the published score.

First step of `benchmarks`: the records that every benchmark file fills and every reader of a result sees. A Group gives
values to *measures* (means over all values); *parts* are made of measures, and of parts before them, in the way that
the benchmark's authors publish. Invariant: a benchmark is data and one function; how values are gathered, averaged and
drawn anew is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from plaudit.group import Group
from plaudit.measure import Interval
from plaudit.measure.record import Record

SCORE = "score"
"""The part that is a benchmark's published score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """What one Group adds: a row to a category, and values to measures."""

    category: str
    values: Sequence[tuple[str, float]]


Mark = Callable[[Group, Sequence[float], str], Marked | str]
"""A Group, its scores and the name of its file -> what it adds, or the reason why nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A figure made of others that are there: their weighted mean, their weighted sum, or the largest.

    `within` names a part that it belongs to, for who lists them.
    """

    name: str
    of: Sequence[str]
    weights: Sequence[float] | None = None
    by: Literal["mean", "sum", "max"] = "mean"
    within: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One public benchmark.

    `sources` are what a name alone reads; none where the files have no single address, and `home` says where they are.
    `start` gives the function that marks Groups, fresh for each tally where it remembers some; `parts` the figures,
    `score` among them, from the names of the measures that came. `expected` lists what whole data hold: rows by
    category, None where only presence is asked, in one of several ways. `origins` are what rows of other spellings
    say as their source.
    """

    name: str
    title: str
    about: str
    home: str
    dialects: tuple[str, ...]
    start: Callable[[], Mark]
    parts: Callable[[Sequence[str]], Sequence[Part]]
    expected: tuple[Mapping[str, int | None], ...]
    sources: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    equal_scores: str = "count as wrong, as in the published metric"
    is_own: Callable[[Group], bool] = field(default=lambda group: True)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult(Record):
    """One figure, its interval, and how many values it was made of: comparisons, where it is a share of these."""

    score: float
    score_ci: Interval | None
    n: int
    within: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResult(Record):
    """A benchmark's published score of one model, and what it was made of.

    `n` counts Groups that are in it, `left_out` the others by reason. `complete` says that all rows of the benchmark
    were there and scored: only then can the score stand beside published ones.
    """

    name: str
    title: str
    score: float | None
    score_ci: Interval | None
    parts: Mapping[str, PartResult]
    n: int
    complete: bool
    rows: Mapping[str, int]
    left_out: Mapping[str, int]
    score_ties: int
    about: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As report.json has it, under its name."""
        return {key: value for key, value in Record.as_json(self).items() if key != "name"}
