"""RM-Bench: right against wrong in three styles each, so that style alone can be seen to win.

A benchmark. Each of three right answers (concise, detailed, detailed with markdown) meets each of three wrong ones: a
matrix of accuracies. Hard is where the wrong answer has more style than the right one (above the diagonal), normal
where both have the same, easy where the right one has more; the score is the mean of the three and of four domains.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.benchmarks.benchmark import SCORE, Benchmark, Marked, Part
from plaudit.benchmarks.wins import find_category
from plaudit.group import Group

DOMAINS = {"chat": 129, "math": 529, "code": 228, "safety": 441}
NAMES = {name: name for name in DOMAINS}
STYLES = ("concise", "detailed", "markdown")
NUM = len(STYLES)
CELLS = [(good, bad) for good in range(NUM) for bad in range(NUM)]
LEVELS = {
    "hard": [(good, bad) for good, bad in CELLS if good < bad],
    "normal": [(good, bad) for good, bad in CELLS if good == bad],
    "easy": [(good, bad) for good, bad in CELLS if good > bad],
}
"""How hard -> the cells (style of the right answer, style of the wrong one)."""

MATRIX = "style matrix"
UNKNOWN = "no domain"


def name_cell(domain: str, cell: tuple[int, int]) -> str:
    """The measure of one domain's cell."""
    return f"{domain}: {STYLES[cell[0]]} over {STYLES[cell[1]]}"


def mark(group: Group, scores: Sequence[float], dataset: str) -> Marked | str:
    """Nine comparisons."""
    said = {(c.better, c.worse) for c in group.comparisons()}
    if len(scores) != 2 * NUM or said != {(good, NUM + bad) for good, bad in CELLS}:
        return "it does not have three styles of a right and three of a wrong answer"
    domain = find_category(NAMES, group.meta.get("domain"), group.subset, dataset) or UNKNOWN
    values = [(name_cell(domain, (i, j)), float(scores[i] > scores[NUM + j])) for i, j in CELLS]
    return Marked(category=domain, values=values)


def parts(measures: Sequence[str]) -> list[Part]:
    """Levels by domain, domains, levels, the matrix, score."""
    domains = [*DOMAINS, UNKNOWN]
    listed = []
    for domain in domains:
        levels = [f"{domain} {level}" for level in LEVELS]
        listed += [
            Part(name=name, of=[name_cell(domain, cell) for cell in cells], within=domain)
            for name, cells in zip(levels, LEVELS.values(), strict=True)
        ]
        listed += [Part(name=domain, of=levels)]
    listed += [Part(name=level, of=[f"{domain} {level}" for domain in domains]) for level in LEVELS]
    listed += [
        Part(
            name=f"{STYLES[cell[0]]} over {STYLES[cell[1]]}",
            of=[name_cell(domain, cell) for domain in domains],
            within=MATRIX,
        )
        for cell in CELLS
    ]
    return [*listed, Part(name=SCORE, of=domains)]


BENCHMARK = Benchmark(
    name="rmbench",
    title="RM-Bench",
    about=(
        "mean over chat, math, code and safety of the mean of hard, normal and easy accuracy: three styles of the "
        "right answer against three of the wrong one, hard where the wrong one has more style"
    ),
    home="https://github.com/THU-KEG/RM-Bench",
    sources=("hub:THU-KEG/RM-Bench@train",),
    dialects=("rmbench",),
    aliases=("rm-bench",),
    start=lambda: mark,
    parts=parts,
    expected=(DOMAINS,),
)
