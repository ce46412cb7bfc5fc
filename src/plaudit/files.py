"""Writes final and temporary files and folders: everything that plaudit leaves on a disk, except logs that grow.

Stands on nothing, directly below `errors`. A final file or folder is written under another name beside its place and
renamed into it, so its name holds the old content or the complete new content, whatever happens in between.

* Temporary names are unpredictable, and are created with O_EXCL: a link or a file that someone placed there is never
  opened. What a killed process left is removed by the next one that writes the same target (`remove_leftovers`).
* A target that is itself a symbolic link is written through: the file it points to is replaced, and the link stays.
  Users link output folders to other disks, and expect that.
* An existing file keeps its mode, and its owner where the system allows that. A new file gets the mode that the umask
  (or the folder's default ACL) gives, never a library's 0600. An existing folder keeps its mode; its files are new.
* Content is flushed to the disk before the rename, and the folder's names after it.
* A target that is neither a file nor a folder (a pipe, a device) is opened and written to directly.

Files that are appended to while they are read (metrics.jsonl, a journal, bad rows) have no final moment, and are not
written here.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

BUFFER = 1 << 18
LONGEST = 80
"""Bytes of a target's name that its temporary names begin with: a file name has at most 255."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.(partial|replaced)")
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class AtomicFile:
    """A file being written; `commit` puts it under its name, `discard` forgets it.

    As a context manager it gives the stream, and commits unless the block raises.
    """

    def __init__(self, path: str | Path) -> None:
        self.target = Path(os.path.realpath(path))
        self.temporary: Path | None = None
        self._before = _find_status(path)
        if self._before is not None and not stat.S_ISREG(self._before.st_mode):
            # Opened by the given name: a pipe below /dev/fd or /proc has no other. For a folder this raises.
            self.stream: BinaryIO = open(path, "wb")  # noqa: SIM115
            return
        # Never wider than it will be: an output that its owner made private is private while it is written, too.
        mode = 0o666 if self._before is None else stat.S_IMODE(self._before.st_mode)
        number, self.temporary = _create_file(self.target, mode)
        self.stream = open(number, "wb", buffering=BUFFER)  # noqa: SIM115

    def commit(self) -> None:
        """Flush the content to the disk and rename the file into its place; on failure, discard it and raise."""
        if self.temporary is None:
            self.stream.close()
            return
        try:
            self.stream.flush()
            number = self.stream.fileno()
            if self._before is not None:
                _restore_status(number, self._before)
            os.fsync(number)
            self.stream.close()
            os.replace(self.temporary, self.target)
        except BaseException:
            self.discard()
            raise
        self.temporary = None
        with contextlib.suppress(OSError):  # some file systems cannot flush a folder
            sync(self.target.parent)

    def discard(self) -> None:
        """Close and remove what was written; what stands under the name stays."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.close()
        if self.temporary is not None:
            with contextlib.suppress(OSError):
                self.temporary.unlink()
            self.temporary = None

    def __enter__(self) -> BinaryIO:
        return self.stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a whole file; text is UTF-8."""
    with AtomicFile(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_file_once(path: Path, content: str) -> str:
    """Write a file unless it is there already, and return what it holds: of several processes the first one wins."""
    number, temporary = _create_file(path, 0o666)
    try:
        with open(number, "wb") as stream:
            stream.write(content.encode("utf-8"))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`; it takes the target's place at the end, unless the block raises."""
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    before = _find_status(target)
    mode = 0o777 if before is None else stat.S_IMODE(before.st_mode)
    draft = _create_folder(target, mode)
    old: Path | None = None
    try:
        yield draft
        finish_folder(draft)
        if before is not None:
            draft.chmod(mode)
            old = _temporary_name(target, "replaced")
            target.rename(old)
        draft.rename(target)
    except BaseException:
        remove_tree(draft)
        if old is not None and old.exists() and not target.exists():
            old.rename(target)
        raise
    with contextlib.suppress(OSError):
        sync(target.parent)
    if old is not None:
        remove_tree(old)


def finish_folder(folder: Path) -> None:
    """Give every file of a folder that was just written the mode of a new file, and flush all of it to the disk.

    Libraries choose modes of their own: safetensors writes 0600, and then nobody else can load the model.
    """
    number, probe = _create_file(folder / "mode", 0o666)
    usual = stat.S_IMODE(os.fstat(number).st_mode)
    os.close(number)
    probe.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink():
            continue
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) != usual:
            path.chmod(usual)
        sync(path)
    sync(folder)


def private_file(folder: Path | None = None, suffix: str = "") -> tuple[BinaryIO, Path]:
    """A temporary file that only this user can read; the caller removes it. Without `folder`, the system's place."""
    number, name = tempfile.mkstemp(prefix="plaudit-", suffix=suffix, dir=folder)
    return open(number, "wb", buffering=BUFFER), Path(name)


def remove_leftovers(target: str | Path) -> None:
    """Remove what a killed process left while it wrote `target`. No other process may be writing it now."""
    target = Path(os.path.realpath(target))
    ours = re.compile(re.escape(_prefix(target)) + r"[0-9a-f]{8}\.(partial|replaced)")
    for path in sorted(target.parent.iterdir()):
        if not ours.fullmatch(path.name):
            continue
        if path.suffix == ".replaced" and not target.exists():
            # Killed between the two renames: this is the only copy of the folder.
            path.rename(target)
        else:
            remove_tree(path)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that was being written."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_tree(path: Path) -> None:
    """Remove a file, a link (never what it points to) or a folder, if it is there and the system allows it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's names, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _prefix(target: Path) -> str:
    return f".{target.name.encode('utf-8', 'surrogateescape')[:LONGEST].decode('utf-8', 'ignore')}."


def _temporary_name(target: Path, kind: str) -> Path:
    return target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}.{kind}")


def _create_file(target: Path, mode: int) -> tuple[int, Path]:
    """A new file beside `target`, open; the system applies the umask to `mode`, without a race between threads."""
    while True:
        path = _temporary_name(target, "partial")
        with contextlib.suppress(FileExistsError):
            return os.open(path, _NEW_FILE, mode), path


def _create_folder(target: Path, mode: int) -> Path:
    while True:
        path = _temporary_name(target, "partial")
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode)
            return path


def _find_status(path: str | Path) -> os.stat_result | None:
    """What stands under a name, links followed; None if nothing does, or a link to nothing."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _restore_status(number: int, before: os.stat_result) -> None:
    """Give an open file the owner and mode of the file that it replaces, as far as the system allows."""
    now = os.fstat(number)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(number, before.st_uid, before.st_gid)
    # The file was created with no more than this mode, so where it cannot be set the file is private, not public.
    with contextlib.suppress(OSError):
        os.fchmod(number, stat.S_IMODE(before.st_mode))
