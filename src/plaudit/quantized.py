"""A backbone in four or eight bits a weight, under adapters that are trained: what bitsandbytes is asked to do.

Stands above `loading` and `lora`, which both have to do with such backbones; bitsandbytes is an extra and is imported
when bits are asked for. Layers are quantized in place, one at a time. Invariant: an adapter is merged into the weights
that it was trained on, which are those that bitsandbytes multiplied by, not those that they were quantized from.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from plaudit.errors import ConfigError, MissingExtraError

EXTRA = "bits"
QUANTIZED = "quantized"
"""Where plaudit.json says of how many bits the base of an adapter was, and of which kind."""


def check_bits(bits: int) -> None:
    """ConfigError for a number of bits that there is not; MissingExtraError if bitsandbytes is not installed."""
    if bits not in (4, 8):
        raise ConfigError(f"lora.bits={bits} came, 4 or 8 was needed; leave it out to keep weights as they are")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError(f"lora.bits={bits}", EXTRA)


def find_layers(owner: nn.Module, whole: Iterable[str]) -> list[str]:
    """Names of the linear layers that are quantized: all but those in the modules that are trained whole."""
    tops = tuple(whole)
    inside = tuple(f"{top}." for top in tops)
    return [
        name
        for name, layer in owner.named_modules()
        if isinstance(layer, nn.Linear) and name not in tops and not name.startswith(inside)
    ]


def quantize_layers(owner: nn.Module, names: list[str], options: dict[str, Any]) -> int:
    """Quantize these linear layers of a model in place; gives how many bytes that saved.

    `options` are `bits`, and for four bits `quant_type`, `double_quant`, `quant_storage`, as in `lora.*`.
    """
    saved = 0
    for name in names:
        layer = owner.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        parent, _, last = name.rpartition(".")
        before = layer.weight.numel() * layer.weight.element_size()
        made = _quantize(layer, options)
        setattr(owner.get_submodule(parent), last, made)
        saved += before - made.weight.numel() * made.weight.element_size()
    return saved


def _quantize(layer: nn.Linear, options: dict[str, Any]) -> Any:
    import bitsandbytes as bnb

    weight, has_bias = layer.weight.data, layer.bias is not None
    shape = (layer.in_features, layer.out_features)
    if options["bits"] == 8:
        made = bnb.nn.Linear8bitLt(*shape, bias=has_bias, has_fp16_weights=False, threshold=6.0)
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        about = {
            "quant_type": options["quant_type"],
            "compress_statistics": options["double_quant"],
            "quant_storage": getattr(torch, options["quant_storage"]),
        }
        made = bnb.nn.Linear4bit(*shape, bias=has_bias, compute_dtype=weight.dtype, **about)
        made.weight = bnb.nn.Params4bit(weight, requires_grad=False, **about)
        # On a CPU an evaluation would repack them, and neither training nor merging could read them any more.
        made.support_avx512bf16_for_cpu = False
    if has_bias:
        made.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    # Moving it to where it was is what quantizes it.
    return made.to(weight.device)


def describe_bits(layer: Any, dtype: torch.dtype) -> dict[str, Any]:
    """What plaudit.json says of a quantized layer of a net of this dtype: enough to quantize it again."""
    compute = str(dtype).removeprefix("torch.")
    if type(layer).__name__ == "Linear8bitLt":
        return {"bits": 8, "compute": compute}
    return {
        "bits": 4,
        "quant_type": layer.weight.quant_type,
        "double_quant": bool(layer.weight.compress_statistics),
        "quant_storage": str(layer.weight.quant_storage).removeprefix("torch."),
        "compute": compute,
    }


def round_layers(owner: nn.Module, names: list[str], about: dict[str, Any]) -> None:
    """Give linear layers the weights that they have after quantizing, as `describe_bits` told, in their own dtype."""
    from peft.utils.integrations import dequantize_module_weight

    check_bits(int(about["bits"]))
    compute = getattr(torch, about["compute"])
    for name in names:
        layer = owner.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        narrow = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        narrow.weight = nn.Parameter(layer.weight.data.to(compute), requires_grad=False)
        layer.weight.data = dequantize_module_weight(_quantize(narrow, about)).to(layer.weight)


def is_quantized(layer: nn.Module) -> bool:
    """Whether bitsandbytes made this layer."""
    return type(layer).__module__.startswith("bitsandbytes")


def merge_quantized(layer: Any, adapter: str, dtype: torch.dtype) -> nn.Linear:
    """A plain layer with the dequantized weight and the adapter in it; sums in float32, rounded once."""
    from peft.utils.integrations import dequantize_module_weight

    base = layer.get_base_layer()
    weight = dequantize_module_weight(base).detach().float().to(base.weight.device)
    down, up = (x[adapter].weight.detach().float() for x in (layer.lora_A, layer.lora_B))
    weight = weight + float(layer.scaling[adapter]) * (up @ down)
    if adapter in getattr(layer, "lora_magnitude_vector", {}):
        magnitude: Tensor = layer.lora_magnitude_vector[adapter].weight.detach().float()
        weight = weight * (magnitude / weight.norm(dim=1))[:, None]
    merged = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    merged.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if base.bias is not None:
        merged.bias = nn.Parameter(base.bias.detach().to(dtype), requires_grad=False)
    return merged
