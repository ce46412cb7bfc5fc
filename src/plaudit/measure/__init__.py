"""Numbers in, numbers out: how good scores are, how sure that is, and what a scorer that reads nothing would get.

Stands on `group`, `keys` and `surface`; numpy and scipy, no torch. In reading order:

    record        a figure and what belongs to it, as JSON
    intervals     how sure a figure is: prompts drawn anew
    significance  exact tests by prompt, and intervals that a verdict may rest on
    table         Groups and their scores as columns, in one pass
    accuracy      right, wrong, and what is in neither
    words         a scorer that knows only which words an answer has
    baselines     what that gets, and the longest, the shortest, most lists
    subsets       accuracy by subset, and by how much longer the better one is
    correlation   does the score go with length, lists, headings, bold
    length        what length is worth, and scores without it
    ranking       three completions or more: pairs, the top, the order, the gain
    calibration   whether a gap of scores is the probability it names
    compare       two scorers on the same comparisons
    distribution  how scores lie, and how far new data moved

Invariant: every figure comes with its n, what is not in it, and an interval by prompt; the same table and seed give
the same figures.
"""

from __future__ import annotations

from plaudit.measure.accuracy import Accuracy, measure_accuracy
from plaudit.measure.baselines import Baseline, Baselines, measure_baselines
from plaudit.measure.calibration import Calibration, ReliabilityBin, measure_calibration
from plaudit.measure.compare import Comparing, Difference, Disagreement, compare_scores
from plaudit.measure.correlation import Correlation, measure_length, measure_style
from plaudit.measure.distribution import Distribution, Moved, Shift, describe_scores, measure_shift, sample_lengths
from plaudit.measure.intervals import Interval
from plaudit.measure.length import LengthFit, correct_held_out, fit_length, score_per_token
from plaudit.measure.ranking import RankingQuality, measure_ranking
from plaudit.measure.subsets import LengthGap, Subset, find_worst, measure_length_gaps, measure_subsets
from plaudit.measure.table import Mistake, Table, TableBuilder, build_table

__all__ = [
    "Accuracy",
    "Baseline",
    "Baselines",
    "Calibration",
    "Comparing",
    "Correlation",
    "Difference",
    "Disagreement",
    "Distribution",
    "Interval",
    "LengthFit",
    "LengthGap",
    "Mistake",
    "Moved",
    "RankingQuality",
    "ReliabilityBin",
    "Shift",
    "Subset",
    "Table",
    "TableBuilder",
    "build_table",
    "compare_scores",
    "correct_held_out",
    "describe_scores",
    "find_worst",
    "fit_length",
    "measure_accuracy",
    "measure_baselines",
    "measure_calibration",
    "measure_length",
    "measure_length_gaps",
    "measure_ranking",
    "measure_shift",
    "measure_style",
    "measure_subsets",
    "sample_lengths",
    "score_per_token",
]
