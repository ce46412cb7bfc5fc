"""A last sentence that comes again and again.

Part of `probes`. Makes the answer worse, and longer.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe
from plaudit.probes.prose import has_verbatim, split_sentences

TIMES = 5


def repetition(case: Case, rng: random.Random) -> str | None:
    """The answer with its last sentence five more times; not where there is code.

    >>> repetition(Case(prompt="Capital of Peru?", answer="It is Lima. Yes."), random.Random(0))
    'It is Lima. Yes. Yes. Yes. Yes. Yes. Yes.'
    """
    if has_verbatim(case.answer):
        return None
    last = split_sentences(case.answer.strip())[-1].words
    return " ".join([case.answer.rstrip(), *[last] * TIMES])


PROBE = Probe(
    name="repetition",
    about="the last sentence five more times, as in a loop",
    expects=Expects.LOWER,
    touches=("length",),
    edit=repetition,
)
