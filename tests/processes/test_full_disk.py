"""A disk that is full: one sentence, nothing half-written, and nothing lost that was scored before."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forks import Child, Parent
from jobs import Json, arguments, count_parts, group_rows, names, pair_rows, score_whole, write_lines

MOUNT = 'mount -t tmpfs -o size=512k tmpfs "$0" && exec "$@"'
"""A disk of half a megabyte, which the command after it sees in the folder before it."""


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Parent, Path, Path]]:
    """What starts commands that see a small disk, where they see it, and where this process sees it."""
    folder = tmp_path_factory.mktemp("disk")
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no one mount a small disk of their own")
    made = Parent(tmp_path_factory.mktemp("children"), wrap=words)
    yield made, folder, Path(f"/proc/{made.process.pid}/root{folder}")
    made.close()


def fill(disk: Path, *, room: int) -> Path:
    """A file that leaves `room` bytes of the small disk."""
    filler = disk / "filler"
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - room))
    return filler


def check_full(child: Child, *said: str) -> None:
    assert child.wait() == 2
    assert child.stdout.read_text() == ""
    told = [line for line in child.stderr.read_text().splitlines() if line.startswith("plaudit: ")]
    assert len(told) == 1 and "Traceback" not in child.stderr.read_text()
    for words in said:
        assert words in told[0]


class TestFullDisk:
    @pytest.mark.parametrize(("room", "num_kept"), [(0, 0), (24 << 10, 1)])
    def test_parts_that_do_not_fit_leave_nothing_half_written(
        self, small_disk: tuple[Parent, Path, Path], tiny_reward: Path, tmp_path: Path, room: int, num_kept: int
    ) -> None:
        parent, disk, seen = small_disk
        data = write_lines(tmp_path / "in.jsonl", pair_rows(320))
        whole = score_whole(parent, tiny_reward, data)
        filler = fill(seen, room=room)
        argv = arguments(tiny_reward, data, disk / "out.jsonl", "--window", "16")
        kept = "what was scored before is kept in" if num_kept else "nothing was kept"
        check_full(parent.start(*argv), "(the disk is full)", kept, "free some space there")
        folders = {name for name in names(seen) if name.startswith(".out.jsonl.parts-")}
        assert names(seen) - folders == {"filler"} and len(folders) == num_kept
        assert bool(count_parts(seen)) == bool(num_kept)
        for part in seen.glob(".*/part-*"):
            assert len(part.read_text().splitlines()) == 17 and part.suffix == ".jsonl"
        filler.unlink()
        again = parent.start(*argv)
        assert again.wait() == 0, again.stderr.read_text()
        assert ("going on from there" in again.stderr.read_text()) is bool(num_kept)
        assert (seen / "out.jsonl").read_bytes() == whole and names(seen) == {"out.jsonl"}

    def test_an_output_that_does_not_fit_keeps_what_was_scored(
        self, small_disk: tuple[Parent, Path, Path], tiny_reward: Path, tmp_path: Path
    ) -> None:
        parent, disk, seen = small_disk
        rows: list[Json] = [row | {"note": "x" * 3000} for row in group_rows(100)]
        data = write_lines(tmp_path / "in.jsonl", rows)
        whole = score_whole(parent, tiny_reward, data)
        filler = fill(seen, room=200 << 10)
        argv = arguments(tiny_reward, data, disk / "out.jsonl", "--window", "16")
        check_full(
            parent.start(*argv), "No space left on device", "the scores are kept in", "run the same command again"
        )
        assert count_parts(seen) == 7
        assert not [name for name in names(seen) if "partial" in name or name == "out.jsonl"]
        filler.unlink()
        again = parent.start(*argv)
        assert again.wait() == 0
        assert "100 of 100 rows were done already" in again.stderr.read_text()
        assert (seen / "out.jsonl").read_bytes() == whole and names(seen) == {"out.jsonl"}

    def test_stdin_that_does_not_fit_leaves_nothing(
        self, small_disk: tuple[Parent, Path, Path], tiny_reward: Path, tmp_path: Path
    ) -> None:
        parent, disk, seen = small_disk
        data = write_lines(tmp_path / "in.jsonl", pair_rows(320))
        fill(seen, room=16 << 10)
        argv = arguments(tiny_reward, Path("-"), disk / "out.jsonl")
        check_full(parent.start(*argv, stdin=str(data)), "stdin is kept in", "No space left on device")
        assert names(seen) == {"filler"}


def test_a_device_that_is_full_is_a_sentence(parent: Parent, tiny_reward: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full on this system")
    data = write_lines(tmp_path / "in.jsonl", pair_rows(20))
    check_full(parent.start(*arguments(tiny_reward, data, Path("/dev/full"))), "/dev/full", "No space left on device")
    assert names(tmp_path) == {"in.jsonl"}
