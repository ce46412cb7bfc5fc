"""The run folder: begun once, gone on with as the same run, read by anyone, and never half written."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from plaudit import ConfigError, InputError, InternalError
from plaudit.config import Settled, TrainConfig, read_config
from plaudit.runs import MetricLog, open_run, read_git, read_metrics, read_saved, read_versions
from plaudit.runs.environment import compare_versions, cover_secrets, read_session, say_command


def config_of(out: Path) -> TrainConfig:
    found = read_saved(out)
    assert found is not None
    return found


def told(out: Path, *overrides: str, resume: bool = False) -> Settled:
    base = {"model": "smollm2", "data": ["a.jsonl"], "out": str(out)}
    return read_config(None, overrides, base, under=read_saved(out) if resume else None)


def refusal(out: Path, *overrides: str, resume: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        open_run(told(out, *overrides, resume=resume), resume=resume)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(out), "RUN")


def test_a_new_run_keeps_what_it_was_told_and_where_everything_is(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with open_run(told(out, "train.epochs=2")) as run:
        assert (run.path, run.is_resumed, run.is_finished, run.notes) == (out, False, False, [])
        assert (run.curves_file, run.model_folder, run.checkpoints_folder) == (
            out / "curves.png",
            out / "model",
            out / "checkpoints",
        )
        run.write_config(run.settled.settle({"train.budget": 4096}, "8 GiB free"))
        run.write_report({"accuracy": 0.7, "lost": math.nan, "per": [{"x": math.inf}]})
        assert run.is_finished
    assert "budget: 4096  # derived: 8 GiB free" in (out / "config.yaml").read_text()
    assert json.loads((out / "report.json").read_text()) == {"accuracy": 0.7, "lost": None, "per": [{"x": None}]}
    saved = read_saved(out)
    assert saved is not None and (saved.train.budget, saved.train.epochs) == (4096, 2.0)
    assert run.read_report()["accuracy"] == 0.7
    with pytest.raises(InternalError, match="into a run that is closed"):
        run.write_report({})


def test_what_stands_in_the_way_is_named_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    open_run(told(out)).close()
    assert refusal(out) == "RUN: a run is there already (just begun); go on with --resume, or name another --out"
    with open_run(told(out, resume=True), resume=True) as run:
        run.metrics.append(7, 0.5, {"loss": 0.6})
    assert "(at step 7)" in refusal(out)
    with open_run(told(out, resume=True), resume=True) as run:
        run.write_report({})
    assert "(finished)" in refusal(out)

    other = tmp_path / "other"
    other.mkdir()
    for name in ("a", "b", "c", "d"):
        (other / name).touch()
    for resume in (False, True):
        sentence = refusal(other, resume=resume)
        assert sentence == "RUN: files are there that are no run (a, b, c ...); name another --out, or remove them"
    assert sorted(p.name for p in other.iterdir() if p.name != ".lock") == ["a", "b", "c", "d"]

    (tmp_path / "file").touch()
    assert "a file is there, a folder for the run was needed" in refusal(tmp_path / "file")
    assert read_saved(tmp_path / "nowhere") is None


def test_what_an_empty_folder_or_a_killed_beginning_left_is_no_run(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.yaml.0123abcd.partial").write_text("model: sm")
    with open_run(told(tmp_path, resume=True), resume=True) as run:
        assert not run.is_resumed
        assert run.notes == [f"{tmp_path}: no run is there to go on with; beginning one"]


def test_a_run_that_goes_on_is_the_same_run(tmp_path: Path) -> None:
    with open_run(told(tmp_path, "train.epochs=2", "lora.rank=8")) as run:
        run.write_config(run.settled.settle({"train.learning_rate": 1e-4}, "135M"))
    first = (tmp_path / "config.yaml").read_bytes()
    with open_run(told(tmp_path, "train.epochs=2", resume=True), resume=True) as run:
        assert run.is_resumed
        assert run.notes == []
        assert run.settled.config.lora.rank == 8
        assert run.settled.config.train.learning_rate == 1e-4
        assert not run.settled.is_open("train.learning_rate")
        run.write_config(run.settled)
    assert (tmp_path / "config.yaml").read_bytes() == first
    assert refusal(tmp_path, "train.epochs=3", "seed=4", resume=True) == (
        "RUN: this run was begun with other settings (seed was 0, now 4; train.epochs was 2.0, now 3.0); "
        "go on with the same ones, or begin a new run under another --out"
    )
    with open_run(told(tmp_path, "train.keep=9", "hf.report_to=none", resume=True), resume=True) as run:
        assert run.notes == []
        run.write_config(run.settled)
    assert config_of(tmp_path).train.keep == 9
    with open_run(told(tmp_path, "train.budget=2048", resume=True), resume=True) as run:
        assert run.notes == ["train.budget was 'auto', now 2048: what is computed is the same, but its rounding is not"]


def test_a_run_that_was_moved_goes_on(tmp_path: Path) -> None:
    open_run(told(tmp_path / "a")).close()
    (tmp_path / "a").rename(tmp_path / "b")
    with open_run(told(tmp_path / "b", resume=True), resume=True) as run:
        assert run.is_resumed
        run.write_config(run.settled)
    assert config_of(tmp_path / "b").out == str(tmp_path / "b")


def test_one_process_at_a_time_writes_a_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from plaudit.config import read_config\n"
        "from plaudit.runs import open_run\n"
        "run = open_run(read_config(None, (), {'model': 'smollm2', 'data': ['a.jsonl'], 'out': sys.argv[1]}))\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "open\n"
        with pytest.raises(InputError, match="another process is training into it now; wait for it, stop it, or"):
            open_run(told(tmp_path, resume=True), resume=True)
        assert config_of(tmp_path).model == "smollm2"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
    open_run(told(tmp_path, resume=True), resume=True).close()


def test_a_refused_run_lets_its_lock_go(tmp_path: Path) -> None:
    open_run(told(tmp_path)).close()
    refusal(tmp_path)
    refusal(tmp_path, "seed=9", resume=True)
    open_run(told(tmp_path, resume=True), resume=True).close()


def test_the_environment_has_one_entry_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(told(tmp_path)) as run:
        run.write_session(command=["plaudit", "train", "hf.x_token=abc"])
        assert run.notes == []
    monkeypatch.setattr("plaudit.runs.environment.read_versions", lambda: {"torch": "9.9"} | {"python": "3.99"})
    with open_run(told(tmp_path, resume=True), resume=True) as run:
        run.write_session()
        sessions = run.read_environment()["sessions"]
        assert any(note.startswith("python was ") and "is 3.99" in note for note in run.notes)
    assert len(sessions) == 2
    assert sessions[0]["command"] == ["plaudit", "train", "hf.x_token=(set)"]
    assert sessions[0]["machine"]["cores"] >= 1
    assert set(sessions[0]) == {"started", "command", "versions", "git", "machine"}


def test_a_session_names_no_host_and_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "my-host")
    monkeypatch.setenv("USER", "my-user")
    text = json.dumps(read_session(command=[]))
    assert "my-host" not in text
    assert "my-user" not in text
    assert set(read_versions()) >= {"plaudit", "python", "torch", "transformers"}
    assert read_versions()["numpy"] is not None


@pytest.mark.parametrize(
    ("command", "covered"),
    [
        (["--api-key", "abc", "x"], ["--api-key", "(set)", "x"]),
        (["--api-key=abc"], ["--api-key=(set)"]),
        (["hf.hub_token=abc"], ["hf.hub_token=(set)"]),
        (["https://me:pw@host/x"], ["https://(set)@host/x"]),
        (["data=s3://k:s@b/x"], ["data=s3://(set)@b/x"]),
        (["--prompt-key", "q", "--tokens-per-pack", "9"], ["--prompt-key", "q", "--tokens-per-pack", "9"]),
        (["render.eos_token=</s>", "--token", "--json"], ["render.eos_token=</s>", "--token", "--json"]),
    ],
)
def test_secrets_are_covered(command: list[str], covered: list[str]) -> None:
    assert cover_secrets(command) == covered


def test_the_state_of_the_code_is_kept_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert read_git() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    Path("x.py").write_text("1\n")
    for words in (["init", "-q", "-b", "trunk"], ["add", "x.py"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], check=True)
    state = read_git()
    assert state is not None
    assert (len(state["commit"]), state["branch"], state["changed"]) == (40, "trunk", [])
    Path("x.py").write_text("2\n")
    changed = read_git()
    assert changed is not None
    assert changed["changed"] == ["M x.py"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert read_git() is None


def test_a_change_of_version_is_a_sentence() -> None:
    assert compare_versions({"a": "1", "b": None}, {"a": "1", "b": None}) == []
    [changed] = compare_versions({"a": "1", "b": None}, {"a": "1", "b": "2"})
    assert changed.startswith("b was not here and is 2: ")


def test_other_data_is_another_run(tmp_path: Path) -> None:
    with open_run(told(tmp_path)) as run:
        run.write_session(command=[])
        run.write_data({"a.jsonl": "1", "b.jsonl": "2"})
    with open_run(told(tmp_path, resume=True), resume=True) as run:
        run.write_data({"b.jsonl": "2", "a.jsonl": "1"})
        with pytest.raises(ConfigError, match=r": b.jsonl, c.jsonl came with other content than this run began with"):
            run.write_data({"a.jsonl": "1", "b.jsonl": "3", "c.jsonl": "4"})
        environment = run.read_environment()
    assert environment["data"] == {"a.jsonl": "1", "b.jsonl": "2"}
    assert len(environment["sessions"]) == 1


def test_a_broken_file_of_a_run_is_named(tmp_path: Path) -> None:
    with open_run(told(tmp_path)) as run:
        (tmp_path / "environment.json").write_text("{")
        with pytest.raises(ConfigError, match=r"environment.json: it is no JSON"):
            run.write_session()
    (tmp_path / "config.yaml").write_text("model: x\ntrian: 3\n")
    with pytest.raises(ConfigError, match=r"unknown key trian \(.*config.yaml, line 2\)"):
        read_saved(tmp_path)


def test_metrics_are_one_line_an_event(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl")
    assert read_metrics(log.path) == []
    row = log.append(1, 1 / 3, {"loss": 0.69, "grad_norm": math.nan, "phase": "train", "n": 64, "none": None})
    log.append(2, 2 / 3, {"loss": math.inf})
    log.close()
    lines = log.path.read_text().splitlines()
    assert json.loads(lines[0]) == row
    assert {k: v for k, v in row.items() if k != "wall"} == {
        "step": 1,
        "epoch": 0.333333,
        "loss": 0.69,
        "grad_norm": None,
        "phase": "train",
        "n": 64,
        "none": None,
        "not_finite": ["grad_norm"],
    }
    assert read_metrics(log.path)[1]["not_finite"] == ["loss"]
    with pytest.raises(InternalError, match="step came as the name of a metric"):
        log.append(3, 1.0, {"step": 3.0})


def test_a_torn_line_is_cut_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path) as log:
        log.append(1, 0.1, {"loss": 1.0})
    with path.open("ab") as stream:
        stream.write(b'{"step": 2, "epoch": 0.2, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1]
    with MetricLog(path) as log:
        log.append(3, 0.3, {"loss": 0.5})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


@pytest.mark.parametrize(("step", "kept", "cut"), [(-1, [], 4), (0, [0], 3), (5, [0, 5], 2), (99, [0, 5, 6, 6], 0)])
def test_a_resume_takes_away_what_was_trained_in_vain(tmp_path: Path, step: int, kept: list[int], cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    rows: list[dict[str, Any]] = [{"step": s, "epoch": 0, "wall": w} for s, w in ((0, 0.5), (5, 10), (6, 12), (6, 13))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 7, "wa')
    with MetricLog(path) as log:
        assert log.wall >= 13
        assert log.cut_after(step) == cut
        before = max((row["wall"] for row in rows[: len(kept)]), default=0)
        assert before <= log.wall < before + 5
        log.append(step + 1, 0.0, {"loss": 1.0})
    assert [row["step"] for row in read_metrics(path)] == [*kept, step + 1]
    assert path.read_text().endswith("}\n")


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.append(1, 0.1, {"loss": 1.0})
    stream = log._stream
    assert stream is not None

    class Full:
        """A file on a disk with room for five more bytes."""

        def seek(self, *where: int) -> int:
            return stream.seek(*where)

        def truncate(self, length: int) -> int:
            return stream.truncate(length)

        def write(self, line: bytes) -> int:
            return stream.write(line[:5])

        def close(self) -> None:
            stream.close()

    monkeypatch.setattr(log, "_stream", Full())
    with pytest.raises(OSError, match="No space left"):
        log.append(2, 0.2, {"loss": 0.9})
    log.close()
    assert len(log.path.read_bytes().splitlines()) == 1
    assert log.path.read_bytes().endswith(b"}\n")


def test_a_kill_at_any_moment_leaves_whole_lines_and_one_torn_at_most(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    code = (
        "import sys; from pathlib import Path; from plaudit.runs import MetricLog\n"
        "log = MetricLog(Path(sys.argv[1]))\n"
        "for step in range(int(sys.argv[2]), 10**9): log.append(step, 0.0, {'loss': 1.0, 'text': 'x' * 500})"
    )
    for _ in range(3):
        before = len(read_metrics(path))
        child = subprocess.Popen([sys.executable, "-c", code, str(path), str(before)])
        while len(read_metrics(path)) <= before + 20:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        content = path.read_bytes()
        rows = read_metrics(path)
        assert content.count(b"\n") == len(rows)
        assert len(rows) > before + 20
        with MetricLog(path) as log:
            log.cut_after(5)
        assert [row["step"] for row in read_metrics(path)] == list(range(6))


def test_the_clock_goes_on_over_sessions(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "epoch": 0.1, "wall": 100.0}\n')
    with MetricLog(path) as log:
        assert 100 <= log.append(2, 0.2, {})["wall"] < 110


def test_the_folder_holds_nothing_else(tmp_path: Path) -> None:
    with open_run(told(tmp_path)) as run:
        run.write_session(command=[])
        run.metrics.append(1, 0.1, {"loss": 1.0})
        run.write_report({"accuracy": 1.0})
    there = {name for name in os.listdir(tmp_path) if name != ".lock"}
    assert there == {"config.yaml", "environment.json", "metrics.jsonl", "report.json"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/opt/bin/plaudit", "bon", "a.jsonl", "--out", "b"], ["plaudit", "bon", "a.jsonl", "--out", "b"]),
        (["/opt/lib/plaudit/__main__.py", "eval", "/m"], ["plaudit", "eval", "/m"]),
        (["score.py", "hf.x_token=abc"], ["score.py", "hf.x_token=(set)"]),
        ([], []),
    ],
)
def test_a_command_is_said_as_one_would_type_it(command: list[str], said: list[str]) -> None:
    assert say_command(command) == said
