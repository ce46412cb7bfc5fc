"""RM-Bench: one prompt, a right and a wrong answer, each in three styles (concise, detailed, detailed with markdown).

A dialect of `formats`. Invariant: completions 0 to 2 are the right answer and 3 to 5 the wrong one, styles in the
order of the row, so that style i against style j is completion i against completion 3 + j.
"""

from __future__ import annotations

from plaudit.errors import DataError
from plaudit.formats.content import Raw, refuse, write_fields
from plaudit.formats.dialect import Dialect
from plaudit.formats.rewardbench2 import counts, lists_group, lists_row, read_answers, split_sides
from plaudit.formats.rewardbench2 import detect as detect_lists
from plaudit.group import Group

NUM_STYLES = 3


def detect(raw: Raw) -> bool:
    """Lists of three and three, and none of RewardBench 2's counts."""
    if not detect_lists(raw) or counts(0, 0).keys() & raw.keys():
        return False
    return len(raw["chosen"]) == NUM_STYLES and len(raw["rejected"]) == NUM_STYLES


def to_group(raw: Raw) -> Group:
    """The Group of six: each style of the right answer over each style of the wrong one."""
    chosen, rejected = read_answers(raw, "chosen"), read_answers(raw, "rejected")
    for field, answers in (("chosen", chosen), ("rejected", rejected)):
        if len(answers) != NUM_STYLES:
            raise DataError(
                f"{len(answers)} answers came, three styles were needed; "
                f"force --format rewardbench2 for lists of other lengths",
                field=field,
            )
    return lists_group(raw, chosen, rejected, used=("prompt", "chosen", "rejected"))


def to_row(group: Group) -> Raw:
    """The row of a Group of three right and three wrong answers."""
    if split_sides(group, "RM-Bench") != NUM_STYLES or len(group.completions) != 2 * NUM_STYLES:
        raise refuse(group, "RM-Bench rows hold three styles of a right and three of a wrong answer")
    if counts(0, 0).keys() & group.meta.keys():
        raise refuse(group, "its meta holds RewardBench 2's counts, which would make such rows of it")
    return write_fields(group, lists_row(group, NUM_STYLES))


DIALECT = Dialect(
    name="rmbench",
    summary="RM-Bench rows, three styles each",
    needs=("prompt", "chosen", "rejected"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    also_reads=("rewardbench2",),
)
