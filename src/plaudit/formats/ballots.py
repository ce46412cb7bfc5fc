"""Raw ballots: two responses a and b, and `votes` as an object from annotator to vote, ties kept.

A dialect of `formats`. Rows may come without texts, for agreement alone. Invariant: a vote is read only when it is
certain which side it means; the row's `scale` says so, or the votes do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from plaudit.errors import DataError
from plaudit.formats.content import Raw, as_content, as_number, build_group, refuse, write_content, write_fields, wrong
from plaudit.formats.dialect import Dialect
from plaudit.formats.preference import vote_label, write_vote
from plaudit.group import Content, Group

SIGNED = "over 0 a better, 0 tie, under 0 b better"
WORDS = {"a": 1, "a1": 1, "model_a": 1, "b": -1, "a2": -1, "model_b": -1, "tie": 0, "equal": 0}
_CODE = re.compile(r"(-\d++|(?<!\d)\d++)\s++([ab])\b")
_USED = ("prompt", "response_a", "response_b", "votes", "scale")


def detect(raw: Raw) -> bool:
    """Votes as an object, beside two responses or no text at all."""
    votes = raw.get("votes")
    if not isinstance(votes, dict) or not votes:
        return False
    return ("response_a" in raw and "response_b" in raw) or not ({"chosen", "rejected", "completions"} & raw.keys())


def to_group(raw: Raw) -> Group:
    """The Group of two with a label an annotator; without texts both completions are empty."""
    votes = raw.get("votes")
    if not isinstance(votes, dict):
        raise wrong(votes, "votes", "an object from annotator to vote")
    numbers = read_votes({name: vote for name, vote in votes.items() if vote is not None}, raw.get("scale"))
    texts: list[Content] = [
        "" if raw.get(field) is None else as_content(raw[field], field)
        for field in ("prompt", "response_a", "response_b")
    ]
    labels = [vote_label(vote, by) for by, vote in numbers.items()]
    return build_group(raw, _USED, prompt=texts[0], completions=texts[1:], labels=labels)


def read_votes(votes: Mapping[str, Any], scale: object) -> dict[str, float]:
    """Each annotator's vote as a number: over 0 for a, under 0 for b."""
    if all(type(vote) is str for vote in votes.values()):
        strange = [vote for vote in votes.values() if vote.lower() not in WORDS]
        if strange:
            raise DataError(
                f"the vote {strange[0][:40]!r} came; one of {', '.join(WORDS)} or a number was needed", field="votes"
            )
        return {by: WORDS[vote.lower()] for by, vote in votes.items()}
    numbers = {by: as_number(vote, "votes") for by, vote in votes.items()}
    codes = (
        {int(code): side for code, side in _CODE.findall(scale)} if isinstance(scale, str) and len(scale) < 1000 else {}
    )
    if any(vote < 0 for vote in numbers.values()) or scale == SIGNED or any(code < 0 for code in codes):
        return numbers
    if codes:
        strange_codes = [vote for vote in numbers.values() if vote not in codes and vote != 0]
        if strange_codes:
            raise DataError(
                f"the vote {strange_codes[0]} came, and the row's scale does not say what it means", field="votes"
            )
        return {by: 0 if vote == 0 else (1 if codes[int(vote)] == "a" else -1) for by, vote in numbers.items()}
    if any(vote not in (0, 1) for vote in numbers.values()):
        raise DataError(
            "votes without a sign came, and it is not said which of them mean b; a column `scale` such as "
            "'1 a better, 2 b better, 0 tie' was needed",
            field="votes",
        )
    return numbers


def to_row(group: Group) -> Raw:
    """The ballots of a Group of two whose labels are each by somebody else."""
    names = [label.by for label in group.labels]
    if len(group.completions) != 2 or not names or None in names or len(set(names)) != len(names):
        raise refuse(group, "ballots need two completions and labels that are each by somebody else")
    votes = {label.by: write_vote(group, label) for label in group.labels}
    row: Raw = {"prompt": write_content(group.prompt)}
    row |= {f"response_{side}": write_content(c.content) for side, c in zip("ab", group.completions, strict=True)}
    return write_fields(group, row | {"votes": votes, "scale": SIGNED})


def advise(raw: Raw) -> str | None:
    """What to know of rows that hold votes and no texts."""
    if "response_a" in raw:
        return None
    return (
        "the rows hold no texts, so that their labels are over empty completions: good for agreement, not for training"
    )


DIALECT = Dialect(
    name="ballots",
    summary="raw votes on two responses",
    needs=("votes", "response_a", "response_b"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    advise=advise,
)
