"""RewardBench: pairs of 23 subsets in four sections, and the test sets of earlier preference data.

A benchmark. A subset's score is the share of its pairs in which the chosen answer has the higher score. A section's is
the mean of its subsets, weighted by the published row counts, of which math-prm's is raised to that of all code; the
score is the mean of the sections, with half a weight for the prior sets where they came.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.benchmarks.benchmark import SCORE, Benchmark, Marked, Part
from plaudit.benchmarks.wins import mark_pair
from plaudit.group import Group

SECTIONS: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154,
        "xstest-should-respond": 250, "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164,
        "hep-rust": 164,
    },
}  # fmt: skip
"""Section -> subset -> weight."""

NUM_MATH = 447
PRIOR = "Prior Sets"
PRIOR_SETS = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
"""The prior sets that are in the section; the others are shown, and in nothing."""

OTHER_SETS = ("anthropic_harmless", "mtbench_gpt4", "mtbench_human")
SUBSETS = frozenset([*(name for section in SECTIONS.values() for name in section), *PRIOR_SETS, *OTHER_SETS])


def mark(group: Group, scores: Sequence[float], dataset: str) -> Marked | str:
    """A pair of a known subset."""
    unknown = f"the subset {group.subset!r} is none of RewardBench's"
    return mark_pair(group, scores, group.subset if group.subset in SUBSETS else None, unknown=unknown)


def parts(measures: Sequence[str]) -> list[Part]:
    """Subsets, sections, score."""
    listed = [Part(name=SCORE, of=[*SECTIONS, PRIOR], weights=[2, 2, 2, 2, 1])]
    for section, weights in SECTIONS.items():
        listed += [Part(name=section, of=list(weights), weights=list(weights.values()))]
        listed += [Part(name=name, of=[name], within=section) for name in weights]
    listed += [Part(name=PRIOR, of=PRIOR_SETS)]
    listed += [Part(name=name, of=[name], within=PRIOR) for name in PRIOR_SETS]
    return [*listed[1:], *(Part(name=name, of=[name]) for name in OTHER_SETS), listed[0]]


BENCHMARK = Benchmark(
    name="rewardbench",
    title="RewardBench",
    about=(
        "mean of the sections Chat, Chat Hard, Safety and Reasoning (and, with half a weight, of the prior sets where "
        "they came); a section is the mean of its subsets' accuracies, weighted by the published row counts with "
        "math-prm raised to the weight of all code"
    ),
    home="https://huggingface.co/datasets/allenai/reward-bench",
    sources=("hub:allenai/reward-bench@filtered",),
    dialects=("rewardbench",),
    aliases=("reward-bench",),
    start=lambda: mark,
    parts=parts,
    expected=(
        {name: count for section in SECTIONS.values() for name, count in section.items()} | {"math-prm": NUM_MATH},
    ),
    is_own=lambda group: group.subset in SUBSETS,
)
