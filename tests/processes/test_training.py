"""Training is killed at any moment, and its disk fills up: what comes out in the end is what would have come anyway."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forks import Child, Parent, wait_for
from plaudit.commits import find_fault, find_last
from plaudit.runs import read_metrics
from schooling import graded_rows, write_rows

IMPORTS = "plaudit.train, peft, transformers.trainer, accelerate, matplotlib.figure, matplotlib.backends.backend_agg"
SETTINGS = (
    "device=cpu", "proof=false", "checks.enabled=false", "lora.enabled=false", "train.groups_per_step=16",
    "train.learning_rate=0.003", "train.epochs=2", "train.eval_every=2", "train.budget=512", "train.dropout=0.2",
)  # fmt: skip
VARIANTS = {
    "fp32": ("precision=float32",),
    "bf16": ("precision=bfloat16",),
    "lora": ("precision=float32", "lora.enabled=true", "lora.dropout=0.2"),
    "stream": ("precision=float32", "streaming=true", "train.max_steps=20"),
    "frozen": ("precision=float32", "train.backbone=frozen"),
    "evals": ("precision=float32", "train.best_by=second/loss", "train.save_every=4", "train.log_every=3"),
}
FILES = (
    "trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "manifest.json",
)  # fmt: skip
TIMED = ("wall", "mfu", "_per_second")


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Starts `plaudit train` in milliseconds."""
    made = Parent(tmp_path_factory.mktemp("trainers"), imports=IMPORTS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows to train on, and beside them two sets to measure on."""
    folder = tmp_path_factory.mktemp("rows")
    for n, name in enumerate(("first", "second"), start=1):
        write_rows(folder / f"{name}.jsonl", graded_rows(30, seed=n))
    return write_rows(folder / "pairs.jsonl", graded_rows(160))


def arguments(model: Path, data: Path, out: Path, variant: str, *more: str) -> list[str]:
    sets = ("first", "second") if variant == "evals" else ()
    evals = [word for name in sets for word in ("--eval", str(data.with_name(f"{name}.jsonl")))]
    said = {word.partition("=")[0] for word in VARIANTS[variant]}
    usual = [word for word in SETTINGS if word.partition("=")[0] not in said]
    return ["train", str(model), str(data), *evals, "--out", str(out), *usual, *VARIANTS[variant], *more]


def finish(trainers: Parent, argv: list[str]) -> Child:
    child = trainers.start(*argv)
    assert child.wait() == 0, child.stderr.read_text()
    return child


def told(out: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says that does not depend on the clock."""
    rows = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.removeprefix("eval_").endswith(TIMED)} for row in rows]


def assert_same(out: Path, whole: Path) -> None:
    """The same weights to the bit, the same averages of the optimizer, and the same story."""
    for name in ("model/model.safetensors", "model/config.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    last, faults = find_last(whole / "checkpoints") if (whole / "checkpoints").is_dir() else (None, [])
    if last is not None:
        own = out / "checkpoints" / last.name
        assert faults == [] and find_fault(own) is None
        for name in ("trained.safetensors", "optimizer.pt", "scheduler.pt"):
            assert (own / name).read_bytes() == (last / name).read_bytes(), name
    assert told(out) == told(whole)
    steps = [row["step"] for row in told(out) if "loss" in row]
    assert steps == sorted(set(steps))


def count_lines(out: Path) -> int:
    """Events that a run has written down."""
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def kill_at_random(trainers: Parent, argv: list[str], whole: tuple[Path, float], *, kills: int, seed: int = 0) -> int:
    """Kill in random places, and end it at last; gives how many kills hit a running process.

    A place is an event of what is left of the run, or its start, and some time after that.
    """
    rng, out, hit = random.Random(seed), Path(argv[argv.index("--out") + 1]), 0
    total, seconds = count_lines(whole[0]), whole[1]
    while hit < kills:
        before = count_lines(out)
        goal = rng.randrange(before, max(total, before + 1))
        child = trainers.start(*argv, *(["--resume"] if hit else []))
        reached = partial(lambda c, n: not c.is_running or count_lines(out) >= n, child, goal)
        wait_for(reached, seconds=1500)
        time.sleep(rng.uniform(0, 0.5 * seconds if goal == before else 0.05))
        child.kill()
        code = child.wait()
        assert code in (0, -signal.SIGKILL), child.stderr.read_text()
        if code == 0:
            break
        hit += 1
    finish(trainers, [*argv, "--resume"])
    return hit


@pytest.fixture(scope="module")
def wholes(trainers: Parent, tiny_reward: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An undisturbed run of a variant, and how long it took."""
    found: dict[str, tuple[Path, float]] = {}

    def make(variant: str) -> tuple[Path, float]:
        if variant not in found:
            out = tmp_path_factory.mktemp("whole") / "run"
            start = time.monotonic()
            finish(trainers, arguments(tiny_reward, data, out, variant))
            found[variant] = (out, time.monotonic() - start)
        return found[variant]

    return make


class TestKills:
    @pytest.mark.parametrize("variant", ["fp32", "frozen"])
    def test_three_kills_leave_no_trace(
        self, trainers: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path, variant: str
    ) -> None:
        argv = arguments(tiny_reward, data, tmp_path / "run", variant)
        assert kill_at_random(trainers, argv, wholes(variant), kills=3) >= 1
        assert_same(tmp_path / "run", wholes(variant)[0])

    def test_a_kill_at_every_file_of_a_checkpoint(
        self, trainers: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        whole, _ = wholes("bf16")
        out = tmp_path / "run"
        argv = arguments(tiny_reward, data, out, "bf16")
        for n, name in enumerate(FILES):
            step = 2 + 2 * n
            child = trainers.start(*argv, *(["--resume"] if n else []))
            file = out / "checkpoints" / ".writing" / f"checkpoint-{step}" / name
            final = out / "checkpoints" / f"checkpoint-{step}"
            wait_for(partial(lambda f, g, c: f.exists() or g.exists() or not c.is_running, file, final, child))
            child.kill()
            assert child.wait() == -signal.SIGKILL, child.stderr.read_text()
            last, faults = find_last(out / "checkpoints")
            assert faults == [], "a checkpoint that is there is whole"
            assert last is None or int(last.name.rpartition("-")[2]) in (step - 2, step)
        finish(trainers, [*argv, "--resume"])
        assert_same(out, whole)

    def test_a_kill_while_the_model_is_saved(
        self, trainers: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        whole, _ = wholes("fp32")
        out = tmp_path / "run"
        argv = arguments(tiny_reward, data, out, "fp32")
        child = trainers.start(*argv)
        wait_for(lambda: list(out.glob(".model*")) or (out / "model").exists() or not child.is_running)
        child.kill()
        assert child.wait() == -signal.SIGKILL, child.stderr.read_text()
        assert not (out / "report.json").exists()
        finish(trainers, [*argv, "--resume"])
        assert_same(out, whole)

    def test_a_broken_checkpoint_is_named_and_the_one_before_is_used(
        self, trainers: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        whole, _ = wholes("fp32")
        out = tmp_path / "run"
        shutil.copytree(whole, out)
        for name in ("model", "report.json"):
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
        newest, _ = find_last(out / "checkpoints")
        assert newest is not None
        content = bytearray((newest / "optimizer.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (newest / "optimizer.pt").write_bytes(content)
        before, _ = find_last(out / "checkpoints")
        child = finish(trainers, [*arguments(tiny_reward, data, out, "fp32"), "--resume"])
        said = child.stderr.read_text()
        assert f"{newest} is not used: optimizer.pt is not what was written" in said
        assert f"going on from {before}" in said
        assert_same(out, whole)

    @pytest.mark.slow
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_twenty_kills_leave_no_trace(
        self, trainers: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path, variant: str
    ) -> None:
        hit = 0
        for seed in range(8):
            out = tmp_path / f"run{seed}"
            argv = arguments(tiny_reward, data, out, variant)
            hit += kill_at_random(trainers, argv, wholes(variant), kills=4, seed=seed)
            assert_same(out, wholes(variant)[0])
        assert hit >= 20

    def test_a_finished_run_is_shown_again_and_nothing_is_trained(
        self, trainers: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path
    ) -> None:
        whole, _ = wholes("fp32")
        shutil.copytree(whole, tmp_path / "run")
        argv = arguments(tiny_reward, data, tmp_path / "run", "fp32")
        said = finish(trainers, [*argv, "--resume"]).stderr.read_text()
        assert "this run is finished; its report is shown again" in said
        assert_same(tmp_path / "run", whole)


@pytest.fixture(scope="module", params=[100, 200], ids=["weights", "optimizer"])
def cramped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Starts commands that can write no file of more than 50 KB, as the weights have, or 100 KB, as the optimizer."""
    wrap = ["sh", "-c", f'ulimit -f {request.param} && exec "$@"', "sh"]
    made = Parent(tmp_path_factory.mktemp("cramped"), imports=IMPORTS, wrap=wrap)
    yield made
    made.close()


def test_a_disk_without_room_leaves_the_last_good_checkpoint(
    trainers: Parent, cramped: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path
) -> None:
    whole, _ = wholes("fp32")
    out = tmp_path / "run"
    argv = arguments(tiny_reward, data, out, "fp32")
    child = trainers.start(*argv)
    kept = out / "checkpoints" / "checkpoint-4"
    wait_for(lambda: kept.exists() or not child.is_running)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    last, _ = find_last(out / "checkpoints")
    before = {path.name: find_fault(path) for path in (out / "checkpoints").glob("checkpoint-*")}
    child = cramped.start(*argv, "--resume")
    assert child.wait() == 2
    lines = child.stderr.read_text().splitlines()
    assert "Traceback" not in child.stderr.read_text()
    assert lines[-1].startswith("plaudit: error: ") and "there was no room for the checkpoint of step" in lines[-1]
    assert f"the last good one is {last}" in lines[-1] and "go on with --resume" in lines[-1]
    assert child.stdout.read_text() == ""
    assert {path.name: find_fault(path) for path in (out / "checkpoints").glob("checkpoint-*")} == before
    assert not (out / "checkpoints" / ".writing").exists()
    finish(trainers, [*argv, "--resume"])
    assert_same(out, whole)


@pytest.mark.parametrize("cramped", [100], indirect=True)
def test_a_disk_without_room_for_the_model_keeps_the_run(
    trainers: Parent, cramped: Parent, wholes: Any, tiny_reward: Path, data: Path, tmp_path: Path
) -> None:
    whole, _ = wholes("fp32")
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "report.json").unlink()
    shutil.rmtree(out / "model")
    before = {path.name for path in (out / "checkpoints").iterdir()}
    argv = [*arguments(tiny_reward, data, out, "fp32"), "--resume"]
    child = cramped.start(*argv)
    assert child.wait() == 2
    lines = child.stderr.read_text().splitlines()
    assert "Traceback" not in child.stderr.read_text()
    assert lines[-1].startswith(f"plaudit: error: {out}: the disk is full") and "go on with --resume" in lines[-1]
    assert not (out / "model").exists() and not (out / "report.json").exists()
    assert {path.name for path in (out / "checkpoints").iterdir()} == before
    finish(trainers, argv)
    assert_same(out, whole)
