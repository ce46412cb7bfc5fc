"""What a field of a row may hold: text or turns, numbers, names; and how a Group's own fields travel in any dialect.

Second step of `formats`, under every dialect. Invariant: a value either becomes exactly what the Group promises, or a
DataError names the field, what came, and what was needed. A column that a dialect does not know goes to `Group.meta`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plaudit.errors import DataError
from plaudit.formats.jsontext import name_type
from plaudit.group import Completion, Content, Group, Label, Message, Preference, plain_turn

Raw = dict[str, Any]

FRESH_SCORES = (
    "scores", "chosen_score", "rejected_score", "length_corrected_scores", "per_token_scores", "unscored",
)  # fmt: skip
"""The columns that scoring a file adds; they never change what dialect a row is."""

GOLD_SCORES = "gold_scores"
"""Where scoring keeps the ratings of a row that came with them in `scores`."""


def take_content(raw: Mapping[str, Any], field: str) -> Content:
    """The text or the turns in `field`, which has to be there."""
    if field not in raw:
        raise missing(raw, field, "text or a list of turns")
    return as_content(raw[field], field)


def as_content(value: Any, field: str) -> Content:
    """`value` as text or as the turns of a conversation."""
    if type(value) is str:
        return value
    if isinstance(value, list | tuple):
        return tuple([as_turn(turn, field) for turn in value])
    raise DataError(f"{name_type(value)} came, text or a list of turns was needed", field=field)


def as_turn(turn: Any, field: str) -> Message:
    """One turn: a role, and the content that goes with it."""
    if type(turn) is dict and type(turn.get("role")) is str:
        content = turn.get("content")
        if type(content) is str or (content is None and (len(turn) > 2 or "tool_calls" in turn)):
            return turn
        if isinstance(content, list) and content:
            try:
                return plain_turn(turn)
            except DataError as error:
                raise DataError(error.reason, field=field) from None
        raise DataError(f"a turn of role {turn['role']!r} came without content; text was needed", field=field)
    came = f"an object with {list_names(turn)}" if isinstance(turn, dict) else name_type(turn)
    raise DataError(f"{came} came as a turn, an object with `role` and `content` was needed", field=field)


def write_content(content: Content) -> str | list[Raw]:
    """The way back: text as it is, turns as a list of objects."""
    return content if isinstance(content, str) else [dict(turn) for turn in content]


def take_text(raw: Mapping[str, Any], field: str) -> str:
    """The text in `field`, which has to be there."""
    value = raw.get(field)
    if type(value) is not str:
        raise missing(raw, field, "text") if field not in raw else wrong(value, field, "text")
    return value


def take_list(raw: Mapping[str, Any], field: str) -> list[Any]:
    """The list in `field`, which has to be there."""
    value = raw.get(field)
    if not isinstance(value, list):
        raise missing(raw, field, "a list") if field not in raw else wrong(value, field, "a list")
    return value


def as_number(value: Any, field: str) -> float:
    """`value` as a finite number; a boolean is not one."""
    if type(value) is float or type(value) is int:
        try:
            if float(value) - float(value) == 0.0:
                return value
        except OverflowError:
            raise DataError("a whole number too large to be used came; a smaller one was needed", field=field) from None
        raise DataError(f"{value!r} came, a finite number was needed", field=field)
    raise wrong(value, field, "a number")


def as_rating(value: Any, field: str) -> float | None:
    """A rating or a verdict: a number, true or false as 1 or 0, null as "not rated"."""
    if value is None:
        return None
    if type(value) is bool:
        return float(value)
    return as_number(value, field)


def rating_column(raw: Mapping[str, Any]) -> str:
    """The column of a rated row's ratings: where scoring has put them, if it has; then `scores` are a model's."""
    return GOLD_SCORES if raw.get(GOLD_SCORES) is not None else "scores"


def take_margin(raw: Mapping[str, Any]) -> float | None:
    """The optional `margin` of a pair."""
    value = raw.get("margin")
    return None if value is None else as_number(value, "margin")


def as_name(value: Any, field: str) -> str | None:
    """An identifier: text, or a whole number, which becomes text; null is none."""
    if value is None or type(value) is str:
        return value
    if type(value) is int or (type(value) is float and value.is_integer()):
        try:
            return str(int(value))
        except ValueError:
            raise DataError("a whole number of more than 4300 digits came; text was needed", field=field) from None
    raise wrong(value, field, "text or a whole number")


def split_common(first: Sequence[Message], second: Sequence[Message]) -> tuple[Content, Content, Content]:
    """Two conversations as their common leading turns and what follows in each, at least one turn."""
    shared = 0
    limit = min(len(first), len(second)) - 1
    while shared < limit and first[shared] == second[shared]:
        shared += 1
    return tuple(first[:shared]), tuple(first[shared:]), tuple(second[shared:])


def build_group(
    raw: Mapping[str, Any], used: Iterable[str], *, prompt: Content, completions: Iterable[Content],
    labels: Iterable[Label], id_field: str = "id", meta: Mapping[str, Any] | None = None,
) -> Group:  # fmt: skip
    """The Group of a row: its names from `id`, `subset` and `source`, and every column that was not used in `meta`."""
    names: dict[str, str] = {}
    skip = {*used, id_field}
    for name in ("subset", "source"):
        if type(value := raw.get(name)) is str:
            names[name] = value
            skip.add(name)
    rest = {name: value for name, value in raw.items() if name not in skip}
    return Group(
        prompt=prompt,
        completions=tuple([Completion(content=content) for content in completions]),
        labels=tuple(labels),
        id=as_name(raw.get(id_field), id_field),
        meta={**rest, **meta} if meta else rest,
        **names,
    )


def write_fields(group: Group, row: Raw, *, id_field: str = "id", skip_meta: Iterable[str] = ()) -> Raw:
    """`row` with the Group's names and its `meta` as columns; a DataError if two things want the same column."""
    for name, value in ((id_field, group.id), ("subset", group.subset), ("source", group.source)):
        if value is not None:
            row[name] = value
    for name, value in group.meta.items():
        if name in skip_meta:
            continue
        if name in row:
            raise refuse(group, f"its meta holds {name!r}, which is a column of its own there")
        row[name] = value
    return row


def only_preference(group: Group, dialect: str, *, with_by: bool = False) -> Preference:
    """The one label of a Group that a pair row can say: of two completions, one over the other."""
    if len(group.completions) != 2:
        raise refuse(group, f"it has {len(group.completions)} completions, and {dialect} rows hold two")
    if len(group.labels) != 1 or not isinstance(group.labels[0], Preference):
        kinds = ", ".join(type(label).__name__ for label in group.labels) or "none"
        raise refuse(group, f"its labels are {kinds}, and {dialect} rows say one preference")
    label = group.labels[0]
    check_plain_label(group, label, dialect, by=label.by if with_by else None)
    return label


def write_ratings(group: Group, row: Raw, ratings: Sequence[Any]) -> Raw:
    """`row` with the ratings in `scores`, or beside a model's scores, which `meta` holds if the row was scored."""
    if GOLD_SCORES in group.meta:
        raise refuse(group, f"its meta holds {GOLD_SCORES!r}, which would be read as its ratings")
    row[GOLD_SCORES if "scores" in group.meta else "scores"] = list(ratings)
    return row


def check_plain_label(group: Group, label: Label, dialect: str, *, by: str | None = None) -> None:
    """Raise DataError if the label carries a name or a weight that the dialect has no column for."""
    if label.by != by:
        raise refuse(group, f"a label says it is by {label.by!r}, and {dialect} rows have no column for that")
    if label.weight != 1.0:
        raise refuse(group, f"a label has the weight {label.weight}, and {dialect} rows have no column for that")


def refuse(group: Group, reason: str) -> DataError:
    """A Group that a dialect cannot say."""
    name = f"group {group.id!r}" if group.id is not None else "a group without an id"
    return DataError(f"{name} cannot be written: {reason}; write it as native rows")


def missing(raw: Mapping[str, Any], field: str, needed: str) -> DataError:
    """A field that has to be there and is not."""
    return DataError(f"it is missing, {needed} was needed; the columns that came are {list_names(raw)}", field=field)


def wrong(value: Any, field: str, needed: str) -> DataError:
    """A field of the wrong kind."""
    shown = f" ({value!r})" if isinstance(value, str) and len(value) < 40 else ""
    return DataError(f"{name_type(value)}{shown} came, {needed} was needed", field=field)


def list_names(raw: Iterable[Any]) -> str:
    """Column names for a sentence, the first dozen of them, safe to print."""
    names = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name)[:60]) for name in raw]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "none"
