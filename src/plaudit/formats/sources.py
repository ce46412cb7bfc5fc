"""What the user named -> a list of sources that can be opened: files, folders, globs, URLs, the hub, stdin.

First step of reading in `formats`. Invariant: a source that is not there, or is empty, is an error at the call,
before any row is asked for; opening gives plain bytes, whatever the compression.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from plaudit.errors import ConfigError, DataError
from plaudit.formats.limits import CountingStream, ExpandedStream
from plaudit.redaction import hide_text, hide_url

KINDS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "jsonl", "": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
"""Suffix -> how the file is laid out. A name without one (a pipe, a process substitution) is read as JSONL; jobs that
read their sources more than once keep what comes through a pipe in a file (`spool`)."""

FOLDER_SUFFIXES = tuple(suffix for suffix in KINDS if suffix not in ("", ".txt"))
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
STDIN = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One thing that rows come from: its name for messages, where it is, how it is laid out and compressed.

    The name of a URL holds no secret, and is what messages and reports use; `place` is the whole address.
    Where `is_copy`, `place` is a temporary copy of what came through a pipe.
    """

    name: str
    kind: str
    place: str
    compression: str | None = None
    is_url: bool = False
    is_copy: bool = False


def resolve_sources(sources: str | Path | Source | Sequence[str | Path | Source]) -> list[Source]:
    """Everything that `sources` names, in order; globs and folders in the order of their names."""
    listed = [sources] if isinstance(sources, str | Path | Source) else list(sources)
    if not listed:
        raise ConfigError("no data came; at least one file, folder, URL, hub:owner/name, or - for stdin was needed")
    return [source for name in listed for source in ([name] if isinstance(name, Source) else resolve_source(str(name)))]


def is_pipe(source: Source) -> bool:
    """Whether a source can be read only once: stdin, a FIFO, a process substitution. See `spool`."""
    return not source.is_url and source.kind != "hub" and names_pipe(source.place)


def names_pipe(name: str) -> bool:
    """Whether a user's word stands for something that can be read only once."""
    path = os.path.expanduser(name)
    return name == STDIN or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def refuse_repeated_pipe(names: Sequence[str]) -> None:
    """Raise ConfigError if a pipe is named twice: the second reading would find nothing, or wait forever."""
    for name in names:
        if names.count(name) > 1 and names_pipe(name):
            what = "stdin (-)" if name == STDIN else name
            raise ConfigError(f"{what} came twice, and it can be read only once; put the rows in a file and name that")


def resolve_source(name: str) -> list[Source]:
    """The sources that one name stands for."""
    if "\0" in name or not name:
        raise DataError("a name that no file can have came; a path was needed", file=repr(name))
    if name == STDIN:
        return [Source(name="stdin", kind="jsonl", place=STDIN)]
    if name.startswith("hub:"):
        return [Source(name=name, kind="hub", place=name.removeprefix("hub:"))]
    if name.startswith("file://"):
        name = name.removeprefix("file://")
    if "://" in name:
        return resolve_url(name)
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return resolve_folder(path)
        if path.exists():
            return [check_file(path)]
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(name) else []
    except OSError as error:
        raise DataError(f"it cannot be looked at ({error.strerror})", file=name) from None
    if not matches:
        what = "no file matches" if glob.has_magic(name) else "there is no such file or folder"
        raise DataError(f"{what}; check the path", file=name)
    found = [check_file(path) for path in map(Path, matches) if not path.is_dir()]
    if not found:
        raise DataError("it matches folders only; name the files in them", file=name)
    return found


def check_file(path: Path) -> Source:
    """The source that a file is; empty files and unknown layouts are refused here."""
    source = classify(str(path), str(path))
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("the file is empty, at least one row was needed; check how it was made", file=str(path))
    return source


def classify(name: str, place: str, *, is_url: bool = False) -> Source:
    """Layout and compression by the suffixes of a name."""
    base = os.path.basename(place.split("?")[0] if is_url else place)
    stem, suffix = os.path.splitext(base)
    compression = COMPRESSIONS.get(suffix.lower())
    if compression:
        suffix = os.path.splitext(stem)[1]
    kind = KINDS.get(suffix.lower())
    if kind is None or (compression and kind in ("parquet", "arrow")):
        known = ", ".join(name for name in KINDS if name)
        raise DataError(f"a file of the kind {base!r} came; one of {known} (text also .gz, .zst) was needed", file=name)
    return Source(name=name, kind=kind, place=place, compression=compression, is_url=is_url)


def resolve_folder(folder: Path) -> list[Source]:
    """A folder that `datasets` saved, or a folder of files that can be read."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(item.name for item in folder.iterdir() if (item / "state.json").is_file())
        if len(splits) != 1:
            raise DataError(
                f"it holds the splits {', '.join(splits) or 'none'}; name one, such as {folder}/SPLIT", file=str(folder)
            )
        return resolve_folder(folder / splits[0])
    if (folder / "state.json").is_file():
        return [check_file(folder / name) for name in read_state(folder / "state.json")]
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not is_hidden(path, folder) and is_data(path)
    )
    if not files:
        raise DataError(
            f"no file in this folder can be read; {', '.join(FOLDER_SUFFIXES)} files were needed", file=str(folder)
        )
    return [check_file(path) for path in files]


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a part of the path below `folder` begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_data(path: Path) -> bool:
    """Whether the suffix says rows; files that describe a data set are not."""
    base = path.name.lower()
    for suffix in COMPRESSIONS:
        base = base.removesuffix(suffix)
    return base.endswith(FOLDER_SUFFIXES) and base not in ("dataset_info.json", "state.json", "dataset_infos.json")


def read_state(path: Path) -> list[str]:
    """The names of the Arrow files of a folder that `datasets` saved."""
    try:
        state = json.loads(path.read_bytes())
        names = [str(item["filename"]) for item in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        names = []
    if not names:
        raise DataError("it does not list the Arrow files of a saved data set; save the data set again", file=str(path))
    return names


def resolve_url(url: str) -> list[Source]:
    """What a URL names, by fsspec; a glob in it is followed."""
    with remote_errors(hide_url(url)):
        if url.startswith(("http://", "https://")):
            source = classify(hide_url(url), url, is_url=True)
            open_web(source).close()
            return [source]
        filesystem, path = open_filesystem(url)
        if not glob.has_magic(path) or filesystem.exists(path):
            if not filesystem.exists(path):
                raise DataError("there is nothing at this address; check it", file=url)
            return [classify(hide_url(url), url, is_url=True)]
        found = sorted(str(name) for name in filesystem.glob(path))
        if not found:
            raise DataError("nothing matches; check the address", file=url)
        return [classify(hide_url(name), name, is_url=True) for name in map(filesystem.unstrip_protocol, found)]


def open_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it."""
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(url)
    return filesystem, str(path)


def open_web(source: Source) -> BinaryIO:
    """The bytes at a web address: a stream, or a file on the disk where the layout is read from its end."""
    # By the standard library: fsspec needs another HTTP client for this, which would be one more thing to install.
    from urllib.request import urlopen

    answer = cast(BinaryIO, urlopen(source.place, timeout=60))
    if source.kind not in ("parquet", "arrow"):
        return answer
    with answer:
        kept = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(answer, kept, 1 << 20)
    kept.seek(0)
    return cast(BinaryIO, kept)


@contextmanager
def remote_errors(name: str) -> Iterator[None]:
    """What can go wrong on the way to another machine, as one sentence."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"the library for this address is not installed ({error})", file=name) from None
    except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = hide_text(" ".join(str(error).split()))[:300] or type(error).__name__
        raise DataError(f"it cannot be read ({reason}); check the address and the network", file=name) from None


@contextmanager
def open_bytes(source: Source) -> Iterator[BinaryIO]:
    """The plain bytes of a source, decompressed as they are read."""
    if source.place == STDIN:
        yield cast(BinaryIO, sys.stdin.buffer)
        return
    with open_raw(source) as raw:
        match source.compression:
            case "gz":
                packed = CountingStream(raw)
                with gzip.GzipFile(fileobj=packed, mode="rb") as unpacked:
                    yield cast(BinaryIO, io.BufferedReader(ExpandedStream(unpacked.read, packed), 1 << 18))
            case "zst":
                yield from open_zst(raw)
            case _:
                # Files of fsspec have a `readline` that takes no limit.
                yield cast(BinaryIO, io.BufferedReader(CountingStream(raw), 1 << 18)) if source.is_url else raw


@contextmanager
def open_raw(source: Source) -> Iterator[BinaryIO]:
    """The bytes of a source as they lie."""
    if source.is_url:
        with remote_errors(source.name):
            if source.place.startswith(("http://", "https://")):
                opened = open_web(source)
            else:
                filesystem, path = open_filesystem(source.place)
                opened = filesystem.open(path, "rb")
        with opened as file:
            yield file
        return
    try:
        local = open(source.place, "rb", buffering=1 << 18)  # noqa: SIM115
    except OSError as error:
        raise DataError(f"it cannot be opened ({error.strerror})", file=source.name) from None
    with local:
        yield local


def open_zst(raw: BinaryIO) -> Iterator[BinaryIO]:
    """Zstandard by pyarrow, which brings it along."""
    import pyarrow as pa

    packed = CountingStream(raw)
    with pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd") as unpacked:
        yield cast(BinaryIO, io.BufferedReader(ExpandedStream(unpacked.read, packed), 1 << 18))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as sha256sum prints it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


READ_ERRORS = (OSError, EOFError, zlib.error)
"""What reading bytes can raise when a file is damaged or goes away."""
