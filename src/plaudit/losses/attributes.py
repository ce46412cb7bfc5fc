"""Ratings of a Group, by attribute: helpfulness, clarity, or the one kind that there is.

Part of `losses`. An attribute's ratings are the labels by its name (`clarity`, or `ann3/clarity`, ann3's view of it);
where no label is by it, the numbers of that name that each completion carries in `meta["completions"]`, as the aspects
of UltraFeedback do. Invariant: a rating that is not there is left out, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plaudit.group import Group, Label, Ratings
from plaudit.losses.settings import LossSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Rated:
    """One number that somebody, or a data set, gave a completion; the attribute by its place in the settings."""

    completion: int
    attribute: int
    rating: float
    weight: float


def list_ratings(group: Group, settings: LossSettings) -> Iterator[Rated]:
    """Every rating of the attributes that are learned; of all ratings, if none are named."""
    labelled = set()
    for label in group.labels:
        attribute = find_attribute(label, settings)
        if attribute is None or not isinstance(label, Ratings):
            continue
        labelled.add(attribute)
        weight = label.weight * settings.weight_of(label.by)
        for k, rating in enumerate(label.ratings):
            if rating is not None:
                yield Rated(completion=k, attribute=attribute, rating=float(rating), weight=weight)
    for attribute, name in enumerate(settings.attributes):
        if attribute not in labelled:
            for k, rating in enumerate(_carried(group, name)):
                if rating is not None:
                    weight = settings.weight_of(name)
                    yield Rated(completion=k, attribute=attribute, rating=rating, weight=weight)


def find_attribute(label: Label, settings: LossSettings) -> int | None:
    """Which attribute a label rates: None if it is no rating, or one of something that is not learned."""
    if not isinstance(label, Ratings):
        return None
    if not settings.attributes:
        return 0
    by = label.by or ""
    name = by if by in settings.attributes else by.rpartition("/")[2]
    return settings.attributes.index(name) if name in settings.attributes else None


def combine_ratings(group: Group, settings: LossSettings) -> Ratings | None:
    """The attributes as one rating each: standardised means, weighed; None for a completion that lacks one of them."""
    sums: dict[tuple[int, int], tuple[float, float]] = {}
    for rated in list_ratings(group, settings):
        total, weight = sums.get((rated.completion, rated.attribute), (0.0, 0.0))
        sums[rated.completion, rated.attribute] = (total + rated.weight * rated.rating, weight + rated.weight)
    weights = settings.score_weights()
    combined: list[float | None] = []
    for k in range(len(group.completions)):
        own = [sums.get((k, a), (0.0, 0.0)) for a in range(settings.num_scores)]
        if all(weight > 0 for _, weight in own):
            standard = [standardise(total / weight, a, settings) for a, (total, weight) in enumerate(own)]
            combined.append(sum(w * x for w, x in zip(weights, standard, strict=True)))
        else:
            combined.append(None)
    return Ratings(ratings=tuple(combined)) if any(x is not None for x in combined) else None


def standardise(rating: float, attribute: int, settings: LossSettings) -> float:
    """A rating in spreads from the mean, as far as they are known."""
    mean = settings.means[attribute] if settings.means else 0.0
    return (rating - mean) / (settings.spreads[attribute] if settings.spreads else 1.0)


def list_attributes(group: Group) -> set[str]:
    """Names under which a Group has ratings."""
    found = {label.by.rpartition("/")[2] for label in group.labels if isinstance(label, Ratings) and label.by}
    for item in _carriers(group):
        notes = item.get("annotations")
        found |= {name for name, value in item.items() if _as_number(value) is not None}
        found |= {n for n, v in notes.items() if _as_number(v) is not None} if isinstance(notes, Mapping) else set()
    return found


def _carriers(group: Group) -> list[Mapping[str, Any]]:
    """What the data set says about each completion, if it says something about every one."""
    items = group.meta.get("completions")
    if not isinstance(items, list | tuple) or len(items) != len(group.completions):
        return []
    return list(items) if all(isinstance(item, Mapping) for item in items) else []


def _carried(group: Group, name: str) -> list[float | None]:
    """The numbers of this name beside the completions, or under `annotations` there."""
    found = []
    for item in _carriers(group):
        notes = item.get("annotations")
        value = item.get(name)
        found.append(_as_number(notes.get(name) if value is None and isinstance(notes, Mapping) else value))
    return found


def _as_number(value: Any) -> float | None:
    """A number, a text that is one, or an object with a `Rating` that is; "N/A" and the like are not rated."""
    if isinstance(value, Mapping):
        value = value.get("Rating")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
