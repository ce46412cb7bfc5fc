"""Low-rank adapters inside a RewardNet: attached in place, saved with the head, and merged for a while.

Stands above `model`. peft's layers take the place of the backbone's own, so everything that runs a RewardNet runs an
adapted one; the head stays a plain layer outside of them, is always trained, and is in every folder that is written.
Scores come from base and adapter side by side; `merging` puts plain layers with merged weights there for as long as one
looks, and the adapted layers themselves come back. Invariant: an adapter's folder gives the scores of the net that it
was saved from, through plaudit, and through transformers and peft alone.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plaudit.checkpoint import BASE_DTYPE
from plaudit.errors import ConfigError, ModelError
from plaudit.loading import name_of_head, quiet_transformers
from plaudit.model import RewardNet
from plaudit.quantized import (
    QUANTIZED,
    check_bits,
    describe_bits,
    find_layers,
    is_quantized,
    merge_quantized,
    quantize_layers,
)
from plaudit.saving import drafting, prepare_tokenizer, write_card
from plaudit.transformers4 import write_for_transformers_4

if TYPE_CHECKING:
    from peft import LoraConfig

ALL_LINEAR = "all-linear"
ADAPTER = "default"
BASE = "base_model.model."
"""What peft puts before every name in an adapter's file."""

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSettings:
    """Which layers get an adapter, of which kind; the names and meanings of `lora.*` in a training configuration."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: Sequence[str] = (ALL_LINEAR,)
    target_parameters: Sequence[str] = ()
    modules_to_save: Sequence[str] = ()
    rslora: bool = False
    dora: bool = False
    bits: int | None = None
    quant_type: str = "nf4"
    double_quant: bool = False
    quant_storage: str = "uint8"


def is_adapted(net: RewardNet) -> bool:
    """Whether there are adapters in the net."""
    return next(_adapted_layers(net), None) is not None


def attach_lora(net: RewardNet, settings: LoraSettings) -> list[str]:
    """Put adapters into the backbone and freeze the rest but the head; gives what there is to say about it.

    ConfigError if a target is not there. A new adapter adds nothing yet: the scores stay what they were, unless the
    backbone was quantized with it.
    """
    if is_adapted(net):
        raise ConfigError("this model has adapters already; save it merged, and train the merged folder")
    if settings.bits is not None:
        check_bits(settings.bits)
    config, whole, notes = _build_config(net, settings), _find_whole(net, settings.modules_to_save), []
    if settings.bits is not None:
        notes.append(_quantize_backbone(net, settings, whole))
    from peft import inject_adapter_in_model

    with warnings.catch_warnings(), _told_of_bits(net, settings.bits):
        warnings.simplefilter("ignore")  # peft's advice about what was decided here
        try:
            inject_adapter_in_model(config, net.hf, ADAPTER)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(
                f"peft cannot put these adapters into {type(net.hf).__name__} ({str(error).splitlines()[0][:200]}); "
                "choose other lora.targets"
            ) from error
    for module in whole.values():
        module.requires_grad_(True)
    config.modules_to_save = sorted(whole)
    net.train(net.training)  # what is new is in the mode of the rest, so that dropout is off where it was
    return [*notes, *_describe(net, settings)]


def _build_config(net: RewardNet, settings: LoraSettings) -> LoraConfig:
    """peft's configuration of it, every target checked to be there."""
    from peft import LoraConfig, TaskType
    from transformers.pytorch_utils import Conv1D

    if settings.rank < 1:
        raise ConfigError(f"lora.rank={settings.rank} came, at least 1 was needed; 8 to 64 are usual")
    modules = [(name, module) for name, module in net.hf.named_modules() if name]
    inside = _inside(net, settings)
    linear = {name: m for name, m in modules if name not in inside and isinstance(m, (nn.Linear, Conv1D))}
    able = linear | {name: m for name, m in modules if name not in inside and isinstance(m, nn.Embedding)}
    _check_parameters(net, settings)
    ends = _find_ends(settings, [name for name, _ in modules], linear, able)
    taken = {name: m for name, m in modules if _ends_with(name, ends)}
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(ends) or None,
        # Names are matched by their end, and a part of the head may end like a layer of the backbone.
        exclude_modules=sorted(name for name in taken if name in inside) or None,
        target_parameters=list(settings.target_parameters) or None,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in taken.values()),
        task_type=TaskType.SEQ_CLS,
    )


def _inside(net: RewardNet, settings: LoraSettings) -> set[str]:
    """Names of the modules that are trained whole, with all that is in them."""
    whole = _find_whole(net, settings.modules_to_save)
    return {name for name, _ in net.hf.named_modules() for top in whole if name == top or name.startswith(f"{top}.")}


def _find_whole(net: RewardNet, wanted: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that are trained whole, by name: what holds the head, and what was asked for."""
    top = name_of_head(net.hf).split(".")[0]
    whole = {top: net.hf.get_submodule(top)}
    for end in wanted:
        found = {name: module for name, module in net.hf.named_modules() if _ends_with(name, {end})}
        if not found:
            raise ConfigError(f"lora.modules_to_save {end!r} matches nothing in {type(net.hf).__name__}; leave it out")
        whole |= found
    return whole


def _find_ends(
    settings: LoraSettings, names: list[str], linear: Mapping[str, nn.Module], able: Mapping[str, nn.Module]
) -> set[str]:
    """How the names of the layers end that get an adapter; ConfigError for a target that is not there."""
    there = ", ".join(sorted({_last(name) for name in linear})) or "none"
    ends: set[str] = set()
    for target in settings.targets:
        if target == ALL_LINEAR:
            # An end that something else shares would take that along: such layers are named in full.
            shared = {_last(name) for name in names if name not in able} & {_last(name) for name in linear}
            ends |= {_last(name) if _last(name) not in shared else name for name in linear}
            continue
        found = [name for name in names if _ends_with(name, {target})]
        if not any(name in able for name in found):
            came = "only what is trained whole or is no linear layer" if found else "nothing"
            raise ConfigError(
                f"lora.targets {target!r} matches {came}; the linear layers here are {there}, "
                f"and {ALL_LINEAR} stands for all of them"
            )
        ends.add(target)
    if not ends and not settings.target_parameters:
        raise ConfigError(
            f"lora.targets {', '.join(settings.targets) or '(none)'} matches nothing; linear layers here are {there}"
        )
    return ends


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _ends_with(name: str, ends: set[str]) -> bool:
    """Whether a module's name is one of these or ends with one, as peft matches them."""
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _check_parameters(net: RewardNet, settings: LoraSettings) -> None:
    names = [name for name, _ in net.hf.named_parameters()]
    experts = ", ".join(_experts(net)) or "none"
    for target in settings.target_parameters:
        if not any(_ends_with(name, {target}) for name in names):
            raise ConfigError(f"lora.target_parameters {target!r} matches nothing; bare matrices here are {experts}")


def _experts(net: RewardNet) -> list[str]:
    """Stacks of matrices that are parameters by themselves, as experts of a mixture are; by the end of their name."""
    names = (name for name, x in net.backbone.named_parameters() if x.ndim == 3 and "lora_" not in name)
    return sorted({".".join(name.split(".")[-2:]) for name in names})


def _quantize_backbone(net: RewardNet, settings: LoraSettings, whole: Mapping[str, nn.Module]) -> str:
    names = find_layers(net.hf, whole)
    saved = quantize_layers(net.hf, names, _options(settings))
    return f"{len(names)} layers of the backbone have {settings.bits} bits a weight now: {saved / 1e6:,.0f} MB less"


def _options(settings: LoraSettings) -> dict[str, Any]:
    names = ("bits", *(("quant_type", "double_quant", "quant_storage") if settings.bits == 4 else ()))
    return {name: getattr(settings, name) for name in names}


@contextlib.contextmanager
def _told_of_bits(net: RewardNet, bits: int | None) -> Iterator[None]:
    """peft looks for eight or four bits by a word on the model."""
    word = f"is_loaded_in_{bits}bit"
    if bits is not None:
        setattr(net.hf, word, True)
    try:
        yield
    finally:
        if bits is not None:
            delattr(net.hf, word)


def _describe(net: RewardNet, settings: LoraSettings) -> list[str]:
    num_trained = sum(x.numel() for x in net.hf.parameters() if x.requires_grad)
    layers = [name for name, _ in _adapted_layers(net)]
    kinds = sorted({_last(name) for name in layers})
    kind = "DoRA" if settings.dora else "rsLoRA" if settings.rslora else "LoRA"
    said = [
        f"{kind} of rank {settings.rank} on {len(layers)} layers ({', '.join(kinds)}): "
        f"{num_trained:,} weights are trained, the head's among them"
    ]
    if (experts := _experts(net)) and not settings.target_parameters:
        said.append(f"experts get no adapter; for that: lora.target_parameters=[{', '.join(experts)}]")
    return said


def _adapted_layers(net: RewardNet) -> Iterator[tuple[str, Any]]:
    """Every layer with an adapter, by name; of nested ones the outermost."""
    if not hasattr(net.hf, "peft_config"):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    outer: tuple[str, ...] = ()
    for name, module in net.hf.named_modules():
        if isinstance(module, BaseTunerLayer) and not name.startswith(outer or ("\n",)):
            outer = (f"{name}.",)
            yield name, module


def save_adapter(
    net: RewardNet,
    folder: str | Path,
    *,
    base: str | Path | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write adapter and head as a folder of peft's, with the tokenizer; whole, or not at all.

    `base` is what the adapter goes onto, a folder or a hub name; if not given, where the net was loaded from.
    """
    if not is_adapted(net):
        raise ModelError("this model has no adapter to save; save the model itself")
    config = copy.copy(net.hf.peft_config[ADAPTER])
    config.base_model_name_or_path, config.inference_mode = str(base or net.checkpoint.folder), True
    kept = {name: x.detach().cpu().contiguous() for name, x in adapter_weights(net).items()}
    told = {
        **net.own_card(),
        "base": config.base_model_name_or_path,
        BASE_DTYPE: str(net.dtype).removeprefix("torch."),
        **_bits_of(net),
        **(card or {}),
    }
    with drafting(Path(folder)) as draft, quiet_transformers():
        from safetensors.torch import save_file

        save_file(kept, draft / WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(str(draft))
        prepare_tokenizer(net.tokenizer, net.hf, net.position).save_pretrained(draft)
        write_for_transformers_4(draft)
        write_card(draft, told)
    return Path(folder)


def adapter_weights(net: RewardNet) -> dict[str, Tensor]:
    """What an adapter's file holds, by the names there: adapters, the head, and what else is trained whole."""
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = net.hf.state_dict()
    kept = get_peft_model_state_dict(net.hf, state_dict=state, adapter_name=ADAPTER, save_embedding_layers=False)
    tops = tuple(f"{top}." for top in net.hf.peft_config[ADAPTER].modules_to_save)
    kept |= {name: x for name, x in state.items() if name.startswith(tops)}
    return {f"{BASE}{name}": x for name, x in kept.items()}


def _bits_of(net: RewardNet) -> dict[str, Any]:
    """What plaudit.json says of a quantized base, without which an adapter's scores are others."""
    layers = (layer.get_base_layer() for _, layer in _adapted_layers(net))
    found = next((layer for layer in layers if is_quantized(layer)), None)
    return {} if found is None else {QUANTIZED: describe_bits(found, net.dtype)}


@contextlib.contextmanager
def merging(net: RewardNet, *, dtype: torch.dtype | None = None) -> Iterator[RewardNet]:
    """The net with its adapters merged into plain layers, in `dtype` (if not given, its own); afterwards as before.

    Sums are made in float32 and rounded once. What was there comes back itself, bit for bit, whatever happens inside.
    Forwards of other threads wait for the end of the block.
    """
    with net.lock.exclusive():
        yield from _merging(net, dtype)


def _merging(net: RewardNet, dtype: torch.dtype | None) -> Iterator[RewardNet]:
    wanted = dtype or net.dtype
    places: list[tuple[nn.Module, str, nn.Module]] = []
    narrow: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with torch.no_grad():
            for name, layer in list(_adapted_layers(net)):
                parent, _, last = name.rpartition(".")
                owner = net.hf.get_submodule(parent)
                merged = _merge_layer(layer, wanted)
                places.append((owner, last, layer))
                setattr(owner, last, merged)
            for x in net.backbone.parameters():
                if x.is_floating_point() and x.dtype != wanted:
                    narrow.append((x, x.data))
                    x.data = x.data.to(wanted)
        yield net
    finally:
        for x, data in narrow:
            x.data = data
        for owner, last, layer in places:
            setattr(owner, last, layer)


def _merge_layer(layer: Any, dtype: torch.dtype) -> nn.Module:
    """A plain layer that does what the adapted one does."""
    if is_quantized(layer.get_base_layer()):
        return merge_quantized(layer, ADAPTER, dtype)
    twin = copy.deepcopy(layer).float()
    # Of a module with several bare parameters, each adapter is around the one before: all of them are merged.
    for part in [part for part in twin.modules() if hasattr(part, "merge")][::-1]:
        part.merge()
    merged: nn.Module = twin.get_base_layer()
    return merged.to(dtype)
