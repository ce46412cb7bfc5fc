"""The story on the embedded model: look at data, train, measure, choose; each step by the door that users take.

Stands on everything above it. The starter data (`starter/`) was written for this project. Invariant: every number is
measured in the run that shows it, nothing is measured on a prompt that was trained on, and a story that was cut off
goes on where it was.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit import __version__
from plaudit.config import Settled, read_config
from plaudit.embedded import EMBEDDED, cache_folder
from plaudit.errors import ConfigError
from plaudit.evaluate import Asking, EvalSettings, Stage, evaluate
from plaudit.files import write_file
from plaudit.formats import read_groups
from plaudit.group import Group
from plaudit.intake import ReadSettings
from plaudit.keys import prompt_key
from plaudit.parts import Say
from plaudit.runs import read_saved
from plaudit.score import RewardModel, ScoreSettings
from plaudit.scorefile import ScoreJob
from plaudit.select import study_best_of_n
from plaudit.sets import Wanted, Watch
from plaudit.surface import SurfaceReport, measure_surface
from plaudit.train import Show, train

STARTER = Path(__file__).with_name("starter")
PAIRS, HELD_OUT, CANDIDATES, MARK = "pairs.jsonl", "heldout.jsonl", "candidates.jsonl", "demo.json"
SCORED, MEASURED, CHOSEN = "scored.jsonl", "measured", "best-of-n"
HEAD = ("train.backbone=frozen",)
"""The head alone, on features that are computed once."""
FULL = ("train.groups_per_step=16", "train.epochs=2", "train.learning_rate=5e-5")
"""Every weight: small steps, as there are few pairs."""
PROBED = 40
"""Prompts that are probed: enough to see what is large."""

WARNING = "a demonstration, trained on some hundred pairs in minutes: not a model to trust"


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The training data at a glance: how many, of which kinds, how long, and how far looks tell the better one."""

    pairs: int
    prompts: int
    kinds: dict[str, int]
    held_out: int
    words_chosen: float
    words_rejected: float
    surface: SurfaceReport | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """One prompt: the answer that scored highest, the one that scored lowest, each with its score and gold rating."""

    prompt: str
    best: tuple[str, float, float]
    worst: tuple[str, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """Who is told what goes on while it does."""

    say: Say
    show: Show | None = None
    watch: Watch = lambda scorer, pace: None
    stage: Stage = lambda what, done, total: None


def open_run(out: Path | None, *, full: bool = False) -> Path:
    """The folder of a run; ConfigError if it holds something that is no demo's, or another kind of demo's."""
    run = cache_folder() / ("demo-full" if full else "demo") if out is None else out.expanduser()
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run}: a file is there, a folder for the demo was needed; name another --out")
    mark = _read_mark(run)
    if mark is None and run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run} is there and is not the folder of a demo; name a new one with --out")
    if mark is not None and (mark.get("plaudit"), mark.get("full")) != (__version__, full):
        raise ConfigError(f"{run} holds a demo of another version, or of another kind; name a new one with --out")
    run.mkdir(parents=True, exist_ok=True)
    for name in (PAIRS, HELD_OUT, CANDIDATES):
        write_file(run / name, (STARTER / name).read_bytes())
    if mark is None:
        note_results(run, {"full": full})
    return run


def _read_mark(run: Path) -> dict[str, Any] | None:
    """What the folder says of the demo that made it; any program may have a demo.json."""
    try:
        said = json.loads((run / MARK).read_bytes())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and "plaudit" in said else None


def look_at_data(run: Path) -> Look:
    """What there is to say of the pairs before anything is trained."""
    groups = list(read_groups(run / PAIRS))
    chosen, rejected = _count_words(groups)
    return Look(
        pairs=len(groups),
        prompts=len({prompt_key(group) for group in groups}),
        kinds=dict(Counter(group.subset or "" for group in groups).most_common()),
        held_out=sum(1 for _ in read_groups(run / HELD_OUT)),
        words_chosen=chosen,
        words_rejected=rejected,
        surface=measure_surface(groups),
    )


def _count_words(groups: Sequence[Group]) -> tuple[float, float]:
    """Mean words of the better and of the worse answers."""
    sides = [
        (len(g.completions[c.better].text.split()), len(g.completions[c.worse].text.split()))
        for g in groups
        for c in g.comparisons()
    ]
    return sum(a for a, _ in sides) / len(sides), sum(b for _, b in sides) / len(sides)


def settle_training(run: Path, *, full: bool, dtype: str, device: str | None) -> Settled:
    """The settings of the training run, as `plaudit train` would read them.

    The pairs that are measured on afterwards are not its evaluation data, which choose the checkpoint: it sets aside a
    part of its own.
    """
    words = [*(FULL if full else HEAD), f"precision={dtype}", *([f"device={device}"] if device else [])]
    base = {"model": EMBEDDED, "data": [str(run / PAIRS)], "out": str(training(run))}
    return read_config(None, words, base, under=read_saved(training(run)))


def training(run: Path) -> Path:
    """Where the training run stands."""
    return run / "training"


def model_of(run: Path) -> Path:
    """The trained model's folder."""
    return training(run) / "model"


def train_model(run: Path, settled: Settled, told: Told) -> dict[str, Any]:
    """Train, or go on, or show what was trained; the report of the run."""
    return train(settled, resume=training(run).is_dir(), say=told.say, show=told.show, command=("plaudit", "demo"))


def measure_model(run: Path, told: Told, *, dtype: str, device: str | None) -> dict[str, Any]:
    """Measure on the pairs that were held out, fit what makes scores probabilities, write the page."""
    settings = EvalSettings(
        model=str(model_of(run)),
        data=(str(run / HELD_OUT),),
        out=run / MEASURED,
        wanted=Wanted(reading=ReadSettings()),
        asking=Asking(dtype=dtype, device=device),
        probed=PROBED,
        calibrate=True,
        command=("plaudit", "eval", str(model_of(run)), str(run / HELD_OUT), "--out", str(run / MEASURED)),
    )
    report = evaluate(settings, say=told.say, watch=told.watch, stage=told.stage)
    assert report is not None, "a demo is one process"
    return report


def choose_answers(run: Path, told: Told, *, dtype: str, device: str | None) -> tuple[dict[str, Any], list[Pick]]:
    """Score the candidates, study what the best of n is worth by their gold ratings, and show whom it picks."""
    out = run / SCORED
    with ScoreJob([str(run / CANDIDATES)], str(out), say=told.say) as job:
        job.open(RewardModel.load(model_of(run), dtype=dtype, device=device), ScoreSettings())
        job.score()
        job.merge()
    report = study_best_of_n([str(out)], str(run / CHOSEN))
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return report, [_pick(row) for row in rows]


def _pick(row: dict[str, Any]) -> Pick:
    ratings = row["labels"][0]["ratings"]
    answers = sorted(zip(row["completions"], row["scores"], ratings, strict=True), key=lambda answer: -answer[1])
    return Pick(prompt=row["prompt"][0]["content"], best=answers[0], worst=answers[-1])


def suggest_commands(run: Path, *, plaudit: str = "plaudit", python: str = "python") -> tuple[str, ...]:
    """Three commands that go on from this working folder and work as they are printed."""
    names = (model_of(run), run / CANDIDATES, run / "again.jsonl", run / SCORED, run / "dpo.jsonl")
    model, candidates, again, scored, pairs = (shlex.quote(str(path)) for path in names)
    question = 'score("What is 2 + 2?", ["2 + 2 is 4.", "Numbers are dull."])'
    code = f"import plaudit; print(plaudit.load({json.dumps(str(model_of(run)), ensure_ascii=False)}).{question})"
    return (
        f"{plaudit} score {model} {candidates} -o {again}",
        f"{plaudit} select pairs {scored} -o {pairs}",
        f"{python} -c {shlex.quote(code)}",
    )


def note_results(run: Path, results: dict[str, Any]) -> None:
    """Keep the numbers beside the model, and the mark of a demo."""
    write_file(run / MARK, json.dumps({"plaudit": __version__, **results}, indent=1, ensure_ascii=False) + "\n")
