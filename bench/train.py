"""Training against TRL: four sides, one run, alternating, each step in a process of its own.

    python bench/train.py                          # three rounds, half an hour on two cores
    python bench/train.py --last 2 --json OUT      # two of them; a line a side and round is added to OUT
    python bench/train.py --table OUT...           # what such runs measured, as a table for the docs
    python bench/train.py --sweep 1,2,4,8,16       # the batch size that TRL is fastest with, tuned
    python bench/train.py --quality OUT            # the same 1,500 pairs to both: accuracy on 700 other prompts

defaults   TRL's RewardTrainer as it comes
tuned      TRL by someone who knows it: bench/train_trl.py says what that is
packed     plaudit's packs without sharing
plaudit    plaudit

Every side has the same weights to begin with, trains all of them, in the same precision, on the same token ids, so
many pairs a step, and takes some steps in every round, after one that is not counted; its process ends with the round,
so that one model at a time is in memory. `tuned` alone has other pairs in a round: those of all rounds sorted by length
and dealt out, so that each round has all lengths; over all rounds the pairs are the same. Threads are those of
OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent
ROOT = BENCH.parent
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT.parent / "shared" / "data"))
TRL = ROOT / ".venv-bench" / "bin" / "python"
SIDES = ("defaults", "tuned", "packed", "plaudit")
LONGEST = 1024
"""Tokens of a completion with its prompt: what is longer TRL leaves out, by its default."""

BATCH = 8
"""Pairs a batch: TRL's default."""

TARGETS = {"defaults": 5.0, "tuned": 3.0}
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Pairs in a fixed random order: as rows for plaudit, as token ids for TRL."""

    rows: list[dict[str, Any]]
    ids: list[Pair]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Both as files; a row's id is its place."""
        pairs, ids = folder / "pairs.jsonl", folder / "ids.json"
        with pairs.open("w") as out:
            for n, row in enumerate(self.rows):
                keys = ("prompt", "chosen", "rejected")
                out.write(json.dumps({**{key: row[key] for key in keys}, "id": str(n)}) + "\n")
        ids.write_text(json.dumps(self.ids))
        return pairs, ids

    def length(self, n: int) -> int:
        """Of a pair when it is padded to its longer side."""
        return max(map(len, self.ids[n]))


def make_model(folder: Path) -> Path:
    """The embedded language model with a new head: what every side begins with."""
    if not (folder / "config.json").is_file():
        import plaudit

        plaudit.load("smollm2", dtype="bfloat16", new_head=True).save(folder)
    return folder


def read_rows(name: str) -> list[dict[str, Any]]:
    """Pairs of the data folder, or, under the name of `starter`, all that come with the package."""
    if name != "starter":
        file = DATA / f"{name}.jsonl.gz"
        if not file.is_file():
            sys.exit(f"{file} is not there; set PLAUDIT_DATA to a folder that has it, or take --data starter")
        with gzip.open(file, "rt") as lines:
            return [json.loads(line) for line in lines]
    files = [ROOT / "src" / "plaudit" / "starter" / f"{part}.jsonl" for part in ("pairs", "heldout")]
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    sides = [(row["labels"][0]["better"], row["labels"][0]["worse"]) for row in rows]
    return [
        {"prompt": row["prompt"], "chosen": row["completions"][better], "rejected": row["completions"][worse]}
        for row, (better, worse) in zip(rows, sides, strict=True)
    ]


def draw_sample(model: Path, name: str, count: int) -> Sample:
    """Pairs whose completions both fit, no two of them with the same prompt."""
    from transformers import AutoTokenizer

    from plaudit.group import pair
    from plaudit.render import Renderer, RenderSettings

    found = read_rows(name)
    random.Random(0).shuffle(found)
    renderer = Renderer(AutoTokenizer.from_pretrained(model), RenderSettings(), context_length=8192)
    rows, ids, prompts = [], [], set()
    for row in found:
        if len(rows) == count:
            break
        prompt = row["prompt"] if isinstance(row["prompt"], str) else tuple(row["prompt"])
        [rendered] = renderer.render([pair(prompt, row["chosen"], row["rejected"])])
        both = [x.tolist() for x in rendered.ids if x is not None]
        key = json.dumps(row["prompt"])
        if len(both) == 2 and both[0] != both[1] and max(map(len, both)) <= LONGEST and key not in prompts:
            rows.append(row)
            ids.append((both[0], both[1]))
            prompts.add(key)
    if len(rows) < count:
        sys.exit(f"{name} has {len(rows):,} pairs that fit, {count:,} were asked for; ask for fewer")
    return Sample(rows, ids)


class Side:
    """One side's process: takes a step when it is told to."""

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.name, self.told = job["side"], {}
        is_trl = self.name in ("defaults", "tuned")
        if is_trl and not TRL.is_file():
            sys.exit(f"{TRL} is not there; `make .venv-bench/.made` builds it")
        file = folder / f"{self.name}.json"
        file.write_text(json.dumps({**job, "out": str(folder / self.name)}))
        script = BENCH / ("train_trl.py" if is_trl else "train_plaudit.py")
        command = [str(TRL if is_trl else sys.executable), str(script), str(file)]
        self.log = folder / f"{self.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder
            )
        self.told = self.hear("trained")

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it tells, until it ends."""
        from train_gate import MARK

        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))

    def hear(self, key: str) -> dict[str, Any]:
        """The next thing told that has this key."""
        for told in self.lines():
            if key in told:
                return told
        sys.exit(f"the side {self.name} has ended early:\n{self.log.read_text()[-3000:]}")

    def step(self) -> dict[str, Any]:
        """Let it take one step."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.hear("seconds")


def plan_steps(sample: Sample, side: str, args: argparse.Namespace) -> list[list[int]]:
    """Which pairs each step has; the first is not counted."""
    size, rounds = args.step, args.rounds * args.each
    every = range(len(sample.rows))
    warm, steps = list(every[:size]), [list(every[at : at + size]) for at in every[size::size]]
    if side == "tuned":
        warm = sorted(warm, key=sample.length, reverse=True)
        rest = sorted(every[size:], key=sample.length, reverse=True)
        batches = [rest[at : at + args.batch] for at in range(0, len(rest), args.batch)]
        steps = [[] for _ in range(rounds)]
        for n, batch in enumerate(batches):
            turn, place = divmod(n, rounds)
            steps[place if turn % 2 == 0 else rounds - 1 - place] += batch
    return [warm, *steps]


def describe(sample: Sample, side: str, step: Sequence[int], batch: int) -> dict[str, int]:
    """Tokens of a step: all completions', and those that TRL computes, padding included."""
    total = sum(len(ids) for n in step for ids in sample.ids[n])
    widths = [max(map(sample.length, step[at : at + batch])) for at in range(0, len(step), batch)]
    return {"total": total, **({"computed": sum(2 * batch * w for w in widths)} if side in TARGETS else {})}


def make_job(side: str, files: tuple[Path, Path], steps: list[list[int]], args: argparse.Namespace) -> dict[str, Any]:
    return {
        "side": side, "model": str(args.model), "pairs": str(files[0]), "ids": str(files[1]), "steps": steps,
        "batch": BATCH if side == "defaults" else args.batch, "compile": args.compile, "hyper": {}, "saves": None,
        "precision": "bfloat16", "overrides": [f"train.budget={args.budget}"] if args.budget else [],
    }  # fmt: skip


def alternate(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All sides in turn, round after round; a side that begins one round ends the next."""
    sample = draw_sample(args.model, args.data, args.step * (args.rounds * args.each + 1))
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        files = sample.write(Path(temporary))
        plans = {name: plan_steps(sample, name, args) for name in args.sides}
        for number in range(args.first, args.last):
            for name in args.sides if number % 2 == 0 else args.sides[::-1]:
                counted = plans[name][1 + number * args.each : 1 + (number + 1) * args.each]
                row = {"side": name, "round": number, "pairs": args.step * args.each}
                row |= measure(make_job(name, files, [plans[name][0], *counted], args), Path(temporary))
                row |= describe(sample, name, [n for step in counted for n in step], row["batch"])
                found.append(row)
                print(json.dumps(row), flush=True)
                if args.json:
                    with args.json.open("a") as out:
                        out.write(json.dumps(row) + "\n")
    return found


def measure(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A process that takes a step which is not counted, and those that are."""
    with Side(job, folder) as side:
        side.step()
        told = [side.step() for _ in job["steps"][1:]]
        seconds, most = sum(row["seconds"] for row in told), told[-1]["peak"]
        above = most - side.told["baseline"]
        return {"seconds": seconds, "peak": most, "above": above, "batch": job["batch"], **side.told}


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each side's medians over rounds, and how many times its pairs per second plaudit's are."""
    seconds = {(row["side"], row["round"]): row["seconds"] for row in rows}
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["side"] for row in rows):
        mine = [row for row in rows if row["side"] == name]
        shared = [row["round"] for row in mine if ("plaudit", row["round"]) in seconds]
        ratios = [seconds[name, n] / seconds["plaudit", n] for n in shared]
        ours = sum(seconds["plaudit", n] for n in shared)
        found[name] = {
            "rounds": len(mine),
            "pairs_per_s": statistics.median(row["pairs"] / row["seconds"] for row in mine),
            "tokens_per_s": statistics.median(row["total"] / row["seconds"] for row in mine),
            "peak_mib": max(row["peak"] for row in mine),
            "above_mib": max(row["above"] for row in mine),
            "ratios": ratios,
            "ratio": statistics.median(ratios) if ratios else None,
            "pooled": sum(seconds[name, n] for n in shared) / ours if ours else None,
            "batch": mine[0]["batch"],
        }
    return found


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The rounds as a Markdown table."""
    print("| side | pairs/s | tokens/s | plaudit is x times as fast | each round | target | of the sums |", end=" ")
    print("peak MiB | above its own imports |")
    print("|" + "---|" * 9)
    for name, found in summarise(rows).items():
        target = f"{TARGETS[name]:g}" if name in TARGETS else ""
        rounds = " ".join(f"{x:.2f}" for x in found["ratios"]) if name != "plaudit" else ""
        ratio, pooled = (f"{found[key]:.2f}" if found[key] and name != "plaudit" else "" for key in ("ratio", "pooled"))
        cells = [name, f"{found['pairs_per_s']:.2f}", f"{found['tokens_per_s']:.0f}", ratio, rounds, target, pooled]
        cells += [f"{found['peak_mib']:,.0f}", f"{found['above_mib']:,.0f}"]
        print("| " + " | ".join(cells) + " |")


def sweep(args: argparse.Namespace) -> None:
    """Pairs per second of the tuned side for several batch sizes, a step each, of all lengths."""
    for batch in args.sweep:
        chosen = argparse.Namespace(**{**vars(args), "batch": batch, "sides": ("tuned",)})
        found = summarise(alternate(chosen))["tuned"]
        print(f"# {batch} pairs a batch: {found['pairs_per_s']:.3f} pairs/s, {found['peak_mib']:,.0f} MiB", flush=True)


def main() -> None:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no side outlives it
    if args.table:
        lines = [line for file in args.table for line in file.read_text().splitlines()]
        print_table([json.loads(line) for line in lines if line.startswith("{")])
        return
    args.model = make_model(args.model)
    if args.quality:
        from train_quality import compare

        compare(args)
    elif args.sweep:
        sweep(args)
    else:
        print_table(alternate(args))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="train_hh", help="a file of the data folder, or starter")
    parser.add_argument("--sides", type=lambda text: tuple(text.split(",")), default=SIDES)
    parser.add_argument("--step", type=int, default=16, help="pairs an optimizer step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=2, help="steps that are counted, a side and round")
    parser.add_argument(
        "--first", type=int, default=0, help="the round to begin with, of all the rounds that there are"
    )
    parser.add_argument("--last", type=int, help="the round to end before")
    parser.add_argument("--batch", type=int, default=2, help="pairs a batch of the tuned side")
    parser.add_argument("--compile", action="store_true", help="the tuned side compiles its model")
    parser.add_argument("--budget", type=int, default=0, help="tokens a pack; 0: as plaudit chooses")
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "plaudit-bench-train-model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a line of JSON a side and round is added to FILE")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--sweep", type=lambda text: [int(x) for x in text.split(",")], metavar="1,2,4")
    parser.add_argument("--quality", type=Path, metavar="FOLDER")
    parser.add_argument("--pairs", type=int, nargs=2, default=(1500, 700), help="of --quality: to learn, to evaluate")
    parser.add_argument("--rate", type=float, default=5e-5, help="of --quality: the learning rate of both")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="of --quality: where the curve is drawn")
    parser.add_argument("--rates", type=Path, metavar="FILE", help="of --quality: what --json wrote, for the plot")
    args = parser.parse_args()
    args.last = args.rounds if args.last is None else args.last
    return args


if __name__ == "__main__":
    main()
