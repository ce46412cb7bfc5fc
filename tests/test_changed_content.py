"""Jobs that resume know the content of what they read: no score is attached to a row that was not scored."""

from __future__ import annotations

import functools
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import Json, names, pair_rows, write_lines
from plaudit.cli.app import main
from plaudit.errors import DataError
from plaudit.formats import Reader, RowWriter
from plaudit.intake import ReadSettings
from plaudit.parts import Ranks
from plaudit.score import RewardModel, ScoreSettings
from plaudit.scorefile import ScoreJob
from plaudit.sets import ScoredSet, SetJobs, Wanted, lay_out, name_sets
from tiny import save_model

WINDOW = 8
SETTINGS = ScoreSettings(window=WINDOW, budget=512)
ROWS = pair_rows(40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def net(model: Path) -> RewardModel:
    return RewardModel.load(model, dtype="float32", device="cpu")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def start_and_stop(net: RewardModel, source: str, out: Path, *, windows: int = 2) -> None:
    """Score some windows, and die."""

    def watch(scorer: object, done: int) -> None:
        if len(job.parts.numbers()) == windows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ScoreJob([source], str(out)) as job:
        job.open(net, SETTINGS)
        job.score(watch)
    assert job.parts.numbers() == list(range(windows))


def finish(net: RewardModel, source: str, out: Path) -> list[Json]:
    with ScoreJob([source], str(out)) as job:
        job.open(net, SETTINGS)
        job.score()
        job.merge()
    with Reader(out) as reader:
        return [row.raw for row in reader]


def scores_of(rows: list[Json]) -> dict[str, list[float]]:
    return {row["id"]: row["scores"] for row in rows}


class TestScore:
    def test_the_same_content_goes_on(self, net: RewardModel, web: tuple[Path, str], tmp_path: Path) -> None:
        folder, address = web
        write_lines(folder / "in.jsonl", ROWS)
        whole = finish(net, f"{address}/in.jsonl", tmp_path / "whole.jsonl")
        start_and_stop(net, f"{address}/in.jsonl", tmp_path / "out.jsonl")
        assert finish(net, f"{address}/in.jsonl", tmp_path / "out.jsonl") == whole

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda rows: rows[::-1], "line 1: this row is not the one that was scored"),
            (lambda rows: [*rows[:3], rows[3] | {"extra": {"at": -1}}, *rows[4:]], "line 4: this row is not the one"),
            (lambda rows: [*rows[:9], ROWS[0], *rows[9:]], "line 10: this row is not the one that was scored"),
            (lambda rows: rows[:5], "fewer rows came than were scored"),
            (lambda rows: rows[:WINDOW], "fewer rows came than were scored"),
        ],
        ids=["reversed", "one field", "inserted", "cut short", "cut at a window"],
    )
    def test_other_content_at_an_address_is_refused(
        self,
        net: RewardModel,
        web: tuple[Path, str],
        tmp_path: Path,
        change: Callable[[list[Json]], list[Json]],
        said: str,
    ) -> None:
        folder, address = web
        out = tmp_path / "out.jsonl"
        write_lines(folder / "in.jsonl", ROWS)
        start_and_stop(net, f"{address}/in.jsonl", out)
        write_lines(folder / "in.jsonl", change(ROWS))
        with pytest.raises(DataError) as caught:
            finish(net, f"{address}/in.jsonl", out)
        assert f"{address}/in.jsonl" in str(caught.value) and said in str(caught.value)
        [parts] = [path for path in tmp_path.iterdir() if ".parts-" in path.name]
        assert f"or remove {parts} to score the new content" in str(caught.value)
        assert not out.exists()
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()
        assert finish(net, f"{address}/in.jsonl", out) == finish(net, f"{address}/in.jsonl", tmp_path / "new.jsonl")

    def test_rows_after_those_that_were_scored_may_be_new(
        self, net: RewardModel, web: tuple[Path, str], tmp_path: Path
    ) -> None:
        folder, address = web
        write_lines(folder / "in.jsonl", ROWS)
        start_and_stop(net, f"{address}/in.jsonl", tmp_path / "out.jsonl")
        write_lines(folder / "in.jsonl", [*ROWS, *pair_rows(5, seed=9)])
        found = finish(net, f"{address}/in.jsonl", tmp_path / "out.jsonl")
        assert found == finish(net, f"{address}/in.jsonl", tmp_path / "whole.jsonl") and len(found) == 45

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda rows: rows[::-1], "line 1: this row is not the one that was scored"),
            (lambda rows: rows[: 2 * WINDOW], "fewer rows came than were scored"),
            (lambda rows: [*rows, *pair_rows(1)], "line 41: this row was not there when the rows were scored"),
            (lambda rows: rows[:-1], "fewer rows came than were scored"),
        ],
        ids=["reversed", "cut at a window", "longer", "shorter"],
    )
    @pytest.mark.parametrize("kind", ["address", "file"])
    def test_a_change_between_scoring_and_joining_is_refused(
        self,
        net: RewardModel,
        web: tuple[Path, str],
        tmp_path: Path,
        change: Callable[[list[Json]], list[Json]],
        said: str,
        kind: str,
    ) -> None:
        folder, address = web
        data = write_lines(folder / "in.jsonl", ROWS)
        source = str(data) if kind == "file" else f"{address}/in.jsonl"
        with ScoreJob([source], str(tmp_path / "out.jsonl")) as job:
            job.open(net, SETTINGS)
            job.score()
            write_lines(data, change(ROWS))
            with pytest.raises(DataError, match=said):
                job.merge()
        assert not (tmp_path / "out.jsonl").exists()

    def test_a_file_that_only_looks_the_same_is_refused(self, net: RewardModel, tmp_path: Path) -> None:
        rows = [row | {"extra": "x" * 80_000} for row in ROWS]
        data = write_lines(tmp_path / "in.jsonl", rows)
        start_and_stop(net, str(data), tmp_path / "out.jsonl", windows=3)
        before = data.stat()
        # Neither the size nor the time nor the megabyte at either end changes.
        rows[20] |= {"chosen": rows[20]["chosen"][::-1]}
        write_lines(data, rows)
        os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert data.stat().st_size == before.st_size
        with pytest.raises(DataError, match="line 21: this row is not the one that was scored"):
            finish(net, str(data), tmp_path / "out.jsonl")

    def test_a_file_that_was_only_touched_between_scoring_and_joining_is_the_same(
        self, net: RewardModel, tmp_path: Path
    ) -> None:
        data = write_lines(tmp_path / "in.jsonl", ROWS)
        with ScoreJob([str(data)], str(tmp_path / "out.jsonl")) as job:
            job.open(net, SETTINGS)
            job.score()
            os.utime(data, ns=(0, 0))
            assert job.merge().rows == 40

    def test_another_revision_of_a_hub_data_set_is_refused(
        self, net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("plaudit.formats.rows.read_hub", lambda source, note: enumerate(ROWS, 1))
        start_and_stop(net, "hub:owner/name", tmp_path / "out.jsonl")
        changed = [*ROWS[:7], *ROWS[8:]]
        monkeypatch.setattr("plaudit.formats.rows.read_hub", lambda source, note: enumerate(changed, 1))
        with pytest.raises(DataError, match="hub:owner/name, line 8: this row is not the one that was scored"):
            finish(net, "hub:owner/name", tmp_path / "out.jsonl")

    @pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet", ".jsonl.gz"])
    def test_rows_of_every_layout_are_known(
        self, net: RewardModel, web: tuple[Path, str], tmp_path: Path, suffix: str
    ) -> None:
        folder, address = web
        source, plain = f"{address}/in{suffix}", [{k: v for k, v in row.items() if k != "extra"} for row in ROWS]

        def serve(rows: list[Json]) -> None:
            with RowWriter(folder / f"in{suffix}") as writer:
                for row in rows:
                    writer.write(row)

        serve(plain)
        start_and_stop(net, source, tmp_path / "out.jsonl")
        serve([*plain[:9], plain[10], plain[9], *plain[11:]])
        with pytest.raises(DataError, match=r"line 1\d: this row is not the one that was scored"):
            finish(net, source, tmp_path / "out.jsonl")
        serve(plain)
        assert scores_of(finish(net, source, tmp_path / "out.jsonl")) == scores_of(
            finish(net, source, tmp_path / "whole.jsonl")
        )

    def test_the_command_exits_with_2(
        self, model: Path, net: RewardModel, web: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, address = web
        write_lines(folder / "in.jsonl", ROWS)
        argv = ["score", str(model), f"{address}/in.jsonl", "-o", str(tmp_path / "out.jsonl"), "--dtype", "float32"]
        argv += ["--device", "cpu", "--window", str(WINDOW), "--budget", "512", "--overlength", "error"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ScoreJob, "merge", interrupt)
            main(argv)
        write_lines(folder / "in.jsonl", ROWS[::-1])
        capsys.readouterr()
        assert main(argv) == 2
        assert f"{address}/in.jsonl, line 1: this row is not the one that was scored" in capsys.readouterr().err

    def test_several_ranks_do_not_wait_for_rows_that_nobody_scores(
        self, net: RewardModel, web: tuple[Path, str], tmp_path: Path
    ) -> None:
        folder, address = web
        write_lines(folder / "in.jsonl", ROWS)
        jobs = [
            ScoreJob([f"{address}/in.jsonl"], str(tmp_path / "out.jsonl"), ranks=Ranks(rank=rank, world=2))
            for rank in (0, 1)
        ]
        for job in jobs:
            job.open(net, SETTINGS)
            job.score()
        write_lines(folder / "in.jsonl", [*ROWS, *pair_rows(3, seed=5)])
        with pytest.raises(DataError, match="line 41: this row was not there when the rows were scored"):
            jobs[0].merge()


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def score_sets(net: RewardModel, word: str, folder: Path) -> list[ScoredSet]:
    """What eval and compare do."""
    wanted, alone = Wanted(reading=ReadSettings()), Ranks()
    laid = lay_out(name_sets([word]), folder, wanted, alone)
    with SetJobs(laid, folder, wanted, ranks=alone, say=lambda _: None) as jobs:
        return jobs.score(net, SETTINGS, lambda scorer, pace: None)


class TestSets:
    def test_scores_of_other_content_are_not_recalled(
        self, net: RewardModel, web: tuple[Path, str], tmp_path: Path
    ) -> None:
        folder, address = web
        write_lines(folder / "in.jsonl", ROWS)
        assert [score_sets(net, f"{address}/in.jsonl", tmp_path / "s")[0].resumed for _ in range(2)] == [0, 40]
        write_lines(folder / "in.jsonl", [*ROWS[:30], ROWS[0], *ROWS[31:]])
        with pytest.raises(DataError, match=r"in.jsonl, line 31: this row is not the one.*or name another --out"):
            score_sets(net, f"{address}/in.jsonl", tmp_path / "s")
        write_lines(folder / "in.jsonl", ROWS[:-1])
        with pytest.raises(DataError, match="fewer rows came than were scored"):
            score_sets(net, f"{address}/in.jsonl", tmp_path / "s")
        write_lines(folder / "in.jsonl", [*ROWS, ROWS[0]])
        with pytest.raises(DataError, match="line 41: this row was not there"):
            score_sets(net, f"{address}/in.jsonl", tmp_path / "s")
        (tmp_path / "s" / "in.jsonl").unlink()
        [found] = score_sets(net, f"{address}/in.jsonl", tmp_path / "s")
        assert len(list(found.lines())) == 41
        assert names(tmp_path / "s") == {"in.jsonl", "in.state.json"}

    def test_a_file_that_only_looks_the_same_is_not_recalled(self, net: RewardModel, tmp_path: Path) -> None:
        rows = [row | {"extra": "x" * 80_000} for row in ROWS]
        data = write_lines(tmp_path / "in.jsonl", rows)
        score_sets(net, str(data), tmp_path / "s")
        before = data.stat()
        write_lines(data, [*rows[:20], rows[20] | {"rejected": rows[20]["rejected"][::-1]}, *rows[21:]])
        os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(DataError, match="line 21: this row is not the one that was scored"):
            score_sets(net, str(data), tmp_path / "s")


class TestProbe:
    def argv(self, model: Path, source: str, out: Path) -> list[str]:
        words = ["probe", str(model), source, "--out", str(out), "--only", "padding,bullets,shuffled", "--limit", "40"]
        return [*words, "--dtype", "float32", "--device", "cpu", "--plain", "--json"]

    @pytest.mark.parametrize("is_changed", [False, True])
    def test_a_killed_run_goes_on_with_the_same_prompts_only(
        self,
        model: Path,
        web: tuple[Path, str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        is_changed: bool,
    ) -> None:
        from plaudit.score import Scorer

        folder, address = web
        source, asked = f"{address}/in.jsonl", []
        write_lines(folder / "in.jsonl", ROWS)
        score_window = Scorer.score_window

        def count(self: Scorer, groups: Any) -> Any:
            asked.append(len(groups))
            if len(asked) == dies_at:
                raise KeyboardInterrupt
            return score_window(self, groups)

        monkeypatch.setattr(Scorer, "score_window", count)
        dies_at: int | None = 3
        main(self.argv(model, source, tmp_path / "out"))
        assert "probes.journal" in names(tmp_path / "out")
        if is_changed:
            write_lines(folder / "in.jsonl", pair_rows(40, seed=3))
        dies_at = None
        found = []
        for out in ("out", "whole"):
            asked.clear()
            capsys.readouterr()
            assert main(self.argv(model, source, tmp_path / out)) == 0
            found.append((json.loads(capsys.readouterr().out)["probes"], len(asked)))
        (resumed, few), (whole, all_of_them) = found
        assert few == all_of_them - (0 if is_changed else 2)
        assert json.dumps(resumed) == json.dumps(whole)
        assert "probes.journal" not in names(tmp_path / "out")
