"""Our settings as TrainingArguments, through one table; every other name passes through `hf`.

Stands on `config`, above `train`. Invariant: what a setting of ours decides is said in one place, here; a name under
`hf` that TrainingArguments does not know is refused with the nearest one.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from plaudit.config import TrainConfig
from plaudit.engines import find_asked
from plaudit.errors import ConfigError


def engine_of(config: TrainConfig) -> str | None:
    """`fsdp` or `deepspeed`, if the launcher or the configuration asks for one."""
    return find_asked(config.hf)


def build_arguments(
    config: TrainConfig, out: Path, *, has_evals: bool, device: str, is_narrow: bool
) -> TrainingArguments:
    """TrainingArguments of a run whose settings are all settled."""
    train = config.train
    lead = "eval"
    best, _, name = train.best_by.rpartition("/")
    told: dict[str, Any] = {
        "output_dir": str(out),
        "per_device_train_batch_size": 1,  # an item of the loader is a rank's share of a step
        "gradient_accumulation_steps": 1,
        "num_train_epochs": train.epochs,
        "max_steps": train.max_steps or -1,
        "learning_rate": train.learning_rate,
        **_schedule(config),
        "weight_decay": train.weight_decay,
        "adam_beta1": train.betas[0],
        "adam_beta2": train.betas[1],
        "max_grad_norm": train.max_grad_norm or 0.0,
        "optim": train.optimizer,
        "logging_steps": train.log_every,
        "logging_first_step": True,
        "eval_strategy": "steps" if has_evals else "no",
        "eval_steps": train.eval_every,
        "save_strategy": "steps",
        "save_steps": train.save_every,
        "save_total_limit": train.keep + 1,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": device == "cpu",
        # An engine that keeps masters itself is told to compute in bfloat16; else the weights are narrow themselves.
        "bf16": is_narrow and engine_of(config) is not None,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "ddp_find_unused_parameters": False,
        "dataloader_num_workers": 0,
        "log_level": "error",
    }
    if has_evals:
        told |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": f"{lead}_{best}_{name}" if best else f"{lead}_{name}",
            "greater_is_better": name != "loss",
        }
    if engine_of(config) is None:
        # What accelerate's own configuration says would round scores: our weights are as narrow as they are to be.
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    return _make(told | dict(config.hf))


def _schedule(config: TrainConfig) -> dict[str, Any]:
    """Cosine and linear end at `min_rate_share` of the peak."""
    train = config.train
    name: str = train.schedule
    more: dict[str, float] = {}
    if name == "cosine" and train.min_rate_share:
        name, more = "cosine_with_min_lr", {"min_lr_rate": train.min_rate_share}
    if name == "linear" and train.min_rate_share and train.learning_rate:
        name, more = "polynomial", {"lr_end": train.learning_rate * train.min_rate_share, "power": 1.0}
    return {"lr_scheduler_type": name, "warmup_steps": train.warmup, **({"lr_scheduler_kwargs": more} if more else {})}


def _make(told: dict[str, Any]) -> TrainingArguments:
    known = {f.name for f in dataclasses.fields(TrainingArguments) if f.init}
    for name in told:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean hf.{near[0]}?" if near else "see its documentation for the names"
            raise ConfigError(f"hf.{name} came, which TrainingArguments does not know; {hint}")
    try:
        return TrainingArguments(**told)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"TrainingArguments refuses these settings: {str(error).splitlines()[0][:300]}") from error
