"""A file of scored rows in, a file of chosen ones out, and how scores and lengths moved.

Last step of `select`: one row in memory at a time; the top share over all prompts reads the file twice and keeps one
number a completion. Invariant: the output is whole or not there, and every completion that was not chosen is counted by
its reason.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from plaudit.errors import ConfigError, DataError
from plaudit.formats import RowWriter
from plaudit.group import Content
from plaudit.intake import Intake, ReadSettings
from plaudit.select.candidates import NO_ROWS, By, Candidates, Eligible, rank_eligible, read_candidates
from plaudit.select.rules import Band, select_above, select_best, select_pairs, select_top
from plaudit.select.shapes import CONDITION, Shape, condition_prompt, find_shape

Rule = Literal["best", "top", "pairs", "conditional"]

LONGER = 1.2
"""Chosen answers this many times as long as the rest are worth a word: it is how scores are hacked most often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectSettings:
    """How completions are chosen and written; see the command for what each option means."""

    rule: Rule
    shape: str | None = None
    by: By = "scores"
    share: float = 0.25
    overall: bool = False
    num: int = 1
    band: Band | None = None
    min_score: float | None = None
    near: float | None = None
    template: str = CONDITION
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"--share {self.share} came; a share over 0 and up to 1 was needed, such as 0.25")
        if self.near is not None and not 0 < self.near <= 1:
            raise ConfigError(f"--near {self.near} came; an overlap over 0 and up to 1 was needed, such as 0.8")
        if self.num < 1:
            raise ConfigError(f"--per-prompt {self.num} came; at least 1 was needed")
        if "{score}" not in self.template or "{prompt}" not in self.template:
            raise ConfigError(f"the template {self.template!r} came; one with {{prompt}} and {{score}} was needed")


@dataclass(slots=True)
class Mean:
    """A running mean."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """One more."""
        self.total, self.count = self.total + value, self.count + 1

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self.total / self.count if self.count else None


@dataclass(kw_only=True, slots=True)
class Moved:
    """Scores, lengths (characters) and gold of one side: all candidates, the chosen, or the rejected."""

    score: Mean = field(default_factory=Mean)
    length: Mean = field(default_factory=Mean)
    gold: Mean = field(default_factory=Mean)

    def add(self, candidates: Candidates, k: int) -> None:
        """One completion that has a score."""
        score = candidates.scores[k]
        if score is not None:
            self.score.add(score)
            self.length.add(len(candidates.group.completions[k].text))
            gold = candidates.gold[k] if candidates.gold is not None else None
            if gold is not None:
                self.gold.add(gold)

    def as_json(self) -> dict[str, Any]:
        """Means, and of how many."""
        found = {"score": self.score.value, "characters": self.length.value, "n": self.score.count}
        return found | ({"gold": self.gold.value} if self.gold.count else {})


@dataclass(kw_only=True, slots=True)
class Selected:
    """What came of a selection. Each completion of `completions` was written, or is in one of the counts."""

    groups: int = 0
    completions: int = 0
    written: int = 0
    empty_groups: int = 0
    unscored: int = 0
    below: int = 0
    doubles: int = 0
    bad_rows: int = 0
    threshold: float | None = None
    all: Moved = field(default_factory=Moved)
    chosen: Moved = field(default_factory=Moved)
    rejected: Moved = field(default_factory=Moved)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Under stable keys."""
        found: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            found[each.name] = value.as_json() if isinstance(value, Moved) else value
        return found | {"length_ratio": self.length_ratio}

    @property
    def length_ratio(self) -> float | None:
        """How many times as long the chosen are as all candidates."""
        chosen, usual = self.chosen.length.value, self.all.length.value
        return chosen / usual if chosen is not None and usual else None

    def warning(self) -> str | None:
        """A sentence where what was chosen is much longer than what there was."""
        ratio = self.length_ratio
        if ratio is None or ratio < LONGER:
            return None
        return (
            f"the chosen answers are {ratio:.2f} times as long as the average candidate: read some of them before they "
            "teach a model to be long; choosing by --length-corrected scores is the remedy"
        )


def select_rows(
    sources: list[str], out: str, settings: SelectSettings, *, reading: ReadSettings | None = None,
    watch: Callable[[int], None] | None = None,
) -> Selected:  # fmt: skip
    """Choose from the scored rows of `sources` and write them to `out`."""
    shape = find_shape(settings.shape, pairs=settings.rule == "pairs", conditional=settings.rule == "conditional")
    intake = Intake(sources, out, reading)
    try:
        found = Selected()
        bar = _find_bar(intake, settings) if settings.rule == "top" and settings.overall else None
        found.threshold = bar.threshold if bar else None
        with intake.reader(is_last=True) as reader, RowWriter(out) as writer:
            for row in reader:
                candidates = read_candidates(row, settings.by)
                for written in _choose(found, candidates, shape, settings, bar):
                    writer.write(written)
                    found.written += 1
                if watch is not None:
                    watch(found.groups)
            found.bad_rows = reader.num_bad
            found.notes += reader.notes
            if not found.groups:
                raise DataError(NO_ROWS)
        return found
    finally:
        intake.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bar:
    """Where the top share of everything begins, and which of those that just reach it are in: the n-th of them."""

    threshold: float
    is_in: Iterator[bool]


def _find_bar(intake: Intake, settings: SelectSettings) -> _Bar:
    """The value that the top share of all eligible completions reaches; lots decide between those that have it."""
    values = array("d")
    with intake.reader() as reader:
        for row in reader:
            candidates = read_candidates(row, settings.by)
            values.extend(candidates.values[k] or 0.0 for k in _rank(candidates, settings).order)
    if not values:
        raise DataError("no completion is left to choose from: none has a score that is high enough")
    found = np.frombuffer(values)
    keep = max(1, int(np.ceil(round(settings.share * len(found), 9))))
    threshold = float(np.partition(found, len(found) - keep)[len(found) - keep])
    is_in = np.zeros(int((found == threshold).sum()), dtype=bool)
    is_in[: keep - int((found > threshold).sum())] = True
    return _Bar(threshold=threshold, is_in=iter(np.random.default_rng(settings.seed).permutation(is_in).tolist()))


def _rank(candidates: Candidates, settings: SelectSettings) -> Eligible:
    return rank_eligible(candidates, min_score=settings.min_score, near=settings.near, seed=settings.seed)


def _choose(
    found: Selected, candidates: Candidates, shape: Shape, settings: SelectSettings, bar: _Bar | None
) -> Iterator[dict[str, Any]]:
    """The rows that one Group gives, everything counted."""
    eligible = _rank(candidates, settings)
    found.groups += 1
    found.completions += len(candidates.scores)
    for reason in ("unscored", "below", "doubles"):
        setattr(found, reason, getattr(found, reason) + getattr(eligible, reason))
    for k in range(len(candidates.scores)):
        found.all.add(candidates, k)
    if settings.rule == "pairs":
        pairs = select_pairs(eligible.order, candidates.values, band=settings.band, num=settings.num)
        found.empty_groups += not pairs
        for better, worse in pairs:
            found.chosen.add(candidates, better)
            found.rejected.add(candidates, worse)
            assert shape.pair is not None
            yield shape.pair(candidates, better, worse)
        return
    picked = _pick(eligible, candidates, bar, settings)
    found.empty_groups += not picked
    for k in picked:
        found.chosen.add(candidates, k)
        assert shape.row is not None
        yield shape.row(candidates, k, _prompt(candidates, k, settings))


def _pick(eligible: Eligible, candidates: Candidates, bar: _Bar | None, settings: SelectSettings) -> Sequence[int]:
    if settings.rule == "best":
        return select_best(eligible.order, settings.num)
    if settings.rule == "conditional":
        return eligible.order
    if bar is not None:
        return select_above(eligible.order, candidates.values, bar.threshold, bar.is_in)
    return select_top(eligible.order, len(candidates.scores), settings.share)


def _prompt(candidates: Candidates, k: int, settings: SelectSettings) -> Content:
    prompt = candidates.group.prompt
    if settings.rule != "conditional":
        return prompt
    value = candidates.values[k]
    assert value is not None
    with contextlib.suppress(IndexError):
        return condition_prompt(prompt, value, settings.template)
    raise DataError(f"{candidates.name}: its prompt is empty, and the score was to be told there")
