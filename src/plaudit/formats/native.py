"""Native rows: everything a Group holds, and nothing lost.

A dialect of `formats`. Invariant: write, then read, is the identity for every Group that JSON can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plaudit.errors import DataError
from plaudit.formats.content import (
    FRESH_SCORES,
    Raw,
    as_content,
    as_name,
    as_number,
    list_names,
    missing,
    take_content,
    take_list,
    write_content,
    wrong,
)
from plaudit.formats.dialect import Dialect
from plaudit.formats.jsontext import is_json, name_type
from plaudit.group import Completion, Group, Label, Preference, Ranking, Ratings, Tie

COLUMNS = ("id", "prompt", "completions", "labels", "subset", "source", "meta")
_OWN = frozenset(COLUMNS)
_LABEL_KEYS = frozenset({"better", "worse", "margin", "tie", "order", "ratings", "by", "weight"})


def detect(raw: Raw) -> bool:
    """A prompt and a list of completions that are text or turns; scores without labels are another dialect.

    So are `chosen` and `rejected` without labels: they say a preference, which native rows would keep as mere extras.
    """
    completions = raw.get("completions")
    if "prompt" not in raw or not isinstance(completions, list):
        return False
    if raw.get("labels") is not None:
        return True
    return not any(isinstance(item, dict) for item in completions) and not {"chosen", "rejected"} <= raw.keys()


def to_group(raw: Raw) -> Group:
    """The Group of a native row; columns of other names join `meta`."""
    completions = take_list(raw, "completions")
    meta = raw.get("meta")
    meta = {} if meta is None else meta
    if not isinstance(meta, dict):
        raise wrong(meta, "meta", "an object")
    rest = {name: value for name, value in raw.items() if name not in _OWN}
    # A file may be scored again: the columns are then newer than what an earlier conversion kept in `meta`.
    clash = [name for name in rest if name in meta and name not in FRESH_SCORES and meta[name] != rest[name]]
    if clash:
        raise DataError(
            "it stands in the row and in `meta` with different values; one of the two was needed", field=clash[0]
        )
    labels = raw.get("labels")
    labels = () if labels is None else labels
    if not isinstance(labels, list | tuple):
        raise wrong(labels, "labels", "a list")
    return Group(
        prompt=take_content(raw, "prompt"),
        completions=tuple([Completion(content=as_content(item, "completions")) for item in completions]),
        labels=tuple([read_label(label) for label in labels]),
        id=as_name(raw.get("id"), "id"),
        subset=as_name(raw.get("subset"), "subset"),
        source=as_name(raw.get("source"), "source"),
        meta={**meta, **rest},
    )


def to_row(group: Group) -> Raw:
    """The native row of a Group; `labels` is always there, so that later columns cannot change what the row is."""
    row: Raw = {} if group.id is None else {"id": group.id}
    row["prompt"] = write_content(group.prompt)
    row["completions"] = [write_content(completion.content) for completion in group.completions]
    row["labels"] = [write_label(label) for label in group.labels]
    if group.subset is not None:
        row["subset"] = group.subset
    if group.source is not None:
        row["source"] = group.source
    if group.meta:
        row["meta"] = dict(group.meta)
        if not is_json(row["meta"]):
            raise DataError(
                f"{refuse_name(group)} holds something that JSON cannot give back (a key that is not text, NaN, "
                f"or an object of Python); plain values were needed",
                field="meta",
            )
    return row


def refuse_name(group: Group) -> str:
    """How a sentence calls the Group."""
    return f"the meta of group {group.id!r}" if group.id is not None else "the meta of a group"


def read_label(raw: Any) -> Label:
    """One of the four kinds, by the key that it has."""
    if not isinstance(raw, dict):
        raise DataError(f"{name_type(raw)} came as a label, an object was needed", field="labels")
    # Tables fill the keys that another kind of label has with null.
    said = {key: value for key, value in raw.items() if value is not None}
    unknown = [key for key in said if key not in _LABEL_KEYS]
    kinds = [key for key in ("better", "tie", "order", "ratings") if key in said]
    if unknown or len(kinds) != 1:
        raise DataError(
            f"a label with {list_names(said)} came; one of better and worse, tie, order, or ratings was needed, "
            f"with by, weight or margin beside it",
            field="labels",
        )
    shared = read_label_rest(said, kinds[0])
    if kinds[0] == "better":
        if "worse" not in said:
            raise missing(said, "labels", "`worse` beside `better`")
        margin = said.get("margin")
        return Preference(
            better=as_index(said["better"]),
            worse=as_index(said["worse"]),
            margin=None if margin is None else as_number(margin, "labels"),
            **shared,
        )
    values = said[kinds[0]]
    if not isinstance(values, list | tuple):
        raise wrong(values, "labels", f"a list as `{kinds[0]}`")
    if kinds[0] == "ratings":
        return Ratings(ratings=tuple([None if v is None else as_number(v, "labels") for v in values]), **shared)
    indices = tuple([as_index(value) for value in values])
    return Tie(tie=indices, **shared) if kinds[0] == "tie" else Ranking(order=indices, **shared)


def read_label_rest(said: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """By whom and with what weight; `worse` and `margin` belong to a preference only."""
    strays = [key for key in ("worse", "margin") if key in said and kind != "better"]
    if strays:
        raise DataError(
            f"a label with {kind} came with {strays[0]}, which only `better` and `worse` can have", field="labels"
        )
    rest: dict[str, Any] = {}
    if "by" in said:
        rest["by"] = as_name(said["by"], "labels")
    if "weight" in said:
        rest["weight"] = as_number(said["weight"], "labels")
    return rest


def as_index(value: Any) -> int:
    """The place of a completion, counted from 0."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise wrong(value, "labels", "the place of a completion, counted from 0,")


def write_label(label: Label) -> Raw:
    """The way back: the kind's own key, then margin, by and weight where they say something."""
    row: Raw
    match label:
        case Preference():
            row = {"better": label.better, "worse": label.worse}
            if label.margin is not None:
                row["margin"] = label.margin
        case Tie():
            row = {"tie": list(label.tie)}
        case Ranking():
            row = {"order": list(label.order)}
        case Ratings():
            row = {"ratings": list(label.ratings)}
        case _:
            raise DataError(
                f"a label of the kind {type(label).__name__} came; Preference, Tie, Ranking or Ratings was needed"
            )
    if label.by is not None:
        row["by"] = label.by
    if label.weight != 1.0:
        row["weight"] = label.weight
    return row


DIALECT = Dialect(
    name="native",
    summary="native rows",
    needs=("prompt", "completions", "labels"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
)
