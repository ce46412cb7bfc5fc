"""Folders that are whole or not there: every way in which one can be broken is named, and the one before is used."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from plaudit.commits import (
    MANIFEST,
    WEIGHTS,
    commit_folder,
    find_fault,
    find_last,
    is_disk_full,
    load_weights,
    save_weights,
)


def commit(folder: Path, step: int, value: float = 1.0) -> Path:
    draft = folder / ".writing" / f"checkpoint-{step}"
    save_weights({"a": torch.full((64,), value), "b": torch.arange(6.0).reshape(2, 3).T}, draft / WEIGHTS)
    (draft / "deep").mkdir()
    (draft / "deep" / "state.json").write_text(json.dumps({"step": step}))
    commit_folder(draft, folder / f"checkpoint-{step}")
    return folder / f"checkpoint-{step}"


def test_a_commit_moves_every_file_and_lists_it(tmp_path: Path) -> None:
    found = commit(tmp_path, 3)
    assert find_fault(found) is None and not (tmp_path / ".writing" / "checkpoint-3").exists()
    listed = json.loads((found / MANIFEST).read_text())["files"]
    assert set(listed) == {WEIGHTS, "deep/state.json"}
    assert listed[WEIGHTS]["bytes"] == (found / WEIGHTS).stat().st_size and len(listed[WEIGHTS]["sha256"]) == 64
    weights = load_weights(found / WEIGHTS)
    assert torch.equal(weights["b"], torch.arange(6.0).reshape(2, 3).T)


def test_a_commit_replaces_what_stood_in_its_place(tmp_path: Path) -> None:
    commit(tmp_path, 3, 1.0)
    (tmp_path / "checkpoint-3" / WEIGHTS).write_bytes(b"torn")
    found = commit(tmp_path, 3, 2.0)
    assert find_fault(found) is None and float(load_weights(found / WEIGHTS)["a"][0]) == 2.0


def flip(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 100)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte is another": (flip, f"{WEIGHTS} is not what was written: its hash differs"),
    "a file is cut": (truncate, f"{WEIGHTS} has 100 bytes, "),
    "a file is gone": (lambda p: (p / "deep" / "state.json").unlink(), "deep/state.json is missing"),
    "no manifest": (lambda p: (p / MANIFEST).unlink(), "it has no manifest, so it was never finished"),
    "a torn manifest": (lambda p: os.truncate(p / MANIFEST, 20), "its manifest cannot be read"),
    "a manifest of something else": (lambda p: (p / MANIFEST).write_text("[]") and None, "its manifest cannot be read"),
    "nothing in it": (lambda p: (shutil.rmtree(p), p.mkdir())[1], "it has no manifest, so it was never finished"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_one_is_named_and_the_one_before_is_used(tmp_path: Path, name: str) -> None:
    destroy, said = FAULTS[name]
    kept, newest = commit(tmp_path, 9), commit(tmp_path, 10)
    destroy(newest)
    last, sentences = find_last(tmp_path)
    assert last == kept, "the order is by number, not by name"
    assert len(sentences) == 1 and sentences[0].startswith(f"{newest} is not used: {said}")


def test_what_is_being_written_is_no_checkpoint(tmp_path: Path) -> None:
    kept = commit(tmp_path, 2)
    shutil.copytree(kept, tmp_path / ".writing" / "checkpoint-4", dirs_exist_ok=True)
    shutil.copytree(kept, tmp_path / "checkpoint-5-copy")
    assert find_last(tmp_path) == (kept, [])
    assert find_last(tmp_path / "gone") == (None, [])


@pytest.mark.parametrize("cut", ["files", "manifest"])
def test_a_commit_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    kept = commit(tmp_path, 2)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "I/O")

    monkeypatch.setattr(f"plaudit.commits.{'write_file' if cut == 'manifest' else 'finish_folder'}", fail)
    with pytest.raises(OSError, match="I/O"):
        commit(tmp_path, 4)
    assert find_last(tmp_path) == (kept, [])


def test_a_full_disk_is_known_in_every_library_s_words() -> None:
    inner = OSError(errno.ENOSPC, "No space left on device")
    outer = RuntimeError("saving failed")
    outer.__cause__ = inner
    torchs = RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0")
    for error in (inner, outer, torchs, OSError(errno.EFBIG, "File too large"), OSError(errno.EDQUOT, "quota")):
        assert is_disk_full(error), error
    for error in (RuntimeError("shapes differ"), OSError(errno.EACCES, "denied"), ValueError("os error 28"), None):
        assert not is_disk_full(error), error
