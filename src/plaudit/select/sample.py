"""A scored sample as columns: per prompt the scores, gold, lengths of its completions, and how often each answer came.

Beside `candidates`; numpy only. Invariant: a completion without a score, or without gold where gold is asked for, is
counted and left out, and texts are let go of as rows are read.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from plaudit.errors import DataError
from plaudit.formats import Row
from plaudit.formats.content import GOLD_SCORES
from plaudit.group import Ratings
from plaudit.keys import Key, normalise_text, prompt_key
from plaudit.measure.intervals import Floats, Ints
from plaudit.select.candidates import NO_ROWS, By, Values, read_candidates, read_values


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prompt:
    """One row of the sample, M completions: gold is nan where there is none."""

    score_M: Floats
    gold_M: Floats
    length_M: Floats
    count_M: Ints

    @property
    def num(self) -> int:
        """Completions that count."""
        return len(self.score_M)


@dataclass(kw_only=True, slots=True)
class Sample:
    """All rows of a sample, flat; `gold` names where gold came from, None where there is none."""

    gold: str | None = None
    unscored: int = 0
    without_gold: int = 0
    empty: int = 0
    sizes: list[int] = field(default_factory=list)
    prompt_P: list[int] = field(default_factory=list)
    _columns: array[float] = field(default_factory=lambda: array("d"))
    _starts: list[int] = field(default_factory=list)
    _numbers: dict[Key, int] = field(default_factory=dict)

    def add(self, row: Row, by: By) -> None:
        """One scored row."""
        candidates = read_candidates(row, by)
        gold = read_gold(row, self.gold) if self.gold is not None else None
        keep = [k for k, value in enumerate(candidates.values) if value is not None]
        self.unscored += len(candidates.values) - len(keep)
        if gold is not None:
            self.without_gold += sum(gold[k] is None for k in keep)
            keep = [k for k in keep if gold[k] is not None]
        if not keep:
            self.empty += 1
            return
        texts = [normalise_text(completion.text) for completion in row.group.completions]
        came = Counter(texts[k] for k in keep)
        self._starts.append(len(self._columns) // 4)
        self.sizes.append(len(keep))
        key = prompt_key(row.group)
        self.prompt_P.append(self._numbers.setdefault(key, len(self._numbers)))
        for k in keep:
            value, best = candidates.values[k], None if gold is None else gold[k]
            length = len(row.group.completions[k].text)
            self._columns.extend((value or 0.0, float("nan") if best is None else best, length, came[texts[k]]))

    def prompts(self, at_least: int = 1) -> Iterator[tuple[int, Prompt]]:
        """The number of each row's prompt, and its columns; of rows with enough completions."""
        flat = np.frombuffer(self._columns).reshape(-1, 4)
        for start, size, prompt in zip(self._starts, self.sizes, self.prompt_P, strict=True):
            if size >= at_least:
                part = flat[start : start + size].T
                yield (
                    prompt,
                    Prompt(score_M=part[0], gold_M=part[1], length_M=part[2], count_M=part[3].astype(np.int64)),
                )


def read_sample(rows: Iterable[Row], *, gold: str | None = None, by: By = "scores") -> Sample:
    """The rows as a sample. Gold is the column `gold`; else `gold_scores` or ratings, if rows have them."""
    sample: Sample | None = None
    for row in rows:
        if sample is None:
            sample = Sample(gold=gold if gold is not None else _find_gold(row))
        sample.add(row, by)
    if sample is None:
        raise DataError(NO_ROWS)
    if not sample.sizes:
        raise DataError("no completion can be used: none has a score" + (" and gold" if sample.gold else ""))
    return sample


def _find_gold(row: Row) -> str | None:
    """Where this row has gold, if it does: scores that a model gave are never gold."""
    if isinstance(row.raw.get(GOLD_SCORES), list):
        return GOLD_SCORES
    return "labels" if _ratings(row) is not None and not row.dialect.is_rated else None


def _ratings(row: Row) -> Values | None:
    rated = [label.ratings for label in row.group.labels if isinstance(label, Ratings)]
    return rated[0] if len(rated) == 1 else None


def read_gold(row: Row, key: str) -> Values:
    """A row's gold: the list in column `key`; for `labels`, its one list of ratings."""
    if key != "labels":
        return read_values(row, key, "rows where that column holds a gold score for each completion")
    found = _ratings(row)
    if found is None:
        raise DataError(
            "one list of ratings was needed as gold, as in the rows before it", file=row.file, line=row.line,
            field="labels",
        )  # fmt: skip
    return found
