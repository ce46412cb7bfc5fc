"""A `transformers.Trainer` whose checkpoints are whole or not there, and hold what is trained and nothing else.

Stands on `commits`, above `trainer`; knows nothing of rewards. The Trainer writes into a checkpoint's place as it goes,
and takes whatever stands there for one; here all ranks write beside the place, and the first moves the folder into it.
Invariant: a kill at any moment leaves the checkpoints that were committed, each with a manifest that verifies.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from plaudit.commits import WEIGHTS, commit_folder, load_weights, put_weights, save_weights

DRAFTS = ".writing"
EXTRA = "extra.safetensors"


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

    def extra_state(self) -> dict[str, Tensor]:
        """What is learned beside the model, for checkpoints."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Go on with what `extra_state` gave."""

    def _get_output_dir(self, trial: Any) -> str:
        return self._drafts or str(super()._get_output_dir(trial))

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
            shutil.rmtree(out / DRAFTS, ignore_errors=True)
        self._meet()
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._drafts = None
        self._meet()
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(out / name)
        if self.args.should_save:
            self.state.save_to_json(str(out / DRAFTS / name / TRAINER_STATE_NAME))
            commit_folder(out / DRAFTS / name, out / name)
            rotate_checkpoints(
                output_dir=str(out),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self._meet()

    def _meet(self) -> None:
        if self.world > 1:
            dist.barrier()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The weights that are trained, and nothing else: the rest is where the run's model came from."""
        if not self.args.should_save:
            return
        names = {_plain(name) for name, p in self.model.named_parameters() if p.requires_grad}
        state = state_dict if state_dict is not None else self.model.state_dict()
        folder = Path(output_dir or self.args.output_dir)
        save_weights({name: x for name, x in state.items() if name in names}, folder / WEIGHTS)
        if extra := self.extra_state():
            save_weights(extra, folder / EXTRA)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self._load(Path(resume_from_checkpoint))

    def _load(self, folder: Path) -> None:
        put_weights(self.model, load_weights(folder / WEIGHTS), folder)
        if (folder / EXTRA).is_file():
            self.load_extra_state(load_weights(folder / EXTRA))

    def _load_best_model(self) -> None:
        if self.is_sharded:
            super()._load_best_model()
        elif self.state.best_model_checkpoint is not None:
            self._load(Path(self.state.best_model_checkpoint))


def _plain(name: str) -> str:
    """A parameter's name without what engines put in front of it."""
    return name.replace("_fsdp_wrapped_module.", "").removeprefix("module.").removeprefix("_orig_mod.")
