"""PPE's correctness sets: 32 answers a question, each right or wrong, of five benchmarks.

A benchmark. Accuracy is over the pairs that the rows name (one right, one wrong); ROC AUC over all answers of a
question; and best of K is how often the answer of the highest score among K drawn ones is right. Best of K is the exact
expectation over all draws without replacement, where the published code takes a sample of them. The score is the mean
of the five accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import comb
from typing import Any

import numpy as np
from scipy import stats

from plaudit.benchmarks.benchmark import SCORE, Benchmark, Marked, Part
from plaudit.benchmarks.wins import find_category
from plaudit.group import Group, Ratings

DOMAINS = ("MMLU-Pro", "MATH", "GPQA", "MBPP-Plus", "IFEval")
NAMES = {"mmlu": "MMLU-Pro", "math": "MATH", "gpqa": "GPQA", "mbpp": "MBPP-Plus", "ifeval": "IFEval"}
UNKNOWN = "no domain"
PAIRS = "sampled_conflict_pairs"
FULL = 32


def mark(group: Group, scores: Sequence[float], dataset: str) -> Marked | str:
    """One question and all its answers."""
    label = next((label for label in group.labels if isinstance(label, Ratings)), None)
    right = [float(rating) for rating in label.ratings if rating is not None] if label is not None else []
    if len(right) < len(scores) or not set(right) <= {0.0, 1.0}:
        return "not every answer is called right or wrong"
    named = group.meta.get(PAIRS)
    if named is not None and not are_pairs(named, len(scores)):
        return f"{PAIRS} does not name pairs of its answers"
    domain = find_category(NAMES, group.meta.get("domain"), group.subset, dataset, group.id) or UNKNOWN
    values = [(domain, won) for won in compare_pairs(named, right, scores)]
    if len(set(right)) == 2:
        values.append((f"{domain}: AUC", measure_auc(right, scores)))
    picked, possible = best_of(right, scores), best_of(right, right)
    values += [(f"{domain}: best of {k}", share) for k, share in enumerate(picked, start=1)]
    values.append((f"{domain}: loss", sum(b - a for a, b in zip(picked, possible, strict=True)) / len(picked)))
    return Marked(category=domain, values=values)


def are_pairs(named: Any, num_answers: int) -> bool:
    """Whether each is two places of answers."""
    return isinstance(named, list) and all(
        isinstance(one, list | tuple) and len(one) == 2 and all(type(k) is int and 0 <= k < num_answers for k in one)
        for one in named
    )


def compare_pairs(
    named: Sequence[Sequence[int]] | None, right: Sequence[float], scores: Sequence[float]
) -> list[float]:
    """Whether the right answer has the higher score, in each pair that the row names; in all pairs if it names none."""
    if named is None:
        named = [(i, j) for i in range(len(right)) for j in range(i)]
    won = []
    for i, j in named:
        if right[i] != right[j]:
            good, bad = (i, j) if right[i] > right[j] else (j, i)
            won.append(float(scores[good] > scores[bad]))
    return won


def measure_auc(right: Sequence[float], scores: Sequence[float]) -> float:
    """The share of (right, wrong) in which the right answer has the higher score, equal scores half."""
    is_right, rank = np.asarray(right) > 0, stats.rankdata(scores)
    num = int(is_right.sum())
    return float((rank[is_right].sum() - num * (num + 1) / 2) / (num * (len(right) - num)))


def best_of(right: Sequence[float], scores: Sequence[float]) -> list[float]:
    """How often the highest score among K answers, drawn without replacement, is of a right one; for K from 1 on."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    total = len(order)
    share = [0.0] * total
    above = 0
    for _, places in groupby(order, key=lambda place: scores[place]):
        tied = list(places)
        mean = sum(right[place] for place in tied) / len(tied)
        below = total - above - len(tied)
        for k in range(1, total + 1):
            # The highest is in this tie if none above it is drawn, and not all are from below it.
            share[k - 1] += mean * (comb(total - above, k) - comb(below, k)) / comb(total, k)
        above += len(tied)
    return share


def parts(measures: Sequence[str]) -> list[Part]:
    """Accuracy by domain, what lies within it, score."""
    listed, domains = [], [*DOMAINS, UNKNOWN]
    for domain in domains:
        curve = [f"{domain}: best of {k}" for k in range(1, FULL + 1)]
        listed += [
            Part(name=domain, of=[domain]),
            Part(name=f"{domain}: AUC", of=[f"{domain}: AUC"], within=domain),
            Part(name=f"{domain}: most, best of any K", of=curve, by="max", within=domain),
            Part(name=f"{domain}: loss", of=[f"{domain}: loss"], within=domain),
            *(Part(name=curve[k - 1], of=[curve[k - 1]], within=domain) for k in (1, 2, 4, 8, 16, FULL)),
        ]
    for what in ("AUC", "most, best of any K", "loss", f"best of {FULL}"):
        listed.append(Part(name=what, of=[f"{domain}: {what}" for domain in domains]))
    return [*listed, Part(name=SCORE, of=domains)]


BENCHMARK = Benchmark(
    name="ppe-correctness",
    title="PPE correctness",
    about=(
        "mean over MMLU-Pro, MATH, GPQA, MBPP-Plus and IFEval of the share of named pairs in which the right answer "
        "has the higher score; beside it AUC, best of K (exact expectations), and the loss against always picking right"
    ),
    home="https://huggingface.co/lmarena-ai",
    sources=tuple(f"hub:lmarena-ai/PPE-{name}-Best-of-K@train" for name in DOMAINS),
    dialects=("ppe-correctness",),
    aliases=("ppe-c",),
    start=lambda: mark,
    parts=parts,
    expected=(dict.fromkeys(DOMAINS),),
)
