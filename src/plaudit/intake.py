"""What a long job reads: looked at before anything dear is done, counted, and readable more than once.

Stands on `formats` and `parts`, above `scorefile`; no torch. A job reads its rows to score them and again to join
them, so what comes through a pipe is kept in a file meanwhile (`formats.spool`). Every reading of one Intake reads the
same sources, and an error names them as the user did.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from plaudit.errors import ConfigError
from plaudit.formats import Columns, Reader, RowWriter
from plaudit.formats.reader import read_policy
from plaudit.formats.sources import Source, is_pipe, resolve_sources
from plaudit.formats.spool import Spool
from plaudit.formats.table import BY_FLAGS
from plaudit.parts import Parts, is_passing
from plaudit.redaction import identify_url

COUNTED = 200 << 20
"""Larger files than this are counted only where a line is a row: reading them an extra time would be felt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSettings:
    """How rows are read: see `formats.Reader`."""

    format: str | None = None
    columns: Columns | None = None
    bad_rows: str = "error"
    naming: str = BY_FLAGS

    def open(self, sources: str | Path | Source | Sequence[str | Path | Source]) -> Reader:
        """A reader of these sources."""
        return Reader(sources, format=self.format, columns=self.columns, bad_rows=self.bad_rows, naming=self.naming)

    def quietly(self) -> ReadSettings:
        """For a look at rows that are read again: bad ones are set aside then, not now."""
        return self if read_policy(self.bad_rows) is None else replace(self, bad_rows=f"skip={os.devnull}")


class Intake:
    """The sources of a job that writes to `out`. Making one raises what is wrong with the paths and the first rows."""

    def __init__(self, sources: Sequence[str | Source], out: str, settings: ReadSettings | None = None) -> None:
        self.out, self.settings = out, settings or ReadSettings()
        self.sources = resolve_sources(sources)
        self._check_paths()
        self._spool = Spool(None if is_passing(out) else Path(os.path.expanduser(out)))
        try:
            self.sources = [self._spool.keep(source) for source in self.sources]
            self._check_head()
        except BaseException:
            self.close()
            raise

    def reader(self, *, is_last: bool = False) -> Reader:
        """All rows, once more. Bad ones are set aside where the user said by the last reading, and only by that."""
        return (self.settings if is_last else self.settings.quietly()).open(self.sources)

    def _check_paths(self) -> None:
        """What can be known to go wrong at the end is said at the start."""
        self.reader().close()
        if is_passing(self.out):
            return
        out = os.path.realpath(os.path.expanduser(self.out))
        read = {os.path.realpath(s.place) for s in self.sources if not s.is_url and not is_pipe(s)}
        _, _, aside = self.settings.bad_rows.partition("=")
        if aside and os.path.realpath(aside) in {out, *read}:
            raise ConfigError(f"{aside}: the bad rows would replace what is read or written; name another place")
        if aside and not os.path.isdir(_folder(aside)):
            raise ConfigError(f"{aside}: the folder for the bad rows is not there; make it, or name another place")
        place = aside if os.path.exists(aside) else _folder(aside)
        if aside and (os.path.isdir(aside) or not os.access(place, os.W_OK)):
            raise ConfigError(f"{aside}: bad rows cannot be written there; name another place")
        if out in read:
            raise ConfigError(f"{self.out}: it is read, and writing would replace it; name another output")
        # Opened and abandoned: a folder that is not there, or may not be written, or a name of no kind we write.
        with contextlib.suppress(_OnlyTriedError), RowWriter(self.out):
            raise _OnlyTriedError

    def _check_head(self) -> None:
        """The first row of each source, read and understood, before a model is loaded."""
        for source in self.sources:
            if source.is_url or source.kind == "hub":
                continue
            with self.settings.quietly().open(source) as reader:
                for record in islice(reader.records(), 1):
                    reader.interpret(record)

    def keep_in(self, parts: Parts) -> None:
        """Put what came through pipes among the parts: it goes when they go."""
        with parts.writing():
            moved = self._spool.move(parts.folder)
        self.sources = [moved.get(source, source) for source in self.sources]

    def close(self) -> None:
        """Forget what came through pipes."""
        self._spool.close()

    def count_rows(self) -> int | None:
        """Rows of all sources together; None where counting would mean another download, or take long."""
        total = 0
        for source in self.sources:
            path = Path(source.place)
            if source.is_url or source.kind == "hub" or not path.is_file():
                return None
            if source.kind == "jsonl" and source.compression is None:
                with path.open("rb") as lines:
                    total += sum(not line.isspace() for line in lines)
            elif path.stat().st_size > COUNTED:
                return None
            else:
                with self.settings.quietly().open(source) as reader:
                    total += sum(1 for _ in reader.records())
        return total

    def digests(self) -> list[str]:
        """What tells this data from other data, a source each."""
        return [self._digest(source) for source in self.sources]

    def _digest(self, source: Source) -> str:
        """A local file by size, time and its two ends, a pipe by its content; anything else by name.

        Two contents can share this; the rows' own digests, which every part holds, tell those apart.
        """
        if (digest := self._spool.digest(source)) is not None:
            return digest
        path = Path(source.place)
        if source.is_url:
            return identify_url(source.place)
        if not path.is_file():
            return source.name
        size = path.stat().st_size
        digest_of_ends = hashlib.sha256()
        with path.open("rb") as stream:
            digest_of_ends.update(stream.read(1 << 20))
            stream.seek(max(0, size - (1 << 20)))
            digest_of_ends.update(stream.read())
        return f"{source.name}:{size}:{path.stat().st_mtime_ns}:{digest_of_ends.hexdigest()}"


def _folder(path: str) -> str:
    return os.path.dirname(os.path.realpath(path))


class _OnlyTriedError(Exception):
    """Raised on purpose inside a writer that was opened only to see whether it can be."""
