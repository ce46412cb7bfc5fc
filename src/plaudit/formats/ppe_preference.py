"""PPE's human preferences: a prompt, two responses, and the winner as a person saw it.

A dialect of `formats`, on `versus`. Invariant: a tie in which both were found bad is a tie, and stays marked in
`meta["winner"]`.
"""

from __future__ import annotations

from plaudit.formats.content import Raw, refuse
from plaudit.formats.dialect import Dialect
from plaudit.formats.versus import Versus
from plaudit.group import Group, Tie

BOTH_BAD = "tie (bothbad)"
ROWS = Versus(
    title="PPE preference",
    prompt="prompt",
    first="response_1",
    second="response_2",
    verdict="winner",
    words=("model_a", "model_b", "tie"),
    id_field="question_id",
)


def detect(raw: Raw) -> bool:
    """The columns of such rows, and a winner in their words."""
    return ROWS.detect(plain(raw))


def plain(raw: Raw) -> Raw:
    """The row with both kinds of tie under one word."""
    return raw | {"winner": "tie"} if raw.get("winner") == BOTH_BAD else raw


def to_group(raw: Raw) -> Group:
    """The Group of two with a person's verdict."""
    return ROWS.to_group(plain(raw), {"winner": BOTH_BAD} if raw.get("winner") == BOTH_BAD else None)


def to_row(group: Group) -> Raw:
    """The row of a Group of two with one plain verdict."""
    if "winner" not in group.meta:
        return ROWS.to_row(group)
    if group.meta["winner"] != BOTH_BAD or not all(isinstance(label, Tie) for label in group.labels):
        raise refuse(group, "meta['winner'] says something else than its label")
    return ROWS.to_row(group, skip_meta=("winner",)) | {"winner": BOTH_BAD}


DIALECT = Dialect(
    name="ppe-preference",
    summary="PPE's human preferences",
    needs=ROWS.fields,
    detect=detect,
    to_group=to_group,
    to_row=to_row,
)
