"""plaudit export: what it prints, what it gives machines, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plaudit.cli.app import main
from plaudit.lora import LoraSettings, attach_lora, save_adapter
from plaudit.score import RewardModel
from speller import save_speller
from stranger import ask_nearby


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run with a model, one with an adapter, and a witness that is near."""
    ask_nearby(monkeypatch)
    monkeypatch.chdir(tmp_path)
    net = RewardModel.load(save_speller(tmp_path / "base", kind="classifier", context=2048), dtype="float32")
    net.save("run/model")
    attach_lora(net, LoraSettings(rank=2))
    save_adapter(net, "lora/adapter")


def test_people_are_told_what_it_is_and_that_it_is_proven(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--out", "out"]) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first == "out: model, float32"
    assert second.startswith("proven by plain transformers in a fresh process: 21 tensors bit for bit, 9 rows")
    assert said.err.splitlines()[0] == "export: run -> out"


def test_consumers_are_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["export", "lora", "-o", "out", "--merge", "--check"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "out: merged model, float32"
    assert out[2].split() == ["consumer", "ok", "how", "float32", "own", "dtype"]
    names = ["transformers", "transformers 4", "pipeline", "TRL", "OpenRLHF", "vLLM", "SGLang", "verl", "CrossEncoder"]
    assert [line.split("  ")[0] for line in out[3:12]] == names
    assert all(" yes " in line for line in out[3:12])
    assert "by convention" in out[6] and " ran " in out[3] and out[7].endswith("bfloat16") and "e-0" in out[7]
    assert [line.split(":")[0] for line in out[12:]] == names


def test_machines_get_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "lora", "--out", "out", "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["dtype"], told["merged"], told["out"]) == ("adapter", "float32", False, "out")
    assert told["proof"]["way"] == "peft" and told["proof"]["difference"] <= 1e-5
    assert {key: told["consumers"][3][key] for key in ("name", "ok")} == {"name": "vLLM", "ok": False}
    assert main(["export", "run", "--out", "plain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["consumers"] is None


def test_a_folder_is_looked_at_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = Path("run/model/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"problem_type": None}))
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert main(["export", "run", "--check", "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert said.err.splitlines()[0] == "export: checking run" and told["out"] is None
    assert [c["name"] for c in told["consumers"] if not c["ok"]] == ["pipeline", "vLLM", "verl"]
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    assert main(["export", "lora", "--check"]) == 0
    assert "transformers + peft  yes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "gone", "--out", "out"], "gone is not there; name a folder"),
        (["export", "lora", "--out", "out", "--head-prefix", "v"], "came with an adapter"),
        (["export", "run", "--out", "base/config.json"], "a file is there, a folder for the model was needed"),
        (["export", "run"], "no --out came, the folder to write was needed; or --check alone"),
        (["export", "run", "--out", "out", "--dtype", "int8"], "int8"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
    assert not Path("out").exists()
