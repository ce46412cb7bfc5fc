"""NaN and infinity in a table: the rows are scored and written, and nothing fails only after everything was scored."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import pair_rows, read_lines, write_lines
from plaudit.errors import ConfigError, DataError
from plaudit.formats import Reader, RowWriter
from plaudit.formats.tables import clean_cell
from plaudit.intake import Intake, ReadSettings
from plaudit.score import RewardModel, ScoreSettings
from plaudit.scorefile import ScoreJob
from plaudit.select import SelectSettings, select_rows
from tiny import save_model

INF = math.inf


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.load(save_model(tmp_path_factory.mktemp("m") / "tiny"), dtype="float32", device="cpu")


def score(net: RewardModel, data: Path, out: Path) -> list[str]:
    with ScoreJob([str(data)], str(out)) as job:
        job.open(net, ScoreSettings(window=8, budget=512))
        job.score()
        job.merge()
        return job.notes


def table(path: Path, **columns: list[Any]) -> Path:
    rows = pair_rows(20)
    texts = {name: [row[name] for row in rows] for name in ("id", "prompt", "chosen", "rejected")}
    pq.write_table(pa.table(texts | columns), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_infinity_becomes_null_in_json_and_is_counted(net: RewardModel, tmp_path: Path, suffix: str) -> None:
    logp = [INF, -INF, *map(float, range(18))]
    more = {"deep": [[1.0, INF]] * 20} if suffix != ".csv" else {}
    notes = score(net, table(tmp_path / "in.parquet", logp=logp, **more), tmp_path / f"out{suffix}")
    counted = "2 values that are NaN or infinite became null (columns: logp)"
    if more:
        counted = "22 values that are NaN or infinite became null (columns: logp, deep)"
    assert f"{counted}, as JSON has none; write .parquet to keep them" in notes
    with Reader(tmp_path / f"out{suffix}") as reader:
        rows = [row.raw for row in reader]
    assert len(rows) == 20 and all(len(row["scores"]) == 2 for row in rows)
    if more:
        assert [row["logp"] for row in rows] == [None, None, *logp[2:]]
        assert rows[3]["deep"] == [1.0, None]


def test_a_parquet_file_keeps_it(net: RewardModel, tmp_path: Path) -> None:
    logp = [INF, -INF, *map(float, range(18))]
    data = table(tmp_path / "in.parquet", logp=logp, deep=[[1.0, INF]] * 20)
    notes = score(net, data, tmp_path / "out.parquet")
    assert not [note for note in notes if "infinite" in note]
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert found["logp"] == logp and found["deep"] == [[1.0, INF]] * 20
    notes = score(net, tmp_path / "out.parquet", tmp_path / "again.jsonl")
    assert [note for note in notes if note.startswith("22 values")]


def test_in_a_column_of_json_text_it_is_null_and_counted(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "out.parquet", json_columns=("mixed",), keeps_nonfinite=True) as writer:
        writer.write({"mixed": {"a": INF}, "plain": INF})
    assert writer.nulled == {"mixed": 1}
    with Reader(tmp_path / "out.parquet", format="native") as reader:
        assert [record.raw for record in reader.records()] == [{"mixed": {"a": None}, "plain": INF}]


def test_who_does_not_ask_for_it_is_refused(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        with pytest.raises(DataError, match="NaN or an infinity"), RowWriter(tmp_path / f"out{suffix}") as writer:
            writer.write({"a": INF})
    with (
        pytest.raises(DataError, match="half of a surrogate"),
        RowWriter(tmp_path / "out.jsonl", keeps_nonfinite=True) as writer,
    ):
        writer.write({"a": INF, "b": "\ud800"})


def test_select_writes_it_too(tmp_path: Path) -> None:
    rows = {"prompt": ["a", "b"], "completions": [["x", "y"]] * 2, "scores": [[1.0, 2.0]] * 2, "labels": [[], []]}
    pq.write_table(pa.table(rows | {"meta": [{"logp": INF}, {"logp": 1.0}]}), tmp_path / "in.parquet")
    found = select_rows(
        [str(tmp_path / "in.parquet")], str(tmp_path / "out.jsonl"), SelectSettings(rule="best", shape="native")
    )
    assert found.written == 2 and len(read_lines(tmp_path / "out.jsonl")) == 2


def test_a_decimal_that_is_no_number_is_missing_like_a_nan() -> None:
    assert clean_cell(Decimal("NaN")) is None and clean_cell([Decimal("1.5")]) == [1.5]


def test_an_object_reads_the_same_every_time() -> None:
    class Picture:
        pass

    assert clean_cell(Picture()) == clean_cell(Picture())


def test_bad_rows_that_could_not_be_written_are_refused_before_scoring(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "in.jsonl", pair_rows(3))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="bad rows cannot be written there; name another place"):
        Intake([str(data)], str(tmp_path / "out.jsonl"), ReadSettings(bad_rows=f"skip={tmp_path / 'folder'}"))


def test_a_row_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"a": 1}) + "\n")
    with Reader(tmp_path / "in.jsonl", format="native") as reader:
        [one] = reader.records()
    assert len(one.digest) == 8
