"""The best-of-N lab: what choosing the best of n by score does to score, gold, length and distance, for every n.

After `estimates` and `law`. Invariant: all n are estimated on the same prompts, those with at least N completions, and
every mean has an interval from prompts drawn anew, all n on the same draws. What one n is worth over another has an
interval that few prompts and skewed gains cannot break; where the n was chosen as the best, the interval allows for it.
Letters: P rows of the sample, N the grid of n, B replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plaudit.errors import ConfigError
from plaudit.measure.intervals import (
    FEW_PROMPTS,
    Floats,
    Interval,
    Ints,
    percentile_interval,
    resample_sums,
    sum_by_cluster,
)
from plaudit.measure.significance import effective_tests, skew_proof_interval
from plaudit.select.estimates import (
    bound_kl,
    estimate_best,
    estimate_kl,
    estimate_wins,
    pessimistic_weights,
    soft_weights,
)
from plaudit.select.law import Law, fit_law, recommend_n
from plaudit.select.sample import Prompt, Sample

Json = dict[str, Any]

ALL_UP_TO, MOST_POINTS = 64, 48
"""Every n up to the first; of more, so many evenly spread on a log scale."""

STRENGTHS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Temperatures and betas that are tried, in units of how scores spread within prompts."""

COMMON = 0.5
"""N is the largest that at least this share of prompts have candidates for."""


Lead = tuple[float, Interval | None]
"""How much gold lies between two n, with its interval by prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """What was estimated; `points`, `soft` and `pessimistic` as report.json has them.

    `gain` is the gold of the best n over that of n = 1, `decline` that of the largest n over the best n's; the
    intervals of both hold although the best n was chosen by the same gold.
    """

    num_max: int
    rows: int
    prompts: int
    left_out: int
    points: tuple[Json, ...]
    law: Law | None
    recommended_n: int | None
    soft: tuple[Json, ...]
    pessimistic: tuple[Json, ...]
    oracle: float | None
    gain: Lead | None
    decline: Lead | None
    notes: tuple[str, ...]

    def as_json(self) -> Json:
        """Under stable keys."""
        return {
            "n_max": self.num_max, "rows": self.rows, "prompts": self.prompts, "left_out": self.left_out,
            "curve": list(self.points), "law": self.law.as_json() if self.law else None,
            "recommended_n": self.recommended_n, "soft": list(self.soft), "pessimistic": list(self.pessimistic),
            "oracle": self.oracle, **_as_json("gain", self.gain), **_as_json("decline", self.decline),
            "notes": list(self.notes),
        }  # fmt: skip


def build_grid(num_max: int) -> list[int]:
    """The n that are estimated: all up to 64, then evenly on a log scale, N always among them."""
    if num_max <= ALL_UP_TO:
        return list(range(1, num_max + 1))
    spread = np.unique(np.geomspace(1, num_max, MOST_POINTS).round().astype(int))
    return [int(n) for n in spread]


def find_num_max(sizes: Sequence[int]) -> int:
    """The largest n that at least half of the rows have completions for."""
    ordered = sorted(sizes, reverse=True)
    return ordered[max(0, math.ceil(COMMON * len(ordered)) - 1)]


def measure_curve(sample: Sample, *, num_max: int | None = None, seed: int = 0) -> Curve:
    """The whole of it: points, law, recommendation, and gentler ways to choose."""
    most = _check_num_max(sample.sizes, num_max)
    kept = list(sample.prompts(at_least=most))
    prompt_P = np.array([number for number, _ in kept])
    grid = build_grid(most)
    has_gold = sample.gold is not None
    drawn = _Drawn(prompt_P, seed)
    tables = {name: np.stack([row(p, grid) for _, p in kept]) for name, row in _rows(has_gold).items()}
    score_BN = drawn.means(tables["score"])
    gold_BN = drawn.means(tables["gold"]) if has_gold else None
    few = drawn.num < FEW_PROMPTS
    notes = [f"{drawn.num} prompts came, fewer than {FEW_PROMPTS}: intervals are hints"] if few else []
    law = recommended = gain = decline = None
    if gold_BN is not None:
        best = int(np.argmax(gold_BN[0]))
        gold_PN = tables["gold"]
        from_first, from_last = (effective_tests(gold_BN - gold_BN[:, [at]]) for at in (0, -1))
        gain = drawn.lead(gold_PN[:, best] - gold_PN[:, 0], num_tests=from_first)
        decline = drawn.lead(gold_PN[:, -1] - gold_PN[:, best], num_tests=from_last)
        law = fit_law(np.array([bound_kl(n) for n in grid[1:]]), gold_BN[:, 1:] - gold_BN[:, :1], drawn.num)
        tests_of_best = effective_tests(gold_BN - gold_BN[:, [best]])
        recommended = recommend_n(
            grid[: best + 1],
            lambda at: is_ahead(drawn.lead(gold_PN[:, best] - gold_PN[:, at], num_tests=tests_of_best)),
        )
    unit = _spread([p for _, p in kept])
    return Curve(
        num_max=most,
        rows=len(kept),
        prompts=drawn.num,
        left_out=len(sample.sizes) - len(kept),
        points=tuple(_points(grid, tables, score_BN, gold_BN, drawn)),
        law=law,
        recommended_n=recommended,
        soft=tuple(_tempered(kept, drawn, unit, soft_weights, name="temperature", has_gold=has_gold)),
        pessimistic=tuple(_tempered(kept, drawn, unit, pessimistic_weights, name="beta", has_gold=has_gold)),
        oracle=float(np.mean([p.gold_M.max() for _, p in kept])) if has_gold else None,
        gain=gain,
        decline=decline,
        notes=tuple(notes),
    )


def _as_json(name: str, lead: Lead | None) -> Json:
    return {name: lead and lead[0], f"{name}_ci": lead and lead[1]}


def _check_num_max(sizes: Sequence[int], asked: int | None) -> int:
    """N, as asked for or as the sample has it; ConfigError where there is nothing to choose from."""
    most = find_num_max(sizes) if asked is None else asked
    if most > max(sizes):
        raise ConfigError(f"--max-n {most} came, and no prompt has more than {max(sizes)} scored completions")
    if most < 2:
        raise ConfigError("most prompts have one scored completion; at least two each were needed to choose from")
    return most


class _Drawn:
    """Prompts drawn anew: means of many columns over the same draws."""

    def __init__(self, prompt_P: Ints, seed: int) -> None:
        self.prompt_P, self.seed = prompt_P, seed
        self.num = len(np.unique(prompt_P))

    def means(self, value_PN: Floats) -> Floats:
        """The column means, first as measured, then of each replicate."""
        ones_P1 = np.ones((len(value_PN), 1))
        total_BK = resample_sums(np.concatenate([value_PN, ones_P1], axis=1), self.prompt_P, seed=self.seed)
        return np.concatenate([value_PN.mean(axis=0, keepdims=True), total_BK[:, :-1] / total_BK[:, -1:]])

    def interval(self, value_B: Floats) -> Interval | None:
        """Of one column that `means` gave."""
        return percentile_interval(value_B[1:], self.num)

    def lead(self, value_P: Floats, *, num_tests: float = 1.0) -> Lead:
        """The mean of a difference a row, with an interval that holds for so many of them together."""
        sum_PK = sum_by_cluster(np.stack([value_P, np.ones(len(value_P))], axis=1), self.prompt_P)
        mean = float(value_P.mean())
        # Rows of one prompt go together; a prompt's value is how far it moves the mean, times the number of prompts.
        own_P = mean + (sum_PK[:, 0] - mean * sum_PK[:, 1]) * self.num / len(value_P)
        return mean, skew_proof_interval(own_P, num_tests=num_tests)


def is_ahead(lead: Lead) -> bool:
    """Whether the interval says that there is more gold."""
    return lead[1] is not None and lead[1][0] > 0


def _rows(has_gold: bool) -> dict[str, Callable[[Prompt, Sequence[int]], Floats]]:
    """What is estimated of each prompt, for the whole grid."""
    found: dict[str, Callable[[Prompt, Sequence[int]], Floats]] = {
        "score": lambda p, grid: estimate_best(p.score_M, p.score_M, grid),
        "length": lambda p, grid: estimate_best(p.length_M, p.score_M, grid),
        "kl": lambda p, grid: estimate_kl(p.count_M, p.score_M, grid),
        "win": lambda p, grid: estimate_wins(p.gold_M if has_gold else p.score_M, p.score_M, grid),
    }
    if has_gold:
        found["gold"] = lambda p, grid: estimate_best(p.gold_M, p.score_M, grid)
    return found


def _points(
    grid: list[int], tables: dict[str, Floats], score_BN: Floats, gold_BN: Floats | None, drawn: _Drawn
) -> list[Json]:
    """One object for each n."""
    # Of n = M no other completion is left to win against: those rows have no say there.
    wins = tables["win"]
    points = []
    for at, n in enumerate(grid):
        known = np.isfinite(wins[:, at])
        win_B = _Drawn(drawn.prompt_P[known], drawn.seed).means(wins[known, at : at + 1])[:, 0] if known.any() else None
        points.append(
            {
                "n": n,
                "score": float(score_BN[0, at]),
                "score_ci": drawn.interval(score_BN[:, at]),
                "gold": None if gold_BN is None else float(gold_BN[0, at]),
                "gold_ci": None if gold_BN is None else drawn.interval(gold_BN[:, at]),
                "gain": None if gold_BN is None else float(gold_BN[0, at] - gold_BN[0, 0]),
                "gain_ci": None if gold_BN is None else drawn.lead(tables["gold"][:, at] - tables["gold"][:, 0])[1],
                "win_rate": None if win_B is None else float(win_B[0]),
                "win_rate_ci": None if win_B is None else drawn.interval(win_B),
                # Distances are averaged plainly: they are known of a sample, not uncertain like its worth.
                "kl_bound": bound_kl(n),
                "kl": float(tables["kl"][:, at].mean()),
                "length": float(tables["length"][:, at].mean()),
            }
        )
    return points


def _spread(prompts: Sequence[Prompt]) -> float:
    """How scores spread within prompts: the root of the mean variance; one where there is none."""
    variance = float(np.mean([p.score_M.var() for p in prompts]))
    return math.sqrt(variance) if variance > 0 else 1.0


def _tempered(
    kept: Sequence[tuple[int, Prompt]], drawn: _Drawn, unit: float, weigh: Callable[[Floats, float], Floats],
    *, name: str, has_gold: bool,
) -> list[Json]:  # fmt: skip
    """What choosing among all M by chance gives, the chances following the score more or less closely."""
    found = []
    for strength in STRENGTHS:
        weights = [weigh(p.score_M, strength * unit) for _, p in kept]
        pairs = list(zip(weights, (p for _, p in kept), strict=True))
        score = drawn.means(np.array([[w @ p.score_M] for w, p in pairs]))[:, 0]
        point: Json = {name: strength * unit, "spreads": strength, "score": float(score[0])}
        # How many candidates share the choice, by the weights' inverse Simpson index.
        point["effective"] = float(np.mean([1 / (w @ w) for w in weights]))
        if has_gold:
            gold = drawn.means(np.array([[w @ p.gold_M] for w, p in pairs]))[:, 0]
            point |= {"gold": float(gold[0]), "gold_ci": drawn.interval(gold)}
        found.append(point)
    return found
