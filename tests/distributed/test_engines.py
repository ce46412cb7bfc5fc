"""FSDP2 and DeepSpeed train what DDP does, keep in parts what they were asked to, and leave whole, proven models."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from forks import Parent
from launches import (
    ROOT,
    ending,
    environment,
    farthest,
    fork_ranks,
    free_port,
    stop_after,
    torchrun,
    train_command,
    weights_of,
)
from tiny import save_model

CONFIGS = ROOT / "examples" / "distributed"
FSDP = ("hf.fsdp=true", f"hf.fsdp_config={CONFIGS / 'fsdp2.json'}")
CPU = {"DS_ACCELERATOR": "cpu"}
POISON = 99
has_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed; plaudit[deepspeed] has it"
)


@pytest.fixture(scope="module")
def plain(trainers: Parent, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What DDP makes of it, from a model and from a language model."""
    folder = tmp_path_factory.mktemp("plain")
    for model in ("model", "language"):
        fork_ranks(trainers, train_command(place, folder / model, "precision=float32", model=model), 2)
    yield folder


def is_proven(run: Path) -> bool:
    """Whether a stranger got the model's scores from its folder."""
    return bool(json.loads((run / "model" / "plaudit.json").read_text(encoding="utf-8"))["proof"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model", "language"])
def test_fsdp_trains_what_ddp_does(sharders: Parent, plain: Path, place: Path, tmp_path: Path, model: str) -> None:
    out = tmp_path / "run"
    fork_ranks(sharders, train_command(place, out, "precision=float32", *FSDP, model=model, fast=False), 2)
    gap, apart = farthest(out, plain / model)
    assert gap < 1e-4 and apart < 1e-5
    assert is_proven(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("model", ()),
        ("model", ("loss.name=plackett_luce", "train.schedule=linear")),
        ("graded", ("loss.name=ordinal",)),  # the thresholds have an optimizer of their own
        ("poisoned", ()),  # skipped steps are part of what a checkpoint holds
        ("language", ("lora.enabled=true", "lora.dropout=0.1")),
    ],
    ids=["plain", "plackett_luce", "ordinal", "nonfinite rows", "lora"],
)
def test_fsdp_resumes_to_the_same_weights(
    sharders: Parent, place: Path, tmp_path: Path, model: str, more: tuple[str, ...]
) -> None:
    data = place
    if model in ("graded", "poisoned"):
        data, model = variant(place, tmp_path / "place", model), "model"
    whole, half = tmp_path / "whole", tmp_path / "half"
    argv = ["precision=float32", *more, *FSDP]
    fork_ranks(sharders, train_command(data, whole, *argv, model=model), 2)
    stop_after(half, whole, 6)
    fork_ranks(sharders, [*train_command(data, half, *argv, model=model), "--resume"], 2)
    assert farthest(half, whole) == (0.0, 0.0)
    reports = [json.loads((run / "report.json").read_text(encoding="utf-8")) for run in (half, whole)]
    assert reports[0]["skipped_steps"] == reports[1]["skipped_steps"]
    assert bool(reports[0]["skipped_steps"]) is (data != place and "loss.name=ordinal" not in more)


def variant(place: Path, folder: Path, kind: str) -> Path:
    """The same place with graded margins on its labels, or with a word whose embedding is NaN in one row."""
    shutil.copytree(place, folder)
    text = {name: (folder / name).read_text(encoding="utf-8") for name in ("train.jsonl", "eval.jsonl")}
    text = {name: re.sub(rf"w{POISON}\b", "w98", lines) for name, lines in text.items()}
    (folder / "eval.jsonl").write_text(text["eval.jsonl"], encoding="utf-8")
    rows = [json.loads(line) for line in text["train.jsonl"].splitlines()]
    if kind == "graded":
        for n, row in enumerate(rows):
            for label in row["labels"]:
                label["margin"] = 1.0 + n % 2
    else:
        rows[20]["completions"][0] += f" w{POISON}"
        # A vocabulary so large that the model's self-test does not meet the word.
        shutil.rmtree(folder / "model")
        file = save_model(folder / "model", vocab_size=4000) / "model.safetensors"
        weights = load_file(file)
        weights["model.embed_tokens.weight"][POISON] = math.nan
        save_file(weights, file, metadata={"format": "pt"})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_fsdp_computes_in_bfloat16_and_keeps_more(sharders: Parent, plain: Path, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fork_ranks(sharders, train_command(place, out, "precision=bfloat16", *FSDP, fast=False), 2)
    gap, apart = farthest(out, plain / "model")
    assert gap < 0.5 and apart < 0.02
    assert is_proven(out)


def test_sharding_that_is_not_there_is_refused(trainers: Parent, place: Path, tmp_path: Path) -> None:
    port, argv = free_port(), train_command(place, tmp_path / "run", *FSDP)
    children = [trainers.start(*argv, env=environment(rank, 2, port)) for rank in range(2)]
    assert [child.wait() for child in children] == [2, 2]
    assert "FSDP2, with weights in parts, was asked for" in children[0].stderr.read_text()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
@has_deepspeed
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_trains_what_ddp_does(plain: Path, place: Path, tmp_path: Path, stage: int) -> None:
    out = tmp_path / "run"
    argv = train_command(place, out, "precision=float32", f"hf.deepspeed={CONFIGS / f'zero{stage}.json'}", fast=False)
    code, _, err = ending(torchrun(argv, env=CPU))
    assert code == 0, err[-3000:]
    gap, apart = farthest(out, plain / "model")
    assert gap < 1e-4 and apart < 1e-5
    assert is_proven(out)
    half = tmp_path / "half"
    stop_after(half, out, 6)
    argv = [word.replace(str(out), str(half)) for word in argv]
    code, _, err = ending(torchrun([*argv, "--resume"], env=CPU))
    assert code == 0 and "going on from" in err, err[-3000:]
    assert farthest(half, out) == (0.0, 0.0)
    assert weights_of(half).keys() == weights_of(plain / "model").keys()


@pytest.mark.slow
def test_two_nodes_are_one(plain: Path, place: Path, tmp_path: Path) -> None:
    argv, port = train_command(place, tmp_path / "run", "precision=float32"), free_port()
    nodes = []
    for number in range(2):
        meet = ["--nnodes", "2", "--node-rank", str(number), "--master-addr", "127.0.0.1", "--master-port", str(port)]
        nodes.append(torchrun(argv, 1, more=meet))
    for code, _, err in [ending(node) for node in nodes]:
        assert code == 0, err[-3000:]
    gap, apart = farthest(tmp_path / "run", plain / "model")
    assert gap < 1e-4 and apart < 1e-5
