"""Answers in pieces: prose and what has to stay to the letter, sentences and the space between them.

Part of `probes`, above the edits. An edit that keeps the meaning must not reach into code, commands or addresses.
Invariant: the pieces of a text, joined, are the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple

_VERBATIM = re.compile(
    r"^[ \t]*(?P<fence>```|~~~).*?(?:^[ \t]*(?P=fence)[ \t]*$|\Z)|`[^`\n]+`|\$\$?[^$\n]+\$\$?|\bhttps?://\S+",
    re.MULTILINE | re.DOTALL,
)
# A run of marks is tried once, from its first mark, and never given back piece by piece: "!!!!a" is linear.
_BOUNDARY = re.compile(r"""(?P<mark>(?<![.!?…])[.!?…]++["'”’)\]*_]*+(?=\s)|[。！？]+|(?=\n))(?P<gap>\s*)""")
# What ends in a full stop without ending a sentence: titles, initials, and the number of a list item.
_TITLE = re.compile(r"(?:^|[\s(])(?i:mr|mrs|ms|dr|prof|st|vs|e\.g|i\.e|approx|[A-Z])\.$")
_LONGEST_TITLE = len("(approx.")
_INDENT = re.compile(r"[ \t]*")
_LIST_NUMBER = re.compile(r"\d{1,3}\.")
_MARKUP = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,3}[.)])[ \t]|^#{1,6} |^[ \t]*(?:```|~~~)|^[ \t]*\|", re.MULTILINE)


class Sentence(NamedTuple):
    """A sentence with its closing marks, and the white space after it."""

    words: str
    gap: str


def edit_prose(text: str, edit: Callable[[str], str]) -> str:
    """The text with `edit` applied to everything but code, formulas and addresses.

    >>> edit_prose("Type `ls -l` now", str.upper)
    'TYPE `ls -l` NOW'
    """
    pieces, start = [], 0
    for kept in _VERBATIM.finditer(text):
        pieces += [edit(text[start : kept.start()]), kept[0]]
        start = kept.end()
    return "".join([*pieces, edit(text[start:])])


def edit_some(text: str, pattern: re.Pattern[str], edit: Callable[[str], str], rng: random.Random, one_in: int) -> str:
    """The text with `edit` applied to one match of `one_in` in its prose, drawn by lot, and to one at the least."""
    num_matches = 0

    def count(prose: str) -> str:
        nonlocal num_matches
        num_matches += len(pattern.findall(prose))
        return prose

    edit_prose(text, count)
    chosen = set(rng.sample(range(num_matches), max(1, num_matches // one_in))) if num_matches else set()
    at = iter(range(num_matches))
    return edit_prose(text, lambda prose: pattern.sub(lambda m: edit(m[0]) if next(at) in chosen else m[0], prose))


def has_verbatim(text: str) -> bool:
    """Whether there is code, a formula or an address in it."""
    return _VERBATIM.search(text) is not None


def has_markup(text: str) -> bool:
    """Whether it has structure already: a list, a heading, a fence, a table."""
    return _MARKUP.search(text) is not None


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of a text; a line break ends one, too.

    >>> [sentence.words for sentence in split_sentences("Dr. Who is 9. He said: 'Run!' And ran\\n1. Away")]
    ['Dr. Who is 9.', "He said: 'Run!'", 'And ran', '1. Away']
    """
    found, start = [], 0
    # Where the sentence's last line begins, and the first character of it that is no blank. A sentence may go on over
    # many marks ("A. B. C. ..."), so neither it nor its line is looked at again as a whole at each of them.
    line, first = 0, _INDENT.match(text).end()  # type: ignore[union-attr]
    for boundary in _BOUNDARY.finditer(text):
        end, gap = boundary.end("mark"), boundary["gap"]
        if end > start and "\n" not in gap:
            is_list_number = _LIST_NUMBER.fullmatch(text, first, end) is not None
            if is_list_number or _TITLE.search(text[max(line, end - _LONGEST_TITLE - 1) : end]):
                continue
        if end > start:
            found.append(Sentence(text[start:end], gap))
            start = line = boundary.end()
        else:
            line = boundary.start("gap") + gap.rfind("\n") + 1
        first = _INDENT.match(text, line).end()  # type: ignore[union-attr]
    return [*found, Sentence(text[start:], "")] if start < len(text) else found


def changed(before: str, after: str) -> str | None:
    """The edited text; None where the edit found nothing to do."""
    return after if after != before and after.strip() else None
