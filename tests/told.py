"""What a command said, and the one sentence of a command that its user's input has ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from forks import Child


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a command said, where, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.out.count("\n") == 1, self.out
        found: dict[str, Any] = json.loads(self.out)
        return found


def hear(child: Child) -> Told:
    """Wait for a command, and read what it said."""
    return Told(code=child.wait(), out=child.stdout.read_text(), err=child.stderr.read_text())


def last_sentence(told: Told, *said: str) -> str:
    """The sentence of a command that the user's input has ended; notes may have come before it."""
    assert told.code == 2, told
    assert told.out == "" and "Traceback" not in told.err
    lines = told.err.splitlines()
    assert [line for line in lines if line.startswith("plaudit: ")] == lines[-1:], told.err
    assert lines[-1].startswith("plaudit: error: "), told.err
    for words in said:
        assert words in lines[-1], lines[-1]
    return lines[-1]
