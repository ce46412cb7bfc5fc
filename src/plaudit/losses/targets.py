"""What labels ask of scores: of one Group as numbers (Items), of one pack as tensors (Targets).

Part of `losses`, above every loss. Items point at the completions of their Group; `join_items` makes them point at
the scores of a pack. Weights are finished in Items already: a loss is a weighted sum, and the sum over a step divided
by the step's `count` is its mean. Invariant: that mean is the same however a step's Groups are spread over packs.
Letters: C comparisons, R rankings, K places of a ranking, N ratings, P pairs of tokens, L scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.errors import InternalError

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

POINTERS = ("better_C", "worse_C", "rated_N")
NUMBERS: Mapping[str, type[np.generic]] = {
    "is_tie_C": np.bool_,
    "margin_C": np.float32,
    "strength_C": np.float32,
    "grade_C": np.int64,
    "weight_C": np.float32,
    "order_weight_R": np.float32,
    "attribute_N": np.int64,
    "rating_N": np.float32,
    "rating_weight_N": np.float32,
}

GRADELESS = -1
"""The grade of a comparison that says who is better and not by how much."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Items:
    """What the labels of one Group ask of its completions.

    `strength_C` is 1 where no margin is, `grade_C` 0 for a tie and -1 where no margin is. `order_RK` is best first,
    padded with -1, and completions of equal `tier_RK` are tied. `count` is what the Group counts in the step's mean.
    `left_out` says what could not be learned from, with numbers.
    """

    better_C: Ints
    worse_C: Ints
    is_tie_C: Flags
    margin_C: Floats
    strength_C: Floats
    grade_C: Ints
    weight_C: Floats
    order_RK: Ints
    tier_RK: Ints
    order_weight_R: Floats
    rated_N: Ints
    attribute_N: Ints
    rating_N: Floats
    rating_weight_N: Floats
    count: float
    left_out: tuple[tuple[str, int], ...] = ()

    def completions(self) -> list[int]:
        """The completions whose scores are asked for, in order."""
        told = np.concatenate([self.better_C, self.worse_C, self.order_RK.ravel(), self.rated_N])
        return [int(k) for k in np.unique(told) if k >= 0]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Positions:
    """Pairs of tokens that `token_wise` compares, as places among the tokens that are asked for.

    `owner_P` is the comparison that a pair belongs to. `leaf_of` are the places where each completion's own score is
    read, one mapping for each Group.
    """

    better_P: NDArray[np.int64]
    worse_P: NDArray[np.int64]
    owner_P: NDArray[np.int64]
    leaf_of: tuple[Mapping[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Targets:
    """What the labels of one pack ask of its scores; everything that points, points at scores.

    Where not every score is a completion's own, `leaf_L` are the places of those that are; else None. Where completions
    are read at their closing token too, `closing_L` holds, at the place of a completion's score, the place of that
    second reading; `score_L[closing_L]` are the second readings where everything points at the first.
    """

    better_C: Tensor
    worse_C: Tensor
    is_tie_C: Tensor
    margin_C: Tensor
    strength_C: Tensor
    grade_C: Tensor
    weight_C: Tensor
    order_RK: Tensor
    tier_RK: Tensor
    order_weight_R: Tensor
    rated_N: Tensor
    attribute_N: Tensor
    rating_N: Tensor
    rating_weight_N: Tensor
    count: float
    better_P: Tensor | None = None
    worse_P: Tensor | None = None
    owner_P: Tensor | None = None
    leaf_L: Tensor | None = None
    closing_L: Tensor | None = None

    def to(self, device: torch.device | str) -> Targets:
        """The same on a device."""
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved |= {name: x.to(device) for name, x in moved.items() if isinstance(x, Tensor)}
        return Targets(**moved)


Held = tuple[Items, Mapping[int, int]] | tuple[Items, Mapping[int, int], Mapping[int, int]]
"""A Group in a pack: its items, the place of each completion's score, and by that place the one of a second reading."""


def join_items(held: Sequence[Held], positions: Positions | None = None) -> Targets:
    """The targets of a pack that holds these Groups, each with the place of every completion's score.

    With `positions` (from `find_positions`, for scores at many tokens) the places are theirs.
    """
    leaf_of = [group[1] for group in held] if positions is None else positions.leaf_of
    rows = [group[0] for group in held]
    places = [_places(items, leaves) for items, leaves in zip(rows, leaf_of, strict=True)]
    told: dict[str, Any] = {
        name: _cat([places_K[getattr(items, name)] for items, places_K in zip(rows, places, strict=True)], np.int64)
        for name in POINTERS
    }
    told |= {name: _cat([getattr(items, name) for items in rows], kind) for name, kind in NUMBERS.items()}
    orders = [places_K[items.order_RK] for items, places_K in zip(rows, places, strict=True)]
    if positions is not None:
        own = np.unique([place for leaves in leaf_of for place in leaves.values()]).astype(np.int64)
        pairs = {name: getattr(positions, name) for name in ("better_P", "worse_P", "owner_P")}
        told |= {name: torch.from_numpy(array) for name, array in (pairs | {"leaf_L": own}).items()}
    second = {place: other for group in held for place, other in (group[2] if len(group) == 3 else {}).items()}
    if second:
        own = np.unique([place for leaves in leaf_of for place in leaves.values()]).astype(np.int64)
        # The place of a second reading points at itself: nothing else does.
        closing = np.arange(max(*own, *second.values()) + 1)
        closing[list(second)] = list(second.values())
        told |= {"leaf_L": torch.from_numpy(own), "closing_L": torch.from_numpy(closing)}
    return Targets(
        **told,
        order_RK=_stack(orders, fill=-1),
        tier_RK=_stack([items.tier_RK for items in rows], fill=0),
        count=sum(items.count for items in rows),
    )


def _places(items: Items, leaves: Mapping[int, int]) -> NDArray[np.int64]:
    """The place of each completion's score, by completion; the last entry is what -1, padding, points at."""
    asked = items.completions()
    missing = [k for k in asked if k not in leaves]
    if missing:
        raise InternalError(f"the score of completion {missing[0]} is asked for, and the pack does not have it")
    places_K = np.full(max(asked, default=0) + 2, -1, np.int64)
    places_K[asked] = [leaves[k] for k in asked]
    return places_K


def _cat(arrays: list[NDArray[np.generic]], kind: type[np.generic]) -> Tensor:
    joined = np.concatenate(arrays) if arrays else np.zeros(0)
    return torch.from_numpy(joined.astype(kind))


def _stack(arrays: Sequence[NDArray[np.int32] | NDArray[np.int64]], *, fill: int) -> Tensor:
    """Rankings of all lengths below each other, padded; one place wide at least, so that none is no exception."""
    width = max((a.shape[1] for a in arrays), default=0) or 1
    out = np.full((sum(len(a) for a in arrays), width), fill, np.int64)
    for row, a in zip(_starts(arrays), arrays, strict=True):
        out[row : row + len(a), : a.shape[1]] = a
    return torch.from_numpy(out)


def _starts(arrays: Sequence[NDArray[np.int32] | NDArray[np.int64]]) -> Iterator[int]:
    start = 0
    for a in arrays:
        yield start
        start += len(a)
