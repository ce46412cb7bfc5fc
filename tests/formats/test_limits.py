"""Compression bombs and large rows: refused with file, place and limit, in bounded memory; the limits can be raised."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from plaudit.errors import ConfigError, DataError
from plaudit.formats import Reader, limits

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
MB = 1 << 20


def pack(path: Path, data: bytes) -> Path:
    path.write_bytes({".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)(data))
    return path


def read(path: Path, **options: Any) -> list[int]:
    with Reader(path, **options) as reader:
        return [row.line for row in reader]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "before", "fill"),
    [
        ("a.jsonl", b"", b"\0"),
        ("a.jsonl", b'{"chosen": "', b"a"),
        ("a.json", b"[", b" "),
        ("a.json", b'[{"chosen": "', b"a"),
        ("a.json", b'{"chosen": "', b"a"),
        ("a.json", b'{"data": [', b"[" * 8),
        ("a.json", b'{"x": ', b"1" * 8),
        ("a.csv", b"chosen,rejected\n", b"a"),
        ("a.csv", b'chosen,rejected\n"', b"a\n"),
        ("a.csv", b"", b"a"),
    ],
)
def test_a_bomb_is_refused_before_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, before: bytes, fill: bytes, suffix: str
) -> None:
    monkeypatch.setattr(limits, "FREE", 8 * MB)
    monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "2")
    path = pack(tmp_path / (name + suffix), before + fill * (64 * MB // len(fill)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * MB
    assert caught.value.file == str(path) and caught.value.line is not None
    reason = "nested at most" if b"[[" in fill else "set PLAUDIT_MAX_"
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.csv.gz"])
def test_rows_that_expand_too_far_are_read_with_a_higher_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(limits, "FREE", MB)
    line = b"p,a,b\n" if "csv" in name else json.dumps(GOOD).encode() + b"\n"
    rows = line * 60_000
    path = pack(tmp_path / name, (b"prompt,chosen,rejected\n" if "csv" in name else b"") + rows)
    monkeypatch.setenv("PLAUDIT_MAX_EXPANSION", "20")
    if len(rows) > MB:
        with pytest.raises(DataError, match=r"expand at most 20 times, got .* If they are right, set PLAUDIT_MAX_EXP"):
            read(path)
    monkeypatch.setenv("PLAUDIT_MAX_EXPANSION", "1e6")
    assert len(read(path)) == 60_000


def test_small_files_may_expand_as_far_as_they_do(tmp_path: Path) -> None:
    assert len(read(pack(tmp_path / "a.jsonl.zst", (json.dumps(GOOD).encode() + b"\n") * 20_000))) == 20_000


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n"])
def test_a_row_may_be_as_large_as_the_limit_and_no_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "1")
    bare = len(json.dumps(GOOD | {"chosen": ""}))
    for extra in (-1, 0, 1, 2, 3):
        row = json.dumps(GOOD | {"chosen": "x" * (MB - bare + extra)}).encode()
        path = tmp_path / "a.jsonl"
        path.write_bytes(row + end)
        if extra + end.count(b"\r") <= 0:
            assert read(path) == [1]
        else:
            with pytest.raises(DataError, match="expected a row of at most 1 MB, got a larger one") as caught:
                read(path)
            assert caught.value.line == 1
        path = tmp_path / "a.json"
        path.write_bytes(b"[" + row + b"]" + end)
        if extra <= 0:
            assert read(path) == [1]
        else:
            with pytest.raises(DataError, match="expected a row of at most 1 MB, got a larger one"):
                read(path)


def test_a_line_that_is_too_large_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "0.5")
    good = json.dumps(GOOD)
    for large in ("x" * (5 * MB), json.dumps(GOOD | {"chosen": "x" * MB})):
        path, aside = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
        path.write_text("\n".join([good, large, good, large]))
        assert read(path, bad_rows=f"skip={aside}") == [1, 3]
        bad = [json.loads(line) for line in aside.read_text().splitlines()]
        assert [one["line"] for one in bad] == [2, 4] and all(len(one["row"]) == 1000 for one in bad)
        monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "8")
        with pytest.raises(DataError) if large.startswith("x") else pytest.MonkeyPatch.context():
            assert read(path) == [1, 2, 3, 4]
        monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "0.5")


def test_large_rows_of_tables_are_refused_with_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "1")
    rows: list[dict[str, str]] = [GOOD] * 40 + [GOOD | {"chosen": "x" * (2 * MB)}]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    text = "prompt,chosen,rejected\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text(text.replace("x" * (2 * MB), '"' + "x\n" * MB + '"'))
    for name, line in (("a.parquet", 41), ("a.arrow", 41), ("a.csv", 42), ("b.csv", None)):
        monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "1")
        with pytest.raises(DataError, match="expected a row of at most 1 MB") as caught:
            read(tmp_path / name)
        assert line is None or caught.value.line == line
        monkeypatch.setenv("PLAUDIT_MAX_ROW_MB", "3")
        assert len(read(tmp_path / name)) == 41


def test_a_parquet_bomb_is_refused_by_its_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE", 8 * MB)
    table = pa.table({"prompt": ["p"] * 3, "chosen": ["a", "a", "x" * (32 * MB)], "rejected": ["b"] * 3})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expand at most 500 times") as caught:
            read(tmp_path / "a.parquet")
        assert tracemalloc.get_traced_memory()[1] < 8 * MB
    finally:
        tracemalloc.stop()
    assert (caught.value.line, caught.value.field) == (1, "chosen")
    monkeypatch.setenv("PLAUDIT_MAX_EXPANSION", "100000")
    assert len(read(tmp_path / "a.parquet")) == 3


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "64MB"])
@pytest.mark.parametrize("name", ["PLAUDIT_MAX_ROW_MB", "PLAUDIT_MAX_EXPANSION"])
def test_a_limit_that_is_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}: expected a number above 0, got '{value}'"):
        read(pack(tmp_path / "a.jsonl.gz", json.dumps(GOOD).encode()))
