r"""HH-RLHF transcripts: two whole conversations as text, turns marked by "\n\nHuman:" and "\n\nAssistant:".

A dialect of `formats`. Invariant: a marker becomes a role, the white space around a turn is the transcript's and is
left away, and nothing else changes; the turns that both conversations begin with are the prompt.
"""

from __future__ import annotations

import re

from plaudit.errors import DataError
from plaudit.formats.content import (
    Raw,
    build_group,
    only_preference,
    refuse,
    split_common,
    take_text,
    write_fields,
)
from plaudit.formats.dialect import Dialect
from plaudit.formats.preference import USED, read_preference, write_preference
from plaudit.group import Group, Message

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NAMES = {role: name for name, role in _ROLES.items()}


def detect(raw: Raw) -> bool:
    """`chosen` and `rejected` that both begin with a marked turn, and no prompt beside them."""
    texts = (raw.get("chosen"), raw.get("rejected"))
    return raw.get("prompt") is None and all(
        isinstance(text, str) and text.lstrip().startswith("Human:") for text in texts
    )


def to_group(raw: Raw) -> Group:
    """The Group of two conversations."""
    if raw.get("prompt") is not None:
        raise DataError(
            "a prompt came beside transcripts, which hold their own; force --format preference", field="prompt"
        )
    chosen, rejected = (read_transcript(take_text(raw, field), field) for field in ("chosen", "rejected"))
    prompt, better, worse = split_common(chosen, rejected)
    labels = (read_preference(raw),)
    return build_group(raw, (*USED, "by"), prompt=prompt, completions=(better, worse), labels=labels)


def read_transcript(text: str, field: str) -> list[Message]:
    """The turns of a transcript."""
    before, *parts = _MARK.split(text.lstrip())
    if before or not parts:
        raise DataError(
            f"text that begins with {text[:30]!r} came, a transcript that begins with 'Human:' was needed; "
            f"plain text is read with --format preference",
            field=field,
        )
    return [{"role": _ROLES[name], "content": said.strip()} for name, said in zip(parts[::2], parts[1::2], strict=True)]


def write_transcript(group: Group, index: int) -> str:
    """Prompt and completion `index` as one transcript."""
    lines = []
    for turn in group.conversation(index):
        name, said = _NAMES.get(turn.get("role", "")), turn.get("content")
        if name is None or turn.keys() != {"role", "content"} or not isinstance(said, str):
            raise refuse(
                group, f"a turn of role {turn.get('role')!r} came, and transcripts hold text of users and assistants"
            )
        if said != said.strip() or _MARK.search(said):
            raise refuse(
                group, "a turn has white space around it or a turn marker in it, which a transcript cannot keep"
            )
        lines.append(f"\n\n{name}: {said}")
    if not lines or not lines[0].startswith("\n\nHuman"):
        raise refuse(group, "a conversation does not begin with the user, as transcripts do")
    return "".join(lines)


def to_row(group: Group) -> Raw:
    """The two transcripts of a Group with one preference between two completions."""
    label = only_preference(group, "transcript", with_by=True)
    row: Raw = {"chosen": write_transcript(group, label.better), "rejected": write_transcript(group, label.worse)}
    if "prompt" in group.meta:
        raise refuse(group, "its meta holds 'prompt', which transcripts do not have")
    return write_fields(group, row | write_preference(label))


DIALECT = Dialect(
    name="hh",
    summary="HH-RLHF transcripts",
    needs=("chosen", "rejected"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
)
