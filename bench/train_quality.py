"""Quality at equal data, for bench/train.py --quality: TRL tuned and plaudit learn from the same pairs, step by step.

Both sides have the same weights to begin with, the same steps of the same token ids, and the same hyper-parameters:
those that plaudit settles on are handed to TRL by their names in TrainingArguments. What they had learned at several
steps is saved by each in its own way and scored by one scorer, on pairs with other
prompts. What is there already in the folder is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from train import Sample, Side, draw_sample, make_job, summarise

STEP = 20
SETTLED = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm", "optim", "warmup_steps")
Margins = np.ndarray[Any, np.dtype[np.float64]]


def compare(args: argparse.Namespace) -> None:
    """Train what is not trained yet, score what is not scored yet, print both, draw them."""
    folder: Path = args.quality.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    train, evals = args.pairs
    sample = draw_sample(args.model, args.data, train + evals)
    pairs = Sample(sample.rows[:train], sample.ids[:train])
    for name in (side for side in args.sides if side in ("tuned", "plaudit")):
        if not (folder / f"{name}.jsonl").is_file():
            learn(name, pairs, folder, args)
        score_all(name, sample.ids[train:], folder)
    found = {
        name: read_curve(folder, name) for name in ("tuned", "plaudit") if (folder / f"{name}-margins.json").is_file()
    }
    for line in describe(found):
        print(line)
    if len(found) == 2 and args.plot:
        draw(found, args.plot, read_rates(args.rates))


def learn(name: str, pairs: Sample, folder: Path, args: argparse.Namespace) -> None:
    """One pass over the pairs; every side's log and its weights at some steps stay in the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        files = pairs.write(Path(temporary))
        count = len(pairs.rows)
        steps = [list(range(at, min(at + STEP, count))) for at in range(0, count, STEP)]
        if name == "tuned":  # length grouping, within what a step has
            steps = [sorted(step, key=pairs.length) for step in steps]
        job = make_job(name, files, steps, args)
        at = sorted({max(1, round(len(steps) * share / 4)) for share in range(1, 5)})
        job["saves"] = {str(n): str(folder / name / str(n)) for n in at}
        job["overrides"] += [f"train.learning_rate={args.rate}"]
        job["hyper"] = hyper_parameters(job) if name == "tuned" else {}
        with Side(job, Path(temporary)) as side:
            rows = [side.told, *side.lines()]
            if not any(row.get("step") == len(steps) and "seconds" in row for row in rows):
                raise SystemExit(f"the side {name} has ended early:\n{side.log.read_text()[-3000:]}")
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def hyper_parameters(job: dict[str, Any]) -> dict[str, Any]:
    """What plaudit settles on for such a run, as TrainingArguments call it."""
    from plaudit.arguments import build_arguments
    from plaudit.config import read_config

    overrides = [*job["overrides"], f"train.max_steps={len(job['steps'])}", "train.save_every=1", "train.eval_every=1"]
    config = read_config(None, overrides, {"model": job["model"], "data": [job["pairs"]], "out": "none"}).config
    args = build_arguments(config, Path("none"), evals=[], device="cpu", is_narrow=True)
    found = {name: getattr(args, name) for name in SETTLED}
    return {
        **found,
        "optim": str(args.optim.value),
        "lr_scheduler_type": str(args.lr_scheduler_type.value),
        "lr_scheduler_kwargs": dict(args.lr_scheduler_kwargs or {}),
    }


def score_all(name: str, ids: list[Any], folder: Path) -> None:
    """Margins of every evaluation pair at every step that was saved; the weights are removed then."""
    file = folder / f"{name}-margins.json"
    found: dict[str, list[float]] = json.loads(file.read_text()) if file.is_file() else {}
    for saved in sorted((folder / name).glob("*"), key=lambda p: int(p.name)):
        if saved.name not in found:
            found[saved.name] = score(saved, ids)
            file.write_text(json.dumps(found))
        shutil.rmtree(saved)


def score(saved: Path, ids: list[Any]) -> list[float]:
    """Chosen minus rejected."""
    import torch

    import plaudit
    from plaudit.pack import PackSettings, build_packs

    net = plaudit.load(saved, dtype="bfloat16", device="cpu")
    scores = np.zeros((len(ids), 2))
    with torch.inference_mode():
        for pack in build_packs([[np.array(x, np.int32) for x in row] for row in ids], PackSettings(budget=4096)):
            for (row, k), value in zip(pack.members_L, net(pack).tolist(), strict=True):
                scores[row, k] = value
    return [float(x) for x in scores[:, 0] - scores[:, 1]]


def read_curve(folder: Path, name: str) -> dict[int, Margins]:
    """Pairs seen -> margins."""
    found = json.loads((folder / f"{name}-margins.json").read_text())
    return {int(step) * STEP: np.array(margins) for step, margins in sorted(found.items(), key=lambda kv: int(kv[0]))}


def right(margins: Margins) -> Margins:
    """1 for a pair in the right order, a half for a draw."""
    found: Margins = (margins > 0) + 0.5 * (margins == 0)
    return found


def interval(values: Margins, *, draws: int = 10_000) -> tuple[float, float]:
    """95% of the mean, by bootstrap over pairs; every pair has a prompt of its own."""
    chosen = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[chosen].mean(1), (0.025, 0.975))
    return float(low), float(high)


def describe(found: dict[str, dict[int, Margins]]) -> list[str]:
    """Accuracy of each side after so many pairs, and the difference of the last, pair by pair."""
    lines = []
    for name, curve in found.items():
        for seen, margins in curve.items():
            low, high = interval(right(margins))
            lines.append(f"{name} after {seen:,} pairs: {right(margins).mean():.1%} [{low:.1%}, {high:.1%}]")
    if len(found) == 2:
        last = {name: right(curve[max(curve)]) for name, curve in found.items()}
        difference = last["plaudit"] - last["tuned"]
        low, high = interval(difference)
        lines.append(f"plaudit minus TRL, pair by pair: {difference.mean():+.1%} [{low:+.1%}, {high:+.1%}]")
        kept = [curve[max(curve)] for curve in found.values()]
        lines.append(f"correlation of their margins: {np.corrcoef(*kept)[0, 1]:.3f}")
    return lines


def read_rates(file: Path | None) -> dict[str, float]:
    """Pairs a second that a run of bench/train.py --json measured."""
    if file is None:
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]
    return {name: found["pairs_per_s"] for name, found in summarise(rows).items()}


def draw(found: dict[str, dict[int, Margins]], file: Path, rates: dict[str, float]) -> None:
    """Accuracy over pairs, and over minutes at the rates that were measured."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    panels = ["pairs learned from", *(["minutes of training, at the measured rates"] if rates else [])]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.4), squeeze=False, sharey=True)
    for axis, label in zip(axes[0], panels, strict=True):
        for name, curve in found.items():
            by = 1.0 if label.startswith("pairs") else 1 / (60 * rates[name])
            x = [seen * by for seen in curve]
            y = np.array([right(m).mean() for m in curve.values()])
            low, high = np.array([interval(right(m)) for m in curve.values()]).T
            title = {"tuned": "TRL 1.16, tuned", "plaudit": "plaudit"}[name]
            axis.errorbar(x, y, (y - low, high - y), label=title, marker="o", markersize=4, capsize=3, linewidth=1.2)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy on other prompts, 95% intervals")
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
