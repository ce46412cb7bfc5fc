"""intake.py: what is wrong with the data is said before anything dear is done; every reading gives the same rows."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import names, pair_rows, write_lines
from plaudit import intake as rooms
from plaudit.errors import InputError
from plaudit.intake import Intake, ReadSettings
from plaudit.parts import Parts, Ranks

ROWS = pair_rows(5)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", ROWS)


def pipe(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """What comes through stdin."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))


def as_text(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(intake: Intake) -> list[Any]:
    with intake.reader() as reader:
        return [record.raw for record in reader.records()]


def refusal(sources: list[str], out: str, settings: ReadSettings | None = None) -> str:
    with pytest.raises(InputError) as caught:
        Intake(sources, out, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestPaths:
    def test_what_is_read_is_never_written(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "link.jsonl").symlink_to(data)
        for out in (data, tmp_path / "link.jsonl", tmp_path / "." / "in.jsonl"):
            assert "it is read, and writing would replace it; name another output" in refusal([str(data)], str(out))
        assert [json.loads(line) for line in data.read_text().splitlines()] == ROWS

    def test_bad_rows_need_a_place_of_their_own(self, data: Path, tmp_path: Path) -> None:
        out = str(tmp_path / "out.jsonl")
        assert "the bad rows would replace what is read or written" in refusal(
            [str(data)], out, ReadSettings(bad_rows=f"skip={out}")
        )
        assert "the bad rows would replace what is read or written" in refusal(
            [str(data)], out, ReadSettings(bad_rows=f"skip={data}")
        )
        assert "the folder for the bad rows is not there; make it, or name another place" in refusal(
            [str(data)], out, ReadSettings(bad_rows=f"skip={tmp_path / 'gone' / 'bad.jsonl'}")
        )
        assert "error or skip=PATH was needed" in refusal([str(data)], out, ReadSettings(bad_rows="skip="))
        assert names(tmp_path) == {"in.jsonl"}

    @pytest.mark.parametrize(
        ("out", "said"),
        [
            ("gone/out.jsonl", "gone is not there; make it, or choose another place"),
            ("folder.jsonl", "a folder is there, and a file was to be written"),
            ("out.xlsx", "a file of this kind cannot be written; .jsonl, .json, .csv, .parquet"),
            ("out.parquet.gz", "a file of this kind cannot be written"),
            ("s3://bucket/out.jsonl", "an address came, a local file was needed"),
        ],
    )
    def test_an_output_that_cannot_be_written_is_refused_at_once(
        self, data: Path, tmp_path: Path, out: str, said: str
    ) -> None:
        (tmp_path / "folder.jsonl").mkdir()
        assert said in refusal([str(data)], out if "://" in out else str(tmp_path / out))
        assert names(tmp_path) == {"in.jsonl", "folder.jsonl"}

    def test_an_output_that_is_there_is_left_until_the_new_one_is_whole(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "out.jsonl").write_text("of yesterday")
        Intake([str(data)], str(tmp_path / "out.jsonl"))
        assert (tmp_path / "out.jsonl").read_text() == "of yesterday"
        assert names(tmp_path) == {"in.jsonl", "out.jsonl"}


class TestFirstRows:
    def test_the_first_row_of_each_source_is_understood(self, data: Path, tmp_path: Path) -> None:
        strange = write_lines(tmp_path / "strange.jsonl", [{"question": "?", "answer": "!"}])
        sentence = refusal([str(data), str(strange)], str(tmp_path / "out.jsonl"))
        assert "strange.jsonl: rows with the columns question, answer came, and no dialect fits them" in sentence
        bad = write_lines(tmp_path / "bad.jsonl", [ROWS[0] | {"chosen": 7}])
        assert "bad.jsonl, line 1, field 'chosen': a number came" in refusal([str(bad)], str(tmp_path / "out.jsonl"))

    def test_bad_rows_that_may_be_skipped_are_no_obstacle(self, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "in.jsonl", [ROWS[0] | {"chosen": 7}, ROWS[1]])
        aside = tmp_path / "bad.jsonl"
        settings = ReadSettings(format="preference", bad_rows=f"skip={aside}")
        intake = Intake([str(data)], str(tmp_path / "out.jsonl"), settings)
        for is_last in (False, True):
            assert not aside.exists(), "nothing is set aside before the last reading"
            with intake.reader(is_last=is_last) as reader:
                found = [reader.interpret(record) for record in reader.records()]
            assert [row is None for row in found] == [True, False]
        assert len(aside.read_text().splitlines()) == 1

    def test_addresses_and_the_hub_are_not_asked_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fsspec

        with fsspec.open("memory://in.jsonl", "wb") as file:
            file.write(as_text(ROWS))
        intake = Intake(["memory://in.jsonl", "hub:owner/name"], str(tmp_path / "out.jsonl"))
        assert intake.count_rows() is None
        assert intake.digests() == ["memory://in.jsonl", "hub:owner/name"]


class TestStdin:
    def test_what_comes_through_a_pipe_can_be_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe(monkeypatch, as_text(ROWS))
        intake = Intake(["-"], str(tmp_path / "out.jsonl"))
        [spool] = tmp_path.iterdir()
        assert spool.stat().st_mode & 0o777 == 0o600
        assert read(intake) == read(intake) == ROWS
        assert intake.count_rows() == 5
        with intake.reader() as reader:
            assert [(record.file, record.line) for record in reader.records()][-1] == ("stdin", 5)
            assert [note.partition(":")[0] for note in reader.notes] == ["stdin"]
        intake.close()
        assert names(tmp_path) == set()

    def test_it_travels_with_the_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe(monkeypatch, as_text(ROWS))
        intake = Intake(["-"], str(tmp_path / "out.jsonl"))
        parts = Parts(str(tmp_path / "out.jsonl"), {}, Ranks())
        intake.keep_in(parts)
        assert names(parts.folder) == {"pipe-0", "rank-0.lock"} and names(tmp_path) == {parts.folder.name}
        assert read(intake) == ROWS and intake.count_rows() == 5
        parts.remove()
        intake.close()

    def test_the_same_text_is_the_same_data_and_other_text_is_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for rows in (ROWS, ROWS, ROWS[:4]):
            pipe(monkeypatch, as_text(rows))
            intake = Intake(["-"], str(tmp_path / "out.jsonl"))
            found.append(intake.digests())
            intake.close()
        assert found[0] == found[1] != found[2]

    @pytest.mark.parametrize("out", ["out.jsonl", "-"])
    def test_an_error_in_it_is_an_error_in_stdin_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        where = out if out == "-" else str(tmp_path / out)
        pipe(monkeypatch, b'{"prompt": "w8", "chosen": 7, "rejected": "w9"}\n')
        assert refusal(["-"], where).startswith("stdin, line 1, field 'chosen': a number came")
        pipe(monkeypatch, b"")
        assert refusal(["-"], where).startswith("stdin: ")
        assert names(tmp_path) == set()

    def test_an_error_in_a_file_beside_it_is_the_files(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strange = write_lines(tmp_path / "strange.jsonl", [{"question": "?"}])
        pipe(monkeypatch, as_text(ROWS))
        assert refusal([str(strange), "-"], str(tmp_path / "out.jsonl")).startswith(f"{strange}: rows with")
        assert names(tmp_path) == {"in.jsonl", "strange.jsonl"}

    def test_a_pipe_that_breaks_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise KeyboardInterrupt

        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Broken()))
        with pytest.raises(KeyboardInterrupt):
            Intake(["-"], str(tmp_path / "out.jsonl"))
        assert names(tmp_path) == set()

    def test_a_disk_without_room_for_it_is_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(io.BytesIO):
            def write(self, data: object) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def private_file(beside: Path) -> tuple[io.BytesIO, Path]:
            return Full(), tmp_path / "spool"

        monkeypatch.setattr("plaudit.formats.spool.private_file", private_file)
        pipe(monkeypatch, as_text(ROWS))
        said = refusal(["-"], str(tmp_path / "out.jsonl"))
        assert said.startswith(
            f"stdin is kept in {tmp_path} until it is scored, which failed (No space left on device)"
        )


class TestCounting:
    def test_rows_of_every_layout_are_counted(self, data: Path, tmp_path: Path) -> None:
        text = data.read_bytes()
        (tmp_path / "spaced.jsonl").write_bytes(text.replace(b"\n", b"\n\n  \n"))
        (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(text))
        (tmp_path / "list.json").write_text(json.dumps(ROWS))
        for name in ("in.jsonl", "spaced.jsonl", "packed.jsonl.gz", "list.json"):
            assert Intake([str(tmp_path / name)], str(tmp_path / "out.jsonl")).count_rows() == 5
        several = [str(tmp_path / "*.jsonl"), str(tmp_path / "list.json")]
        assert Intake(several, str(tmp_path / "out.jsonl")).count_rows() == 15

    def test_a_large_file_is_counted_only_where_a_line_is_a_row(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "list.json").write_text(json.dumps(ROWS))
        monkeypatch.setattr(rooms, "COUNTED", 10)
        assert Intake([str(data)], str(tmp_path / "out.jsonl")).count_rows() == 5
        assert Intake([str(tmp_path / "list.json")], str(tmp_path / "out.jsonl")).count_rows() is None

    def test_data_is_told_from_other_data(self, data: Path, tmp_path: Path) -> None:
        intake = Intake([str(data)], str(tmp_path / "out.jsonl"))
        before = intake.digests()
        assert intake.digests() == before
        text = data.read_bytes()
        data.write_bytes(text.replace(b"q0", b"q9"))
        assert intake.digests() != before
