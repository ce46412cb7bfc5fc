"""How much of the time a device computes, with a device that is simulated: the host's part of scoring, by itself.

    python bench/overlap.py                      # K = 2, 8 and 64, a device of 330,000 tokens a second
    python bench/overlap.py --launches 400       # and 400 small operations a forward, as a real one launches kernels

The model sleeps instead of computing, so it needs no core and holds no lock of Python's. Two kinds of it:

    waits     `forward` sleeps until the pack is done, as on a CPU
    queues    `forward` returns at once, packs are done one after another, and fetching scores waits, as on a GPU

Groups are HH prompts with K answers of HH, the tokenizer is SmolLM2's, plans are those of the varlen back end. Printed
for each K and kind: the share of the wall time in which the device computes, by the pipeline and by what was there
before it (windows rendered ahead, and everything else between two forwards); the median of some rounds, in turn. The
first window, which nothing can hide, is left out. Beside it: CPU time of the host for each stage. Load by other
programs lowers the shares, so the load average is printed too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch

from plaudit import score as scoring
from plaudit.checkpoint import Checkpoint
from plaudit.embedded import resolve_model
from plaudit.group import Completion, Group
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.render import Overlength, RenderSettings
from plaudit.score import RewardModel, Scorer, Scores, ScoreSettings

DATA = Path(os.environ.get("PLAUDIT_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Late(torch.Tensor):
    """Scores of a pack that is not done yet."""

    done_at: float


class Device:
    """Computes packs one after another, so many tokens a second; `busy` is what it has computed, in seconds."""

    def __init__(self, speed: float) -> None:
        self.speed, self.busy, self.free_at = speed, 0.0, 0.0

    def run(self, pack: Pack) -> float:
        """Queue a pack; gives the time at which it is done."""
        seconds = pack.num_unique / self.speed
        self.busy += seconds
        self.free_at = max(self.free_at, time.perf_counter()) + seconds
        return self.free_at


class Sleeper(RewardModel):
    """A reward model whose forward does all that the host has to do, and leaves the rest to a simulated device."""

    device_model: Device
    kind = "waits"
    launches = 0

    def forward(self, pack: Pack, at: Any = None) -> torch.Tensor:
        self.prepare(pack)
        x = torch.zeros(8)
        for _ in range(self.launches):
            x.add_(1.0)
        done_at = self.device_model.run(pack)
        scores = torch.zeros(len(pack.members_L))
        if self.kind == "waits":
            wait_until(done_at)
            return scores
        late = scores.as_subclass(Late)
        late.done_at = done_at
        return late


def wait_until(moment: float) -> None:
    if (left := moment - time.perf_counter()) > 0:
        time.sleep(left)


class LateFetch(scoring.LateScores):
    """Fetches scores from the simulated device."""

    def __init__(self, scores_L: Any) -> None:
        self.scores_L = scores_L

    def __call__(self) -> list[float]:
        wait_until(self.scores_L.done_at)
        return torch.Tensor.tolist(self.scores_L)  # type: ignore[no-any-return]


def make_model() -> Sleeper:
    """A model that is small enough to be made in memory, with the tokenizer of the embedded one."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=8192, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    hf = LlamaForSequenceClassification(config)
    net = Sleeper(hf, tokenizer, Checkpoint(folder=Path(), config=config.to_dict(), tensors={}, head="score.weight"))
    net.backend = "varlen"
    return net


def make_groups(k: int, completions: int) -> list[Group]:
    """HH prompts, each with k answers of any prompt."""
    with gzip.open(DATA / "train_hh.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    rng = random.Random(0)
    rng.shuffle(rows)
    answers = [str(turn["content"]) for row in rows for side in ("chosen", "rejected") for turn in as_turns(row[side])]
    prompts = [row["prompt"] if isinstance(row["prompt"], str) else tuple(row["prompt"]) for row in rows]
    return [
        Group(
            prompt=prompts[n % len(prompts)],
            completions=tuple(Completion(content=rng.choice(answers)) for _ in range(k)),
        )
        for n in range(completions // k)
    ]


def as_turns(answer: Any) -> list[dict[str, Any]]:
    return [{"content": answer}] if isinstance(answer, str) else list(answer)


def score_before(scorer: Scorer, groups: Sequence[Group]) -> Iterator[Scores]:
    """As it was: the next window is rendered beside this one, packs and plans are made when their turn comes."""
    source, net = iter(groups), scorer.net
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(lambda: scorer.renderer.render(list(islice(source, scorer.window))))
        while rendered := coming.result():
            coming = ahead.submit(lambda: scorer.renderer.render(list(islice(source, scorer.window))))
            found: list[list[float | None]] = [[None] * len(one.ids) for one in rendered]
            for pack in build_packs([one.ids for one in rendered], PackSettings(budget=scorer.budget)):
                for (group, completion), value in zip(pack.members_L, scoring.start_fetch(net(pack))(), strict=True):
                    found[group][completion] = value
            yield from (scorer._finish(one, row) for one, row in zip(rendered, found, strict=True))


def measure(net: Sleeper, groups: list[Group], args: argparse.Namespace, side: str) -> float:
    """The device's share of the wall time, from the first Scores to the last."""
    k = len(groups[0].completions)
    render = RenderSettings(max_length=2048, overlength=Overlength.RIGHT)
    scorer = Scorer(net, ScoreSettings(budget=args.budget, window=max(1, args.window // k), render=render))
    device = net.device_model = Device(args.speed)
    stream = scorer.score_groups(groups) if side == "pipeline" else score_before(scorer, groups)
    began, busy = 0.0, 0.0
    for number, _ in enumerate(stream):
        if number == 0:
            # What is under way by now was launched before, so that its part is counted by neither clock.
            began, busy = max(time.perf_counter(), device.free_at), device.busy
    return (device.busy - busy) / (time.perf_counter() - began)


def measure_host(net: Sleeper, groups: list[Group], args: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of each stage, on one thread, for as many tokens as the device computes in a second."""
    scorer = Scorer(net, ScoreSettings(budget=args.budget, render=RenderSettings(max_length=2048, overlength="right")))  # type: ignore[arg-type]
    times = [time.process_time()]
    rendered = scorer.render(groups)
    times.append(time.process_time())
    packs = build_packs([one.ids for one in rendered], PackSettings(budget=args.budget))
    times.append(time.process_time())
    for pack in packs:
        net.prepare(pack)
    times.append(time.process_time())
    share = args.speed / sum(pack.num_unique for pack in packs)
    stages = zip(("render", "pack", "plan"), pairwise(times), strict=True)
    return {name: share * (after - before) for name, (before, after) in stages}


def main() -> None:
    args = parse()
    sys.setswitchinterval(args.switch_interval)
    # A simulated device needs no GPU, and a plan on the CPU costs the host what a plan for a GPU does.
    fetch = scoring.start_fetch
    scoring.start_fetch = lambda scores: LateFetch(scores) if isinstance(scores, Late) else fetch(scores)
    net = make_model()
    net.launches = args.launches
    for k in args.k:
        groups = make_groups(k, args.completions)
        line: dict[str, Any] = {"k": k, "groups": len(groups), "budget": args.budget, "launches": args.launches}
        line["host_cpu_seconds_per_device_second"] = {
            name: round(seconds, 3) for name, seconds in measure_host(net, groups, args).items()
        }
        for kind in ("waits", "queues"):
            net.kind = kind
            shares: dict[str, list[float]] = {"before": [], "pipeline": []}
            for _ in range(args.rounds):
                for side, found in shares.items():
                    found.append(measure(net, groups, args, side))
            line[kind] = {side: round(statistics.median(found), 3) for side, found in shares.items()}
            line[kind]["ratio"] = round(line[kind]["pipeline"] / line[kind]["before"], 3)
        line["load_average"] = round(os.getloadavg()[0], 1)
        print(json.dumps(line), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, nargs="+", default=[2, 8, 64])
    parser.add_argument("--completions", type=int, default=8192)
    parser.add_argument("--speed", type=float, default=330_000.0)
    parser.add_argument("--budget", type=int, default=32768)
    parser.add_argument("--window", type=int, default=512, help="completions a window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--switch-interval", type=float, default=sys.getswitchinterval())
    parser.add_argument("--launches", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
