"""A source -> its rows as they came, one at a time, each with its line.

Second step of reading in `formats`: JSON lines and JSON documents; tables are next door. Invariant: memory holds one
row and one piece of the file, never the file. A row that cannot be read is a `BadRow` in its place, which the reader
raises or sets aside; a file that cannot be read on is a DataError.

A JSON document is cut into its rows by their brackets and quotes alone, and each row is then parsed as a JSON line is:
a parser that streams (ijson) would give no line numbers, and would let repeated keys and halves of surrogate pairs in.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from plaudit.errors import DataError
from plaudit.formats.content import Raw
from plaudit.formats.hub import read_hub
from plaudit.formats.jsontext import BrokenJSONError, not_utf8, parse_json, parse_row
from plaudit.formats.limits import max_row_bytes, row_too_large
from plaudit.formats.sources import READ_ERRORS, Source, open_bytes
from plaudit.formats.table import DIALECTS
from plaudit.formats.tables import read_arrow, read_csv, read_parquet

PIECE = 1 << 20
DEEPEST = 10_000
"""Brackets within each other. Python's parser refuses far fewer, but this many are refused before the row is held."""
KEPT = 1000
"""Characters that are kept of a row that is too large."""
BOM = codecs.BOM_UTF8


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that could not be read, and as much of it as is worth keeping."""

    error: DataError
    text: str


Item = tuple[int, Raw | BadRow]
Line = tuple[int, Raw | BadRow, bytes | None]
"""A line's number, its row, and its bytes where a row is a line."""

Note = Callable[[str], None]


def read_rows(source: Source, note: Note) -> Iterator[Line]:
    """Line, row and bytes, in order; `note` is told what a person should know."""
    try:
        match source.kind:
            case "jsonl":
                with open_bytes(source) as file:
                    yield from read_lines(file)
            case "json":
                with open_bytes(source) as file:
                    yield from ((line, row, None) for line, row in read_document(source, file, note))
            case "csv" | "tsv":
                with open_bytes(source) as file:
                    for line, row in read_csv(file, "," if source.kind == "csv" else "\t"):
                        yield line, BadRow(error=row, text="") if isinstance(row, DataError) else row, None
            case "parquet":
                yield from ((line, row, None) for line, row in read_parquet(source))
            case "arrow":
                yield from ((line, row, None) for line, row in read_arrow(source))
            case _:
                yield from ((line, row, None) for line, row in read_hub(source, note))
    except DataError as error:
        if error.file is not None:
            raise
        raise DataError(error.reason, file=source.name, line=error.line, field=error.field) from None
    except READ_ERRORS as error:
        raise DataError(f"it cannot be read on ({error}); the file is damaged or went away", file=source.name) from None


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """JSON lines; blank lines are passed over."""
    line, limit = 0, max_row_bytes()
    # Only the line feed ends a row: JSON text may hold the other separators that `str.splitlines` knows.
    while True:
        data = read_line(file, limit, line + 1)
        if not data:
            return
        line += 1
        if line == 1:
            data = data.removeprefix(BOM)
        if len(data) - data.endswith(b"\n") > limit:
            # The digest of a row that is refused for its size is that of its first `limit` bytes.
            yield line, BadRow(error=row_too_large(limit), text=data[:KEPT].decode("utf-8", "replace")), data
            while data and not data.endswith(b"\n"):
                data = read_line(file, PIECE, line)
        elif data := data.strip():
            yield line, read_row(data), data


def read_line(file: BinaryIO, limit: int, line: int) -> bytes:
    """The next line. Of a line that is longer than `limit` bytes, so much that this can be seen."""
    try:
        return file.readline(limit + 1)
    except READ_ERRORS as error:
        raise DataError(f"it cannot be read on ({error}); the file is damaged or cut short", line=line) from None
    except DataError as error:
        raise DataError(error.reason, line=line) from None


def read_row(data: bytes) -> Raw | BadRow:
    """The row that these bytes spell, or why they spell none."""
    try:
        return parse_row(data.decode("utf-8"))
    except DataError as error:
        return BadRow(error=error, text=data.decode("utf-8", "replace"))
    except UnicodeDecodeError as error:
        return BadRow(error=not_utf8(error), text=data.decode("utf-8", "replace"))


# A string whole, or as far as it was read (then the last group is empty), or a bracket. Possessive, hence linear.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_SCALAR = re.compile(rb"[^ \t\n\r,:{}\[\]\"]*")

_SPACES = re.compile(rb"[ \t\n\r]*")
_COLON = re.compile(rb"[ \t\n\r]*:")
QUOTE, OPENING, CLOSING = ord('"'), b"{[", b"}]"

COLUMNS = [{name for name in dialect.needs if name != "labels"} for dialect in DIALECTS.values()]
"""What rows of each dialect have to have: an object with such columns is a row, not an object around a list of rows."""


class Document:
    """A JSON document that is read piece by piece: what was read and not yet used, and on which line that begins."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._limit = file, max_row_bytes()
        self._buffer, self._at, self._is_whole = b"", 0, False
        self._line, self._counted = 1, 0
        while len(self._buffer) < len(BOM) and self._more():
            pass
        self._buffer = self._buffer.removeprefix(BOM)

    def _more(self) -> bool:
        """Read on, by as much again as is held, so that a long row is not copied too often; False at the end."""
        if self._is_whole:
            return False
        line, rest = self.line(), self._buffer[self._at :]
        try:
            data = self._file.read(max(PIECE, len(rest)))
        except READ_ERRORS as error:
            raise DataError(f"it cannot be read on ({error}); the file is damaged", line=line) from None
        except DataError as error:
            raise DataError(error.reason, line=line) from None
        self._is_whole = not data
        self._buffer, self._at, self._counted = rest + data, 0, 0
        return True

    def line(self) -> int:
        """The line of the next byte; lines are counted once, up to here."""
        self._line += self._buffer.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """The next character that is not white space, or "" at the end."""
        while True:
            found = _SPACES.match(self._buffer, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._buffer):
                return chr(self._buffer[self._at])
            if not self._more():
                return ""

    def peek_after(self, offset: int) -> str:
        """The first character after the next `offset` bytes that is not white space, or "" if none is near."""
        while True:
            found = _SPACES.match(self._buffer, self._at + offset)
            assert found is not None
            if found.end() < len(self._buffer):
                return chr(self._buffer[found.end()])
            if len(self._buffer) - self._at > self._limit or not self._more():
                return ""

    def take(self, character: str, after: str) -> None:
        """Step over `character`, which has to be next."""
        came = self.peek()
        if came != character:
            shown = repr(came) if came else "the end of the file"
            raise DataError(f"broken JSON: expected {character!r} {after}, got {shown}", line=self.line())
        self._at += 1

    def finish(self) -> None:
        """Refuse whatever comes after the document."""
        if self.peek():
            raise DataError(
                f"expected the end of the file after the document, got {self.peek()!r}. "
                "Keep one JSON document in a file, or write JSON lines",
                line=self.line(),
            )

    def size(self, limit: int) -> int | None:
        """How many bytes the next value has; None if more than `limit`. A value that is cut off ends with the file."""
        offset = depth = 0
        if self.peek() not in ('"', "{", "["):
            return self._scalar_size(limit)
        while True:
            for found in _STRUCTURE.finditer(self._buffer, self._at + offset):
                kind = self._buffer[found.start()]
                if kind == QUOTE and not found.group(1):
                    # The string has not ended: it is looked at again when more of it is there.
                    offset = found.start() - self._at
                    break
                offset = found.end() - self._at
                depth += 1 if kind in OPENING else -1 if kind in CLOSING else 0
                if depth == 0:
                    return offset if offset <= limit else None
                if depth > DEEPEST:
                    raise DataError(f"expected values nested at most {DEEPEST:,} deep, got more", line=self.line())
            else:
                offset = len(self._buffer) - self._at
            if len(self._buffer) - self._at > limit:
                return None
            if not self._more():
                return len(self._buffer) - self._at

    def _scalar_size(self, limit: int) -> int | None:
        while True:
            found = _SCALAR.match(self._buffer, self._at)
            assert found is not None
            size = found.end() - self._at
            if size > limit:
                return None
            if found.end() < len(self._buffer) or not self._more():
                # A character that begins no value is cut out alone, and refused as JSON.
                return max(1, size)

    def _cut(self) -> tuple[int, bytes]:
        """The next value's line and bytes."""
        size, line = self.size(self._limit), self.line()
        if size is None:
            raise row_too_large(self._limit, line=line)
        data = self._buffer[self._at : self._at + size]
        self._at += size
        return line, data

    def row(self) -> Item:
        """The next value as a row, with its line."""
        line, data = self._cut()
        row = read_row(data)
        if isinstance(row, BadRow) and isinstance(row.error, BrokenJSONError):
            # Where brackets or quotes are broken, it is not certain where the next row begins.
            raise DataError(row.error.reason, line=line + row.error.lineno - 1)
        return line, row

    def value(self) -> Any:
        """The next value, which is no row."""
        line, data = self._cut()
        try:
            return parse_json(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(not_utf8(error).reason, line=line) from None
        except DataError as error:
            raise DataError(error.reason, line=line) from None

    def holds_rows(self) -> bool:
        """Whether the next object is no row, but holds a list of rows; as far as its first piece shows."""
        self.peek()
        while len(self._buffer) - self._at < PIECE and self._more():
            pass
        names, is_found = set(), False
        depth, before = 0, 0
        for found in _STRUCTURE.finditer(self._buffer, self._at):
            kind = self._buffer[found.start()]
            if kind == QUOTE and depth == 1 and _COLON.match(self._buffer, found.end()):
                names.add(found.group()[1:-1].decode("utf-8", "replace"))
            is_found |= depth == 2 and kind == OPENING[0] and before == OPENING[1]
            depth += 1 if kind in OPENING else -1 if kind in CLOSING else 0
            before = kind
            if depth > DEEPEST:
                break
            if depth == 0:
                # All of its columns are known.
                return is_found and not any(names.issuperset(needs) for needs in COLUMNS)
        return is_found and not any(names.intersection(needs) for needs in COLUMNS)


def read_document(source: Source, file: BinaryIO, note: Note) -> Iterator[Item]:
    """A JSON list of rows, an object that holds one, or rows one after the other."""
    document = Document(file)
    first = document.peek()
    if first == "[":
        yield from read_items(document)
        document.finish()
    elif first == "{":
        size = document.size(PIECE)
        if (size is None or document.peek_after(size) != "{") and document.holds_rows():
            yield from read_object(source, document, note)
            document.finish()
        else:
            while document.peek():
                yield document.row()
    elif first:
        raise DataError(
            f"expected a JSON list of rows, or an object that holds one, got {first!r}", line=document.line()
        )


def read_items(document: Document) -> Iterator[Item]:
    """The rows of the list that is next."""
    document.take("[", "before the rows")
    is_first = True
    while document.peek() != "]":
        if not is_first:
            document.take(",", "after a row")
        is_first = False
        yield document.row()
    document.take("]", "after the rows")


def read_object(source: Source, document: Document, note: Note) -> Iterator[Item]:
    """The rows of the one list of objects in the object that is next."""
    document.take("{", "before the fields")
    rows: str | None = None
    names: list[str] = []
    while document.peek() != "}":
        if names:
            document.take(",", "after a field")
        if document.peek() != '"':
            raise DataError(f"broken JSON: expected a key in quotes, got {document.peek()!r}", line=document.line())
        name, line = document.value(), document.line()
        if name in names:
            raise DataError(f"expected each key once in an object, got {name!r} twice", line=line)
        names.append(name)
        document.take(":", "after a key")
        if document.peek() == "[" and document.peek_after(1) == "{":
            if rows is not None:
                raise DataError(f"expected one list of rows, got two, {rows!r} and {name!r}. Split the file", line=line)
            rows = name
            note(f"{source.name}: rows are taken from its list {name!r}")
            yield from read_items(document)
        else:
            document.value()
    document.take("}", "after the fields")
