"""A polite word before the answer.

Part of `probes`. Keeps the meaning, adds an opening.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe

OPENINGS = ("Sure, here you go!", "Of course, happy to help!", "Certainly! Here it is:")


def opening(case: Case, rng: random.Random) -> str | None:
    """The answer after a polite opening; not where it begins with one.

    >>> opening(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(0))
    'Of course, happy to help!\\n\\nLima.'
    """
    if case.answer.lstrip().startswith(("Sure", "Of course", "Certainly")):
        return None
    return f"{rng.choice(OPENINGS)}\n\n{case.answer}"


PROBE = Probe(
    name="opening",
    about="a polite word before the answer",
    expects=Expects.SAME,
    touches=("politeness",),
    edit=opening,
)
