"""Our settings as TrainingArguments, through one table; every other name passes through `hf`.

Stands on `config`, above `train`. Invariant: what a setting of ours decides is said in one place, here; a name under
`hf` that TrainingArguments does not know is refused with the nearest one.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from plaudit.config import TrainConfig
from plaudit.engines import find_asked
from plaudit.errors import ConfigError

SCHEDULE_ARGS = "lr_scheduler_kwargs"


def engine_of(config: TrainConfig) -> str | None:
    """`fsdp` or `deepspeed`, if the launcher or the configuration asks for one."""
    return find_asked(config.hf)


def build_arguments(
    config: TrainConfig, out: Path, *, evals: Sequence[str], device: str, is_narrow: bool
) -> TrainingArguments:
    """TrainingArguments of a run whose settings are all settled; `evals` are the names of its evaluation sets."""
    train = config.train
    told: dict[str, Any] = {
        "output_dir": str(out),
        "per_device_train_batch_size": 1,  # an item of the loader is a rank's share of a step
        "gradient_accumulation_steps": 1,
        "num_train_epochs": train.passes,
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
        "eval_strategy": "steps" if evals else "no",
        "eval_steps": train.eval_every,
        "save_strategy": "steps",
        "save_steps": train.save_every,
        "save_total_limit": train.keep + 1,
        "restore_callback_states_from_checkpoint": True,  # how long early stopping has waited
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
    told |= _choice(config, evals)
    return _make(told | {name: value for name, value in config.hf.items() if name != SCHEDULE_ARGS})


def _choice(config: TrainConfig, evals: Sequence[str]) -> dict[str, Any]:
    """How the best checkpoint is chosen, if anything tells which one that is."""
    train = config.train
    if not evals:
        return {}
    if train.save_every and train.eval_every and train.save_every % train.eval_every:
        raise ConfigError(
            f"train.save_every={train.save_every} came with train.eval_every={train.eval_every}, and a checkpoint "
            "is chosen by its evaluation; set train.save_every to a multiple of train.eval_every"
        )
    return {
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{best_metric(train.best_by, evals)}",
        "greater_is_better": not train.best_by.endswith("loss"),
    }


def best_metric(best_by: str, evals: Sequence[str]) -> str:
    """What `train.best_by` is called among the metrics of these evaluation sets; one set has no name in its keys."""
    wanted, _, name = best_by.rpartition("/")
    if wanted and wanted not in evals:
        raise ConfigError(
            f"train.best_by={best_by} came, and no evaluation set is called {wanted!r}; there is {', '.join(evals)}"
        )
    return name if len(evals) == 1 else f"{wanted or evals[0]}_{name}"


def explain_missing(best_by: str, found: Iterable[str]) -> str:
    """Why nothing can be chosen by a metric that the evaluation data do not give."""
    return (
        f"train.best_by={best_by} came, which the evaluation data do not give (they give {', '.join(found)}); "
        "choose by another, such as loss"
    )


def _schedule(config: TrainConfig) -> dict[str, Any]:
    """The schedule by transformers' name; where it ends is said by `min_rate_share`, the rest of it under `hf`."""
    train = config.train
    name, share = str(train.schedule), train.min_rate_share
    more: dict[str, Any] = {}
    if name.startswith("cosine") and name != "cosine_with_restarts" and (share or name != "cosine"):
        name, more = ("cosine_with_min_lr" if name == "cosine" else name), {"min_lr_rate": share}
    if name == "linear" and share and train.learning_rate:
        name, more = "polynomial", {"lr_end": train.learning_rate * share, "power": 1.0}
        if share == 1:  # a line that ends where it begins is none to transformers
            name, more = "constant", {}
    if name == "constant" and train.warmup:
        name = "constant_with_warmup"
    told = config.hf.get(SCHEDULE_ARGS) or {}
    if not isinstance(told, Mapping):
        raise ConfigError(
            f"hf.{SCHEDULE_ARGS}: {told!r} came, names with values were needed, such as {{num_cycles: 1}}"
        )
    for key in ("min_lr", "min_lr_rate", "lr_end"):
        if key in told and more:
            raise ConfigError(
                f"hf.{SCHEDULE_ARGS}.{key} came, which train.min_rate_share decides here; set that instead"
            )
    more |= dict(told)
    return {"lr_scheduler_type": name, "warmup_steps": train.warmup, **({SCHEDULE_ARGS: more} if more else {})}


def _make(told: dict[str, Any]) -> TrainingArguments:
    known = {f.name for f in dataclasses.fields(TrainingArguments) if f.init}
    for name in told:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean hf.{near[0]}?" if near else "see its documentation for the names"
            raise ConfigError(f"hf.{name} came, which TrainingArguments does not know; {hint}")
    told["report_to"] = _find_trackers(told["report_to"])
    try:
        args = TrainingArguments(**told)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"TrainingArguments refuses these settings: {str(error).splitlines()[0][:300]}") from error
    # One process that sees several GPUs would be wrapped in nn.DataParallel, which runs every pack once on each.
    if args.n_gpu > 1:
        args._n_gpu = 1
    return args


def check_device(net: torch.device, trainer: torch.device) -> None:
    """ConfigError if the Trainer would move the model away from the GPU that it was loaded on."""
    if net.type == "cuda" and trainer.type == "cuda" and (net.index or 0) != (trainer.index or 0):
        raise ConfigError(
            f"device: expected {trainer}, the GPU that the Trainer uses, got {net}. Leave device out and set "
            f"CUDA_VISIBLE_DEVICES={net.index}."
        )


def _find_trackers(told: Any) -> list[str]:
    """The trackers that were asked for; one that is not installed is refused now, and not before the first step."""
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    names = [told] if isinstance(told, str) else list(told)
    there: list[str] = get_available_reporting_integrations()
    if names == ["all"]:
        return there
    names = [name for name in names if name != "none"]
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            near = difflib.get_close_matches(name, INTEGRATION_TO_CALLBACK, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(INTEGRATION_TO_CALLBACK)}"
            raise ConfigError(f"hf.report_to={name} came, which transformers does not know; {hint}")
        if name not in there:
            raise ConfigError(
                f"hf.report_to={name} came, and {name} is not installed; pip install {name}, or leave it out"
            )
    return names
