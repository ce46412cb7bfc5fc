"""A part's sources -> its Groups, each with a name that finds it again; and what tells these data from others.

Part of `corpus`, above `settings`. Notes of the reader are kept once, however often a file is read. Invariant: what a
digest says of a file depends on its bytes, not on where it lies or when it was written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from plaudit.corpus.settings import Part
from plaudit.errors import DataError
from plaudit.formats import Reader
from plaudit.formats.sources import STDIN, Source, hash_file
from plaudit.formats.spool import Spool
from plaudit.group import Group
from plaudit.intake import ReadSettings
from plaudit.keys import Key
from plaudit.redaction import hide_url

TOO_MANY_BAD = 0.1
"""More bad rows than this share, and it is the file or the format that is wrong, not a row."""

BY_SETTINGS = "name the columns, or force a dialect with format: data=[{path: ..., chosen_key: ..., rejected_key: ...}]"
"""What to do about rows that no dialect fits, where data are parts of a corpus."""

LARGE, END = 4 << 30, 1 << 20
"""Hashing a larger file would keep everyone waiting."""


class PartReader:
    """Reads one part, any number of times; `notes` and `alarms` hold what there was to say, each once."""

    def __init__(self, part: Part, name: str) -> None:
        self.part, self.name = part, name
        self._spool = Spool()
        self.sources = self._spool.resolve(part.path)
        self.notes: list[str] = []
        self.alarms: list[str] = []

    def read(self, *, places: Sequence[Source] | None = None, keeps_bad: bool = True) -> Iterator[Group]:
        """The Groups, from the beginning. `places` are its files in another order.

        Bad rows are written down where the user said, unless this is a look at rows that are read again.
        """
        part = self.part
        reading = ReadSettings(format=part.format, columns=part.columns, bad_rows=part.bad_rows, naming=BY_SETTINGS)
        reader = (reading if keeps_bad else reading.quietly()).open(places or self.sources)
        count = 0
        try:
            with reader:
                for row in islice(reader, part.limit):
                    count += 1
                    yield name_group(row.group, row.file, row.line)
        finally:
            self._listen(reader, keeps_bad=keeps_bad, is_cut=count == part.limit)
        if not count:
            raise DataError("no group came, at least one was needed", file=part.path)

    def _listen(self, reader: Reader, *, keeps_bad: bool, is_cut: bool) -> None:
        """Keep what the reader has to say."""
        said = [note for note in reader.notes if keeps_bad or os.devnull not in note]
        if is_cut:
            said.append(f"{self.name}: no more than the first {self.part.limit:,} groups are read, as its limit says")
        self.notes += [note for note in said if note not in self.notes]
        if keeps_bad and reader.num_bad > TOO_MANY_BAD * reader.num_read:
            self.alarms.append(
                f"{self.name}: {reader.num_bad:,} of {reader.num_read:,} rows were bad; look at the reasons that were "
                "written aside, it may be read as something that it is not"
            )


def name_group(group: Group, file: str, line: int) -> Group:
    """The Group under its own id, or under file and line, so that a message can name it."""
    return group if group.id is not None else replace(group, id=f"{file}:{line}")


def digest_part(reader: PartReader, keys: Sequence[Key] | None) -> dict[str, str]:
    """Source -> what tells its rows from others: the hash of a file; of what cannot be read again, of its Groups.

    Without `keys` (nobody has read to the end), a source that is elsewhere is known by its name alone.
    """
    found = {source.name: digest_file(source) for source in reader.sources if is_file(source)}
    elsewhere = [source.name for source in reader.sources if not is_file(source)]
    if elsewhere:
        found[hide_url(reader.part.path)] = "read as a stream" if keys is None else digest_keys(keys)
    return found


def is_file(source: Source) -> bool:
    """Whether a source is a plain file, which can be read as often as one likes."""
    return not source.is_url and source.kind != "hub" and source.place != STDIN and Path(source.place).is_file()


def digest_file(source: Source) -> str:
    """The hash of a file's bytes, as sha256sum prints it; of a very large one, of its size and its two ends."""
    try:
        size = os.path.getsize(source.place)
        if size <= LARGE:
            return f"sha256:{hash_file(Path(source.place))}"
        with open(source.place, "rb") as file:
            digest = hashlib.sha256(str(size).encode() + file.read(END))
            file.seek(-END, os.SEEK_END)
            digest.update(file.read())
            return f"ends:{digest.hexdigest()}"
    except OSError as error:
        raise DataError(f"it cannot be read on ({error.strerror}); it went away", file=source.name) from None


def digest_keys(keys: Sequence[Key]) -> str:
    """One digest of Groups, in whatever order they came."""
    return f"groups:{hashlib.sha256(b''.join(sorted(keys))).hexdigest()}"
