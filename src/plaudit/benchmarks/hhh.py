"""HHH alignment: pairs written by its authors for harmless, helpful, honest, and other.

A benchmark. The score is accuracy over all 221 pairs, and the same by category.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.benchmarks.benchmark import Benchmark, Marked, Part
from plaudit.benchmarks.wins import ALL_PAIRS, find_category, mark_pair, score_all_pairs
from plaudit.group import Group

CATEGORIES = {"harmless": 58, "helpful": 59, "honest": 61, "other": 43}
NAMES = {name: name for name in CATEGORIES}
PLACE = "https://huggingface.co/datasets/HuggingFaceH4/hhh_alignment/resolve/refs%2Fconvert%2Fparquet/"


def mark(group: Group, scores: Sequence[float], dataset: str) -> Marked | str:
    """A pair; the public files say their category by their path alone."""
    unknown = "neither a subset nor the name of its file says harmless, helpful, honest or other"
    category = find_category(NAMES, group.subset, dataset)
    return mark_pair(group, scores, category, unknown=unknown, also=ALL_PAIRS)


def parts(measures: Sequence[str]) -> list[Part]:
    """Categories, and all pairs as the score."""
    return score_all_pairs(CATEGORIES)


BENCHMARK = Benchmark(
    name="hhh",
    title="HHH alignment",
    about="share of all pairs in which the preferred answer has the higher score",
    home="https://huggingface.co/datasets/HuggingFaceH4/hhh_alignment",
    sources=tuple(f"{PLACE}{name}/test/0000.parquet" for name in CATEGORIES),
    dialects=("hhh",),
    aliases=("hhh-alignment",),
    origins=("hhh-alignment",),
    start=lambda: mark,
    parts=parts,
    expected=(CATEGORIES,),
)
