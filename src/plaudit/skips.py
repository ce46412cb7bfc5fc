"""Steps that were not a number, and so moved nothing: their rows, what is said of them, and when they are too many.

Stands above `trainer` and `features`, which skip by the same rule. Invariant: a row is named as the one only if it is
not a number by itself; where none is, or nobody can tell, all that were computed together are named, as just that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.batches import Example
from plaudit.errors import InputError
from plaudit.parts import Say

MOST_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """A step, the first one being 1, and its rows. `alone` says whether each of them is not a number by itself."""

    step: int
    rows: tuple[str, ...]
    alone: bool

    def as_json(self) -> dict[str, Any]:
        """For reports and checkpoints."""
        return {"step": self.step, "rows": list(self.rows), "alone": self.alone}

    def sentence(self) -> str:
        """Which rows, as the end of a sentence."""
        shown = ", ".join(self.rows[:MOST_SHOWN])
        more = len(self.rows) - MOST_SHOWN
        shown += f" and {more} more" if more > 0 else ""
        if self.alone:
            return f"its rows that are none by themselves: {shown}"
        return f"it came of these rows together: {shown}"


class Skips:
    """The steps that were skipped so far, those before a kill among them."""

    def __init__(self, *, most: int, say: Say) -> None:
        self.most, self.say = most, say
        self.steps: list[Skip] = []

    @property
    def last(self) -> int:
        """The step that was skipped last; 0 if none was."""
        return self.steps[-1].step if self.steps else 0

    def add(self, skip: Skip, what: str, checkpoint: Path | None = None) -> None:
        """Say it, and keep it; InputError if there were too many in a row, with the checkpoint that is left."""
        self.steps.append(skip)
        self.say(f"step {skip.step} was skipped, {what} is not a number; {skip.sentence()}")
        in_a_row = self._count_last()
        if in_a_row > self.most:
            left = f"; the last good checkpoint is {checkpoint}" if checkpoint else ""
            raise InputError(
                f"{in_a_row} steps in a row were not a number; of the last, {skip.sentence()}; look at those rows, or "
                f"lower train.learning_rate{left}"
            )

    def _count_last(self) -> int:
        """How many came without a good step between them, up to now."""
        found = 0
        while found < len(self.steps) and self.steps[-1 - found].step == self.last - found:
            found += 1
        return found

    def as_json(self) -> list[dict[str, Any]]:
        """For reports and checkpoints."""
        return [skip.as_json() for skip in self.steps]

    def recall(self, told: Iterable[dict[str, Any]]) -> None:
        """What `as_json` gave, before a kill."""
        self.steps = [Skip(step=s["step"], rows=tuple(s["rows"]), alone=s["alone"]) for s in told]


def find_rows(
    step: int, examples: Sequence[Example], is_number: Callable[[Example], bool], *, can_tell: bool = True
) -> Skip:
    """The rows that are not a number by themselves, or all of them where none is, or where that cannot be told."""
    alone = tuple(e.name for e in examples if not is_number(e)) if can_tell else ()
    return Skip(step=step, rows=alone or tuple(e.name for e in examples), alone=bool(alone))


def count_nonfinite(names: Sequence[str], total: int, say: Say) -> dict[str, float]:
    """Report evaluation groups that were left out of the means because the model gives them a non-finite score."""
    if not names:
        return {}
    more = len(names) - MOST_SHOWN
    shown = ", ".join(names[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
    say(f"evaluation: {len(names)} of {total} groups have a non-finite score and are left out of the means: {shown}")
    return {"nonfinite_groups": float(len(names))}
