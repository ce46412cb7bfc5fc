"""The labels of a Group become what a loss asks of its completions, and what cannot be learned from is counted.

Part of `losses`, above `table`. Every loss gets the comparisons, by which accuracy is measured; `plackett_luce` and
`regression` are sums over rankings and ratings beside them. Weights are finished here: a label's own times its
annotator's, divided by the number of items in the Group if a Group is to count as one. Invariant: every claim of every
label is in the items or counted in `left_out`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from plaudit.config.schema import LossName
from plaudit.errors import DataError, InternalError
from plaudit.group import Comparison, Group, Label, Preference, Ranking, Ratings, Tie
from plaudit.losses.attributes import combine_ratings, find_attribute, list_ratings
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.settings import LossSettings
from plaudit.losses.table import LOSSES, compute_loss
from plaudit.losses.targets import GRADELESS, Flags, Items, join_items

ABSENT = "a completion that is compared was left out"
GONE = "a completion that is rated was left out"
SAME = "the completions that are compared are the same tokens"
TIED = "tied, and loss.ties is drop"
WEIGHTLESS = "of weight zero"
SLACK = "of margin zero, which scaled_bt does not learn from"
UNRATED = "no ratings, which regression learns from"
SILENT = "nothing in its labels compares two completions"
UNLABELLED = "no labels"

Tiers = list[list[int]]
"""A ranking with ties, best first."""


@dataclass(kw_only=True, slots=True)
class _Draft:
    """The items of a Group while its labels are read."""

    group: Group
    is_there_K: Sequence[bool] | Flags
    same: frozenset[tuple[int, int]]
    settings: LossSettings
    loss: Loss
    compared: list[tuple[int, int, bool, float, float, int, float]] = field(default_factory=list)
    orders: list[tuple[Tiers, float]] = field(default_factory=list)
    rated: list[tuple[int, int, float, float]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def build_items(
    group: Group,
    present_K: Sequence[bool] | Flags,
    settings: LossSettings,
    *,
    identical: Collection[tuple[int, int]] = (),
) -> Items | str:
    """What the labels ask of the completions that are present, or why there is nothing to learn from.

    `identical` are completions that are compared and became the same tokens; they say nothing about each other.
    """
    if len(present_K) != len(group.completions):
        raise InternalError(
            f"{len(present_K)} flags came for {len(group.completions)} completions; one each was needed"
        )
    draft = _Draft(
        group=group,
        is_there_K=present_K,
        same=frozenset(identical) | frozenset((b, a) for a, b in identical),
        settings=settings,
        loss=LOSSES[settings.name],
    )
    if not group.labels and not settings.attributes:
        return UNLABELLED
    _read_comparisons(draft)
    if draft.loss.reads is Reads.ORDERS:
        _read_orders(draft)
    if draft.loss.reads is Reads.RATINGS:
        _read_ratings(draft)
    return _close(draft)


def loss_of(group: Group, score_K: Sequence[float], settings: LossSettings) -> float:
    """The loss of one Group whose completions have these scores, as a step of this Group alone would print it."""
    items = build_items(group, [True] * len(group.completions), settings)
    if isinstance(items, str):
        raise DataError(f"a group came that teaches nothing ({items}); labels that the loss reads were needed")
    targets = join_items([(items, {k: k for k in range(len(score_K))})])
    return float(compute_loss(torch.tensor(score_K), targets, settings)) / items.count


def _compared_labels(draft: _Draft) -> list[Label]:
    """The labels whose comparisons count: with attributes, what is said beside them, or else all of them in one."""
    labels, settings = draft.group.labels, draft.settings
    if not settings.attributes:
        return list(labels)
    others = [label for label in labels if find_attribute(label, settings) is None]
    combined = combine_ratings(draft.group, settings)
    return others or ([] if combined is None else [combined])


def _read_comparisons(draft: _Draft) -> None:
    settings = draft.settings
    is_counted = draft.loss.reads in (Reads.COMPARISONS, Reads.TOKENS)
    for label in _compared_labels(draft):
        weight = label.weight * settings.weight_of(label.by)
        # Ratings differ by amounts of their own scale; a margin is an amount of score, and only a label can say it.
        says_margin = isinstance(label, Preference) and settings.margins and draft.loss.takes_margins
        for c in label.comparisons():
            reason = _refuse(c, weight, draft)
            if reason is not None:
                draft.left_out[reason] += is_counted
                continue
            margin = c.margin if says_margin and c.margin is not None else draft.loss.margin
            strength, grade = _measure_margin(c, settings)
            draft.compared.append((c.better, c.worse, c.is_tie, margin, strength, grade, weight))


def _refuse(c: Comparison, weight: float, draft: _Draft) -> str | None:
    """Why nothing can be learned from a comparison."""
    if not (draft.is_there_K[c.better] and draft.is_there_K[c.worse]):
        return ABSENT
    if (c.better, c.worse) in draft.same:
        return SAME
    if c.is_tie and draft.settings.ties == "drop":
        return TIED
    if weight == 0:
        return WEIGHTLESS
    is_scaled = draft.settings.name is LossName.SCALED_BT and draft.settings.margins
    return SLACK if is_scaled and c.margin == 0 else None


def _measure_margin(c: Comparison, settings: LossSettings) -> tuple[float, int]:
    """How strong a comparison is, and of which grade."""
    if c.is_tie:
        return 1.0, 0
    if c.margin is None or not settings.margins:
        return 1.0, GRADELESS
    return abs(c.margin) / settings.strength_unit, 1 + bisect_right(settings.cuts, abs(c.margin))


def _read_orders(draft: _Draft) -> None:
    for label in draft.group.labels:
        weight = label.weight * draft.settings.weight_of(label.by)
        kept = _take(list(list_tiers(label)), draft)
        if weight == 0:
            draft.left_out[WEIGHTLESS] += 1
        elif _num_choices(kept, draft.settings):
            draft.orders.append((kept, weight))
        elif len(kept) == 1 and len(kept[0]) > 1:
            draft.left_out[TIED] += 1


def list_tiers(label: Label) -> Iterator[list[int]]:
    """A label as a ranking with ties, best first; what was not rated is not in it."""
    match label:
        case Preference():
            yield from ([label.better], [label.worse])
        case Tie():
            yield list(label.tie)
        case Ranking():
            yield from ([k] for k in label.order)
        case Ratings():
            rated = [(r, k) for k, r in enumerate(label.ratings) if r is not None]
            for _, tier in groupby(sorted(rated, key=lambda item: (-item[0], item[1])), key=lambda item: item[0]):
                yield [k for _, k in tier]


def _take(tiers: Tiers, draft: _Draft) -> Tiers:
    """Those that are present; of completions that are the same tokens, only the best placed one can be chosen."""
    kept: Tiers = []
    for tier in tiers:
        there = [k for k in tier if draft.is_there_K[k]]
        above = [k for other in kept for k in other]
        new = [k for k in there if not any((k, other) in draft.same for other in above)]
        draft.left_out[ABSENT] += len(tier) - len(there)
        draft.left_out[SAME] += len(there) - len(new)
        kept += [new] if new else []
    return kept


def _num_choices(tiers: Tiers, settings: LossSettings) -> int:
    """How many times a ranking chooses one completion before others."""
    size = sum(map(len, tiers))
    if not size:
        return 0
    return size - (1 if settings.ties == "half" else len(tiers[-1]))


def _read_ratings(draft: _Draft) -> None:
    for rated in list_ratings(draft.group, draft.settings):
        if not draft.is_there_K[rated.completion]:
            draft.left_out[GONE] += 1
        elif rated.weight == 0:
            draft.left_out[WEIGHTLESS] += 1
        else:
            draft.rated.append((rated.completion, rated.attribute, rated.rating, rated.weight))


def _close(draft: _Draft) -> Items | str:
    choices = [_num_choices(tiers, draft.settings) for tiers, _ in draft.orders]
    weights = {
        Reads.ORDERS: [w for (_, w), n in zip(draft.orders, choices, strict=True) for _ in range(n)],
        Reads.RATINGS: [w for *_, w in draft.rated],
    }.get(draft.loss.reads, [w for *_, w in draft.compared])
    if not weights:
        return _why_nothing(draft)
    # What a Group's items have to be divided by for it to count as one.
    share = 1 / len(weights) if draft.settings.mean_over == "groups" else 1.0
    better, worse, is_tie, margin, strength, grade, weight = (
        zip(*draft.compared, strict=True) if draft.compared else (((),) * 7)
    )
    rated, attribute, rating, rating_weight = zip(*draft.rated, strict=True) if draft.rated else ((),) * 4
    width = max((sum(map(len, tiers)) for tiers, _ in draft.orders), default=0)
    order_RK = np.full((len(draft.orders), width), -1, np.int32)
    tier_RK = np.zeros((len(draft.orders), width), np.int32)
    for r, (tiers, _) in enumerate(draft.orders):
        placed = [(k, n) for n, tier in enumerate(tiers) for k in tier]
        order_RK[r, : len(placed)], tier_RK[r, : len(placed)] = np.transpose(placed)
    return Items(
        better_C=np.array(better, np.int32),
        worse_C=np.array(worse, np.int32),
        is_tie_C=np.array(is_tie, np.bool_),
        margin_C=np.array(margin, np.float32),
        strength_C=np.array(strength, np.float32),
        grade_C=np.array(grade, np.int32),
        weight_C=np.array(weight, np.float32) * np.float32(share),
        order_RK=order_RK,
        tier_RK=tier_RK,
        order_weight_R=np.array([w for _, w in draft.orders], np.float32) * np.float32(share),
        rated_N=np.array(rated, np.int32),
        attribute_N=np.array(attribute, np.int32),
        rating_N=np.array(rating, np.float32),
        rating_weight_N=np.array(rating_weight, np.float32) * np.float32(share),
        count=sum(weights) * share,
        left_out=tuple((+draft.left_out).most_common()),
    )


def _why_nothing(draft: _Draft) -> str:
    """The reason that most of the Group's claims were left out for, or that it makes none."""
    if draft.left_out.total():
        return draft.left_out.most_common(1)[0][0]
    return UNRATED if draft.loss.reads is Reads.RATINGS else SILENT
