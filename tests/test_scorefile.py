"""scorefile.py: the same rows with scores out, resumed or not; nothing lost, nothing unsaid."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from jobs import Json, group_rows, names, pair_rows, read_lines, words, write_lines
from plaudit.errors import ConfigError, DataError, InputError, InternalError
from plaudit.formats import Columns, RowWriter
from plaudit.intake import Intake, ReadSettings
from plaudit.parts import Ranks
from plaudit.render import Overlength, RenderSettings
from plaudit.score import RewardModel, ScoreSettings
from plaudit.scorefile import ScoreJob, Summary
from tiny import save_model


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


def rated_rows(n: int) -> list[Json]:
    rows = group_rows(n, seed=3)
    return [
        row | {"scores": [(i + k) % 3 or None for k in range(len(row["completions"]))]} for i, row in enumerate(rows)
    ]


def right_rows(n: int) -> list[Json]:
    """PPE's correctness rows."""
    rng = random.Random(4)
    answers = [{f"response_{k}": words(rng, 1, 25) for k in (1, 2, 3)} for _ in range(n)]
    return [
        {"question_id": f"q{i}", "prompt": words(rng, 3, 30), **row, "scores": [True, i % 2 == 0, False]}
        for i, row in enumerate(answers)
    ]


def labels_of(path: Path) -> list[Any]:
    with Intake([str(path)], str(path) + ".jsonl").reader() as reader:
        return [row.group.labels for row in reader]


GOLD_ROWS = {"rated": rated_rows, "right": right_rows, "bare": group_rows, "pairs": pair_rows}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("kind", GOLD_ROWS)
def test_scoring_changes_no_label_and_scoring_again_changes_nothing(
    net: RewardModel, tmp_path: Path, kind: str, suffix: str
) -> None:
    rows = [{k: v for k, v in row.items() if k != "extra"} for row in GOLD_ROWS[kind](12)]
    data = write_lines(tmp_path / "in.jsonl", rows)
    first, second, third = (tmp_path / f"{n}{suffix}" for n in (1, 2, 3))
    summary, notes = score_file(net, data, first)
    is_rated = kind in ("rated", "right")
    assert (summary.gold, summary.replaced) == (12 if is_rated else 0, 0)
    said = "12 rows came with ratings in `scores`, which are kept in `gold_scores`"
    assert (said in notes) is is_rated and notes.count(said) < 2
    assert labels_of(first) == labels_of(data)
    with Intake([str(first)], str(second)).reader() as reader:
        found = [record.raw for record in reader.records()]
    for row, came in zip(found, rows, strict=True):
        assert row.get("gold_scores") == came.get("scores") and row["scores"] != came.get("scores")
    for data, out in ((first, second), (second, third)):
        again, notes = score_file(net, data, out)
        assert (
            (again.gold, again.replaced) == (0, 12) == (again.as_json()["gold_rows"], again.as_json()["replaced_rows"])
        )
        assert "12 rows came with scores, which the new ones replace" in notes
        assert labels_of(out) == labels_of(tmp_path / "in.jsonl")
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_rows_without_labels_beside_rows_with_them_stay_native(net: RewardModel, tmp_path: Path) -> None:
    rows = group_rows(6)
    for row in rows[::2]:
        row["labels"] = [{"ratings": [1] * len(row["completions"]), "by": "x"}]
    rows[1]["labels"] = None
    data, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    score_file(net, data, out)
    assert labels_of(out) == labels_of(data)
    assert [row["labels"] for row in read_lines(out)][1::2] == [[], [], []]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_ratings_that_come_late_are_kept(net: RewardModel, tmp_path: Path, suffix: str) -> None:
    rows = [row | {"scores": None} for row in rated_rows(8)] + rated_rows(20)
    data, first, second = write_lines(tmp_path / "in.jsonl", rows), tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
    summary, _ = score_file(net, data, first)
    assert (summary.gold, summary.replaced) == (20, 0)
    score_file(net, first, second)
    with Intake([str(second)], str(tmp_path / "3.jsonl")).reader() as reader:
        found = [record.raw for record in reader.records()]
    assert [row["gold_scores"] for row in found] == [row["scores"] or [None] * len(row["completions"]) for row in rows]
    assert all(None not in row["scores"] for row in found)
    assert labels_of(second) == labels_of(data)


def test_gold_that_is_there_already_is_kept_and_one_row_is_said_as_one(net: RewardModel, tmp_path: Path) -> None:
    [row] = rated_rows(1)
    gold, out = [7.5] * len(row["completions"]), tmp_path / "out.jsonl"
    data = write_lines(tmp_path / "in.jsonl", [row | {"gold_scores": gold}])
    _, notes = score_file(net, data, out)
    assert read_lines(out)[0]["gold_scores"] == gold
    assert "1 row came with scores, which the new ones replace" in notes
    _, notes = score_file(net, write_lines(tmp_path / "in.jsonl", [row]), out)
    assert read_lines(out)[0]["gold_scores"] == row["scores"]
    assert "1 row came with ratings in `scores`, which are kept in `gold_scores`" in notes


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_takes_a_reason_that_comes_after_its_columns_are_fixed(
    net: RewardModel, tmp_path: Path, suffix: str
) -> None:
    rows = [{"prompt": "w8", "completions": ["w9"]} for _ in range(1100)]
    rows[-1]["completions"] = [""]
    out = tmp_path / f"out{suffix}"
    summary, _ = score_file(net, write_lines(tmp_path / "in.jsonl", rows), out, window=128)
    assert summary.unscored == {"empty completion": 1}
    with Intake([str(out)], str(tmp_path / "unused.jsonl")).reader() as reader:
        found = [record.raw.get("unscored") for record in reader.records()]
    assert found == [None] * 1099 + [["empty completion"]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".csv.gz"])
def test_a_table_that_cannot_hold_the_rows_loses_no_score(net: RewardModel, tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "w8", "completions": ["w9", f"w{10 + n % 80}"]} for n in range(1100)]
    data = write_lines(tmp_path / "in.jsonl", [*rows[:-1], rows[-1] | {"late": 1}])
    out = tmp_path / f"out{suffix}"
    with pytest.raises(InputError, match=r"field 'late': this column came after the first 1000 rows") as caught:
        score_file(net, data, out, window=128)
    assert str(caught.value).endswith(f"run the same command with -o {tmp_path / 'out.jsonl'} to go on from them")
    assert len(names(tmp_path)) == 2 and not out.exists()
    with ScoreJob([str(data)], str(tmp_path / "out.jsonl")) as job:
        job.open(net, ScoreSettings(window=128, budget=512))
        assert job.count_done() == 1100
        job.score()
        assert job.scorer.tally.groups == 0 and job.merge().rows == 1100
    assert f"{tmp_path / 'out.jsonl'}: what was scored for another kind of output is taken over" in job.notes
    assert names(tmp_path) == {"in.jsonl", "out.jsonl"}


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


def test_ranks_share_a_job_and_one_that_comes_late_has_nothing_to_do(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", group_rows(40)), tmp_path / "out.jsonl"
    score_file(net, data, tmp_path / "whole.jsonl", budget=300)
    found = iter((300, 2000, 100))  # what each process finds free memory for
    monkeypatch.setattr("plaudit.score.find_budget", lambda *_: next(found))
    settings, jobs = ScoreSettings(window=8), []
    for rank in (1, 0):
        job = ScoreJob([str(data)], str(out), ranks=Ranks(rank=rank, world=2))
        job.open(net, settings)
        jobs.append(job)
        job.score()
    assert [(job.count_mine(), job.count_done()) for job in jobs] == [(16, 16), (24, 24)]
    jobs[1].merge()
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes(), "the budget is the first one's"
    with ScoreJob([str(data)], str(out), ranks=Ranks(rank=1, world=2)) as late:
        late.open(net, settings)
        late.score()
        assert late.scorer.tally.groups == 0 and late.count_done() == 0
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", "whole.jsonl"}


@pytest.mark.parametrize(("source", "out"), [("-", "out.jsonl"), ("in.jsonl", "-")])
def test_ranks_cannot_share_a_pipe(tmp_path: Path, source: str, out: str) -> None:
    with pytest.raises(ConfigError, match="several ranks share one disk, and a pipe came; name files"):
        ScoreJob([source], out, ranks=Ranks(rank=0, world=2))


def test_a_job_is_opened_before_it_is_used(tmp_path: Path) -> None:
    with ScoreJob([str(write_lines(tmp_path / "in.jsonl", group_rows(1)))], str(tmp_path / "out.jsonl")) as job:
        for use in (job.score, job.merge, lambda: job.scorer):
            with pytest.raises(InternalError, match="a scoring job was used before it was opened"):
                use()
    assert names(tmp_path) == {"in.jsonl"}


def test_rows_that_nobody_has_counted_are_scored_all_the_same(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plaudit.intake.COUNTED", 1)
    data = tmp_path / "in.json"
    data.write_text(json.dumps(group_rows(20)), encoding="utf-8")
    with ScoreJob([str(data)], str(tmp_path / "out.jsonl")) as job:
        job.open(net, ScoreSettings(window=8, budget=512))
        assert (job.num_rows, job.count_mine(), job.count_done()) == (None, None, 0)
        job.score()
        assert job.merge().rows == 20


@pytest.mark.parametrize("change", ["fewer rows", "other rows"])
def test_data_that_changes_meanwhile_is_no_result(net: RewardModel, tmp_path: Path, change: str) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", group_rows(20)), tmp_path / "out.jsonl"
    with ScoreJob([str(data)], str(out)) as job:
        job.open(net, ScoreSettings(window=8, budget=512))
        job.score()
        write_lines(data, group_rows(18 if change == "fewer rows" else 20, seed=9))
        with pytest.raises(DataError, match="line 1: this row is not the one that was scored: the content has changed"):
            job.merge()
    assert not out.exists()
    assert score_file(net, data, out)[0].rows == (18 if change == "fewer rows" else 20)
    assert names(tmp_path) == {"in.jsonl", "out.jsonl"}


def test_a_part_that_goes_missing_is_our_fault(net: RewardModel, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "in.jsonl", group_rows(20))
    with ScoreJob([str(data)], str(tmp_path / "out.jsonl")) as job:
        job.open(net, ScoreSettings(window=8, budget=512))
        job.score()
        job.parts.path(1).unlink()
        with pytest.raises(InternalError, match=r"part 1 of .* is not there after scoring"):
            job.merge()


@pytest.mark.parametrize("is_file", [True, False])
def test_an_output_that_cannot_be_written_loses_no_score(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    data = write_lines(tmp_path / "in.jsonl", group_rows(20))
    out = tmp_path / "out.jsonl" if is_file else Path("/dev/null")

    def fail(self: RowWriter, raw: Json) -> None:
        raise InputError(f"{self.path}: it cannot be written (Input/output error)")

    monkeypatch.setattr(RowWriter, "write", fail)
    with pytest.raises(InputError, match="Input/output error") as caught:
        score_file(net, data, out)
    assert ("the scores are kept in" in str(caught.value)) is is_file
    assert len(names(tmp_path)) == 1 + is_file
    if is_file:
        monkeypatch.undo()
        with ScoreJob([str(data)], str(out)) as job:
            job.open(net, ScoreSettings(window=8, budget=512))
            assert job.count_done() == 20
            assert job.merge().rows == 20


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
    assert any("memory ran out once" in note for note in notes)
