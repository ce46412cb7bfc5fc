"""A prompt, completions, and a score for each: what scoring a file writes, and what many best-of-N sets are.

A dialect of `formats`. Invariant: a score is a rating by "scores"; null is "not rated". A row that a model has scored
since has its ratings in `gold_scores`, where scoring put them, and reads as the same ratings; `scores` go to `meta`.
"""

from __future__ import annotations

from plaudit.errors import DataError
from plaudit.formats.content import (
    Raw,
    as_content,
    as_rating,
    build_group,
    check_plain_label,
    rating_column,
    refuse,
    take_content,
    take_list,
    write_content,
    write_fields,
    write_ratings,
)
from plaudit.formats.dialect import Dialect
from plaudit.group import Group, Ratings

BY = "scores"


def detect(raw: Raw) -> bool:
    """Completions of text or turns with a column of scores, and no labels.

    Rows without a rating have null there. A file may begin with them, so the column alone decides.
    """
    completions = raw.get("completions")
    if "prompt" not in raw or not isinstance(completions, list) or raw.get("labels") is not None:
        return False
    return rating_column(raw) in raw and not any(isinstance(item, dict) for item in completions)


def to_group(raw: Raw) -> Group:
    """The Group whose completions are rated by their scores."""
    completions = [as_content(item, "completions") for item in take_list(raw, "completions")]
    column = rating_column(raw)
    is_unrated = column in raw and raw[column] is None
    scores = [None] * len(completions) if is_unrated else take_list(raw, column)
    if len(scores) != len(completions):
        raise DataError(
            f"expected one score for each of {len(completions)} completions, got {len(scores)} scores", field=column
        )
    ratings = tuple([as_rating(score, column) for score in scores])
    return build_group(
        raw,
        ("prompt", "completions", column, "labels"),
        prompt=take_content(raw, "prompt"),
        completions=completions,
        labels=(Ratings(ratings=ratings, by=BY),),
    )


def only_ratings(group: Group, dialect: str, by: str) -> Ratings:
    """The one label of a Group that rated rows can say."""
    if len(group.labels) != 1 or not isinstance(group.labels[0], Ratings):
        raise refuse(group, f"{dialect} rows say one list of ratings, and its labels are something else")
    check_plain_label(group, group.labels[0], dialect, by=by)
    return group.labels[0]


def to_row(group: Group) -> Raw:
    """The row of a Group whose one label is its scores."""
    label = only_ratings(group, "scored", BY)
    if "labels" in group.meta:
        raise refuse(group, "its meta holds 'labels', which would make native rows of it")
    row: Raw = {
        "prompt": write_content(group.prompt),
        "completions": [write_content(completion.content) for completion in group.completions],
    }
    return write_fields(group, write_ratings(group, row, label.ratings))


DIALECT = Dialect(
    name="scored",
    summary="completions with scores",
    needs=("prompt", "completions", "scores"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    is_rated=True,
)
