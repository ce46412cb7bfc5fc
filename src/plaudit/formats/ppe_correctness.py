"""PPE's correctness sets: a prompt, many responses in columns of their own, and whether each is right.

A dialect of `formats`. Invariant: response_1 is completion 0, and so on without a gap; true and false are ratings 1
and 0. A row that was scored by a model since has them in `gold_scores`.
"""

from __future__ import annotations

import re

from plaudit.errors import DataError
from plaudit.formats.content import (
    Raw,
    as_content,
    as_rating,
    build_group,
    rating_column,
    refuse,
    take_content,
    take_list,
    write_content,
    write_fields,
    write_ratings,
)
from plaudit.formats.dialect import Dialect
from plaudit.formats.scored import BY, only_ratings
from plaudit.group import Group, Ratings

_RESPONSE = re.compile(r"response_\d+")


def detect(raw: Raw) -> bool:
    """A prompt, numbered responses, and a list of scores."""
    if "prompt" not in raw or "response_1" not in raw or "winner" in raw:
        return False
    return isinstance(raw.get(rating_column(raw)), list)


def to_group(raw: Raw) -> Group:
    """The Group of all responses, rated by whether they are right."""
    column = rating_column(raw)
    scores = take_list(raw, column)
    names = [f"response_{place}" for place in range(1, len(scores) + 1)]
    lost = [name for name in names if raw.get(name) is None]
    # Of tables, a response that a row does not have is null.
    extra = [name for name in raw if _RESPONSE.fullmatch(name) and name not in names and raw[name] is not None]
    if lost or extra:
        raise DataError(
            f"{len(scores)} scores came, and not as many responses; one score a response was needed", field=column
        )
    return build_group(
        raw,
        ("prompt", column, *names),
        prompt=take_content(raw, "prompt"),
        completions=[as_content(raw[name], name) for name in names],
        labels=(Ratings(ratings=tuple([as_rating(score, column) for score in scores]), by=BY),),
        id_field="question_id",
    )


def to_row(group: Group) -> Raw:
    """The row of a Group whose one label is a score a completion."""
    label = only_ratings(group, "PPE correctness", BY)
    row: Raw = {"prompt": write_content(group.prompt)}
    row |= {f"response_{place}": write_content(c.content) for place, c in enumerate(group.completions, start=1)}
    write_ratings(group, row, [bool(score) if score in (0, 1) else score for score in label.ratings])
    if "winner" in group.meta or any(_RESPONSE.fullmatch(name) for name in group.meta):
        raise refuse(group, "its meta holds columns that would be read as something else")
    return write_fields(group, row, id_field="question_id")


DIALECT = Dialect(
    name="ppe-correctness",
    summary="PPE's correctness sets",
    needs=("prompt", "response_1", "scores"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    is_rated=True,
)
