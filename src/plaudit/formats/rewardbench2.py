"""RewardBench 2: lists of right and of wrong answers to one prompt.

A dialect of `formats`; RM-Bench builds on it. Invariant: every right answer is over every wrong one, and nothing is
claimed among the right ones or among the wrong ones. Counts that only repeat the lengths of the lists are not kept;
writing makes them again.
"""

from __future__ import annotations

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
)
from plaudit.formats.dialect import Dialect
from plaudit.group import Content, Group, Preference


def detect(raw: Raw) -> bool:
    """A prompt with lists of answers as `chosen` and `rejected`."""
    return "prompt" in raw and is_list_of_answers(raw.get("chosen")) and is_list_of_answers(raw.get("rejected"))


def is_list_of_answers(value: object) -> bool:
    """A list that holds answers: texts, or lists of turns; turns themselves are one answer, not a list of them."""
    return isinstance(value, list) and bool(value) and not isinstance(value[0], dict)


def counts(num_chosen: int, num_rejected: int) -> dict[str, int]:
    """The counts that such rows repeat."""
    return {"num_correct": num_chosen, "num_incorrect": num_rejected, "total_completions": num_chosen + num_rejected}


def to_group(raw: Raw) -> Group:
    """The Group of all answers, the right ones first."""
    chosen, rejected = read_answers(raw, "chosen"), read_answers(raw, "rejected")
    repeated = [name for name, count in counts(len(chosen), len(rejected)).items() if raw.get(name) == count]
    return lists_group(raw, chosen, rejected, used=("prompt", "chosen", "rejected", *repeated))


def lists_group(raw: Raw, chosen: list[Content], rejected: list[Content], *, used: tuple[str, ...]) -> Group:
    """The Group in which each of `chosen` is over each of `rejected`."""
    labels = [
        Preference(better=good, worse=len(chosen) + bad) for good in range(len(chosen)) for bad in range(len(rejected))
    ]
    return build_group(raw, used, prompt=take_content(raw, "prompt"), completions=[*chosen, *rejected], labels=labels)


def read_answers(raw: Raw, field: str) -> list[Content]:
    """The answers of one side, at least one."""
    answers = [as_content(item, field) for item in take_list(raw, field)]
    if not answers:
        raise DataError("an empty list came, at least one answer was needed", field=field)
    return answers


def split_sides(group: Group, dialect: str) -> int:
    """How many completions are right, if the labels say just that: the first ones over all others."""
    total = len(group.completions)
    said = set()
    for label in group.labels:
        if not isinstance(label, Preference) or label.margin is not None:
            raise refuse(group, f"{dialect} rows say plain preferences between right and wrong answers")
        check_plain_label(group, label, dialect)
        said.add((label.better, label.worse))
    num_chosen = max((better for better, _ in said), default=-1) + 1
    wanted = {(good, bad) for good in range(num_chosen) for bad in range(num_chosen, total)}
    if not said or said != wanted or len(group.labels) != len(said):
        raise refuse(
            group, f"{dialect} rows put each of the first completions over each of the others, and its labels differ"
        )
    return num_chosen


def lists_row(group: Group, num_chosen: int) -> Raw:
    """Prompt, right answers, wrong answers."""
    answers = [write_content(completion.content) for completion in group.completions]
    return {"prompt": write_content(group.prompt), "chosen": answers[:num_chosen], "rejected": answers[num_chosen:]}


def to_row(group: Group) -> Raw:
    """The row of a Group whose first completions are right and whose others are wrong."""
    num_chosen = split_sides(group, "RewardBench 2")
    given = counts(num_chosen, len(group.completions) - num_chosen)
    if any(group.meta.get(name) == value for name, value in given.items()):
        raise refuse(group, "its meta repeats a count that the lists already say")
    row = lists_row(group, num_chosen) | {name: value for name, value in given.items() if name not in group.meta}
    return write_fields(group, row)


DIALECT = Dialect(
    name="rewardbench2",
    summary="RewardBench 2's lists of right and wrong answers",
    needs=("prompt", "chosen", "rejected"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    also_reads=("rmbench",),
)
