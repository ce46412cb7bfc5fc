"""Rows -> a file that is whole or not there.

The way out of `formats`. Invariant: what stands under the name is either the old file or the complete new one; rows
go to a file beside it, which is flushed to the disk and moved into place at the end, and removed after any failure.
The same rows give the same bytes.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast

from plaudit.errors import DataError, InputError, PlauditError
from plaudit.files import AtomicFile
from plaudit.formats import native
from plaudit.formats.content import FRESH_SCORES, Raw
from plaudit.formats.dialect import Columns
from plaudit.formats.jsontext import dump_json, dump_row
from plaudit.formats.parquet import ParquetSink
from plaudit.formats.sources import COMPRESSIONS, STDIN
from plaudit.formats.table import find_dialect
from plaudit.formats.tables import NAMES, NUMERIC, STRUCTURED, as_turns
from plaudit.group import Group

WRITABLE = (".jsonl", ".json", ".csv", ".parquet")
HEAD = 1000
"""A CSV file's columns are those of its first rows, as many as this."""


class Sink(Protocol):
    """What rows are written to."""

    def write(self, row: Raw) -> None:
        """Take one row."""

    def finish(self) -> None:
        """Write what is still held."""


class LineSink:
    """JSON lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, row: Raw) -> None:
        """One line."""
        self._file.write(dump_row(row) + b"\n")

    def finish(self) -> None:
        """Nothing is held."""


class ListSink:
    """One JSON list, a row a line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lead = file, b"[\n"

    def write(self, row: Raw) -> None:
        """One item of the list."""
        self._file.write(self._lead + dump_row(row))
        self._lead = b",\n"

    def finish(self) -> None:
        """The end of the list."""
        self._file.write(b"[]\n" if self._lead == b"[\n" else b"\n]\n")


class CsvSink:
    """CSV that reads back as what was written, or refuses the row."""

    def __init__(self, file: BinaryIO, columns: Sequence[str]) -> None:
        self._file, self._columns = file, list(columns)
        self._held: list[Raw] = []
        self._names: list[str] | None = None
        self._num_written = 0

    def write(self, row: Raw) -> None:
        """Hold the first rows until their columns are known; then write each as it comes."""
        dump_row(row)
        if self._names is not None:
            self._write(row)
            return
        self._held.append(row)
        if len(self._held) >= HEAD:
            self._open()

    def finish(self) -> None:
        """Write the rows that are still held."""
        if self._names is None:
            self._open()

    def _open(self) -> None:
        self._names = list(dict.fromkeys([*self._columns, *(name for row in self._held for name in row)]))
        self._line([str(name) for name in self._names])
        for row in self._held:
            self._write(row)
        self._held = []

    def _write(self, row: Raw) -> None:
        assert self._names is not None
        self._num_written += 1
        new = [name for name in row if name not in self._names]
        if new:
            raise DataError(
                f"this column came after the first {HEAD} rows, which fix a CSV file's columns; write .jsonl",
                line=self._num_written,
                field=new[0],
            )
        try:
            self._line([write_cell(name, row.get(name)) for name in self._names])
        except DataError as error:
            raise DataError(error.reason, line=self._num_written, field=error.field) from None

    def _line(self, cells: list[str]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerow(cells)
        self._file.write(text.getvalue().encode("utf-8"))


def write_cell(name: str, value: Any) -> str:
    """A cell that `read_cells` reads as `value` again; refused if there is none."""
    if value is None:
        return ""
    if isinstance(value, str) and name not in STRUCTURED:
        misread = value == "" if name in NAMES else name in NUMERIC or as_turns(value) is not value
        if misread:
            raise DataError("a text that CSV would give back as something else came; write .jsonl", field=name)
        return value
    text = dump_json(value)
    if name not in STRUCTURED and isinstance(value, list | tuple | dict) and as_turns(text) != value:
        raise DataError("a list or an object that CSV would give back as text came; write .jsonl", field=name)
    return text


class KeptOpen(io.RawIOBase):
    """A file that a layer above may write to and not close: it has still to be flushed to the disk."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Pass `data` on."""
        return self._file.write(data)


class RowWriter:
    """A file of rows, as a context manager: it is there, whole, once the block has ended without an error.

    `columns` names columns that a table has whatever the first rows hold; `json_columns` those that a Parquet file
    keeps as JSON text, because their values differ in shape from row to row.
    """

    def __init__(
        self, path: str | Path, *, columns: Sequence[str] = (), json_columns: Iterable[str] = FRESH_SCORES[-1:]
    ) -> None:
        self.path = str(path)
        self.num_written = 0
        self._columns, self._json_columns = tuple(columns), frozenset(json_columns)
        self._suffix, self._compression = split_suffix(self.path)
        self._atomic: AtomicFile | None = None
        self._sink: Sink | None = None
        self._closers: list[Callable[[], Any]] = []
        self._file: BinaryIO | None = None

    @property
    def is_table(self) -> bool:
        """Whether the first rows fix the columns: one that comes late has no place."""
        return self._suffix in (".csv", ".parquet")

    def __enter__(self) -> RowWriter:
        with self._failures():
            self._file = self._open()
            self._sink = self._build_sink(self._file)
        return self

    def write(self, raw: Mapping[str, Any]) -> None:
        """Add one row."""
        if self._sink is None:
            raise InputError(
                f"{self.path}: a row came while the file was not open; write inside a `with RowWriter(...)` block"
            )
        with self._failures():
            self._sink.write(dict(raw))
        self.num_written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        assert self._sink is not None
        with self._failures():
            self._sink.finish()
            self._commit()
        self._sink = None

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """After any failure nothing half-written remains; what the disk or pyarrow says becomes one sentence."""
        try:
            yield
        except BrokenPipeError:
            self._abandon()
            raise
        except OSError as error:
            self._abandon()
            reason = error.strerror or str(error)
            raise InputError(
                f"{self.path}: it cannot be written ({reason}), and nothing half-written is left; "
                "free the way, or choose another place"
            ) from None
        except DataError as error:
            self._abandon()
            line = self.num_written + 1 if error.line is None else error.line
            raise DataError(error.reason, file=self.path, line=line, field=error.field) from None
        except BaseException:
            self._abandon()
            raise

    def _open(self) -> BinaryIO:
        """The file beside the target, or the target itself where it is no regular file."""
        if self.path == STDIN:
            return cast(BinaryIO, sys.stdout.buffer)
        path = os.path.expanduser(self.path)
        target = os.path.realpath(path)
        if os.path.isdir(target):
            raise InputError(f"{self.path}: a folder is there, and a file was to be written; choose another name")
        folder = os.path.dirname(target)
        if not os.path.exists(path) and not os.path.isdir(folder):
            raise InputError(f"{self.path}: the folder {folder} is not there; make it, or choose another place")
        self._atomic = AtomicFile(path)
        return self._atomic.stream

    def _build_sink(self, file: BinaryIO) -> Sink:
        """What turns rows into the bytes of this kind of file."""
        if self._suffix == ".parquet":
            sink = ParquetSink(file, columns=self._columns, json_columns=self._json_columns)
            self._closers.append(sink.abandon)
            return sink
        if self._compression == "gz":
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
            self._closers.append(packed.close)
            file = cast(BinaryIO, packed)
        elif self._compression == "zst":
            import pyarrow as pa

            stream = pa.CompressedOutputStream(pa.PythonFile(KeptOpen(file), mode="w"), "zstd")
            self._closers.append(stream.close)
            file = cast(BinaryIO, stream)
        match self._suffix:
            case ".json":
                return ListSink(file)
            case ".csv":
                return CsvSink(file, self._columns)
            case _:
                return LineSink(file)

    def _commit(self) -> None:
        """Close every layer, flush to the disk, move into place."""
        assert self._file is not None
        while self._closers:
            self._closers.pop()()
        if self._atomic is None:
            self._file.flush()
            return
        self._atomic.commit()
        self._atomic = None

    def _abandon(self) -> None:
        """Close what is open and remove what was begun."""
        self._sink = None
        while self._closers:
            close = self._closers.pop()
            with contextlib.suppress(OSError, ValueError, PlauditError):
                close()
        if self._atomic is not None:
            self._atomic.discard()
            self._atomic = None


def split_suffix(path: str) -> tuple[str, str | None]:
    """Layout and compression by a name's suffixes; a name that says neither is JSON lines."""
    if path == STDIN or path.startswith("/dev/"):
        return ".jsonl", None
    if "://" in path:
        raise InputError(f"{path}: an address came, a local file was needed; write there and copy it")
    stem, suffix = os.path.splitext(os.path.basename(path))
    compression = COMPRESSIONS.get(suffix.lower())
    if compression:
        suffix = os.path.splitext(stem)[1]
    if suffix.lower() not in WRITABLE or (compression and suffix.lower() == ".parquet"):
        raise InputError(
            f"{path}: a file of this kind cannot be written; {', '.join(WRITABLE)} (text also .gz, .zst) was needed"
        )
    return suffix.lower(), compression


def write_groups(
    groups: Iterable[Group], path: str | Path, *, format: str = "native", columns: Columns | None = None
) -> int:
    """Write groups in a dialect and give back how many; the file is whole or not there."""
    dialect = find_dialect(format)
    is_native = dialect.name == native.DIALECT.name
    fixed = native.COLUMNS if is_native else ()
    with RowWriter(path, columns=fixed, json_columns=("labels", "meta") if is_native else FRESH_SCORES[-1:]) as writer:
        for group in groups:
            writer.write(dialect.write(group, columns))
    return writer.num_written
