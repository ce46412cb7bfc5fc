"""The launch lines of docs/distributed.md, as they stand there, on a small machine without a GPU."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launches import ROOT, free_port
from pages import read_blocks

PAGE = ROOT / "docs" / "distributed.md"
BLOCKS = [block for block in read_blocks(PAGE) if block.language == "sh"]
SMALL = "precision=float32 train.groups_per_step=16 train.budget=256"


def test_every_engine_has_its_lines_and_its_files() -> None:
    assert {block.heading for block in BLOCKS} == {"DDP", "FSDP2", "DeepSpeed", "Several nodes"}
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"examples/distributed/{p.name}" in text for p in (ROOT / "examples" / "distributed").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.heading)
def test_the_lines_work(place: Path, tmp_path: Path, block: object) -> None:
    text: str = block.text  # type: ignore[attr-defined]
    if "deepspeed" in text and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed; plaudit[deepspeed] has it")
    shutil.copytree(place / "model", tmp_path / "model")
    shutil.copy(place / "train.jsonl", tmp_path / "pairs.jsonl")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    door = str(ROOT / "tests" / "fsdp_shim.py") if "fsdp" in text else "-m plaudit"
    text = text.replace("-m plaudit", door).replace("29400", str(free_port()))
    text = text.replace("pairs.jsonl --out", f"pairs.jsonl {SMALL} --out")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    told = {"PATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        ["bash", "-e", "-c", text], cwd=tmp_path, env={**os.environ, **told}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = sorted(p.name for p in tmp_path.glob("run-*"))
    assert runs and all((tmp_path / run / "model" / "model.safetensors").is_file() for run in runs)
    assert all((tmp_path / run / "report.json").is_file() for run in runs)
