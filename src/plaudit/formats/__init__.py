"""Disk or hub -> Groups, Groups -> disk; one dialect a file, detected, never guessed silently.

The second room of the river; it knows `errors` and `group` only. In reading order:

    jsontext    JSON text, strictly                      content    what a field may hold
    dialect     the record that each dialect fills       native, preference, ... one dialect a file
    limits      how large a row may be, how far compressed data may expand
    table       all dialects, and which one a row is     sources    names -> what can be opened
    tables      CSV, Parquet, Arrow; `hub` beside it      rows      a source -> rows with their lines
    reader      rows -> Groups, bad rows, notes          writer     rows -> a file that is whole or not there

Invariant: reading streams, and nothing is dropped without being counted and said; a row is a Group or one sentence
with file and line; what was written reads back the same.
"""

from __future__ import annotations

from plaudit.formats.dialect import Columns, Dialect
from plaudit.formats.reader import Reader, Record, Row, read_groups
from plaudit.formats.table import DIALECTS, detect_dialect, find_dialect
from plaudit.formats.writer import RowWriter, write_groups

__all__ = [
    "DIALECTS",
    "Columns",
    "Dialect",
    "Reader",
    "Record",
    "Row",
    "RowWriter",
    "detect_dialect",
    "find_dialect",
    "read_groups",
    "write_groups",
]
