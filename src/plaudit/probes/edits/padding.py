"""Sentences that say nothing: the oldest way to a better score.

Part of `probes`. Keeps the meaning, adds length.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe

FILLER = (
    "All of this should of course be seen in its context.",
    "There are many things that could be said here, and they all have their place.",
    "It is worth taking a moment to let this sink in.",
    "As with so many topics, there is a lot that belongs to it.",
    "One can look at this from one side, and one can look at it from another.",
    "These are points that are worth keeping in mind when thinking about them.",
    "In this sense, what was said above is to be understood as it was said above.",
    "It goes without saying that every aspect of this is an aspect of the whole.",
    "Having said that, it remains the case that this is how the matter stands.",
    "With all of these considerations in view, the picture is the one that was given.",
)


def padding(case: Case, rng: random.Random) -> str:
    """The answer, and a paragraph of empty sentences that is about half as long (at most ten of them).

    >>> padding(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(2))
    'Lima.\\n\\nAll of this should of course be seen in its context.'
    """
    order = rng.sample(FILLER, len(FILLER))
    said = [order[0]]
    for sentence in order[1:]:
        if 2 * len(" ".join(said)) >= len(case.answer):
            break
        said.append(sentence)
    return f"{case.answer}\n\n{' '.join(said)}"


PROBE = Probe(
    name="padding",
    about="sentences that say nothing, half as long as the answer",
    expects=Expects.SAME,
    touches=("length",),
    edit=padding,
)
