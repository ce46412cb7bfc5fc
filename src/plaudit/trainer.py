"""A thin `transformers.Trainer` that trains on packs: its arguments, callbacks, trackers and engines are kept.

Stands on `batches`, `losses`, `commits` and `model`. What differs from the Trainer it is: one item of its data loader
is one rank's share of an optimizer step (`batches.Step`), of any number of packs; the loss is a mean over the whole
step, whatever the packing, the ranks or the accumulation; narrow weights have fp32 masters; a step that is not a number
changes nothing and is named; metrics are exact means over examples; and checkpoints are whole or not there.

Invariant: the gradient of a step is that of its loss over all its Groups at once, to rounding.
Letters: L leaves, U units.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from plaudit.batches import Step, StepSet, StepStream, Unit, build_step
from plaudit.committing import CommittingTrainer
from plaudit.engines import keep_wide, of_all, reshard, widen_head
from plaudit.errors import InputError
from plaudit.losses import LossName, LossSettings, OrdinalState, Targets, combine_scores, compute_loss
from plaudit.masters import MasterOptimizer
from plaudit.memory import is_out_of_memory
from plaudit.meters import Meter
from plaudit.model import RewardNet
from plaudit.parts import say_on_stderr
from plaudit.skips import Skips, count_nonfinite, find_rows

if TYPE_CHECKING:
    from plaudit.batches import Example

SMALLEST_BUDGET = 256
EVAL_GROUPS = 1024
"""Groups that are packed together in an evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerSettings:
    """Our own dials beside TrainingArguments; `peak_flops` is what the device was measured to do, for MFU.

    `offload` keeps activations in the host's memory between a forward and its backward.
    """

    loss: LossSettings
    max_skipped: int = 5
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    offload: bool = False
    say: Callable[[str], None] = say_on_stderr


@dataclass(kw_only=True, slots=True)
class _Heard:
    """What the packs of one step said: losses with their rows, and scores with who should be above whom."""

    losses: list[Tensor] = field(default_factory=list)
    names: list[tuple[str, ...]] = field(default_factory=list)
    scores: list[tuple[Tensor, Targets]] = field(default_factory=list)

    def add(self, loss: Tensor, score_L: Tensor, targets: Targets, names: tuple[str, ...]) -> None:
        """One set of scores that were compared."""
        self.losses.append(loss.detach())
        self.names.append(names)
        self.scores.append((score_L.detach(), targets))

    def has_nonfinite(self) -> int:
        """1 if a loss or a score is infinite or NaN, else 0."""
        return int(not all(bool(x.isfinite().all()) for x in (*self.losses, *(score_L for score_L, _ in self.scores))))


class RewardTrainer(CommittingTrainer):
    """Trains a RewardNet on steps. `steps` is a StepSet or a StepStream, `evals` hold examples by name."""

    def __init__(
        self,
        net: RewardNet,
        args: TrainingArguments,
        steps: StepSet | StepStream,
        *,
        settings: TrainerSettings,
        evals: Mapping[str, list[Example]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.net, self.steps, self.settings, self.evals = net, steps, settings, dict(evals or {})
        self.meter = Meter(device=net.device)
        self.skips = Skips(most=settings.max_skipped, say=settings.say)
        self._budget = steps.settings.budget  # as it was set, before memory ran out
        self._masters: MasterOptimizer | None = None
        is_ordinal = settings.loss.name is LossName.ORDINAL
        self.thresholds = OrdinalState(settings.loss, device=net.device) if is_ordinal else None
        net.accept_packs()
        super().__init__(
            model=net.hf,
            args=args,
            train_dataset=steps,
            eval_dataset=self.evals or None,
            callbacks=[_Epochs(steps), *callbacks],
        )
        if self.is_sharded:
            widen_head(net.head)
            keep_wide(getattr(self.accelerator.state, "fsdp_plugin", None))
        self.remove_callback(PrinterCallback)  # whoever trains shows what is logged

    def tell(self, sentence: str) -> None:
        """Say something to whoever trains."""
        self.settings.say(sentence)

    # What the Trainer asks about the data.

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One step an item; no engine shards it, since every rank draws the same steps and takes its share."""
        if isinstance(self.steps, StepStream):
            return DataLoader(self.steps, batch_size=1, collate_fn=_only)
        return DataLoader(self.steps, batch_size=1, sampler=SequentialSampler(self.steps), collate_fn=_only)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], None]:
        """Steps, as they are: each knows what its mean is over."""
        return list(islice(epoch_iterator, num_batches)), None

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """Groups an epoch."""
        return len(self.steps.examples) if isinstance(self.steps, StepSet) else 0

    def floating_point_ops(self, inputs: Any) -> int:
        """Of this rank's share of a step."""
        return int(self.settings.flops_per_token * sum(unit.pack.num_unique for unit in inputs.units))

    # One step.

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The Trainer's own, over fp32 masters where weights are narrow and no engine keeps masters itself."""
        made: torch.optim.Optimizer = super().create_optimizer(model)
        is_narrow = any(p.requires_grad and p.dtype != torch.float32 for p in self._parameters())
        if is_narrow and not self.is_sharded and not isinstance(made, MasterOptimizer):
            made = self._masters = MasterOptimizer(made)
        self.optimizer: Any = made
        return made

    def _parameters(self) -> Iterator[Tensor]:
        return iter(self.model.parameters())

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all packs of this rank's share; the mean loss of the step comes back."""
        began = time.perf_counter()
        model.train()
        try:
            found = self._learn(model, inputs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(str(error))
            found = None
        if found is None:  # outside the handler, whose traceback would keep the failed step's memory
            return self.training_step(model, build_step(inputs.examples, self.steps.settings, inputs.number))
        self.meter.seconds += time.perf_counter() - began
        return found

    def _learn(self, model: Any, step: Step) -> Tensor:
        num_probes, num_units = self._agree(len(step.pieces), len(step.units))
        heard = _Heard()
        scale = (1 if self._masters is not None else self.world) / step.num_items
        slopes = self._probe(model, step, num_probes, heard, scale)
        filler = Unit(pack=step.filler, names=())
        units = [*step.units, *[filler] * (num_units - len(step.units))]
        for n, unit in enumerate(units):
            with self._syncing(model, is_last=n == len(units) - 1):
                with save_on_cpu() if self.settings.offload else contextlib.nullcontext():
                    loss = self._loss_of(model, unit, slopes, heard)
                kwargs = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
                self.accelerator.backward(loss * scale, **kwargs)
        if self._masters is not None and self.world > 1:
            self._masters.sum_over_ranks()
        return self._conclude(model, step, heard)

    def _agree(self, *counts: int) -> list[int]:
        """The largest of each count over all ranks: engines that gather weights need as many forwards on each."""
        if self.world == 1:
            return list(counts)
        found = torch.tensor(counts, device=self.args.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [int(n) for n in found]

    def _probe(self, model: Any, step: Step, num_probes: int, heard: _Heard, scale: float = 0.0) -> list[Tensor]:
        """The slope of the loss at every score of the Groups that do not fit into one pack."""
        sizes = [0] * len(step.wholes)
        for unit in step.pieces:
            sizes[unit.whole] += len(unit.pack.members_L)
        each = () if self.settings.loss.num_scores == 1 else (self.settings.loss.num_scores,)
        scores = [torch.zeros(size, *each, device=self.args.device) for size in sizes]
        with torch.no_grad():
            for unit in step.pieces:
                scores[unit.whole][unit.slots] = model(pack=unit.pack)
            for _ in range(num_probes - len(step.pieces)):
                model(pack=step.filler)
        slopes: list[Tensor] = []
        for number, (score_L, targets) in enumerate(zip(scores, step.wholes, strict=True)):
            targets = targets.to(score_L.device)
            with torch.enable_grad():
                loss = self._compute(score_L.requires_grad_(), targets)
            learned = [] if self.thresholds is None else self.thresholds.parameters()
            slope, *rest = torch.autograd.grad(loss, [score_L, *learned])
            slopes.append(slope)
            for leaf, grad in zip(learned if scale else [], rest if scale else [], strict=True):
                leaf.grad = grad * scale if leaf.grad is None else leaf.grad + grad * scale
            names = next(unit.names for unit in step.pieces if unit.whole == number)
            heard.add(loss, score_L, targets, names)
        return slopes

    def _loss_of(self, model: Any, unit: Unit, slopes: list[Tensor], heard: _Heard) -> Tensor:
        """What a unit adds to the step's loss, or for a piece, something with the same gradient."""
        at = None if unit.at is None else unit.at.to(self.args.device)
        score_L: Tensor = model(pack=unit.pack, at=at)
        if unit.whole >= 0:
            assert unit.slots is not None
            return (score_L * slopes[unit.whole][unit.slots]).sum()
        if unit.targets is None:
            return score_L.sum() * 0
        targets = unit.targets.to(score_L.device)
        loss = self._compute(score_L, targets)
        heard.add(loss, score_L, targets, unit.names)
        return loss

    def _compute(self, score_L: Tensor, targets: Targets) -> Tensor:
        return compute_loss(score_L, targets, self.settings.loss, self.thresholds)

    @contextlib.contextmanager
    def _syncing(self, model: Any, *, is_last: bool) -> Iterator[None]:
        """Gradients travel between ranks once a step: with the last backward, or not at all where masters do it."""
        if self.is_deepspeed_enabled:
            self.accelerator.gradient_state._set_sync_gradients(is_last)
        if self.is_sharded or (is_last and self._masters is None):
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def _conclude(self, model: Any, step: Step, heard: _Heard) -> Tensor:
        """Count the step, or if it is not a number leave everything as it was."""
        losses_U = torch.stack(heard.losses) if heard.losses else torch.zeros(1, device=self.args.device)
        total = losses_U.sum() * self.world / step.num_items
        bad = ~losses_U.isfinite()
        if self._agree(int(bad.any()))[0]:
            mine = [name for n, is_bad in enumerate(bad.tolist()) if is_bad for name in heard.names[n]]
            names = {name for share in of_all(mine) for name in share}
            self._skip([e for e in step.examples if e.name in names], "its loss")
            return torch.zeros_like(total)
        self._count(self.meter, step, heard)
        self._step = step
        self._move_thresholds()
        return total

    def _move_thresholds(self) -> None:
        """What `ordinal` learns beside the model; every rank moves its copy by the gradient of all."""
        if self.thresholds is None:
            return
        for leaf in self.thresholds.parameters():
            leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            if self.world > 1:
                dist.all_reduce(leaf.grad)
                leaf.grad /= 1 if self._masters is not None else self.world
        self.thresholds.step()

    def _clip_grad_norm(self, model: Any) -> Any:
        """The norm before clipping; a gradient that is not a number changes nothing."""
        if self._masters is not None:
            norm: Any = torch.nn.utils.clip_grad_norm_(list(self._masters.masters()), self.args.max_grad_norm)
        else:
            norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            if self.skips.last != self.state.global_step + 1:  # else DeepSpeed asks about a step that was skipped
                self._skip(self._step.examples, "its gradient")
            return torch.zeros(())
        return norm

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None and self._masters is not None:
            return torch.nn.utils.get_total_norm([m.grad for m in self._masters.masters() if m.grad is not None])
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _skip(self, examples: Sequence[Example], what: str) -> None:
        """Forget the step's gradients: without them an optimizer moves nothing. Then find out which rows they were."""
        self._forget()
        by_gradient = what == "its gradient"
        model: Any = self.model_wrapped
        model.eval()  # no lot is drawn, so that the steps to come are what they would have been
        skip = find_rows(
            self.state.global_step + 1,
            examples,
            self._has_number_gradient if by_gradient else self._has_number_loss,
            can_tell=not by_gradient or (self.world == 1 and not self.is_sharded),
        )
        reshard(model)
        model.train()
        self.skips.add(skip, what, self.last_checkpoint())

    def _has_number_loss(self, example: Example) -> bool:
        """Whether a row's own loss is a number. Every rank has to ask."""
        heard = self._hear(self.model_wrapped, build_step([example], self.steps.settings))
        return not self._agree(int(not all(bool(loss.isfinite()) for loss in heard.losses)))[0]

    def _has_number_gradient(self, example: Example) -> bool:
        """Whether the gradient of a row's own loss is."""
        step = build_step([example], self.steps.settings)
        heard = _Heard()
        slopes = self._probe(self.model, step, len(step.pieces), heard)
        for unit in step.units:
            self._loss_of(self.model, unit, slopes, heard).backward()
        moved = self._masters.masters() if self._masters is not None else self._parameters()
        norm = torch.nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None])
        self._forget()
        return bool(norm.isfinite())

    def _forget(self) -> None:
        (self._masters or self.model).zero_grad()
        if self.thresholds is not None:
            self.thresholds.zero_grad()

    def _halve(self, why: str) -> None:
        """Memory ran out: packs of half the size from now on."""
        settings = self.steps.settings
        if self.world > 1 or settings.budget // 2 < SMALLEST_BUDGET:
            raise InputError(
                f"memory ran out at {settings.budget:,} tokens a pack ({why.splitlines()[0][:80]}); "
                "set a smaller train.budget, or turn train.gradient_checkpointing on"
            )
        (self._masters or self.model).zero_grad()
        self.steps.settings = replace(settings, budget=settings.budget // 2)
        if self.args.device.type == "cuda":
            torch.cuda.empty_cache()
        self.settings.say(f"memory ran out: packs have {settings.budget // 2:,} tokens from now on")

    def extra_record(self) -> dict[str, Any]:
        """What was found out on the way: tokens that packs have, steps that were skipped, sums not yet logged."""
        found = {"asked": self._budget, "budget": self.steps.settings.budget, "skipped": self.skips.as_json()}
        return found | {"sums": self.meter.add_ranks()}

    def load_extra_record(self, record: Mapping[str, Any]) -> None:
        """Go on with it; a budget that someone has set since then is taken as it is."""
        self.skips.recall(record["skipped"])
        if self.args.process_index == 0:
            self.meter.recall(*record["sums"])
        settings = self.steps.settings
        if record["asked"] == settings.budget > record["budget"]:
            self.steps.settings = replace(settings, budget=record["budget"])
            self.tell(
                f"memory ran out at {settings.budget:,} tokens a pack before: {record['budget']:,}, as since then"
            )

    def extra_state(self) -> dict[str, Tensor]:
        """The thresholds that `ordinal` learns."""
        return {} if self.thresholds is None else self.thresholds.state_dict()

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Go on with them."""
        if self.thresholds is not None:
            self.thresholds.load_state_dict(state)

    # Numbers.

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Exact means over every eval set; with several, each has its name in its keys."""
        metrics: dict[str, float] = {}
        for name, examples in self.evals.items():
            lead = metric_key_prefix if len(self.evals) == 1 else f"{metric_key_prefix}_{name}"
            metrics |= {f"{lead}_{key}": value for key, value in self._measure(examples).items()}
        wanted = self.args.metric_for_best_model
        if wanted and self.is_in_train and wanted not in metrics:
            raise InputError(
                f"{wanted} was to choose the best checkpoint, and the evaluation data do not give it; "
                "set train.best_by to another, such as loss"
            )
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, examples: list[Example]) -> dict[str, float]:
        """One eval set, shared by the ranks as a step is."""
        meter, began = Meter(device=self.args.device), time.perf_counter()
        model: Any = self.model_wrapped
        was_training = model.training
        model.eval()
        nonfinite: list[str] = []
        for first in range(0, len(examples), EVAL_GROUPS):
            chunk = examples[first : first + EVAL_GROUPS]
            step = build_step(chunk, self.steps.settings)
            heard = self._hear(model, step)
            if not self._agree(heard.has_nonfinite())[0]:
                self._count(meter, step, heard)
                continue
            # One non-finite score would make every mean non-finite: measure the groups of this chunk one by one.
            for example in chunk:
                step = build_step([example], self.steps.settings)
                heard = self._hear(model, step)
                if self._agree(heard.has_nonfinite())[0]:
                    nonfinite.append(example.name)
                else:
                    self._count(meter, step, heard)
        meter.seconds = time.perf_counter() - began
        reshard(model)
        model.train(was_training)
        return meter.read() | count_nonfinite(nonfinite, len(examples), self.tell)

    def _hear(self, model: Any, step: Step) -> _Heard:
        """Losses and scores of this rank's share, and nothing learned from them. Every rank has to ask."""
        num_probes, num_units = self._agree(len(step.pieces), len(step.units) - len(step.pieces))
        heard = _Heard()
        self._probe(model, step, num_probes, heard)
        units = [unit for unit in step.units if unit.whole < 0]
        with torch.no_grad():
            for unit in units:
                self._loss_of(model, unit, [], heard)
            for _ in range(num_units - len(units)):
                model(pack=step.filler)
        return heard

    def _count(self, meter: Meter, step: Step, heard: _Heard) -> None:
        for score_L, targets in heard.scores:
            meter.add_scores(combine_scores(score_L, self.settings.loss), targets)
        if heard.losses:
            meter.add_loss(torch.stack(heard.losses).sum())
        meter.add_items(step.num_items / self.world)
        meter.add_tokens(sum(u.pack.num_unique for u in step.units), sum(u.num_total for u in step.units))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """What the Trainer logs, with exact means in place of means of means."""
        if "loss" in logs and "learning_rate" in logs:
            found = self.meter.read()
            if self.settings.peak_flops and "unique_tokens_per_second" in found:
                # Of all ranks together, against the peak of as many devices.
                rate = found["unique_tokens_per_second"] * self.settings.flops_per_token / self.world
                found["mfu"] = rate / self.settings.peak_flops
            logs = {**logs, **found, "skipped_steps": float(len(self.skips.steps))}
        super().log(logs, start_time)


class _Epochs(TrainerCallback):
    """Tells the steps which epoch it is, also after a resume."""

    def __init__(self, steps: StepSet | StepStream) -> None:
        self.steps = steps

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An epoch begins, or goes on where a checkpoint was written."""
        self.steps.epoch = int(state.epoch or 0)


def _only(rows: list[Step]) -> Step:
    return rows[0]
