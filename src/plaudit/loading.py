"""A folder on disk becomes a transformers classification model with one head, its tokenizer, and what there is to say.

Stands above `model`. Every tensor is accounted for: one that is missing, left over or of another shape is an error,
where transformers only warns. The head is read in fp32 whatever the backbone's precision. Invariant: nothing is
initialised at random unless `new_head` asked for it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from plaudit.checkpoint import (
    BASE_DTYPE,
    LANGUAGE_HEADS,
    Checkpoint,
    check_head,
    check_kind,
    read_adapter,
    read_card,
    read_checkpoint,
    read_tensors,
)
from plaudit.config.elsewhere import FILE_ARGS
from plaudit.embedded import first_sentence, resolve_model
from plaudit.errors import ConfigError, ModelError
from plaudit.quantized import QUANTIZED, find_layers, round_layers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken", "tekken.json")
"""Files that a tokenizer's vocabulary is kept in; one of them has to be there."""

NARROW = ("bfloat16", "float16")

LOADING_ERRORS = (
    ValueError,
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    StrictDataclassError,
)
"""What a folder can make transformers and peft raise; each becomes a sentence that names the folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedParts:
    """What a folder gave: the model, its tokenizer, the checkpoint that was read, and the sentences to say."""

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    checkpoint: Checkpoint
    notes: tuple[str, ...]
    is_new: bool


def load_parts(
    folder: Path,
    dtype: torch.dtype,
    *,
    new_head: bool = False,
    remote: bool = False,
    model_args: Mapping[str, Any] | None = None,
) -> LoadedParts:
    """Load a reward model folder, a LoRA folder with its base, or with `new_head` any language model.

    `model_args` are values of its configuration that are other than its config.json says, and whatever else
    transformers' from_pretrained takes.
    """
    told = dict(model_args or {})
    for name in sorted(told.keys() & FILE_ARGS.keys()):
        raise ConfigError(f"model_args.{name}: {FILE_ARGS[name]}; leave it out")
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(folder, dtype, new_head=new_head, remote=remote, told=told)
    checkpoint = read_checkpoint(folder)
    is_new = new_head and checkpoint.head is None
    check_kind(checkpoint) if is_new else check_head(checkpoint)
    config, tokenizer = _load_config(checkpoint, remote, told), load_tokenizer(folder, remote)
    hf = _load_model(checkpoint, config, dtype, is_new=is_new, remote=remote, told=told)
    notes = [_attach_new_head(hf, folder)] if is_new else []
    notes += _note_ignored(checkpoint)
    if checkpoint.is_untrained and not is_new:
        notes.append(f"{folder.name} was saved with a new head that nobody has trained; it has to be trained")
    if checkpoint.mean is not None or checkpoint.std is not None:
        notes.append(
            f"scores are raw; the checkpoint's normalisation (mean {checkpoint.mean}, std {checkpoint.std}) "
            "is not applied"
        )
    return LoadedParts(
        hf=hf,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        notes=tuple(notes),
        is_new=is_new or checkpoint.is_untrained,
    )


def _note_ignored(checkpoint: Checkpoint) -> list[str]:
    if not checkpoint.ignored:
        return []
    read = sorted({file.name for file, _ in checkpoint.tensors.values()})
    first = read[0] if len(read) == 1 else f"{read[0]} and {len(read) - 1} more"
    others = ", ".join(checkpoint.ignored[:3]) + (", ..." if len(checkpoint.ignored) > 3 else "")
    return [f"{checkpoint.folder.name}: {others} ignored; the weights are read from {first}, as transformers does"]


def _load_config(checkpoint: Checkpoint, remote: bool, told: dict[str, Any]) -> PreTrainedConfig:
    """The configuration, with what was told of it; the rest of `told` is left there for the model."""
    from transformers import AutoConfig

    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=remote)
        except LOADING_ERRORS as error:
            raise ModelError(
                f"{checkpoint.folder}: transformers cannot read its config.json ({first_sentence(error)}); "
                "check its model_type and the fields that are named here, or a newer transformers"
            ) from error
    for name in [name for name in told if hasattr(config, name)]:
        setattr(config, name, told.pop(name))
    config.num_labels = 1
    config.use_cache = False
    return config


def _load_model(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    *,
    is_new: bool,
    remote: bool,
    told: Mapping[str, Any],
) -> PreTrainedModel:
    """Through transformers' own loader, with its findings turned into errors."""
    from transformers import AutoModelForSequenceClassification

    _register_classifier(config)
    with quiet_transformers():
        try:
            hf, found = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are among the findings, by name
                use_safetensors=True,
                trust_remote_code=remote,
                **told,
            )
        except LOADING_ERRORS as error:
            raise ModelError(
                f"{checkpoint.folder}: transformers cannot load it as a reward model ({first_sentence(error)}); "
                "check that config.json names its architecture and that the weights are its own"
            ) from error
    _check_found(checkpoint, hf, found, is_new=is_new)
    if checkpoint.head:
        _restore_head(hf, checkpoint)
    return hf


def _check_found(checkpoint: Checkpoint, hf: PreTrainedModel, found: dict[str, Any], *, is_new: bool) -> None:
    """ModelError if a tensor was missing, left over, or of another shape; the head is read by us, by its own name."""
    own = f"{name_of_head(hf)}."
    # The parts around a new head (a dense layer, a pooler) are as new as the head.
    new = (f"{own.split('.')[0]}.",) if is_new else (own,)
    old = LANGUAGE_HEADS if is_new else (str(checkpoint.head).removesuffix("weight"),)
    missing = {name for name in found.get("missing_keys", ()) if not name.startswith(new)}
    left_over = {name for name in found.get("unexpected_keys", ()) if not name.startswith(old)}
    other = {str(entry[0] if isinstance(entry, tuple) else entry) for entry in found.get("mismatched_keys", ())}
    for what, names in (("missing", missing), ("left over", left_over), ("of another shape", other)):
        if names:
            raise ModelError(
                f"{checkpoint.folder}: {len(names)} tensor{'s are' if len(names) > 1 else ' is'} {what} for "
                f"{checkpoint.architecture} ({min(names)}); the weights and config.json do not belong together"
            )


def _restore_head(hf: PreTrainedModel, checkpoint: Checkpoint) -> None:
    """The head as the file has it, in fp32: the backbone's precision would round it."""
    head, key = linear_head(hf), str(checkpoint.head)
    weight, bias = (_read_tensor(checkpoint, name) for name in (key, key.replace(".weight", ".bias")))
    if weight is None or weight.shape != head.weight.shape or (bias is None) != (head.bias is None):
        came = (
            "no weight" if weight is None else f"{tuple(weight.shape)} {'without' if bias is None else 'with'} a bias"
        )
        raise ModelError(
            f"{checkpoint.folder}: a head of shape {came} came ({key}), {tuple(head.weight.shape)} "
            f"{'without' if head.bias is None else 'with'} a bias was needed for {type(hf).__name__}"
        )
    head.weight = nn.Parameter(weight)
    if bias is not None:
        head.bias = nn.Parameter(bias)
    _widen_input(head)


def _read_tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor | None:
    from safetensors import safe_open

    if name not in checkpoint.tensors:
        return None
    with safe_open(checkpoint.tensors[name][0], framework="pt") as tensors:
        found: torch.Tensor = tensors.get_tensor(name)
    return found.float()


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


def name_of_head(hf: nn.Module) -> str:
    """The path of the head below the classification model, `score` for most."""
    head = linear_head(hf)
    return str(next(name for name, module in hf.named_modules() if module is head))


def _attach_new_head(hf: PreTrainedModel, folder: Path) -> str:
    """Normal with std 1/(hidden + 1), the scale that starts training near zero; drawn from torch's seed. Says so."""
    head = linear_head(hf)
    width = head.in_features
    head.weight = nn.Parameter(torch.randn(1, width) / (width + 1))
    if head.bias is not None:
        head.bias = nn.Parameter(torch.zeros(1))
    _widen_input(head)
    return f"{folder.name} had no reward head: a new one was made (normal, std 1/{width + 1}); it has to be trained"


def _load_adapter(
    folder: Path, dtype: torch.dtype, *, new_head: bool, remote: bool, told: dict[str, Any]
) -> LoadedParts:
    """A LoRA folder on its base: merged in fp32, then rounded once, so that scoring costs what the base costs."""
    adapter, head = read_adapter(folder)
    base_folder = find_base(folder, str(adapter["base_model_name_or_path"]))
    if (base_folder / "adapter_config.json").is_file():
        # transformers would load that adapter as well, from whatever file peft finds.
        raise ModelError(
            f"{folder}: expected a whole model as its base, got {base_folder}, an adapter; "
            "merge that first (plaudit export --merge) and name the merged folder in base_model_name_or_path"
        )
    base = read_checkpoint(base_folder)
    if head is None and base.head is None and not new_head:
        raise ModelError(
            f"{folder}: its reward head is missing: neither the adapter nor its base {base.folder} carries one; "
            "save the adapter with modules_to_save=['score']"
        )
    if head is not None and head.num_rows != 1:
        raise ModelError(
            f"{folder}: a head with {head.num_rows} labels came ({head.name}), one with 1 was needed; "
            "this is a classifier, not a reward model"
        )
    check_head(base) if base.head is not None else check_kind(base)
    tokenizer = load_tokenizer(folder if (folder / "tokenizer_config.json").is_file() else base.folder, remote)
    config = _load_config(base, remote, told)
    hf = _load_model(base, config, torch.float32, is_new=base.head is None, remote=remote, told=told)
    notes = [f"LoRA adapter {folder.name} was merged into {base.folder.name} in float32", *_note_ignored(base)]
    card = read_card(folder)
    if card.get(BASE_DTYPE) in NARROW:
        # Its files may be wider than what it was trained on.
        round_weights(hf.base_model, getattr(torch, card[BASE_DTYPE]))
        round_weights(hf.base_model, torch.float32)
    if bits := card.get(QUANTIZED):
        round_layers(hf, find_layers(hf, adapter.get("modules_to_save") or ()), bits)
        notes.append(f"its base has the weights that {bits['bits']} bits leave of it, on which the adapter was trained")
    if head is None and base.head is None:
        notes.append(_attach_new_head(hf, folder))
    merged = _merge_adapter(hf, folder)
    kept = linear_head(merged)
    weight, bias = (None if x is None else x.detach().float().clone() for x in (kept.weight, kept.bias))
    round_weights(merged, dtype)
    kept.weight, kept.bias = (None if x is None else nn.Parameter(x) for x in (weight, bias))
    _widen_input(kept)
    checkpoint = replace(base, folder=folder, head=base.head or f"{name_of_head(merged)}.weight", card=card)
    is_new = checkpoint.is_untrained or (head is None and (base.head is None or base.is_untrained))
    return LoadedParts(hf=merged, tokenizer=tokenizer, checkpoint=checkpoint, notes=tuple(notes), is_new=is_new)


def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Give the weights another precision. Buffers keep theirs: rounded angles would misplace every far token."""
    for x in module.parameters():
        x.data = x.data.to(dtype)


def find_base(folder: Path, name: str) -> Path:
    """The base's folder: as it is named, or beside the adapter, where a moved pair of folders keeps it."""
    beside = folder / name
    return beside if not Path(name).is_dir() and beside.is_dir() else resolve_model(name)


def _merge_adapter(hf: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base with the adapter in its weights; ModelError if a tensor of either does not find its place."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft warns of, tensors without a place, is checked below
        try:
            config = PeftConfig.from_pretrained(folder)
            # Only the layers matter here; the wrapper for generation would look for methods that a classifier lacks.
            config.task_type = None
            adapted = PeftModel.from_pretrained(hf, folder, config=config, is_trainable=False)
            wanted = {
                _plain_name(name): tuple(x.shape)
                for name, x in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
            }
            came = {_plain_name(name): shape for name, (_, shape) in read_tensors(folder).items()}
            merged: PreTrainedModel = adapted.merge_and_unload()
        except LOADING_ERRORS as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"{folder}: peft cannot put the adapter onto {type(hf).__name__} ({first_sentence(error)}); "
                "check that base_model_name_or_path names the model it was trained on"
            ) from error
    astray = sorted(name for name in came.keys() ^ wanted.keys())
    if astray:
        raise ModelError(
            f"{folder}: {len(astray)} tensor{'s' if len(astray) > 1 else ''} of the adapter and its base do not meet "
            f"({astray[0]}); check that base_model_name_or_path names the model it was trained on"
        )
    return merged


def _plain_name(name: str) -> str:
    """A tensor's name without the words that some writers leave in it."""
    return name.replace(".modules_to_save", "").replace(".default", "").replace(".base_layer", "")


def load_tokenizer(folder: Path, remote: bool = False) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; ModelError if it has none, or one that cannot be loaded."""
    from transformers import AutoTokenizer

    if not remote and not any(file for pattern in VOCABULARIES for file in folder.glob(pattern)):
        # transformers makes an empty tokenizer of nothing for some families, to which every word is unknown.
        raise ModelError(f"{folder}: its tokenizer is missing (no tokenizer.json there); save it into the folder")
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=remote)
    except LOADING_ERRORS as error:
        raise ModelError(
            f"{folder}: its tokenizer cannot be loaded ({first_sentence(error)}); save the tokenizer into the folder"
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
    # The generic class calls the model below it `model`; the family's own files may call it something else.
    own = {"__module__": __name__, "base_model_prefix": parent.base_model_prefix}
    made = type(name, (GenericForSequenceClassification, parent), own)
    # transformers keeps its own configurations from being registered for, unless it is told that this is meant.
    AutoModelForSequenceClassification.register(type(config), made, exist_ok=True)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
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
