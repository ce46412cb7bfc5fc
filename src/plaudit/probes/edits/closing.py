"""A polite word after the answer.

Part of `probes`. Keeps the meaning, adds a closing.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe

CLOSINGS = ("I hope this helps!", "Feel free to ask if anything is unclear.", "Let me know if you need more.")


def closing(case: Case, rng: random.Random) -> str | None:
    """The answer before a polite closing; not where it ends with one.

    >>> closing(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(0))
    'Lima.\\n\\nFeel free to ask if anything is unclear.'
    """
    if any(words in case.answer[-200:] for words in ("hope this helps", "et me know")):
        return None
    return f"{case.answer}\n\n{rng.choice(CLOSINGS)}"


PROBE = Probe(
    name="closing", about="a polite word after the answer", expects=Expects.SAME, touches=("politeness",), edit=closing
)
