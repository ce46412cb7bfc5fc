"""Every place that rows can come from, and every layout."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import DataError
from plaudit.formats import Reader, RowWriter, read_groups
from plaudit.formats.rows import Document

ROWS = [{"prompt": f"p{i}", "chosen": "a\u2028 é", "rejected": "b", "n": i} for i in range(20)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


def raws(source: Any) -> list[dict[str, Any]]:
    return [record.raw for record in Reader(source).records()]


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.json", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.jsonl.zst", "a.json.zst"],
)
def test_every_layout_gives_the_rows(tmp_path: Path, name: str) -> None:
    with RowWriter(tmp_path / name) as writer:
        for row in ROWS:
            writer.write(row)
    assert raws(tmp_path / name) == ROWS
    assert [record.line for record in Reader(tmp_path / name).records()][:2] in ([1, 2], [2, 3])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
def test_csv_gives_texts(tmp_path: Path, name: str) -> None:
    with RowWriter(tmp_path / name) as writer:
        for row in ROWS:
            writer.write(row)
    assert raws(tmp_path / name) == [row | {"n": str(row["n"])} for row in ROWS]


def test_bom_crlf_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ("\n\n" + TEXT).replace("\n", "\r\n").encode() + json.dumps(ROWS[0]).encode())
    assert raws(path) == [*ROWS, ROWS[0]]
    assert next(Reader(path).records()).line == 3
    table = tmp_path / "a.csv"
    table.write_bytes(b'\xef\xbb\xbfchosen,rejected\r\n"a\r\nb",c\r\n\r\nd,e\r\n')
    assert raws(table) == [{"chosen": "a\r\nb", "rejected": "c"}, {"chosen": "d", "rejected": "e"}]


@pytest.mark.parametrize(
    "text",
    [json.dumps(ROWS), json.dumps(ROWS, indent=2), json.dumps({"version": 1, "data": ROWS, "end": [1]}), TEXT],
)
def test_a_json_document_is_a_list_or_holds_one_or_is_lines(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert raws(path) == ROWS


def test_a_json_document_counts_lines_and_says_where_rows_were(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": ROWS}, indent=0))
    reader = Reader(path)
    places = [record.line for record in reader.records()]
    assert places == [3 + 6 * i for i in range(20)]
    assert f"{path}: rows are taken from its list 'data'" in reader.notes


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[{"chosen": "a", "rejected": "b"},\n{"chosen" "a"}]', 2, "broken JSON"),
        ('[{"chosen": "a", "rejected": "b"}\n{"chosen": "a"}]', 2, "expected ',' after a row, got '{'"),
        ('[{"chosen": "a", "rejected": "b"}', 1, "the end of the file"),
        ('[{"chosen": "a", "rejected": "b"}]\nmore', 2, "expected the end of the file after the document, got 'm'"),
        ('[{"chosen": "a", "rejected": "b"},\n"x"]', 2, "a text came, a JSON object was needed"),
        (
            '{"train": [{"chosen": "a", "rejected": "b"}], "test": [{"a": 1}]}',
            1,
            "expected one list of rows, got two, 'train' and 'test'",
        ),
        ('{"a": [{"chosen": "a", "rejected": "b"}], "b": NaN}', 1, "NaN came"),
        ('{"data": [{"chosen": "a", "rejected": "b"}]} garbage', 1, "expected the end of the file after the document"),
        ('{"data": [{"chosen": "a", "rejected": "b"}]}\n{"data": []}', None, "columns data came"),
        ('{"data": [{"chosen": "a", "rejected": "b"}]}\n]', 2, "expected the end of the file"),
        ('{"data": [{"chosen": "a", "rejected": "b"}]', 1, "the end of the file"),
        ('{"data": [{"chosen": "a", "rejected": "b"}],}', 1, "expected a key in quotes, got '}'"),
        ('{"v": 1, "v": 2, "data": [{"chosen": "a", "rejected": "b"}]}', 1, "'v' twice"),
        ('{"v" 1, "data": [{"chosen": "a", "rejected": "b"}]}', 1, "expected ':' after a key"),
        ('{"chosen": "a", "rejected": "b"}\ngarbage', 2, "broken JSON"),
        ('{"chosen": "a", "rejected": "b"},\n{"chosen": "a", "rejected": "b"}', 1, "broken JSON"),
        ('[{"chosen": "a", "rejected": "b"},]', 1, "broken JSON"),
        ('[,{"chosen": "a", "rejected": "b"}]', 1, "broken JSON"),
        ('[{"chosen": "a", "rejected": "b"}', 1, "the end of the file"),
        ('[{"chosen": "a", "rejected": "b"},\n{"chosen": "a', 2, "broken JSON"),
        ('[{"chosen": "a", "rejected": "b"},\n{"chosen": "a",\n"rejected" 1}]', 3, "broken JSON"),
        ("3", 1, "a JSON list of rows"),
        ("[]", None, "no rows came"),
        ('{"columns": {"chosen": ["a"]}}', None, "columns columns came"),
    ],
)
def test_a_broken_document_is_one_sentence(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        list(Reader(path))
    assert said in str(caught.value) and caught.value.file == str(path) and caught.value.line == line


def test_text_after_a_document_is_refused_however_long_the_document_is(tmp_path: Path) -> None:
    """Two objects around lists of rows, one after the other: the second one's rows would be lost."""
    path, text = tmp_path / "a.json", json.dumps({"data": [{"chosen": "a", "rejected": "b"}] * 40_000})
    for more in (text, "\n]"):
        path.write_text(text + more)
        with pytest.raises(DataError, match="expected the end of the file after the document"):
            raws(path)
    path.write_text(text + " \n")
    assert len(raws(path)) == 40_000


@pytest.mark.parametrize(
    "text",
    [
        '{"chosen": "a", "chosen": "b", "rejected": "c"}',
        '{"chosen": "\\ud800", "rejected": "c"}',
        '{"chosen": "a", "rejected": "c", "margin": NaN}',
        '{"chosen": "a", "rejected": "c", "margin": 1e999}',
        '{"chosen": "a", "rejected": "c", "x": ' + "[" * 3000 + "]" * 3000 + "}",
        "[1, 2]",
    ],
)
def test_a_row_of_a_document_that_json_refuses_is_a_bad_row(tmp_path: Path, text: str) -> None:
    """Its brackets and quotes are whole, so where the next row begins is certain."""
    path, good = tmp_path / "a.json", '{"chosen": "a", "rejected": "b"}'
    path.write_text(f"[{good},\n{text},\n{good}]")
    with Reader(path, bad_rows=f"skip={tmp_path / 'bad.jsonl'}") as reader:
        assert [row.line for row in reader] == [1, 3]
    assert reader.num_bad == 1


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_first_row_of_many_megabytes_is_read(tmp_path: Path, name: str) -> None:
    row = {"prompt": [{"role": "user", "content": 'é\\"' * 600_000}], "completions": ["a", "b"], "labels": []}
    path = tmp_path / name
    for rows in ([row, row], [row, {**row, "prompt": "p"}]):
        path.write_text("\n".join(map(json.dumps, rows)))
        assert raws(path) == rows
    if name == "a.json":
        for text in (json.dumps([row, row]), json.dumps(row, indent=1), json.dumps({"rows": [row, row]})):
            path.write_text(text, encoding="utf-8")
            assert raws(path)[0] == row


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("layout", ["list", "object", "lines", "indented", "one"])
def test_where_a_piece_ends_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, layout: str
) -> None:
    monkeypatch.setattr("plaudit.formats.rows.PIECE", piece)
    texts = ['"', "\\", '\\"', "]}{[", "é𝒳", "\n\t", "", "\\\\", "a,b:c"]
    rows = [{"chosen": a, "rejected": b, "margin": -1.5e-7, "x": {"y": [None, [{}], a]}} for a in texts for b in texts]
    rows = rows[:1] if layout == "one" else rows
    text = {
        "list": json.dumps(rows, ensure_ascii=False),
        "object": json.dumps({"v": 1.25, "s": 'a"]', "none": [], "rows": rows, "last": [True]}),
        "lines": "\n".join(map(json.dumps, rows)) + "\n",
        "indented": json.dumps(rows, indent=3),
        "one": "\ufeff" + json.dumps(rows[0], indent=1),
    }[layout]
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    if layout == "object" and piece < 64:
        # What is no row and holds a list of rows has to show within the first piece.
        return
    assert raws(path) == rows


def test_rows_larger_than_a_piece_are_read(tmp_path: Path) -> None:
    row = {"chosen": "x" * 9_000_000, "rejected": "\\" * 1000}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row, row]))
    assert raws(path) == [row, row]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("chosen,rejected\na,b\nc\n", 3, "1 cells came, 2 were needed (chosen, rejected)"),
        ("chosen,rejected\na,b\n" + '"c', 3, "broken CSV"),
        ("chosen,chosen\na,b\n", 1, "came twice"),
        ("chosen,rejected,margin\na,b,big\n", 2, "a number was needed"),
        ("prompt,completions\np,[1,\n", 2, "3 cells came"),
        ('prompt,completions,labels\np,"[1,",\n', 2, "broken JSON"),
    ],
)
def test_a_broken_table_is_one_sentence(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        list(Reader(path))
    assert said in str(caught.value) and (caught.value.file, caught.value.line) == (str(path), line)


def test_a_foreign_parquet_file_is_read_as_json_would_be(tmp_path: Path) -> None:
    import datetime

    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    turns = [[{"role": "user", "content": "p", "name": None}], [{"role": "user", "content": "q", "name": "n"}]]
    day = datetime.datetime(2026, 1, 2)
    table = pa.table(
        {
            "prompt": turns,
            "chosen": ["a", "b"],
            "rejected": ["c", "d"],
            "margin": [float("nan"), 1.5],
            "day": [day, day],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = read_groups(tmp_path / "a.parquet")
    assert first.prompt == ({"role": "user", "content": "p"},) and second.prompt == tuple(turns[1])
    assert [next(group.comparisons()).margin for group in (first, second)] == [None, 1.5]
    assert first.meta == {"day": "2026-01-02T00:00:00"}


def test_text_that_a_parquet_file_does_not_mark_as_text_is_read(tmp_path: Path) -> None:
    """Read as base64, it would be scored as base64."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"chosen": ["é".encode(), b"b"], "rejected": [b"c", b"\xff"]}), path)
    reader = iter(Reader(path))
    assert next(reader).raw == {"chosen": "é", "rejected": "c"}
    with pytest.raises(DataError, match="an object came, text or a list of turns was needed") as caught:
        next(reader)
    assert (caught.value.line, caught.value.field) == (2, "rejected")


def test_folders_globs_and_several_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_text(TEXT)
    (tmp_path / "deep" / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / ".hidden.jsonl").write_text("{broken")
    (tmp_path / "README.md").write_text("no rows")
    assert raws(tmp_path) == ROWS * 2
    assert raws(str(tmp_path / "**" / "*.json*")) == ROWS * 2
    assert raws([tmp_path / "b.jsonl", tmp_path / "b.jsonl"]) == ROWS * 2
    odd = tmp_path / "odd[1].jsonl"
    odd.write_text(TEXT)
    assert raws(odd) == ROWS
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file in this folder"):
        Reader(tmp_path / "empty")
    with pytest.raises(DataError, match=r"a file of the kind 'README.md' came"):
        Reader(tmp_path / "README.md")


def test_data_sets_that_were_saved_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(str(tmp_path / "one"), num_shards=3)
    assert raws(tmp_path / "one") == ROWS
    assert raws(str(tmp_path / "one" / "*.arrow")) == ROWS
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DataError, match="it holds the splits test, train; name one"):
        Reader(tmp_path / "two")
    assert raws(tmp_path / "two" / "test") == ROWS
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="does not list the Arrow files"):
        Reader(tmp_path / "one")


def test_stdin_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    reader = Reader("-")
    assert [row.raw for row in reader] == ROWS and reader.notes[0].startswith("stdin: read as")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_addresses_of_the_web(web: tuple[Path, str]) -> None:
    folder, address = web
    for name in ("a.jsonl.gz", "a.json", "a.parquet"):
        with RowWriter(folder / name) as writer:
            for row in ROWS:
                writer.write(row)
        assert raws(f"{address}/{name}") == ROWS
    import pyarrow as pa

    table = pa.Table.from_pylist([{"prompt": "q", "chosen": "a", "rejected": "b"}])
    for name, new in (("file.arrow", pa.ipc.new_file), ("stream.arrow", pa.ipc.new_stream)):
        with new(str(folder / name), table.schema) as writer:
            writer.write_table(table)
        assert raws(f"{address}/{name}") == table.to_pylist()
    with pytest.raises(DataError, match="404"):
        Reader(f"{address}/none.jsonl")


def test_addresses_of_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://plaudit-test/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(TEXT.encode()))
    assert raws("memory://plaudit-test/a.jsonl.gz") == ROWS
    assert raws("memory://plaudit-test/*.gz") == ROWS
    with pytest.raises(DataError, match="nothing at this address"):
        Reader("memory://plaudit-test/none.jsonl")
    with pytest.raises(DataError, match=r"cannot be read|not installed"):
        Reader("nosuchthing://a/b.jsonl")
    (tmp_path / "a.jsonl").write_text(TEXT)
    assert raws(f"file://{tmp_path}/a.jsonl") == ROWS


def test_the_hub_is_streamed_and_the_split_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[Any] = []

    def load(name: str, config: str | None, *, split: str, streaming: bool) -> Any:
        asked.append((name, config, split, streaming))
        return iter(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config: ["test", "train"])
    assert raws("hub:owner/name:easy@test") == ROWS
    reader = Reader("hub:owner/name")
    assert [row.raw for row in reader] == ROWS and "no split was named, train is read" in reader.notes[0]
    assert asked == [("owner/name", "easy", "test", True), ("owner/name", None, "train", True)]
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config: ["raw", "filtered"])
    with pytest.raises(DataError, match="it has the splits raw, filtered; name one: hub:owner/name@SPLIT"):
        read_groups("hub:owner/name")


def test_the_hub_offline_is_one_sentence() -> None:
    pytest.importorskip("datasets")
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        pytest.skip("the hub may answer: HF_HUB_OFFLINE is not 1")
    with pytest.raises(DataError, match="the hub did not give this data set") as caught:
        read_groups("hub:plaudit-nobody/nothing@train")
    assert "\n" not in str(caught.value)


def test_a_damaged_gzip_file_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(1 << 16).hex().encode() + b"\n" + TEXT.encode())[:-200])
    with pytest.raises(DataError, match="damaged or cut short") as caught:
        list(Reader(path, format="preference", bad_rows=f"skip={tmp_path / 'bad.jsonl'}"))
    assert caught.value.file == str(path) and caught.value.line


def test_the_import_is_light() -> None:
    heavy = ("torch", "datasets", "pandas", "pyarrow", "fsspec", "numpy")
    code = f"import sys, plaudit.formats; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shared_data_reads_completely(data_folder: Path) -> None:
    files = sorted(data_folder.glob("*.jsonl.gz"))
    if not files:
        pytest.skip(f"no .jsonl.gz file in {data_folder}")
    for path in files:
        with gzip.open(path) as file:
            num_lines = sum(1 for _ in file)
        reader = Reader(path)
        groups = [row.group for row in reader]
        assert len(groups) == num_lines == reader.num_read
        wanted = {"groups": "scored", "bench": "preference"}.get(path.name.split("_")[0])
        assert wanted is None or reader.dialect == wanted
        assert all(group.labels for group in groups)
        if "ukpconvarg_full" in path.name:
            assert "the rows hold no texts" in reader.notes[0]
        else:
            assert all(group.prompt for group in groups)


def test_the_character_after_a_row_is_looked_for_within_one_rows_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts what is ahead, not what was read before."""
    monkeypatch.setattr("plaudit.formats.rows.max_row_bytes", lambda: 50)

    class Pieces(io.RawIOBase):
        def __init__(self, *pieces: bytes) -> None:
            self.pieces = list(pieces)

        def read(self, size: int = -1) -> bytes:
            return self.pieces.pop(0) if self.pieces else b""

    document = Document(Pieces(b"x" * 60 + b"ab ", b"]"))  # type: ignore[arg-type]
    document._at = 60
    assert document.peek_after(2) == "]"
    document = Document(Pieces(b"ab" + b" " * 60, b"]"))  # type: ignore[arg-type]
    assert document.peek_after(2) == "", "further away than a row may be"
