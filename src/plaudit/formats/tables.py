"""Tables -> rows: CSV, Parquet, Arrow files.

Beside `rows` in `formats`. Invariant: a cell becomes what JSON would have held. Parquet and Arrow keep nested values;
what a union of structs filled with null is taken out again; a NaN in a column of numbers is pandas' way to say
"missing", and is null. CSV knows only text: cells of the columns in `STRUCTURED`, and lists of turns, are JSON; empty
cells of columns that are not text are absent.
"""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO

from plaudit.errors import DataError
from plaudit.formats.content import Raw, list_names
from plaudit.formats.jsontext import BrokenJSONError, parse_json
from plaudit.formats.limits import check_expansion, max_row_bytes, row_too_large
from plaudit.formats.sources import Source, open_raw

if TYPE_CHECKING:
    import pyarrow as pa

STRUCTURED = frozenset({"completions", "labels", "meta", "scores", "gold_scores", "votes", "annotators", "unscored"})
"""Columns that hold JSON in a CSV file."""

NUMERIC = frozenset({"margin", "chosen_score", "rejected_score", "num_correct", "num_incorrect", "total_completions"})
NAMES = frozenset({"id", "subset", "source", "by"})
MARK = b"plaudit"
"""The key under which a Parquet file says which of its columns are JSON text, and that nulls were written as nulls."""

BATCH = 32
"""Rows that are made objects at once: each may be as large as a row can be, by a dictionary of a few bytes on disk."""
_ESCAPED = re.compile("[\udc80-\udcff]")
_TURNS_BEGIN = re.compile(r"\s*\[\s*\{\s*['\"](?:role|content)['\"]\s*:")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{1,16}")
_TURNS = re.compile(r"\s*\[\s*(\{.*\}\s*)?\]\s*", re.DOTALL)


def read_csv(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, Raw | DataError]]:
    """Line and row, or what is wrong with the row, of a CSV file whose first row names the columns."""
    if csv.field_size_limit() < (1 << 30):
        csv.field_size_limit(min(sys.maxsize, (1 << 31) - 1))
    # Bytes that are no text are found line by line: a strict decoder reads far ahead of the line that it fails in.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = BoundedLines(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        twice = [name for name, count in Counter(header).items() if count > 1]
        if twice:
            raise DataError(f"the column {twice[0]!r} came twice; each name once was needed", line=1)
        while True:
            line = reader.line_num + 1
            lines.start_row()
            cells = next(reader, None)
            if cells is None:
                return
            if not cells:
                continue
            if len(cells) != len(header):
                yield line, DataError(f"{len(cells)} cells came, {len(header)} were needed ({list_names(header)})")
                continue
            try:
                row: Raw | DataError = read_cells(header, cells)
            except DataError as error:
                row = error
            yield line, row
    except csv.Error as error:
        raise DataError(f"broken CSV came ({error}); mend the quotes, or write JSONL", line=reader.line_num) from None
    except DataError as error:
        raise DataError(error.reason, line=error.line or reader.line_num + 1, field=error.field) from None
    finally:
        text.detach()


class BoundedLines:
    """The lines of a text, for a parser of rows; a DataError where one row takes more of them than a row may have."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._limit = text, max_row_bytes()
        self._left = self._limit

    def start_row(self) -> None:
        """Begin to count anew."""
        self._left = self._limit

    def __iter__(self) -> BoundedLines:
        return self

    def __next__(self) -> str:
        # Counted in characters, of which a byte may be less but never more.
        line = self._text.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise row_too_large(self._limit)
        if not line.isascii() and (escaped := _ESCAPED.search(line)):
            byte = ord(escaped.group()) - 0xDC00
            raise DataError(f"the byte 0x{byte:02X} came where UTF-8 text was needed; convert the file to UTF-8")
        if not line:
            raise StopIteration
        return line


def read_cells(header: list[str], cells: list[str]) -> Raw:
    """The row that the cells of one line are."""
    row: Raw = {}
    for name, cell in zip(header, cells, strict=True):
        if name in STRUCTURED or name in NUMERIC or name in NAMES:
            if cell == "":
                # A row without a rating has its column of scores: it may come before rows with one.
                if name == "scores" and not {"labels", "chosen"} & set(header):
                    row[name] = None
                continue
            row[name] = read_structured(name, cell) if name not in NAMES else cell
        else:
            try:
                row[name] = as_turns(cell)
            except DataError as error:
                raise DataError(error.reason, field=name) from None
    return row


def read_structured(name: str, cell: str) -> Any:
    """The JSON in a cell; a number may be no JSON number, and is then left for its dialect to refuse."""
    try:
        return parse_json(cell)
    except DataError as error:
        if name in NUMERIC:
            return cell
        raise DataError(error.reason, field=name) from None


def as_turns(cell: str) -> Any:
    """A cell as a list of turns, if it is one; every other cell is the text that it is."""
    if _TURNS.fullmatch(cell):
        try:
            value = parse_json(cell)
        except DataError as error:
            if _TURNS_BEGIN.match(cell) or not isinstance(error, BrokenJSONError):
                # Such as Python's repr, which pandas writes for a list: read as text, it would be scored as text.
                raise DataError(
                    f"expected a list of turns as JSON, got text that only looks like one ({error.reason})"
                ) from None
            return cell
        if isinstance(value, list) and all(isinstance(turn, dict) and "role" in turn for turn in value) and value:
            return value
    return cell


def read_parquet(source: Source) -> Iterator[tuple[int, Raw]]:
    """Number and row of a Parquet file, a batch at a time."""
    import pyarrow.parquet as pq

    with open_raw(source) as file, table_errors(), pq.ParquetFile(file, pre_buffer=False) as table:
        check_row_groups(table.metadata)
        yield from read_batches(table.schema_arrow, table.iter_batches(batch_size=BATCH))


def check_row_groups(metadata: Any) -> None:
    """Raise DataError if a column would expand too far: Parquet holds a whole page of it in memory, whatever the batch.

    The sizes stand in the file's footer, so nothing has to be read for this.
    """
    number = 0
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        for column in map(group.column, range(group.num_columns)):
            try:
                check_expansion(column.total_uncompressed_size, column.total_compressed_size)
            except DataError as error:
                raise DataError(error.reason, line=number + 1, field=column.path_in_schema) from None
        number += group.num_rows


def read_arrow(source: Source) -> Iterator[tuple[int, Raw]]:
    """Number and row of an Arrow file, in the stream layout that `datasets` writes or the file layout."""
    import pyarrow as pa

    with ExitStack() as stack:
        stack.enter_context(table_errors())
        file = (
            stack.enter_context(open_raw(source)) if source.is_url else stack.enter_context(pa.memory_map(source.place))
        )
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        if is_file:
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
            yield from read_batches(reader.schema, batches)
        else:
            stream = pa.ipc.open_stream(file)
            yield from read_batches(stream.schema, iter(stream))


def read_batches(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, Raw]]:
    """Number and row of record batches."""
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    is_ours = MARK in metadata
    as_json = set(json.loads(metadata[MARK])["json"]) if is_ours else set()
    convert = [None if name in as_json else cleaner(schema.field(name).type, is_ours) for name in schema.names]
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH):
            part = batch.slice(start, BATCH)
            check_batch(part, number)
            columns = [column.to_pylist() for column in part.columns]
            for place, (name, clean) in enumerate(zip(schema.names, convert, strict=True)):
                if name in as_json:
                    columns[place] = [None if cell is None else parse_json(cell) for cell in columns[place]]
                elif clean is not None:
                    columns[place] = [clean(cell) for cell in columns[place]]
            for cells in zip(*columns, strict=True):
                number += 1
                yield number, dict(zip(schema.names, cells, strict=True))


def check_batch(batch: pa.RecordBatch, number: int) -> None:
    """Raise DataError if a row of the batch, which comes after `number` others, is too large to be made an object."""
    limit = max_row_bytes()
    if batch.nbytes > limit:
        for place in range(batch.num_rows):
            if batch.slice(place, 1).nbytes > limit:
                raise row_too_large(limit, line=number + place + 1)


def cleaner(kind: pa.DataType, is_ours: bool) -> Callable[[Any], Any] | None:
    """What makes JSON of a column's values; None where they are JSON already."""
    import pyarrow as pa

    if is_ours or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return None
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return None
    return clean_cell


def clean_cell(value: Any) -> Any:
    """A value of a table as JSON would have held it."""
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        return value if value == value else None
    if isinstance(value, list):
        return [clean_cell(item) for item in value]
    if isinstance(value, dict):
        is_turn = "role" in value
        return {
            name: clean_cell(item)
            for name, item in value.items()
            if not is_turn or item is not None or name == "content"
        }
    if isinstance(value, bytes):
        # Some writers do not mark text as such. Other bytes are no text, and must not be taken for one.
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Decimal):
        return clean_cell(float(value))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, tuple):
        return [clean_cell(item) for item in value]
    # An object's address is no content: with it, every reading of the same row would be another row.
    return _ADDRESS.sub("", str(value))


@contextmanager
def table_errors() -> Iterator[None]:
    """What pyarrow can raise over a damaged file, as one sentence."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the table cannot be read ({reason}); it is damaged, or not what its name says") from None
