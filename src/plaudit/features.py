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
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.arguments import best_metric, explain_missing
from plaudit.batches import Example, count_total, dense_leaves
from plaudit.config.schema import FitConfig
from plaudit.errors import ConfigError, InputError
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
from plaudit.model import PLAIN, RewardNet
from plaudit.pack import PackSettings, build_packs
from plaudit.parts import Say
from plaudit.skips import Skips, count_nonfinite, find_rows

Log = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSettings:
    """How the head is fitted: the loss, the `train` section of a configuration, the seed, tokens a pack."""

    loss: LossSettings
    fit: FitConfig
    seed: int
    budget: int
    log: Log
    say: Say


class Features:
    """The features of a set of examples, one row a reading of a completion, and what its labels ask of them."""

    def __init__(self, net: RewardNet, examples: Sequence[Example], budget: int) -> None:
        self.examples = list(examples)
        self.first = np.cumsum([0, *(sum(ids is not None for ids in e.readings) for e in examples)])
        self.rows: Tensor | None = None
        self.num_tokens = (0, 0)
        # Rows of one completion each where nothing can be shared.
        packing = PackSettings(budget=1 if net.backend == PLAIN else budget)
        for pack in build_packs([e.readings for e in examples], packing):
            with torch.inference_mode():
                hidden_LD = net.read_features(pack)
            if self.rows is None:
                self.rows = torch.zeros(int(self.first[-1]), hidden_LD.shape[1], device=hidden_LD.device)
            places = [int(self.first[g]) + dense_leaves(examples[g])[k] for g, k in pack.members_L]
            self.rows[places] = hidden_LD.clone()
            unique, total = self.num_tokens
            self.num_tokens = (unique + pack.num_unique, total + count_total(pack, examples))

    def drop_nonfinite(self) -> list[str]:
        """Drop the examples with a non-finite feature; their names. One of them would make every mean non-finite."""
        if self.rows is None:
            return []
        finite_L = self.rows.isfinite().all(-1)
        spans = [range(a, b) for a, b in pairwise(self.first.tolist())]
        kept = [n for n, span in enumerate(spans) if bool(finite_L[span.start : span.stop].all())]
        dropped = [e.name for n, e in enumerate(self.examples) if n not in set(kept)]
        if dropped:
            self.rows = self.rows[[place for n in kept for place in spans[n]]]
            self.examples = [self.examples[n] for n in kept]
            self.first = np.cumsum([0, *(len(spans[n]) for n in kept)])
        return dropped

    def draw(self, chosen: Sequence[int]) -> tuple[Tensor, Targets]:
        """Features of some examples, and targets that point at them."""
        assert self.rows is not None
        held: list[tuple[Items, dict[int, int], dict[int, int]]] = []
        places: list[int] = []
        start = 0
        for n in chosen:
            leaves = dense_leaves(self.examples[n])
            held.append(self.examples[n].place_scores({k: start + place for k, place in leaves.items()}))
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
    nonfinite = {name: data.drop_nonfinite() for name, data in held.items()}
    counts = {name: count_nonfinite(rows, len(evals[name]), settings.say) for name, rows in nonfinite.items()}
    seconds = time.perf_counter() - began
    unique, total = features.num_tokens
    fitted = _Descent(net, features, held, settings).descend()
    fitted["eval"] |= _flatten(counts) if held else {}
    return {
        **fitted,
        "pairs_per_second": sum(len(e.items.better_C) for e in train) / seconds,
        "unique_tokens_per_second": unique / seconds,
        "tokens_per_second": total / seconds,
        "sharing": total / unique,
        "mfu": None,
    }


class _Descent:
    """AdamW on the head, by the trainer's schedule; the head of the best evaluation is kept."""

    def __init__(
        self, net: RewardNet, features: Features, held: Mapping[str, Features], settings: HeadSettings
    ) -> None:
        self.net, self.features, self.held, self.settings = net, features, held, settings
        is_ordinal = settings.loss.name is LossName.ORDINAL
        self.thresholds = OrdinalState(settings.loss, device=net.device) if is_ordinal else None
        fit = settings.fit
        self.rate = float(fit.learning_rate or 1e-3)
        self.optimizer = torch.optim.AdamW(
            net.head.parameters(), lr=self.rate, weight_decay=fit.weight_decay, betas=fit.betas
        )
        self.per_epoch = math.ceil(len(features.examples) / fit.step_size)
        self.steps = fit.max_steps or math.ceil(fit.passes * self.per_epoch)
        self.skips = Skips(most=fit.max_skipped, say=settings.say)

    def descend(self) -> dict[str, Any]:
        """All steps."""
        every = max(1, int(self.settings.fit.eval_every or self.per_epoch))
        best: dict[str, Any] = {"score": (-math.inf, 0.0)}
        last: dict[str, float] = {}
        step = waited = 0
        while step < self.steps and waited < (self.settings.fit.patience or math.inf):
            step += 1
            last = self._step(step - 1) or last
            self.settings.log(step, self.steps, last)
            if step % every and step != self.steps:
                continue
            found = _flatten({name: self._measure(data) for name, data in self.held.items()})
            if found:
                self.settings.log(step, self.steps, {f"eval_{key}": value for key, value in found.items()})
            score = self._judge(found, step)
            waited = 0 if score > best["score"] else waited + 1
            if not waited:
                state = [p.detach().clone() for p in self.net.head.parameters()]
                best = {"score": score, "step": step, "eval": found, "state": state}
                if self.thresholds is not None:
                    best["thresholds"] = self.thresholds.state_dict()
        with torch.no_grad():
            for p, kept in zip(self.net.head.parameters(), best["state"], strict=True):
                p.copy_(kept)
        if self.thresholds is not None:
            # The thresholds belong to the scores of their step: the best head is saved with its own.
            self.thresholds.load_state_dict(best["thresholds"])
        return {
            "steps": step, "epochs": step / self.per_epoch, "eval": best["eval"],
            "best_step": best["step"], "train": {name: last.get(name) for name in ("loss", "accuracy", "margin")},
            "skipped_steps": self.skips.as_json(),
            "thresholds": self.thresholds.card() if self.thresholds is not None else None,
        }  # fmt: skip

    def _judge(self, found: Mapping[str, float], step: int) -> tuple[float, float]:
        """How good the head is, by `train.best_by` and then by its loss; without evaluation data the last is best."""
        if not found:
            return float(step), 0.0
        name = best_metric(self.settings.fit.best_by, list(self.held))
        if name not in found:
            raise InputError(explain_missing(self.settings.fit.best_by, found))
        loss = found[f"{name.rpartition('_')[0]}_loss".lstrip("_")]
        return -found[name] if name.endswith("loss") else found[name], -loss

    def _pace(self, step: int) -> float:
        """The share of the peak rate at a step: up through warm-up, then down to `min_rate_share`."""
        fit = self.settings.fit
        rising = math.ceil(fit.warmup * self.steps)
        if step < rising:
            return step / max(1, rising)
        done = (step - rising) / max(1, self.steps - rising)
        fallen = {"cosine": 0.5 - 0.5 * math.cos(math.pi * done), "linear": done}.get(fit.schedule, 0.0)
        return 1 - (1 - fit.min_rate_share) * fallen

    def _step(self, step: int) -> dict[str, float] | None:
        """One step, or none: a loss or a gradient that is not a number moves nothing."""
        epoch, number = divmod(step, self.per_epoch)
        size = self.settings.fit.step_size
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.features.examples)).tolist()
        chosen = order[number * size : (number + 1) * size]
        rows, targets = self.features.draw(chosen)
        meter = Meter(device=self.net.device)
        total = self._look(meter, rows, targets)
        self.optimizer.zero_grad()
        (total / targets.count).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.head.parameters(), self.settings.fit.max_grad_norm or math.inf)
        if not (total.isfinite() and norm.isfinite()):
            self._skip(step, chosen)
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * self._pace(step)
        self.optimizer.step()
        if self.thresholds is not None:
            self.thresholds.step()
        return meter.read()

    def _skip(self, step: int, chosen: Sequence[int]) -> None:
        """Forget the step's gradients, and name its rows."""
        self.optimizer.zero_grad()
        if self.thresholds is not None:
            self.thresholds.zero_grad()
        place = {id(self.features.examples[n]): n for n in chosen}
        examples = [self.features.examples[n] for n in chosen]
        self.skips.add(find_rows(step + 1, examples, lambda e: self._is_number(place[id(e)])), "it")

    def _is_number(self, n: int) -> bool:
        """Whether a row's own loss, and the gradient of it, are."""
        own = self._look(Meter(device=self.net.device), *self.features.draw([n]))
        slopes = torch.autograd.grad(own, list(self.net.head.parameters()))
        return bool(own.isfinite()) and all(bool(slope.isfinite().all()) for slope in slopes)

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
