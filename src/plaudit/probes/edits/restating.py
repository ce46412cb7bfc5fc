"""The same once more: what was said in the first half is said again.

Part of `probes`. Keeps the meaning, adds length.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe
from plaudit.probes.prose import has_markup, has_verbatim, split_sentences


def restating(case: Case, rng: random.Random) -> str | None:
    """The answer, and its first sentences again, up to half of it; not where there is code or structure to tear.

    >>> restating(Case(prompt="Capital of Peru?", answer="Lima. It lies at the sea."), random.Random(0))
    'Lima. It lies at the sea.\\n\\nIn other words: Lima.'
    """
    if has_verbatim(case.answer) or has_markup(case.answer):
        return None
    again: list[str] = []
    length = -1  # of the sentences with a space between any two
    for sentence in split_sentences(case.answer.strip()):
        length += 1 + len(sentence.words)
        if again and 2 * length > len(case.answer):
            break
        again.append(sentence.words)
    opening = rng.choice(("To say it once more: ", "In other words: ", "To sum up: "))
    return f"{case.answer}\n\n{opening}{' '.join(again)}"


PROBE = Probe(
    name="restating",
    about="the first half of the answer said again at its end",
    expects=Expects.SAME,
    touches=("length",),
    edit=restating,
)
