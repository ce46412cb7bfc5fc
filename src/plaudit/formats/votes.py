"""Pair rows that carry each annotator's vote: `votes` is a list of numbers, over 0 for chosen, under 0 for rejected.

A dialect of `formats`, on preference rows. Invariant: one label an annotator, so that agreement can be measured.
"""

from __future__ import annotations

from plaudit.errors import DataError
from plaudit.formats.content import Raw, as_number, only_preference, refuse, take_margin, write_fields, wrong
from plaudit.formats.dialect import Dialect
from plaudit.formats.preference import detect as detect_pair
from plaudit.formats.preference import pair_group, pair_row, vote_label, write_vote
from plaudit.group import Group, Label, Preference


def detect(raw: Raw) -> bool:
    """A preference row with a list of votes."""
    return isinstance(raw.get("votes"), list) and detect_pair(raw)


def to_group(raw: Raw) -> Group:
    """The Group of two with a label an annotator; a row without votes says the one preference of its columns."""
    votes = raw.get("votes")
    if votes is None or votes == []:
        label = Preference(better=0, worse=1, margin=take_margin(raw))
        return pair_group(raw, (label,), used=("prompt", "chosen", "rejected", "votes", "margin"))
    if not isinstance(votes, list):
        raise wrong(votes, "votes", "a list with one number an annotator")
    names = read_names(raw, len(votes))
    labels: list[Label] = [vote_label(as_number(vote, "votes"), by) for vote, by in zip(votes, names, strict=True)]
    return pair_group(raw, labels, used=("prompt", "chosen", "rejected", "votes", "annotators"))


def read_names(raw: Raw, num_votes: int) -> list[str]:
    """Who voted: the `annotators` column, or vote1, vote2 and so on."""
    names = raw.get("annotators")
    if names is None:
        return default_names(num_votes)
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise wrong(names, "annotators", "a list of names")
    if len(names) != num_votes:
        raise DataError(f"{len(names)} annotators came for {num_votes} votes; one each was needed", field="annotators")
    return names


def default_names(num_votes: int) -> list[str]:
    """Names for annotators whom the row does not name."""
    return [f"vote{i + 1}" for i in range(num_votes)]


def to_row(group: Group) -> Raw:
    """The row of a Group of two whose labels are votes, each by somebody."""
    if len(group.completions) == 2 and group.labels and all(label.by is not None for label in group.labels):
        row = pair_row(group, 0, 1)
        row["votes"] = [write_vote(group, label) for label in group.labels]
        names = [label.by for label in group.labels]
        if names != default_names(len(names)):
            row["annotators"] = names
        return write_fields(group, row)
    label = only_preference(group, "votes")
    row = pair_row(group, label.better, label.worse) | {"votes": []}
    if label.margin is not None:
        row["margin"] = label.margin
    if "margin" in group.meta or "annotators" in group.meta:
        raise refuse(group, "its meta holds columns that say something else beside an empty votes list")
    return write_fields(group, row)


DIALECT = Dialect(
    name="votes",
    summary="pair rows with votes",
    needs=("chosen", "rejected", "votes"),
    detect=detect,
    to_group=to_group,
    to_row=to_row,
    also_reads=("preference", "rewardbench"),
)
