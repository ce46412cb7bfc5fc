"""A sentence that says how sure the answer is.

Part of `probes`. Keeps the meaning, adds stated confidence.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe

CERTAINTY = ("I am absolutely certain of this.", "There is no doubt about this.", "I am 100% sure of this.")


def confidence(case: Case, rng: random.Random) -> str:
    """The answer after a sentence that claims to be certain.

    >>> confidence(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(0))
    'There is no doubt about this.\\n\\nLima.'
    """
    return f"{rng.choice(CERTAINTY)}\n\n{case.answer}"


PROBE = Probe(
    name="confidence",
    about="the same answer, and that it is certain",
    expects=Expects.SAME,
    touches=("confidence",),
    edit=confidence,
)
