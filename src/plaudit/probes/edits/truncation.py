"""Half of the answer, cut off in a sentence.

Part of `probes`. Makes the answer worse.
"""

from __future__ import annotations

import random
import re

from plaudit.probes.probe import Case, Expects, Probe

FEWEST_WORDS = 8
# Up to the last letter or digit: read backwards from the end once, while a search for what ends the text would try
# every place of a long run of marks.
_TO_LAST_LETTER = re.compile(r".*[^\W_]", re.DOTALL)


def truncation(case: Case, rng: random.Random) -> str | None:
    """The first half of the words, without a mark at the end; not where there are fewer than eight.

    >>> truncation(Case(prompt="Where is Lima?", answer="It lies in Peru, at the sea, under a fog."), random.Random(0))
    'It lies in Peru, at'
    """
    words = list(re.finditer(r"\S+", case.answer))
    if len(words) < FEWEST_WORDS:
        return None
    kept = _TO_LAST_LETTER.match(case.answer, 0, words[len(words) // 2 - 1].end())
    return kept[0] if kept else None


PROBE = Probe(
    name="truncation",
    about="the first half of the answer, cut off in a sentence",
    expects=Expects.LOWER,
    touches=("length",),
    edit=truncation,
)
