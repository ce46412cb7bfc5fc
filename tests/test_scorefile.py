"""A long job: killed at any moment, on one rank or many, it writes the same bytes, and leaves nothing else behind."""

from __future__ import annotations

import gzip
import json
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forks import Child, Parent, wait_for
from plaudit.errors import DataError, InputError
from plaudit.formats import Columns, RowWriter
from plaudit.intake import Intake, ReadSettings
from plaudit.parts import Ranks
from plaudit.render import Overlength, RenderSettings
from plaudit.score import RewardModel, ScoreSettings
from plaudit.scorefile import ScoreJob, Summary
from tiny import save_model

Json = dict[str, Any]


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(f"w{rng.randrange(7, 100)}" for _ in range(rng.randrange(low, high)))


def pair_rows(n: int, seed: int = 0) -> list[Json]:
    rng = random.Random(seed)
    return [
        {
            "id": f"q{i}",
            "prompt": words(rng, 3, 30),
            "chosen": words(rng, 1, 25),
            "rejected": words(rng, 1, 25),
            "extra": {"at": i},
        }
        for i in range(n)
    ]


def group_rows(n: int, seed: int = 1) -> list[Json]:
    rng = random.Random(seed)
    return [
        {"prompt": words(rng, 3, 30), "completions": [words(rng, 1, 25) for _ in range(rng.randrange(1, 5))]}
        for _ in range(n)
    ]


def write_lines(path: Path, rows: list[Json]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[Json]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def net(model: Path) -> RewardModel:
    return RewardModel.load(model, dtype="float32", device="cpu")


def score_file(
    net: RewardModel, data: Path, out: Path, *, reading: ReadSettings | None = None, **settings: Any
) -> tuple[Summary, list[str]]:
    with ScoreJob([str(data)], str(out), reading=reading) as job:
        job.open(net, ScoreSettings(**{"window": 8, "budget": 512, **settings}))
        job.score()
        return job.merge(), job.notes


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def arguments(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    settings = ["--budget", "256", "--dtype", "float32", "--device", "cpu"]
    return ["score", str(model), str(data), "-o", str(out), *settings, *more]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    made = Parent(tmp_path_factory.mktemp("children"))
    yield made
    made.close()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".jsonl.zst", ".csv.gz"])
def test_rows_keep_their_order_and_gain_their_scores(net: RewardModel, tmp_path: Path, suffix: str) -> None:
    rows = [{k: v for k, v in row.items() if k != "extra"} for row in pair_rows(20)]
    data, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / f"out{suffix}"
    summary, _ = score_file(net, data, out)
    assert (summary.rows, summary.completions, summary.scored) == (20, 40, 40)
    reader = Intake([str(out)], str(tmp_path / "unused.jsonl")).reader()
    with reader:
        found = [record.raw for record in reader.records()]
    assert [{k: v for k, v in row.items() if k in rows[0]} for row in found] == rows
    for row in found:
        assert row["scores"] == [row["chosen_score"], row["rejected_score"]]
        assert row["scores"] == pytest.approx(net.score(row["prompt"], [row["chosen"], row["rejected"]]), rel=1e-5)
    assert names(tmp_path) == {"in.jsonl", out.name}


def test_scores_are_written_to_the_last_bit(net: RewardModel, tmp_path: Path) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", group_rows(5)), tmp_path / "out.jsonl"
    score_file(net, data, out, window=5)
    with Intake([str(data)], str(out) + ".jsonl").reader() as reader:
        groups = [row.group for record in reader.records() if (row := reader.interpret(record)) is not None]
    exact = [list(s.scores) for s in net.score_groups(groups, settings=ScoreSettings(budget=512))]
    assert [row["scores"] for row in read_lines(out)] == exact


def test_the_same_input_in_every_layout_gives_the_same_scores(net: RewardModel, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "extra"} for row in pair_rows(12)]
    found = []
    for suffix in (".jsonl", ".csv", ".parquet", ".jsonl.gz"):
        data = tmp_path / f"in{suffix}"
        with RowWriter(data) as writer:
            for row in rows:
                writer.write(row)
        score_file(net, data, tmp_path / "out.jsonl")
        found.append([row["scores"] for row in read_lines(tmp_path / "out.jsonl")])
    assert all(scores == found[0] for scores in found)


def test_only_pair_rows_gain_pair_scores_also_under_other_names(net: RewardModel, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    score_file(net, write_lines(tmp_path / "groups.jsonl", group_rows(3)), out)
    assert all("chosen_score" not in row for row in read_lines(out))
    rows = [{"question": r["prompt"], "good": r["chosen"], "bad": r["rejected"]} for r in pair_rows(3)]
    columns = Columns(prompt="question", chosen="good", rejected="bad")
    score_file(net, write_lines(tmp_path / "named.jsonl", rows), out, reading=ReadSettings(columns=columns))
    assert all(row["scores"] == [row["chosen_score"], row["rejected_score"]] for row in read_lines(out))


def test_a_file_that_was_scored_is_scored_again_in_place_of_the_old_scores(net: RewardModel, tmp_path: Path) -> None:
    rows = pair_rows(6)
    old = [
        r | {"scores": [1.0, 2.0], "chosen_score": 1.0, "rejected_score": 2.0, "unscored": ["x", None]} for r in rows
    ]
    score_file(net, write_lines(tmp_path / "new.jsonl", rows), tmp_path / "a.jsonl")
    score_file(net, write_lines(tmp_path / "old.jsonl", old), tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_what_cannot_be_scored_is_null_with_a_reason_and_counted(net: RewardModel, tmp_path: Path) -> None:
    rows = group_rows(10)
    rows[3]["completions"] = ["w8", "", " ".join(["w9"] * 60)]
    data, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    render = RenderSettings(max_length=64, overlength=Overlength.UNSCORED)
    summary, notes = score_file(net, data, out, render=render)
    row = read_lines(out)[3]
    assert row["scores"][0] is not None and row["scores"][1:] == [None, None]
    assert row["unscored"][:2] == [None, "empty completion"] and row["unscored"][2].startswith("too long: ")
    assert [i for i, r in enumerate(read_lines(out)) if "unscored" in r] == [3]
    assert summary.completions - summary.scored == 2 == summary.as_json()["unscored"]
    assert "1 completion unscored: empty completion" in notes and "1 completion unscored: too long" in notes
    assert "1 not (empty completion)" in summary.headline()


def test_dropped_groups_are_left_out_and_counted(net: RewardModel, tmp_path: Path) -> None:
    rows = group_rows(10)
    rows[4]["completions"] = [" ".join(["w9"] * 60)]
    render = RenderSettings(max_length=64, overlength=Overlength.DROP)
    out = tmp_path / "out.jsonl"
    summary, notes = score_file(net, write_lines(tmp_path / "in.jsonl", rows), out, render=render)
    assert [row["prompt"] for row in read_lines(out)] == [row["prompt"] for i, row in enumerate(rows) if i != 4]
    assert (summary.rows, sum(summary.dropped.values())) == (9, 1)
    assert "1 group dropped because a completion is too long" in notes


def test_bad_rows_are_set_aside_once_and_the_rest_is_scored(net: RewardModel, tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in pair_rows(30)]
    lines[3], lines[17] = '{"prompt": "w8"', '{"prompt": "w8", "chosen": 7, "rejected": "w9"}'
    data, aside = tmp_path / "in.jsonl", tmp_path / "bad.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    reading = ReadSettings(bad_rows=f"skip={aside}")
    summary, notes = score_file(net, data, tmp_path / "out.jsonl", reading=reading)
    assert (summary.rows, summary.bad_rows) == (28, 2)
    assert [row["line"] for row in read_lines(aside)] == [4, 18]
    assert [row["id"] for row in read_lines(tmp_path / "out.jsonl")] == [f"q{i}" for i in range(30) if i not in (3, 17)]
    assert f"2 of 30 rows were bad and were written to {aside}" in notes


def test_rows_that_are_all_bad_are_no_result(net: RewardModel, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "in.jsonl", [{"prompt": "w8", "chosen": 7, "rejected": 8}] * 3)
    with pytest.raises(DataError, match="all 3 rows were bad"):
        score_file(
            net,
            data,
            tmp_path / "out.jsonl",
            reading=ReadSettings(format="preference", bad_rows=f"skip={tmp_path / 'bad.jsonl'}"),
        )
    assert not (tmp_path / "out.jsonl").exists()


def test_an_error_in_rendering_says_which_row_also_on_another_rank(net: RewardModel, tmp_path: Path) -> None:
    rows = group_rows(20)
    rows[13]["completions"] = ["w8", " ".join(["w9"] * 600)]
    data = write_lines(tmp_path / "in.jsonl", rows)
    with ScoreJob([str(data)], str(tmp_path / "out.jsonl"), ranks=Ranks(rank=1, world=2)) as job:
        job.open(net, ScoreSettings(window=4))
        with pytest.raises(DataError, match=r"in\.jsonl, line 14', completion 1: 6\d\d tokens came"):
            job.score()


def test_a_second_run_goes_on_where_the_first_one_stopped(net: RewardModel, tmp_path: Path) -> None:
    rows = group_rows(40)
    rows[2]["completions"] = [" ".join(["w9"] * 600)]
    data, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    settings = ScoreSettings(window=8, budget=512, render=RenderSettings(overlength=Overlength.RIGHT))

    class Stopped(Exception):
        pass

    def stop(scorer: Any, done: int) -> None:
        if done > 24:
            raise Stopped

    with pytest.raises(Stopped), ScoreJob([str(data)], str(out)) as job:
        job.open(net, settings)
        job.score(stop)
    assert not out.exists()
    seen: list[int] = []
    with ScoreJob([str(data)], str(out)) as job:
        job.open(net, settings)
        assert (job.count_done(), job.count_mine()) == (24, 40)
        job.score(lambda scorer, done: seen.append(done))
        assert min(seen) >= 24 and seen[-1] == 40 and seen == sorted(seen)
        assert job.scorer.tally.groups == 16, "the windows that were done are not scored again"
        summary = job.merge()
    assert "1 completion truncated on the right" in job.notes, "counts cover the parts of the first run"
    score_file(net, data, tmp_path / "whole.jsonl", render=settings.render)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert summary.rows == 40 and names(tmp_path) == {"in.jsonl", "out.jsonl", "whole.jsonl"}


def test_parts_of_another_plan_are_not_taken_and_do_not_stay(net: RewardModel, tmp_path: Path) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", group_rows(16)), tmp_path / "out.jsonl"
    with ScoreJob([str(data)], str(out)) as job:
        job.open(net, ScoreSettings(window=8, budget=512))
        job.score()
    write_lines(data, group_rows(16, seed=5))
    _, notes = score_file(net, data, out)
    assert any("was for another model, other data or other settings" in note for note in notes)
    score_file(net, data, tmp_path / "fresh.jsonl")
    assert out.read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", "fresh.jsonl"}


def test_a_second_process_on_the_same_output_is_refused(net: RewardModel, tmp_path: Path) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", group_rows(16)), tmp_path / "out.jsonl"
    with ScoreJob([str(data)], str(out)) as first, ScoreJob([str(data)], str(out)) as second:
        first.open(net, ScoreSettings(window=8, budget=512))
        for settings in (ScoreSettings(window=8, budget=512), ScoreSettings(window=4)):
            with pytest.raises(InputError, match="another process is scoring into it now"):
                second.open(net, settings)
        first.score()
        assert first.merge().rows == 16


def test_running_out_of_memory_once_does_not_change_later_windows(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_lines(tmp_path / "in.jsonl", group_rows(48))
    score_file(net, data, tmp_path / "whole.jsonl", window=16)
    forward, calls = net.forward, []

    def fail_once(pack: Any) -> Any:
        calls.append(pack.size)
        if len(calls) == 1:
            raise MemoryError
        return forward(pack)

    monkeypatch.setattr(net, "forward", fail_once)
    _, notes = score_file(net, data, tmp_path / "out.jsonl", window=16)
    whole, found = (read_lines(tmp_path / name) for name in ("whole.jsonl", "out.jsonl"))
    assert found[16:] == whole[16:]
    for a, b in zip(found[:16], whole[:16], strict=True):
        assert a["scores"] == pytest.approx(b["scores"], rel=1e-4)
    assert any("memory ran out 1 times" in note for note in notes)


def count_parts(folder: Path) -> int:
    return sum(1 for _ in folder.glob(".*/part-*.jsonl"))


def is_merging(child: Child, out: Path, num_parts: int) -> bool:
    return count_parts(out.parent) == num_parts or not child.is_running


def kill_and_repeat(
    parent: Parent, argv: list[str], out: Path, *, num_parts: int, num_kills: int, seconds: float
) -> bytes:
    """Kill the command at `num_kills` random moments, every fifth of them in the merge, then let it end."""
    rng, num_hit, tries = random.Random(num_parts), 0, 0
    while num_hit < num_kills:
        tries += 1
        assert tries < 10 * num_kills, "the kills come too late to hit anything"
        child = parent.start(*argv)
        if num_hit % 5 == 4:
            wait_for(partial(is_merging, child, out, num_parts))
            time.sleep(rng.uniform(0, 0.1) * seconds)
        else:
            time.sleep(rng.uniform(0, 1) * seconds)
        child.kill()
        code = child.wait()
        num_hit += code == -signal.SIGKILL
        if code == 0:
            out.unlink()  # it was done before the kill came: from the start again
    child = parent.start(*argv)
    assert child.wait() == 0, child.stderr.read_text()
    return out.read_bytes()


def check_kills(parent: Parent, model: Path, folder: Path, *, num_rows: int, num_kills: int) -> None:
    data = write_lines(folder / "in.jsonl", pair_rows(num_rows))
    whole, out = folder / "whole.jsonl", folder / "out.jsonl"
    start = time.monotonic()
    assert parent.start(*arguments(model, data, whole, "--window", "16")).wait() == 0
    seconds = time.monotonic() - start
    argv = arguments(model, data, out, "--window", "16")
    found = kill_and_repeat(parent, argv, out, num_parts=-(-num_rows // 16), num_kills=num_kills, seconds=seconds)
    assert found == whole.read_bytes()
    assert names(folder) == {"in.jsonl", "out.jsonl", "whole.jsonl"}


def test_five_kills_leave_no_trace(parent: Parent, model: Path, tmp_path: Path) -> None:
    check_kills(parent, model, tmp_path, num_rows=400, num_kills=5)


@pytest.mark.slow
def test_twenty_kills_over_five_thousand_rows_leave_no_trace(parent: Parent, model: Path, tmp_path: Path) -> None:
    check_kills(parent, model, tmp_path, num_rows=5000, num_kills=20)
