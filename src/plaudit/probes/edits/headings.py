"""Headings over the paragraphs.

Part of `probes`. Keeps the meaning, adds headings.
"""

from __future__ import annotations

import random
import re

from plaudit.probes.probe import Case, Expects, Probe
from plaudit.probes.prose import has_markup

_PARAGRAPHS = re.compile(r"\n[ \t]*\n\s*")


def headings(case: Case, rng: random.Random) -> str | None:
    """A heading over the answer, and one over each paragraph after the first; not where there is structure already.

    >>> print(headings(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(0)))
    ## Answer
    <BLANKLINE>
    Lima.
    """
    if has_markup(case.answer):
        return None
    parts = _PARAGRAPHS.split(case.answer.strip())
    names = ["Answer", *(f"Part {n}" for n in range(2, len(parts) + 1))]
    return "\n\n".join(f"## {name}\n\n{part}" for name, part in zip(names, parts, strict=True))


PROBE = Probe(
    name="headings", about="a heading over each paragraph", expects=Expects.SAME, touches=("headings",), edit=headings
)
