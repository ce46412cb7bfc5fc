"""A corpus read while it is trained on: the same rules, one Group at a time, in memory that does not grow."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from plaudit.corpus import CorpusSettings, CorpusStream, Part, stream_corpus
from plaudit.corpus.lengths import estimate_rows
from plaudit.corpus.stream import interleave, shuffle
from plaudit.errors import DataError
from plaudit.formats.sources import resolve_sources
from plaudit.group import Group, pair
from plaudit.keys import prompt_key

Json = dict[str, Any]


def rows(n: int, start: int = 0) -> list[Json]:
    rng = random.Random(start)
    return [
        {"id": f"r{k}", "prompt": f"question {k}?", "chosen": f"{rng.random():.9f}", "rejected": f"{rng.random():.9f}"}
        for k in range(start, start + n)
    ]


def write(path: Path, lines: Iterable[Json]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def stream(*parts: Part | str, evals: Iterable[str] = (), **options: Any) -> CorpusStream:
    return stream_corpus(
        CorpusSettings(
            parts=tuple(Part(path=part) if isinstance(part, str) else part for part in parts),
            evals=tuple(Part(path=path) for path in evals),
            **options,
        )
    )


def ids(groups: Iterable[Group]) -> list[str]:
    return [str(group.id) for group in groups]


def test_every_group_comes_once_and_none_of_the_evaluation(tmp_path: Path) -> None:
    found = stream(write(tmp_path / "a.jsonl", rows(300)), head=100, buffer=50)
    kept = ids(found.evals["eval"])
    assert len(kept) == 5  # a twentieth of what was looked at
    for epoch in range(2):
        assert sorted([*ids(found.open(epoch)), *kept]) == sorted(f"r{k}" for k in range(300))
        assert "a: 5 groups of 300 left out: its prompt is one of the evaluation data" in found.sentences()
    assert any("training data are streamed: 101 groups at the beginning" in note for note in found.notes)


def test_order_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", rows(200)), write(tmp_path / "b.jsonl", rows(100, 500))
    one, other = stream(a, b, buffer=30), stream(b, a, buffer=30)
    assert ids(one.open(0)) == ids(other.open(0)) == ids(one.open(0))
    assert ids(one.open(0)) != ids(one.open(1))
    assert ids(stream(a, b, buffer=30, seed=1).open(0)) != ids(one.open(0))
    assert ids(one.evals["eval"]) == ids(stream(a, b, buffer=30).evals["eval"])


def test_parts_are_mixed_and_end_together(tmp_path: Path) -> None:
    long, short = write(tmp_path / "long.jsonl.gz", rows(3000)), write(tmp_path / "short.jsonl", rows(300, 9000))
    found = stream(long, short, buffer=20, head=200, eval_share=0.0)
    order = ids(found.open(0))
    assert len(order) == 3300
    places = [n for n, name in enumerate(order) if int(name[1:]) >= 9000]
    quarters = Counter(place * 4 // 3300 for place in places)
    assert all(60 <= quarters[quarter] <= 90 for quarter in range(4)), quarters


@pytest.mark.parametrize(("weight", "low", "high"), [(0.25, 440, 560), (3.0, 6000, 6000), (2.5, 4850, 5150)])
def test_a_weight_is_a_share(tmp_path: Path, weight: float, low: int, high: int) -> None:
    part = Part(path=write(tmp_path / "a.jsonl", rows(2000)), weight=weight)
    found = stream(part, eval_share=0.0, head=50)
    count = Counter(ids(found.open(0)))
    assert low <= count.total() <= high
    assert set(count.values()) <= {1, int(weight), int(weight) + 1}
    assert Counter(ids(found.open(3))) == count  # the same ones in every epoch


def test_prompts_of_the_evaluation_data_are_left_out_as_they_come(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", rows(200)), write(tmp_path / "test.jsonl", rows(40, 180))
    found = stream(train, evals=[test], head=50)
    assert sorted(ids(found.open())) == sorted(f"r{k}" for k in range(180))
    assert "train: 20 groups of 200 left out: its prompt is one of the evaluation data" in found.sentences()
    assert found.alarms == []
    at_once = stream(train, evals=[test])
    assert any("left out of training as they come" in n and "20 of 40 prompts of test" in n for n in at_once.notes)
    forced = stream(train, evals=[test], force_overlap=True)
    assert len(ids(forced.open())) == 200 and "as you allowed" in forced.alarms[0]


def test_what_teaches_nothing_is_counted_as_it_comes(tmp_path: Path) -> None:
    bad = [{"id": f"x{k}", "prompt": f"p{k}", "chosen": "same", "rejected": "same"} for k in range(30)]
    found = stream(write(tmp_path / "a.jsonl", [*rows(100), *bad]), head=40, eval_share=0.0)
    assert len(ids(found.open())) == 100
    assert "a: 30 groups of 130 left out: the completions that are compared are identical" in found.sentences()
    with pytest.raises(DataError, match="no group is left to learn from: bad: of 30 groups"):
        stream(write(tmp_path / "bad.jsonl", bad))


def test_a_stream_with_nothing_left_is_an_error_not_an_empty_epoch(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", rows(20))
    found = stream(train, evals=[write(tmp_path / "test.jsonl", rows(20))])
    with pytest.raises(DataError, match="no group is left to learn from: train: 20 groups of 20 left out: its prompt"):
        list(found.open())


def test_leaks_and_copies_are_found_at_the_beginning(tmp_path: Path) -> None:
    leaking = [{**row, "chosen": f"Sure! {row['chosen']}"} for row in rows(300)]
    found = stream(write(tmp_path / "a.jsonl", [*leaking, *leaking]))
    assert any("read off the surface" in alarm for alarm in found.alarms)
    assert any("300 groups of 600 came before" in alarm for alarm in found.alarms)
    assert found.surface["a"].is_alarming


def test_files_of_a_part_come_in_another_order_each_epoch(tmp_path: Path) -> None:
    for n in range(8):
        write(tmp_path / "parts" / f"{n}.jsonl", rows(10, n * 100))
    found = stream(f"{tmp_path}/parts/*.jsonl", buffer=1, eval_share=0.0)
    orders = [[name[1:-2] for name in ids(found.open(epoch))][::10] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    limited = stream(Part(path=f"{tmp_path}/parts", limit=15), buffer=1, eval_share=0.0)
    assert sorted(ids(limited.open(1))) == sorted([f"r{k}" for k in range(10)] + [f"r{k}" for k in range(100, 105)])


def test_bad_rows_are_written_once(tmp_path: Path) -> None:
    aside = tmp_path / "bad.jsonl"
    part = Part(path=write(tmp_path / "a.jsonl", [*rows(60), {"chosen": 1}, {"chosen": 2}]), bad_rows=f"skip={aside}")
    found = stream(part)
    assert not aside.exists() and not any("were bad" in note for note in found.notes)
    for epoch in range(2):
        list(found.open(epoch))
        assert len(aside.read_text().splitlines()) == 2
    assert any(f"2 of 62 rows were bad and were written to {aside}" in sentence for sentence in found.sentences())


def test_stdin_is_kept_and_read_again_in_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(write(tmp_path / "a.jsonl", rows(60))).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    found = stream("-", eval_share=0.0)
    assert [len(list(found.open(epoch))) for epoch in range(2)] == [60, 60]


def test_nobody_reads_further_than_the_buffer() -> None:
    read = 0

    def source() -> Iterator[Group]:
        nonlocal read
        for k in range(10_000):
            read += 1
            yield pair(f"q{k}", "a", "b")

    for given, _ in enumerate(shuffle(source(), 100, random.Random(0)), start=1):
        assert read <= given + 100


def test_a_buffer_shuffles(tmp_path: Path) -> None:
    order = [int(name[1:]) for name in ids(stream(write(tmp_path / "a.jsonl", rows(1000)), eval_share=0.0).open())]
    assert sorted(order) == list(range(1000))
    assert abs(sum(order[:500]) / 500 - 499.5) < 60


def test_the_longer_of_two_flows_comes_first_and_the_shorter_in_the_middle_of_its_share() -> None:
    flows = [(iter([pair(name, "a", "b")] * n), float(n)) for name, n in (("x", 2), ("y", 6))]
    assert "".join(str(group.prompt) for group in interleave(flows)) == "yxyyyxyy"


def test_wrong_guesses_of_length_lose_nothing() -> None:
    flows = [(iter([pair(name, "a", "b")] * n), guess) for name, n, guess in (("x", 5, 100.0), ("y", 70, 0.5))]
    assert Counter(group.prompt for group in interleave(flows)) == {"x": 5, "y": 70}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.parquet"])
def test_rows_are_guessed_without_reading_all(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.corpus.lengths.PIECE", 1_000_000)
    lines = rows(30_000)
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("prompt,chosen,rejected\n" + "".join(f"{r['prompt']},{r['chosen']},b\n" for r in lines))
    elif name.endswith("parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(lines), path)
    elif name.endswith("zst"):
        import pyarrow as pa

        path.write_bytes(pa.compress("".join(json.dumps(r) + "\n" for r in lines).encode(), "zstd", asbytes=True))
    else:
        write(path, lines)
    # The file's own buffer is read ahead of what is unpacked, which is a larger share of a small piece.
    guess = estimate_rows(resolve_sources(str(path)))
    assert guess == pytest.approx(30_000, rel=0.5 if name.endswith(("gz", "zst")) else 0.05)


def test_many_files_are_guessed_from_some(tmp_path: Path) -> None:
    for n in range(40):
        write(tmp_path / f"{n:02}.jsonl", rows(10 + n, 100))
    assert estimate_rows(resolve_sources(str(tmp_path))) == pytest.approx(sum(10 + n for n in range(40)), rel=0.1)
    assert estimate_rows(resolve_sources("hub:owner/name")) is None


def test_unknown_lengths_are_said(tmp_path: Path) -> None:
    document = tmp_path / "b.json"
    document.write_text(json.dumps(rows(300, 1000)))
    found = stream(write(tmp_path / "a.jsonl", rows(300)), str(document), head=100, eval_share=0.0)
    assert any("how long b may be is not known" in note for note in found.notes)
    assert len(ids(found.open())) == 600


def test_the_real_data_are_the_same_read_whole_and_streamed(data_folder: Path) -> None:
    path = str(data_folder / "train_oasst.jsonl.gz")
    found = stream(path, buffer=100)
    order = list(found.open())
    kept = {prompt_key(group) for group in found.evals["eval"]}
    assert len(order) + len(found.evals["eval"]) == 610
    assert not kept & {prompt_key(group) for group in order}
    assert found.digests[path].startswith("sha256:")


MEASURE = """
import resource, sys
from plaudit.corpus import CorpusSettings, Part, stream_corpus
found = stream_corpus(CorpusSettings(parts=(Part(path=sys.argv[1]),), buffer=2000, head=2000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in found.open())
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def measure_growth(path: Path, number: int) -> tuple[int, int]:
    """Groups that came, and MiB of memory that a whole pass took beyond the beginning."""
    lines = (
        {"prompt": f"question {k} {'x' * 300}", "chosen": f"a{k} " * 40, "rejected": f"b{k} " * 40}
        for k in range(number)
    )
    with path.open("w") as file:
        while piece := "".join(json.dumps(line) + "\n" for line in islice(lines, 10_000)):
            file.write(piece)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, env=environment, check=True
    )
    count, growth = done.stdout.split()
    return int(count), int(growth)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    count, growth = measure_growth(tmp_path / "a.jsonl", 20_000)
    assert count > 19_000
    assert growth < 30, f"{growth} MiB for 20,000 rows, of which 2,000 are held"


@pytest.mark.slow
def test_a_million_rows_are_streamed_in_bounded_memory(tmp_path: Path) -> None:
    count, growth = measure_growth(tmp_path / "a.jsonl", 1_000_000)
    assert count > 999_000
    assert growth < 30, f"{growth} MiB for a million rows"
