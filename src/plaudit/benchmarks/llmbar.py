"""LLMBar: pairs of which one output follows the instruction, natural ones and four kinds of adversarial ones.

A benchmark. A judge's accuracy is averaged over both orders of the outputs; a reward model has no order, so it is plain
accuracy. Adversarial is the mean of its four sets, the score the mean of all five.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.benchmarks.benchmark import SCORE, Benchmark, Marked, Part
from plaudit.benchmarks.wins import find_category, mark_pair
from plaudit.group import Group

NATURAL, ADVERSARIAL = "Natural", "Adversarial"
SETS = {NATURAL: 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}
NAMES = {name.lower(): name for name in SETS}
PLACE = "https://raw.githubusercontent.com/princeton-nlp/LLMBar/main/Dataset/LLMBar/"


def mark(group: Group, scores: Sequence[float], dataset: str) -> Marked | str:
    """A pair; the files say their set by their path alone."""
    unknown = "neither a subset nor the name of its file says which of LLMBar's five sets it is of"
    return mark_pair(group, scores, find_category(NAMES, group.subset, dataset), unknown=unknown)


def parts(measures: Sequence[str]) -> list[Part]:
    """Sets, the adversarial ones together, score."""
    others = [name for name in SETS if name != NATURAL]
    return [
        Part(name=NATURAL, of=[NATURAL]),
        Part(name=ADVERSARIAL, of=others),
        *(Part(name=name, of=[name], within=ADVERSARIAL) for name in others),
        Part(name=SCORE, of=list(SETS)),
    ]


BENCHMARK = Benchmark(
    name="llmbar",
    title="LLMBar",
    about="mean of the accuracies on Natural and on the four adversarial sets Neighbor, GPTInst, GPTOut and Manual",
    home="https://github.com/princeton-nlp/LLMBar",
    sources=(
        f"{PLACE}Natural/dataset.json",
        *(f"{PLACE}Adversarial/{name}/dataset.json" for name in SETS if name != NATURAL),
    ),
    dialects=("llmbar",),
    origins=("llmbar",),
    start=lambda: mark,
    parts=parts,
    expected=(SETS,),
)
