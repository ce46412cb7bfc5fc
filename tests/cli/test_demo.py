"""`plaudit demo`: the whole story, told to people and to machines, on the tiny model and on the embedded one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit import demo as story
from plaudit.cli.app import main
from plaudit.score import RewardModel
from speller import save_speller


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speller(tmp_path_factory.mktemp("speller"))


@pytest.fixture(autouse=True)
def embedded(speller: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(story, "EMBEDDED", str(speller))
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "cache"))


def tell(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["demo", *words]) == 0
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in err.splitlines()] == ["demo"] * 3
    return out


def test_people_are_told_four_chapters_that_fit_their_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "argv", ["plaudit"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    text = tell(capsys, "--out", str(tmp_path / "run"))
    found = json.loads((tmp_path / "run" / "demo.json").read_text())
    lines = text.splitlines()
    assert [line for line in lines if line[:1].isdigit()] == [
        "1. A language model",
        "2. A reward head, from 80 comparisons",
        "3. Answers, ranked",
        "4. Go on",
    ]
    commands = found["next"]
    assert [line for line in lines if len(line) > 40] == [c for c in commands if len(c) > 40]
    assert set(commands) <= set(lines), "a command is one line, to be copied"
    words = " ".join(text.split())
    for part in found["fit"]["held_out"]:
        assert f"{part['right']} of {part['total']} right against {part['against']}" in words
    for ranking in found["round"]["rankings"]:
        for answer in (ranking["answers"][0], ranking["answers"][-1]):
            assert f"{answer['score']:+.2f} {answer['text']} [{answer['rating']}]" in words
    assert f"{found['round']['agreeing']} of {found['round']['compared']} comparisons" in words
    assert story.WARNING in words


def test_machines_are_told_in_one_object_and_what_is_left_behind_works(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    out = tell(capsys, "-o", str(run), "--json")
    assert out.count("\n") == 1
    told = json.loads(out)
    assert set(told) == {"model", "fit", "round", "run", "next"}
    assert told["model"]["dtype"] == "float32"
    assert told["run"] == str(run)
    assert told["round"]["sharing"] == told["round"]["total_tokens"] / told["round"]["unique_tokens"] > 1
    assert told["round"]["difference"] < 1e-4
    score, doctor, python = told["next"]
    assert main(shlex.split(score)[shlex.split(score).index("score") :]) == 0
    again, first = (
        [json.loads(line)["scores"] for line in (run / name).read_text().splitlines()]
        for name in ("again.jsonl", "scored.jsonl")
    )
    assert [sorted(range(8), key=scores.__getitem__)[-1] for scores in again] == [
        sorted(range(8), key=scores.__getitem__)[-1] for scores in first
    ]
    assert main(shlex.split(doctor)[shlex.split(doctor).index("doctor") :]) == 0
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(shlex.split(python)[-1], {})
    assert len(json.loads(printed.getvalue())) == 2
    # And once more into the same folder, with the same numbers.
    capsys.readouterr()
    second = json.loads(tell(capsys, "-o", str(run), "--json"))
    assert second["round"]["rankings"] == told["round"]["rankings"]
    assert second["fit"]["held_out"] == told["fit"]["held_out"]


def test_paths_are_printed_as_short_as_they_were_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(tell(capsys, "-o", "first", "--json"))
    assert told["run"] == str(tmp_path / "first")
    assert told["next"][0].endswith(" score first/model first/candidates.jsonl -o first/again.jsonl")
    assert main(shlex.split(told["next"][0])[shlex.split(told["next"][0]).index("score") :]) == 0


def test_a_foreign_folder_is_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(RewardModel, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["demo", "--out", str(tmp_path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"].endswith("is not the folder of a demo; name a new one with --out")
    assert err.splitlines()[-1].startswith("plaudit: error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("argv", "program", "python"),
    [
        ("{here}/bin/plaudit", "plaudit", "python"),
        ("{work}/.venv/bin/plaudit", ".venv/bin/plaudit", "bin/python"),
        ("{work}/plaudit/__main__.py", "bin/python -m plaudit", "bin/python"),
        ("/elsewhere/bin/plaudit", "/elsewhere/bin/plaudit", "bin/python"),
    ],
)
def test_programs_are_called_as_they_can_be_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: str, program: str, python: str
) -> None:
    from plaudit.cli.storybook import name_programs

    here, work = tmp_path / "here", tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", [argv.format(here=here, work=work)])
    monkeypatch.setattr(sys, "executable", str((here if python == "python" else work) / "bin" / "python"))
    monkeypatch.setattr("shutil.which", lambda name: str(here / "bin" / name))
    assert name_programs() == (program, python)


@pytest.mark.slow
def test_the_story_on_the_embedded_model(smollm2: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PLAUDIT_CACHE", "COLUMNS")}
    words = [sys.executable, "-m", "plaudit", "demo", "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    for part in told["fit"]["held_out"]:
        assert part["interval"][0] > 0.6 > part["longer"] / part["total"]
    assert told["round"]["agreeing"] > told["round"]["compared"] / 2
    assert told["round"]["difference"] < 1e-3
    assert told["round"]["sharing"] > 2
    for command in told["next"]:
        subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=True)
