"""A `transformers.Trainer` whose checkpoints are whole or not there, and hold what is trained and nothing else.

Stands on `commits`, above `trainer`; knows nothing of rewards. The Trainer writes into a checkpoint's place as it goes,
and takes whatever stands there for one; here all ranks write beside the place, and the first moves the folder into it.
Invariant: a kill at any moment leaves the checkpoints that were committed, each with a manifest that verifies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from transformers import Trainer, TrainerState
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from plaudit.commits import WEIGHTS, commit_folder, find_fault, is_disk_full, load_weights, save_weights
from plaudit.engines import check_sharded, find_asked, from_first, gather_trained, put_trained
from plaudit.errors import InputError
from plaudit.files import remove_tree

DRAFTS = ".writing"
EXTRA, RECORD = "extra.safetensors", "record.json"


class CommittingTrainer(Trainer):
    """A Trainer with committed checkpoints."""

    _drafts: str | None = None

    @property
    def world(self) -> int:
        """How many ranks share a step."""
        return int(self.args.world_size)

    @property
    def is_sharded(self) -> bool:
        """Whether an engine keeps weights, gradients or masters in parts."""
        return bool(self.is_deepspeed_enabled or self.is_fsdp_enabled)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._prepare_for_training(*args, **kwargs)
        check_sharded(self._asked(), self.model_wrapped, self.world)
        return found

    def _asked(self) -> str | None:
        return find_asked({"deepspeed": self.args.deepspeed, "fsdp": self.args.fsdp})

    def whole_weights(self) -> dict[str, Tensor]:
        """What is trained, put together on the first rank; every rank has to ask."""
        return gather_trained(self.model)

    def tell(self, sentence: str) -> None:
        """Say something to whoever trains."""

    def extra_state(self) -> dict[str, Tensor]:
        """What is learned beside the model, for checkpoints."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Go on with what `extra_state` gave."""

    def extra_record(self) -> dict[str, Any]:
        """What else there is to know of a run, for checkpoints, as JSON: of the first rank; every rank is asked."""
        return {}

    def load_extra_record(self, record: dict[str, Any]) -> None:
        """Go on with what `extra_record` gave."""

    def _get_output_dir(self, trial: Any) -> str:
        return self._drafts or str(super()._get_output_dir(trial))

    def train_from(self, folder: Path | None) -> None:
        """Train from a checkpoint on; one that the run ended with is taken up, and nothing is trained."""
        state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME)) if folder else None
        if folder is None or state is None or not (state.global_step >= state.max_steps or _has_stopped(state)):
            self.train(resume_from_checkpoint=str(folder) if folder else None)
            return
        self.state = state
        self._load_from_checkpoint(str(folder))
        self._load_extra(folder)
        self._load_record(folder)
        self._load_best_model()

    def last_checkpoint(self) -> Path | None:
        """The newest one of this run."""
        found = sorted(Path(self.args.output_dir).glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
        return found[-1] if found else None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Written beside its place by all ranks, then committed by the first: whole, or not there."""
        out = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._drafts = str(out / DRAFTS)
        if self.args.should_save:
            remove_tree(out / DRAFTS)
        self._meet()
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise self._explain(error, out) from error
        finally:
            self._drafts = None
        self._meet()
        best = out / f"checkpoint-{self.state.best_global_step}"
        if best.name == name or best.is_dir():  # by its number: a run's folder may have been moved meanwhile
            self.state.best_model_checkpoint = str(best)
        record = json.dumps(self.extra_record())
        if self.args.should_save:
            try:
                self.state.save_to_json(str(out / DRAFTS / name / TRAINER_STATE_NAME))
                (out / DRAFTS / name / RECORD).write_text(record + "\n", encoding="utf-8")
                commit_folder(out / DRAFTS / name, out / name)
            except OSError as error:
                raise self._explain(error, out) from error
            rotate_checkpoints(
                output_dir=str(out),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self._meet()

    def _explain(self, error: Exception, out: Path) -> Exception:
        """A disk that is full is the user's to mend; the room that the draft took is given back."""
        if not is_disk_full(error):
            return error
        remove_tree(out / DRAFTS)
        last = self.last_checkpoint()
        return InputError(
            f"{out}: there was no room for the checkpoint of step {self.state.global_step}; the last good one is "
            f"{last or 'none yet'}; free some space, and go on with --resume"
        )

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """What is best so far is always saved, also between two steps of `save_steps`."""
        is_best = bool(super()._determine_best_metric(metrics, trial))
        if not is_best and self._is_surer(metrics):
            self.state.best_global_step, is_best = self.state.global_step, True
        if is_best:
            self.control.should_save = True
        return is_best

    def _is_surer(self, metrics: dict[str, float]) -> bool:
        """Whether the loss is lower where accuracy is what it was at its best: few comparisons tie often."""
        wanted = str(self.args.metric_for_best_model)
        loss = wanted.removesuffix("accuracy") + "loss"
        if wanted == loss or loss not in metrics or metrics.get(wanted) != self.state.best_metric:
            return False
        before = [
            row[loss] for row in self.state.log_history if row["step"] == self.state.best_global_step and loss in row
        ]
        return bool(before) and metrics[loss] < before[-1]

    def _meet(self) -> None:
        if self.world > 1:
            dist.barrier()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights that are trained, and nothing else: the rest is where the run's model came from."""
        weights = gather_trained(self.model)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        save_weights(weights, folder / WEIGHTS)
        if extra := self.extra_state():
            save_weights(extra, folder / EXTRA)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # The Trainer would write the model once more beside its optimizer.
        from accelerate.utils import save_fsdp_optimizer

        save_fsdp_optimizer(
            self.accelerator.state.fsdp_plugin, self.accelerator, self.optimizer, self.model, output_dir
        )
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._load_extra(Path(checkpoint))
            self._load_record(Path(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        put_trained(self.model, load_weights(folder / WEIGHTS), folder)

    def _load_extra(self, folder: Path) -> None:
        if (folder / EXTRA).is_file():
            self.load_extra_state(load_weights(folder / EXTRA))

    def _load_record(self, folder: Path) -> None:
        if (folder / RECORD).is_file():
            self.load_extra_record(json.loads((folder / RECORD).read_text(encoding="utf-8")))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is None:
            return
        best = Path(self.args.output_dir) / Path(self.state.best_model_checkpoint).name
        if fault := from_first(find_fault(best) if self.args.should_save else None):
            self.tell(f"the best checkpoint {best} cannot be used ({fault}): the last weights are kept")
            self.state.best_model_checkpoint = None
            return
        if self.is_deepspeed_enabled and self.model_wrapped is not self.model:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(best))
        self._load_extra(best)


def _has_stopped(state: TrainerState) -> bool:
    """Whether a checkpoint was written as early stopping ended the run."""
    control = state.stateful_callbacks.get("TrainerControl", {})
    return bool(control.get("attributes", {}).get("should_training_stop"))
