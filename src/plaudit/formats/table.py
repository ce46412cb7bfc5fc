"""The table of dialects, and which of them a row is.

After every dialect file, before the readers. Invariant: the table runs from the most telling columns to the least,
and the first dialect that recognises a row has it; a row that none recognises is an error with the names of all,
never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.errors import ConfigError, DataError
from plaudit.formats import (
    ballots,
    hhh,
    judgebench,
    llmbar,
    native,
    ppe_correctness,
    ppe_preference,
    preference,
    rewardbench,
    rewardbench2,
    rmb_bon,
    rmb_pairwise,
    rmbench,
    scored,
    transcript,
    ultrafeedback,
    votes,
)
from plaudit.formats.content import Raw, list_names
from plaudit.formats.dialect import Columns, Dialect

DIALECTS: dict[str, Dialect] = {
    room.DIALECT.name: room.DIALECT
    for room in (
        ultrafeedback, scored, native, ballots, ppe_preference, ppe_correctness, judgebench, llmbar,
        hhh, rmb_pairwise, rmb_bon, rmbench, rewardbench2, votes, rewardbench, transcript, preference,
    )
}  # fmt: skip
"""Name -> dialect, the most telling columns first."""

_ALIASES = {"trl": "preference", "hh-rlhf": "hh", "ppe": "ppe-preference", "pairs": "preference"}


def find_dialect(name: str) -> Dialect:
    """The dialect called `name`; a ConfigError lists all of them."""
    found = DIALECTS.get(_ALIASES.get(name, name))
    if found is None:
        raise ConfigError(f"the format {name!r} came, one of {', '.join(DIALECTS)} was needed")
    return found


BY_FLAGS = "name the columns with --chosen-key, --rejected-key and --prompt-key, or force a dialect with --format"
"""What to do about rows that no dialect fits."""


def detect_dialect(rows: Sequence[Raw], columns: Columns | None = None, *, naming: str = BY_FLAGS) -> Dialect:
    """The dialect of a file that begins with `rows`; a DataError says what came, what was tried, and `naming`."""
    ranks = {name: rank for rank, name in enumerate(DIALECTS)}
    found: list[Dialect] = []
    for raw in rows:
        row = columns.read(raw) if columns is not None else raw
        dialect = recognise(row)
        found += [dialect] if dialect is not None else []
    if found:
        return min(found, key=lambda dialect: ranks[dialect.name])
    first = columns.read(rows[0]) if columns is not None else rows[0]
    check_values(first)
    raise DataError(
        f"rows with the columns {list_names(rows[0])} came, and no dialect fits them (tried {', '.join(DIALECTS)})"
        f"{find_nearest(first)}; {naming}"
    )


def recognise(row: Raw) -> Dialect | None:
    """The dialect of one row: the first in the table that recognises it."""
    return next((dialect for dialect in DIALECTS.values() if dialect.detect(row)), None)


def check_values(row: Raw) -> None:
    """Raise what is wrong with a row that has a dialect's columns: then the names are right, and a value is not."""
    # From the end of the table: the plainest dialect asks for the least.
    for dialect in reversed(DIALECTS.values()):
        if not find_missing(dialect, row):
            dialect.to_group(row)


def find_missing(dialect: Dialect, row: Raw) -> list[str]:
    """The columns that a row of the dialect has to have, and this one has not."""
    return [name for name in dialect.needs if name not in row and name != "labels"]


def find_nearest(row: Raw) -> str:
    """What the row lacks to be one of the dialect that it is nearest to; nothing if it is far from all."""
    lacks = {dialect: find_missing(dialect, row) for dialect in reversed(DIALECTS.values())}
    near = min(lacks, key=lambda dialect: len(lacks[dialect]) / len(dialect.needs))
    if 2 * len(lacks[near]) > len(near.needs):
        return ""
    return f"; {near.name} rows are the nearest, and {' and '.join(lacks[near])} is missing"
