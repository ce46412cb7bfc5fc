"""The head alone, on features of a frozen backbone: computed once, then fitted in seconds.

Stands on `batches` and `losses`, beside `trainer`. Every completion's last hidden state is kept; steps are drawn as the
trainer draws them, and the loss is the same function. Invariant: what is fitted is the head that `RewardNet.forward`
reads, so scores afterwards are those of the model as it is saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.batches import Example, dense_leaves
from plaudit.config.schema import FitConfig
from plaudit.errors import ConfigError
from plaudit.losses import (
    LOSSES,
    Items,
    LossName,
    LossSettings,
    OrdinalState,
    Reads,
    Targets,
    combine_scores,
    compute_loss,
    join_items,
)
from plaudit.meters import Meter
from plaudit.model import RewardNet
from plaudit.pack import PackSettings, build_packs

Log = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSettings:
    """How the head is fitted: the loss, the `train` section of a configuration, the seed, tokens a pack."""

    loss: LossSettings
    fit: FitConfig
    seed: int
    budget: int
    log: Log


class Features:
    """The features of a set of examples, one row a completion, and what its labels ask of them."""

    def __init__(self, net: RewardNet, examples: Sequence[Example], budget: int) -> None:
        self.examples = list(examples)
        self.first = np.cumsum([0, *(sum(ids is not None for ids in e.ids) for e in examples)])
        self.rows: Tensor | None = None
        self.num_tokens = (0, 0)
        for pack in build_packs([e.ids for e in examples], PackSettings(budget=budget)):
            with torch.inference_mode():
                hidden_LD = net.hidden_leaves(pack).float()
            if self.rows is None:
                self.rows = torch.zeros(int(self.first[-1]), hidden_LD.shape[1], device=hidden_LD.device)
            places = [int(self.first[g]) + dense_leaves(examples[g])[k] for g, k in pack.members_L]
            self.rows[places] = hidden_LD.clone()
            self.num_tokens = (self.num_tokens[0] + pack.num_unique, self.num_tokens[1] + pack.num_total)

    def draw(self, chosen: Sequence[int]) -> tuple[Tensor, Targets]:
        """Features of some examples, and targets that point at them."""
        assert self.rows is not None
        held: list[tuple[Items, dict[int, int]]] = []
        places: list[int] = []
        start = 0
        for n in chosen:
            leaves = dense_leaves(self.examples[n])
            held.append((self.examples[n].items, {k: start + place for k, place in leaves.items()}))
            places += range(int(self.first[n]), int(self.first[n + 1]))
            start += len(leaves)
        return self.rows[places], join_items(held).to(self.rows.device)


def fit_head(
    net: RewardNet, train: Sequence[Example], evals: Mapping[str, Sequence[Example]], settings: HeadSettings
) -> dict[str, Any]:
    """Fit the head; gives the final numbers, evaluation of the best head among them."""
    if LOSSES[settings.loss.name].reads is Reads.TOKENS:
        raise ConfigError(
            f"loss.name={settings.loss.name} reads many tokens, and a frozen backbone keeps one; choose another"
        )
    began = time.perf_counter()
    features = Features(net, train, settings.budget)
    held = {name: Features(net, rows, settings.budget) for name, rows in evals.items()}
    seconds = time.perf_counter() - began
    unique, total = features.num_tokens
    return {
        **_Descent(net, features, held, settings).descend(),
        "pairs_per_second": sum(len(e.items.better_C) for e in train) / seconds,
        "unique_tokens_per_second": unique / seconds,
        "tokens_per_second": total / seconds,
        "sharing": total / unique,
        "mfu": None,
        "skipped_steps": [],
    }


class _Descent:
    """AdamW on the head; the head of the best evaluation is kept."""

    def __init__(
        self, net: RewardNet, features: Features, held: Mapping[str, Features], settings: HeadSettings
    ) -> None:
        self.net, self.features, self.held, self.settings = net, features, held, settings
        is_ordinal = settings.loss.name is LossName.ORDINAL
        self.thresholds = OrdinalState(settings.loss, device=net.device) if is_ordinal else None
        fit = settings.fit
        self.optimizer = torch.optim.AdamW(
            net.head.parameters(), lr=float(fit.learning_rate or 1e-3), weight_decay=fit.weight_decay
        )
        self.per_epoch = math.ceil(len(features.examples) / fit.groups_per_step)
        self.steps = fit.max_steps or math.ceil(fit.epochs * self.per_epoch)

    def descend(self) -> dict[str, Any]:
        """All steps."""
        every = max(1, int(self.settings.fit.eval_every or self.per_epoch))
        best: dict[str, Any] = {"score": -math.inf}
        last: dict[str, float] = {}
        for step in range(1, self.steps + 1):
            last = self._step(step - 1)
            self.settings.log(step, self.steps, last)
            if step % every and step != self.steps:
                continue
            found = {name: self._measure(data) for name, data in self.held.items()}
            self.settings.log(step, self.steps, {f"eval_{key}": value for key, value in _flatten(found).items()})
            score = next(iter(found.values()), {}).get("accuracy", float(step))
            if score > best["score"]:
                weight = self.net.head.weight.detach().clone()
                best = {"score": score, "step": step, "eval": _flatten(found), "weight": weight}
        self.net.head.weight.data.copy_(best["weight"])
        return {
            "steps": self.steps, "epochs": self.steps / self.per_epoch, "eval": best["eval"],
            "best_step": best["step"], "train": {name: last.get(name) for name in ("loss", "accuracy", "margin")},
            "thresholds": self.thresholds.card() if self.thresholds is not None else None,
        }  # fmt: skip

    def _step(self, step: int) -> dict[str, float]:
        epoch, number = divmod(step, self.per_epoch)
        size = self.settings.fit.groups_per_step
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.features.examples)).tolist()
        rows, targets = self.features.draw(order[number * size : (number + 1) * size])
        meter = Meter(device=self.net.device)
        total = self._look(meter, rows, targets)
        self.optimizer.zero_grad()
        (total / targets.count).backward()
        self.optimizer.step()
        if self.thresholds is not None:
            self.thresholds.step()
        return meter.read()

    def _look(self, meter: Meter, rows: Tensor, targets: Targets) -> Tensor:
        loss = self.settings.loss
        score_L = self.net.head(rows).squeeze(-1)
        total = compute_loss(score_L, targets, loss, self.thresholds)
        meter.add_loss(total)
        meter.add_items(targets.count)
        meter.add_scores(combine_scores(score_L, loss), targets)
        return total

    def _measure(self, data: Features) -> dict[str, float]:
        """Exact means over one set."""
        meter = Meter(device=self.net.device)
        with torch.no_grad():
            self._look(meter, *data.draw(range(len(data.examples))))
        return meter.read()


def _flatten(found: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """One set's numbers under their own names; of several, each name led by its set's."""
    if len(found) == 1:
        return dict(next(iter(found.values())))
    return {f"{name}_{key}": value for name, values in found.items() for key, value in values.items()}
