"""What scorers that understand nothing get on the same comparisons: the longest, the shortest, most lists, words.

Stands on `accuracy` and `words`. An accuracy means something only beside these: a model that is no better than "take
the longest" has shown nothing else, and data on which words alone are nearly always right leak their labels. Invariant:
model and baseline are compared on the same comparisons and the same draws of prompts.
Letters: C comparisons, N completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plaudit.measure.accuracy import count_right, find_measured
from plaudit.measure.intervals import Bools, Floats, Interval, rate_interval
from plaudit.measure.record import Record
from plaudit.measure.significance import paired_mean, say_too_few
from plaudit.measure.table import Table
from plaudit.measure.words import FEWEST_COMPARISONS, FEWEST_PROMPTS, score_words

LEAKING = 0.9
"""Above this, what a baseline goes by gives the labels away."""

_SAYINGS = {
    "longest": "the longer answer is the better one",
    "shortest": "the shorter answer is the better one",
    "most_lists": "the answer with more list items is the better one",
    "bag_of_words": "which words an answer has tells the better one, on prompts that were not learned from,",
}
_NAMES = {
    "longest": "taking the longer answer",
    "shortest": "taking the shorter answer",
    "most_lists": "taking the answer with more list items",
    "random": "guessing",
    "bag_of_words": "a bag of words",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline(Record):
    """A baseline's accuracy, and by how much the model's is higher (`lead`); None where nothing was measured.

    `lead_p` is that of no lead, by prompt; on `discordant_prompts` the two are not equally often right.
    """

    accuracy: float | None
    accuracy_ci: Interval | None
    lead: float | None
    lead_ci: Interval | None
    lead_p: float | None
    discordant_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Baselines:
    """All of them by name, on `n` comparisons; `alarms` and `notes` are sentences.

    `right_C` is whether each is right about each comparison of the table; nan for those that were not measured.
    """

    n: int
    baselines: Mapping[str, Baseline]
    alarms: tuple[str, ...]
    notes: tuple[str, ...]
    right_C: Mapping[str, Floats]

    def as_json(self) -> dict[str, Any]:
        """The baselines, as report.json has them."""
        return {name: baseline.as_json() for name, baseline in self.baselines.items()}

    def accuracies(self, mask_C: Bools) -> dict[str, float]:
        """Each one's accuracy on some of the comparisons; empty where none of them was measured."""
        found = {name: right[mask_C & ~np.isnan(right)] for name, right in self.right_C.items()}
        return {name: float(right.mean()) for name, right in found.items() if len(right)}


def measure_baselines(table: Table) -> Baselines:
    """Every baseline on the comparisons that the scores are measured on."""
    measured = find_measured(table, table.score_N)
    prompt_C, seed = table.prompt_C[measured], table.seed
    ours_C = count_right(table, table.score_N, measured)
    baselines, right = {}, {}
    for name, guess_N in _guess(table).items():
        theirs_C = count_right(table, guess_N, measured)
        lead = paired_mean(ours_C - theirs_C, prompt_C, seed=seed) if len(measured) else None
        baselines[name] = Baseline(
            accuracy=float(theirs_C.mean()) if len(measured) else None,
            accuracy_ci=_CERTAIN
            if name == "random" and len(measured)
            else rate_interval(theirs_C, prompt_C, seed=seed),
            lead=lead.mean if lead else None,
            lead_ci=lead.interval if lead else None,
            lead_p=lead.p if lead else None,
            discordant_prompts=lead.discordant if lead else 0,
        )
        right[name] = np.full(len(table.better_C), np.nan)
        right[name][measured] = theirs_C
    return Baselines(
        n=len(measured),
        baselines=baselines,
        alarms=(*_raise_alarms(baselines),),
        notes=() if "bag_of_words" in baselines or not len(measured) else (_TOO_FEW,),
        right_C=right,
    )


_CERTAIN = (0.5, 0.5)
_TOO_FEW = (
    f"no bag of words was asked: it needs {FEWEST_COMPARISONS} labelled comparisons of {FEWEST_PROMPTS} prompts to "
    "learn from"
)


def _guess(table: Table) -> dict[str, Floats]:
    """A score for every completion by each baseline; level scores are half right, as guessing is."""
    length_N = table.length_N.astype(np.float64)
    guesses = {
        "longest": length_N,
        "shortest": -length_N,
        "most_lists": table.lists_N.astype(np.float64),
        "random": np.zeros(table.num_completions),
    }
    words_N = score_words(table)
    return guesses if words_N is None else guesses | {"bag_of_words": words_N}


def _raise_alarms(baselines: Mapping[str, Baseline]) -> list[str]:
    """What a person has to know before believing the accuracy."""
    alarms = []
    for name, baseline in baselines.items():
        if baseline.accuracy is None:
            continue
        # Of two comparisons, any rule is right in both every fourth time: that gives nothing away.
        is_sure = baseline.accuracy_ci is not None and baseline.accuracy_ci[0] > 0.5
        if name in _SAYINGS and baseline.accuracy > LEAKING and is_sure:
            alarms.append(
                f"{_SAYINGS[name]} in {baseline.accuracy:.1%} of the comparisons: these labels can be had without "
                "reading, and a high accuracy on them shows little"
            )
        # What is itself below chance is no mark to miss.
        if baseline.accuracy >= 0.5 and baseline.lead is not None and baseline.lead_ci and baseline.lead_ci[0] <= 0:
            low, high = (100 * end for end in baseline.lead_ci)
            too_few = say_too_few(baseline.discordant_prompts)
            alarms.append(
                f"the model is {'worse' if high < 0 else 'not clearly better'} than {_NAMES[name]} "
                f"({baseline.accuracy:.1%}): its lead is {100 * baseline.lead:.1f} points, from {low:.1f} to {high:.1f}"
                + (f"; {too_few}" if too_few else "")
            )
    return alarms
