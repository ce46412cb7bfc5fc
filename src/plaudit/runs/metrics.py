"""metrics.jsonl: one line an event, written so that a kill at any moment costs at most the line that was being written.

Part of `runs`. A line is `{"step", "epoch", "wall", ...}`: the optimizer step, the passes over the data, the seconds of
training so far over all sessions of the run, and the numbers. Invariant: the file holds whole lines; after a resume it
holds no step twice; a number that is not finite is null and is named in `not_finite`, never left out.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from plaudit.errors import InternalError
from plaudit.files import write_file

RESERVED = ("step", "epoch", "wall", "not_finite")
Value = float | int | str | None


class MetricLog:
    """The file of events, open for appending. The clock starts here, where earlier sessions left it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO | None = None
        self._began = time.monotonic()
        self._wall_before = max((float(row.get("wall") or 0) for row in read_metrics(path)), default=0.0)

    @property
    def wall(self) -> float:
        """Seconds of training, this session and those before it."""
        return self._wall_before + time.monotonic() - self._began

    def append(self, step: int, epoch: float, values: Mapping[str, Value]) -> dict[str, Any]:
        """Write one event, and give back its line as it was written."""
        taken = [name for name in values if name in RESERVED]
        if taken:
            raise InternalError(f"{taken[0]} came as the name of a metric, and every line has one of that name already")
        broken = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 6), "wall": round(self.wall, 3)}
        row |= {name: None if name in broken else value for name, value in values.items()}
        row |= {"not_finite": broken} if broken else {}
        self._write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        return row

    def _write(self, line: bytes) -> None:
        if self._stream is None:
            self._cut_torn_line()
            self._stream = self.path.open("ab", buffering=0)
        length = self._stream.seek(0, os.SEEK_END)
        try:
            written = self._stream.write(line)
            if written != len(line):
                raise OSError(28, os.strerror(28), str(self.path))
        except OSError:
            # A disk that is full takes a part of a line: what came before it stays readable.
            self._stream.truncate(length)
            raise

    def _cut_torn_line(self) -> None:
        """Take away what a kill left of a line."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

    def cut_after(self, step: int) -> int:
        """Take away what was written after `step` (the checkpoint to go on from; -1 takes all); gives how many lines.

        The clock goes on from the last line that stays: what was trained in vain does not count.
        """
        self.close()
        rows = read_metrics(self.path)
        kept = [row for row in rows if row["step"] <= step]
        if self.path.is_file():
            write_file(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
        self._wall_before = max((float(row.get("wall") or 0) for row in kept), default=0.0)
        self._began = time.monotonic()
        return len(rows) - len(kept)

    def close(self) -> None:
        """Close the file; the next event opens it again."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The events of a file, in order; a line that a kill has torn is none. No file, no events."""
    if not path.is_file():
        return []
    return list(_whole_rows(path.read_bytes().split(b"\n")))


def _whole_rows(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
