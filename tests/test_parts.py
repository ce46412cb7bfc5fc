"""parts.py: a part is whole or not there, whatever ends the process; any number of ranks, and one output."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import names
from plaudit import parts as rooms
from plaudit.errors import ConfigError, InputError
from plaudit.parts import Parts, Ranks, is_passing

PLAN = {"model": "a", "data": ["b"]}


def test_what_is_said_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    rooms.say_on_stderr("waiting")
    assert capsys.readouterr() == ("", "waiting\n")


class TestRanks:
    def test_without_torchrun_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        assert Ranks.from_environment() == Ranks(rank=0, world=1)

    def test_torchrun_says_which_and_each_part_is_one_ranks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "3")
        found = []
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            found.append({n for n in range(20) if Ranks.from_environment().is_mine(n)})
        assert sorted(n for mine in found for n in mine) == list(range(20))
        assert {len(mine) for mine in found} == {6, 7}

    @pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("0", "0"), ("a", "2"), ("0", "1.5")])
    def test_anything_else_is_a_sentence(self, rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(ConfigError, match=f"RANK={rank} of WORLD_SIZE={world} came.*start the processes with"):
            Ranks.from_environment()


class TestFolder:
    def test_a_part_reads_back_to_the_last_bit(self, tmp_path: Path) -> None:
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        lines = [{"unique_tokens": 3}, {"scores": [0.1 + 0.2, None, -1e-30]}, None]
        parts.write(7, lines)
        parts.write(2, [{}])
        assert parts.numbers() == [2, 7] and parts.read(7) == lines
        assert parts.has(7) and not parts.has(3)
        assert names(parts.folder) == {"part-00000002.jsonl", "part-00000007.jsonl", "rank-0.lock"}

    def test_the_same_plan_finds_them_again_and_another_removes_them(self, tmp_path: Path) -> None:
        out = str(tmp_path / "out.jsonl")
        first = Parts(out, PLAN, Ranks())
        first.write(0, [{}])
        first.close()
        again = Parts(out, dict(reversed(PLAN.items())), Ranks())
        assert again.numbers() == [0] and again.notes == []
        again.close()
        other = Parts(out, PLAN | {"model": "c"}, Ranks())
        assert other.numbers() == [] and names(tmp_path) == {other.folder.name}
        assert len(other.notes) == 1 and other.notes[0].startswith(f"{out}: what an earlier run had scored was for")

    def test_an_output_of_another_name_keeps_its_own(self, tmp_path: Path) -> None:
        first = Parts(str(tmp_path / "a.jsonl"), PLAN, Ranks())
        first.write(0, [{}])
        Parts(str(tmp_path / "b.jsonl"), PLAN | {"model": "c"}, Ranks()).close()
        assert first.numbers() == [0]

    def test_an_output_of_another_kind_goes_on_from_them_unless_someone_is_at_work(self, tmp_path: Path) -> None:
        first = Parts(str(tmp_path / "out.csv.gz"), PLAN, Ranks())
        first.write(0, [{}])
        busy = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        assert busy.numbers() == [] and busy.notes == []
        busy.close()
        first.close()
        for other in (
            Parts(str(tmp_path / "other.jsonl"), PLAN, Ranks()),
            Parts(str(tmp_path / "out.jsonl"), {}, Ranks()),
        ):
            assert other.numbers() == []
            other.close()
        again = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        assert again.numbers() == [0] and names(tmp_path) == {again.folder.name}
        assert again.notes == [f"{tmp_path / 'out.jsonl'}: what was scored for another kind of output is taken over"]

    def test_a_second_process_is_refused_until_the_first_has_gone(self, tmp_path: Path) -> None:
        out = str(tmp_path / "out.jsonl")
        first = Parts(out, PLAN, Ranks())
        first.write(0, [{}])
        for plan in (PLAN, PLAN | {"model": "c"}):
            with pytest.raises(InputError, match="another process is scoring into it now; wait for it, stop it, or"):
                Parts(out, plan, Ranks())
        first.close()
        assert Parts(out, PLAN, Ranks()).numbers() == [0]

    def test_a_file_system_without_locks_is_used_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import filelock

        def refuse(self: Any, **_: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        parts.write(0, [{}])
        assert parts.numbers() == [0]

    def test_a_folder_of_no_use_does_not_stay(self, tmp_path: Path) -> None:
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        parts.close()
        assert names(tmp_path) == set()
        several = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks(rank=1, world=2))
        several.close()
        assert names(tmp_path) == {several.folder.name}, "another rank may be about to use it"

    def test_removing_leaves_nothing(self, tmp_path: Path) -> None:
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        parts.write(0, [{}])
        parts.remove()
        assert names(tmp_path) == set()
        assert parts.has(5), "a rank that comes late has nothing to do"

    def test_the_first_to_settle_a_number_settles_it_for_all(self, tmp_path: Path) -> None:
        out = str(tmp_path / "out.jsonl")
        ranks = [Parts(out, PLAN, Ranks(rank=n, world=3)) for n in range(3)]
        assert [parts.settle("budget", mine) for parts, mine in zip(ranks, (512, 4096, 64), strict=True)] == [512] * 3
        assert not [name for name in names(ranks[0].folder) if "partial" in name]

    def test_what_a_killed_merge_left_is_swept_away_and_nothing_else(self, tmp_path: Path) -> None:
        left = {".out.jsonl.0a1b2c3d.partial", ".out.jsonl.4711abcd.partial"}
        kept = {"out.jsonl", ".out.jsonl.partial", ".out.jsonl.ABCDEFGH.partial", ".other.jsonl.0a1b2c3d.partial"}
        for name in left | kept:
            (tmp_path / name).touch()
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        parts.sweep()
        assert names(tmp_path) == kept | {parts.folder.name}

    def test_what_passes_through_has_its_parts_elsewhere_and_leaves_none(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for out in ("-", os.devnull, str(tmp_path / "pipe")):
            assert is_passing(out)
            parts = Parts(out, PLAN, Ranks())
            parts.write(0, [{}])
            parts.sweep()
            assert parts.folder.parent != tmp_path
            parts.close()
            assert not parts.folder.exists()
        assert not is_passing(str(tmp_path)) and not is_passing(str(tmp_path / "not there"))
        assert names(tmp_path) == {"pipe"}


class TestWaiting:
    def test_a_part_that_comes_is_waited_for_in_silence(self, tmp_path: Path) -> None:
        out, said = str(tmp_path / "out.jsonl"), []
        first, second = (Parts(out, PLAN, Ranks(rank=n, world=2)) for n in range(2))
        later = threading.Timer(0.1, second.write, (1, [{"a": 1}]))
        later.start()
        first.wait(1, said.append)
        later.join()
        assert (first.read(1), said) == ([{"a": 1}], [])

    def test_a_rank_that_does_not_come_is_named_now_and_then(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Clock:
            now = 0.0

            def monotonic(self) -> float:
                return self.now

            def sleep(self, seconds: float) -> None:
                self.now += seconds
                if self.now > 100:
                    parts.write(3, [{}])

        monkeypatch.setattr(rooms, "time", Clock())
        said: list[str] = []
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks(rank=0, world=2))
        parts.wait(3, said.append)
        assert said[0].startswith("waiting for part 3 from rank 1 of 2 (5 s so far); if that rank has failed, start it")
        assert len(said) == 5, "less and less often"

    def test_a_rank_that_starts_after_the_output_is_there_does_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out.jsonl"
        out.write_text("{}\n")
        assert Parts(str(out), PLAN, Ranks(rank=1, world=2)).is_finished
        monkeypatch.setattr(rooms, "STARTED", time.time() + 60)
        assert not Parts(str(out), PLAN, Ranks(rank=1, world=2)).is_finished, "an output from before is to be replaced"
        assert not Parts(str(out), PLAN, Ranks(rank=0, world=2)).is_finished


class TestFailures:
    @pytest.mark.parametrize(
        ("number", "said"),
        [
            (errno.ENOSPC, "(the disk is full); {kept}; free some space there, and run the same command again"),
            (errno.EDQUOT, "(the disk is full); {kept}; free some space there, and run the same command again"),
            (errno.EIO, "(Input/output error); {kept}; mend that, and run the same command again"),
        ],
    )
    @pytest.mark.parametrize("num_before", [0, 2])
    def test_a_write_that_fails_leaves_what_was_whole_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str, num_before: int
    ) -> None:
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        for n in range(num_before):
            parts.write(n, [{"n": n}])

        def fail(_: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(rooms.os, "fsync", fail)
        with pytest.raises(InputError) as caught:
            parts.write(9, [{}])
        kept = f"what was scored before is kept in {parts.folder}" if num_before else "nothing was kept"
        assert str(caught.value).endswith(said.format(kept=kept)) and str(tmp_path) in str(caught.value)
        monkeypatch.undo()
        assert names(tmp_path) == ({parts.folder.name} if num_before else set())
        again = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks())
        assert [again.read(n) for n in again.numbers()] == [[{"n": n}] for n in range(num_before)]

    def test_a_number_that_cannot_be_settled_leaves_no_draft(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = Parts(str(tmp_path / "out.jsonl"), PLAN, Ranks(rank=0, world=2))

        def fail(*_: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(rooms.os, "link", fail)
        with pytest.raises(InputError, match="Operation not permitted"):
            parts.settle("budget", 512)
        assert names(parts.folder) == {"rank-0.lock"}

    def test_a_folder_that_cannot_be_made_is_a_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"its parts cannot be written into .*gone.*; nothing was kept; mend that"):
            Parts(str(tmp_path / "gone" / "out.jsonl"), PLAN, Ranks())
