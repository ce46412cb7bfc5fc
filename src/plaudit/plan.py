"""What a run leaves to be found out: mode, learning rate, passes, groups a step, tokens a pack, when to evaluate.

Stands on `config`, `memory` and `model`, above `train`. Every choice comes with the reason that is printed and saved.
Rates come from public practice by size, the smallest size's from runs (LOG.md). Invariant: what a
person set stays as it was set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from plaudit.config import Settled
from plaudit.config.schema import LARGEST_STEP
from plaudit.memory import free_memory
from plaudit.model import RewardNet

FULL_RATES = ((0.25e9, 1e-4), (0.75e9, 2e-5), (2e9, 1e-5), (5e9, 5e-6), (15e9, 3e-6), (math.inf, 1e-6))
"""(parameters up to, rate) for training every weight."""

LORA_FACTOR = 10.0
LORA_FROM = 1.5e9
"""From this many parameters on, adapters are the default: every weight with its masters takes 16 bytes."""

FEATURE_RATE = 3e-3
FEATURE_EPOCHS = 40.0
FEWEST_STEPS = 40
"""Steps below which a step takes fewer groups: a rate has to rise and to fall, and weights have to move."""

SMALLEST_STEP = 8
LARGEST_BUDGET = {"cpu": 2048, "cuda": 32768}
SMALLEST_BUDGET = 512
EVALUATIONS, FEWEST_EVALUATIONS = 8, 3
"""Evaluations in a run, if nobody says how many; fewer where they would take more than a quarter of its time."""

EVALUATION_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes: what weights, gradients and the optimizer take, what one token's activations take, and what is free."""

    fixed: int
    per_token: int
    per_token_checkpointed: int
    free: int


def choose_mode(settled: Settled, num_parameters: int) -> Settled:
    """Adapters or every weight."""
    config = settled.config
    if config.lora.enabled is not None:
        return settled
    if config.train.backbone == "frozen":
        return settled.settle({"lora.enabled": False}, "the backbone is frozen")
    if config.lora.bits is not None:
        return settled.settle({"lora.enabled": True}, f"weights of {config.lora.bits} bits need adapters")
    is_large = num_parameters >= LORA_FROM
    size = f"{num_parameters / 1e9:.2g}B parameters"
    why = f"{size}, {'at least' if is_large else 'fewer than'} {LORA_FROM / 1e9:g}B"
    return settled.settle({"lora.enabled": is_large}, why)


def choose_rate(settled: Settled, num_parameters: int) -> Settled:
    """The peak learning rate by size and mode."""
    config = settled.config
    if config.train.learning_rate is not None:
        return settled
    if config.train.backbone == "frozen":
        return settled.settle({"train.learning_rate": FEATURE_RATE}, "a head on fixed features")
    rate = next(rate for limit, rate in FULL_RATES if num_parameters <= limit)
    if config.lora.enabled:
        return settled.settle(
            {"train.learning_rate": rate * LORA_FACTOR}, f"{LORA_FACTOR:g} x the rate of {rate:g} for every weight"
        )
    return settled.settle({"train.learning_rate": rate}, f"{num_parameters / 1e9:.2g}B parameters, all trained")


def choose_steps(settled: Settled, num_groups: int | None) -> Settled:
    """Passes and groups a step; of a stream nobody knows how many groups come."""
    train = settled.config.train
    is_frozen = train.backbone == "frozen"
    if train.epochs is None:
        why = "a head on fixed features learns in seconds" if is_frozen else "what is seen twice is soon known by heart"
        settled = settled.settle({"train.epochs": FEATURE_EPOCHS if is_frozen else 1.0}, why)
    if train.groups_per_step is None:
        size, why = LARGEST_STEP, "as many as gain anything"
        if num_groups is not None and train.max_steps is None:
            total = num_groups * settled.config.train.passes
            size = min(LARGEST_STEP, max(SMALLEST_STEP, 2 ** int(math.log2(max(1.0, total / FEWEST_STEPS)))))
            if size < LARGEST_STEP:
                why = f"{num_groups:,} groups, at least {FEWEST_STEPS} steps where they allow it"
        settled = settled.settle({"train.groups_per_step": size}, why)
    return settled


def measure_memory(net: RewardNet) -> Memory:
    """What training this net takes, from its shapes: an estimate, which running out of memory corrects."""
    config = net.hf.config.get_text_config()
    hidden = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    layers = int(getattr(config, "num_hidden_layers", 1))
    size = net.dtype.itemsize
    trained = sum(p.numel() for p in net.hf.parameters() if p.requires_grad)
    # A trained narrow weight has a gradient on the way, and in fp32 a master, a gradient and Adam's two averages.
    fixed = trained * (16 + (size if size < 4 else 0))
    one = (12 * hidden + 4 * inner) * size
    return Memory(
        fixed=fixed,
        per_token=layers * one,
        per_token_checkpointed=layers * hidden * size + one,
        free=free_memory(net.device),
    )


def choose_memory(settled: Settled, memory: Memory, device: torch.device) -> Settled:
    """Tokens a pack, and whether activations are computed twice: on only where half of what is free asks for it."""
    config = settled.config
    room = max(memory.free - memory.fixed, 0) // 2
    largest = LARGEST_BUDGET.get(device.type, 4096)
    mode = config.train.gradient_checkpointing
    plain, saving = (int(room // each) // 256 * 256 for each in (memory.per_token, memory.per_token_checkpointed))
    if mode == "auto":
        wanted = config.train.budget or min(largest, 2048)
        mode = "on" if plain < wanted else "off"
        why = f"{plain:,} tokens of activations fit, {wanted:,} were wanted"
        settled = settled.settle({"train.gradient_checkpointing": mode}, why)
    if config.train.budget is None:
        fitting = saving if mode == "on" else plain
        budget = max(SMALLEST_BUDGET, min(largest, fitting))
        why = f"{fitting:,} tokens fit into half of what is free, more than {largest:,} gain nothing"
        settled = settled.settle({"train.budget": budget}, why)
    return settled


def choose_pace(settled: Settled, num_steps: int, cost: float = 0.0) -> Settled:
    """When to evaluate and when to save; `cost` is that of one evaluation, as a share of all training."""
    count, why = EVALUATIONS, ""
    if cost * EVALUATIONS > EVALUATION_SHARE:
        count, why = max(FEWEST_EVALUATIONS, int(EVALUATION_SHARE / cost)), f"; one takes {cost:.0%} of the training"
    every = max(1, -(-num_steps // count))
    if settled.config.train.eval_every is None:
        settled = settled.settle({"train.eval_every": every}, f"{num_steps:,} steps, {count} evaluations{why}")
    if settled.config.train.save_every is None:
        settled = settled.settle({"train.save_every": settled.config.train.eval_every}, "with each evaluation")
    return settled


def count_steps(settled: Settled, num_groups: int) -> int:
    """Optimizer steps of the whole run."""
    train = settled.config.train
    if train.max_steps is not None:
        return train.max_steps
    return math.ceil(train.passes * -(-num_groups // train.step_size))


def count_flops(net: RewardNet) -> float:
    """Of one token, forward and backward: 6 a weight that is trained, 4 a frozen one in a matrix product (2 + 2).

    A backbone that is frozen as a whole is never gone through backward: 2 a weight."""
    embeddings = {id(p) for m in net.hf.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    weights = [p for p in net.backbone.parameters() if p.ndim >= 2 and id(p) not in embeddings]
    frozen = 4 if any(p.requires_grad for p in net.backbone.parameters()) else 2
    return float(sum((6 if p.requires_grad else frozen) * p.numel() for p in weights))


def estimate(net: RewardNet, settled: Settled, *, tokens: tuple[int, int], gflops: float) -> dict[str, Any]:
    """What a run of so many tokens, unique and in all, will take: memory, and time at half of the measured peak."""
    memory, (unique, total) = measure_memory(net), tokens
    train = settled.config.train
    each = memory.per_token_checkpointed if train.gradient_checkpointing == "on" else memory.per_token
    weights = sum(p.numel() * p.element_size() for p in net.hf.parameters())
    seconds = unique * count_flops(net) / (gflops * 1e9 * 0.5)
    return {
        "unique_tokens": unique,
        "total_tokens": total,
        "sharing": total / unique,
        "memory_bytes": weights + memory.fixed + each * (train.budget or SMALLEST_BUDGET),
        "seconds": seconds,
    }
