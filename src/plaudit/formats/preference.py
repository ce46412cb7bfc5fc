"""Preference rows as TRL and most of the hub spell them: `chosen`, `rejected`, perhaps `prompt` and `margin`.

A dialect of `formats`; RewardBench and votes build on it. Invariant: no text moves between prompt and completion
unless the turns say so. Without a `prompt`, turns that both conversations begin with become the prompt; plain text
without a prompt stays whole, because where a common beginning of two texts ends says nothing about where the question
ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from plaudit.formats.content import (
    Raw,
    as_content,
    as_name,
    build_group,
    only_preference,
    refuse,
    split_common,
    take_content,
    take_margin,
    write_content,
    write_fields,
)
from plaudit.formats.dialect import Dialect
from plaudit.group import Content, Group, Label, Preference, Tie

USED = ("prompt", "chosen", "rejected", "margin")


def detect(raw: Raw) -> bool:
    """`chosen` and `rejected`, each a text or a list of turns."""
    return is_content(raw.get("chosen")) and is_content(raw.get("rejected"))


def is_content(value: object) -> bool:
    """Whether this looks like text or turns."""
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def to_group(raw: Raw) -> Group:
    """The Group of two of a preference row."""
    return pair_group(raw, (read_preference(raw),), used=(*USED, "by"))


def read_preference(raw: Raw) -> Preference:
    """The first over the second, with the row's `margin` and `by`."""
    return Preference(better=0, worse=1, margin=take_margin(raw), by=as_name(raw.get("by"), "by"))


def write_preference(label: Preference) -> Raw:
    """The way back: `margin` and `by` where they say something."""
    said = {"margin": label.margin, "by": label.by}
    return {name: value for name, value in said.items() if value is not None}


def pair_group(raw: Raw, labels: Iterable[Label], *, used: Iterable[str]) -> Group:
    """The Group of a row with `chosen` and `rejected`, under labels that the caller has read."""
    chosen, rejected = take_content(raw, "chosen"), take_content(raw, "rejected")
    prompt, chosen, rejected = split_prompt(raw, chosen, rejected)
    return build_group(raw, used, prompt=prompt, completions=(chosen, rejected), labels=labels)


def split_prompt(raw: Raw, chosen: Content, rejected: Content) -> tuple[Content, Content, Content]:
    """What is the prompt, and what is answered, when each of the two may repeat the prompt or be without one."""
    are_turns = not isinstance(chosen, str) and not isinstance(rejected, str) and chosen and rejected
    given = raw.get("prompt")
    if given is None:
        return split_common(chosen, rejected) if are_turns else ("", chosen, rejected)  # type: ignore[arg-type]
    prompt = as_content(given, "prompt")
    if are_turns and repeats(prompt, chosen) and repeats(prompt, rejected):
        if isinstance(prompt, str):
            return split_common(chosen, rejected)  # type: ignore[arg-type]
        return prompt, chosen[len(prompt) :], rejected[len(prompt) :]
    return prompt, chosen, rejected


def repeats(prompt: Content, answer: Content) -> bool:
    """Whether the turns of an answer begin with the prompt all over again, which would have it read twice."""
    if isinstance(answer, str) or not prompt or len(answer) < 2:
        return False
    if not isinstance(prompt, str):
        return len(answer) > len(prompt) and answer[: len(prompt)] == prompt
    users = [turn for turn in answer[:2] if turn.get("role") == "user"]
    return bool(users) and users[0].get("content") == prompt


def to_row(group: Group) -> Raw:
    """The preference row of a Group with one preference between two completions."""
    label = only_preference(group, "preference", with_by=True)
    row = pair_row(group, label.better, label.worse) | write_preference(label)
    if isinstance(group.meta.get("votes"), list):
        raise refuse(group, "its meta holds a votes list, which would be read as labels")
    return write_fields(group, row)


def pair_row(group: Group, better: int, worse: int) -> Raw:
    """Prompt, chosen and rejected; refused if reading would split them differently."""
    chosen, rejected = group.completions[better].content, group.completions[worse].content
    if repeats(group.prompt, chosen) and repeats(group.prompt, rejected):
        raise refuse(
            group, "its completions begin with its prompt again, and the repetition would be read as the prompt"
        )
    return {"prompt": write_content(group.prompt), "chosen": write_content(chosen), "rejected": write_content(rejected)}


def vote_label(vote: float, by: str | None) -> Label:
    """One annotator's number as a label: over 0 for completion 0, under 0 for completion 1, 0 a tie.

    The size of a vote is its margin, but 1 is the plain vote: a margin there would turn every plain pair into one with
    a margin.
    """
    if vote == 0:
        return Tie(tie=(0, 1), by=by)
    margin = None if abs(vote) == 1 else abs(vote)
    return Preference(better=0 if vote > 0 else 1, worse=1 if vote > 0 else 0, margin=margin, by=by)


def write_vote(group: Group, label: Label) -> float:
    """The way back: the number that an annotator would have given."""
    if label.weight == 1.0 and isinstance(label, Tie) and label.tie == (0, 1):
        return 0
    if label.weight == 1.0 and isinstance(label, Preference) and (label.margin is None or label.margin > 0):
        if label.margin == 1:
            raise refuse(group, "a label has the margin 1, and the vote 1 is read as one without a margin")
        size = 1 if label.margin is None else label.margin
        return size if label.better == 0 else -size
    raise refuse(group, f"a label of the kind {type(label).__name__} is not one annotator's vote between two")


DIALECT = Dialect(
    name="preference",
    summary="TRL preference rows",
    needs=("chosen", "rejected"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    also_reads=("rewardbench",),
)
