"""Sources -> Groups: which dialect a file is, what becomes of bad rows, and what a person should be told.

The way into `formats`. Invariant: every row that was read is a Group, an error with file and line, or a counted line
in the file of bad rows; the choice of a dialect is always said in `notes`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from plaudit.errors import CodingError, ConfigError, DataError
from plaudit.formats.content import GOLD_SCORES, Raw
from plaudit.formats.dialect import Columns, Dialect
from plaudit.formats.jsontext import dump_row
from plaudit.formats.limits import max_row_bytes
from plaudit.formats.rows import BadRow, Line, read_rows
from plaudit.formats.sources import STDIN, Source, resolve_sources
from plaudit.formats.table import BY_FLAGS, detect_dialect, find_dialect, recognise
from plaudit.group import Group

HEAD = 8
"""How many rows of a file are looked at to find its dialect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row as it was read, and where it stands. `data` are its bytes, where the row is a line of a file."""

    file: str
    line: int
    raw: Raw
    data: bytes | None = None

    @property
    def digest(self) -> bytes:
        """Eight bytes that tell this row's content from others', wherever it stands."""
        # The bytes as they were read, because encoding a row again would cost ten times as much as hashing it.
        data = self.data if self.data is not None else repr(self.raw).encode("utf-8", "surrogatepass")
        return hashlib.sha256(data).digest()[:8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row, the dialect it was read in, and the Group that it says."""

    file: str
    line: int
    raw: Raw
    group: Group
    dialect: Dialect


class Reader:
    """Rows of any number of sources, in order. It owns the file that bad rows are written to: use `with`, or read on
    to the end.

    `bad_rows` is "error", or "skip=PATH": then a bad row is written to PATH with file, line and reason, and counted.
    `naming` is what an error says of how columns of other names are told.
    """

    def __init__(
        self,
        sources: str | Path | Source | Sequence[str | Path | Source],
        *,
        format: str | None = None,
        columns: Columns | None = None,
        bad_rows: str = "error",
        naming: str = BY_FLAGS,
    ) -> None:
        self.notes: list[str] = []
        self.dialect: str | None = None
        self.num_read = 0
        self.num_bad = 0
        self._forced = find_dialect(format) if format is not None else None
        self._columns = columns if columns is not None and columns.renamed() else None
        self._naming = naming
        self._dialects: dict[str, Dialect] = {}
        self._sources = resolve_sources(sources)
        self._aside_path = read_policy(bad_rows)
        self._aside: BinaryIO | None = None
        if self._aside_path is not None:
            self._aside = open_aside(self._aside_path, self._sources)

    def records(self) -> Iterator[Record]:
        """Every row as it came; a row that cannot be read raises, or goes to the bad ones."""
        for source in self._sources:
            yield from self._read_source(source)

    def interpret(self, record: Record) -> Row | None:
        """The Group that a record says; None if the row was bad and is set aside."""
        dialect = self._dialects.get(record.file)
        if dialect is None:
            dialect = self._choose(record.file, record.line, [record.raw])
        try:
            group = dialect.read(record.raw, self._columns)
            if self._forced is None:
                check_kind(record.raw if self._columns is None else self._columns.read(record.raw), dialect)
        except DataError as error:
            self._refuse(record.file, record.line, error, record.raw)
            return None
        except RecursionError:
            self._refuse(record.file, record.line, DataError("a row nested too deeply to be used came"), record.raw)
            return None
        return Row(file=record.file, line=record.line, raw=record.raw, group=group, dialect=dialect)

    def __iter__(self) -> Iterator[Row]:
        with self:
            for record in self.records():
                row = self.interpret(record)
                if row is not None:
                    yield row
        if self.num_bad and self.num_bad == self.num_read:
            raise DataError(f"all {self.num_bad} rows were bad; {self._aside_path} holds the reasons; check --format")

    def _read_source(self, source: Source) -> Iterator[Record]:
        """The records of one source, its dialect being chosen from the first of them."""
        items = read_rows(source, self.notes.append)
        head, broken = take_head(items)
        good = [(line, row) for line, row, _ in head if not isinstance(row, BadRow)]
        if not head and broken is None:
            raise DataError("no rows came, at least one was needed; check how it was made", file=source.name)
        if good:
            self._choose(source.name, good[0][0], [row for _, row in good])
        for line, row, data in chain(head, items if broken is None else ()):
            self.num_read += 1
            if isinstance(row, BadRow):
                self._refuse(source.name, line, row.error, row.text)
            else:
                yield Record(file=source.name, line=line, raw=row, data=data)
        if broken is not None:
            raise broken

    def _choose(self, file: str, line: int, rows: list[Raw]) -> Dialect:
        """The dialect of a file, and the note that says so."""
        if self._forced is not None:
            dialect, why = self._forced, "as --format says"
        else:
            try:
                dialect = detect_dialect(rows, self._columns, naming=self._naming)
            except DataError as error:
                # A field says that a value is wrong, not the columns: then it is the row that has to be found.
                raise DataError(
                    error.reason, file=file, line=line if error.field else None, field=error.field
                ) from None
            names = self._columns.renamed() if self._columns is not None else {}
            seen = [names.get(name, name) for name in dialect.needs if names.get(name, name) in rows[0]]
            seen += [name for name in ("prompt", "margin") if name in rows[0] and name not in seen]
            why = f"columns {', '.join(sorted(seen))}; force another with --format"
        if dialect.for_file is not None:
            dialect = dialect.for_file(rows)
        self._dialects[file], self.dialect = dialect, dialect.name
        advice = dialect.advise(rows[0])
        note = f"{file}: read as {dialect.summary} ({why})" + (f"; {advice}" if advice else "")
        if note not in self.notes:
            self.notes.append(note)
        return dialect

    def _refuse(self, file: str, line: int, error: DataError, row: Raw | str) -> None:
        """Raise the error with its place, or write the row aside and count it."""
        if self._aside_path is None or isinstance(error, CodingError):
            kind = CodingError if isinstance(error, CodingError) else DataError
            raise kind(error.reason, file=file, line=line, field=error.field) from None
        if self._aside is None:
            raise ConfigError("a bad row came after the reader was closed; read before closing it")
        self.num_bad += 1
        said = {"file": file, "line": line, "reason": error.reason, "field": error.field, "row": row}
        try:
            text = dump_row(said)
        except DataError:
            text = dump_row(said | {"row": ascii(row)[:1000]})
        try:
            self._aside.write(text + b"\n")
            self._aside.flush()
        except OSError as failure:
            raise DataError(
                f"a bad row cannot be written aside ({failure.strerror})", file=str(self._aside_path)
            ) from None

    def close(self) -> None:
        """Complete the file of bad rows, and say how many went there."""
        if self._aside is None:
            return
        aside, self._aside = self._aside, None
        try:
            aside.close()
        except OSError as failure:
            raise DataError(
                f"the bad rows cannot be written ({failure.strerror})", file=str(self._aside_path)
            ) from None
        if self.num_bad:
            self.notes.append(f"{self.num_bad} of {self.num_read} rows were bad and were written to {self._aside_path}")

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def take_head(items: Iterator[Line]) -> tuple[list[Line], DataError | None]:
    """The first rows, until enough good ones are there; and the error that ended the source before, if one did."""
    head: list[Line] = []
    num_good = size = 0
    limit = max_row_bytes()
    try:
        for item in items:
            head.append(item)
            if isinstance(item[1], BadRow):
                size += len(item[1].text)
            else:
                num_good += 1
            # Bad rows may be as large as rows can be: not many such are held at once.
            if num_good == HEAD or len(head) == 64 * HEAD or size > limit:
                break
    except DataError as error:
        return head, error
    return head, None


def check_kind(raw: Raw, dialect: Dialect) -> None:
    """Raise DataError if the row is of another dialect than its file, which was chosen from the file's first rows.

    Its columns would be taken for extras, and the labels in them ignored.
    """
    other = recognise(raw)
    if other is None or other.name == dialect.name or other.name in dialect.also_reads:
        return
    own = [name for name in (*other.needs, GOLD_SCORES) if name not in dialect.needs and raw.get(name) is not None]
    raise DataError(
        f"expected {dialect.name} rows, as the file began, got a row that reads as {other.name}. "
        f"Force --format {other.name}, or --format {dialect.name} to ignore what it adds",
        field=own[-1] if own else None,
    )


def read_policy(bad_rows: str) -> str | None:
    """Where bad rows go, or None where they are errors."""
    kind, _, path = bad_rows.partition("=")
    if bad_rows == "error":
        return None
    if kind == "skip" and path:
        return path
    raise ConfigError(f"bad_rows={bad_rows!r} came, error or skip=PATH was needed")


def open_aside(path: str, sources: Sequence[Source]) -> BinaryIO:
    """The file for bad rows, begun anew; it must not be one that is read."""
    real = os.path.realpath(path)
    if any(
        source.place != STDIN and not source.is_url and os.path.realpath(source.place) == real for source in sources
    ):
        raise ConfigError(f"{path} is a file to read, and bad rows would overwrite it; choose another place for them")
    try:
        return open(path, "wb")
    except OSError as error:
        raise DataError(f"bad rows cannot be written there ({error.strerror})", file=path) from None


def read_groups(
    sources: str | Path | Sequence[str | Path],
    *,
    format: str | None = None,
    columns: Columns | None = None,
    bad_rows: str = "error",
) -> Iterator[Group]:
    """The Groups of any number of sources, streamed. What is missing or empty raises here, at the call."""
    reader = Reader(sources, format=format, columns=columns, bad_rows=bad_rows)
    rows = iter(reader)
    return give_groups(next(rows, None), rows)


def give_groups(first: Row | None, rows: Iterator[Row]) -> Iterator[Group]:
    """The groups of the rows, the first of which was read already."""
    if first is not None:
        yield first.group
    for row in rows:
        yield row.group
