"""The whole of training a reward model on one page, without a Trainer: read, split, render, pack, step, measure, save.

    python examples/loop.py pairs.jsonl --model smollm2 --out reward-model

Every name here is one that `plaudit train` uses too; what that adds is resuming, several processes, alarms, a report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

import plaudit
from plaudit import Group, RewardModel
from plaudit.keys import draw_lot, prompt_key
from plaudit.masters import MasterOptimizer
from plaudit.measure import build_table, measure_accuracy
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.render import Rendered, Renderer

Loss = Callable[[torch.Tensor, Pack, Sequence[Sequence[tuple[int, int]]]], torch.Tensor]
"""Scores of a pack's leaves, the pack, the comparisons (better, worse) of each of the step's Groups -> a sum."""


def split_by_prompt(groups: Sequence[Group], share: float, seed: int = 0) -> tuple[list[Group], list[Group]]:
    """Training and held-out Groups; all Groups of one prompt are on the same side."""
    held = {key for key in map(prompt_key, groups) if draw_lot(seed, "split", key) < share * 2**64}
    train = [group for group in groups if prompt_key(group) not in held]
    return train, [group for group in groups if prompt_key(group) in held]


def draw_steps(num: int, size: int, seed: int) -> Iterator[list[int]]:
    """Numbers of the Groups of each optimizer step, in an order that the seed draws."""
    order = np.random.default_rng(seed).permutation(num).tolist()
    yield from (order[at : at + size] for at in range(0, num, size))


def read_both_ends(rendered: Rendered) -> Rendered:
    """Every completion to its last token, then to the token that closes it, if the template writes white space there.

    Some consumers read the score at one, some at the other. The second half are prefixes: they cost no token.
    """
    if not any(rendered.trailing):
        return rendered
    ends = zip(rendered.ids, rendered.trailing, strict=True)
    closing = (ids if ids is None else ids[: len(ids) - count] for ids, count in ends)
    return replace(rendered, ids=(*rendered.ids, *closing))


def find_comparisons(groups: Sequence[Group], rendered: Sequence[Rendered]) -> list[list[tuple[int, int]]]:
    """For each Group the comparisons that can be learned from: no ties, both sides rendered; at each end."""
    return [
        [
            (c.better + end, c.worse + end)
            for c in g.comparisons()
            for end in range(0, len(r.ids), len(g.completions))
            if not c.is_tie and r.ids[c.better] is not None and r.ids[c.worse] is not None
        ]
        if r.dropped is None
        else []
        for g, r in zip(groups, rendered, strict=True)
    ]


def find_gaps(scores_L: torch.Tensor, pack: Pack, said: Sequence[Sequence[tuple[int, int]]]) -> torch.Tensor:
    """By how much the better one scores higher, for each comparison of the pack's Groups."""
    leaf_of = {member: leaf for leaf, member in enumerate(pack.members_L)}
    pairs = [(leaf_of[g, a], leaf_of[g, b]) for g in {g for g, _ in pack.members_L} for a, b in said[g]]
    better, worse = torch.tensor(pairs, dtype=torch.long, device=scores_L.device).reshape(-1, 2).T
    return scores_L[better] - scores_L[worse]


def bradley_terry(scores_L: torch.Tensor, pack: Pack, said: Sequence[Sequence[tuple[int, int]]]) -> torch.Tensor:
    """The sum over the pack's comparisons of -log sigmoid(better - worse)."""
    return -F.logsigmoid(find_gaps(scores_L, pack, said)).sum()


def train(net: RewardModel, groups: Sequence[Group], loss_of: Loss, args: argparse.Namespace) -> None:
    """One epoch. A step is a number of Groups; how they are packed changes memory, and nothing else."""
    rendered = [read_both_ends(r) for r in Renderer(net.tokenizer, context_length=net.context_length).render(groups)]
    said = find_comparisons(groups, rendered)
    useful = [n for n, claims in enumerate(said) if claims]
    # Float32 masters beside bfloat16 weights: a step of 3e-5 is lost in eight bits of mantissa.
    optimizer = MasterOptimizer(torch.optim.AdamW(net.parameters(), lr=args.rate, fused=True))
    steps = list(draw_steps(len(useful), args.groups_per_step, args.seed))
    for number, chosen in enumerate(steps):
        rows = [useful[n] for n in chosen]
        total = sum(len(said[n]) for n in rows)
        start, loss_sum, tokens = time.perf_counter(), 0.0, 0
        for pack in build_packs([rendered[n].ids for n in rows], PackSettings(budget=args.budget, whole=True)):
            loss = loss_of(net(pack), pack, [said[n] for n in rows]) / total
            loss.backward()
            loss_sum, tokens = loss_sum + loss.item(), tokens + pack.num_unique
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1.0, (number + 1) / 10) * (1 - number / len(steps))
        optimizer.step()
        optimizer.zero_grad()
        rate = tokens / (time.perf_counter() - start)
        print(f"step {number + 1}/{len(steps)}  loss {loss_sum:.4f}  {rate:,.0f} unique tokens/s", flush=True)


def measure(net: RewardModel, groups: Sequence[Group]) -> str:
    """Accuracy on Groups that were held out, with its interval by prompt."""
    found = measure_accuracy(build_table(groups, [scores.scores for scores in net.score_groups(groups)]))
    return f"{found.accuracy:.1%} of {found.n} held-out comparisons right, 95% interval {found.accuracy_ci}"


def main(loss: Loss = bradley_terry) -> None:
    """Read, split, train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", default="reward-model")
    parser.add_argument("--rate", type=float, default=3e-5)
    parser.add_argument("--groups-per-step", type=int, default=32)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    groups, held_out = split_by_prompt(list(plaudit.read(args.data)), args.held_out, args.seed)
    print(f"{len(groups)} groups to train on, {len(held_out)} held out")
    net = plaudit.load(args.model, new_head=True, dtype=args.dtype)
    train(net, groups, loss, args)
    net.is_new = False
    print(measure(net, held_out))
    net.save(args.out)
    print(f"saved: {args.out}")


if __name__ == "__main__":
    main()
