"""JudgeBench: pairs of which one answer is right, by one model each, in knowledge, reasoning, math and coding.

A benchmark. A judge is asked in both orders; a reward model has no order, so its score is plain accuracy over all
pairs. Two sets exist, with answers by GPT-4o (350 pairs, the one that a name alone reads) and by Claude 3.5 Sonnet
(270).
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.benchmarks.benchmark import Benchmark, Marked, Part
from plaudit.benchmarks.wins import ALL_PAIRS, mark_pair, score_all_pairs
from plaudit.group import Group

STEMS = {
    "mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math", "livecodebench": "coding",
}  # fmt: skip
"""How a row's source begins -> its category."""

GPT_4O = {"knowledge": 154, "reasoning": 98, "math": 56, "coding": 42}
CLAUDE = {"knowledge": 154, "reasoning": 51, "math": 34, "coding": 31}
BOTH = {name: GPT_4O[name] + CLAUDE[name] for name in GPT_4O}


def find_own_category(group: Group) -> str | None:
    """By the source of the question, or by a subset of the category's name."""
    for text in (group.source, group.meta.get("original_source"), group.subset):
        if isinstance(text, str):
            found = next((name for stem, name in STEMS.items() if text.startswith(stem)), None)
            if found is not None or text in GPT_4O:
                return found or text
    return None


def mark(group: Group, scores: Sequence[float], dataset: str) -> Marked | str:
    """A pair of a known category."""
    unknown = f"the source {group.source!r} is none of JudgeBench's"
    return mark_pair(group, scores, find_own_category(group), unknown=unknown, also=ALL_PAIRS)


def parts(measures: Sequence[str]) -> list[Part]:
    """Categories, and all pairs as the score."""
    return score_all_pairs(GPT_4O)


BENCHMARK = Benchmark(
    name="judgebench",
    title="JudgeBench",
    about="share of all pairs in which the right answer has the higher score",
    home="https://huggingface.co/datasets/ScalerLab/JudgeBench",
    sources=("hub:ScalerLab/JudgeBench@gpt",),
    dialects=("judgebench",),
    origins=("judgebench",),
    start=lambda: mark,
    parts=parts,
    expected=(GPT_4O, CLAUDE, BOTH),
)
