"""What a long job reads: looked at before anything dear is done, counted, and readable more than once.

Stands on `formats` and `parts`, above `scorefile`; no torch. A job reads its rows to score them and again to join
them, so what comes through a pipe is kept in a file meanwhile. Invariant: every reading of one Intake gives the same
rows, and an error names the place as the user named it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from plaudit.errors import ConfigError, DataError, InputError
from plaudit.formats import Columns, Reader, RowWriter
from plaudit.formats.reader import read_policy
from plaudit.formats.sources import STDIN, Source, resolve_sources
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

    def open(self, sources: str | Path | Sequence[str | Path]) -> Reader:
        """A reader of these sources."""
        return Reader(sources, format=self.format, columns=self.columns, bad_rows=self.bad_rows, naming=self.naming)

    def quietly(self) -> ReadSettings:
        """For a look at rows that are read again: bad ones are set aside then, not now."""
        return self if read_policy(self.bad_rows) is None else replace(self, bad_rows=f"skip={os.devnull}")


class Intake:
    """The sources of a job that writes to `out`. Making one raises what is wrong with the paths and the first rows."""

    def __init__(self, sources: list[str], out: str, settings: ReadSettings | None = None) -> None:
        self.sources, self.out, self.settings = sources, out, settings or ReadSettings()
        self._spool: Path | None = None
        self._stdin_digest: str | None = None
        self._check_paths()
        if STDIN in sources:
            self._spool_stdin()
        try:
            self._check_head()
        except BaseException:
            self.close()
            raise

    def reader(self, *, is_last: bool = False) -> Reader:
        """All rows, once more. Bad ones are set aside where the user said by the last reading, and only by that."""
        return (self.settings if is_last else self.settings.quietly()).open(self.sources)

    def _check_paths(self) -> None:
        """What can be known to go wrong at the end is said at the start."""
        sources = resolve_sources(self.sources)
        self.reader().close()
        if is_passing(self.out):
            return
        out = os.path.realpath(os.path.expanduser(self.out))
        read = {os.path.realpath(s.place) for s in sources if not s.is_url and s.place != STDIN}
        _, _, aside = self.settings.bad_rows.partition("=")
        if aside and os.path.realpath(aside) in {out, *read}:
            raise ConfigError(f"{aside}: the bad rows would replace what is read or written; name another place")
        if aside and not os.path.isdir(os.path.dirname(os.path.realpath(aside))):
            raise ConfigError(f"{aside}: the folder for the bad rows is not there; make it, or name another place")
        if out in read:
            raise ConfigError(f"{self.out}: it is read, and writing would replace it; name another output")
        # Opened and abandoned: a folder that is not there, or may not be written, or a name of no kind we write.
        with contextlib.suppress(_OnlyTriedError), RowWriter(self.out):
            raise _OnlyTriedError

    def _check_head(self) -> None:
        """The first row of each source, read and understood, before a model is loaded."""
        with self.naming():
            for source in resolve_sources(self.sources):
                if source.is_url or source.kind == "hub":
                    continue
                with self.settings.quietly().open(source.place) as reader:
                    for record in islice(reader.records(), 1):
                        reader.interpret(record)

    def _spool_stdin(self) -> None:
        """Keep what comes through the pipe in a file beside the output."""
        digest = hashlib.sha256()
        out = Path(os.path.realpath(os.path.expanduser(self.out)))
        where = Path(tempfile.gettempdir()) if is_passing(self.out) else out.parent
        self._spool = where / f".{out.name[:80]}.{os.getpid()}.stdin.jsonl"
        try:
            with self._spool.open("wb") as stream:
                while piece := sys.stdin.buffer.read(1 << 20):
                    digest.update(piece)
                    stream.write(piece)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise InputError(
                    f"stdin is kept in {where} until it is scored, which failed ({error.strerror}); "
                    "free some space there, or name a file instead of -"
                ) from None
            raise
        self.sources = [str(self._spool) if source == STDIN else source for source in self.sources]
        self._stdin_digest = digest.hexdigest()

    def keep_in(self, parts: Parts) -> None:
        """Put what came through stdin among the parts: it goes when they go."""
        if self._spool is None:
            return
        kept = parts.folder / "stdin.jsonl"
        with parts.writing():
            shutil.move(self._spool, kept)
        self.sources = [str(kept) if source == str(self._spool) else source for source in self.sources]
        self._spool = kept

    def close(self) -> None:
        """Forget what came through stdin."""
        if self._spool is not None:
            self._spool.unlink(missing_ok=True)

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """The time of a reading: an error in the file that keeps what came through stdin is an error in stdin."""
        try:
            yield
        except DataError as error:
            if self._spool is None or error.file != str(self._spool):
                raise
            raise DataError(error.reason, file="stdin", line=error.line, field=error.field) from None

    def name_stdin(self, text: str) -> str:
        """A text about the file that keeps what came through stdin, as one about stdin."""
        return text if self._spool is None else text.replace(str(self._spool), "stdin")

    def count_rows(self) -> int | None:
        """Rows of all sources together; None where counting would mean another download, or take long."""
        total = 0
        for source in resolve_sources(self.sources):
            path = Path(source.place)
            if source.is_url or source.kind == "hub" or not path.is_file():
                return None
            if source.kind == "jsonl" and source.compression is None:
                with path.open("rb") as lines:
                    total += sum(not line.isspace() for line in lines)
            elif path.stat().st_size > COUNTED:
                return None
            else:
                with self.naming(), self.settings.quietly().open(source.place) as reader:
                    total += sum(1 for _ in reader.records())
        return total

    def digests(self) -> list[str]:
        """What tells this data from other data, a source each."""
        return [self._digest(source) for source in resolve_sources(self.sources)]

    def _digest(self, source: Source) -> str:
        """A local file by size, time and its two ends, stdin by its content; anything else by name."""
        path = Path(source.place)
        if self._stdin_digest is not None and path == self._spool:
            return self._stdin_digest
        if source.is_url:
            return identify_url(source.place)
        if not path.is_file():
            return source.name
        size = path.stat().st_size
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            digest.update(stream.read(1 << 20))
            stream.seek(max(0, size - (1 << 20)))
            digest.update(stream.read())
        return f"{source.name}:{size}:{path.stat().st_mtime_ns}:{digest.hexdigest()}"


class _OnlyTriedError(Exception):
    """Raised on purpose inside a writer that was opened only to see whether it can be."""
