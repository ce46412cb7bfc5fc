"""A part of report.json, read with patience: what is missing, null or of another kind is not there.

Part of `report`. Reports of older and newer versions, and of runs that measured less, have to become a page too.
Invariant: nothing here raises; a number that comes out is finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number and, where it was measured, its 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, ...]:
        """All that has to be on the scale."""
        return tuple(x for x in (self.low, self.value, self.high) if x is not None)

    def excludes(self, value: float) -> bool:
        """Whether the interval is there and lies on one side of a value."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Facts:
    """A table of the report."""

    table: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.table)

    def number(self, *names: str) -> float | None:
        """The first of these that is a finite number."""
        return next((x for name in names if (x := finite(self.table.get(name))) is not None), None)

    def estimate(self, name: str) -> Estimate | None:
        """A number, with `<name>_ci`."""
        value, ends = self.number(name), self.numbers(f"{name}_ci")
        low, high = ends if len(ends) == 2 else (None, None)
        return Estimate(value=value, low=low, high=high) if value is not None else None

    def text(self, *names: str) -> str:
        """The first of these that is a text with something in it; else an empty one."""
        found = (self.table.get(name) for name in names)
        return next((value for value in found if isinstance(value, str) and value.strip()), "")

    def part(self, name: str) -> Facts:
        """The table of this name; an empty one if it is none."""
        found = self.table.get(name)
        return Facts(found if isinstance(found, Mapping) else {})

    def nested(self) -> Iterator[tuple[str, Facts]]:
        """The tables in this one, by name."""
        for key, value in self.table.items():
            if isinstance(value, Mapping):
                yield str(key), Facts(value)

    def rows(self, name: str) -> list[Facts]:
        """A list of tables; what in it is no table is left out."""
        found = self.table.get(name)
        return [Facts(row) for row in found if isinstance(row, Mapping)] if _is_list(found) else []

    def numbers(self, name: str) -> list[float]:
        """A list of numbers; empty if one of them is none."""
        found = self.table.get(name)
        values = [finite(value) for value in found] if _is_list(found) else []
        return [] if None in values else [value for value in values if value is not None]

    def texts(self, name: str) -> list[str]:
        """A list of texts; one text alone is a list of one."""
        found = self.table.get(name)
        found = [found] if isinstance(found, str) else found
        return [value for value in found if isinstance(value, str) and value.strip()] if _is_list(found) else []

    def points(self, name: str) -> list[tuple[float, float]]:
        """A list of pairs of numbers; what is no pair is left out."""
        found = self.table.get(name)
        pairs = [row for row in found if _is_list(row) and len(row) == 2] if _is_list(found) else []
        placed = ((finite(x), finite(y)) for x, y in pairs)
        return [(x, y) for x, y in placed if x is not None and y is not None]


def finite(value: object) -> float | None:
    """A number that is one, and no truth value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
