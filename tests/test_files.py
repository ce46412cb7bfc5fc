"""files.py: final files and folders appear whole; no link is followed; modes are those that the user chose."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import names
from plaudit import files
from plaudit.files import (
    AtomicFile,
    finish_folder,
    is_temporary,
    private_file,
    remove_leftovers,
    replacing_folder,
    write_file,
    write_file_once,
)
from plaudit.formats import RowWriter


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def write_rows(path: Path, content: str) -> None:
    with RowWriter(path) as writer:
        writer.write({"row": content})


WRITERS = pytest.mark.parametrize("write", [write_file, write_rows], ids=["write_file", "RowWriter"])


class TestFile:
    def test_text_and_bytes_are_written_as_they_are(self, tmp_path: Path) -> None:
        write_file(tmp_path / "a", "é\r\n")
        write_file(str(tmp_path / "b"), b"\xff\n")
        with AtomicFile(tmp_path / "c") as stream:
            stream.write(b"one")
            assert names(tmp_path) >= {"a", "b"} and not (tmp_path / "c").exists()
            stream.write(b"two")
        assert [(tmp_path / name).read_bytes() for name in "abc"] == ["é\r\n".encode(), b"\xff\n", b"onetwo"]
        assert names(tmp_path) == {"a", "b", "c"}

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_failure_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        target = tmp_path / "config.yaml"
        write_file(target, "old\n")

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            write_file(target, "new\n")
        assert target.read_text() == "old\n" and names(tmp_path) == {"config.yaml"}

    def test_an_error_in_the_block_leaves_the_old_file(self, tmp_path: Path) -> None:
        write_file(tmp_path / "a", "old")
        with pytest.raises(KeyboardInterrupt), AtomicFile(tmp_path / "a") as stream:
            stream.write(b"new")
            raise KeyboardInterrupt
        assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == {"a"}

    @WRITERS
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
    def test_an_existing_file_keeps_its_mode(
        self, tmp_path: Path, umask: Callable[[int], int], write: Callable[[Path, str], None], mode: int
    ) -> None:
        target = tmp_path / "out.jsonl"
        target.touch()
        target.chmod(mode)
        write(target, "x")
        assert mode_of(target) == mode and "x" in target.read_text()

    @WRITERS
    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_a_new_file_has_the_mode_that_the_umask_gives(
        self, tmp_path: Path, umask: Callable[[int], int], write: Callable[[Path, str], None], mask: int
    ) -> None:
        umask(mask)
        write(tmp_path / "out.jsonl", "x")
        assert mode_of(tmp_path / "out.jsonl") == 0o666 & ~mask

    def test_content_of_a_private_file_is_private_while_it_is_written(
        self, tmp_path: Path, umask: Callable[[int], int]
    ) -> None:
        (tmp_path / "out").touch()
        (tmp_path / "out").chmod(0o600)
        with AtomicFile(tmp_path / "out"):
            [temporary] = names(tmp_path) - {"out"}
            assert mode_of(tmp_path / temporary) == 0o600

    @WRITERS
    def test_a_linked_target_is_written_through(self, tmp_path: Path, write: Callable[[Path, str], None]) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "disk" / "real.jsonl").write_text("old")
        link = tmp_path / "out.jsonl"
        link.symlink_to("disk/real.jsonl")
        write(link, "new")
        assert link.is_symlink() and "new" in (tmp_path / "disk" / "real.jsonl").read_text()
        assert names(tmp_path) == {"disk", "out.jsonl"} and names(tmp_path / "disk") == {"real.jsonl"}

    def test_a_link_to_nothing_makes_the_file_that_it_names(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("real")
        write_file(tmp_path / "link", "x")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "x"

    def test_a_planted_link_is_never_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        tokens = iter(["00000000", "11111111"])
        monkeypatch.setattr(files.secrets, "token_hex", lambda _: next(tokens))
        (tmp_path / ".out.00000000.partial").symlink_to(victim)
        write_file(tmp_path / "out", "x")
        assert victim.read_text() == "precious" and (tmp_path / "out").read_text() == "x"

    def test_temporary_names_cannot_be_foreseen(self, tmp_path: Path) -> None:
        seen = set()
        for _ in range(50):
            with AtomicFile(tmp_path / "out"):
                seen |= names(tmp_path) - {"out"}
        assert len(seen) == 50 and all(is_temporary(name) for name in seen)

    @pytest.mark.parametrize("name", ["x" * 255, "\U0001f600" * 63, "a" * 79 + "é" * 80])
    def test_the_longest_names_can_be_written(self, tmp_path: Path, name: str) -> None:
        write_file(tmp_path / name, "x")
        assert names(tmp_path) == {name}

    def test_a_pipe_is_written_to_directly(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
        reader.start()
        write_file(tmp_path / "pipe", "x")
        reader.join(10)
        assert got == [b"x"] and names(tmp_path) == {"pipe"}
        write_file(os.devnull, "x")

    def test_a_folder_in_the_way_raises(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with pytest.raises(IsADirectoryError):
            write_file(tmp_path / "out", "x")
        assert names(tmp_path) == {"out"}

    def test_the_first_to_write_once_wins(self, tmp_path: Path) -> None:
        assert [write_file_once(tmp_path / "budget", text) for text in ("512", "64")] == ["512", "512"]
        assert names(tmp_path) == {"budget"}

    def test_a_temporary_file_is_private(self, tmp_path: Path, umask: Callable[[int], int]) -> None:
        umask(0)
        stream, path = private_file(tmp_path, ".jsonl")
        stream.close()
        assert mode_of(path) == 0o600 and path.parent == tmp_path and path.suffix == ".jsonl"


class TestFolder:
    def test_it_appears_whole_and_replaces_what_was_there(self, tmp_path: Path) -> None:
        for content in ("one", "two"):
            with replacing_folder(tmp_path / "deep" / "model") as draft:
                (draft / content).write_text(content)
                assert draft.parent == tmp_path / "deep"
            assert names(tmp_path / "deep") == {"model"} and names(tmp_path / "deep" / "model") == {content}

    def test_a_failure_leaves_the_old_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with replacing_folder(tmp_path / "model") as draft:
            (draft / "old").touch()
        with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "model"):
            raise KeyboardInterrupt
        original, calls = Path.rename, []

        def rename(self: Path, there: Path) -> Path:
            calls.append(there)
            if len(calls) == 2:
                raise OSError(5, "Input/output error")
            return original(self, there)

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(OSError, match="Input/output"), replacing_folder(tmp_path / "model"):
            pass
        assert names(tmp_path) == {"model"} and names(tmp_path / "model") == {"old"}

    def test_files_get_the_usual_mode_and_the_folder_keeps_its_own(
        self, tmp_path: Path, umask: Callable[[int], int]
    ) -> None:
        (tmp_path / "private").mkdir(mode=0o700)
        for name, expected in (("private", 0o700), ("new", 0o755)):
            with replacing_folder(tmp_path / name) as draft:
                (draft / "sub").mkdir()
                for path in (draft / "weights", draft / "sub" / "weights"):
                    path.touch(mode=0o600)
            assert mode_of(tmp_path / name) == expected
            assert mode_of(tmp_path / name / "weights") == mode_of(tmp_path / name / "sub" / "weights") == 0o644
            assert names(tmp_path / name) == {"sub", "weights"}

    def test_a_link_inside_is_left_alone(self, tmp_path: Path, umask: Callable[[int], int]) -> None:
        (tmp_path / "outside").touch(mode=0o600)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
        finish_folder(tmp_path / "folder")
        assert mode_of(tmp_path / "outside") == 0o600

    def test_a_linked_folder_is_written_through(self, tmp_path: Path) -> None:
        (tmp_path / "disk" / "real").mkdir(parents=True)
        (tmp_path / "model").symlink_to("disk/real")
        with replacing_folder(tmp_path / "model") as draft:
            (draft / "new").touch()
        assert (tmp_path / "model").is_symlink() and names(tmp_path / "disk" / "real") == {"new"}
        assert names(tmp_path / "disk") == {"real"}


class TestLeftovers:
    def test_what_a_killed_process_left_is_removed_and_nothing_else(self, tmp_path: Path) -> None:
        kept = {"out", ".out.partial", ".out.ABCDEFGH.partial", ".other.0a1b2c3d.partial", ".out.0a1b2c3d"}
        for name in kept | {".out.0a1b2c3d.partial"}:
            (tmp_path / name).touch()
        (tmp_path / ".out.01234567.partial").mkdir()
        (tmp_path / ".out.01234567.partial" / "file").touch()
        (tmp_path / "victim").touch()
        (tmp_path / ".out.76543210.partial").symlink_to(tmp_path / "victim")
        remove_leftovers(tmp_path / "out")
        assert names(tmp_path) == kept | {"victim"}

    def test_a_folder_that_was_moved_aside_comes_back_if_nothing_took_its_place(self, tmp_path: Path) -> None:
        (tmp_path / ".model.0a1b2c3d.replaced").mkdir()
        (tmp_path / ".model.0a1b2c3d.replaced" / "weights").touch()
        with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "model"):
            raise KeyboardInterrupt
        assert names(tmp_path) == {"model"} and names(tmp_path / "model") == {"weights"}
