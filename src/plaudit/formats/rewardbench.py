"""RewardBench: a prompt, a chosen and a rejected answer, and the models that wrote them.

A dialect of `formats`, on preference rows; the models stay in `meta`. Invariant: it is told from other pairs by the two
model columns, which writing therefore needs.
"""

from __future__ import annotations

from plaudit.formats.content import Raw, only_preference, refuse
from plaudit.formats.dialect import Dialect
from plaudit.formats.preference import detect as detect_pair
from plaudit.formats.preference import to_group
from plaudit.formats.preference import to_row as to_pair
from plaudit.group import Group

_MODELS = ("chosen_model", "rejected_model")


def detect(raw: Raw) -> bool:
    """A preference row with a prompt and both models."""
    return "prompt" in raw and all(name in raw for name in _MODELS) and detect_pair(raw)


def to_row(group: Group) -> Raw:
    """The row of a Group with one preference, whose meta names both models."""
    if not all(name in group.meta for name in _MODELS):
        raise refuse(group, "RewardBench rows name chosen_model and rejected_model, and its meta does not")
    if only_preference(group, "RewardBench").better != 0:
        raise refuse(
            group, "its second completion is the better one, so meta would name the models the wrong way round"
        )
    return to_pair(group)


DIALECT = Dialect(
    name="rewardbench",
    summary="RewardBench pairs",
    needs=("prompt", "chosen", "rejected", *_MODELS),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    also_reads=("preference",),
)
