"""Markdown taken out: the words without their marks.

Part of `probes`. Keeps the meaning, takes lists, headings and bold away.
"""

from __future__ import annotations

import random
import re

from plaudit.probes.probe import Case, Expects, Probe
from plaudit.probes.prose import changed

_MARKS = (
    (re.compile(r"^#{1,6} +", re.MULTILINE), ""),
    (re.compile(r"^([ \t]*)(?:[-*•+]|\d{1,3}[.)])[ \t]+", re.MULTILINE), r"\1"),
    (re.compile(r"\*\*(\S(?:[^*\n]*\S)?)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*(\S(?:[^*\n]*\S)?)\*(?![\w*])"), r"\1"),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
)
# The words of a link up to the bracket that closes them. Where no address follows, no later "[" of the same stretch
# begins a link either, so the search goes on behind all of it.
_LINK_WORDS = re.compile(r"\[([^\]\n]++)(\]\()?+")
_ADDRESS_END = re.compile(r"[)\s]")


def plain_text(case: Case, rng: random.Random) -> str | None:
    """The answer without marks of headings, lists, bold, links and code words; fenced code ends it, as it is no prose.

    >>> plain_text(Case(prompt="Capital of Peru?", answer="## Peru\\n- **Lima**, by `law`"), random.Random(0))
    'Peru\\nLima, by law'
    """
    if "```" in case.answer or "~~~" in case.answer:
        return None
    text = case.answer
    for mark, kept in _MARKS[:-1]:
        text = mark.sub(kept, text)
    text = _take_links_out(text)
    mark, kept = _MARKS[-1]
    return changed(case.answer, mark.sub(kept, text))


def _take_links_out(text: str) -> str:
    """`[words](address)` as its words; linear, however many brackets are never closed."""
    pieces, start, at, end = [], 0, 0, -1
    while head := _LINK_WORDS.search(text, at):
        at = head.end()
        if not head[2]:
            continue
        if end < at:
            found = _ADDRESS_END.search(text, at)
            end = found.start() if found else len(text)
        if at < end < len(text) and text[end] == ")":
            pieces += [text[start : head.start()], head[1]]
            start = at = end + 1
    return "".join([*pieces, text[start:]])


PROBE = Probe(
    name="plain_text",
    about="the marks of Markdown taken out",
    expects=Expects.SAME,
    touches=("lists", "headings", "bold"),
    edit=plain_text,
)
