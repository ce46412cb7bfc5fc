"""A number that is not the right one any more.

Part of `probes`. Makes the answer worse.
"""

from __future__ import annotations

import random
import re

from plaudit.probes.probe import Case, Expects, Probe

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?![\w])")
_INDENT = re.compile(r"^[ \t]*+(?=\d)", re.MULTILINE)


def wrong_number(case: Case, rng: random.Random) -> str | None:
    """The last number of the answer with another digit, wherever it stands; not where there is none but list numbers.

    >>> wrong_number(Case(prompt="What is 2 + 2?", answer="2 + 2 is 4, so take 4."), random.Random(1))
    '2 + 2 is 2, so take 2.'
    """
    text = case.answer
    first_in_line = {indent.end() for indent in _INDENT.finditer(text)}
    found = [m for m in _NUMBER.finditer(text) if not (m.start() in first_in_line and _is_list_mark(text, m.end()))]
    if not found:
        return None
    right = found[-1][0]
    wrong = _change_digit(right, rng)
    pieces, start = [], 0
    for number in found:
        if number[0] == right:
            pieces += [text[start : number.start()], wrong]
            start = number.end()
    return "".join([*pieces, text[start:]])


def _is_list_mark(text: str, at: int) -> bool:
    return text[at : at + 2] in (". ", ") ")


def _change_digit(number: str, rng: random.Random) -> str:
    """The number with one digit changed; it keeps its length, and no zero comes to its front."""
    at = rng.choice([n for n, sign in enumerate(number) if sign.isdigit()])
    choices = "0123456789" if at else "123456789"
    return number[:at] + rng.choice([digit for digit in choices if digit != number[at]]) + number[at + 1 :]


PROBE = Probe(
    name="wrong_number",
    about="the last number of the answer changed, wherever it stands",
    expects=Expects.LOWER,
    touches=("numbers",),
    edit=wrong_number,
)
