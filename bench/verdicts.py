"""How often verdicts are false where there is nothing to find, and how often they find what is there.

    python bench/verdicts.py [--repeats 4000] [--only WORD]

Simulates data in which two models are equally good, a model is no better than a rule, nothing has drifted, shifts of
probes and gains of best-of-n have a mean of zero. Asks the functions that reports ask, and prints the share of data
sets with a verdict against the truth, as a markdown table. A second table is the share with the right verdict where
there is a difference. No model, no data: numbers from a seeded generator.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

from plaudit.alarms import Alarms
from plaudit.drift import Hidden, compare_accuracies, measure_distances
from plaudit.measure.accuracy import Accuracy
from plaudit.measure.baselines import LEAKING
from plaudit.measure.intervals import rate_interval
from plaudit.measure.significance import PairedMean, paired_mean, skew_proof_interval
from plaudit.probes.probe import Expects
from plaudit.probes.verdict import find_family_interval, judge_shift
from plaudit.report.bestofn import build_curve_verdict
from plaudit.report.comparison import is_sure
from plaudit.report.facts import Facts
from plaudit.report.verdict import build_verdict
from plaudit.select import curve
from plaudit.select.sample import Sample

Floats = npt.NDArray[np.float64]
Generator = np.random.Generator
Trial = Callable[[Generator, int], bool]
"""Draws a data set of so many prompts; whether there is a verdict that counts."""

curve.STRENGTHS = ()  # the gentler ways to choose have no verdict, and cost most of the time

PROMPTS, PROMPTS_FOUND = (2, 3, 5, 10, 20, 50), (20, 50, 200)
ACCURACIES = (0.5, 0.9, 0.98, 1.0, 0.02)
NUM_PROBES, NUM_SUBSETS, NUM_EVALS, NUM_CANDIDATES, NUM_REFERENCE = 30, 20, 10, 8, 200
SHAPES: dict[str, Callable[[Generator, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "gamma(4)": lambda rng, shape: (rng.gamma(4.0, size=shape) - 4) / 2,
    "minus gamma(4)": lambda rng, shape: (4 - rng.gamma(4.0, size=shape)) / 2,
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "minus exponential": lambda rng, shape: 1 - rng.exponential(size=shape),
}
"""Standardised shifts with a mean of zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A row of a table; `cost` is how much dearer a repetition is than a cheap one."""

    verdict: str
    setting: str
    trial: Trial
    cost: int = 1


@cache
def paired(counts: tuple[tuple[float, int], ...], sizes: tuple[int, ...] = ()) -> PairedMean:
    """The paired mean of so many differences of each value; with `sizes`, values are sums of prompts of that size."""
    value_P = np.repeat([value for value, _ in counts], [count for _, count in counts])
    size = sizes[0] if sizes else 1
    return paired_mean(np.repeat(value_P / size, size), np.repeat(np.arange(len(value_P)), size), seed=0)


def count(value_P: Floats) -> tuple[tuple[float, int], ...]:
    return tuple(sorted(Counter(value_P.tolist()).items()))


def is_called(found: PairedMean, num_tests: int = 1) -> bool:
    """Whether a report calls one of the two better; `p` and interval have to say the same."""
    assert found.interval is None or (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])
    part = {"difference": found.mean, "difference_ci": found.interval and list(found.interval), "p": found.p}
    return is_sure(Facts(part), num_tests)


def leads(found: PairedMean) -> bool:
    return found.interval is not None and found.interval[0] > 0


def compare_equal(a: float, b: float) -> Trial:
    """One comparison a prompt, errors independent of each other: as many discordant prompts as there can be."""
    return lambda rng, n: is_called(paired(count((rng.random(n) < b) * 1.0 - (rng.random(n) < a))))


def compare_clustered(accuracy: float) -> Trial:
    """Three comparisons a prompt, which one model finds easy or hard together."""

    def trial(rng: Generator, n: int) -> bool:
        spread = 1.5
        share = rng.beta(accuracy * spread, (1 - accuracy) * spread, (2, n)) if 0 < accuracy < 1 else accuracy
        right = rng.binomial(3, np.broadcast_to(share, (2, n)))
        return is_called(paired(count((right[1] - right[0]) * 1.0), (3,)))

    return trial


def compare_subsets(accuracy: float) -> Trial:
    def trial(rng: Generator, n: int) -> bool:
        moved = (rng.random((NUM_SUBSETS, n)) < accuracy) * 1.0 - (rng.random((NUM_SUBSETS, n)) < accuracy)
        return any(is_called(paired(count(one)), NUM_SUBSETS) for one in moved)

    return trial


def lead_over_coin(accuracy: float) -> Trial:
    return lambda rng, n: leads(paired(count((rng.random(n) < accuracy) - 0.5)))


def lead_over_rule(accuracy: float, undecided: float) -> Trial:
    """A rule as good as the model, which cannot decide on a share of the prompts and is half right there."""

    def trial(rng: Generator, n: int) -> bool:
        theirs = np.where(rng.random(n) < undecided, 0.5, (rng.random(n) < accuracy) * 1.0)
        ours = rng.random(n) < undecided / 2 + (1 - undecided) * accuracy
        return leads(paired(count(ours - theirs)))

    return trial


@cache
def accuracy_of(right: int, n: int) -> Accuracy:
    right_C = (np.arange(n) < right) * 1.0
    return Accuracy(
        accuracy=right / n, accuracy_ci=rate_interval(right_C, np.arange(n), seed=0), n=n, prompts=n, ties=0,
        score_ties=0, unscored=0,
    )  # fmt: skip


def retrain(new: float, old: float) -> Trial:
    return lambda rng, n: (
        compare_accuracies(
            accuracy_of(int(rng.binomial(n, new)), n), accuracy_of(int(rng.binomial(NUM_REFERENCE, old)), NUM_REFERENCE)
        ).is_sure
    )


def far(num_reference: int, shift: float = 0.0) -> Trial:
    """Two answers a prompt, eight dimensions."""

    def trial(rng: Generator, n: int) -> bool:
        new, old = (
            Hidden(state_ND=np.repeat(rng.normal(size=(m, 8)), 2, axis=0) + rng.normal(size=(2 * m, 8)) + off,
                   prompt_N=np.repeat(np.arange(m), 2))
            for m, off in ((n, shift), (num_reference, 0.0))
        )  # fmt: skip
        found = measure_distances(new, old, seed=int(rng.integers(1 << 30)))
        return found is not None and found.is_far

    return trial


def subset_below_coin(accuracy: float) -> Trial:
    """The reasons of the page on trust, for a model that is as good as a coin on every subset."""

    def trial(rng: Generator, n: int) -> bool:
        parts = [accuracy_of(int(k), n) for k in rng.binomial(n, accuracy, NUM_SUBSETS)]
        report = {
            "accuracy": 0.7, "n": 1_000, "prompts": 1_000, "probes": [{"verdict": "robust"}],
            "baselines": {"random": {"accuracy": 0.5, "lead": 0.2, "lead_ci": [0.15, 0.25]}},
            "subsets": {str(k): part.as_json() for k, part in enumerate(parts)},
        }  # fmt: skip
        return any("worse than a coin" in reason for reason in build_verdict(report).reasons)

    return trial


def leak(accuracy: float) -> Trial:
    def trial(rng: Generator, n: int) -> bool:
        found = accuracy_of(int(rng.binomial(n, accuracy)), n)
        return (found.accuracy or 0) > LEAKING and found.accuracy_ci is not None and found.accuracy_ci[0] > 0.5

    return trial


def probes(shape: str, mean: float = 0.0) -> Trial:
    """Shifts so wide that the tolerance is passed by chance; any accusation by one of all probes."""

    def trial(rng: Generator, n: int) -> bool:
        shift = 6 * (SHAPES[shape](rng, (NUM_PROBES, n)) + mean)
        if mean:
            shift = shift[:1]
        return any(judge_shift(Expects.SAME, find_family_interval(one, NUM_PROBES)).is_flag for one in shift)

    return trial


def gain(shape: str, mean: float = 0.0) -> Trial:
    """The gain of one n over another, a value a prompt."""

    def trial(rng: Generator, n: int) -> bool:
        low, high = skew_proof_interval(SHAPES[shape](rng, (n,)) + mean) or (0.0, 0.0)
        return low > 0 or (high < 0 and not mean)

    return trial


def best_of_n(shape: str, correlation: float = 0.0) -> Trial:
    """The page of `plaudit bon`, for scores that have nothing to do with gold: it gains, or it falls."""

    def trial(rng: Generator, n: int) -> bool:
        sample = Sample(gold="gold_scores", sizes=[NUM_CANDIDATES] * n, prompt_P=list(range(n)))
        score = rng.normal(size=(n, NUM_CANDIDATES))
        gold = SHAPES[shape](rng, (n, NUM_CANDIDATES))
        gold = correlation * score + math.sqrt(1 - correlation**2) * gold
        for k in range(n):
            sample._starts.append(k * NUM_CANDIDATES)
            for value, best in zip(score[k], gold[k], strict=True):
                sample._columns.extend((value, best, 10.0, 1.0))
        found = curve.measure_curve(sample, seed=int(rng.integers(1 << 30)))
        verdict = build_curve_verdict(Facts(found.as_json()))
        return verdict.answer.startswith("It gains") or "over-optimised" in verdict.sentence

    return trial


def overfitting(first: float, last: float) -> Trial:
    """Evaluations of models that are equally good, or the last of which are worse."""

    def trial(rng: Generator, n: int) -> bool:
        alarms = Alarms(lambda sentence: None, num_evaluated=n, is_pairwise=True)
        for step in range(NUM_EVALS):
            share = float(rng.binomial(n, first if step < NUM_EVALS / 2 else last)) / n
            logs = {"loss": 0.5, "accuracy": 0.5 + 0.04 * step}
            state = SimpleNamespace(global_step=step)
            alarms.on_log(None, state, None, logs)
            alarms.on_log(None, state, None, {"eval_accuracy": share})
        return "overfitting" in alarms.raised

    return trial


def nothing_to_find() -> Iterator[Case]:
    """Every verdict where it would be false."""
    for p in ACCURACIES:
        yield Case(verdict="compare: A or B is better", setting=f"both right in {p:g}", trial=compare_equal(p, p))
    for p in ACCURACIES:
        said = f"both {p:g}, 3 comparisons a prompt"
        yield Case(verdict="compare: A or B is better", setting=said, trial=compare_clustered(p), cost=8)
    for p in (0.5, 0.9):
        said = f"{NUM_SUBSETS} subsets, both {p:g}"
        yield Case(verdict="compare: a subset moved", setting=said, trial=compare_subsets(p), cost=10)
    yield Case(verdict="trust: leads over a coin", setting="right in 0.5", trial=lead_over_coin(0.5))
    for p in ACCURACIES:
        yield Case(verdict="trust: leads over a rule", setting=f"both {p:g}", trial=lead_over_rule(p, 0))
    for p in (0.9, 1.0, 0.02):
        said = f"rule {p:g}, undecided on half"
        yield Case(verdict="trust: leads over a rule", setting=said, trial=lead_over_rule(p, 0.5))
    said = f"{NUM_SUBSETS} subsets, right in 0.5"
    yield Case(verdict="trust: worse than a coin on a subset", setting=said, trial=subset_below_coin(0.5), cost=20)
    yield Case(verdict="eval: labels leak", setting="rule right in 0.5", trial=leak(0.5))
    for p in ACCURACIES:
        said = f"new and {NUM_REFERENCE} old {p:g}"
        yield Case(verdict="drift: retrain", setting=said, trial=retrain(p, p))
    for m in (30, NUM_REFERENCE):
        said = f"new like {m} old prompts"
        yield Case(verdict="drift: answers are far", setting=said, trial=far(m), cost=20)
    for shape in SHAPES:
        yield Case(verdict=f"probes: one of {NUM_PROBES} accuses", setting=shape, trial=probes(shape), cost=10)
    for shape in SHAPES:
        yield Case(verdict="best-of-n: one n gains or loses", setting=shape, trial=gain(shape))
    for shape in ("normal", "exponential", "minus exponential"):
        said = f"{NUM_CANDIDATES} candidates, gold {shape}"
        yield Case(verdict="best-of-n: it gains, or falls", setting=said, trial=best_of_n(shape), cost=40)
    for p in ACCURACIES:
        said = f"{NUM_EVALS} evaluations, all {p:g}"
        yield Case(verdict="train: overfitting", setting=said, trial=overfitting(p, p), cost=8)


def something_to_find() -> Iterator[Case]:
    """Every verdict where it would be right."""
    yield Case(verdict="compare: B is better", setting="0.6 against 0.9", trial=compare_equal(0.6, 0.9))
    yield Case(verdict="compare: B is better", setting="0.9 against 0.98", trial=compare_equal(0.9, 0.98))
    yield Case(verdict="trust: leads over a coin", setting="right in 0.75", trial=lead_over_coin(0.75))
    yield Case(verdict="drift: retrain", setting=f"0.6, {NUM_REFERENCE} old 0.9", trial=retrain(0.6, 0.9))
    yield Case(verdict="drift: answers are far", setting="moved by 2", trial=far(NUM_REFERENCE, 2.0), cost=20)
    yield Case(
        verdict=f"probes: accused, one of {NUM_PROBES}", setting="normal, mean 1 sd", trial=probes("normal", 1.0)
    )
    yield Case(verdict="best-of-n: one n gains", setting="normal, mean 0.5 sd", trial=gain("normal", 0.5))
    said = f"{NUM_CANDIDATES} candidates, correlation 0.3"
    yield Case(verdict="best-of-n: it gains", setting=said, trial=best_of_n("normal", 0.3), cost=40)
    yield Case(verdict="train: overfitting", setting="0.9, then 0.6", trial=overfitting(0.9, 0.6), cost=8)


def measure(case: Case, n: int, repeats: int) -> float:
    """The share of data sets of n prompts with the verdict."""
    rng = np.random.default_rng([n, *case.verdict.encode(), *case.setting.encode()])
    return float(np.mean([case.trial(rng, n) for _ in range(max(1, repeats // case.cost))]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4_000, help="data sets of a cheap row; of a dear one fewer")
    parser.add_argument("--only", default="", metavar="WORD", help="rows whose verdict or setting holds it")
    args = parser.parse_args()
    tables = (
        ("False verdicts", nothing_to_find(), PROMPTS),
        ("Verdicts that are right", something_to_find(), PROMPTS_FOUND),
    )
    for title, cases, sizes in tables:
        heads = (title, "setting", "data sets", *(f"n = {n}" for n in sizes))
        print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
        for case in cases:
            if args.only in f"{case.verdict}, {case.setting}":
                shares = [f"{measure(case, n, args.repeats):.1%}" for n in sizes]
                cells = (case.verdict, case.setting, f"{max(1, args.repeats // case.cost):,}", *shares)
                print(f"| {' | '.join(cells)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
