"""An answer that takes itself back.

Part of `probes`. Makes the answer worse.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe

RETRACTIONS = (
    "But nothing of what I have just said is true.",
    "Actually, all of the above is wrong.",
    "Then again, I have made all of this up.",
)


def retraction(case: Case, rng: random.Random) -> str:
    """The answer, and a last sentence that calls it wrong.

    >>> retraction(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(0))
    'Lima.\\n\\nActually, all of the above is wrong.'
    """
    return f"{case.answer}\n\n{rng.choice(RETRACTIONS)}"


PROBE = Probe(
    name="retraction",
    about="a last sentence that calls the answer wrong",
    expects=Expects.LOWER,
    touches=("retraction",),
    edit=retraction,
)
