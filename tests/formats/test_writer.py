"""RowWriter: the file is whole or not there, and reads back the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import DataError, InputError
from plaudit.formats import Columns, Reader, RowWriter, read_groups, write_groups
from plaudit.group import Group, pair

ROW = {"prompt": "é", "chosen": "a", "rejected": "b", "scores": [0.1 + 0.2, 1e-300]}
SUFFIXES = ["jsonl", "json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "jsonl.zst", "json.zst", "csv.zst"]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_appears_whole_and_numbers_are_exact(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with RowWriter(path) as writer:
        writer.write(ROW)
        assert not path.exists()
    assert left(tmp_path) == [path.name] and writer.num_written == 1
    assert [record.raw for record in Reader(path).records()] == [ROW]


def test_json_lines_are_utf8_text() -> None:
    from plaudit.formats.jsontext import dump_row

    assert dump_row(ROW).decode() == json.dumps(ROW, ensure_ascii=False)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("num_rows", [0, 5, 2500])
def test_after_a_failure_the_old_file_stands_and_nothing_else(tmp_path: Path, suffix: str, num_rows: int) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), RowWriter(path) as writer:
        for _ in range(num_rows):
            writer.write(ROW)
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and left(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_one_sentence_and_nothing_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full on this system")
    writer = RowWriter(tmp_path / f"a.{suffix}")

    def open_full() -> Any:
        file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        writer._closers.append(file.close)
        return file

    monkeypatch.setattr(writer, "_open", open_full)
    with pytest.raises(InputError, match=r"it cannot be written \(No space left on device\), and nothing half"), writer:
        for _ in range(3000):
            writer.write(ROW)
    assert left(tmp_path) == []


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(InputError, match="No space left"), RowWriter(tmp_path / "a.jsonl") as writer:
        writer.write(ROW)
    assert left(tmp_path) == []


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "NaN or an infinity"),
        (object(), "object"),
        ("\ud800", "surrogate"),
        ({1, 2}, "set"),
        ([float("inf")], "NaN or an infinity"),
    ],
)
def test_what_no_file_can_hold_is_refused_with_its_field(tmp_path: Path, suffix: str, value: Any, said: str) -> None:
    with pytest.raises(DataError) as caught, RowWriter(tmp_path / f"a.{suffix}") as writer:
        writer.write({"prompt": "p", "extra": value})
    assert said in str(caught.value) and left(tmp_path) == []
    assert (caught.value.line, caught.value.field) == (1, "extra")


def test_parquet_keeps_nested_types_that_others_can_read(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    turns = [{"role": "user", "content": "p"}]
    with RowWriter(tmp_path / "a.parquet") as writer:
        for i in range(2100):
            writer.write(
                {"prompt": turns, "chosen": "a", "rejected": "b", "unscored": None if i < 2000 else ["too long"]}
            )
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column("prompt")[0].as_py() == turns and pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    raws = [record.raw for record in Reader(tmp_path / "a.parquet").records()]
    assert raws[0]["unscored"] is None and raws[2050]["unscored"] == ["too long"]


@pytest.mark.parametrize(
    ("late", "field", "said"),
    [
        ({"n": 1.5}, "n", "does not fit the column's type int64"),
        ({"turns": [{"role": "user", "content": "p", "name": "x"}]}, "turns", "does not fit the column's type"),
        ({"new": 1}, "new", "came after the first 1000 rows"),
    ],
)
def test_a_late_row_that_does_not_fit_parquet_is_refused(tmp_path: Path, late: Any, field: str, said: str) -> None:
    row = {"n": 1, "turns": [{"role": "user", "content": "p"}]}
    with pytest.raises(DataError) as caught, RowWriter(tmp_path / "a.parquet") as writer:
        for i in range(1200):
            writer.write(row | late if i == 1100 else row)
    assert said in caught.value.reason and (caught.value.field, caught.value.line) == (field, 1101)
    assert "write .jsonl" in caught.value.reason and left(tmp_path) == []


def test_native_groups_of_any_shape_fit_one_parquet_file(tmp_path: Path) -> None:
    shapes: list[Group] = [pair("p", "a", "b")] * 1500
    shapes += [pair("p", "a", "b", margin=1.5, id="7", subset="s", meta={"deep": [{"x": None}]})] * 10
    assert write_groups(shapes, tmp_path / "a.parquet") == 1510
    assert list(read_groups(tmp_path / "a.parquet")) == shapes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none/a.jsonl", "the folder .* is not there"),
        ("a.xlsx", "a file of this kind cannot be written"),
        ("a.parquet.gz", "a file of this kind cannot be written"),
        (".", "a file of this kind cannot be written"),
    ],
)
def test_a_place_that_cannot_be_is_one_sentence(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said), RowWriter(tmp_path / name):
        pass
    with pytest.raises(InputError, match="an address came"):
        RowWriter("s3://bucket/a.jsonl")


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(InputError, match="a folder is there"), RowWriter(tmp_path / "a.jsonl"):
        pass


def test_rows_outside_the_block_are_refused(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="while the file was not open"):
        writer.write(ROW)


def test_stdout_is_json_lines(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    write_groups([pair("p", "a", "b")], "-", format="trl")
    assert json.loads(capsysbinary.readouterr().out) == {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert not sys.stdout.closed


def test_groups_are_written_under_the_users_names(tmp_path: Path) -> None:
    columns = Columns(prompt="question", chosen="good", rejected="bad")
    wanted = [pair("p", "a", "b", id="1")]
    assert write_groups(wanted, tmp_path / "a.csv", format="preference", columns=columns) == 1
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "question,good,bad,id"
    assert list(read_groups(tmp_path / "a.csv", columns=columns)) == wanted


def test_a_group_that_the_dialect_cannot_say_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        write_groups(
            [pair("p", "a", "b"), Group(prompt="p", completions=pair("", "a", "b").completions)],
            tmp_path / "a.jsonl",
            format="trl",
        )
    assert left(tmp_path) == []


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_a_deep_group_reads_back_or_is_refused(tmp_path: Path, suffix: str, depth: int) -> None:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    path = tmp_path / f"a.{suffix}"
    try:
        write_groups([pair("p", "a", "b", meta={"deep": deep})], path)
    except DataError as error:
        assert depth > 100 and "nested too deeply" in error.reason and left(tmp_path) == []
        return
    assert depth < 100_000
    assert sum(1 for _ in read_groups(path)) == 1


def test_an_object_without_fields_goes_into_parquet_as_json(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "extra": {"a": 1, "b": {}}}, {"prompt": "q", "extra": {"a": 2, "b": {}}}]
    with RowWriter(tmp_path / "a.parquet") as writer:
        for row in rows:
            writer.write(row)
    with Reader([str(tmp_path / "a.parquet")], format="native") as reader:
        assert [record.raw for record in reader.records()] == rows
