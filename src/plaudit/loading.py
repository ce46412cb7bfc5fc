"""A folder on disk becomes a transformers classification model with one head, its tokenizer, and what there is to say.

Stands above `model`. Every tensor is accounted for: one that is missing, left over or of another shape is an error,
where transformers only warns. The head is read in fp32 whatever the backbone's precision. Invariant: nothing is
initialised at random unless `new_head` asked for it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from plaudit.checkpoint import Checkpoint, check_head, read_adapter, read_checkpoint
from plaudit.embedded import resolve_model
from plaudit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedParts:
    """What a folder gave: the model, its tokenizer, the checkpoint that was read, and the sentences to say."""

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    checkpoint: Checkpoint
    notes: tuple[str, ...]
    is_new: bool


def load_parts(folder: Path, dtype: torch.dtype, *, new_head: bool = False, remote: bool = False) -> LoadedParts:
    """Load a reward model folder, a LoRA folder with its base, or with `new_head` any language model."""
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(folder, dtype, new_head=new_head, remote=remote)
    checkpoint = read_checkpoint(folder)
    is_new = new_head and checkpoint.head is None
    if not is_new:
        check_head(checkpoint)
    hf = _load_model(checkpoint, dtype, is_new=is_new, remote=remote)
    notes = []
    if is_new:
        width = _attach_new_head(hf)
        notes.append(
            f"{folder.name} had no reward head: a new one was made (normal, std 1/{width + 1}); it has to be trained"
        )
    if checkpoint.std is not None:
        notes.append(
            f"scores are raw; the checkpoint's normalisation (mean {checkpoint.mean:g}, std {checkpoint.std:g}) "
            "is not applied"
        )
    return LoadedParts(
        hf=hf, tokenizer=_load_tokenizer(folder, remote), checkpoint=checkpoint, notes=tuple(notes), is_new=is_new
    )


def _load_model(checkpoint: Checkpoint, dtype: torch.dtype, *, is_new: bool, remote: bool) -> PreTrainedModel:
    """Through transformers' own loader, with its findings turned into errors."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=remote)
    config.num_labels = 1
    config.use_cache = False
    _register_classifier(config)
    renames = {}
    if checkpoint.head and checkpoint.head.removesuffix(".weight") == str(checkpoint.config.get("value_head_prefix")):
        renames = {rf"^{checkpoint.head.removesuffix('.weight')}\.": "score."}
    with _quiet_transformers():
        try:
            hf, found = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                config=config,
                dtype=dtype,
                key_mapping=renames or None,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=remote,
            )
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"{checkpoint.folder}: transformers cannot load it as a reward model ({_first_line(error)})"
            ) from error
    _check_found(checkpoint, found, is_new=is_new)
    if checkpoint.head:
        _restore_head(hf, checkpoint.tensors.files[checkpoint.head][0], checkpoint.head)
    return hf


def _check_found(checkpoint: Checkpoint, found: dict[str, Any], *, is_new: bool) -> None:
    """ModelError if a tensor was missing, left over, or of another shape."""
    missing = {name for name in found.get("missing_keys", ()) if not (is_new and name.startswith("score."))}
    left_over = {name for name in found.get("unexpected_keys", ()) if not (is_new and name.startswith("lm_head."))}
    for what, names in (
        ("missing", missing),
        ("left over", left_over),
        ("of another shape", found.get("mismatched_keys", ())),
    ):
        if names:
            first = min(str(name) for name in names)
            raise ModelError(
                f"{checkpoint.folder}: {len(names)} tensors are {what} for {checkpoint.architecture} ({first}); "
                "the weights and config.json do not belong together"
            )


def _restore_head(hf: PreTrainedModel, file: Path, key: str) -> None:
    """The head as the file has it, in fp32: the backbone's precision would round it."""
    from safetensors import safe_open

    head = linear_head(hf)
    with safe_open(file, framework="pt") as tensors:
        weight = tensors.get_tensor(key).float()
        bias = key.replace(".weight", ".bias")
        biases = tensors.get_tensor(bias).float() if bias in tensors.keys() else None  # noqa: SIM118
    head.weight = nn.Parameter(weight)
    if head.bias is not None and biases is not None:
        head.bias = nn.Parameter(biases)
    _widen_input(head)


def _widen_input(head: nn.Linear) -> None:
    """A head in fp32 takes its input in fp32, also when the classification model calls it."""
    head.register_forward_pre_hook(lambda module, args: (args[0].to(module.weight.dtype), *args[1:]))


def linear_head(hf: nn.Module) -> nn.Linear:
    """The last linear layer of a classification model, wherever its maker put it."""
    for path in ("score", "classifier", "classifier.out_proj", "classification_head.out_proj"):
        found: Any = hf
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.Linear):
            return found
    raise ModelError(
        f"{type(hf).__name__} keeps its head where it was not looked for; "
        "save the model as a transformers classification model"
    )


def _attach_new_head(hf: PreTrainedModel) -> int:
    """Normal with std 1/(hidden + 1), the scale that starts training near zero; drawn from torch's seed."""
    head = linear_head(hf)
    width = head.in_features
    head.weight = nn.Parameter(torch.randn(1, width) / (width + 1))
    _widen_input(head)
    return width


def _load_adapter(folder: Path, dtype: torch.dtype, *, new_head: bool, remote: bool) -> LoadedParts:
    """A LoRA folder on its base: merged in fp32, then rounded once, so that scoring costs what the base costs."""
    from peft import PeftModel

    adapter, head = read_adapter(folder)
    base = read_checkpoint(resolve_model(str(adapter["base_model_name_or_path"])))
    if head is None and base.head is None and not new_head:
        raise ModelError(
            f"{folder}: its reward head is missing: neither the adapter nor its base {base.folder} carries one; "
            "save the adapter with modules_to_save=['score']"
        )
    if base.head is not None:
        check_head(base)
    hf = _load_model(base, torch.float32, is_new=base.head is None, remote=remote)
    with _quiet_transformers():
        merged = PeftModel.from_pretrained(hf, folder, is_trainable=False).merge_and_unload()
    kept = linear_head(merged)
    weight = kept.weight.detach().float().clone()
    if weight.shape[0] != 1:
        raise ModelError(
            f"{folder}: a head with {weight.shape[0]} labels came, one with 1 was needed; this is a classifier"
        )
    merged.to(dtype)
    kept.weight = nn.Parameter(weight)
    _widen_input(kept)
    where = folder if (folder / "tokenizer_config.json").is_file() else base.folder
    notes = (f"LoRA adapter {folder.name} was merged into {base.folder.name} in float32",)
    checkpoint = Checkpoint(folder=folder, config=base.config, tensors=base.tensors, head=base.head or "score.weight")
    return LoadedParts(
        hf=merged,
        tokenizer=_load_tokenizer(where, remote),
        checkpoint=checkpoint,
        notes=notes,
        is_new=head is None and base.head is None,
    )


def _load_tokenizer(folder: Path, remote: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        with _quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=remote)
    except (ValueError, OSError, TypeError) as error:
        raise ModelError(
            f"{folder}: its tokenizer cannot be loaded ({_first_line(error)}); save the tokenizer into the folder"
        ) from error


def _register_classifier(config: Any) -> None:
    """Give a causal family that transformers ships without a classification class (Granite is one) the generic one."""
    from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel
    from transformers.modeling_layers import GenericForSequenceClassification

    if (
        type(config) in AutoModelForSequenceClassification._model_mapping
        or type(config) not in AutoModel._model_mapping
    ):
        return
    base = AutoModel._model_mapping[type(config)]
    parent = next(c for c in base.__mro__ if c is not base and issubclass(c, PreTrainedModel))
    name = base.__name__.removesuffix("Model") + "ForSequenceClassification"
    made = type(name, (GenericForSequenceClassification, parent), {"__module__": __name__})
    AutoModelForSequenceClassification.register(type(config), made)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """What transformers would warn of is an error here, or is checked here; its bars would tear ours."""
    from transformers.utils import logging as hf_logging

    bars, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity(max(level, logging.ERROR) if level > logging.INFO else level)
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
