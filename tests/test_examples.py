"""The examples run as they stand, on models and data that take seconds."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from pages import read_links, slugs
from plaudit.group import pair
from plaudit.render import Renderer
from schooling import graded_rows
from speller import save_speller
from tiny import EOS, make_tokenizer, save_model
from two_ends import make_tokenizer as make_two_ended

EXAMPLES = ROOT / "examples"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A base model, a reward model, and comparisons."""
    save_speller(tmp_path / "base")
    save_model(tmp_path / "reward")
    rows = graded_rows(60)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def tell(here: Path, *words: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / words[0]), *words[1:]],
        cwd=here, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Where DeepSpeed is installed, transformers wakes it, and its log goes to stdout.
    return "".join(line for line in done.stdout.splitlines(True) if not line.startswith("[20"))


@pytest.mark.parametrize("example", ["loop.py", "custom_loss.py"])
def test_the_loop_learns_measures_and_saves(here: Path, example: str) -> None:
    said = tell(
        here, example, "pairs.jsonl", "--model", "base", "--out", "made", "--rate", "3e-3", "--groups-per-step", "8",
        "--held-out", "0.3", "--dtype", "float32",
    ).splitlines()  # fmt: skip
    assert said[0].endswith("held out")
    assert said[1].startswith("step 1/") and "unique tokens/s" in said[1]
    assert "held-out comparisons right, 95% interval" in said[-2]
    assert said[-1] == "saved: made"
    scored = subprocess.run(
        [sys.executable, "-m", "plaudit", "score", "made", "pairs.jsonl", "-o", "scored.jsonl", "--dtype", "float32"],
        cwd=here, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr


def test_the_loop_trains_both_ends_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comparison twice where a line break follows the closing token, so that each end has half of the mean."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    loop = importlib.import_module("loop")
    groups = [pair("w20", "w30 w31", "w32"), pair("w20", "w33", " ")]
    for tokenizer, claims in ((make_two_ended(), [(0, 1), (2, 3)]), (make_tokenizer(), [(0, 1)])):
        rendered = [loop.read_both_ends(r) for r in Renderer(tokenizer).render(groups)]
        assert loop.find_comparisons(groups, rendered) == [claims, []]
        ids = rendered[0].ids
        assert len(ids) == 2 * len(claims)
        assert all(ids[a][: len(ids[b])].tolist() == ids[b].tolist() for a, b in ((0, len(ids) - 2), (1, len(ids) - 1)))
        assert ids[-1][-1] == ids[-2][-1] == EOS


def test_the_loop_fits_on_a_page() -> None:
    lines = (EXAMPLES / "loop.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 140
    assert "Trainer" not in "".join(line for line in lines if line.startswith(("from", "import")))


def test_synthetic_answers_are_filtered(here: Path) -> None:
    said = tell(here, "filter_synthetic.py", "reward", "pairs.jsonl", "kept.jsonl", "--share", "0.25").splitlines()
    kept = (here / "kept.jsonl").read_text(encoding="utf-8").splitlines()
    assert said[0].startswith(f"kept {len(kept)} of 120: from a score of ")
    assert len(kept) == 30


def test_a_probe_of_ones_own_names_its_bias(here: Path) -> None:
    said = tell(here, "custom_probe.py", "reward", "pairs.jsonl")
    assert [line.partition(":")[0] for line in said.splitlines()] == ["padding", "disclaimer"] and "shift" in said


def test_each_example_has_its_line_and_the_lines_lead_somewhere() -> None:
    page = EXAMPLES / "README.md"
    named = set(read_links(page))
    there = {path.name if path.is_file() else f"{path.name}/" for path in EXAMPLES.iterdir()} - {
        "README.md",
        "__pycache__/",
    }
    assert there == {name for name in named if not name.startswith("..")}
    for target in named:
        name, _, anchor = target.partition("#")
        assert (EXAMPLES / name).exists(), target
        assert not anchor or anchor in slugs(EXAMPLES / name), target
    for words in re.findall(r"^python (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        example, *rest = words.split()
        assert all((ROOT / word).exists() for word in (example, *rest) if "/" in word), words
