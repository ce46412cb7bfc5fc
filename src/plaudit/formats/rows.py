"""A source -> its rows as they came, one at a time, each with its line.

Second step of reading in `formats`: JSON lines and JSON documents; tables are next door. Invariant: memory holds one
row and one piece of the file, never the file. A row that cannot be read is a `BadRow` in its place, which the reader
raises or sets aside; a file that cannot be read on is a DataError.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from plaudit.errors import DataError
from plaudit.formats.content import Raw, list_names
from plaudit.formats.hub import read_hub
from plaudit.formats.jsontext import DECODER, RefusedJSON, check_encodable, name_type, not_utf8, parse_row
from plaudit.formats.sources import READ_ERRORS, Source, open_bytes
from plaudit.formats.tables import read_arrow, read_csv, read_parquet

PIECE = 1 << 22
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
    line = 0
    # Only the line feed ends a row: JSON text may hold the other separators that `str.splitlines` knows.
    while True:
        try:
            data = file.readline()
        except READ_ERRORS as error:
            raise DataError(
                f"it cannot be read on ({error}); the file is damaged or cut short", line=line + 1
            ) from None
        if not data:
            return
        line += 1
        if line == 1:
            data = data.removeprefix(BOM)
        data = data.strip()
        if not data:
            continue
        try:
            row: Raw | BadRow = parse_row(data.decode("utf-8"))
        except DataError as error:
            row = BadRow(error=error, text=data.decode("utf-8", "replace"))
        except UnicodeDecodeError as error:
            row = BadRow(error=not_utf8(error), text=data.decode("utf-8", "replace"))
        yield line, row, data


class Text:
    """A document read piece by piece: what was read and not yet used, and on which line that begins."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self.buffer, self.at, self.is_whole = "", 0, False
        self._line, self._counted = 1, 0

    def more(self) -> bool:
        """Read on, by as much again as is held, so that a long row is not parsed too often; False at the end."""
        if self.is_whole:
            return False
        self.here()
        rest = self.buffer[self.at :]
        try:
            data = self._file.read(max(PIECE, len(rest)))
            self.is_whole = not data
            self.buffer, self.at = rest + self._decoder.decode(data, final=not data), 0
            self._counted = 0
        except UnicodeDecodeError as error:
            raise DataError(not_utf8(error).reason, line=self._line) from None
        except READ_ERRORS as error:
            raise DataError(f"it cannot be read on ({error}); the file is damaged", line=self._line) from None
        return True

    def peek(self) -> str:
        """The next character that is not white space, or "" at the end."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in " \t\n\r":
                self.at += 1
            if self.at < len(self.buffer) or not self.more():
                return self.buffer[self.at : self.at + 1]

    def take(self, character: str, after: str) -> None:
        """Step over `character`, which has to be next."""
        if self.peek() != character:
            came = repr(self.peek()) if self.peek() else "the end of the file"
            raise DataError(f"broken JSON came: {came} {after}, where {character!r} was needed", line=self.here())
        self.at += 1

    def here(self) -> int:
        """The line of the next character; lines are counted once, up to here."""
        self._line += self.buffer.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def value(self) -> Any:
        """The next whole JSON value."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.buffer, self.at)
            except RefusedJSON as error:
                raise DataError(f"{error}; mend the file", line=self.here()) from None
            except json.JSONDecodeError as error:
                # What is only cut off breaks near the end of the piece, or is a text that has not ended.
                cut_off = error.pos >= len(self.buffer) - 16 or error.msg.startswith("Unterminated")
                if cut_off and self.more():
                    continue
                line = self.here() + self.buffer.count("\n", self.at, error.pos)
                raise DataError(f"broken JSON came ({error.msg}); mend the file", line=line) from None
            except ValueError as error:
                raise DataError(f"JSON that Python refuses came ({error}); mend the file", line=self.here()) from None
            except RecursionError:
                raise DataError("JSON nested too deeply to be read came; mend the file", line=self.here()) from None
            if end == len(self.buffer) and not isinstance(value, dict | list | str) and self.more():
                continue
            if self.buffer.find("\\u", self.at, end) >= 0:
                try:
                    check_encodable(value)
                except DataError as error:
                    raise DataError(error.reason, line=self.here()) from None
            self.at = end
            return value


def read_document(source: Source, file: BinaryIO, note: Note) -> Iterator[Item]:
    """A JSON list of rows, an object that holds one, or JSON lines under the wrong name."""
    text = Text(file)
    first = text.peek()
    if first == "[":
        yield from read_items(text)
        if text.peek():
            raise DataError("text came after the end of the list; one JSON document was needed", line=text.here())
    elif first == "{":
        yield from read_object(source, text, note)
    elif first:
        raise DataError(
            "a JSON list of rows, or an object that holds one, was needed and something else came", line=text.here()
        )


def read_items(text: Text) -> Iterator[Item]:
    """The rows of the list that is next."""
    text.take("[", "came")
    is_first = True
    while text.peek() != "]":
        if not is_first:
            text.take(",", "came after a row")
        is_first = False
        text.peek()
        line = text.here()
        value = text.value()
        if type(value) is dict:
            yield line, value
        else:
            error = DataError(f"{name_type(value)} came, a JSON object was needed")
            yield line, BadRow(error=error, text=json.dumps(value, ensure_ascii=False)[:1000])
    text.take("]", "came after a row")


def read_object(source: Source, text: Text, note: Note) -> Iterator[Item]:
    """Rows one after the other, or the one list of rows inside an object."""
    if is_lines(text):
        while text.peek():
            line = text.here()
            value = text.value()
            if type(value) is not dict:
                raise DataError(f"{name_type(value)} came between rows, a JSON object was needed", line=line)
            yield line, value
        return
    text.take("{", "came")
    found: str | None = None
    names: list[str] = []
    while text.peek() != "}":
        if names:
            text.take(",", "came after a field")
            text.peek()
        name = text.value()
        if type(name) is not str:
            raise DataError(f"broken JSON came: {name_type(name)} as a key", line=text.here())
        names.append(name)
        text.take(":", "came after a key")
        if text.peek() == "[" and is_list_of_objects(text):
            if found is not None:
                raise DataError(
                    f"it holds two lists of rows, {found!r} and {name!r}; keep one of them in a file", line=text.here()
                )
            found = name
            note(f"{source.name}: rows are taken from its list {name!r}")
            yield from read_items(text)
        else:
            text.value()
    text.take("}", "came after a field")
    if found is None:
        raise DataError(f"an object with {list_names(names)} came, and none of these is a list of rows", line=1)


def is_lines(text: Text) -> bool:
    """Whether the document is rows one after the other, or one row, and not an object around a list.

    A row ends within a piece or two; an object around a long list does not, and then nothing more is held to find out.
    """
    while len(text.buffer) < PIECE and text.more():
        pass
    try:
        value, end = DECODER.raw_decode(text.buffer, text.at)
    except (ValueError, RecursionError):
        return False
    if text.buffer[end:].lstrip()[:1] == "{":
        return True
    lists = [
        item
        for item in value.values()
        if isinstance(item, list) and item and all(isinstance(row, dict) for row in item)
    ]
    return not lists or any(name in value for name in ("prompt", "chosen", "instruction", "completions"))


def is_list_of_objects(text: Text) -> bool:
    """Whether the list that is next begins with an object."""
    while True:
        head = text.buffer[text.at + 1 :].lstrip()
        if head or not text.more():
            return head[:1] == "{"
