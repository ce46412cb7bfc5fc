"""Best-of-n on public groups with gold scores: what choosing by a reward model is worth, for every n.

    python bench/bestofn.py MODEL --out FOLDER --plot FILE

Scores groups of the data folder (PLAUDIT_DATA) with `plaudit score`, which goes on where it was killed, estimates the
curve of each with `plaudit bon`, prints a table for the docs and draws the gold of the best of n: by the model, by
length, and the most that any choice could reach. Prompts and texts that the model was trained on are left out, by what
its run left in seen.npz, and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from plaudit import read
from plaudit.contamination import SeenData, check_contamination, open_seen

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT.parent / "shared" / "data"))
SETS = {
    "arena_bench": "GPT-4's rating, 1 to 10",
    "qlora_vicuna": "GPT-4's rating minus GPT-3.5's",
    "gsm8k": "share of right answers",
}
"""Groups, and what their gold is."""


def plaudit(*words: str) -> dict[str, Any]:
    """A command, as a machine calls it."""
    command = [sys.executable, "-m", "plaudit", *words, "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return found


def measure(model: str, seen: SeenData, name: str, folder: Path) -> dict[str, Any]:
    """The curve by the model, by the longer answer, and by gold itself; how many prompts were left out as seen."""
    source, scored = DATA / f"groups_{name}.jsonl.gz", folder / f"{name}.jsonl"
    if not source.is_file():
        sys.exit(f"{source} is not there; set PLAUDIT_DATA to a folder that has it")
    if not scored.is_file():
        plaudit("score", model, str(source), "-o", str(scored))
    rows = [json.loads(line) for line in scored.read_text(encoding="utf-8").splitlines()]
    is_seen = check_contamination(read(str(source)), seen).is_flagged
    rows = [row for row, flag in zip(rows, is_seen, strict=True) if not flag]
    found: dict[str, Any] = {"seen": sum(is_seen)}
    for by in ("model", "length", "gold"):
        file = folder / f"{name}-{by}.jsonl"
        with file.open("w", encoding="utf-8") as out:
            for row in rows:
                told = {"model": row["scores"], "length": [len(text) for text in row["completions"]]}
                scores = told.get(by, row["gold_scores"])
                kept = {key: row[key] for key in ("prompt", "completions", "gold_scores")}
                out.write(json.dumps(kept | {"scores": scores}) + "\n")
        found[by] = plaudit("bon", str(file), "--out", str(folder / f"{name}-{by}"))
    return found


def describe(name: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    model, length = found["model"], found["length"]
    first, last = model["curve"][0], model["curve"][-1]
    low, high = last["gain_ci"]
    # Of all candidates none is left to be compared with.
    wins = [point for point in model["curve"] if point["win_rate"] is not None][-1]
    cells = [
        f"{name}, {SETS[name]}",
        str(found["seen"]), f"{model['prompts']} of {model['n_max']}", f"{first['gold']:.2f}", f"{last['gold']:.2f}",
        f"{last['gain']:+.2f} ({low:+.2f} to {high:+.2f})", f"{wins['win_rate']:.1%} (n = {wins['n']})",
        f"{length['curve'][-1]['gold']:.2f}", f"{model['oracle']:.2f}", str(model["recommended_n"]),
        f"{last['length'] / first['length']:.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def draw(found: dict[str, dict[str, Any]], file: Path) -> None:
    """A panel a set."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "plaudit"
    import matplotlib.pyplot as plt

    looks = {"gold": ("the most that is there", ":"), "length": ("the longest", "--"), "model": ("the model", "-")}
    figure, axes = plt.subplots(1, len(found), figsize=(3.7 * len(found), 3.3), squeeze=False)
    for axis, (name, curves) in zip(axes[0], found.items(), strict=True):
        for by, (label, style) in looks.items():
            curve = curves[by]["curve"]
            n = [point["n"] for point in curve]
            [line] = axis.plot(n, [point["gold"] for point in curve], style, label=label, linewidth=1.4)
            if by == "model":
                low, high = zip(*(point["gold_ci"] for point in curve), strict=True)
                axis.fill_between(n, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
        axis.set_xscale("log", base=2)
        axis.set_xticks([2**k for k in range(6) if 2**k <= n[-1]], [str(2**k) for k in range(6) if 2**k <= n[-1]])
        axis.set_title(name, fontsize=10)
        axis.set_ylabel(SETS[name], fontsize=8)
        axis.set_xlabel("n")
        axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seen = open_seen(args.model)
    if seen is None:  # said before hours of scoring, not after
        parser.error(
            f"{args.model}: no seen.npz lies beside it, which says what it was trained on; name RUN/model of a run"
        )
    columns = (
        "gold", "seen, left out", "prompts, n", "of one", "of the best of n by the model", "gain, 95% interval",
        "wins against one", "the longest of n", "the most that is there", "recommended n", "times as long",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|")
    found = {}
    for name in args.sets:
        found[name] = measure(args.model, seen, name, args.out)
        print(describe(name, found[name]), flush=True)
    if args.plot:
        draw(found, args.plot)


if __name__ == "__main__":
    main()
