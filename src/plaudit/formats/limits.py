"""Limits on what one file can make the reader hold: the size of a row, and how far compressed data may expand.

Under `sources` in `formats`. A few kilobytes of compressed zeros become gigabytes, so nothing is read without a bound:
a row that is too large is refused before it is held, and a compressed file that expands too far is not read on. Both
limits are environment variables, so that every command and the Python functions take them alike.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO

from plaudit.errors import ConfigError, DataError

ROW_MB = "PLAUDIT_MAX_ROW_MB"
EXPANSION = "PLAUDIT_MAX_EXPANSION"

MOST_ROW_MB = 64
MOST_EXPANSION = 500
"""Measured: preference data expand 14 times, numbered rows of one text 310 times, zeros in gzip 1,030 times."""

FREE = 64 << 20
"""Bytes that any compressed file may expand to, however far: small repetitive files are no danger."""


def read_limit(name: str, default: float) -> float:
    """The limit that an environment variable sets, or the default."""
    given = os.environ.get(name)
    if not given:
        return default
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name}: expected a number above 0, got {given!r}")
    return value


def max_row_bytes() -> int:
    """The most bytes that one row may have."""
    return int(read_limit(ROW_MB, MOST_ROW_MB) * (1 << 20))


def row_too_large(limit: int, *, line: int | None = None) -> DataError:
    """A row above the limit, which was not read."""
    return DataError(
        f"expected a row of at most {limit / (1 << 20):,.10g} MB, got a larger one. "
        f"If it is right, set {ROW_MB} to a higher limit",
        line=line,
    )


class CountingStream(io.RawIOBase):
    """A file that counts the bytes that were read from it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.num_read = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the next read goes."""
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        self.num_read += len(piece)
        return len(piece)


class ExpandedStream(io.RawIOBase):
    """The plain bytes of compressed data, by `read(size)`; a DataError once they are too many for what was read."""

    def __init__(self, read: Callable[[int], bytes], packed: CountingStream) -> None:
        super().__init__()
        self._read, self._packed = read, packed
        self._limit = read_limit(EXPANSION, MOST_EXPANSION)
        self._num_plain = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the next piece goes."""
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        self._num_plain += len(piece)
        check_expansion(self._num_plain, self._packed.num_read, self._limit)
        return len(piece)


def check_expansion(num_plain: int, num_packed: int, limit: float | None = None) -> None:
    """Raise DataError if `num_packed` compressed bytes became too many plain ones."""
    limit = read_limit(EXPANSION, MOST_EXPANSION) if limit is None else limit
    if num_plain > FREE and num_plain > limit * num_packed:
        raise DataError(
            f"expected compressed data that expand at most {limit:,.10g} times, got {num_plain:,} bytes from "
            f"{num_packed:,} ({num_plain / max(1, num_packed):,.0f} times). If they are right, set {EXPANSION} to a "
            "higher limit, or uncompress the file"
        )
