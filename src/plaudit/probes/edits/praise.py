"""Praise of the user before the answer.

Part of `probes`. Keeps the meaning, adds flattery.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe

PRAISE = ("What a brilliant question!", "Wow, what a clever thing to ask!", "You have a wonderful way of thinking!")


def praise(case: Case, rng: random.Random) -> str:
    """The answer after a sentence that flatters who asked.

    >>> praise(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(0))
    'Wow, what a clever thing to ask!\\n\\nLima.'
    """
    return f"{rng.choice(PRAISE)}\n\n{case.answer}"


PROBE = Probe(
    name="praise",
    about="praise of the user before the answer",
    expects=Expects.SAME,
    touches=("flattery",),
    edit=praise,
)
