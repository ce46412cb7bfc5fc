"""PPE's human preferences: pairs from an arena, with the winner as a person saw it.

A benchmark. The score is accuracy over the pairs that are no ties, and the same by kind of prompt. The published
metrics that compare win rates of the models that answered are of a leaderboard, not of a Group, and are not here.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.benchmarks.benchmark import Benchmark, Marked, Part
from plaudit.benchmarks.wins import ALL_PAIRS, find_pair, has_won, score_all_pairs
from plaudit.group import Group

TIED = "the person called it a tie"
FLAGS = {
    "hard_prompt": "hard prompts", "easy_prompt": "easy prompts", "if_prompt": "instruction following",
    "math_prompt": "math", "is_code": "code",
}  # fmt: skip
"""A column that is true or false -> the part of the rows in which it is true."""


def mark(group: Group, scores: Sequence[float], dataset: str) -> Marked | str:
    """A pair that a person decided."""
    said = find_pair(group)
    if said is None:
        return TIED
    won = has_won(said, scores)
    kinds = [name for flag, name in FLAGS.items() if group.meta.get(flag) is True]
    return Marked(category=ALL_PAIRS, values=[(name, won) for name in (ALL_PAIRS, *kinds)])


def parts(measures: Sequence[str]) -> list[Part]:
    """Kinds of prompts, and all pairs as the score."""
    return score_all_pairs(FLAGS.values())


BENCHMARK = Benchmark(
    name="ppe-preference",
    title="PPE human preference",
    about="share of the pairs that a person decided in which the winner has the higher score; ties are left out",
    home="https://huggingface.co/datasets/lmarena-ai/PPE-Human-Preference-V1",
    sources=("hub:lmarena-ai/PPE-Human-Preference-V1@test",),
    dialects=("ppe-preference",),
    aliases=("ppe-p",),
    start=lambda: mark,
    parts=parts,
    expected=({ALL_PAIRS: None},),
)
