"""Runs of `plaudit train` by several processes: their data, how they are started, and what they leave.

Forked ones start in milliseconds and meet as torchrun's do; torchrun's own are started as a person would start them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from forks import Parent

ROOT = Path(__file__).resolve().parents[1]
FAST = ("proof=false", "normalise=false", "checks.enabled=false")
PACE = ("train.eval_every=3", "train.save_every=3", "train.keep=9")
STEPS = ("train.groups_per_step=8", "train.epochs=2", "train.learning_rate=3e-3", "train.budget=64", *PACE)
"""A pack of 64 tokens holds no group of seven answers."""

NAMES = ("loss", "accuracy", "margin", "chosen_reward", "min_reward", "eval_loss", "eval_accuracy", "eval_margin")


def write_groups(file: Path, count: int, *, seed: int = 0, long: bool = True) -> Path:
    """Pairs, groups of four and rated groups of seven, which are longer than a small pack."""
    rng = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(f"w{rng.randrange(7, 100)}" for _ in range(rng.randrange(low, high)))

    rows = []
    for i in range(count):
        kind = i % 5 if long else 0
        answers = [words(3, 25) for _ in range(7 if kind == 4 else 4 if kind == 3 else 2)]
        answers[0] += " w7 w8"
        labels: list[dict[str, Any]] = [{"better": 0, "worse": n} for n in range(1, len(answers))]
        rows.append(
            {"id": f"g{i}", "prompt": f"w{i % 90 + 7} " + words(4, 30), "completions": answers, "labels": labels}
        )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def train_command(place: Path, out: Path, *more: str, model: str = "model", fast: bool = True) -> list[str]:
    """`plaudit train` on what lies in `place`: seven steps of eight groups and one of one, twice.

    Without `fast` what is saved is proven.
    """
    told = ["train", str(place / model), str(place / "train.jsonl"), "--eval", str(place / "eval.jsonl")]
    named = {word.partition("=")[0] for word in more}
    usual = [word for word in (*STEPS, *FAST[0 if fast else 1 :]) if word.partition("=")[0] not in named]
    return [*told, "--out", str(out), "split.force_overlap=true", *usual, *more]


def free_port() -> int:
    """A port of the loopback that nobody has."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def fork_ranks(parent: Parent, argv: Sequence[str], world: int, env: Mapping[str, str] | None = None) -> list[str]:
    """The command by so many ranks; what each wrote on stdout. All of them have to end well."""
    port = free_port()
    children = [parent.start(*argv, env={**environment(rank, world, port), **(env or {})}) for rank in range(world)]
    codes = [child.wait() for child in children]
    assert codes == [0] * world, "\n".join(child.stderr.read_text()[-3000:] for child in children)
    return [child.stdout.read_text() for child in children]


def torchrun(
    argv: Sequence[str], world: int = 2, *, env: Mapping[str, str] | None = None, more: Sequence[str] = ()
) -> Any:
    """`plaudit ARGV` under torchrun, started and not waited for."""
    options = more or ["--standalone"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "--nproc-per-node", str(world), "-m", "plaudit"]
    told = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **(env or {})}
    return subprocess.Popen(
        [*command, *argv], env=told, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )


def ending(process: Any, seconds: float = 400) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process, when it has ended."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def read_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def curves(run: Path) -> dict[str, list[float]]:
    """What does not depend on how fast it was: losses and means of scores, training's and evaluation's."""
    found: dict[str, list[float]] = {}
    for row in read_rows(run):
        values = row.get("values", row)
        for name in NAMES:
            if isinstance(values.get(name), float | int):
                found.setdefault(name, []).append(float(values[name]))
    return found


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """The finished model."""
    return load_file(run / "model" / "model.safetensors")


def farthest(ours: Path, theirs: Path) -> tuple[float, float]:
    """How far two runs are from each other: in the curves, and in the weights (relative, of all weights together)."""
    a, b = curves(ours), curves(theirs)
    assert a.keys() == b.keys() and {"loss", "eval_loss", "eval_accuracy"} <= a.keys()
    assert {name: len(x) for name, x in a.items()} == {name: len(x) for name, x in b.items()}
    gap = max(abs(x - y) for name in a for x, y in zip(a[name], b[name], strict=True))
    ours_w, theirs_w = weights_of(ours), weights_of(theirs)
    assert ours_w.keys() == theirs_w.keys()
    # A weight that is NaN in both is equal in both.
    assert all(torch.equal(ours_w[name].isnan(), theirs_w[name].isnan()) for name in ours_w)
    ours_w, theirs_w = ({name: x.nan_to_num() for name, x in w.items()} for w in (ours_w, theirs_w))
    size = torch.stack([x.float().norm() for x in theirs_w.values()]).norm()
    apart = torch.stack([(ours_w[n].float() - theirs_w[n].float()).norm() for n in theirs_w]).norm()
    return gap, float(apart / size)


def stop_after(half: Path, whole: Path, step: int) -> None:
    """A run as a kill after this step would have left it."""
    shutil.copytree(whole, half)
    for path in (half / "checkpoints").glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > step:
            shutil.rmtree(path)
    shutil.rmtree(half / "model")
    (half / "report.json").unlink()
    config = half / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace(str(whole), str(half)), encoding="utf-8")
