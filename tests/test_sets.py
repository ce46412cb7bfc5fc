"""Sets have names, are scored once, go on after a kill, and keep a row for every row."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import group_rows, names, pair_rows, read_lines, write_lines
from plaudit import ConfigError, DataError
from plaudit.adjust import CALIBRATION, store_findings
from plaudit.intake import ReadSettings
from plaudit.parts import Ranks
from plaudit.render import Overlength, RenderSettings
from plaudit.score import RewardModel, Scorer, ScoreSettings
from plaudit.sets import Pace, ScoredSet, SetJobs, Wanted, lay_out, name_sets
from tiny import save_model

ALONE = Ranks()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.load(save_model(tmp_path_factory.mktemp("sets") / "model"), dtype="float32", device="cpu")


def score(
    net: RewardModel, words: list[str], folder: Path, wanted: Wanted | None = None, **scoring: Any
) -> list[ScoredSet]:
    wanted = wanted or Wanted(reading=ReadSettings())
    settings = ScoreSettings(budget=256, window=16, **scoring)
    laid = lay_out(name_sets(words), folder, wanted, ALONE)
    with SetJobs(laid, folder, wanted, ranks=ALONE, say=lambda _: None) as jobs:
        for job in jobs.jobs:
            job.check_labels()
        return jobs.score(net, settings, lambda scorer, pace: None)


class TestNames:
    def test_a_set_is_called_by_its_user_or_by_its_path(self, tmp_path: Path) -> None:
        file = write_lines(tmp_path / "a=b.jsonl", pair_rows(1))
        found = name_sets(["x/test.jsonl", "y/test.jsonl.gz", "mine=z/test.csv", "hub:owner/some@test", str(file), "-"])
        assert [one.name for one in found] == ["x-test", "y-test", "mine", "some", "a-b", "stdin"]
        assert found[2].place == "z/test.csv"
        assert found[4].place == str(file)

    def test_what_cannot_be_told_apart_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="2 parts are named 'a'"):
            name_sets(["a=x.jsonl", "a=y.jsonl"])
        with pytest.raises(ConfigError, match=r"stdin .* came twice"):
            name_sets(["-", "-"])
        with pytest.raises(ConfigError, match="no data came"):
            name_sets([])

    def test_a_benchmark_is_a_set_a_file(self, tmp_path: Path) -> None:
        for name in ("Natural", "Manual"):
            (tmp_path / name).mkdir()
            row = {"input": "a", "output_1": "b", "output_2": "c", "label": 1}
            (tmp_path / name / "dataset.json").write_text(json.dumps([row]))
        found = name_sets([f"llmbar={tmp_path}/*/dataset.json", "other=x.jsonl"])
        assert [(one.name, one.benchmark) for one in found] == [
            ("llmbar-Manual-dataset", "llmbar"),
            ("llmbar-Natural-dataset", "llmbar"),
            ("other", None),
        ]


class TestScoring:
    def test_scores_are_those_of_the_stream_and_rows_come_back(self, net: RewardModel, tmp_path: Path) -> None:
        rows = pair_rows(50)
        data = write_lines(tmp_path / "a.jsonl", rows)
        [found] = score(net, [str(data)], tmp_path / "scores")
        lines = list(found.lines())
        plain = Scorer(net, ScoreSettings(budget=256, window=16)).score_groups(group for group, _, _ in lines)
        for (group, scores, reasons), row, one in zip(lines, rows, plain, strict=True):
            assert [c.text for c in group.completions] == [row["chosen"], row["rejected"]]
            assert tuple(scores) == one.scores
            assert reasons == [None, None]
            assert group.id == row["id"]
        assert found.describe() == {
            "name": "a", "path": str(data), "format": "preference", "groups": 50, "completions": 100, "bad_rows": 0,
            "sha256": hashlib.sha256(data.read_bytes()).hexdigest(), "scores": str(tmp_path / "scores/a.jsonl"),
        }  # fmt: skip

    def test_nothing_is_scored_twice(self, net: RewardModel, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "a.jsonl", pair_rows(50))
        [first] = score(net, [str(data)], tmp_path / "scores")
        store_findings(net.checkpoint.folder, {CALIBRATION: {"temperature": 1.0}})
        [again] = score(net, [str(data)], tmp_path / "scores")
        assert (first.resumed, again.resumed) == (0, 50)
        assert names(tmp_path / "scores") == {"a.jsonl", "a.state.json"}

    @pytest.mark.parametrize("change", ["data", "settings", "scores"])
    def test_what_has_changed_is_scored_again(self, net: RewardModel, tmp_path: Path, change: str) -> None:
        data = write_lines(tmp_path / "a.jsonl", pair_rows(30))
        [first] = score(net, [str(data)], tmp_path / "scores")
        if change == "data":
            write_lines(data, pair_rows(31))
        if change == "scores":
            first.file.write_text(first.file.read_text() + "\n")
        [again] = score(net, [str(data)], tmp_path / "scores", share=change != "settings")
        assert again.resumed == 0
        assert len(list(again.lines())) == (31 if change == "data" else 30)

    def test_a_group_that_is_dropped_keeps_its_row(self, net: RewardModel, tmp_path: Path) -> None:
        rows = pair_rows(40)
        rows[7]["chosen"] = " ".join(["w9"] * 600)
        data = write_lines(tmp_path / "a.jsonl", rows)
        render = RenderSettings(overlength=Overlength.DROP)
        [found] = score(net, [str(data)], tmp_path / "scores", render=render)
        lines = list(found.lines())
        assert len(lines) == 40
        assert lines[7][1] == [None, None]
        assert "too long" in str(lines[7][2][1])
        assert all(None not in scores for n, (_, scores, _) in enumerate(lines) if n != 7)

    def test_progress_counts_all_sets(self, net: RewardModel, tmp_path: Path) -> None:
        a, b = (write_lines(tmp_path / f"{n}.jsonl", pair_rows(20 + n, n)) for n in (1, 2))
        wanted, seen = Wanted(reading=ReadSettings()), list[Pace]()
        score(net, [str(a)], tmp_path / "scores")
        laid = lay_out(name_sets([str(a), str(b)]), tmp_path / "scores", wanted, ALONE)
        with SetJobs(laid, tmp_path / "scores", wanted, ranks=ALONE, say=lambda _: None) as jobs:
            jobs.score(net, ScoreSettings(budget=256, window=16), lambda scorer, pace: seen.append(pace))
        assert [pace.done for pace in seen] == sorted(pace.done for pace in seen)
        assert seen[-1] == Pace(done=43, total=43, resumed=21)


class TestReading:
    def test_rows_are_drawn_by_lot_and_stay_the_same(self, net: RewardModel, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "a.jsonl", pair_rows(200))
        [first] = score(net, [str(data)], tmp_path / "s", Wanted(reading=ReadSettings(), limit=20, seed=1))
        ids = [group.id for group, _, _ in first.lines()]
        assert len(ids) == 20
        assert [int(str(one)[1:]) for one in ids] == sorted(int(str(one)[1:]) for one in ids)
        assert max(int(str(one)[1:]) for one in ids) > 100, "not the first ones"
        [again] = score(net, [str(data)], tmp_path / "s", Wanted(reading=ReadSettings(), limit=20, seed=1))
        assert again.resumed == 20
        [other] = score(net, [str(data)], tmp_path / "s", Wanted(reading=ReadSettings(), limit=20, seed=2))
        assert [group.id for group, _, _ in other.lines()] != ids
        assert other.digest == hashlib.sha256(data.read_bytes()).hexdigest()

    def test_stdin_is_kept_and_known_again(
        self, net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = write_lines(tmp_path / "a.jsonl", pair_rows(30)).read_bytes()
        resumed = []
        for _ in range(2):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
            [found] = score(net, ["-"], tmp_path / "scores")
            resumed.append(found.resumed)
        assert resumed == [0, 30]
        assert (found.name, found.asked.place) == ("stdin", "-")

    def test_an_empty_pipe_is_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        with pytest.raises(DataError, match="stdin: nothing came, at least one row was needed"):
            lay_out(name_sets(["-"]), tmp_path / "scores", Wanted(reading=ReadSettings()), ALONE)

    def test_rows_without_a_label_are_refused_before_a_model_is_loaded(self, tmp_path: Path) -> None:
        data = write_lines(tmp_path / "a.jsonl", group_rows(5))
        wanted = Wanted(reading=ReadSettings())
        laid = lay_out(name_sets([str(data)]), tmp_path / "scores", wanted, ALONE)
        with (
            SetJobs(laid, tmp_path / "scores", wanted, ranks=ALONE, say=lambda _: None) as jobs,
            pytest.raises(DataError, match=r"no row of it says which completion is better.*plaudit score MODEL"),
        ):
            jobs.jobs[0].check_labels()

    def test_a_folder_of_two_dialects_is_two_sets(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        write_lines(tmp_path / "d/a.jsonl", pair_rows(3))
        write_lines(tmp_path / "d/b.jsonl", group_rows(3))
        with pytest.raises(DataError, match=r"rows of two kinds came, preference in .* and native in .*two sets"):
            lay_out(name_sets([str(tmp_path / "d")]), tmp_path / "s", Wanted(reading=ReadSettings()), ALONE)

    def test_bad_rows_of_all_sets_go_to_one_file(self, net: RewardModel, tmp_path: Path) -> None:
        places = []
        for n in (1, 2):
            rows: list[Any] = pair_rows(10, n)
            rows[n] = {"chosen": 3, "rejected": n}
            places.append(str(write_lines(tmp_path / f"{n}.jsonl", rows)))
        aside = tmp_path / "bad.jsonl"
        wanted = Wanted(reading=ReadSettings(bad_rows=f"skip={aside}"))
        for _ in range(2):
            found = score(net, places, tmp_path / "scores", wanted)
            assert [one.summary["bad_rows"] for one in found] == [1, 1]
            assert [len(list(one.lines())) for one in found] == [9, 9]
            assert [row["row"]["rejected"] for row in read_lines(aside)] == [1, 2]

    def test_limits_and_policies_are_checked(self) -> None:
        with pytest.raises(ConfigError, match="limit 0 came"):
            Wanted(reading=ReadSettings(), limit=0)
        with pytest.raises(ConfigError, match="bad_rows='drop' came"):
            Wanted(reading=ReadSettings(bad_rows="drop"))


class TestBenchmarks:
    def test_without_a_network_a_sentence_says_how_to_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        wanted = Wanted(reading=ReadSettings())
        with (
            SetJobs(name_sets(["rewardbench2"]), tmp_path, wanted, ranks=ALONE, say=lambda _: None) as jobs,
            pytest.raises(DataError, match=r"take .* from https://.*/allenai/reward-bench-2 .*: rewardbench2=PATH"),
        ):
            jobs.jobs[0].check_labels()

    def test_a_local_error_is_not_blamed_on_the_network(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"ask": 1}\n')
        wanted = Wanted(reading=ReadSettings())
        with pytest.raises(DataError, match="no dialect fits") as caught:
            SetJobs(name_sets([f"hhh={tmp_path / 'a.jsonl'}"]), tmp_path, wanted, ranks=ALONE, say=lambda _: None)
        assert "network" not in str(caught.value)
