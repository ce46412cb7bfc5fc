"""A figure with what belongs to it, as report.json has it.

Stands on nothing. Invariant: what is not a finite number is null in JSON, and an interval is a list of two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


class Record:
    """A frozen dataclass whose fields are the keys of its JSON."""

    __slots__ = ()

    def as_json(self) -> dict[str, Any]:
        """As report.json has it."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: plain(getattr(self, field.name)) for field in fields}


def plain(value: Any) -> Any:
    """A value as JSON has it: a record is an object, a number that is not finite is null, a tuple is a list."""
    if isinstance(value, Record):
        return value.as_json()
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
