"""Folders that are whole or not there: written beside their place, hashed, and renamed into it.

Stands above `trainer`. The manifest is written last and names every file with its size and hash, so a folder without
one, or with another byte, is known for what it is. Invariant: whatever moment a process is killed in, the newest folder
that verifies is the last one that was committed.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from plaudit.files import finish_folder, sync, write_file
from plaudit.formats.sources import hash_file

MANIFEST = "manifest.json"
WEIGHTS = "trained.safetensors"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRITERS = ("RuntimeError", "SafetensorError")
FULL_WORDS = ("PytorchStreamWriter", "unexpected pos", *(f"os error {number}" for number in FULL))
"""What torch and safetensors say of a disk that is full; torch says it of every file that it cannot write."""
NUMBERED = re.compile(r"checkpoint-(\d+)")


def commit_folder(draft: Path, final: Path) -> None:
    """Move a folder that was written beside its place into it: every byte on the disk first, the manifest last."""
    files = sorted(p for p in draft.rglob("*") if p.is_file() and p.name != MANIFEST)
    listed = {str(p.relative_to(draft)): {"bytes": p.stat().st_size, "sha256": hash_file(p)} for p in files}
    finish_folder(draft)
    write_file(draft / MANIFEST, json.dumps({"files": listed}, indent=1) + "\n")
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)
    sync(final.parent)


def find_fault(folder: Path) -> str | None:
    """What is wrong with a committed folder, as a phrase; None if every byte is as it was committed."""
    manifest = folder / MANIFEST
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "it has no manifest, so it was never finished"
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest cannot be read"
    for name, said in listed.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != said["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes, {said['bytes']:,} were written"
        if hash_file(path) != said["sha256"]:
            return f"{name} is not what was written: its hash differs"
    return None


def find_last(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each newer one that is not."""
    found = [(int(m[1]), p) for p in folder.glob("checkpoint-*") if (m := NUMBERED.fullmatch(p.name))]
    said: list[str] = []
    for _, path in sorted(found, reverse=True):
        fault = find_fault(path)
        if fault is None:
            return path, said
        said.append(f"{path} is not used: {fault}")
    return None, said


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a file could not be written for want of room: every library has its own words for it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if type(error).__name__ in WRITERS and any(word in str(error) for word in FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """Tensors by name, into a folder that is being written."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: x.detach().cpu().contiguous() for name, x in weights.items()}, file)


def load_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = load_file(file)
    return found
