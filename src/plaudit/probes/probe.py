"""What is said of every probe: its name, what it does, what a good scorer would make of it, and its edit.

Part of `probes`; each file in `edits` ends with one `Probe`, and `table` collects them. Invariant: an edit is a pure
function of the case and of a random generator that was seeded for it, and says None where it does not apply.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from plaudit.group import Group


class Expects(StrEnum):
    """What the edit should do to a score: nothing, as the meaning is kept; or lower it, as the answer is worse."""

    SAME = "same"
    LOWER = "lower"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What an edit sees: the user's last words, the answer (never blank), and one to another prompt ("" for none)."""

    prompt: str
    answer: str
    other: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """A question of our own, a good answer to it, and the answer that should get less."""

    prompt: str
    before: str
    after: str


Edit = Callable[[Case, random.Random], str | None]
Recast = Callable[[Group], Group | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One probe. It has exactly one of three: an `edit` of answers in the data, questions of its own that are `staged`,
    or a `recast` that writes the same Group down in another form.

    `touches` are the features that it changes on purpose, by which the planted biases of the tests find it.
    """

    name: str
    about: str
    expects: Expects
    touches: tuple[str, ...] = ()
    edit: Edit | None = None
    staged: tuple[Staged, ...] = ()
    recast: Recast | None = None
