"""Raw ballots: two responses a and b, and `votes` as an object from annotator to vote.

Rows may have no texts; they then serve to measure agreement only. A vote is read only where it is certain which side it
means: by its word, by the row's `scale`, or by its sign. A file whose coding is not certain is refused as a whole
(CodingError): skipping single rows would keep some votes and drop others, and bias the labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plaudit.errors import CodingError
from plaudit.formats.content import Raw, as_content, as_number, build_group, refuse, write_content, write_fields, wrong
from plaudit.formats.dialect import Dialect
from plaudit.formats.preference import vote_label, write_vote
from plaudit.group import Content, Group

SIGNED = "over 0 a better, 0 tie, under 0 b better"
WORDS = {"a": 1, "a1": 1, "model_a": 1, "b": -1, "a2": -1, "model_b": -1, "tie": 0, "equal": 0}
EXAMPLE = "'1 a better, 2 b better, 0 tie'"
_CODE = re.compile(r"(?<![\w.])([+-]?\d{1,9}+)\s++(?:(?:a\s++)?(tie|equal)\b|([ab])\b)", re.IGNORECASE)
_USED = ("prompt", "response_a", "response_b", "votes", "scale")


def detect(raw: Raw) -> bool:
    """Votes as an object, beside two responses or no text at all."""
    votes = raw.get("votes")
    if not isinstance(votes, dict) or not votes:
        return False
    return ("response_a" in raw and "response_b" in raw) or not ({"chosen", "rejected", "completions"} & raw.keys())


def to_group(raw: Raw, *, is_signed: bool = False) -> Group:
    """The Group of two with one label per annotator; without texts both completions are empty.

    With `is_signed` the file's votes are known to be signed numbers, also in rows that happen to have none below 0.
    """
    votes = raw.get("votes")
    if not isinstance(votes, dict):
        raise wrong(votes, "votes", "an object from annotator to vote")
    given = {name: vote for name, vote in votes.items() if vote is not None}
    numbers = read_votes(given, raw.get("scale"), is_signed=is_signed)
    texts: list[Content] = [
        "" if raw.get(field) is None else as_content(raw[field], field)
        for field in ("prompt", "response_a", "response_b")
    ]
    labels = [vote_label(vote, by) for by, vote in numbers.items()]
    return build_group(raw, _USED, prompt=texts[0], completions=texts[1:], labels=labels)


def for_file(rows: Sequence[Raw]) -> Dialect:
    """Votes without a scale are signed numbers if one of the file's first rows has a vote below 0."""
    is_signed = any(
        type(vote) in (int, float) and vote < 0
        for row in rows
        if isinstance(row.get("votes"), dict) and row.get("scale") in (None, "")
        for vote in row["votes"].values()
    )
    return replace(DIALECT, to_group=lambda raw: to_group(raw, is_signed=True)) if is_signed else DIALECT


def read_votes(votes: Mapping[str, Any], scale: object, *, is_signed: bool = False) -> dict[str, float]:
    """Each annotator's vote as a number: above 0 for a, below 0 for b, 0 for a tie."""
    if all(type(vote) is str for vote in votes.values()):
        for vote in votes.values():
            if vote.lower() not in WORDS:
                raise CodingError(f"expected one of {', '.join(WORDS)} or a number, got {vote[:40]!r}", field="votes")
        return {by: WORDS[vote.lower()] for by, vote in votes.items()}
    numbers = {by: as_number(vote, "votes") for by, vote in votes.items()}
    if scale is None or scale == "":
        if is_signed or any(vote < 0 for vote in numbers.values()):
            return numbers
        raise CodingError(
            f"expected signed votes or a scale, got votes without either ({show(numbers)}), so it is unknown which "
            f"of them mean b. Add a column `scale` to every row, such as {EXAMPLE}; --bad-rows does not skip this",
            field="votes",
        )
    if scale == SIGNED:
        return numbers
    meaning = read_scale(scale)
    sides = {side: [code for code, its_side in meaning.items() if its_side == side] for side in (1, -1)}
    # A graded scale names its ends, such as "2 a .. -2 b"; every number between them is a vote by its sign.
    has_plain_ties = all(code == 0 for code, side in meaning.items() if side == 0)
    for sign in (1, -1):
        if has_plain_ties and all(code * sign > 0 for code in sides[1]) and all(code * sign < 0 for code in sides[-1]):
            return {by: vote * sign for by, vote in numbers.items()}
    for vote in numbers.values():
        if vote not in meaning:
            raise CodingError(
                f"expected a vote that the row's scale names ({', '.join(map(str, meaning))}), got {vote!r}. "
                f"Name it in `scale`, such as {EXAMPLE}; --bad-rows does not skip this",
                field="votes",
            )
    return {by: meaning[int(vote)] for by, vote in numbers.items()}


def read_scale(scale: object) -> dict[int, int]:
    """What each code of a scale means: 1 for a, -1 for b, 0 for a tie; it has to name both sides."""
    meaning: dict[int, int] = {}
    if isinstance(scale, str) and len(scale) < 1000:
        for code, tie, side in _CODE.findall(scale):
            value = 0 if tie else 1 if side.lower() == "a" else -1
            if meaning.setdefault(int(code), value) != value:
                raise CodingError(f"expected one meaning for each code, got two for {code} in {scale!r}", field="scale")
    if not {1, -1} <= set(meaning.values()):
        shown = repr(scale[:80]) if isinstance(scale, str) else type(scale).__name__
        raise CodingError(
            f"expected a scale that names a code for a and a code for b, such as {EXAMPLE} or {SIGNED!r}, got {shown}",
            field="scale",
        )
    # A tie is 0 by convention, unless the scale gives 0 to a side.
    return {0: 0} | meaning


def show(votes: Mapping[str, float]) -> str:
    """The different votes of a row, the first few of them."""
    values = sorted(set(votes.values()))
    return ", ".join(map(repr, values[:5])) + (" ..." if len(values) > 5 else "")


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
    for_file=for_file,
)
