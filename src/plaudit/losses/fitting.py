"""What a loss has to know of the training data before the first step, and what there is to say about the two together.

Part of `losses`, beside `items`. One pass over Groups: mean and spread of ratings, the usual margin, the grades.
Invariant: what comes back is the same in whatever order the Groups came; and data that a loss cannot learn from is
refused before anything is trained.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from plaudit.config.schema import LossName
from plaudit.errors import DataError
from plaudit.group import Group, Label, Preference, Ratings
from plaudit.losses.attributes import list_attributes, list_ratings
from plaudit.losses.loss import Reads
from plaudit.losses.settings import LossSettings
from plaudit.losses.table import LOSSES

MOST_GRADES = 7
"""So many different margins are grades as they are; more are amounts."""

QUANTILES = (0.25, 0.5, 0.75)
MOST_NAMED = 8


@dataclass(kw_only=True, slots=True)
class _Seen:
    """What the labels of all Groups said, in numbers."""

    groups: int = 0
    compared: int = 0
    ties: int = 0
    told: int = 0
    margins: Counter[float] = field(default_factory=Counter)
    ratings: dict[int, list[float]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    annotators: set[str] = field(default_factory=set)
    longest: int = 0


def fit_loss(groups: Iterable[Group], settings: LossSettings) -> tuple[LossSettings, list[str]]:
    """The settings with what they need to know of these Groups filled in, and sentences about how the two fit.

    DataError if the loss cannot learn from any of them.
    """
    seen = _look_at(groups, settings)
    match settings.name:
        case LossName.REGRESSION:
            return _fit_ratings(seen, settings)
        case LossName.SCALED_BT:
            return _fit_strengths(seen, settings)
        case LossName.ORDINAL:
            return _fit_grades(seen, settings)
    return settings, [*_tell_margins(seen, settings), *_tell_annotators(seen, settings), *_tell_orders(seen, settings)]


def _look_at(groups: Iterable[Group], settings: LossSettings) -> _Seen:
    seen = _Seen()
    rates = LOSSES[settings.name].reads is Reads.RATINGS
    for group in groups:
        seen.groups += 1
        for label in group.labels:
            if label.by is not None:
                seen.annotators |= {label.by, label.by.rpartition("/")[0]}
            for c in () if rates else label.comparisons():
                seen.compared += 1
                seen.ties += c.is_tie
                if c.margin is not None:
                    seen.margins[abs(c.margin)] += 1
                    seen.told += isinstance(label, Preference)
            seen.longest = max(seen.longest, _num_told(label))
        if rates:
            for rated in list_ratings(group, settings):
                seen.ratings.setdefault(rated.attribute, []).append(rated.rating)
            seen.names |= list_attributes(group) if settings.attributes else set()
    return seen


def _num_told(label: Label) -> int:
    """How many completions a label orders."""
    return sum(r is not None for r in label.ratings) if isinstance(label, Ratings) else len(label.indices())


def _fit_ratings(seen: _Seen, settings: LossSettings) -> tuple[LossSettings, list[str]]:
    names = settings.attributes or ("rating",)
    missing = [name for a, name in enumerate(names) if not seen.ratings.get(a)]
    if missing and settings.attributes:
        there = ", ".join(sorted(seen.names)[:MOST_NAMED]) or "none"
        raise DataError(
            f"loss.attributes names {missing[0]}, and no completion in {seen.groups:,} groups is rated for it; "
            f"there are ratings of: {there}"
        )
    if missing:
        raise DataError(
            f"loss.name=regression came with {seen.groups:,} groups, and none has ratings; "
            "take loss.name=bradley_terry, or data with ratings"
        )
    means, spreads, notes = [], [], []
    for a, name in enumerate(names):
        values = np.sort(np.asarray(seen.ratings[a], np.float64))  # sorted: the sum does not depend on their order
        mean, spread = float(values.mean()), float(values.std())
        means.append(mean)
        spreads.append(spread or 1.0)
        notes.append(f"{len(values):,} ratings of {name}: mean {mean:.4g}, spread {spread:.4g}")
        if not spread:
            notes.append(f"all ratings of {name} are {mean:g}: there is nothing to learn from them")
    return replace(settings, means=tuple(means), spreads=tuple(spreads)), [*notes, *_tell_annotators(seen, settings)]


def _fit_strengths(seen: _Seen, settings: LossSettings) -> tuple[LossSettings, list[str]]:
    notes = _tell_annotators(seen, settings)
    strengths = {m: n for m, n in seen.margins.items() if m > 0}
    if not strengths or not settings.margins:
        why = "no label has a margin or is a rating" if settings.margins else "loss.margins is false"
        return settings, [f"loss.name=scaled_bt weighs by margins, and {why}: it learns as bradley_terry does", *notes]
    count = sum(strengths.values())
    unit = math.fsum(m * n for m, n in strengths.items()) / count
    share = count / seen.compared
    told = f"{count:,} comparisons ({share:.0%}) have margins; {unit:.4g}, their mean, weighs as one"
    return replace(settings, strength_unit=unit), [told, *notes]


def _fit_grades(seen: _Seen, settings: LossSettings) -> tuple[LossSettings, list[str]]:
    margins = seen.margins if settings.margins else Counter[float]()
    values = sorted(margins)
    if len(values) <= MOST_GRADES:
        cuts = tuple((a + b) / 2 for a, b in pairwise(values))
    else:
        found = np.quantile(np.repeat(values, [margins[v] for v in values]), QUANTILES)
        cuts = tuple(sorted({float(x) for x in found}))
    counts = [0.0] * (len(cuts) + 2)
    counts[0] = seen.ties
    for value, count in margins.items():
        counts[1 + bisect_right(cuts, value)] += count
    if not margins:
        counts[1] = seen.compared - seen.ties
    total = sum(counts) or 1.0
    fitted = replace(settings, cuts=cuts, grade_shares=tuple(count / total for count in counts))
    notes = _tell_annotators(seen, settings)
    if not cuts:
        why = "the margins of labels are all the same, or not there" if settings.margins else "loss.margins is false"
        notes.insert(0, f"loss.name=ordinal learns from graded margins, and {why}: there is one grade")
    else:
        edges = ", ".join(f"{cut:.4g}" for cut in cuts)
        notes.insert(0, f"{len(cuts) + 1} grades of preference, parted by the margins {edges}")
    return fitted, notes


def _tell_margins(seen: _Seen, settings: LossSettings) -> list[str]:
    if not (LOSSES[settings.name].takes_margins and settings.margins and seen.told):
        return []
    return [
        f"{seen.told:,} of {seen.compared:,} comparisons have a margin, by which the better score has to be above "
        "(loss.margins=false leaves them out)"
    ]


def _tell_annotators(seen: _Seen, settings: LossSettings) -> list[str]:
    unknown = [name for name in settings.annotators if name not in seen.annotators]
    return [f"loss.annotators weighs {', '.join(unknown[:MOST_NAMED])}, by whom no label is"] if unknown else []


def _tell_orders(seen: _Seen, settings: LossSettings) -> list[str]:
    if settings.name is LossName.PLACKETT_LUCE and seen.longest <= 2:
        return ["no label ranks more than two completions, and of two plackett_luce is bradley_terry without margins"]
    return []
