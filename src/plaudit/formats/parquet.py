"""Rows -> Parquet, a row group at a time.

Under `writer` in `formats`. Invariant: what is read back is what was written. A column keeps its nested type where
Arrow holds its first values exactly; where it does not (texts among lists, objects of differing keys, only nulls) the
column is JSON text, and the file says which columns are. A later row that does not fit is refused, never coerced.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from plaudit.errors import DataError
from plaudit.formats.content import Raw
from plaudit.formats.jsontext import dump_json, dump_row, null_nonfinite
from plaudit.formats.tables import MARK

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 1000


class ParquetSink:
    """A Parquet file being written; its schema is that of the first row group.

    With `nulled`, a row may hold NaN or an infinity; those in a column of JSON text become null and are counted there.
    """

    def __init__(
        self, file: BinaryIO, *, columns: Sequence[str] = (), json_columns: Iterable[str] = (),
        nulled: Counter[str] | None = None,
    ) -> None:  # fmt: skip
        self._nulled = nulled
        self._file, self._columns, self._json = file, list(columns), set(json_columns)
        self._held: list[Raw] = []
        self._num_written = 0
        self._schema: pa.Schema | None = None
        self._writer: Any = None

    def write(self, row: Raw) -> None:
        """Hold the row until its row group is full. What else JSON cannot hold, Parquet is not given either."""
        try:
            dump_row(row)
        except DataError:
            plain, count = null_nonfinite(row) if self._nulled is not None else (row, 0)
            if not count:
                raise
            dump_row(plain)
        self._held.append(row)
        if len(self._held) >= ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """Write what is held, and the footer."""
        if self._held or self._writer is None:
            self._flush()
        self._writer.close()
        self._writer = None

    def abandon(self) -> None:
        """Let go of the file; what was written is of no use."""
        writer, self._writer = self._writer, None
        if writer is not None:
            import pyarrow as pa

            with contextlib.suppress(pa.ArrowException, OSError, ValueError):
                writer.close()

    def _flush(self) -> None:
        """One row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows, self._held = self._held, []
        if self._schema is None:
            self._schema = self._choose_schema(rows)
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._check_columns(rows)
        arrays = [self._build(field, [row.get(field.name) for row in rows]) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._num_written += len(rows)

    def _choose_schema(self, rows: list[Raw]) -> pa.Schema:
        """A type for each column of the first rows: the nested one if it is exact, else JSON text."""
        import pyarrow as pa

        names = list(dict.fromkeys([*self._columns, *(name for row in rows for name in row)]))
        fields = []
        for name in names:
            kind = None if name in self._json else exact_type([row.get(name) for row in rows])
            if kind is None:
                self._json.add(name)
            fields.append(pa.field(name, kind if kind is not None else pa.string()))
        said = json.dumps({"json": [name for name in names if name in self._json]}).encode()
        return pa.schema(fields, metadata={MARK: said})

    def _check_columns(self, rows: list[Raw]) -> None:
        """A column that comes late has no place in the file."""
        assert self._schema is not None
        known = set(self._schema.names)
        for place, row in enumerate(rows):
            late = [name for name in row if name not in known]
            if late:
                raise DataError(
                    f"this column came after the first {ROW_GROUP} rows, which fix a table's columns; write .jsonl",
                    line=self._num_written + place + 1,
                    field=late[0],
                )

    def _build(self, field: pa.Field, values: list[Any]) -> pa.Array:
        """One column of a row group, exactly what its values are."""
        import pyarrow as pa

        if field.name in self._json:
            if self._nulled is not None:
                values = [self._null(field.name, value) for value in values]
            return pa.array([None if value is None else dump_json(value) for value in values], type=pa.string())
        array = exact_array(values, field.type)
        if array is None:
            place = next(i for i, value in enumerate(values) if exact_array([value], field.type) is None)
            raise DataError(
                f"a value that does not fit the column's type {field.type} came, "
                f"which the first {ROW_GROUP} rows fixed; write .jsonl",
                line=self._num_written + place + 1,
                field=field.name,
            )
        return array

    def _null(self, name: str, value: Any) -> Any:
        plain, count = null_nonfinite(value)
        if not count:
            return value
        assert self._nulled is not None
        self._nulled[name] += count
        return plain


def exact_array(values: list[Any], kind: pa.DataType | None = None) -> pa.Array | None:
    """The values as an Arrow array, or None if they would not come back the same."""
    import pyarrow as pa

    try:
        array = pa.array(values, type=kind)
        return array if not isinstance(array, pa.ChunkedArray) and array.to_pylist() == values else None
    except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError, AttributeError):
        return None


def exact_type(values: list[Any]) -> pa.DataType | None:
    """The type under which Arrow holds the values exactly, with no place in it that knows only null or no field."""
    import pyarrow as pa

    array = exact_array(values)
    # Parquet itself refuses an object without fields.
    if array is None or "null" in str(array.type) or "struct<>" in str(array.type):
        return None
    # Whole numbers in a list may be followed by others: scores and ratings are numbers, not counts.
    if pa.types.is_list(array.type) and pa.types.is_integer(array.type.value_type):
        return pa.list_(pa.float64()) if exact_array(values, pa.list_(pa.float64())) is not None else None
    return array.type
