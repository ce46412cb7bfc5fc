"""What most benchmarks ask of a Group: whether the better completion has the higher score, and where the row belongs.

Part of `benchmarks`, under the benchmark files. Invariant: equal scores are no win.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from plaudit.benchmarks.benchmark import SCORE, Marked, Part
from plaudit.group import Comparison, Group

NO_PREFERENCE = "its labels do not prefer one completion"
ALL_PAIRS = "all pairs"


def find_pair(group: Group) -> Comparison | None:
    """The one comparison of a pair; None of a tie, and of what is no pair."""
    said = list(group.comparisons())
    return said[0] if len(said) == 1 and not said[0].is_tie else None


def has_won(said: Comparison, scores: Sequence[float]) -> float:
    """1 if the better completion has the higher score, else 0."""
    return float(scores[said.better] > scores[said.worse])


def mark_pair(
    group: Group, scores: Sequence[float], category: str | None, *, unknown: str, also: str = ""
) -> Marked | str:
    """A pair as a row of its category, won or lost, and in the measure `also`; or why it is none."""
    said = find_pair(group)
    if said is None:
        return NO_PREFERENCE
    if category is None:
        return unknown
    won = has_won(said, scores)
    return Marked(category=category, values=[(name, won) for name in (category, also) if name])


def score_all_pairs(names: Iterable[str]) -> list[Part]:
    """Each of these measures by itself, and all pairs together as the score."""
    return [*(Part(name=name, of=[name]) for name in names), Part(name=SCORE, of=[ALL_PAIRS])]


def find_category(names: Mapping[str, str], *texts: object) -> str | None:
    """The category of the first text that holds a word of `names` (a word -> its category); the last such word in it.

    The last, because texts may be paths: `LLMBar/Adversarial/Neighbor/dataset.json` is Neighbor's.
    """
    for text in texts:
        if isinstance(text, str) and text:
            words = re.findall(r"[a-z]+", text.lower())
            found = [names[word] for word in words if word in names]
            if found:
                return found[-1]
    return None
