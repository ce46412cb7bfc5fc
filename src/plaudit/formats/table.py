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
    judgebench,
    llmbar,
    native,
    ppe_correctness,
    ppe_preference,
    preference,
    rewardbench,
    rewardbench2,
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
        rmbench, rewardbench2, votes, rewardbench, transcript, preference,
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


def detect_dialect(rows: Sequence[Raw], columns: Columns | None = None) -> Dialect:
    """The dialect of a file that begins with `rows`; a DataError says what came and what was tried."""
    ranks = {name: rank for rank, name in enumerate(DIALECTS)}
    found: list[Dialect] = []
    for raw in rows:
        row = columns.read(raw) if columns is not None else raw
        found += next(([dialect] for dialect in DIALECTS.values() if dialect.detect(row)), [])
    if found:
        return min(found, key=lambda dialect: ranks[dialect.name])
    raise DataError(
        f"rows with the columns {list_names(rows[0])} came, and no dialect fits them (tried {', '.join(DIALECTS)}); "
        f"name the columns with --chosen-key, --rejected-key and --prompt-key, or force a dialect with --format"
    )
