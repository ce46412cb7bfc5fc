"""UltraFeedback: an instruction and completions, each with an overall score and ratings by aspect.

A dialect of `formats`. Invariant: the overall score is the label; everything else that a completion carries (aspect
ratings, rationales, model, principle) stays in `meta["completions"]`, one object a completion, in order.
"""

from __future__ import annotations

from typing import Any

from plaudit.errors import DataError
from plaudit.formats.content import (
    Raw,
    as_content,
    as_number,
    build_group,
    missing,
    refuse,
    take_content,
    take_list,
    write_content,
    write_fields,
)
from plaudit.formats.dialect import Dialect
from plaudit.formats.jsontext import name_type
from plaudit.formats.scored import only_ratings
from plaudit.group import Content, Group, Ratings

BY = "overall_score"
_MARKS = {"overall_score", "fine-grained_score", "annotations"}


def detect(raw: Raw) -> bool:
    """An instruction, and completions that are objects with a response."""
    completions = raw.get("completions")
    if "instruction" not in raw or not isinstance(completions, list):
        return False
    return all(isinstance(item, dict) and "response" in item for item in completions) and any(
        _MARKS & item.keys() for item in completions
    )


def to_group(raw: Raw) -> Group:
    """The Group whose completions are rated by their overall scores."""
    texts: list[Content] = []
    scores: list[float | None] = []
    rest: list[dict[str, Any]] = []
    for item in take_list(raw, "completions"):
        if not isinstance(item, dict):
            raise DataError(f"{name_type(item)} came, an object with a response was needed", field="completions")
        if "response" not in item:
            raise missing(item, "completions", "`response` in each of them")
        texts.append(as_content(item["response"], "completions"))
        score = item.get(BY)
        scores.append(None if score is None else as_number(score, BY))
        rest.append({name: value for name, value in item.items() if name not in ("response", BY)})
    return build_group(
        raw,
        ("instruction", "completions"),
        prompt=take_content(raw, "instruction"),
        completions=texts,
        labels=(Ratings(ratings=tuple(scores), by=BY),),
        meta={"completions": rest} if any(rest) else None,
    )


def to_row(group: Group) -> Raw:
    """The row of a Group whose one label is its overall scores."""
    label = only_ratings(group, "ultrafeedback", BY)
    rest = group.meta.get("completions", [{}] * len(group.completions))
    fits = (
        isinstance(rest, list) and len(rest) == len(group.completions) and all(isinstance(item, dict) for item in rest)
    )
    if (
        not fits
        or any({"response", BY} & item.keys() for item in rest)
        or ("completions" in group.meta and not any(rest))
    ):
        raise refuse(group, "meta['completions'] is not one object a completion")
    items = [
        {"response": write_content(completion.content), BY: score, **item}
        for completion, score, item in zip(group.completions, label.ratings, rest, strict=True)
    ]
    row: Raw = {"instruction": write_content(group.prompt), "completions": items}
    return write_fields(group, row, skip_meta=("completions",))


DIALECT = Dialect(
    name="ultrafeedback",
    summary="UltraFeedback's rated completions",
    needs=("instruction", "completions"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
)
