"""How many rows a source has, without reading it: so that parts of a stream last equally long.

Part of `corpus`, beside `reading`. A guess from the first piece is good to a few percent, which is all that mixing
needs. Invariant: no more is read than one piece each of a few files, and what cannot be guessed is None.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from typing import BinaryIO

from plaudit.corpus.reading import is_file
from plaudit.formats.sources import READ_ERRORS, Source, open_raw

PIECE, MOST_FILES = 4 << 20, 16


def estimate_rows(sources: Sequence[Source]) -> float | None:
    """Rows of all sources together, about; None if that cannot be told. Of many files, some stand for all."""
    if not all(is_file(source) for source in sources):
        return None
    asked = sources[:: -(-len(sources) // MOST_FILES)]
    found = [estimate_source(source) for source in asked]
    if any(rows is None for rows in found):
        return None
    rows = sum(rows for rows in found if rows is not None)
    return rows * count_bytes(sources) / max(count_bytes(asked), 1)


def count_bytes(sources: Sequence[Source]) -> int:
    """Bytes of all files together."""
    return sum(os.path.getsize(source.place) for source in sources)


def estimate_source(source: Source) -> float | None:
    """Rows of one file, about."""
    if source.kind == "parquet":
        return count_parquet(source)
    if source.kind not in ("jsonl", "csv", "tsv"):
        return None
    try:
        with open_raw(source) as raw:
            return count_lines(raw, source.compression, os.path.getsize(source.place))
    except READ_ERRORS:
        # The reader meets the same damage, and knows the line.
        return None


def count_parquet(source: Source) -> float | None:
    """As its own foot says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return float(pq.ParquetFile(source.place).metadata.num_rows)
    except (pa.ArrowException, OSError):
        return None


def count_lines(raw: BinaryIO, compression: str | None, size: int) -> float:
    """Line feeds of the first piece, and how many such pieces there are."""
    data, place = read_piece(raw, compression)
    if len(data) < PIECE:
        return float(data.count(b"\n") + (not data.endswith(b"\n")))
    return data.count(b"\n") * size / place


def read_piece(raw: BinaryIO, compression: str | None) -> tuple[bytes, int]:
    """The first plain bytes, and about where they end in the file."""
    match compression:
        case "gz":
            return gzip.GzipFile(fileobj=raw, mode="rb").read(PIECE), raw.tell()
        case "zst":
            import pyarrow as pa

            pieces = bytearray()
            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                while len(pieces) < PIECE and (piece := stream.read(PIECE - len(pieces))):
                    pieces += piece
                # Asked here, as closing the stream closes the file.
                return bytes(pieces), raw.tell()
        case _:
            return raw.read(PIECE), raw.tell()
