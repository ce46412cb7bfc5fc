"""The whole answer in a code fence.

Part of `probes`. Keeps the meaning, adds a fence.
"""

from __future__ import annotations

import random

from plaudit.probes.probe import Case, Expects, Probe


def code_fence(case: Case, rng: random.Random) -> str | None:
    """The answer between two fences; not where it has some already.

    >>> code_fence(Case(prompt="Capital of Peru?", answer="Lima."), random.Random(0))
    '```\\nLima.\\n```'
    """
    if "```" in case.answer:
        return None
    return f"```\n{case.answer.strip()}\n```"


PROBE = Probe(
    name="code_fence",
    about="the whole answer in a code fence",
    expects=Expects.SAME,
    touches=("fences",),
    edit=code_fence,
)
