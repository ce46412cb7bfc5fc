"""HHH alignment: a query as `input`, and choices of which labels say the one to prefer, in `targets`.

A dialect of `formats`. Invariant: choices keep the order of the row; each choice of label 1 is over each of label 0.
"""

from __future__ import annotations

from typing import Any

from plaudit.errors import DataError
from plaudit.formats.content import (
    Raw,
    as_content,
    build_group,
    check_plain_label,
    refuse,
    take_content,
    take_list,
    write_content,
    write_fields,
    wrong,
)
from plaudit.formats.dialect import Dialect
from plaudit.group import Group, Preference


def detect(raw: Raw) -> bool:
    """An input, and targets with choices and their labels."""
    targets = raw.get("targets")
    return "input" in raw and isinstance(targets, dict) and {"choices", "labels"} <= targets.keys()


def to_group(raw: Raw) -> Group:
    """The Group of all choices."""
    targets = raw.get("targets")
    if not isinstance(targets, dict):
        raise wrong(targets, "targets", "an object with `choices` and `labels`")
    if extra := sorted(map(str, targets.keys() - {"choices", "labels"})):
        raise DataError(f"{extra[0][:60]} came in it, only `choices` and `labels` were needed", field="targets")
    choices, labels = take_list(targets, "choices"), take_list(targets, "labels")
    if len(choices) != len(labels) or not all(type(label) is int and label in (0, 1) for label in labels):
        raise DataError(
            f"{len(choices)} choices came with {len(labels)} labels; a label of 0 or 1 for each was needed",
            field="targets",
        )
    if not {0, 1} <= set(labels):
        raise DataError("labels that are all the same came; at least one 1 and one 0 were needed", field="targets")
    return build_group(
        raw,
        ("input", "targets"),
        prompt=take_content(raw, "input"),
        completions=[as_content(choice, "choices") for choice in choices],
        labels=list(over(labels)),
    )


def over(labels: list[Any]) -> list[Preference]:
    """Each choice of label 1 over each of label 0."""
    return [
        Preference(better=good, worse=bad)
        for good, is_good in enumerate(labels)
        for bad, is_better in enumerate(labels)
        if is_good and not is_better
    ]


def to_row(group: Group) -> Raw:
    """The row of a Group whose labels cut its completions in two: preferred ones, and the others."""
    said = [label for label in group.labels if isinstance(label, Preference) and label.margin is None]
    good = {label.better for label in said}
    labels = [int(k in good) for k in range(len(group.completions))]
    wanted = {(label.better, label.worse) for label in over(labels)}
    if len(said) != len(group.labels) or [(p.better, p.worse) for p in said] != sorted(wanted) or not wanted:
        raise refuse(group, "HHH rows put each preferred completion over each other one, and its labels differ")
    for label in said:
        check_plain_label(group, label, "HHH")
    choices = [write_content(completion.content) for completion in group.completions]
    row: Raw = {"input": write_content(group.prompt), "targets": {"choices": choices, "labels": labels}}
    return write_fields(group, row)


DIALECT = Dialect(
    name="hhh",
    summary="HHH alignment's queries and choices",
    needs=("input", "targets"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
)
