"""Scoring against a padded loop and against packing alone: three sides, one run, alternating.

    python bench/score.py                        # all data sets, a few hours on two cores
    python bench/score.py --only pairs_hh        # one of them
    python bench/score.py --rows 60 --rounds 3   # a quick look
    python bench/score.py --table RESULTS.jsonl  # what it printed, as a table for the docs

(a) a Hugging Face loop as a careful user writes it: sorted by length, padded, bf16, no_grad, batches of 16
(b) plaudit's packs without sharing
(c) plaudit

Every side gets the same token ids and the same model. A side's batches (packs) are made over the whole sample, and
every round runs each n-th of them on all three sides in turn, so that each is run once and the machine's moods hit all
sides alike; `--full` runs the whole sample in every round instead. Printed: medians over rounds, and the ratio of the
sums. The matmul peak is measured between the sides, in the same minutes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit.attend import visible_TT
from plaudit.embedded import resolve_model
from plaudit.group import Group
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.render import Overlength, Renderer, RenderSettings
from plaudit.score import RewardModel, Scorer, ScoreSettings

DATA = Path(os.environ.get("PLAUDIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
Rows = list[list[np.ndarray]]
CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class DataSet:
    """A sample: where it comes from, and how many completions a row has (None is a pair)."""

    name: str
    file: str | None
    completions: int = 2
    target: float | None = None


DATA_SETS = (
    DataSet("pairs_hh", "train_hh", target=3.0),
    DataSet("pairs_qafeedback", "train_qafeedback", target=3.5),
    DataSet("groups_of_4", "groups_gsm8k", 4),
    DataSet("groups_of_14", "groups_arena_bench", 14, target=2.8),
    DataSet("groups_of_36", "groups_qlora_vicuna", 36, target=2.8),
    DataSet("best_of_64", None, 64, target=5.0),
)


def make_model(folder: Path) -> Path:
    """The embedded language model with a random head, as a reward model folder: speed does not depend on the head."""
    if not (folder / "config.json").is_file():
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        base = resolve_model("smollm2")
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.bfloat16)
        model.config.pad_token_id = 0
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def sample_rows(data_set: DataSet, renderer: Renderer, rows: int) -> Rows:
    """A fixed random sample as token ids: `rows` pairs, or groups with `rows` completions in all."""
    if data_set.file is None:
        return best_of(data_set.completions, -(-rows // data_set.completions))
    with gzip.open(DATA / f"{data_set.file}.jsonl.gz", "rt") as lines:
        found = [json.loads(line) for line in lines]
    random.Random(0).shuffle(found)
    if data_set.completions > 2:
        found = [r for r in found if len(r["completions"]) == data_set.completions]
        rows = -(-rows // data_set.completions)
    groups = [to_group(row) for row in found[:rows]]
    return [[ids for ids in rendered.ids if ids is not None] for rendered in renderer.render(groups)]


def to_group(row: dict[str, Any]) -> Group:
    from plaudit.group import Completion

    answers = row.get("completions") or [row["chosen"], row["rejected"]]
    prompt = row["prompt"] if isinstance(row["prompt"], str) else tuple(row["prompt"])
    return Group(
        prompt=prompt, completions=tuple(Completion(content=c if isinstance(c, str) else tuple(c)) for c in answers)
    )


def best_of(n: int, prompts: int) -> Rows:
    """Synthetic groups: a prompt of 300 tokens and n answers of 50 to 150."""
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(prompts):
        prompt = draw.integers(0, 49000, 300).astype(np.int32)
        answers = (draw.integers(0, 49000, length).astype(np.int32) for length in draw.integers(50, 151, n))
        rows.append([np.concatenate([prompt, answer]) for answer in answers])
    return rows


class PaddedLoop:
    """Side (a), in a process of its own: the allocator that plaudit tunes is then not its allocator."""

    def __init__(self, folder: Path, device: str, batch: int) -> None:
        self.batch = batch
        mine, theirs = multiprocessing.get_context("spawn").Pipe()
        worker = multiprocessing.get_context("spawn").Process(
            target=serve_loop, args=(theirs, folder, device), daemon=True
        )
        worker.start()
        self.pipe = mine

    def batches(self, rows: Rows) -> list[list[np.ndarray]]:
        ordered = sorted((ids for row in rows for ids in row), key=len, reverse=True)
        return [ordered[i : i + self.batch] for i in range(0, len(ordered), self.batch)]

    def score(self, batch: Sequence[np.ndarray]) -> float:
        """Seconds that the batch took, as the loop's own process saw them."""
        self.pipe.send(list(batch))
        return float(self.pipe.recv())


def serve_loop(pipe: Any, folder: Path, device: str) -> None:
    """The loop's process: batches in, seconds out."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return  # the benchmark has ended
        start = time.perf_counter()
        score_padded(model, batch, device)
        synchronize(device)
        pipe.send(time.perf_counter() - start)


def score_padded(model: Any, batch: Sequence[np.ndarray], device: str) -> torch.Tensor:
    """A padded batch through the classification model."""
    width = max(map(len, batch))
    ids = torch.tensor([[*ids.tolist(), *[0] * (width - len(ids))] for ids in batch], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch], device=device)
    with torch.no_grad():
        scores: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits[:, 0]
    return scores


class Packed:
    """Sides (b) and (c)."""

    def __init__(self, net: RewardModel, budget: int, share: bool) -> None:
        self.net, self.device, self.settings = net, str(net.device), PackSettings(budget=budget, share=share)

    def batches(self, rows: Rows) -> list[Pack]:
        return build_packs(rows, self.settings)

    def score(self, pack: Pack) -> float:
        """Seconds that the pack took."""
        start = time.perf_counter()
        with torch.inference_mode():
            self.net(pack)
        synchronize(self.device)
        return time.perf_counter() - start


def count(batch: Any) -> tuple[int, int, int]:
    """(computed tokens, tokens of all completions, completions) of a batch or a pack."""
    if isinstance(batch, Pack):
        return batch.num_unique, batch.num_total, len(batch.members_L)
    return len(batch) * max(map(len, batch)), sum(map(len, batch)), len(batch)


def flops(net: RewardModel, pack: Pack) -> float:
    """Multiplications and additions that the pack's tokens need: projections, and each query with each key it sees."""
    config = net.hf.config
    linear = sum(m.weight.numel() for m in net.backbone.modules() if isinstance(m, torch.nn.Linear))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    seen = float(visible_TT(pack.tree).sum())
    return (
        2.0 * linear * pack.num_unique + 4.0 * seen * config.num_attention_heads * head_dim * config.num_hidden_layers
    )


def matmul_peak(device: str, tokens: int = 2048, wide: int = 1536, hidden: int = 576) -> float:
    """FLOP/s of the best of some matrix products of the model's own kind, now."""
    if device.startswith("cuda"):
        tokens, wide, hidden = 8192, 8192, 8192
    x, w = (torch.randn(*shape, dtype=torch.bfloat16, device=device) for shape in ((tokens, wide), (hidden, wide)))
    best = 0.0
    with torch.inference_mode():
        for _ in range(12):
            start = time.perf_counter()
            torch.nn.functional.linear(x, w)
            synchronize(device)
            best = max(best, 2.0 * tokens * wide * hidden / (time.perf_counter() - start))
    return best


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@dataclass(slots=True)
class Round:
    """One side's work in one round."""

    seconds: float = 0.0
    computed: int = 0
    total: int = 0
    completions: int = 0
    flops: float = 0.0
    peak: float = 0.0


def time_round(side: Any, batches: list[Any], device: str, work: Callable[[Any], float]) -> Round:
    done = Round(peak=matmul_peak(device))
    for batch in batches:
        done.seconds += side.score(batch)
        computed, total, completions = count(batch)
        done.computed += computed
        done.total += total
        done.completions += completions
        done.flops += work(batch)
    done.peak = statistics.mean((done.peak, matmul_peak(device)))
    return done


def alternate(sides: dict[str, Any], rows: Rows, args: argparse.Namespace, net: RewardModel) -> dict[str, list[Round]]:
    """Rounds of all sides, in turn; a side that begins one round ends the next."""
    batches = {name: side.batches(rows) for name, side in sides.items()}
    for name, side in sides.items():  # the first pass of each size pays for memory and for compiling kernels
        side.score(batches[name][0])
    rounds: dict[str, list[Round]] = {name: [] for name in sides}
    for number in range(args.rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            chosen = batches[name] if args.full else batches[name][number :: args.rounds]
            work = (lambda pack: flops(net, pack)) if name != "a" else (lambda batch: 0.0)
            rounds[name].append(time_round(sides[name], chosen, args.device, work))
    return rounds


def bound(rows: Rows) -> float:
    """Tokens of all completions for each one that is computed when a row shares its prompt and rows share nothing."""
    from plaudit.tree import build_tree

    return sum(len(ids) for row in rows for ids in row) / sum(build_tree(row).num_tokens for row in rows)


def report(data_set: DataSet, rows: Rows, rounds: dict[str, list[Round]], memory: dict[str, int]) -> dict[str, Any]:
    """One data set's line of the table, as numbers."""
    width = len(rows[0]) if data_set.completions > 2 else 2

    def rate(r: Round, what: str) -> float:
        return float(getattr(r, what)) / r.seconds

    ratios = {
        pair: [rate(x, "total") / rate(y, "total") for x, y in zip(rounds[pair[0]], rounds[pair[1]], strict=True)]
        for pair in ("ca", "cb", "ba")
    }
    pooled = {
        pair: sum(r.total for r in rounds[pair[0]]) / sum(r.seconds for r in rounds[pair[0]])
        / (sum(r.total for r in rounds[pair[1]]) / sum(r.seconds for r in rounds[pair[1]]))
        for pair in ("ca", "cb", "ba")
    }  # fmt: skip
    return {
        "data": data_set.name,
        "groups": len(rows),
        "completions": sum(map(len, rows)),
        "sharing_bound": bound(rows),
        "target_ca": data_set.target,
        "ratio": {pair: statistics.median(values) for pair, values in ratios.items()},
        "pooled": pooled,
        "rounds": ratios,
        "cb_of_bound": statistics.median(ratios["cb"]) / bound(rows),
        "of_peak": {n: statistics.median(r.flops / r.seconds / r.peak for r in rounds[n]) for n in "bc" if n in rounds},
        "peak_gflops": statistics.median(r.peak for r in rounds["c"]) / 1e9,
        "unique_tokens_per_s": {n: statistics.median(rate(r, "computed") for r in v) for n, v in rounds.items()},
        "total_tokens_per_s": {n: statistics.median(rate(r, "total") for r in v) for n, v in rounds.items()},
        "rows_per_s": {n: statistics.median(rate(r, "completions") for r in v) / width for n, v in rounds.items()},
        "peak_memory_mib": memory,
    }


def measure_memory(args: argparse.Namespace, data_set: DataSet, folder: Path) -> dict[str, int]:
    """Peak resident memory of each side in a process of its own, over its largest batches."""
    found = {}
    for side in "abc":
        command = [sys.executable, __file__, "--memory", side, "--only", data_set.name, "--model", str(folder)]
        command += [
            "--rows",
            str(args.rows),
            "--budget",
            str(args.budget),
            "--batch",
            str(args.batch),
            "--device",
            args.device,
        ]
        found[side] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return found


def main() -> None:
    args = parse()
    if args.table:
        print_table(args.table)
        return
    folder = make_model(Path(args.model or Path(tempfile.gettempdir()) / "plaudit-bench-model"))
    renderer = make_renderer(folder)
    chosen = [d for d in DATA_SETS if args.only in (None, d.name)]
    missing = [d.name for d in chosen if d.file and not (DATA / f"{d.file}.jsonl.gz").is_file()]
    if missing:
        sys.exit(f"{DATA} does not hold the data of {', '.join(missing)}; set PLAUDIT_DATA to a folder that does")
    if args.memory:
        print(largest(args, folder, sample_rows(chosen[0], renderer, args.rows)))
        return
    net = RewardModel.load(folder, dtype="bfloat16", device=args.device)
    budget = args.budget or Scorer(net, ScoreSettings()).budget
    sides = {
        "a": PaddedLoop(folder, args.device, args.batch),
        "b": Packed(net, budget, False),
        "c": Packed(net, budget, True),
    }
    threads = torch.get_num_threads()
    print(
        f"# {net.backend} on {args.device}, {threads} threads, {budget} tokens a pack, (a) in batches of {args.batch}"
    )
    for data_set in chosen:
        rows = sample_rows(data_set, renderer, args.rows)
        memory = measure_memory(args, data_set, folder) if not args.no_memory else {}
        print(json.dumps(report(data_set, rows, alternate(sides, rows, args, net), memory)), flush=True)


def print_table(file: str) -> None:
    """The lines of earlier runs as a Markdown table."""
    print(
        "| data | completions | (c)/(a) | five rounds | target | (b)/(a) | (c)/(b) | of the bound | (c) of peak |",
        end=" ",
    )
    print("tokens/s (a) (b) (c) | MiB (a) (b) (c) |")
    print("|" + "---|" * 11)
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        if not line.startswith("{"):
            continue
        r = json.loads(line)
        rounds = " ".join(f"{x:.2f}" for x in sorted(r["rounds"]["ca"]))
        target = f"{r['target_ca']:g}" if r["target_ca"] else ""
        cells = [r["data"], r["completions"], f"{r['ratio']['ca']:.2f}", rounds, target, f"{r['ratio']['ba']:.2f}"]
        cells += [
            f"{r['ratio']['cb']:.2f} of {r['sharing_bound']:.2f}",
            f"{r['cb_of_bound']:.0%}",
            f"{r['of_peak']['c']:.0%}",
        ]
        cells += [" ".join(f"{r['total_tokens_per_s'][side]:.0f}" for side in "abc")]
        cells += [" ".join(str(r["peak_memory_mib"].get(side, "-")) for side in "abc")]
        print("| " + " | ".join(map(str, cells)) + " |")


def make_renderer(folder: Path) -> Renderer:
    from transformers import AutoTokenizer

    settings = RenderSettings(max_length=CONTEXT, overlength=Overlength.RIGHT)
    return Renderer(AutoTokenizer.from_pretrained(folder), settings, context_length=CONTEXT)


def largest(args: argparse.Namespace, folder: Path, rows: Rows) -> int:
    """Run one side's three largest batches and give the peak resident (or device) memory in MiB."""
    if args.memory == "a":
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).to(args.device).eval()
        ordered = sorted((ids for row in rows for ids in row), key=len, reverse=True)
        for at in range(0, 3 * args.batch, args.batch):
            score_padded(model, ordered[at : at + args.batch], args.device)
    else:
        net = RewardModel.load(folder, dtype="bfloat16", device=args.device)
        side = Packed(net, args.budget or Scorer(net, ScoreSettings()).budget, args.memory == "c")
        for pack in sorted(side.batches(rows), key=lambda b: -count(b)[0])[:3]:
            side.score(pack)
    if args.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[d.name for d in DATA_SETS])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--budget", type=int, default=0)
    parser.add_argument("--model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory", choices=list("abc"), help=argparse.SUPPRESS)
    parser.add_argument("--table", metavar="FILE")
    parser.add_argument("--no-memory", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
