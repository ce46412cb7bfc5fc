"""Keeps what can be read only once in private temporary files, so that a job can read it as often as it needs.

Beside `sources` in `formats`. A pipe (stdin, a FIFO, a process substitution) gives each byte to one reader only: a
look at the first row takes rows away from the next reading, and opening a FIFO again waits for a writer that has
finished. A job therefore resolves its sources through one Spool, and reads the copies. They are removed on `close`, or
when the Spool or the process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from plaudit.errors import DataError, InputError
from plaudit.files import private_file
from plaudit.formats.sources import STDIN, Source, is_pipe, resolve_sources

PIECE = 1 << 20


class Spool:
    """Copies of pipes; those for a job that writes a file lie beside it, where there is room for its output."""

    def __init__(self, beside: Path | None = None) -> None:
        self._beside = beside
        self._copies: dict[str, Source] = {}
        self._digests: dict[str, str] = {}
        self._paths: list[Path] = []
        self._cleanup = weakref.finalize(self, _remove, self._paths, os.getpid())

    def resolve(self, names: str | Path | Source | Sequence[str | Path | Source]) -> list[Source]:
        """The sources that `names` stand for, each of which can be read again."""
        return [self.keep(source) for source in resolve_sources(names)]

    def keep(self, source: Source) -> Source:
        """The same source, its content copied if it can be read only once."""
        if not is_pipe(source):
            return source
        if source.place not in self._copies:
            self._copies[source.place] = self._copy(source)
        return self._copies[source.place]

    def digest(self, source: Source) -> str | None:
        """The SHA-256 of a pipe's content; None of what is no copy."""
        return self._digests.get(source.place)

    def move(self, folder: Path) -> dict[Source, Source]:
        """Move the copies into a folder; gives each source as it was and as it is."""
        moved: dict[Source, Source] = {}
        for number, (name, source) in enumerate(self._copies.items()):
            path = folder / f"pipe-{number}"
            shutil.move(source.place, path)
            self._paths[number] = path
            moved[source] = self._copies[name] = replace(source, place=str(path))
            self._digests[str(path)] = self._digests.pop(source.place)
        return moved

    def close(self) -> None:
        """Remove the copies."""
        self._cleanup()

    def _copy(self, source: Source) -> Source:
        digest = hashlib.sha256()
        try:
            stream, path = private_file(self._beside)
            self._paths.append(path)
            with stream, open_pipe(source) as pipe:
                while piece := pipe.read(PIECE):
                    digest.update(piece)
                    stream.write(piece)
        except OSError as error:
            where = self._beside.parent if self._beside is not None else tempfile.gettempdir()
            self.close()
            raise InputError(
                f"{source.name} is kept in {where} until it is scored, which failed ({error.strerror}); "
                "free some space there, or name a file instead of a pipe"
            ) from None
        except BaseException:
            self.close()
            raise
        if not path.stat().st_size:
            self.close()
            raise DataError("nothing came, at least one row was needed; check what is piped in", file=source.name)
        self._digests[str(path)] = digest.hexdigest()
        return replace(source, place=str(path), is_copy=True)


@contextlib.contextmanager
def open_pipe(source: Source) -> Iterator[BinaryIO]:
    """A pipe's bytes; a FIFO waits here until someone writes to it, as everywhere."""
    if source.place == STDIN:
        yield cast(BinaryIO, sys.stdin.buffer)
        return
    with open(source.place, "rb") as pipe:
        yield pipe


def _remove(paths: list[Path], owner: int) -> None:
    """Remove the copies, unless this is a process that was forked from their owner."""
    while paths and os.getpid() == owner:
        with contextlib.suppress(OSError):
            paths.pop().unlink()
